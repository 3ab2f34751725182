"""What others need for the same walks, where they are installed. Nothing here is required.

`.venv/bin/pip install drgn memprocfs volatility3` brings them to scripts/bench; memprocfs also needs libusb-1.0.so.0.

A peer is a context manager made of walks, of the addresses to translate and of where they lead: in RAM, and not in a
table. It checks the peer's answers and gives a run over all of the addresses; on leaving, what the peer holds is let
go. It raises ImportError where what the peer itself needs is missing, Refused where the peer does not take the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.benches import dump
from scripts.benches.harness import Bench, Row, expect
from scripts.benches.image import PAGE, PS, TABLE
from scripts.benches.machine import RAM_SIZE

if TYPE_CHECKING:
    from scripts.benches.group_walk import Walks

Run = Callable[[], object]
WORDS = 80  # of what a peer says, at most so many characters are printed
LINK, PROGRAM, ARRAY = 0x1000, 0x2000, 0x10000  # physical; below the first table
SHIFT_PML4 = 39


class Refused(Exception):
    """A peer that is here does not take the image; says why in a few words."""


@contextmanager
def opening() -> Iterator[None]:
    """What a peer, or the file that it needs, raises within becomes Refused."""
    try:
        yield
    except Exception as error:  # each peer has its own, often of builtin types
        raise Refused(str(error) or type(error).__name__) from error


@contextmanager
def image_file(walks: Walks, marks: Any, head: bytes = b"") -> Iterator[Path]:
    """The file that `dump.write` writes, for as long as the peer has it. Raises Refused where it cannot be written."""
    with ExitStack() as stack:
        with opening():
            path = Path(stack.enter_context(TemporaryDirectory()), "memory.raw")
            dump.write(path, walks.image, RAM_SIZE, marks, head)
        yield path


@contextmanager
def unicorn(walks: Walks, va: Any, pa: Any) -> Iterator[Run]:
    """A guest that loads from each address: a TLB miss, and so a walk by the emulator itself, each time."""
    import unicorn as uc
    from unicorn import x86_const as reg

    space, slot = walks.space, walks.image.free_slot()
    space.store(LINK, 8, PAGE | PS)  # shows 1 GiB from physical 0 on
    space.store(walks.image.root + 8 * slot, 8, LINK | TABLE)
    base = slot << SHIFT_PML4
    space.write(ARRAY, va.tobytes())
    # next: mov rax,[rsi]; mov rbx,[rax]; add rsi,8; dec rcx; jnz next
    program = bytes.fromhex("488b06 488b18 4883c608 48ffc9 75f1")
    space.write(PROGRAM, program)
    space.write(int(pa[-1]), b"unicorn!")
    guest = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
    guest.mem_map_ptr(0, RAM_SIZE, uc.UC_PROT_ALL, walks.ram)
    guest.ctl_set_tlb_mode(uc.UC_TLB_CPU)
    guest.reg_write(reg.UC_X86_REG_CR3, walks.image.root)
    guest.reg_write(reg.UC_X86_REG_CR4, 0x20)
    guest.msr_write(0xC0000080, 0xD00)
    guest.reg_write(reg.UC_X86_REG_CR0, 0x80010001)

    def run() -> None:
        guest.reg_write(reg.UC_X86_REG_RSI, base + ARRAY)
        guest.reg_write(reg.UC_X86_REG_RCX, len(va))
        guest.emu_start(base + PROGRAM, base + PROGRAM + len(program))

    run()
    expect("unicorn's last load", va[-1:], np.array([guest.reg_read(reg.UC_X86_REG_RBX)]),
           np.frombuffer(b"unicorn!", np.uint64))
    yield run


@contextmanager
def volatility3(walks: Walks, va: Any, pa: Any) -> Iterator[Run]:
    """One call of `Intel32e.translate` each."""
    from volatility3.framework import contexts
    from volatility3.framework.layers import intel, physical

    from mmu.core import ffi

    context = contexts.Context()
    memory = ffi.buffer(ffi.cast("char *", walks.ram), RAM_SIZE)
    context.add_layer(physical.BufferDataLayer(context, "memory", "memory", memory))
    context.config["cpu.memory_layer"] = "memory"
    context.config["cpu.page_map_offset"] = walks.image.root
    layer = intel.Intel32e(context, "cpu", "cpu")
    low = (va & np.uint64((1 << 48) - 1)).tolist()  # it takes addresses without their sign

    def run() -> list[int]:
        return [layer.translate(a)[0] for a in low]

    expect("volatility3", va, run(), pa)
    yield run


@contextmanager
def drgn(walks: Walks, va: Any, pa: Any) -> Iterator[Run]:
    """One `Program.read_u64` each, of a crash dump: a walk and a load. It has no public call for the walk alone."""
    from drgn import Program

    program, addresses = Program(), va.tolist()
    with image_file(walks, pa, dump.vmcore(walks.image, RAM_SIZE)) as core:
        with opening():
            program.set_core_dump(core)
            program.read_u64(addresses[0])

        def run() -> list[int]:
            return [program.read_u64(a) for a in addresses]

        expect("drgn", va, run(), pa)
        yield run


@contextmanager
def memprocfs(walks: Walks, va: Any, pa: Any) -> Iterator[Run]:
    """One `virt2phys` each, of the only process that it makes of a raw image in which it knows no system."""
    import leechcorepyc  # noqa: F401  memprocfs imports it too, but hides why it cannot
    from memprocfs import Vmm

    # No threads beside the timing, no second Python, no network.
    options = ["-norefresh", "-disable-python", "-disable-symbolserver", "-dtb", hex(walks.image.root)]
    addresses = va.tolist()
    with image_file(walks, pa[:0]) as raw:
        with opening():
            vmm = Vmm(["-device", str(raw), *options])
        with closing(vmm):
            with opening():
                memory = vmm.process_list()[0].memory
                memory.virt2phys(addresses[0])

            def run() -> list[int]:
                return [memory.virt2phys(a) for a in addresses]

            expect("MemProcFS", va, run(), pa)
            yield run


@dataclass(frozen=True)
class Peer:
    """`package` is what must be installed, `one` whether each of the *count* addresses is one call from Python."""

    package: str
    prepare: Callable[[Walks, Any, Any], AbstractContextManager[Run]]
    what: str
    count: int
    one: bool = True


PEERS = (
    Peer("unicorn", unicorn, "unicorn, guest load with a TLB miss", 20_000, one=False),
    Peer("memprocfs", memprocfs, "MemProcFS, one virt2phys from Python", 20_000),
    Peer("drgn", drgn, "drgn, one read_u64 (walk, load) from Python", 5000),
    # It keeps the answers for the last 1024 pages: asked for fewer again and again, it would not walk.
    Peer("volatility3", volatility3, "volatility3, one call from Python", 5000),
)


def fit_for_peers(walks: Walks, count: int) -> Any:
    """Indices of at most *count* addresses that lead into RAM, which pages of 1 GiB leave, and not into a table."""
    pa = walks.pa[: 2 * count]
    in_table = np.isin(pa >> np.uint64(12), walks.image.addresses >> np.uint64(12))
    return np.flatnonzero((pa < RAM_SIZE) & ~in_table)[:count]


def rows(bench: Bench, walks: Walks, batch: tuple[str, float], call: tuple[str, float]) -> Iterator[Row]:
    """A row for each peer that is installed, against our (name, ns) of a batch or of a call.

    A peer that cannot be used has a row without times that says why.
    """
    for peer in PEERS:
        if find_spec(peer.package) is None:
            continue
        chosen = fit_for_peers(walks, peer.count)
        try:
            with peer.prepare(walks, walks.va[chosen], walks.pa[chosen]) as run:
                ns = bench.times({"peer": run}, len(chosen))["peer"]
        except (ImportError, Refused) as error:
            why = " ".join(str(error).split())[:WORDS]
            yield Row(bench.group, peer.what, None, f"not measured: {why}")
        else:
            yield bench.row(*(call if peer.one else batch), peer.what, ns)
