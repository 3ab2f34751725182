"""Stage 2: nested paging (NPT) and extended page tables (EPT), on both engines."""

import pytest

from mmu import Access, AddressSpace, FaultKind, Ram, Translation, x86

READ, WRITE, FETCH = Access.READ, Access.WRITE, Access.FETCH
P, RW, US, A, D, PS, XD = 1, 2, 4, 32, 64, 128, 1 << 63
R, W, X, EA, ED, WB = 1, 2, 4, 1 << 8, 1 << 9, 6 << 3
OPEN, EOPEN = P | RW | US | A | D, R | W | X | EA | ED
# Guest tables at these guest-physical addresses; the guest's page is GPAGE.
PML4, PDPT, PD, PT, GPAGE = 0x1000, 0x2000, 0x3000, 0x4000, 0x9000
GUEST_TABLES = (PML4, PDPT, PD, PT)
# The host's tables; guest-physical frame n is host frame n + 0x100, so that a forgotten stage 2 is seen.
HROOT, HPDPT, HPD, HPT, HOST = 0x21000, 0x22000, 0x23000, 0x24000, 0x100000
CR0, CR4, EFER, VA = 0x80010033, 0x6A0, 0xD01, 0x123
FINAL, TABLE = 1 << 32, 1 << 33


class Machine:
    def __init__(self, engine):
        self.engine, self.space = engine, AddressSpace()
        self.space.map(0, Ram(4 << 20))
        for table, below in zip(GUEST_TABLES, (PDPT, PD, PT, GPAGE), strict=True):
            self.put(HOST + table, below | OPEN)

    def put(self, address, entry):
        self.space.write(address, entry.to_bytes(8, "little"))

    def get(self, address):
        return int.from_bytes(self.space.read(address, 8), "little")

    def frame(self, gpa, entry):
        """The host's last-level entry for a guest-physical frame."""
        self.put(HPT + 8 * (gpa >> 12), entry)

    def entry(self, gpa):
        return self.get(HPT + 8 * (gpa >> 12))

    def walk(self, access, stage2, va=VA, update=True, **more):
        regs = x86.Registers(**{"cr0": CR0, "cr3": PML4, "cr4": CR4, "efer": EFER, "stage2": stage2, **more})
        return x86.walk(self.space, regs, va, access, engine=self.engine, update=update)

    def see(self, access, stage2, va=VA, **more):
        regs = x86.Registers(**{"cr0": CR0, "cr3": PML4, "cr4": CR4, "efer": EFER, "stage2": stage2, **more})
        answer = x86.walk(self.space, regs, va, access, engine=self.engine)
        return hex(answer.pa) if isinstance(answer, Translation) else x86.exception(answer, regs)


@pytest.fixture(params=["reference", "native"])
def engine(request):
    return request.param


@pytest.fixture
def npt(engine):
    m = Machine(engine)
    for table, below in ((HROOT, HPDPT), (HPDPT, HPD), (HPD, HPT)):
        m.put(table, below | OPEN)
    for gpa in range(0, 0x20000, 0x1000):
        m.frame(gpa, HOST + gpa | OPEN)
    return m


@pytest.fixture
def ept(engine):
    m = Machine(engine)
    for table, below in ((HROOT, HPDPT), (HPDPT, HPD), (HPD, HPT)):
        m.put(table, below | EOPEN)
    for gpa in range(0, 0x20000, 0x1000):
        m.frame(gpa, HOST + gpa | EOPEN | WB)
    return m


NPT = x86.Npt(ncr3=HROOT, cr4=0x20, efer=0xD00)
EPT, EPT_AD = x86.Ept(HROOT | 0x1E), x86.Ept(HROOT | 0x5E)
HIT = hex(HOST + GPAGE + VA)


# -- NPT


def test_npt_every_guest_table_and_the_page_go_through_the_host(npt):
    with npt.space.trace() as trace:
        found = npt.walk(WRITE, NPT)
    assert (found.pa, found.page_size) == (HOST + GPAGE + VA, 4096)
    host = [HROOT, HPDPT, HPD]
    expected = [a for gpa in GUEST_TABLES for a in (*host, HPT + 8 * (gpa >> 12), HOST + gpa)]
    assert [e.address for e in trace] == [*expected, *host, HPT + 8 * (GPAGE >> 12)]
    assert [(s.stage, s.name) for s in found.steps[3:6]] == [(2, "PTE"), (1, "PML4E"), (2, "PML4E")]


def test_npt_the_page_size_is_the_smaller_one(npt):
    npt.put(HOST + PD, OPEN | PS)
    assert npt.walk(READ, NPT, va=0x9123).page_size == 4096
    npt.put(HPD, OPEN | PS)
    npt.put(PD, OPEN | PS)
    for table, below in ((PML4, PDPT), (PDPT, PD)):
        npt.put(table, below | OPEN)
    assert npt.walk(READ, NPT).page_size == 2 << 20


