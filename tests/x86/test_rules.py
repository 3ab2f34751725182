"""One test for each rule of ordinary paging, on both engines: tables in bytes, error codes as numbers."""

import numpy as np
import pytest

from mmu import Access, AddressSpace, Fault, FaultKind, Mmio, Ram, Rom, Translation, x86
from mmu.types import MemTxResult

READ, WRITE, FETCH = Access.READ, Access.WRITE, Access.FETCH
P, RW, US, A, D, PS, G, XD = 1, 2, 4, 32, 64, 128, 256, 1 << 63
OPEN = P | RW | US | A | D
PML5, PML4, PDPT, PD, PT, PAGE = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x9000
CR0, CR4, EFER = 0x80010033, 0x6A0, 0xD01  # PG WP; PAE PGE; LME LMA NXE
SMEP, SMAP, PKE, CET, PKS, LA57, LAM_SUP, PSE, PCIDE = (1 << n for n in (20, 21, 22, 23, 24, 12, 28, 4, 17))
WP, NXE = 1 << 16, 1 << 11
VA = 0x123


class Machine:
    """Five levels of tables over 1 MiB, entry 0 of each leading to the next; CR3 at the PML4 unless told otherwise."""

    def __init__(self, engine):
        self.engine, self.space = engine, AddressSpace()
        self.space.map(0, Ram(1 << 20))
        for table, below in ((PML5, PML4), (PML4, PDPT), (PDPT, PD), (PD, PT), (PT, PAGE)):
            self.put(table, below | OPEN)

    def put(self, address, entry, size=8):
        self.space.write(address, entry.to_bytes(size, "little"))

    def get(self, address, size=8):
        return int.from_bytes(self.space.read(address, size), "little")

    def walk(self, access=READ, va=VA, cr0=CR0, cr3=PML4, cr4=CR4, efer=EFER, update=True, **more):
        regs = x86.Registers(cr0, cr3, cr4, efer, **more)
        return x86.walk(self.space, regs, va, access, engine=self.engine, update=update)

    def see(self, access=READ, va=VA, cr0=CR0, cr3=PML4, cr4=CR4, efer=EFER, **more):
        """The physical address, or what software sees of the fault; a page fault as its error code alone."""
        regs = x86.Registers(cr0, cr3, cr4, efer, **more)
        answer = x86.walk(self.space, regs, va, access, engine=self.engine)
        if isinstance(answer, Translation):
            return hex(answer.pa)
        event = x86.exception(answer, regs)
        return event.error_code if isinstance(event, x86.PageFault) else event


@pytest.fixture(params=["reference", "native"])
def m(request):
    return Machine(request.param)


HIT = hex(PAGE | VA)


# -- rights


@pytest.mark.parametrize("table", [PML4, PDPT, PD, PT])
def test_rights_are_those_of_all_levels_together(m, table):
    m.put(table, m.get(table) & ~(RW | US))
    assert [m.see(a, cpl=3) for a in (READ, WRITE, FETCH)] == [5, 7, 0x15]
    assert [m.see(a) for a in (READ, WRITE, FETCH)] == [HIT, 3, HIT]
    m.put(table, m.get(table) | RW | US | XD)
    assert [m.see(a, cpl=3) for a in (READ, WRITE, FETCH)] == [HIT, HIT, 0x15]
    assert m.see(FETCH) == 0x11


def test_the_translation_says_what_the_tables_grant(m):
    found = m.walk()
    assert (found.pa, found.page_size) == (PAGE | VA, 4096)
    assert (found.writable, found.user, found.executable) == (True, True, True)
    m.put(PD, m.get(PD) & ~(RW | US) | XD)
    found = m.walk()
    assert (found.writable, found.user, found.executable) == (False, False, False)


def test_supervisor_writes_obey_rw_only_with_wp(m):
    m.put(PT, m.get(PT) & ~RW)
    assert (m.see(WRITE), m.see(WRITE, cr0=CR0 & ~WP)) == (3, HIT)
    assert m.see(WRITE, cpl=3, cr0=CR0 & ~WP) == 7


