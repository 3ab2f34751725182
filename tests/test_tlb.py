"""The TLB store, and what x86 instructions remove from it: every INVPCID type and every rule of the manual."""

import random

import pytest

from mmu import Access, AddressSpace, Fault, Frames, Ram, Translation, x86
from mmu.tlb import Domain, Scope, Tlb
from mmu.tlb.x86 import X86Tlb
from mmu.x86 import GeneralProtection

K, M = 1 << 10, 1 << 20
READ, WRITE, FETCH = Access.READ, Access.WRITE, Access.FETCH
CR0, WP, PG = 0x8001_0001, 1 << 16, 1 << 31
PAE, PGE, PCIDE, SMEP, SMAP = 1 << 5, 1 << 7, 1 << 17, 1 << 20, 1 << 21
EFER, NXE = 0xD00, 0x800
NOFLUSH = 1 << 63


# ---- the store ----

def page(pa, size=4 * K):
    return Translation(pa, size, True, False, True)


def test_a_fill_answers_for_its_page_only():
    tlb, domain = Tlb(), Domain("r", 1)
    tlb.fill(0x5123, page(0x9123), READ | FETCH, domain)
    assert tlb.lookup(0x5FFF, READ, domain).pa == 0x9FFF
    assert None is tlb.lookup(0x6000, READ, domain) is tlb.lookup(0x4FFF, READ, domain)
    assert None is tlb.lookup(0x5000, WRITE, domain)
    assert (tlb.stats.hits, tlb.stats.misses, tlb.stats.denied, tlb.stats.fills) == (1, 3, 1, 1)


@pytest.mark.parametrize("other", [
    Domain("s", 1), Domain("r", 2), Domain("r", 1, vm=1), Domain("r", 1, context="user"),
])  # fmt: skip
def test_an_entry_answers_in_its_own_domain_only(other):
    tlb = Tlb()
    tlb.fill(0x5000, page(0x9000), READ, Domain("r", 1))
    assert None is tlb.lookup(0x5000, READ, other)


def test_a_global_entry_answers_for_every_space_of_its_regime_machine_and_context():
    tlb = Tlb()
    tlb.fill(0x5000, page(0x9000), READ, Domain("r", 1), is_global=True)
    assert tlb.lookup(0x5000, READ, Domain("r", 7)).pa == 0x9000
    assert None is tlb.lookup(0x5000, READ, Domain("r", 1, vm=1))


def test_what_is_pushed_out_stays_a_while_among_the_victims():
    tlb, domain = Tlb(entries=4, victims=2), Domain("r", 0)
    for n in range(4):  # all in one slot
        tlb.fill(n * 16 * K, page(n * M), READ, domain)
    found = [tlb.lookup(n * 16 * K, READ, domain) for n in range(4)]
    assert [answer and answer.pa for answer in found] == [None, M, 2 * M, 3 * M]
    assert (tlb.stats.evictions, len(tlb)) == (1, 3)
    assert tlb.stats.victim_hits == 3  # each took the slot from the one before


def test_a_fill_replaces_a_victim_of_the_same_page():
    tlb, domain = Tlb(entries=1, victims=2), Domain("r", 0)
    tlb.fill(0, page(0x1000), READ, domain)
    tlb.fill(4 * K, page(0x2000), READ, domain)
    tlb.fill(0, page(0x3000), READ, domain)
    tlb.fill(8 * K, page(0x4000), READ, domain)
    assert tlb.lookup(0, READ, domain).pa == 0x3000
    assert len(tlb) == 3


def test_an_invalidation_inside_a_large_page_removes_all_that_is_kept_of_it():
    tlb, domain = Tlb(), Domain("r", 0)
    for va in (2 * M, 3 * M, 4 * M - 4 * K, 4 * M):
        tlb.fill(va, page(va, 2 * M), READ, domain)
    assert tlb.invalidate(Scope(first=3 * M + 0x123, last=3 * M + 0x123)) == 3
    assert [entry.first for entry in tlb.entries()] == [4 * M]


@pytest.mark.parametrize("arguments, says", [({"entries": 100}, "power of two, not 100"), ({"victims": 0}, "not 0")])
def test_wrong_sizes(arguments, says):
    with pytest.raises(ValueError, match=says):
        Tlb(**arguments)


# ---- x86 ----