@pytest.mark.parametrize("table", GUEST_TABLES)
def test_npt_guest_tables_are_written_as_users_do(npt, table):
    for flags, code in ((0, 6), (P | RW, 7), (P | US, 7), (OPEN | 1 << 51, 0xF)):
        npt.frame(table, HOST + table | flags)
        stage2 = x86.Npt(HROOT, 0x20, 0xD00, phys_bits=40)
        for access in (READ, WRITE, FETCH):
            assert npt.see(access, stage2) == x86.NestedPageFault(TABLE | code, table)


def test_npt_xd_does_not_matter_to_guest_tables(npt):
    for table in GUEST_TABLES:
        npt.frame(table, HOST + table | OPEN | XD)
    assert npt.see(FETCH, NPT) == HIT


def test_npt_the_final_access_keeps_its_kind(npt):
    npt.frame(GPAGE, 0)
    assert [npt.see(a, NPT) for a in (READ, WRITE, FETCH)] == [
        x86.NestedPageFault(FINAL | code, GPAGE + VA) for code in (4, 6, 0x14)]
    npt.frame(GPAGE, HOST + GPAGE | P | US | XD)
    assert npt.see(READ, NPT) == HIT
    assert [npt.see(a, NPT) for a in (WRITE, FETCH)] == [
        x86.NestedPageFault(FINAL | code, GPAGE + VA) for code in (7, 0x15)]
    npt.frame(GPAGE, HOST + GPAGE | P | RW)
    assert npt.see(READ, NPT) == x86.NestedPageFault(FINAL | 5, GPAGE + VA)


def test_npt_xd_without_the_hosts_nxe_is_reserved(npt):
    npt.frame(GPAGE, HOST + GPAGE | OPEN | XD)
    assert npt.see(READ, x86.Npt(HROOT, 0x20, 0x500)) == x86.NestedPageFault(FINAL | 0xD, GPAGE + VA)


def test_npt_a_fault_names_level_entry_and_place(npt):
    npt.put(HPD, 0)
    fault = npt.walk(READ, NPT)
    assert (fault.kind, fault.stage, fault.level, fault.entry_address, fault.gpa, fault.on_table) == (
        FaultKind.NOT_PRESENT, 2, 2, HPD, PML4, True)


def test_npt_the_guests_own_fault_comes_first(npt):
    npt.put(HOST + PT, GPAGE | OPEN & ~RW)
    npt.frame(GPAGE, 0)
    assert npt.see(WRITE, NPT) == x86.PageFault(3, VA)


def test_npt_marks_guest_tables_dirty_and_a_read_page_accessed(npt):
    for gpa in (*GUEST_TABLES, GPAGE):
        npt.frame(gpa, HOST + gpa | P | RW | US)
    npt.put(HPD, HPT | P | RW | US)
    npt.walk(READ, NPT)
    assert [npt.entry(gpa) & (A | D) for gpa in (*GUEST_TABLES, GPAGE)] == [A | D] * 4 + [A]
    assert npt.get(HPD) & (A | D) == A
    npt.walk(WRITE, NPT)
    assert npt.entry(GPAGE) & (A | D) == A | D


def test_npt_sets_the_guests_flags_in_host_memory(npt):
    for table, below in zip(GUEST_TABLES, (PDPT, PD, PT, GPAGE), strict=True):
        npt.put(HOST + table, below | P | RW | US)
    npt.walk(WRITE, NPT)
    assert [npt.get(HOST + t) & (A | D) for t in GUEST_TABLES] == [A, A, A, A | D]


def test_npt_rights_are_combined(npt):
    found = npt.walk(READ, NPT)
    assert (found.writable, found.user, found.executable) == (True, True, True)
    npt.frame(GPAGE, HOST + GPAGE | P | US | XD)
    found = npt.walk(READ, NPT)
    assert (found.writable, found.user, found.executable) == (False, True, False)


def test_npt_unpaged_guest(npt):
    assert npt.see(WRITE, NPT, va=GPAGE + 5, cr0=1) == hex(HOST + GPAGE + 5)
    npt.frame(GPAGE, 0)
    assert npt.see(WRITE, NPT, va=GPAGE + 5, cr0=1) == x86.NestedPageFault(FINAL | 6, GPAGE + 5)


def test_npt_an_address_wider_than_the_hosts_tables_is_not_present(npt):
    npt.put(HOST + PT, 1 << 48 | OPEN)
    with npt.space.trace() as trace:
        assert npt.see(READ, NPT) == x86.NestedPageFault(FINAL | 4, (1 << 48) + VA)
    assert len(trace) == 20  # nothing was read for the final address


