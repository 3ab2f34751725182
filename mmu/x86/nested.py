"""Stage 2: what a guest-physical address is to the host. Reference; csrc/walk_x86_nested.c is its twin."""

from __future__ import annotations

from mmu.types import Access, Fault, FaultKind
from mmu.x86.descent import NOTHING, Entries, Entry, Host, Paging, Request, descend, mark, page_frame
from mmu.x86.format import Efer, Eptp, EptPte, Level
from mmu.x86.registers import Ept, Npt, root_address

DATA_OR_FETCH = Access.READ | Access.WRITE | Access.FETCH
EPT_RIGHTS = ((Access.READ, "R"), (Access.WRITE, "W"), (Access.FETCH, "X"))
EPT_RESERVED_TYPES = (2, 3, 7)


def table_access(stage2: Npt | Ept | None) -> Access:
    """What reading a guest table entry asks of stage 2.

    NPT: always a write. EPT: a write only while EPT keeps accessed and dirty flags, and then a read as well.
    """
    if isinstance(stage2, Npt):
        return Access.WRITE
    if isinstance(stage2, Ept) and stage2.accessed_dirty:
        return Access.READ | Access.WRITE
    return Access.READ


def to_host(entries: Entries, stage2: Npt | Ept | None, request: Request) -> Host | Fault:
    """Translate a guest-physical address."""
    if stage2 is None:
        return Host(request.address)
    top = stage2.levels[0]
    if request.address >> top.shift + top.bits:
        return _outside(entries, stage2, request)
    return _npt(entries, stage2, request) if isinstance(stage2, Npt) else _ept(entries, stage2, request)


def _outside(entries: Entries, stage2: Npt | Ept, request: Request) -> Fault:
    """An address wider than the tables reach: refused before any read, as not present.

    For EPT the manual says so ('EPT Translation Mechanism': an EPT violation); for NPT it is our choice.
    """
    detail = {"granted": NOTHING} if isinstance(stage2, Ept) else {}
    return entries.fault(FaultKind.NOT_PRESENT, request, None, **detail)


def _npt(entries: Entries, npt: Npt, request: Request) -> Host | Fault:
    """AMD APM vol. 2, 'Nested Table Walk': a user access through the host's kind of tables."""
    nxe = bool(npt.efer & Efer.NXE.mask)
    paging = Paging(npt.levels, root_address(npt.ncr3, npt.levels), npt.phys_bits, nxe, Host)
    leaf = descend(entries, paging, request)
    if isinstance(leaf, Fault):
        return leaf
    page = leaf.page
    write, fetch = bool(request.wanted & Access.WRITE), bool(request.wanted & Access.FETCH)
    if not page.user or (write and not page.writable) or (fetch and not page.executable):
        return entries.fault(FaultKind.PERMISSION, request, leaf.entry)
    if refused := mark(entries, leaf.entry, leaf.host, ("A", "D") if write else ("A",), request):
        return refused
    size = 1 << leaf.entry.level.shift
    pa = page_frame(leaf.entry) | request.address % size
    return Host(pa, size, page.writable, page.executable, leaf=leaf.entry)


def _ept(entries: Entries, ept: Ept, request: Request) -> Host | Fault:
    """Intel SDM vol. 3C, 'EPT Translation Mechanism' and 'EPT-Induced VM Exits'."""
    paging = Paging(ept.levels, ept.eptp & Eptp.ADDR.mask, ept.phys_bits, True, Host)
    table, granted = paging.root, DATA_OR_FETCH
    for level in paging.levels:
        entry = _ept_entry(entries, table, level, request)
        if isinstance(entry, Fault):
            return entry
        here = sum((right for right, bit in EPT_RIGHTS if entry.has(bit)), NOTHING)
        granted &= here
        if not here:
            return entries.fault(FaultKind.NOT_PRESENT, request, entry, granted=granted)
        if _misconfigured(paging, entry):
            return entries.fault(FaultKind.MISCONFIGURATION, request, entry, granted=granted)
        if entry.leaf:
            return _ept_leaf(entries, ept, request, entry, granted)
        if ept.accessed_dirty and (refused := mark(entries, entry, Host(entry.address), ("A",), request)):
            return refused
        table = entry.value & entry.layout.fields["ADDR"].mask
    raise AssertionError("the last level has leaves only")


def _ept_entry(entries: Entries, table: int, level: Level, request: Request) -> Entry | Fault:
    address = table + (request.address >> level.shift) % (1 << level.bits) * level.size
    return entries.read(level, address, address, request)


def _misconfigured(paging: Paging, entry: Entry) -> bool:
    """'EPT Misconfigurations': writable but not readable, a reserved bit, a reserved memory type."""
    if entry.has("W") and not entry.has("R"):
        return True
    if entry.value & paging.reserved(entry.layout):
        return True
    return entry.leaf and EptPte.MT.get(entry.value) in EPT_RESERVED_TYPES


def _ept_leaf(entries: Entries, ept: Ept, request: Request, leaf: Entry, granted: Access) -> Host | Fault:
    wanted = request.wanted & DATA_OR_FETCH
    if wanted & ~granted:
        return entries.fault(FaultKind.PERMISSION, request, leaf, granted=granted)
    if ept.accessed_dirty:
        flags = ("A", "D") if wanted & Access.WRITE else ("A",)
        if refused := mark(entries, leaf, Host(leaf.address), flags, request):
            return refused
    size = 1 << leaf.level.shift
    pa = page_frame(leaf) | request.address % size
    return Host(pa, size, bool(granted & Access.WRITE), bool(granted & Access.FETCH), granted, leaf)
