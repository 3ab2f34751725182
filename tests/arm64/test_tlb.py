"""What each TLBI removes, by regime, VMID, ASID, address and stage; and a TLB against fresh walks."""

import random

import pytest

from mmu import Access, AddressSpace, Fault, Frames, Ram, Translation, arm64
from mmu.tlb import Domain
from mmu.tlb.arm64 import OPERATIONS, Arm64Tlb, operation

K, M, G = 1 << 10, 1 << 20, 1 << 30
READ, WRITE, FETCH = Access.READ, Access.WRITE, Access.FETCH
E2H, TGE, VM = 1 << 34, 1 << 27, 1
NEAR, FAR, HIGH = 0x40_0000, 0x41_0000, 0xFFFF_FFFF_FFE0_0000
TCR = 16 | 16 << 16 | 2 << 30 | 5 << 32 | 1 << 36  # 48 bits, 4K granules, 16-bit ASIDs


def registers(**more):
    return arm64.Registers(**{"sctlr_el1": 1, "tcr_el1": TCR, "ttbr0_el1": 7 << 48, **more})


def entry(tlb, name, regime, va, *, asid=0, vm=0, is_global=False, stage=1, size=4 * K):
    """An entry, named by its physical address."""
    answer = Translation(name << 20, size, True, False, True)
    tlb.tlb.fill(va, answer, READ, Domain(regime, asid, vm, name), is_global=is_global, stage=stage)


def filled(regs):
    """Names: 1.. EL1&0 of VMID 0; 11.. of VMID 1; 21.. EL2&0; 31 EL2; 41 EL3; 51.. stage 2 (by IPA)."""
    tlb = Arm64Tlb(AddressSpace(), regs, entries=1, victims=40)
    for name, vm in ((0, 0), (10, 1)):
        entry(tlb, name + 1, "EL1&0", NEAR, asid=7, vm=vm)
        entry(tlb, name + 2, "EL1&0", NEAR, asid=8, vm=vm)
        entry(tlb, name + 3, "EL1&0", FAR, asid=7, vm=vm)
        entry(tlb, name + 4, "EL1&0", HIGH, asid=7, vm=vm, is_global=True, size=2 * M)
    entry(tlb, 21, "EL2&0", NEAR, asid=7)
    entry(tlb, 22, "EL2&0", NEAR, asid=8)
    entry(tlb, 23, "EL2&0", NEAR + G, asid=7, is_global=True)
    entry(tlb, 31, "EL2", NEAR, is_global=True)
    entry(tlb, 32, "EL2", FAR, is_global=True)
    entry(tlb, 41, "EL3", NEAR, is_global=True)
    entry(tlb, 51, "EL1&0", NEAR, vm=0, stage=2, is_global=True)
    entry(tlb, 61, "EL1&0", NEAR, vm=1, stage=2, is_global=True)
    return tlb


ALL = {1, 2, 3, 4, 11, 12, 13, 14, 21, 22, 23, 31, 32, 41, 51, 61}


def kept(tlb):
    return {e.answer.pa >> 20 for e in tlb.tlb.entries()}


def by_va(va, asid=0):
    return (va >> 12 & (1 << 44) - 1) | asid << 48


def ranged(va, asid=0, number=0, scale=0, granule=1):
    shift = {1: 12, 2: 14, 3: 16}[granule]
    return (va >> shift & (1 << 37) - 1) | number << 39 | scale << 44 | granule << 46 | asid << 48