ONE, TWO = 1, 2  # PCIDs
NEAR, FAR, GLOBAL = 0x40_0000, 0x50_0000, 0xFFFF_8000_0000_0000


class Machine:
    """Two address spaces: NEAR and FAR private, GLOBAL shared and global."""

    def __init__(self, cr4=PAE | PGE | PCIDE, entries=256):
        self.space = AddressSpace()
        self.space.map(0, Ram(16 * M))
        frames = Frames(8 * M, 16 * M - 1)
        self.tables = {pcid: x86.PageTables(self.space, frames) for pcid in (ONE, TWO)}
        for pcid, tables in self.tables.items():
            tables.map(NEAR, pcid * M, 4 * K)
            tables.map(FAR, pcid * M + 4 * K, 4 * K)
            tables.map(GLOBAL, 4 * M, 4 * K, global_=True)
        pcide = cr4 & PCIDE
        regs = x86.Registers(cr0=CR0, cr3=self.cr3(ONE) if pcide else self.tables[ONE].root, cr4=cr4, efer=EFER)
        self.cpu = X86Tlb(self.space, regs, entries)

    def cr3(self, pcid):
        return self.tables[pcid].root | pcid

    def fill(self):
        """Every page in the TLB, from both address spaces; ONE is current."""
        for pcid in (TWO, ONE):
            self.cpu.mov_cr3(self.cr3(pcid) | NOFLUSH)
            for va in (NEAR, FAR, GLOBAL):
                assert isinstance(self.cpu.translate(va, READ), Translation)
        assert self.kept() == ALL
        return self

    def kept(self):
        return {"global" if e.is_global else (e.domain.space, e.first) for e in self.cpu.tlb.entries()}


ALL = {(ONE, NEAR), (ONE, FAR), (TWO, NEAR), (TWO, FAR), "global"}
MINE = {(ONE, NEAR), (ONE, FAR)}
RULES = {
    "INVLPG": (lambda m: m.cpu.invlpg(NEAR + 0xFFF), {(ONE, NEAR)}),
    "INVLPG of a global page": (lambda m: m.cpu.invlpg(GLOBAL), {"global"}),
    "INVLPG of an address that is not canonical": (lambda m: m.cpu.invlpg(1 << 47), set()),
    "INVPCID 0, the current PCID": (lambda m: m.cpu.invpcid(0, ONE, FAR), {(ONE, FAR)}),
    "INVPCID 0, another PCID": (lambda m: m.cpu.invpcid(0, TWO, NEAR), {(TWO, NEAR)}),
    "INVPCID 0 spares global pages": (lambda m: m.cpu.invpcid(0, ONE, GLOBAL), set()),
    "INVPCID 1": (lambda m: m.cpu.invpcid(1, TWO), {(TWO, NEAR), (TWO, FAR)}),
    "INVPCID 1 ignores the address": (lambda m: m.cpu.invpcid(1, ONE, 1 << 47), MINE),
    "INVPCID 2": (lambda m: m.cpu.invpcid(2), ALL),
    "INVPCID 3": (lambda m: m.cpu.invpcid(3), ALL - {"global"}),
    "MOV CR3 to the same PCID": (lambda m: m.cpu.mov_cr3(m.cr3(ONE)), MINE),
    "MOV CR3 to another PCID": (lambda m: m.cpu.mov_cr3(m.cr3(TWO)), {(TWO, NEAR), (TWO, FAR)}),
    "MOV CR3 with bit 63": (lambda m: m.cpu.mov_cr3(m.cr3(TWO) | NOFLUSH), set()),
    "MOV CR4 clears PGE": (lambda m: m.cpu.mov_cr4(PAE | PCIDE), ALL),
    "MOV CR4 clears PCIDE": (lambda m: m.cpu.mov_cr4(PAE | PGE), ALL),
    "MOV CR4 sets SMEP": (lambda m: m.cpu.mov_cr4(PAE | PGE | PCIDE | SMEP), {*MINE, "global"}),
    "MOV CR4 sets SMAP": (lambda m: m.cpu.mov_cr4(PAE | PGE | PCIDE | SMAP), set()),
    "MOV CR4 changes nothing": (lambda m: m.cpu.mov_cr4(PAE | PGE | PCIDE), set()),
    "MOV CR0 clears WP": (lambda m: m.cpu.mov_cr0(CR0 & ~WP), set()),
    "WRMSR EFER clears NXE": (lambda m: m.cpu.wrmsr_efer(EFER & ~NXE), set()),
}