def test_smep_stops_supervisor_fetches_from_user_pages(m):
    assert (m.see(FETCH), m.see(FETCH, cr4=CR4 | SMEP), m.see(FETCH, cr4=CR4 | SMEP, cpl=3)) == (HIT, 0x11, HIT)
    m.put(PDPT, m.get(PDPT) & ~US)
    assert m.see(FETCH, cr4=CR4 | SMEP) == HIT


@pytest.mark.parametrize("access", [READ, WRITE])
def test_smap_needs_ac_of_explicit_and_forbids_implicit_supervisor_accesses(m, access):
    code = 3 if access == WRITE else 1
    assert m.see(access, cr4=CR4 | SMAP) == code
    assert m.see(access, cr4=CR4 | SMAP, ac=True) == HIT
    assert m.see(access | Access.IMPLICIT, cr4=CR4 | SMAP, ac=True) == code
    assert m.see(access | Access.IMPLICIT, cr4=CR4 | SMAP, ac=True, cpl=3) == code  # U/S is 0: a supervisor access
    assert m.see(access, cr4=CR4 | SMAP, cpl=3) == HIT
    assert m.see(FETCH, cr4=CR4 | SMAP) == HIT


def test_implicit_accesses_are_supervisor_accesses_at_cpl_3(m):
    m.put(PT, m.get(PT) & ~US)
    assert (m.see(READ, cpl=3), m.see(READ | Access.IMPLICIT, cpl=3)) == (5, HIT)


@pytest.mark.parametrize("cpl", [1, 2])
def test_rings_1_and_2_are_supervisor(m, cpl):
    m.put(PT, m.get(PT) & ~US)
    assert m.see(cpl=cpl) == HIT


# -- not present, reserved


@pytest.mark.parametrize(("table", "level"), [(PML4, 4), (PDPT, 3), (PD, 2), (PT, 1)])
def test_not_present_is_p_0_with_the_bits_of_the_access(m, table, level):
    m.put(table, (1 << 64) - 2)  # everything else set: nothing of it matters
    assert [m.see(a, cpl=c) for c in (0, 3) for a in (READ, WRITE, FETCH)] == [0, 2, 0x10, 4, 6, 0x14]
    fault = m.walk(WRITE)
    assert (fault.kind, fault.level, fault.entry_address, fault.entry) == (
        FaultKind.NOT_PRESENT, level, table, (1 << 64) - 2)


def test_an_upper_entry_hides_what_lies_below(m):
    m.put(PT, 0)
    m.put(PD, m.get(PD) | 1 << 51)
    assert m.walk(phys_bits=40).level == 2


RESERVED = {  # by format: present entry -> bits that must be 0, MAXPHYADDR 52
    "PML4E": (PML4, OPEN | PDPT, {7}),
    "PDPTE": (PDPT, OPEN | PD, set()),
    "PDPTE 1G": (PDPT, OPEN | PS, set(range(13, 30))),
    "PDE": (PD, OPEN | PT, set()),
    "PDE 2M": (PD, OPEN | PS, set(range(13, 21))),
    "PTE": (PT, OPEN | PAGE, set()),
}


@pytest.mark.parametrize("width", [36, 40, 46, 52])
@pytest.mark.parametrize("nxe", [0, NXE])
@pytest.mark.parametrize("name", RESERVED)
def test_every_reserved_bit_of_every_format(m, name, nxe, width):
    table, entry, bits = RESERVED[name]
    reserved = bits | set(range(width, 52)) | (set() if nxe else {63})
    for bit in range(64):
        if entry >> bit & 1 or (bit == 7 and name in ("PDPTE", "PDE")):  # bit 7 would make it the other format
            continue
        m.put(table, entry | 1 << bit)
        answer = m.walk(efer=EFER & ~NXE | nxe, phys_bits=width, update=False)
        if bit not in reserved:
            assert getattr(answer, "kind", None) is not FaultKind.RESERVED_BIT, bit
            continue
        assert (answer.kind, answer.entry_address) == (FaultKind.RESERVED_BIT, table), bit


