"""A guest that has pages of the window in its mirror while something is measured."""

from __future__ import annotations

from collections.abc import Callable

from mmu import Machine as Guest
from mmu import Mmio
from scripts.benches.harness import WrongAnswer
from scripts.benches.machine import RAM_SIZE, WINDOW, Machine

PAGE, MIB = 4096, 1 << 20
# next: mov rax, [rdi]; add rdi, rsi; dec rcx; jnz next; mov [rbx], eax; hlt
TOUCH = bytes.fromhex("488b07 4801f7 48ffc9 75f5 8903 f4")
CODE, DATA, STACK, DEVICE = 0x40_0000, 0x1000_0000, 0x7FFF_FFF0_0000, 0x3000_0000


def while_mirrored(m: Machine, size: int, run: Callable[[], None]) -> None:
    """Call *run* while a guest that touched the first *size* bytes of the window waits in an access to a device."""
    device = Mmio(PAGE, write=lambda offset, size, value: run())
    m.space.map(WINDOW - PAGE, device)
    with Guest(m.space, dispatch="mirror") as guest:
        areas = {name: (RAM_SIZE // 2 + n * MIB, MIB) for n, name in enumerate(("tables", "code", "stack"))}
        guest.setup(tables=areas["tables"], code=(*areas["code"], CODE), data=(WINDOW, size, DATA),
                    stack=(*areas["stack"], STACK))
        guest.tables.map(DEVICE, WINDOW - PAGE, PAGE, page_size=PAGE)
        found = guest.load(TOUCH).set(rdi=DATA, rsi=PAGE, rcx=size // PAGE, rbx=DEVICE).run(timeout=None)
    m.space.unmap(device)
    if (found.stop.reason, found.counters.mirrored) != ("halt", size // PAGE):
        raise WrongAnswer(f"a guest must mirror {size // PAGE} pages and halt, not {found.counters.mirrored} and "
                          f"end with {found.stop.reason}")
