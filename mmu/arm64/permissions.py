"""What the tables let whom do. Source: DDI 0487, shared pseudocode, AArch64.S1DirectBasePermissions and S2 twin."""

from __future__ import annotations

from dataclasses import dataclass

from mmu.arm64.format import Stage1Leaf, Stage1Table, Stage2Leaf
from mmu.arm64.regime import Stage1
from mmu.types import Access

NONE = Access(0)
ALL = Access.READ | Access.WRITE | Access.FETCH
AP_READ_ONLY, AP_EL0 = 2, 1  # AP[2], AP[1]; the same places in APTable
S2AP_READ, S2AP_WRITE = 1, 2


@dataclass(frozen=True, slots=True)
class Rights:
    """What the regime's higher EL and what EL0 may do; PAN and UAO are not in it."""

    privileged: Access
    user: Access

    def __and__(self, other: Rights) -> Rights:
        return Rights(self.privileged & other.privileged, self.user & other.user)


EVERYTHING = Rights(ALL, ALL)


def _access(read: bool, write: bool, fetch: bool) -> Access:
    return Access(Access.READ * read | Access.WRITE * write | Access.FETCH * fetch)


def stage1_rights(p: Stage1, descriptor: int, table: int) -> Rights:
    """Rights of a leaf below tables whose attributes, OR-ed together, are *table* (0 with HPD).

    With hardware dirty state a leaf with DBM counts as writable, for every access: WXN follows it.
    """
    ap, ap_table = Stage1Leaf.AP.get(descriptor), Stage1Table.APTABLE.get(table)
    if p.tables.hd and Stage1Leaf.DBM.get(descriptor):
        ap &= ~AP_READ_ONLY
    write = not (ap | ap_table) & AP_READ_ONLY
    if not p.regime.two_ranges:
        fetch = not (Stage1Leaf.UXN.get(descriptor) or Stage1Table.UXNTABLE.get(table) or (p.wxn and write))
        return Rights(_access(True, write, fetch), NONE)
    user = bool(ap & AP_EL0) and not ap_table & AP_EL0
    user_write = user and write
    # What EL0 can write the higher EL does not execute.
    fetch = not (Stage1Leaf.PXN.get(descriptor) or Stage1Table.PXNTABLE.get(table) or user_write)
    user_fetch = not (Stage1Leaf.UXN.get(descriptor) or Stage1Table.UXNTABLE.get(table))
    return Rights(
        _access(True, write, fetch and not (p.wxn and write)),
        _access(user, user_write, user_fetch and not (p.wxn and user_write)),
    )


def stage2_rights(hd: bool, descriptor: int) -> Rights:
    """Rights of a stage 2 leaf (FEAT_XNX). With hardware dirty state a leaf with DBM counts as writable."""
    s2ap, xn = Stage2Leaf.S2AP.get(descriptor), Stage2Leaf.XN.get(descriptor)
    if hd and Stage2Leaf.DBM.get(descriptor):
        s2ap |= S2AP_WRITE
    read, write = bool(s2ap & S2AP_READ), bool(s2ap & S2AP_WRITE)
    return Rights(_access(read, write, xn in (0, 3)), _access(read, write, xn in (0, 1)))


def granted(rights: Rights, *, user: bool, pan: bool, epan: bool) -> Access:
    """What an access may do. PAN takes data access from the higher EL where EL0 has any (with EPAN: or may fetch)."""
    if user:
        return rights.user
    data = Access.READ | Access.WRITE
    if pan and rights.user & (ALL if epan else data):
        return rights.privileged & ~data
    return rights.privileged
