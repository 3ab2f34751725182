"""Every combination of permission bits, against the manual's tables."""

from itertools import product

import numpy as np
import pytest

from mmu import AddressSpace, Ram, arm64
from mmu.types import Access, FaultKind
from tests.arm64 import oracle

R, W, X, U = Access.READ, Access.WRITE, Access.FETCH, Access.UNPRIVILEGED
WXN, EPAN = 1 << 19, 1 << 57
AF, PAGE, TABLE = 1 << 10, 3, 3
HA_HD_EL1, HA_HD_EL2, HPD0, HPD_EL2 = 3 << 39, 3 << 21, 1 << 41, 1 << 24
PAGES = list(product(range(4), range(2), range(2), range(2)))  # AP, PXN, UXN, DBM
TABLES = list(product(range(4), range(2), range(2)))  # APTable, PXNTable, UXNTable
DESCRIPTORS = list(product(TABLES, PAGES))  # one page of VA each
ROOT, LEAVES, OUTPUT = 0x1000, 0x10000, 0x40_0000


def stage1_space():
    """T0SZ 34, 4K: level 2 at ROOT (a table for each of TABLES), level 3 at LEAVES (a page for each of PAGES)."""
    space = AddressSpace()
    space.map(0, Ram(1 << 23))
    for t, (ap, pxn, uxn) in enumerate(TABLES):
        table = LEAVES + 0x1000 * t | TABLE | ap << 61 | uxn << 60 | pxn << 59
        space.write(ROOT + 8 * t, table.to_bytes(8, "little"))
        for p, (ap, pxn, uxn, dbm) in enumerate(PAGES):
            leaf = OUTPUT + 0x1000 * p | PAGE | AF | ap << 6 | pxn << 53 | uxn << 54 | dbm << 51
            space.write(LEAVES + 0x1000 * t + 8 * p, leaf.to_bytes(8, "little"))
    return space


VAS = np.array([t << 21 | p << 12 for t in range(len(TABLES)) for p in range(len(PAGES))], np.uint64)


def permitted(space, regs, access):
    """Which of VAS the access may use; every refusal is a permission fault of level 3 with the right syndrome."""
    found = arm64.walk_many(space, regs, VAS, access, update=False)
    refused = found["status"] != 0
    assert set(found["status"][refused].tolist()) <= {FaultKind.PERMISSION}
    esr = ((0x80 if access & X else 0x90) | 2 | (4 if regs.el else 0)) << 24 | (0x40 if access & W else 0) | 0xF
    assert set(found["esr"][refused].tolist()) <= {esr}
    assert (found["pa"][~refused] == (VAS[~refused] & np.uint64(0xFFFFF)) + np.uint64(OUTPUT)).all()
    return (~refused).tolist()


@pytest.mark.parametrize("el,host", [(0, False), (1, False), (0, True), (2, True)])
def test_two_range_permissions(el, host):
    space = stage1_space()
    for wxn, epan, pan, uao, hpd, hd in product((False, True), repeat=6):
        n = 2 if host else 1
        regs = arm64.Registers(**{
            "el": el, "pan": pan, "uao": uao, "hcr_el2": (1 << 34 | 1 << 27) if host else 0,
            f"sctlr_el{n}": 1 | WXN * wxn | EPAN * epan, f"ttbr0_el{n}": ROOT,
            f"tcr_el{n}": 34 | 1 << 23 | 5 << 32 | HPD0 * hpd | HA_HD_EL1 * hd,
        })  # fmt: skip
        rights = []
        for (ap_table, pxn_table, uxn_table), (ap, pxn, uxn, dbm) in DESCRIPTORS:
            rights.append(oracle.two_ranges(
                ap=ap, pxn=pxn, uxn=uxn, dbm=dbm, ap_table=ap_table, pxn_table=pxn_table, uxn_table=uxn_table,
                hpd=hpd, wxn=wxn, hd=hd,
            ))  # fmt: skip
        for access, letter in ((R, "R"), (W, "W"), (X, "X"), (R | U, "R"), (W | U, "W")):
            as_user = el == 0 or (bool(access & U) and not uao)
            expected = []
            for higher, el0 in rights:
                own = el0 if as_user else higher if access & X else oracle.after_pan(higher, el0, pan=pan, epan=epan)
                expected.append(letter in own)
            assert permitted(space, regs, access) == expected, (regs, access)


@pytest.mark.parametrize("el", (2, 3))
def test_single_range_permissions(el):
    space = stage1_space()
    for wxn, hpd, hd, pan in product((False, True), repeat=4):
        regs = arm64.Registers(**{
            "el": el, "pan": pan, f"sctlr_el{el}": 1 | WXN * wxn, f"ttbr0_el{el}": ROOT,
            f"tcr_el{el}": 34 | 5 << 16 | HPD_EL2 * hpd | HA_HD_EL2 * hd,
        })  # fmt: skip
        rights = [
            oracle.one_range(
                ap=ap, xn=uxn, dbm=dbm, ap_table=ap_table, xn_table=uxn_table, hpd=hpd, wxn=wxn, hd=hd
            )
            for (ap_table, _, uxn_table), (ap, _, uxn, dbm) in DESCRIPTORS
        ]  # fmt: skip
        for access, letter in ((R, "R"), (W, "W"), (X, "X"), (R | U, "R"), (W | U, "W")):
            assert permitted(space, regs, access) == [letter in own for own in rights], (regs, access)


