"""
A run did not end any more, whoever asked for it, when a bus error was gone while its address was being looked for: the
guest went on from there, with nothing it stored anywhere.
"""

from mmu import Access, Mmio, arm64
from tests.guest.machines import CODE, MIB, PAGE, code, machine

FAILS, HOLE = 0x2000_0000, 0x3_0000_0000


def test_a_bus_error_that_goes_away_runs_for_ever():
    """The page is in a hole when the guest loads from it, and in RAM ever after."""
    with machine("aarch64", tables="ram", code="ram", data="ram", stack="ram") as m:
        m.tables.map(FAILS, HOLE, PAGE, page_size=PAGE, executable=False)
        *_, upper, leaf = arm64.walk(m.space, m.walk_registers(), FAILS, Access.READ, update=False).steps
        table = leaf.address // PAGE * PAGE
        image, looks = bytearray(m.space.read(table, PAGE)), []

        def read(offset, size):
            if offset == leaf.address - table:
                looks.append(offset)
                if len(looks) > 1:
                    return leaf.value - HOLE + 40 * MIB
            return int.from_bytes(image[offset : offset + size], "little")

        m.space.map(0xF000_0000, Mmio(PAGE, read, lambda *_: None))
        m.space.store(upper.address, 8, upper.value - table + 0xF000_0000)
        m.load(code("aarch64", "ldr x9, [x12]; 1: add x1, x1, #1; b 1b"))
        found = m.set(x12=FAILS, x1=0).run(timeout=60)
        assert (found.stop.reason, found.stop.pc, found.registers["x1"]) == ("fault", CODE, 0)
        assert len(looks) > 1