def test_npt_the_host_may_use_32_bit_tables(npt):
    npt.space.write(0x30000, (0x31000 | OPEN).to_bytes(4, "little"))
    for frame in range(0x20):
        npt.space.write(0x31000 + 4 * frame, (HOST + 0x1000 * frame | OPEN).to_bytes(4, "little"))
    assert npt.see(READ, x86.Npt(0x30000, 0, 0)) == HIT


def test_npt_reports_shadow_stack_accesses(npt):
    npt.put(HOST + PT, GPAGE | P | US | A | D)
    npt.frame(GPAGE, HOST + GPAGE | P | US)
    seen = npt.see(WRITE | Access.SHADOW_STACK, NPT, cpl=3, cr4=CR4 | 1 << 23)
    assert seen == x86.NestedPageFault(FINAL | 0x47, GPAGE + VA)


# -- EPT

LINEAR, EFINAL = 1 << 7, 1 << 8


def violation(wanted, granted, gpa, final=False):
    return x86.EptViolation(wanted | granted << 3 | LINEAR | (EFINAL if final else 0), gpa)


def test_ept_every_guest_table_and_the_page_go_through_the_host(ept):
    with ept.space.trace() as trace:
        found = ept.walk(WRITE, EPT)
    assert found.pa == HOST + GPAGE + VA
    host = [HROOT, HPDPT, HPD]
    expected = [a for gpa in GUEST_TABLES for a in (*host, HPT + 8 * (gpa >> 12), HOST + gpa)]
    assert [e.address for e in trace] == [*expected, *host, HPT + 8 * (GPAGE >> 12)]
    assert [s.name for s in found.steps[:5]] == ["EPT PML4E", "EPT PDPTE", "EPT PDE", "EPT PTE", "PML4E"]


@pytest.mark.parametrize("table", GUEST_TABLES)
def test_ept_guest_tables_are_read_and_with_flags_also_written(ept, table):
    ept.frame(table, 0)
    for access in (READ, WRITE, FETCH):
        assert ept.see(access, EPT) == violation(R, 0, table)
        assert ept.see(access, EPT_AD) == violation(R | W, 0, table)
    ept.frame(table, HOST + table | R | X | WB)
    assert ept.see(READ, EPT) == HIT
    assert ept.see(READ, EPT_AD) == violation(R | W, R | X, table)
    ept.frame(table, HOST + table | X | WB)
    assert ept.see(READ, EPT) == violation(R, X, table)


def test_ept_a_flag_of_a_guest_entry_needs_a_writable_frame(ept):
    """Without EPT's own flags that is found out only when a flag must be set, and reported as read and write."""
    ept.frame(PT, HOST + PT | R | WB)
    ept.put(HOST + PT, GPAGE | P | RW | US)
    assert ept.see(READ, EPT) == violation(R | W, R, PT)
    ept.put(HOST + PT, GPAGE | P | RW | US | A)
    assert ept.see(READ, EPT) == HIT
    assert ept.see(WRITE, EPT) == violation(R | W, R, PT)
    ept.put(HOST + PT, GPAGE | P | US)
    assert ept.see(WRITE, EPT) == x86.PageFault(3, VA)  # the guest's own fault comes first


def test_ept_the_final_access_keeps_its_kind(ept):
    for entry, granted in ((R, R), (R | W, R | W), (X, X), (R | X, R | X)):
        ept.frame(GPAGE, HOST + GPAGE | entry | WB)
        for access, wanted in ((READ, R), (WRITE, W), (FETCH, X)):
            expected = HIT if wanted & granted else violation(wanted, granted, GPAGE + VA, final=True)
            assert ept.see(access, EPT) == expected


def test_ept_rights_are_those_of_all_levels(ept):
    ept.put(HPD, HPT | R | X)
    ept.frame(GPAGE, HOST + GPAGE | R | W | WB)
    found = ept.walk(READ, EPT)
    assert (found.writable, found.executable) == (False, False)
    assert ept.see(FETCH, EPT) == violation(X, R, GPAGE + VA, final=True)
    ept.put(HPDPT, 0)
    assert ept.see(READ, EPT) == violation(R, 0, PML4)


@pytest.mark.parametrize(
    "bad", [W | WB, W | X | WB, R | 2 << 3, R | 3 << 3, R | 7 << 3, R | WB | 1 << 51], ids=hex)  # fmt: skip
