"""May this access use this page? Source: Intel SDM vol. 3A, 'Access Rights' and 'Protection Keys'."""

from __future__ import annotations

from dataclasses import dataclass

from mmu.types import Access
from mmu.x86.format import Cr0, Cr4
from mmu.x86.registers import Registers


@dataclass(frozen=True, slots=True)
class Page:
    """What the entries of a walk grant together.

    `writable` and `user` are ANDed over all levels, `executable` is "XD is 0 at every level", `key` is the leaf's.
    `shadow_stack`: R/W is 1 in every entry above the leaf, and in the leaf R/W=0 with D=1.
    """

    writable: bool
    user: bool
    executable: bool
    shadow_stack: bool
    key: int


def user_access(regs: Registers, access: Access) -> bool:
    """A user-mode access: made at CPL 3, and not by the processor itself (descriptor tables, TSS)."""
    return regs.cpl == 3 and not access & Access.IMPLICIT


def permitted(regs: Registers, page: Page, access: Access) -> bool:
    """The determination of access rights without protection keys.

    A shadow-stack access needs a shadow-stack page of its own mode; EFLAGS.AC does not open a user's to the supervisor.
    """
    user = user_access(regs, access)
    if access & Access.FETCH:
        if user:
            return page.user and page.executable
        return page.executable and not (page.user and regs.cr4 & Cr4.SMEP.mask)
    if access & Access.SHADOW_STACK:
        return page.shadow_stack and page.user == user
    write = bool(access & Access.WRITE)
    if user:
        return page.user and (page.writable or not write)
    if page.user and regs.cr4 & Cr4.SMAP.mask and (access & Access.IMPLICIT or not regs.ac):
        return False
    return not write or page.writable or not regs.cr0 & Cr0.WP.mask


def key_denies(regs: Registers, page: Page, access: Access) -> bool:
    """Does the protection key forbid the access, whatever the other rights say? Never a fetch, and only in long mode.

    PKRU speaks for user pages, IA32_PKRS for supervisor pages. WD matters to writes when CR0.WP=1, and to user-mode
    writes to user pages always.
    """
    if access & Access.FETCH or not regs.long_mode:
        return False
    enable, rights = (Cr4.PKE, regs.pkru) if page.user else (Cr4.PKS, regs.pkrs)
    if not regs.cr4 & enable.mask:
        return False
    access_disabled, write_disabled = rights >> 2 * page.key & 1, rights >> 2 * page.key & 2
    if access_disabled:
        return True
    obeyed = bool(regs.cr0 & Cr0.WP.mask) or (page.user and user_access(regs, access))
    return bool(write_disabled and access & Access.WRITE and obeyed)
