"""Differential test against unicorn's own arm64 MMU. MMU_SEED=n chooses other cases."""

import os
from collections import Counter
from random import Random

from mmu import arm64
from mmu.arm64.format import GRANULES, Tcr
from mmu.types import Access, Fault, FaultKind
from tests.arm64 import soup, unicorn_at

SEED = int(os.environ.get("MMU_SEED", "1"))
MEMORIES, CONFIGURATIONS, ADDRESSES = 5, 36, 240  # times six operations: 259,200 queries


def registers(rng):
    """What QEMU 5.0 has: no LPA2, LVA, TTST or E0PD; no hardware updates, and no EPAN."""
    g0, g1 = rng.choice(GRANULES), rng.choice(GRANULES)
    tcr = Tcr.make(T0SZ=rng.randint(16, 39), T1SZ=rng.randint(16, 39), TG0=g0.tg0, TG1=g1.tg1, IPS=5)
    for name in ("TBI0", "TBI1", "HPD0", "HPD1"):
        tcr |= soup.maybe(rng, Tcr.fields[name].mask, 2)
    for name in ("EPD0", "EPD1"):
        tcr |= soup.maybe(rng, Tcr.fields[name].mask, 16)
    return {
        "sctlr_el1": 0x30D00801 | soup.maybe(rng, 1 << 19, 2), "tcr_el1": tcr, "mair_el1": rng.getrandbits(64),
        "ttbr0_el1": rng.randrange(soup.SIZE // 64) * 64, "ttbr1_el1": rng.randrange(soup.SIZE // 64) * 64,
    }  # fmt: skip


def comparable(par, res0):
    """PAR_EL1 without what QEMU 5.0 does otherwise in a translation.

    It reports SH of Device and Non-cacheable memory as the page has it, and adds a block's RES0 bits to the address.
    """
    if par & 1:
        return par
    attr = par >> 56
    return par & ~res0 & ~(3 << 7 if attr >> 4 == 0 or attr == 0x44 else 0)


def excluded(found):
    """Why QEMU 5.0 walks this address otherwise, or None."""
    if not isinstance(found, Fault):
        return None
    if found.kind is FaultKind.NOT_PRESENT and found.level < 3 and (found.entry or 0) & 3 == 1:
        return "it accepts a block at a level that has none"
    if found.kind is FaultKind.BUS:
        return "a table lies where its memory does not reach"
    return None


def res0_of(found):
    """Address bits of the leaf that lie below its size."""
    if isinstance(found, Fault):
        return 0
    return found.steps[-1].value & found.page_size - 1 & ~0xFFF


def compare(bowl, other, rng, seen, skipped):
    """One configuration of registers; *seen* counts queries by operation and outcome."""
    values = registers(rng)
    regs, plain = arm64.Registers(**values, pan=True), arm64.Registers(**values)
    addresses = [soup.address(rng) for _ in range(ADDRESSES)]
    for va, theirs in zip(addresses, other.par(values, addresses)):
        found = arm64.walk(bowl.space, plain, va, Access.READ, update=False)
        why = excluded(found)
        if why:
            skipped[why] += len(theirs)
            continue
        res0 = res0_of(found)
        for operation, expected in zip(unicorn_at.OPERATIONS, theirs):
            actual = arm64.at(bowl.space, regs, va, operation)
            seen["translated" if actual & 1 == 0 else f"FST {actual >> 1 & 0x3F:#04x}"] += 1
            assert comparable(actual, res0) == comparable(expected, res0), (SEED, operation, hex(va), regs)


def test_par_is_what_unicorn_finds():
    rng, seen, skipped = Random(SEED), Counter(), Counter()
    for seed in range(MEMORIES):
        contents = soup.fill(100 + seed, True, False)
        bowl, other = soup.Bowl(contents), unicorn_at.UnicornMmu(contents)
        bowl.space.unmap(bowl.refused)
        for _ in range(CONFIGURATIONS):
            compare(bowl, other, rng, seen, skipped)
    print(f"MMU_SEED={SEED}: {sum(seen.values())} queries: {dict(seen)}; left out: {dict(skipped)}")
    assert sum(seen.values()) >= 200_000
    statuses = {"FST 0x04"} | {f"FST {code | level:#04x}" for code in (4, 8, 12) for level in (1, 2, 3)}
    assert statuses | {"translated"} <= set(seen)