def test_rights_reported_by_a_translation_are_the_tables_rights():
    """Both engines; `allowed` is what the oracle grants, less a write to a clean page."""
    space = stage1_space()
    regs = arm64.Registers(
        sctlr_el1=1 | EPAN | WXN, tcr_el1=34 | 1 << 23 | 5 << 32 | HA_HD_EL1, ttbr0_el1=ROOT, pan=True
    )
    letters = {"R": R, "W": W, "X": X}
    for va, ((ap_table, pxn_table, uxn_table), (ap, pxn, uxn, dbm)) in zip(VAS.tolist(), DESCRIPTORS):
        higher, el0 = oracle.two_ranges(
            ap=ap, pxn=pxn, uxn=uxn, dbm=dbm, ap_table=ap_table, pxn_table=pxn_table, uxn_table=uxn_table,
            wxn=True, hd=True,
        )  # fmt: skip
        own = oracle.after_pan(higher, el0, pan=True, epan=True)
        if not own:
            continue
        clean = dbm and ap & 2
        access = letters[own[0]]
        for engine in ("native", "reference"):
            found = arm64.walk(space, regs, va, access, engine=engine, update=False)
            a = found.attributes
            assert a["privileged"] == sum(letters[r] for r in higher)
            assert a["user"] == sum(letters[r] for r in el0)
            assert a["allowed"] == sum(letters[r] for r in own if not (clean and r == "W"))
            assert (found.writable, found.user, found.executable) == ("W" in higher, el0[:1] == "R", "X" in higher)


STAGE2 = list(product(range(4), range(4), range(2)))  # S2AP, XN, DBM


@pytest.mark.parametrize("el", (0, 1))
def test_stage_2_permissions(el):
    """Stage 1 off: what is left is stage 2's."""
    space = AddressSpace()
    space.map(0, Ram(1 << 20))
    for n, (s2ap, xn, dbm) in enumerate(STAGE2):
        leaf = 0x8_0000 + 0x1000 * n | PAGE | AF | 0xF << 2 | s2ap << 6 | xn << 53 | dbm << 51
        space.write(0x2000 + 8 * n, leaf.to_bytes(8, "little"))
    space.write(0x1000, (0x2000 | TABLE).to_bytes(8, "little"))
    vas = np.arange(len(STAGE2), dtype=np.uint64) << np.uint64(12)
    for hd in (False, True):
        vtcr = 34 | 5 << 16 | HA_HD_EL2 * hd
        regs = arm64.Registers(el=el, hcr_el2=1, vtcr_el2=vtcr, vttbr_el2=0x1000)
        for access, letter in ((R, "R"), (W, "W"), (X, "X")):
            found = arm64.walk_many(space, regs, vas, access, update=False)
            expected = [letter in oracle.stage2(s2ap=a, xn=xn, dbm=d, hd=hd)[el == 0] for a, xn, d in STAGE2]
            assert (found["status"] == 0).tolist() == expected
            assert set(found["status"].tolist()) <= {0, FaultKind.PERMISSION}


def test_both_stages_must_permit():
    """Stage 1 rights of a page and stage 2 rights of its frame, in every pair that differs."""
    space = AddressSpace()
    space.map(0, Ram(1 << 21))
    for p, (ap, pxn, uxn, _) in enumerate(PAGES):  # stage 1 table of 512 pages: 16 kinds times 32 frames
        for f in range(len(STAGE2)):
            leaf = 0x10_0000 + 0x1000 * f | PAGE | AF | ap << 6 | pxn << 53 | uxn << 54
            if p % 2 == 0:
                space.write(0x4000 + 8 * (p // 2 * 32 + f), leaf.to_bytes(8, "little"))
    space.write(0x3000, (0x4000 | TABLE).to_bytes(8, "little"))
    for n in range(0x100):  # stage 2: the tables flat, the frames by kind
        s2ap, xn, _ = STAGE2[n % 32]
        rights = s2ap << 6 | xn << 53 if n >= 0x80 else 3 << 6
        at = 0x6000 + 8 * (n + 0x80 if n >= 0x80 else n)
        target = 0x18_0000 + 0x1000 * n if n >= 0x80 else 0x1000 * n
        space.write(at, (target | PAGE | AF | 0xF << 2 | rights).to_bytes(8, "little"))
    space.write(0x5000, (0x6000 | TABLE).to_bytes(8, "little"))
    vas = np.arange(512, dtype=np.uint64) << np.uint64(12)
    for el, (access, letter) in product((0, 1), ((R, "R"), (W, "W"), (X, "X"))):
        regs = arm64.Registers(
            el=el, sctlr_el1=1, tcr_el1=34 | 1 << 23 | 5 << 32, ttbr0_el1=0x3000, hcr_el2=1, vtcr_el2=34 | 5 << 16,
            vttbr_el2=0x5000,
        )  # fmt: skip
        expected = []
        for (ap, pxn, uxn, _), f in product(PAGES[::2], range(32)):
            s2ap, xn, _ = STAGE2[f]
            one, two = oracle.two_ranges(ap=ap, pxn=pxn, uxn=uxn), oracle.stage2(s2ap=s2ap, xn=xn)
            expected.append(letter in one[el == 0] and letter in two[el == 0])
        assert (arm64.walk_many(space, regs, vas, access)["status"] == 0).tolist() == expected
