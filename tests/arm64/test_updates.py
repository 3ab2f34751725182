"""Access flag and dirty state, by hardware and by software; entries that change during the walk."""

import pytest

from mmu import Mmio, arm64
from mmu.types import MemTxResult
from tests.arm64.hand import (
    AF,
    AP_RO,
    AP_RO_EL0,
    DBM,
    HA,
    HD,
    PAGE,
    TABLE,
    R,
    W,
    X,
    el1,
    four_levels,
    memory,
    status,
    word,
)  # fmt: skip

OLD = 0x5000 | PAGE
AT = 0x4000  # the leaf of four_levels at VA 0


def one(leaf, more, **registers):
    words, _ = four_levels(leaf, va=0)
    return memory(words), el1("4K", 16, 0x1000, more, **registers)


@pytest.mark.parametrize("access", (R, W, X))
def test_clear_access_flag_faults_without_ha(engine, access):
    space, regs = one(OLD, 0)
    assert status(space, regs, 0, access, engine)[:2] == ("ACCESS_FLAG", 3)
    assert word(space, AT) == OLD


@pytest.mark.parametrize("level", (1, 2, 3))
def test_access_flag_fault_carries_its_level(engine, level):
    words = {0x1000 * (n + 1): 0x1000 * (n + 2) | TABLE for n in range(level)}
    words[0x1000 * (level + 1)] = 1 << 30 | (PAGE if level == 3 else 1)
    assert status(memory(words), el1("4K", 16, 0x1000), 0, R, engine) == ("ACCESS_FLAG", level, 0x9600_0008 | level)


@pytest.mark.parametrize("access", (R, W, X))
def test_hardware_sets_the_access_flag_by_one_exchange(engine, access):
    space, regs = one(OLD, HA)
    with space.trace() as entries:
        found = arm64.walk(space, regs, 0, access, engine=engine)
    assert (found.pa, found.attributes["af"]) == (0x5000, 1)
    assert word(space, AT) == OLD | AF
    assert [e.kind for e in entries] == ["read"] * 4 + ["exchange"]
    assert (entries[-1].address, entries[-1].size, entries[-1].desired, entries[-1].stored) == (AT, 8, OLD | AF, True)
    with space.trace() as entries:
        arm64.walk(space, regs, 0, access, engine=engine)
    assert [e.kind for e in entries] == ["read"] * 4


def test_permission_fault_leaves_the_access_flag_clear(engine):
    space, regs = one(OLD | AP_RO, HA | HD)
    assert status(space, regs, 0, W, engine) == ("PERMISSION", 3, 0x9600_004F)
    assert word(space, AT) == OLD | AP_RO


def test_access_flag_fault_comes_before_the_permission_fault(engine):
    space, regs = one(OLD | AP_RO, 0)
    assert status(space, regs, 0, W, engine)[0] == "ACCESS_FLAG"


@pytest.mark.parametrize("more,access,after", [
    (HA | HD, W, OLD | DBM | AF),  # AP[2] cleared: dirty
    (HA | HD, R, OLD | DBM | AF | AP_RO),
    (HA | HD, X, OLD | DBM | AF | AP_RO),
    (HA, R, OLD | DBM | AF | AP_RO),
])  # fmt: skip
def test_dirty_state(engine, more, access, after):
    space, regs = one(OLD | DBM | AP_RO, more)
    found = arm64.walk(space, regs, 0, access, engine=engine)
    assert word(space, AT) == after
    assert found.writable == bool(more & HD)
    # A write must walk again as long as the page is clean.
    assert bool(found.attributes["allowed"] & W) == (access is W)


@pytest.mark.parametrize("more", (0, HA, HD))
def test_dirty_state_needs_ha_and_hd(engine, more):
    space, regs = one(OLD | AF | DBM | AP_RO, more)
    assert status(space, regs, 0, W, engine) == ("PERMISSION", 3, 0x9600_004F)
    assert word(space, AT) == OLD | AF | DBM | AP_RO


def test_aptable_still_refuses_a_page_with_dbm(engine):
    space, regs = one(OLD | AF | DBM | AP_RO, HA | HD)
    space.write(0x3000, (0x4000 | TABLE | 2 << 61).to_bytes(8, "little"))
    assert status(space, regs, 0, W, engine) == ("PERMISSION", 3, 0x9600_004F)
    assert word(space, AT) == OLD | AF | DBM | AP_RO