def test_the_top_table_of_5_levels_reserves_bit_7(m):
    assert m.see(cr3=PML5, cr4=CR4 | LA57) == HIT
    m.put(PML5, m.get(PML5) | PS)
    assert m.see(cr3=PML5, cr4=CR4 | LA57) == 9


def test_a_reserved_bit_beats_every_permission_and_is_reported_with_p(m):
    m.put(PT, P | XD | 1 << 51 | PAGE)
    seen = [m.see(a, cpl=c, phys_bits=40) for c in (0, 3) for a in (READ, WRITE, FETCH)]
    assert seen == [9, 0xB, 0x19, 0xD, 0xF, 0x1D]


def test_xd_without_nxe_is_reserved_next_to_a_good_page(m):
    m.put(PT + 8, PAGE | OPEN | XD)
    efer = EFER & ~NXE
    assert (m.see(efer=efer), m.see(va=0x1000, efer=efer), m.see(va=0x1000)) == (HIT, 9, hex(PAGE))


def test_id_is_reported_only_with_nxe_or_smep(m):
    m.put(PT, 0)
    assert (m.see(FETCH), m.see(FETCH, efer=EFER & ~NXE)) == (0x10, 0)
    assert m.see(FETCH, efer=EFER & ~NXE, cr4=CR4 | SMEP) == 0x10


# -- protection keys


def key(n, bits):
    return bits << 2 * n


@pytest.mark.parametrize("cpl", [0, 3])
def test_the_key_of_the_leaf_alone_counts(m, cpl):
    for table in (PML4, PDPT, PD):
        m.put(table, m.get(table) | 2 << 59)
    m.put(PT, m.get(PT) | 1 << 59)
    u = 4 if cpl == 3 else 0
    more = {"cr4": CR4 | PKE, "cpl": cpl}
    assert m.see(pkru=key(2, 3), **more) == HIT
    assert [m.see(a, pkru=key(1, 1), **more) for a in (READ, WRITE, FETCH)] == [0x21 | u, 0x23 | u, HIT]
    assert [m.see(a, pkru=key(1, 2), **more) for a in (READ, WRITE, FETCH)] == [HIT, 0x23 | u, HIT]
    assert [m.see(a, pkru=0xFFFFFFFF, cpl=cpl) for a in (READ, WRITE, FETCH)] == [HIT] * 3  # PKE is 0


def test_write_disable_stops_the_supervisor_only_with_wp(m):
    m.put(PT, m.get(PT) | 1 << 59)
    more = {"cr4": CR4 | PKE, "pkru": key(1, 2)}
    assert (m.see(WRITE, **more), m.see(WRITE, cr0=CR0 & ~WP, **more)) == (0x23, HIT)
    assert m.see(WRITE, cr0=CR0 & ~WP, cpl=3, **more) == 0x27
    assert m.see(READ, cr0=CR0 & ~WP, cr4=CR4 | PKE, pkru=key(1, 1)) == 0x21


def test_pk_is_set_also_when_another_right_is_missing(m):
    m.put(PT, m.get(PT) & ~RW | 1 << 59)
    more = {"cr4": CR4 | PKE | SMAP, "pkru": key(1, 3)}
    assert (m.see(WRITE, cpl=3, **more), m.see(READ, **more)) == (0x27, 0x21)
    assert m.walk(WRITE, cpl=3, **more).kind is FaultKind.PERMISSION
    assert m.walk(READ, cpl=3, **more).kind is FaultKind.PROTECTION_KEY
    m.put(PT, m.get(PT) | 1 << 51)
    assert m.see(WRITE, cpl=3, phys_bits=40, **more) == 0xF  # a reserved bit: no key has been looked at


def test_supervisor_pages_obey_pkrs(m):
    m.put(PT, m.get(PT) & ~US | 1 << 59)
    more = {"cr4": CR4 | PKS | PKE, "pkru": 0xFFFFFFFF}
    assert m.see(pkrs=0, **more) == HIT
    assert [m.see(a, pkrs=key(1, 1), **more) for a in (READ, WRITE, FETCH)] == [0x21, 0x23, HIT]
    assert [m.see(WRITE, cr0=c, pkrs=key(1, 2), **more) for c in (CR0, CR0 & ~WP)] == [0x23, HIT]
    assert m.see(READ, pkrs=key(1, 1), cr4=CR4 | PKE) == HIT  # PKS is 0


