"""The C walker is the reference walker: result, steps, bus accesses, write-backs, syndrome."""

from dataclasses import fields
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmu import arm64
from mmu.arm64.native import c_registers
from mmu.core import ffi, lib
from mmu.types import Fault, FaultKind, MemTxResult
from tests.arm64 import soup

BATCHES, CASES = 8, 1500


def outcome(bowl, engine, regs, va, access, update):
    with bowl.space.trace() as entries:
        result = arm64.walk(bowl.space, regs, va, access, engine=engine, update=update)
    return result, result.steps, list(entries)


def native_esr(fault, regs):
    c = ffi.new("struct mmu_arm64_fault *")
    c.kind, c.access, c.level, c.stage, c.on_table = fault.kind, fault.access, fault.level, fault.stage, fault.on_table
    c.result = fault.detail.get("result", MemTxResult.OK).value
    return lib.mmu_arm64_esr(c, c_registers(regs))


def compare(slow, fast, regs, va, access, update):
    expected = outcome(slow, "reference", regs, va, access, update)
    actual = outcome(fast, "native", regs, va, access, update)
    for one, two in zip(expected, actual):
        assert one == two
    if isinstance(expected[0], Fault):
        assert arm64.exception(expected[0], regs).esr == native_esr(expected[0], regs)
    return expected[0]


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False))
def test_native_walk_is_the_reference_walk(rng):
    big_endian = rng.randrange(4) == 0
    regs = soup.registers(rng, big_endian)
    contents = soup.fill(rng.randrange(4), bool(rng.randrange(2)), big_endian)
    changes, every = rng.randrange(4), rng.randint(1, 3)
    slow, fast = soup.Bowl(contents, changes, every), soup.Bowl(contents, changes, every)
    compare(slow, fast, regs, soup.address(rng), rng.choice(soup.ACCESSES), bool(rng.randrange(8)))
    assert slow.contents() == fast.contents()


def unchecked(**values):
    """Registers with values that the constructor refuses; a guest may write any."""
    regs = object.__new__(arm64.Registers)
    regs.__dict__.update({f.name: f.default for f in fields(arm64.Registers)} | values)
    return regs


@pytest.mark.parametrize("seed", range(4))
def test_twins_agree_on_any_register_values(seed):
    """What the constructor refuses is defined too: out of range faults at level 0."""
    rng = Random(3000 + seed)
    contents = soup.fill(seed, True, False)
    slow, fast = soup.Bowl(contents), soup.Bowl(contents)
    for _ in range(500):
        values = {f.name: rng.getrandbits(64) for f in fields(arm64.Registers)}
        values |= {"el": rng.randrange(4), "pa_range": rng.choice((32, 40, 48, 52)), "pan": False, "uao": False}
        for name in ("ttbr0_el1", "ttbr1_el1", "ttbr0_el2", "ttbr1_el2", "ttbr0_el3", "vttbr_el2"):
            values[name] = soup.ttbr(rng)
        for name in ("sctlr_el1", "sctlr_el2", "sctlr_el3"):
            values[name] = values[name] & ~(1 << 25) | rng.randrange(2)
        regs = unchecked(**values)
        compare(slow, fast, regs, soup.address(rng), rng.choice(soup.ACCESSES), True)
    assert slow.contents() == fast.contents()


def batch(seed):
    """Many cases in one memory, which the walks change as they go. Returns what was met."""
    rng, more, seen = Random(seed), Random(~seed), set()
    big_endian, high = seed % 4 == 3, bool(seed % 2)
    contents = soup.fill(seed, high, big_endian)
    slow, fast = soup.Bowl(contents, CASES, 7), soup.Bowl(contents, CASES, 7)
    for _ in range(CASES):
        regs, va = soup.registers(rng, big_endian), soup.address(rng)
        access = soup.maintained(more, rng.choice(soup.ACCESSES))
        result = compare(slow, fast, regs, va, access, bool(rng.randrange(8)))
        if isinstance(result, Fault):
            seen.add((result.kind, result.level, result.stage, result.on_table))
        else:
            seen.add((None, result.attributes["level"], result.attributes.get("s2_level")))
    assert slow.contents() == fast.contents()
    return seen


@pytest.fixture(scope="module")
def met():
    return set().union(*(batch(seed) for seed in range(BATCHES)))


@pytest.mark.parametrize("level", (1, 2, 3))
@pytest.mark.parametrize("kind", ("NOT_PRESENT", "BUS", "ADDRESS_SIZE", "PERMISSION", "ACCESS_FLAG"))
def test_twins_met_every_fault_at_both_stages(met, kind, level):
    """Else their agreement proves little."""
    for stage, on_table in ((1, False), (2, False), (2, True)):
        assert (FaultKind[kind], level, stage, on_table) in met


@pytest.mark.parametrize("kind,level", [("NOT_PRESENT", 0), ("BUS", 0), ("ADDRESS_SIZE", 0), ("BUS", -1)])
def test_twins_met_the_faults_of_the_first_levels(met, kind, level):
    assert (FaultKind[kind], level, 1, False) in met


def test_twins_met_translations_of_every_size(met):
    pairs = {found[1:] for found in met if found[0] is None}
    assert {(one, two) for one in (None, 2, 3) for two in (None, 2, 3)} <= pairs
    assert 1 in {one for one, _ in pairs}
    assert 1 in {two for _, two in pairs}