GUEST = {"vttbr_el2": 1 << 48}  # VMID 1 is current
HOST = {"hcr_el2": E2H | TGE, "el": 2, "sctlr_el2": 1, "tcr_el2": TCR}
PLAIN_EL2 = {"el": 2}
RULES = [
    ("VMALLE1", {}, 0, {1, 2, 3, 4}),
    ("VMALLE1", GUEST, 0, {11, 12, 13, 14}),
    ("VMALLE1", HOST, 0, {21, 22, 23}),
    ("VMALLE1", PLAIN_EL2, 0, {1, 2, 3, 4}),
    ("VMALLS12E1", {}, 0, {1, 2, 3, 4, 51}),
    ("VMALLS12E1", GUEST, 0, {11, 12, 13, 14, 61}),
    ("ALLE1", {}, 0, {1, 2, 3, 4, 11, 12, 13, 14, 51, 61}),
    ("ALLE1", HOST, 0, {1, 2, 3, 4, 11, 12, 13, 14, 51, 61}),
    ("ALLE2", PLAIN_EL2, 0, {31, 32}),
    ("ALLE2", HOST, 0, {21, 22, 23}),
    ("ALLE3", {"el": 3}, 0, {41}),
    ("ASIDE1", {}, 7 << 48, {1, 3}),
    ("ASIDE1", GUEST, 8 << 48, {12}),
    ("ASIDE1", HOST, 7 << 48, {21}),
    ("VAE1", {}, by_va(NEAR, 7), {1}),
    ("VAE1", {}, by_va(NEAR, 9), set()),
    ("VAE1", {}, by_va(HIGH + M, 9), {4}),  # global: any ASID; large: any address inside
    ("VAE1", GUEST, by_va(NEAR, 8), {12}),
    ("VAE1", HOST, by_va(NEAR, 7), {21}),
    ("VAE1", HOST, by_va(NEAR + G, 9), {23}),
    ("VAE1", {}, by_va(NEAR, 7) | 0b0111 << 44, {1}),  # TTL is a hint
    ("VALE1", {}, by_va(FAR, 7), {3}),
    ("VAAE1", {}, by_va(NEAR, 9), {1, 2}),
    ("VAALE1", GUEST, by_va(HIGH), {14}),
    ("VAE2", PLAIN_EL2, by_va(NEAR, 9), {31}),
    ("VALE2", HOST, by_va(NEAR, 8), {22}),
    ("VAE3", {"el": 3}, by_va(NEAR), {41}),
    ("VALE3", {"el": 3}, by_va(FAR), set()),
    ("IPAS2E1", {}, by_va(NEAR), {51}),  # combinations of both stages stay
    ("IPAS2LE1", GUEST, by_va(NEAR), {61}),
    ("RVAE1", {}, ranged(NEAR, 7), {1}),
    ("RVAE1", {}, ranged(NEAR, 7, number=7), {1}),  # (7 + 1) * 2 pages end before FAR
    ("RVAE1", {}, ranged(NEAR, 7, number=8), {1, 3}),
    ("RVALE1", {}, ranged(NEAR - 192 * K, 7, scale=1), {1}),  # 64 pages
    ("RVALE1", {}, ranged(NEAR - 188 * K, 7, scale=1), {1, 3}),
    ("RVAAE1", {}, ranged(NEAR, 9, scale=3), {1, 2, 3}),
    ("RVAALE1", {}, ranged(HIGH - 128 * K, 9, granule=3), set()),  # two granules of 64K
    ("RVAALE1", {}, ranged(HIGH - 64 * K, 9, granule=3), {4}),
    ("RVAE1", {}, ranged(NEAR, 7) & ~(3 << 46), set()),  # no granule
    ("RVAE2", PLAIN_EL2, ranged(NEAR, number=15), {31, 32}),
    ("RVALE3", {"el": 3}, ranged(NEAR), {41}),
    ("RIPAS2E1", {}, ranged(NEAR), {51}),
    ("RIPAS2LE1", GUEST, ranged(NEAR), {61}),
]


@pytest.mark.parametrize("name, more, operand, gone", RULES)
def test_a_tlbi_removes_what_it_must_and_nothing_else(name, more, operand, gone):
    tlb = filled(registers(**more))
    assert kept(tlb) == ALL
    count = tlb.tlbi(name, operand)
    assert (ALL - gone, len(gone)) == (kept(tlb), count)


def test_every_operation_has_a_rule():
    tried = {name for name, *_ in RULES}
    assert {"RVALE2", "RVAE3"} == set(OPERATIONS) - tried  # the same as RVAE2 and RVALE3


def test_eight_bit_asids_ignore_the_upper_half():
    tlb = filled(registers(tcr_el1=TCR & ~(1 << 36)))
    assert tlb.tlbi("ASIDE1", 0xAB07 << 48) == 2


def test_shareable_operations_reach_the_peers():
    one, two = filled(registers()), filled(registers(**GUEST))
    one.peers.append(two)
    one.tlbi("VMALLE1")
    assert kept(two) == ALL
    one.tlbi("vmalle1is")
    assert ALL - {1, 2, 3, 4} == kept(two)  # the VMID is the sender's
    one.tlbi("VAE1OSNXS", by_va(NEAR, 7))
    assert ALL - {1, 2, 3, 4} == kept(two)


@pytest.mark.parametrize("name", ["VAE4", "", "IS", "VMALL"])
def test_tlbi_wrong_name(name):
    with pytest.raises(ValueError, match=f"TLBI {name} is none of VMALLE1"):
        operation(name)


# ---- a machine ----

class Machine:
    """Two processes (ASIDs) in the lower range and a kernel, global, in the upper one."""

    def __init__(self, entries=8):
        self.space = AddressSpace()
        self.space.map(0, Ram(16 * M))
        frames = Frames(8 * M, 16 * M - 1)
        self.user = {asid: arm64.PageTables(self.space, frames, upper=False) for asid in (7, 8)}
        self.kernel = arm64.PageTables(self.space, frames, upper=True)
        regs = registers(ttbr0_el1=self.user[7].ttbr(7), ttbr1_el1=self.kernel.root)
        self.pe = Arm64Tlb(self.space, regs, entries)

    def switch(self, asid):
        self.pe.msr(ttbr0_el1=self.user[asid].ttbr(asid))

    def walks(self, va, access):
        before = self.pe.tlb.stats.fills
        answer = self.pe.translate(va, access)
        return self.pe.tlb.stats.fills - before, isinstance(answer, Translation)