def test_ept_misconfiguration_beats_every_violation(ept, bad):
    stage2 = x86.Ept(HROOT | 0x1E, phys_bits=40)
    ept.frame(GPAGE, HOST + GPAGE | bad)
    for access in (READ, WRITE, FETCH):
        assert ept.see(access, stage2) == x86.EptMisconfiguration(GPAGE + VA)
    fault = ept.walk(READ, stage2)
    assert (fault.kind, fault.stage, fault.level, fault.entry_address, fault.on_table) == (
        FaultKind.MISCONFIGURATION, 2, 1, HPT + 8 * (GPAGE >> 12), False)
    ept.frame(GPAGE, HOST + GPAGE | EOPEN | WB)
    ept.frame(PD, HOST + PD | bad)
    assert ept.see(READ, stage2) == x86.EptMisconfiguration(PD)


@pytest.mark.parametrize(("table", "bits"), [(HROOT, range(3, 8)), (HPDPT, range(3, 7)), (HPD, range(3, 7))])
def test_ept_table_entries_reserve_bits_below_the_flags(ept, table, bits):
    good = ept.get(table)
    for bit in range(3, 12):
        if bit == 7 and table != HROOT:
            continue  # the other format
        ept.put(table, good ^ 1 << bit)
        expected = x86.EptMisconfiguration(PML4) if bit in bits else HIT
        assert ept.see(READ, EPT) == expected, bit


@pytest.mark.parametrize(("table", "shift"), [(HPDPT, 30), (HPD, 21)])
def test_ept_large_pages(ept, table, shift):
    ept.put(table, EOPEN | WB | 1 << 7)  # guest-physical is host-physical now
    for guest, below in zip(GUEST_TABLES, (PDPT, PD, PT, GPAGE), strict=True):
        ept.put(guest, below | OPEN)
    assert ept.see(READ, EPT) == hex(GPAGE + VA)
    assert ept.walk(READ, EPT, cr0=1, va=5).page_size == 1 << shift
    for bit in range(12, shift):
        ept.put(table, EOPEN | WB | 1 << 7 | 1 << bit)
        assert ept.see(READ, EPT) == x86.EptMisconfiguration(PML4), bit


def test_ept_flags_are_set_only_with_eptp_ad(ept):
    for gpa in (*GUEST_TABLES, GPAGE):
        ept.frame(gpa, HOST + gpa | R | W | X | WB)
    ept.put(HPD, HPT | R | W | X)
    ept.walk(WRITE, EPT)
    assert [ept.entry(gpa) & (EA | ED) for gpa in (*GUEST_TABLES, GPAGE)] == [0] * 5
    ept.walk(READ, EPT_AD, update=False)
    assert [ept.entry(gpa) & (EA | ED) for gpa in (*GUEST_TABLES, GPAGE)] == [0] * 5
    ept.walk(READ, EPT_AD)
    assert [ept.entry(gpa) & (EA | ED) for gpa in (*GUEST_TABLES, GPAGE)] == [EA | ED] * 4 + [EA]
    assert ept.get(HPD) & (EA | ED) == EA
    ept.walk(WRITE, EPT_AD)
    assert ept.entry(GPAGE) & (EA | ED) == EA | ED


def test_ept_a_violation_leaves_the_leaf_alone(ept):
    ept.frame(GPAGE, HOST + GPAGE | R | WB)
    ept.walk(WRITE, EPT_AD)
    assert ept.entry(GPAGE) & (EA | ED) == 0


def test_ept_an_address_wider_than_the_tables_is_a_violation(ept):
    ept.put(HOST + PT, 1 << 48 | OPEN)
    assert ept.see(WRITE, EPT) == violation(W, 0, (1 << 48) + VA, final=True)


def test_ept_of_five_levels(ept):
    ept.put(0x20000, HROOT | EOPEN)
    assert ept.see(READ, x86.Ept(0x20000 | 4 << 3 | 6)) == HIT


def test_ept_reports_shadow_stack_accesses(ept):
    ept.put(HOST + PT, GPAGE | P | US | A | D)
    ept.frame(GPAGE, HOST + GPAGE | R | WB)
    seen = ept.see(WRITE | Access.SHADOW_STACK, EPT, cpl=3, cr4=CR4 | 1 << 23)
    assert seen == x86.EptViolation(W | R << 3 | LINEAR | EFINAL | 1 << 13, GPAGE + VA)


def test_ept_execute_only_pages_can_be_fetched_from_and_not_read(ept):
    ept.frame(GPAGE, HOST + GPAGE | X | WB)
    assert (ept.see(FETCH, EPT), ept.see(READ, EPT)) == (HIT, violation(R, X, GPAGE + VA, final=True))


def test_a_bus_error_of_a_host_table_can_be_a_machine_check(npt):
    npt.put(HPD, 0x4000_0000 | OPEN)
    assert npt.see(READ, NPT) == x86.NestedPageFault(TABLE | 6, PML4)
    where = 0x4000_0000 + 8 * (PML4 >> 12)
    assert npt.see(READ, NPT, bus_error="machine-check") == x86.MachineCheck(where)
