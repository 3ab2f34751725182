"""Rows of the group "bus": 1 MiB at once, of RAM, of a window, and of one that a running guest has in its mirror."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from mmu import Machine as Guest
from mmu import Mmio
from scripts.benches.harness import Bench, Row, WrongAnswer
from scripts.benches.machine import RAM_SIZE, WINDOW, Machine

BLOCK = 1 << 20
# next: mov rax, [rdi]; add rdi, rsi; dec rcx; jnz next; mov [rbx], eax; hlt
TOUCH = bytes.fromhex("488b07 4801f7 48ffc9 75f5 8903 f4")
CODE, DATA, STACK, DEVICE = 0x40_0000, 0x1000_0000, 0x7FFF_FFF0_0000, 0x3000_0000


def repeat(call: Callable[[], object], count: int) -> None:
    for _ in range(count):
        call()


def blocks(bench: Bench, m: Machine) -> Iterator[Row]:
    """1 MiB at once, over and over: it stays in the caches, as does what it is compared with."""
    yield from _copies(bench, m, "RAM", 0, 3.0)
    yield from _copies(bench, m, "a 4-way 256 B window", WINDOW, 6.0)
    rows: list[Row] = []
    _while_mirrored(m, lambda: rows.extend(_copies(bench, m, "the window, mirrored", WINDOW, 2.0)))
    yield from rows


def _copies(bench: Bench, m: Machine, where: str, base: int, limit: float) -> Iterator[Row]:
    times, s = bench.items(200), m.space
    data = np.random.default_rng(2).integers(0, 256, BLOCK, np.uint8)
    copy, raw = np.zeros_like(data), data.tobytes()
    s.write(base, raw)
    if s.read(base, BLOCK) != raw:
        raise WrongAnswer(f"1 MiB of {where} is not what was written")
    runs = {
        f"read of 1 MiB, {where}": lambda: s.read(base, BLOCK),
        f"write of 1 MiB, {where}": lambda: s.write(base, raw),
        "memcpy": lambda: np.copyto(copy, data),
    }
    measured = bench.times({n: lambda run=run: repeat(run, times) for n, run in runs.items()}, times)
    for name in list(runs)[:2]:
        yield bench.row(name, measured[name], "memcpy", measured["memcpy"], limit)


def _while_mirrored(m: Machine, run: Callable[[], None]) -> None:
    """Call *run* while a guest that touched the first MiB of the window waits in an access to a device."""
    device = Mmio(4096, write=lambda offset, size, value: run())
    m.space.map(WINDOW - 4096, device)
    with Guest(m.space, dispatch="mirror") as guest:
        areas = {name: (RAM_SIZE // 2 + n * BLOCK, BLOCK) for n, name in enumerate(("tables", "code", "stack"))}
        guest.setup(tables=areas["tables"], code=(*areas["code"], CODE), data=(WINDOW, BLOCK, DATA),
                    stack=(*areas["stack"], STACK))
        guest.tables.map(DEVICE, WINDOW - 4096, 4096, page_size=4096)
        found = guest.load(TOUCH).set(rdi=DATA, rsi=4096, rcx=BLOCK // 4096, rbx=DEVICE).run(timeout=None)
    if (found.stop.reason, found.counters.mirrored) != ("halt", BLOCK // 4096):
        raise WrongAnswer(f"a guest must mirror {BLOCK // 4096} pages and halt, not {found.counters.mirrored} and "
                          f"end with {found.stop.reason}")
    m.space.unmap(device)