def test_asids_and_global_pages():
    machine = Machine()
    for asid, tables in machine.user.items():
        tables.map(NEAR, asid * M, 4 * K, not_global=True)
        tables.map(FAR, M, 4 * K)
    machine.kernel.map(HIGH, 0, 2 * M)
    assert [machine.walks(va, READ) for va in (NEAR, FAR, HIGH)] == [(1, True)] * 3
    machine.switch(8)
    assert machine.walks(NEAR, READ) == (1, True)
    assert machine.pe.translate(NEAR, READ).pa == 8 * M
    assert [machine.walks(va, READ) for va in (FAR, HIGH)] == [(0, True)] * 2
    machine.switch(7)
    assert machine.walks(NEAR, READ) == (0, True)
    assert machine.pe.translate(NEAR, READ).pa == 7 * M


def test_registers_that_change_rights_do_not_let_old_entries_answer():
    machine = Machine()
    machine.user[7].map(NEAR, M, 4 * K, user=True)
    assert machine.walks(NEAR, READ)[1]
    machine.pe.msr(pan=True)
    assert machine.walks(NEAR, READ) == (0, False)
    machine.pe.msr(el=0)
    assert machine.walks(NEAR, READ) == (1, True)


def test_a_clean_page_is_walked_for_its_first_write():
    machine = Machine()
    machine.pe.msr(tcr_el1=TCR | 3 << 39)
    machine.user[7].map(NEAR, M, 4 * K, writable=False, dbm=True)
    assert [machine.walks(NEAR, access) for access in (READ, WRITE, WRITE)] == [(1, True), (1, True), (0, True)]
    assert machine.user[7].find(NEAR).rights["writable"]


def test_addresses_with_a_top_byte():
    machine = Machine()
    machine.user[7].map(NEAR, M, 4 * K)
    tagged = NEAR | 0x5A << 56
    assert [machine.walks(va, READ) for va in (NEAR, tagged)] == [(1, True), (0, False)]
    machine.pe.msr(tcr_el1=TCR | 1 << 37)
    assert [machine.walks(va, READ) for va in (tagged, NEAR)] == [(1, True), (0, True)]


def test_nothing_is_kept_while_nothing_translates():
    machine = Machine()
    machine.pe.msr(sctlr_el1=0)
    assert machine.walks(NEAR, READ) == (0, True)


def test_both_stages_are_one_entry_that_an_ipa_does_not_remove():
    machine = Machine()
    stage2 = arm64.Stage2Tables(machine.space, Frames(4 * M, 5 * M - 1), ipa_bits=40)
    stage2.map(0, 0, 16 * M)
    machine.user[7].map(NEAR, M, 4 * K)
    machine.pe.msr(hcr_el2=VM, vtcr_el2=stage2.vtcr(), vttbr_el2=stage2.vttbr(3))
    assert machine.walks(NEAR, READ) == (1, True)
    assert machine.pe.tlbi("IPAS2E1IS", by_va(M)) == 0
    assert machine.pe.tlbi("VMALLE1IS") == 1


def drive(seed, steps, invalidate):
    """A random machine; how many accesses were answered otherwise than by a walk. See tests/test_tlb.py."""
    rng = random.Random(seed)
    machine = Machine()
    pe, stale = machine.pe, 0
    for _ in range(steps):
        action = rng.randrange(8)
        if action == 0:
            machine.switch(rng.choice((7, 8)))
        elif action == 1:
            pe.msr(el=rng.randrange(2), pan=bool(rng.randrange(2)))
        elif action < 4:
            edit(machine, rng, invalidate)
        else:
            va, access = rng.choice((NEAR, FAR, HIGH)) + rng.randrange(4 * K), rng.choice((READ, WRITE, FETCH))
            got = pe.translate(va, access)
            want = arm64.walk(machine.space, pe.regs, va, access, update=False, steps=False)
            stale += not (type(got) is type(want) and (isinstance(got, Fault) or got.pa == want.pa))
    return stale


def edit(machine, rng, invalidate):
    va = rng.choice((NEAR, FAR, HIGH))
    asid = rng.choice((7, 8))
    tables = machine.kernel if va == HIGH else machine.user[asid]
    pa, writable = rng.randrange(1, 8) * M, rng.randrange(2)
    rights = {"writable": writable, "user": 1, "not_global": va != HIGH}
    if tables.find(va) is None:
        tables.map(va, pa, 4 * K, **rights)
        return
    if rng.randrange(2):
        tables.unmap(va, 4 * K)
    else:
        tables.protect(va, 4 * K, writable=writable)  # more for EL0 is less for EL1, which then may not fetch
    if invalidate:
        machine.pe.tlbi("VAE1", by_va(va, asid))


@pytest.mark.parametrize("seed", range(12))
def test_a_tlb_that_is_told_is_never_staler_than_a_walk(seed):
    assert drive(seed, 300, invalidate=True) == 0


def test_a_tlb_that_is_not_told_is():
    assert sum(drive(seed, 300, invalidate=False) > 0 for seed in range(12)) > 6
