"""The reference walker: the specification of what csrc/walk_x86.c does faster, one bus access per entry.

Sources: Intel SDM vol. 3A, 'Paging'; AMD APM vol. 2, 'Page Translation and Protection' and 'Nested Paging'.
"""

from __future__ import annotations

from mmu.types import Access, Fault, FaultKind, Step, Translation
from mmu.x86.descent import Entries, Host, Leaf, LostRaceError, Paging, Request, Space, descend, mark, page_frame
from mmu.x86.format import FIVE_LEVEL, Cr3, Cr4, Efer
from mmu.x86.nested import DATA_OR_FETCH, table_access, to_host
from mmu.x86.registers import Registers
from mmu.x86.rights import key_denies, permitted

RESTARTS = 1024  # a device that never gives the same entry twice must not hang a walk
PAGE_SIZE = 4096
TOP = 1 << 63


def check_address(va: int) -> None:
    """Raises ValueError unless *va* is a number of 64 bits."""
    if not 0 <= va < 1 << 64:
        raise ValueError(f"va must be in 0..{(1 << 64) - 1:#x}, not {va:#x}")


def check_access(access: Access) -> None:
    """Raises ValueError unless *access* is one that x86 makes."""
    if access & DATA_OR_FETCH not in (Access.READ, Access.WRITE, Access.FETCH):
        raise ValueError(f"access must have exactly one of READ, WRITE and FETCH, not {access!r}")
    if access & Access.FETCH and access & ~Access.FETCH:
        raise ValueError(f"access FETCH goes with no other flag, not {access!r}")
    if access & ~(DATA_OR_FETCH | Access.IMPLICIT | Access.STACK | Access.SHADOW_STACK):
        raise ValueError(f"access has a flag that x86 does not know: {access!r}")


def linear_address(regs: Registers, va: int, access: Access) -> int:
    """The address that paging sees: 32 bits outside long mode, otherwise after linear-address masking.

    Masking copies bit 47 or 56 over the metadata below bit 63, for data accesses that a program makes. Bit 63 chooses
    between the user controls (CR3.LAM_U57, CR3.LAM_U48) and the supervisor one (CR4.LAM_SUP, width by CR4.LA57).
    Source: Intel SDM vol. 3A, 'Linear-Address Pre-Processing'.
    """
    if not regs.long_mode:
        return va & 0xFFFFFFFF
    if access & (Access.FETCH | Access.IMPLICIT):
        return va
    if va & TOP:
        sign = (56 if regs.cr4 & Cr4.LA57.mask else 47) if regs.cr4 & Cr4.LAM_SUP.mask else 63
    elif regs.cr3 & Cr3.LAM_U57.mask:
        sign = 56
    else:
        sign = 47 if regs.cr3 & Cr3.LAM_U48.mask else 63
    metadata = TOP - (1 << sign)
    return va | metadata if va >> sign & 1 else va & ~metadata


def canonical(regs: Registers, address: int) -> bool:
    """Bits 63:47 (63:56 with 5-level paging) are all equal."""
    sign = 56 if regs.levels is FIVE_LEVEL else 47
    return address >> sign in (0, (1 << 64 - sign) - 1)


def reference(
    space: Space, regs: Registers, va: int, access: Access, update: bool = True, steps: bool = True
) -> Translation | Fault:
    """
    Translate *va* as a processor without a TLB would.

    Args:
        va: linear address in bytes, 0 .. 2^64-1, with its metadata where LAM is on.
        update: False leaves accessed and dirty flags alone; the answer is the same.
        steps: whether to return the entries that were read, from the last restart on.
    Returns:
        Translation, or Fault. Outside long mode only bits 31:0 of the address count; with paging off it is physical.
        A walk that loses 1024 races in a row against updates of its entries gives up with a BUS fault.
    Raises:
        ValueError: an address of more than 64 bits, or an access that x86 does not make.
        whatever an MMIO callback raises.
    """
    check_address(va)
    check_access(access)
    entries = Entries(space, va, access, update, regs.bus_error == "machine-check")
    answer = undisturbed(entries, regs)
    return _with_steps(answer, tuple(entries.steps)) if steps else answer


def undisturbed(entries: Entries, regs: Registers) -> Translation | Fault:
    """The walk that *entries* is made for, again from the root after each race that it lost."""
    for _ in range(RESTARTS):
        entries.steps.clear()
        try:
            return _walk(entries, regs)
        except LostRaceError:
            continue
    return Fault(FaultKind.BUS, None, entries.va, entries.access)


def _with_steps(answer: Translation | Fault, steps: tuple[Step, ...]) -> Translation | Fault:
    object.__setattr__(answer, "steps", steps)  # our own fresh value, not yet anybody else's
    return answer


def _walk(entries: Entries, regs: Registers) -> Translation | Fault:
    access = entries.access
    address = linear_address(regs, entries.va, access)
    request = Request(1, address, access & DATA_OR_FETCH)
    if not regs.paging:
        return _unpaged(entries, regs, request)
    if regs.long_mode and not canonical(regs, address):
        return entries.fault(FaultKind.NON_CANONICAL, request, None)
    leaf = descend(entries, _stage1(entries, regs), request)
    if isinstance(leaf, Fault):
        return leaf
    by_key = key_denies(regs, leaf.page, access)
    detail = {"protection_key": leaf.page.key} if by_key else {}
    if not permitted(regs, leaf.page, access):
        return entries.fault(FaultKind.PERMISSION, request, leaf.entry, **detail)
    if by_key:
        return entries.fault(FaultKind.PROTECTION_KEY, request, leaf.entry, **detail)
    return _finish(entries, regs, request, leaf)


def _stage1(entries: Entries, regs: Registers) -> Paging:
    wanted = table_access(regs.stage2)

    def locate(gpa: int) -> Host | Fault:
        return to_host(entries, regs.stage2, Request(2, gpa, wanted, on_table=True))

    return Paging(regs.levels, regs.root, regs.phys_bits, bool(regs.efer & Efer.NXE.mask), locate)


def _finish(entries: Entries, regs: Registers, request: Request, leaf: Leaf) -> Translation | Fault:
    """The access is granted by stage 1: mark the leaf, then translate the final address.

    A faulting access leaves the leaf as it was, although the manual allows the accessed flag to be set. The flags of
    a leaf whose final address stage 2 refuses are set: stage 1 has finished then.
    """
    flags = ("A", "D") if entries.access & Access.WRITE else ("A",)
    if refused := mark(entries, leaf.entry, leaf.host, flags, request):
        return refused
    size = 1 << leaf.entry.level.shift
    gpa = page_frame(leaf.entry) | request.address % size
    host = to_host(entries, regs.stage2, Request(2, gpa, request.wanted))
    if isinstance(host, Fault):
        return host
    size = min(size, host.linear or size)
    page = leaf.page
    return Translation(
        host.pa, size, page.writable and host.writable, page.user, page.executable and host.executable)


def _unpaged(entries: Entries, regs: Registers, request: Request) -> Translation | Fault:
    """CR0.PG=0: the linear address is the physical or guest-physical one."""
    host = to_host(entries, regs.stage2, Request(2, request.address, request.wanted))
    if isinstance(host, Fault):
        return host
    return Translation(host.pa, host.linear or PAGE_SIZE, host.writable, True, host.executable)
