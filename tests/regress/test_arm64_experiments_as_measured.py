"""What QEMU 7.2.22 and 10.0.13 did with arm64 guests whose tables, code and data are in MMIO, cell by cell."""

import pytest

from cxl.bugs.rig import CODE, DATA, Rig
from mmu.arm64.format import Page4K, Tcr
from mmu.tcg import release

BUILDS = {
    "7.2": release("7.2"), "7.2 -icount": release("7.2").replace(icount=True), "10.0": release("10.0"),
    "10.0 -icount": release("10.0").replace(icount=True),
}  # fmt: skip
BOTH = pytest.mark.parametrize("build", ["7.2", "10.0"])
NOWHERE = 0x7_0000_0000  # unassigned memory
FAR_AWAY = DATA + (1 << 30)
SPREAD = {"L1": ("wrr", "r"), "L2": ("rwr", "r"), "L3": ("rrw", "r"), "all": ("www", "w")}
LEVELS = pytest.mark.parametrize("tables, root", SPREAD.values(), ids=SPREAD)

ACCESSES = """
    01 00 40 f9   ldr x1, [x0]
    01 04 00 f9   str x1, [x0, #8]
    02 04 40 f9   ldr x2, [x0, #8]
    03 d0 4f f8   ldur x3, [x0, #0xfd]
    20 01 3f d6   blr x9
    7f 20 03 d5   wfi
"""
CALLED = """
    84 04 00 91   add x4, x4, #1
    c0 03 5f d6   ret
"""
ATOMICS = """
    06 00 25 b8   ldadd w5, w6, [x0]
    07 7c 5f c8   ldxr x7, [x0]
    07 7c 08 c8   stxr w8, x7, [x0]
    29 74 0b d5   dc zva, x9
    7f 20 03 d5   wfi
"""
VALUE = 0x1122334455667788
LOAD = "01 00 40 f9   ldr x1, [x0]\n7f 20 03 d5   wfi"


@LEVELS
@pytest.mark.parametrize("place", ["r", "w"])
@pytest.mark.parametrize("build", BUILDS)
def test_loads_stores_and_branches(tables, root, place, build):
    rig = Rig("aarch64", BUILDS[build], root)
    rig.code(CODE, ACCESSES, place, tables)
    rig.code(FAR_AWAY, CALLED, place, tables)
    rig.fill(rig.map(DATA, place, tables), VALUE.to_bytes(8, "little"))
    seen = rig.observe(
        registers={"x0": DATA, "x9": FAR_AWAY}, results={"x1": VALUE, "x2": VALUE, "x3": 0, "x4": 1})
    assert (seen.outcome, seen.message) == ("ok", "")


@pytest.mark.parametrize("build", BUILDS)
def test_atomics_exclusives_and_dc_zva(build):
    rig = Rig("aarch64", BUILDS[build])
    rig.code(CODE, ATOMICS)
    page = rig.map(DATA, "w", "rrw")
    rig.fill(page, (40).to_bytes(8, "little"))
    rig.fill(page + 256, b"\xff" * 64)
    seen = rig.observe(
        registers={"x0": DATA, "x5": 2, "x9": DATA + 256}, results={"x6": 40, "x7": 42, "x8": 0})
    assert (seen.outcome, seen.message) == ("ok", "")
    assert rig.space.read(page + 256, 64) == bytes(64)


STORE = "01 00 00 f9   str x1, [x0]\n7f 20 03 d5   wfi"

@BOTH
@pytest.mark.parametrize("text, clear, dfsc", [(STORE, 0, 0x0F), (LOAD, Page4K.AF.mask, 0x0B), (LOAD, 1, 0x07)])
def test_faults_through_tables_in_mmio(build, text, clear, dfsc):
    rig = Rig("aarch64", BUILDS[build])
    rig.code(CODE, text)
    rig.map(DATA, tables="rrw", clear=clear)
    if text is STORE:
        at = rig.entry(DATA)
        rig.fill(at, (rig.word(at) | Page4K.AP.put(2)).to_bytes(8, "little"))  # read only
    seen = rig.observe(registers={"x0": DATA})
    (event,) = [event for event in seen.trace if event[0] == "fault"]
    assert (seen.outcome, event.syndrome & 0x3F, event.address) == ("guest-fault", dfsc, DATA)


@BOTH
@pytest.mark.parametrize("depth, esr", [(2, 0x96000016), (3, 0x96000017), (None, 0x96000010)])
def test_tables_and_data_in_unassigned_memory(build, depth, esr):
    """*depth* of the table that is nowhere; None: the page itself."""
    rig = Rig("aarch64", BUILDS[build])
    rig.code(CODE, LOAD)
    rig.map(DATA, NOWHERE if depth is None else "r")
    if depth is not None:
        at = rig.entry(DATA, depth - 1)
        rig.fill(at, (NOWHERE | rig.form.table).to_bytes(8, "little"))
    seen = rig.observe(registers={"x0": DATA})
    (event,) = [event for event in seen.trace if event[0] == "fault"]
    assert (seen.outcome, event.syndrome) == ("guest-fault", esr)


def flags(build, tables, text=LOAD, clear=Page4K.AF.mask, more=0, **fields):
    """A page whose entry is to be updated by hardware: (what was seen, the entry afterwards)."""
    rig = Rig("aarch64", BUILDS[build])
    rig.code(CODE, text)
    rig.map(DATA, tables=tables, clear=clear)
    at = rig.entry(DATA)
    rig.fill(at, (rig.word(at) | more).to_bytes(8, "little"))
    seen = rig.observe(registers={"x0": DATA, "tcr_el1": rig.machine.registers["tcr_el1"] | Tcr.make(**fields)})
    return seen, rig.word(at)


@BOTH
def test_the_access_flag_in_ram(build):
    seen, entry = flags(build, "rrr", HA=1)
    assert (seen.outcome, bool(entry & Page4K.AF.mask)) == ("ok", True)


def test_the_access_flag_in_mmio():
    seen, entry = flags("7.2", "rrw", HA=1)
    (event,) = [event for event in seen.trace if event[0] == "fault"]
    assert (seen.outcome, event.syndrome, entry & Page4K.AF.mask) == ("guest-fault", 0x920000B1, 0)
    seen, entry = flags("10.0", "rrw", HA=1)
    assert (seen.outcome, bool(entry & Page4K.AF.mask)) == ("ok", True)


def test_dirty_state_in_mmio():
    clean = {"clear": 0, "more": Page4K.DBM.mask | Page4K.AP.put(2), "text": STORE}
    seen, entry = flags("10.0", "rrw", HA=1, HD=1, **clean)
    assert (seen.outcome, entry & Page4K.AP.put(2)) == ("ok", 0)
    assert flags("7.2", "rrw", HA=1, HD=1, **clean)[0].outcome == "guest-fault"