# -- shadow stacks


def test_shadow_stack_accesses_need_shadow_stack_pages_of_their_mode(m):
    more = {"cr4": CR4 | CET | SMAP}
    shadow_read, shadow_write = READ | Access.SHADOW_STACK, WRITE | Access.SHADOW_STACK
    assert [m.see(a, cpl=3, **more) for a in (shadow_read, shadow_write)] == [0x45, 0x47]  # an ordinary page
    m.put(PT, m.get(PT) & ~RW)
    assert [m.see(a, cpl=3, **more) for a in (shadow_read, shadow_write)] == [HIT, HIT]
    assert m.see(WRITE, cpl=3, **more) == 7
    assert m.see(READ, cpl=3, **more) == HIT
    assert m.see(shadow_read, ac=True, **more) == 0x41  # the user's: EFLAGS.AC opens nothing
    m.put(PT, m.get(PT) & ~D)
    assert m.see(shadow_read, cpl=3, **more) == 0x45
    m.put(PT, m.get(PT) & ~US | D)
    assert [m.see(shadow_write, cpl=c, **more) for c in (0, 3)] == [HIT, 0x47]
    m.put(PD, m.get(PD) & ~RW)
    assert m.see(shadow_write, **more) == 0x43  # R/W must be 1 above the leaf
    m.put(PT, 0)
    assert m.see(shadow_read, **more) == 0x40


# -- accessed and dirty


def flags(m):
    return [m.get(t) & (A | D) for t in (PML4, PDPT, PD, PT)]


def clear(m):
    for table in (PML4, PDPT, PD, PT):
        m.put(table, m.get(table) & ~(A | D))


def test_success_sets_accessed_everywhere_and_dirty_in_the_leaf_of_a_write(m):
    clear(m)
    m.walk(READ)
    assert flags(m) == [A, A, A, A]
    m.walk(WRITE)
    assert flags(m) == [A, A, A, A | D]


def test_a_fault_leaves_the_leaf_alone(m):
    clear(m)
    m.put(PT, m.get(PT) & ~RW)
    assert m.see(WRITE) == 3
    assert flags(m) == [A, A, A, 0]


def test_entries_below_a_bad_one_stay_unmarked(m):
    clear(m)
    m.put(PD, m.get(PD) | 1 << 51)
    assert m.see(phys_bits=40) == 9
    assert flags(m) == [A, A, 0, 0]


@pytest.mark.parametrize("access", [READ, WRITE])
def test_without_update_nothing_is_written(m, access):
    clear(m)
    with m.space.trace() as trace:
        assert m.walk(access, update=False).pa == PAGE | VA
    assert [(e.kind, e.address, e.size) for e in trace] == [("read", t, 8) for t in (PML4, PDPT, PD, PT)]


def test_a_flag_is_one_exchange_of_8_bytes(m):
    clear(m)
    with m.space.trace() as trace:
        m.walk(WRITE)
    steps = [("read", 8, None), ("exchange", 8, True)] * 4
    assert [(e.kind, e.size, e.stored) for e in trace] == steps
    assert [e.address for e in trace] == [t for t in (PML4, PDPT, PD, PT) for _ in range(2)]
    with m.space.trace() as trace:
        m.walk(WRITE)
    assert [e.kind for e in trace] == ["read"] * 4


def test_one_directory_under_two_entries_has_the_rights_of_each_path(m):
    m.put(PDPT + 8, PD | P | US | A)
    assert (m.see(WRITE), m.see(WRITE, va=VA | 1 << 30)) == (HIT, 3)


# -- sizes


