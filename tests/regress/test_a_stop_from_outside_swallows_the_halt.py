"""
A run that halted while another thread asked for its end was said to have ended for that: who went on ran behind the
halt.
"""

import pytest

from mmu import Mmio
from tests.guest.machines import CODE, DATA, PAGE, code, machine

SHARED = 0x2000_0000
LOADS = {
    "x86_64": ("mov eax, [r12]; mov ebx, 7", "r12", "rbx"),
    "aarch64": ("ldr w9, [x12]; mov w11, #7", "x12", "x11"),
}


@pytest.mark.parametrize("arch", LOADS)
def test_a_stop_from_outside_swallows_the_halt(arch):
    source, base, result = LOADS[arch]
    with machine(arch) as m:
        m.space.map(0xF000_0000, Mmio(PAGE, lambda offset, size: m.cpu.interrupt() or 0, lambda *_: None))
        m.tables.map(SHARED, 0xF000_0000, PAGE, page_size=PAGE, executable=False)
        found = m.load(code(arch, source)).set(**{base: SHARED}).run()
        assert (found.stop.reason, found.registers[result]) == ("halt", 7)


def test_a_stop_from_outside_at_address_0():
    """Where the engine ends by itself, which is no halt either."""
    with machine() as m:
        m.space.map(0xF000_0000, Mmio(PAGE, lambda offset, size: m.cpu.interrupt() or 0, lambda *_: None))
        m.tables.map(SHARED, 0xF000_0000, PAGE, page_size=PAGE, executable=False)
        m.load(code("x86_64", "nop; mov ebx, 9"))
        m.tables.map(0, m.plan.code.base, PAGE, page_size=PAGE)
        m.write(CODE + 0x800, code("x86_64", "xor eax, eax; mov ebx, [r12]; jmp rax"))
        stop = m.set(rip=CODE + 0x800, r12=SHARED, rdi=DATA).run().stop
        assert (stop.reason, stop.pc, m.registers["rbx"]) == ("timeout", 0, 0)
        assert (m.run().stop.reason, m.registers["rbx"]) == ("halt", 9)