def test_wxn_counts_a_page_with_dbm_as_writable(engine):
    words, _ = four_levels(OLD | AF | DBM | AP_RO, va=0)
    regs = arm64.Registers(sctlr_el1=1 | 1 << 19, tcr_el1=el1("4K", 16, 0, HA | HD).tcr_el1, ttbr0_el1=0x1000)
    assert status(memory(words), regs, 0, X, engine) == ("PERMISSION", 3, 0x8600_000F)


def test_walk_without_update_changes_nothing_and_succeeds(engine):
    space, regs = one(OLD | DBM | AP_RO_EL0, HA | HD)
    with space.trace() as entries:
        found = arm64.walk(space, regs, 0, W, engine=engine, update=False)
    assert (found.pa, found.attributes["af"]) == (0x5000, 0)
    assert not found.attributes["allowed"] & W
    assert [e.kind for e in entries] == ["read"] * 4


class Device:
    """The leaf's page as a device in which others act: `then` replaces the value after a read."""

    def __init__(self, value, then=()):
        self.value, self.then, self.log = value, list(then), []

    def read(self, offset, size):
        self.log.append(("read", size))
        value = self.value
        if self.then:
            self.value = self.then.pop(0)
        return value

    def write(self, offset, size, value):
        self.log.append(("write", size))
        self.value = value


def behind(device, more):
    words, _ = four_levels(0, va=0)
    space = memory(words)
    space.map(0x4000, Mmio(0x1000, device.read, device.write), priority=1)
    return space, el1("4K", 16, 0x1000, more)


def test_access_flag_in_a_device_takes_a_read_a_read_and_a_write(engine):
    """As QEMU 9.0 and later do; earlier ones gave an unsupported atomic update fault."""
    device = Device(OLD)
    space, regs = behind(device, HA)
    assert status(space, regs, 0, R, engine) == ("", 3, 0x5000)
    assert device.value == OLD | AF
    assert device.log == [("read", 8), ("read", 8), ("write", 8)]


def test_entry_that_changed_under_the_walk_is_walked_again_from_the_root(engine):
    device = Device(OLD, then=[0x6000 | PAGE])
    space, regs = behind(device, HA)
    with space.trace() as entries:
        assert status(space, regs, 0, R, engine) == ("", 3, 0x6000)
    assert device.value == 0x6000 | PAGE | AF
    walk = [("read", 0x1000), ("read", 0x2000), ("read", 0x3000), ("read", 0x4000), ("exchange", 0x4000)]
    assert [(e.kind, e.address) for e in entries] == walk * 2


def test_entry_that_became_invalid_under_the_walk_is_a_fault(engine):
    device = Device(OLD, then=[0])
    space, regs = behind(device, HA)
    assert status(space, regs, 0, R, engine) == ("NOT_PRESENT", 3, 0x9600_0007)


def test_write_back_that_the_bus_refuses_is_an_external_abort_on_the_walk(engine):
    words, _ = four_levels(0, va=0)
    space = memory(words)
    space.map(0x4000, Mmio(0x1000, lambda o, s: OLD, lambda o, s, v: MemTxResult.ERROR), priority=1)
    found = arm64.walk(space, el1("4K", 16, 0x1000, HA), 0, R, engine=engine)
    assert (found.entry_address, found.entry) == (0x4000, OLD)
    assert status(space, el1("4K", 16, 0x1000, HA), 0, R, engine) == ("BUS", 3, 0x9600_0217)


def test_big_endian_entry_is_updated_in_its_own_order(engine):
    words, _ = four_levels(OLD, va=0)
    swapped = {at: int.from_bytes(w.to_bytes(8, "little"), "big") for at, w in words.items()}
    regs = arm64.Registers(sctlr_el1=1 | 1 << 25, tcr_el1=el1("4K", 16, 0, HA).tcr_el1, ttbr0_el1=0x1000)
    space = memory(swapped)
    arm64.walk(space, regs, 0, R, engine=engine)
    assert int.from_bytes(space.read(AT, 8), "big") == OLD | AF