@pytest.mark.parametrize(
    ("table", "size", "base"), [(PDPT, 1 << 30, 7 << 30), (PD, 2 << 20, 0x7FE00000), (PT, 4096, 0x7FFFF000)]
)
def test_pages_of_every_size(m, table, size, base):
    m.put(table, base | OPEN | (PS if size > 4096 else 0))
    va = 0x3FFFFFFF & (size - 1)
    found = m.walk(va=va)
    assert (found.pa, found.page_size) == (base | va, size)
    assert m.get(table) & (A | D) == A | D


def test_bit_12_of_a_large_page_is_pat(m):
    m.put(PD, 0x200000 | OPEN | PS | 1 << 12)
    assert m.see() == hex(0x200000 | VA)


# -- addresses


@pytest.mark.parametrize("la57", [0, LA57])
def test_non_canonical_addresses_are_refused_before_any_read(m, la57):
    sign = 56 if la57 else 47
    more = {"cr4": CR4 | la57, "cr3": PML5 if la57 else PML4}
    bad = [1 << sign, 1 << 63, (1 << 64) - (1 << sign + 1), (1 << 64) - 1 - (1 << 62)]
    with m.space.trace() as trace:
        for va in bad:
            assert [m.see(a, va=va, cpl=3, **more) for a in (READ, WRITE, FETCH)] == [x86.GeneralProtection(0)] * 3
            assert m.see(READ | Access.STACK, va=va, **more) == x86.StackFault(0)
            fault = m.walk(va=va, **more)
            assert (fault.kind, fault.level, fault.va) == (FaultKind.NON_CANONICAL, None, va)
    assert trace == []
    for va in ((1 << sign) - 1, (1 << 64) - (1 << sign)):
        assert m.see(va=va, **more) == 0  # walked, and found absent


def test_cr2_is_the_linear_address(m):
    m.put(PT, 0)
    regs = x86.Registers(CR0, PML4, CR4, EFER)
    assert x86.exception(m.walk(WRITE), regs) == x86.PageFault(error_code=2, cr2=VA, vector=14)


@pytest.mark.parametrize(
    ("cr3", "cr4", "root", "good", "bad"),
    [
        (1 << 62, 0, PML4, [0x7FFF_0000_0000_0123], [0x0000_8000_0000_0123, 0x8000_0000_0000_0123]),  # U48
        (1 << 61, 0, PML4, [0x7E00_0000_0000_0123], [0x7F00_0000_0000_0123, 0x0001_0000_0000_0123]),  # U57, 4 levels
        (3 << 61, 0, PML4, [0x7E00_0000_0000_0123], [0x0001_0000_0000_0123]),  # U57 beats U48
        (1 << 61, LA57, PML5, [0x7E00_0000_0000_0123], [0x0100_0000_0000_0123]),  # U57
        (1 << 62, LA57, PML5, [0x7FFF_0000_0000_0123], [0x0000_8000_0000_0123]),  # U48 narrows 5 levels
    ],
)
def test_lam_masks_user_pointers_of_data_accesses(m, cr3, cr4, root, good, bad):
    more = {"cr3": root | cr3, "cr4": CR4 | cr4, "cpl": 3}
    for va in good:
        assert m.see(va=va, **more) == HIT
        assert m.see(FETCH, va=va, **more) == x86.GeneralProtection()
        assert m.see(READ | Access.IMPLICIT, va=va, **more) == x86.GeneralProtection()
        assert m.see(va=va, cr3=root, cr4=CR4 | cr4) == x86.GeneralProtection()
    for va in bad:
        assert m.see(va=va, **more) == x86.GeneralProtection()


def test_lam_masks_supervisor_pointers_by_the_width_of_paging(m):
    m.put(PML4 + 8 * 511, PDPT | OPEN)
    m.put(PML5 + 8 * 511, PML4 | OPEN)
    top = 0xFFFF_FF80_0000_0123
    for va in (top, 0x8000_FF80_0000_0123, 0xFFFF_FF80_0000_0123 ^ 0x5555 << 48 & ~(1 << 63)):
        assert m.see(va=va, cr4=CR4 | LAM_SUP) == HIT
    assert m.see(va=0x8000_7F80_0000_0123, cr4=CR4 | LAM_SUP) == x86.GeneralProtection()  # bits 63 and 47 differ
    assert m.see(va=0x81FF_FF80_0000_0123, cr3=PML5, cr4=CR4 | LAM_SUP | LA57) == HIT
    assert m.see(va=0x80FF_FF80_0000_0123, cr3=PML5, cr4=CR4 | LAM_SUP | LA57) == x86.GeneralProtection()


