"""Text of a walk: what an expert looks for must be on the line."""

from mmu.show import flags_text, size_text, walk_text
from mmu.types import Access, Fault, FaultKind, Place, Step, Translation

STEP = Step(4, "PML4E", 0x2F0001000, 0x2F0002023, {"P": 1, "RW": 1, "US": 0, "A": 1, "ADDR": 0x2F0002, "PKEY": 5},
            place=Place("window0", 0x1000, "mem0", 0x800))  # fmt: skip


def test_flags_by_name_wider_fields_by_value():
    assert flags_text(STEP) == "P RW A PKEY=0x5"


def test_sizes():
    assert [size_text(n) for n in (4096, 2 << 20, 1 << 30, 256, 4097)] == ["4 KiB", "2 MiB", "1 GiB", "256 B", "4097 B"]


def test_translation_names_device_and_dpa_of_each_entry():
    result = Translation(0x2F0100010, 4096, True, False, True, steps=(STEP,))
    assert walk_text(0x400010, Access.READ, result, Place("window0", 0x100010, "mem1", 0x80010)).splitlines() == [
        "walk of 0x400010 for read",
        "  PML4E  at 0x0002f0001000 = 0x00000002f0002023  mem0 DPA 0x800          P RW A PKEY=0x5",
        "-> 0x2f0100010, mem1 DPA 0x80010: 4 KiB page, writable, executable",
    ]


def test_fault_names_kind_level_and_stage():
    fault = Fault(FaultKind.NOT_PRESENT, 4, 0x400010, Access.WRITE, stage=2, gpa=0x1000)
    assert walk_text(0x400010, Access.WRITE | Access.STACK, fault).splitlines() == [
        "walk of 0x400010 for write, stack",
        "-> fault: not present at level 4, stage 2, guest-physical 0x1000",
    ]
