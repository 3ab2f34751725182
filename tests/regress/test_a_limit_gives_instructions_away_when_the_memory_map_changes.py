"""
A run under a limit executed an instruction more for each time that the map of memory had changed before a new page of
code: what was to be fetched again had not been counted, and was taken off the count.
"""

from mmu import Mmio, Ram
from tests.guest.machines import PAGE, code, machine

DEVICE = 0x2000_0000


def test_a_limit_gives_instructions_away_when_the_memory_map_changes():
    asked = []

    with machine(tables="ram", code="ram", data="ram", stack="ram") as m:
        def read(offset, size):
            asked.append(offset)
            m.space.map(0xE000_0000 + len(asked) * PAGE, Ram(PAGE))
            return 0

        m.space.map(0xF000_0000, Mmio(PAGE, read, lambda *_: None))
        m.tables.map(DEVICE, 0xF000_0000, PAGE, page_size=PAGE, executable=False)
        source = "1: mov eax, [r12]; jmp 2f; .skip 4100; 2: nop; inc rbx; jmp 1b"
        found = m.load(code("x86_64", source)).set(r12=DEVICE, rbx=0).run(limit=5 * 20 + 3)
        assert (found.counters.instructions, found.registers["rbx"], len(asked)) == (103, 20, 21)