@pytest.mark.parametrize("rule", RULES)
def test_an_instruction_removes_what_it_must_and_nothing_else(rule):
    machine = Machine().fill()
    run, gone = RULES[rule]
    assert None is run(machine)
    assert ALL - gone == machine.kept()


REFUSED = {
    "INVPCID type 4": lambda m: m.cpu.invpcid(4),
    "INVPCID with reserved bits in the descriptor": lambda m: m.cpu.invpcid(2, 1 << 12),
    "INVPCID 0 of an address that is not canonical": lambda m: m.cpu.invpcid(0, ONE, 1 << 47),
    "MOV CR0 clears PG with PCIDE set": lambda m: m.cpu.mov_cr0(CR0 & ~PG),
    "MOV CR0 clears PE with PG set": lambda m: m.cpu.mov_cr0(CR0 & ~1),
    "MOV CR4 with a reserved bit": lambda m: m.cpu.mov_cr4(PAE | PGE | PCIDE | 1 << 15),
    "MOV CR3 with a reserved bit": lambda m: m.cpu.mov_cr3(1 << 52),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_general_protection_fault_changes_nothing(what):
    machine = Machine().fill()
    before = machine.cpu.regs
    assert GeneralProtection() == REFUSED[what](machine)
    assert (ALL, before) == (machine.kept(), machine.cpu.regs)


def test_without_pcids():
    machine = Machine(cr4=PAE | PGE)
    cpu, root = machine.cpu, machine.tables[ONE].root
    for va in (NEAR, FAR, GLOBAL):
        cpu.translate(va, READ)
    assert GeneralProtection() == cpu.invpcid(0, ONE, NEAR) == cpu.invpcid(1, ONE) == cpu.mov_cr3(root | NOFLUSH)
    assert None is cpu.invpcid(0, 0, NEAR)
    assert {(0, FAR), "global"} == machine.kept()
    cpu.mov_cr3(root | 5)  # no PCID: bits 11:0 mean other things
    assert {"global"} == machine.kept()
    assert GeneralProtection() == cpu.mov_cr4(PAE | PGE | PCIDE)  # while CR3 has bits 11:0 set
    cpu.mov_cr3(root)
    assert None is cpu.mov_cr4(PAE | PGE | PCIDE)
    assert {"global"} == machine.kept()
    assert None is cpu.mov_cr4(PAE | PGE)
    cpu.translate(GLOBAL, READ)
    assert None is cpu.mov_cr0(CR0 & ~PG)
    assert set() == machine.kept()
    assert cpu.translate(0x1234, READ).pa == 0x1234
    assert set() == machine.kept()


def test_pages_are_global_only_while_pge_is_set():
    machine = Machine(cr4=PAE | PCIDE)
    machine.cpu.translate(GLOBAL, READ)
    assert {(ONE, GLOBAL)} == machine.kept()


def walks(machine, va, access):
    before = machine.cpu.tlb.stats.fills
    answer = machine.cpu.translate(va, access)
    return machine.cpu.tlb.stats.fills - before, isinstance(answer, Translation)


def test_a_write_walks_once_more_and_marks_the_page_dirty():
    machine = Machine()
    assert [walks(machine, NEAR, access) for access in (READ, READ, FETCH)] == [(1, True), (0, True), (0, True)]
    assert not machine.tables[ONE].find(NEAR).rights["dirty"]
    assert walks(machine, NEAR, WRITE) == (1, True)
    assert machine.tables[ONE].find(NEAR).rights["dirty"]
    assert [walks(machine, NEAR, access) for access in (WRITE, READ, FETCH)] == [(0, True)] * 3


def test_rights_that_registers_take_away_are_gone_at_once():
    machine = Machine()
    cpu = machine.cpu
    machine.tables[ONE].protect(NEAR, 4 * K, writable=False, user=True)
    cpu.mov_cr0(CR0 & ~WP)
    assert walks(machine, NEAR, WRITE)[1]
    cpu.mov_cr0(CR0)
    assert walks(machine, NEAR, WRITE) == (0, False)
    assert walks(machine, NEAR, READ)[1]
    cpu.mov_cr4(cpu.regs.cr4 | SMAP)
    assert not walks(machine, NEAR, READ)[1]
    cpu.set(ac=True)
    assert walks(machine, NEAR, READ)[1]
    cpu.set(cpl=3, ac=False)
    assert walks(machine, NEAR, READ)[1]
    assert not walks(machine, FAR, READ)[1]


def test_a_page_fault_removes_what_is_kept_of_the_page():
    machine = Machine().fill()
    machine.tables[ONE].protect(NEAR, 4 * K, writable=False)
    assert isinstance(machine.cpu.translate(NEAR, WRITE), Fault)
    assert ALL - {(ONE, NEAR)} == machine.kept()


def test_a_right_that_was_added_needs_no_invalidation():
    machine = Machine()
    machine.tables[ONE].protect(NEAR, 4 * K, writable=False)
    assert walks(machine, NEAR, READ)[1]
    machine.tables[ONE].protect(NEAR, 4 * K, writable=True)
    assert walks(machine, NEAR, WRITE)[1]


def test_set_wrong_register():
    with pytest.raises(TypeError, match="not cr3"):
        Machine().cpu.set(cr3=0)


# ---- never staler than a walk, as long as software invalidates ----

def drive(seed, steps, invalidate):
    """A random machine; how many accesses were answered otherwise than by a walk.

    Software invalidates as it must, with the narrowest instruction: what was mapped and is not any more, or with fewer
    rights, or elsewhere. Not at all when *invalidate* is False.
    """
    rng = random.Random(seed)
    machine = Machine(entries=8)
    cpu, stale = machine.cpu, 0
    for _ in range(steps):
        action = rng.randrange(8)
        if action == 0:
            machine.cpu.mov_cr3(machine.cr3(rng.choice((ONE, TWO))) | rng.choice((0, NOFLUSH)))
        elif action == 1:
            cpu.mov_cr0(CR0 ^ rng.choice((0, WP)))
            cpu.set(cpl=rng.choice((0, 3)))
        elif action == 2:
            cpu.mov_cr4(rng.choice((PAE | PGE | PCIDE, PAE | PCIDE)))
        elif action < 5:
            edit(machine, rng, invalidate)
        else:
            va, access = rng.choice((NEAR, FAR, GLOBAL)) + rng.randrange(4 * K), rng.choice((READ, WRITE, FETCH))
            got = cpu.translate(va, access)
            want = x86.walk(machine.space, cpu.regs, va, access, engine="reference", update=False, steps=False)
            same = type(got) is type(want) and (isinstance(got, Fault) or got.pa == want.pa)
            stale += not same
            if invalidate and va < GLOBAL and access is WRITE and isinstance(got, Translation):
                assert machine.tables[cpu.pcid].find(va).rights["dirty"]
    return stale


def edit(machine, rng, invalidate):
    """Unmap, map elsewhere, or protect; a global page in both address spaces, as global pages have to be."""
    va = rng.choice((NEAR, FAR, GLOBAL))
    pcids = (ONE, TWO) if va == GLOBAL else (rng.choice((ONE, TWO)),)
    what, pa, writable = rng.randrange(3), rng.randrange(1, 8) * M, rng.randrange(2)
    less = False
    for pcid in pcids:
        tables = machine.tables[pcid]
        old = tables.find(va)
        if old is None:
            tables.map(va, pa, 4 * K, writable=writable, user=True, global_=va == GLOBAL)
        elif what == 0:
            tables.unmap(va, 4 * K)
            less = True
        elif what == 1:
            tables.protect(va, 4 * K, writable=writable)
            less |= not writable and bool(old.rights["writable"])
        else:
            tables.unmap(va, 4 * K)
            tables.map(va, pa, 4 * K, writable=writable, user=True, global_=va == GLOBAL)
            less = True
    if less and invalidate:
        for pcid in pcids:
            if pcid == machine.cpu.pcid:
                machine.cpu.invlpg(va)
            else:
                machine.cpu.invpcid(0, pcid, va)  # spares a global page, which the other round of this loop removes


@pytest.mark.parametrize("seed", range(20))
def test_a_tlb_that_is_told_is_never_staler_than_a_walk(seed):
    assert drive(seed, 400, invalidate=True) == 0


def test_a_tlb_that_is_not_told_is():
    assert sum(drive(seed, 400, invalidate=False) > 0 for seed in range(20)) > 10