def test_lam_reports_the_masked_address_in_cr2(m):
    m.put(PT, 0)
    regs = x86.Registers(CR0, PML4 | 1 << 62, CR4, EFER, cpl=3)
    fault = x86.walk(m.space, regs, 0x7ABC_0000_0000_0123, READ, engine=m.engine)
    assert fault.va == 0x7ABC_0000_0000_0123
    assert x86.exception(fault, regs) == x86.PageFault(4, VA)


def test_pcid_and_the_no_flush_bit_are_no_part_of_the_root(m):
    assert m.see(cr3=PML4 | 0xABC | 1 << 63, cr4=CR4 | PCIDE) == HIT


# -- other modes


def test_32_bit_paging_reads_entries_of_4_bytes(m):
    m.put(0x1000, 0x2000 | P | RW | US, 4)
    m.put(0x1004, 0xFFFFFFFF, 4)
    m.put(0x2000 + 4 * 3, PAGE | P | RW | US, 4)
    with m.space.trace() as trace:
        found = m.walk(WRITE, va=0x3123, cr3=0x1000, cr4=0, efer=0)
    assert (found.pa, found.page_size, found.executable) == (PAGE | 0x123, 4096, True)
    assert [(e.kind, e.address, e.size) for e in trace] == [
        ("read", 0x1000, 4), ("exchange", 0x1000, 4), ("read", 0x200C, 4), ("exchange", 0x200C, 4)]
    assert (m.get(0x1000, 4), m.get(0x200C, 4)) == (0x2000 | P | RW | US | A, PAGE | OPEN)


def test_bit_7_of_a_pde_maps_4m_only_with_pse(m):
    m.put(0x1000, 0x00C0_2000 | OPEN | PS, 4)
    m.put(0xC0_2000 & 0xFFFFF, 0, 4)
    assert m.walk(va=0x123, cr3=0x1000, cr4=0, efer=0).level == 1  # a table at 0xc02000, where nothing is
    m.put(0x1000, 0x00C0_0000 | OPEN | PS, 4)
    found = m.walk(va=0x3F_0123, cr3=0x1000, cr4=PSE, efer=0)
    assert (found.pa, found.page_size) == (0xC0_0000 | 0x3F_0123, 4 << 20)


@pytest.mark.parametrize("width", [36, 38, 40, 52])
def test_pse_36_adds_address_bits_up_to_maxphyaddr(m, width):
    for bit in range(13, 22):
        m.put(0x1000, 0x0040_0000 | OPEN | PS | 1 << bit, 4)
        physical = bit + 19
        answer = m.walk(cr3=0x1000, cr4=PSE, efer=0, phys_bits=width)
        if bit == 21 or physical >= width:
            assert answer.kind is FaultKind.RESERVED_BIT, bit
        else:
            assert answer.pa == 0x0040_0123 | 1 << physical, bit


def test_a_32_bit_pde_pat_bit_is_not_an_address_bit(m):
    m.put(0x1000, 0x0040_0000 | OPEN | PS | 1 << 12, 4)
    assert m.walk(cr3=0x1000, cr4=PSE, efer=0).pa == 0x0040_0123


def test_32_bit_paging_knows_no_xd_and_no_id(m):
    m.put(0x1000, 0, 4)
    assert m.see(FETCH, cr3=0x1000, cr4=0, efer=NXE) == 0
    assert m.see(FETCH, cr3=0x1000, cr4=SMEP, efer=NXE) == 0x10


