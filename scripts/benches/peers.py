"""What others need for the same walks, where they are installed. Nothing here is required.

A peer is a function of walks and of the addresses to translate, which lie in RAM. It raises ImportError where the
peer is missing, checks the peer's answers, and gives a run over all of the addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.benches.harness import Bench, Row, expect
from scripts.benches.image import PAGE, PS, TABLE
from scripts.benches.machine import RAM_SIZE

if TYPE_CHECKING:
    from scripts.benches.group_walk import Walks

LINK, PROGRAM, ARRAY = 0x1000, 0x2000, 0x10000  # physical; below the first table
SHIFT_PML4 = 39


def unicorn(walks: Walks, va: Any, pa: Any) -> Callable[[], object]:
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
    return run


def volatility3(walks: Walks, va: Any, pa: Any) -> Callable[[], object]:
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
    return run


# (what, how many addresses, whether it is one call from Python for each)
PEERS = {
    unicorn: ("unicorn, guest load with a TLB miss", 20_000, False),
    volatility3: ("volatility3, one call from Python", 1000, True),
}


def rows(bench: Bench, walks: Walks, batch: tuple[str, float], call: tuple[str, float]) -> Iterator[Row]:
    """A row for each peer that is installed, against our (name, ns) of a batch or of a call."""
    (inside,) = np.nonzero(walks.pa < RAM_SIZE)  # pages of 1 GiB reach beyond what peers are given
    for make, (what, count, is_call) in PEERS.items():
        chosen = inside[:count]
        try:
            run = make(walks, walks.va[chosen], walks.pa[chosen])
        except ImportError:
            continue
        yield bench.row(*(call if is_call else batch), what, bench.times({"peer": run}, len(chosen))["peer"])