def test_outside_long_mode_addresses_have_32_bits(m):
    m.put(0x1000, 0x2000 | OPEN, 4)
    m.put(0x2000, PAGE | OPEN, 4)
    assert m.walk(va=0xFFFF_FFFF_0000_0123, cr3=0x1000, cr4=0, efer=0).pa == PAGE | 0x123
    m.put(0x2000, 0, 4)
    regs = x86.Registers(CR0, 0x1000, 0, 0)
    fault = x86.walk(m.space, regs, 0xFFFF_FFFF_0000_0123, READ, engine=m.engine)
    assert x86.exception(fault, regs).cr2 == 0x123


PAE = {"cr3": 0x1FE0, "cr4": 0x20, "efer": NXE}


def test_pae_starts_at_32_byte_aligned_pdptes_without_accessed_flags(m):
    m.put(0x1FE0 + 8, PD | P)
    m.put(PD, PT | P | RW | US)
    m.put(PT, PAGE | P | RW | US)
    with m.space.trace() as trace:
        assert m.walk(WRITE, va=0x4000_0123, **PAE).pa == PAGE | 0x123
    assert [(e.kind, e.address, e.size) for e in trace] == [
        ("read", 0x1FE8, 8), ("read", PD, 8), ("exchange", PD, 8), ("read", PT, 8), ("exchange", PT, 8)]
    assert m.get(0x1FE8) == PD | P


@pytest.mark.parametrize("bit", [1, 2, 5, 6, 7, 8, 52, 62, 63])
def test_pae_pdptes_reserve_rights_and_everything_above_the_address(m, bit):
    m.put(0x1FE0, PD | P | 1 << bit)
    assert m.walk(**PAE).kind is FaultKind.RESERVED_BIT


@pytest.mark.parametrize("table", [PD, PT])
@pytest.mark.parametrize("bit", range(52, 64))
def test_pae_entries_reserve_bits_62_to_52(m, table, bit):
    m.put(0x1FE0, PD | P)
    m.put(table, m.get(table) | 1 << bit)
    seen = m.see(**PAE)
    assert seen == (HIT if bit == 63 else 9)
    assert m.see(FETCH, **PAE) == (0x11 if bit == 63 else 0x19)


def test_pae_ignores_protection_keys(m):
    m.put(0x1FE0, PD | P)
    assert m.see(cr3=0x1FE0, cr4=0x20 | PKE | PKS, efer=NXE, pkru=0xFFFFFFFF, pkrs=0xFFFFFFFF) == HIT


def test_without_paging_an_address_is_physical(m):
    with m.space.trace() as trace:
        found = m.walk(WRITE, va=0x1_2345_6789, cr0=1)
    assert (found.pa, found.page_size, found.writable, found.user, found.executable) == (
        0x2345_6789, 4096, True, True, True)
    assert trace == []


# -- tables in strange places


def test_tables_that_refer_to_themselves_end_after_four_levels(m):
    m.put(PML4 + 8 * 511, PML4 | P | RW)
    found = m.walk(va=(1 << 64) - 4096 + 0x88)
    assert (found.pa, len(found.steps)) == (PML4 | 0x88, 4)
    assert {s.address for s in found.steps} == {PML4 + 8 * 511}
    assert m.get(PML4 + 8 * 511) == PML4 | P | RW | A


def test_tables_where_nothing_answers_are_not_present(m):
    assert m.see(cr3=0x4000_0000) == 0
    m.put(PD, 0x4000_0000 | OPEN)
    assert m.walk().level == 1


def test_a_bus_error_is_zero_or_a_machine_check(m):
    refused = Mmio(4096, lambda offset, size: MemTxResult.ERROR)
    m.space.map(0x100000, refused)
    m.put(PD, 0x100000 | OPEN)
    assert m.see() == 0
    assert m.see(bus_error="machine-check") == x86.MachineCheck(address=0x100000)
    fault = m.walk(bus_error="machine-check")
    assert (fault.kind, fault.level, fault.entry_address) == (FaultKind.BUS, 1, 0x100000)


def test_an_update_that_the_bus_refuses_is_lost_or_a_machine_check(m):
    m.space.map(0x100000, Mmio(4096, lambda offset, size: PAGE | P | RW, lambda o, s, v: MemTxResult.ERROR))
    m.put(PD, 0x100000 | OPEN)
    assert m.see() == HIT
    assert m.see(bus_error="machine-check") == x86.MachineCheck(address=0x100000)


def test_tables_in_rom_translate_though_no_flag_can_be_set(m):
    m.space.map(0x100000, Rom((PAGE | P | RW).to_bytes(8, "little") + bytes(4088)))
    m.put(PD, 0x100000 | OPEN)
    assert m.see(WRITE) == HIT
    assert m.get(0x100000) == PAGE | P | RW


def test_an_entry_that_never_stays_ends_the_walk(m):
    """A device that gives another entry each time must not hang the walk."""
    count = iter(range(1 << 20))
    m.space.map(0x100000, Mmio(4096, lambda offset, size: PAGE | P | RW | next(count) << 52 & (1 << 58) - 1))
    m.put(PD, 0x100000 | OPEN)
    fault = m.walk()
    assert (fault.kind, fault.level) == (FaultKind.BUS, None)


def test_what_a_device_raises_comes_out_of_the_walk(m):
    def broken(offset, size):
        raise KeyError("table")

    m.space.map(0x100000, Mmio(4096, broken))
    m.put(PD, 0x100000 | OPEN)
    with pytest.raises(KeyError, match="table"):
        m.walk()


# -- steps


def test_steps_are_the_entries_read_by_the_manuals_names(m):
    found = m.walk(cr3=PML5, cr4=CR4 | LA57)
    assert [(s.level, s.name, s.address, s.value, s.stage) for s in found.steps] == [
        (5, "PML5E", PML5, PML4 | OPEN, 1), (4, "PML4E", PML4, PDPT | OPEN, 1), (3, "PDPTE", PDPT, PD | OPEN, 1),
        (2, "PDE", PD, PT | OPEN, 1), (1, "PTE", PT, PAGE | OPEN, 1)]  # fmt: skip
    assert found.steps[4].flags == {
        "P": 1, "RW": 1, "US": 1, "PWT": 0, "PCD": 0, "A": 1, "D": 1, "PAT": 0, "G": 0, "ADDR": PAGE >> 12,
        "PK": 0, "XD": 0}  # fmt: skip
    assert found.steps[4].place == m.space.place(PT)
    m.put(PD, 0)
    assert [s.name for s in m.walk().steps] == ["PML4E", "PDPTE", "PDE"]


def test_no_steps_when_not_asked(m):
    regs = x86.Registers(CR0, PML4, CR4, EFER)
    assert x86.walk(m.space, regs, VA, READ, engine=m.engine, steps=False).steps == ()
    m.put(PT, 0)
    fault = x86.walk(m.space, regs, VA, READ, engine=m.engine, steps=False)
    assert isinstance(fault, Fault) and fault.steps == ()


# -- misuse


@pytest.mark.parametrize(
    ("va", "access", "message"),
    [
        (-1, READ, "va must be in 0..0xffffffffffffffff, not -0x1"),
        (1 << 64, READ, "not 0x10000000000000000"),
        (0, READ | WRITE, "exactly one of READ, WRITE and FETCH"),
        (0, Access(0), "exactly one of READ, WRITE and FETCH"),
        (0, FETCH | Access.IMPLICIT, "FETCH goes with no other flag"),
        (0, READ | Access.UNPRIVILEGED, "a flag that x86 does not know"),
    ],
)
def test_walk_wrong_arguments(m, va, access, message):
    with pytest.raises(ValueError, match=message):
        m.walk(access, va=va)


def test_an_address_may_be_a_numpy_integer(m):
    top = np.uint64((1 << 64) - 1)
    fault = m.walk(va=top)
    assert (fault, type(fault.va)) == (m.walk(va=(1 << 64) - 1), int)
    with pytest.raises(TypeError, match="float"):
        m.walk(va=1.5)


def test_walk_wrong_engine(m):
    with pytest.raises(ValueError, match="engine must be 'native' or 'reference', not 'fast'"):
        x86.walk(m.space, x86.Registers(CR0, PML4, CR4, EFER), 0, READ, engine="fast")
