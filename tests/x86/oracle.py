"""What the manual says of a walk in which two neighbouring levels vary, as one array expression per question.

Written apart from the walkers, and the other way round: not down the levels but question by question, over all
combinations of flags at once. Rows are the upper entry's flags, columns the lower one's. All other entries allow
everything and are marked accessed and dirty.
Sources: Intel SDM vol. 3A, 'Paging': 'Access Rights', 'Protection Keys', 'Page-Fault Exceptions', 'Accessed and Dirty
Flags'; of the choices that the manual leaves, those that mmu.x86 documents.
"""

from dataclasses import dataclass

import numpy as np

P, RW, US, A, D, PS = (1 << n for n in (0, 1, 2, 5, 6, 7))
XD, BEYOND = 1 << 63, 1 << 45  # BEYOND: an address bit above MAXPHYADDR
FLAGS = (P, RW, US, A, D, PS, XD, BEYOND)
KEY, TRAP_KEY = 1, 2  # the key of pages, and that of entries which have none to obey

NOT_PRESENT, RESERVED, PERMISSION, KEY_ONLY = 1, 2, 3, 6  # as mmu.types.FaultKind numbers them


def combinations(flags):
    """Every subset of *flags*, as words."""
    words = np.zeros(1 << len(flags), np.uint64)
    for n, flag in enumerate(flags):
        words[np.arange(len(words)) >> n & 1 == 1] |= np.uint64(flag)
    return words


@dataclass(frozen=True)
class World:
    """Registers and one access. `pke` and `pks` are None when the feature is off, else the two bits AD, WD for KEY."""

    kind: str  # "read", "write", "fetch"
    cpl: int = 0
    implicit: bool = False
    shadow_stack: bool = False
    nxe: bool = True
    wp: bool = True
    smep: bool = False
    smap: bool = False
    ac: bool = False
    pke: int | None = None
    pks: int | None = None

    @property
    def user(self):
        return self.cpl == 3 and not self.implicit


@dataclass(frozen=True)
class Levels:
    """Which of the two levels may map pages; `lower_only`: every lower entry does (a page table)."""

    upper_maps: bool
    lower_maps: bool
    lower_only: bool
    keys: bool = True
    xd: bool = True


@dataclass(frozen=True)
class Prediction:
    status: np.ndarray
    error_code: np.ndarray
    leaf_is_upper: np.ndarray
    upper: np.ndarray  # the entries afterwards; upper: per row
    lower: np.ndarray


def predict(world, levels, upper, lower):
    u, low = upper[:, None], lower[None, :]

    def bit(words, flag):
        return (words & np.uint64(flag)) != 0

    def reserved(words, maps, only):
        out = bit(words, BEYOND)
        if levels.xd and not world.nxe:
            out = out | bit(words, XD)
        return out if maps or only else out | bit(words, PS)

    write, fetch = world.kind == "write", world.kind == "fetch"
    upper_leaf = bit(u, PS) & levels.upper_maps
    upper_bad = ~bit(u, P) | reserved(u, levels.upper_maps, False)
    reached = ~upper_bad & ~upper_leaf
    lower_bad = ~bit(low, P) | reserved(low, levels.lower_maps, levels.lower_only)
    lower_leaf = bit(low, PS) & levels.lower_maps | levels.lower_only  # else a page below both, which allows everything

    absent = ~bit(u, P) | (reached & ~bit(low, P))
    broken = ~absent & (reserved(u, levels.upper_maps, False) & bit(u, P) | reached & lower_bad)
    found = ~absent & ~broken

    writable = bit(u, RW) & (upper_leaf | bit(low, RW))
    user_page = bit(u, US) & (upper_leaf | bit(low, US))
    no_fetch = (bit(u, XD) | ~upper_leaf & bit(low, XD)) & (levels.xd and world.nxe)
    page_rw = np.where(upper_leaf, bit(u, RW), np.where(lower_leaf, bit(low, RW), True))
    page_dirty = np.where(upper_leaf, bit(u, D), np.where(lower_leaf, bit(low, D), True))
    tables_rw = upper_leaf | bit(u, RW) & (lower_leaf | bit(low, RW))
    shadow_page = tables_rw & ~page_rw & page_dirty

    if fetch:
        allowed = ~no_fetch & (user_page if world.user else ~(user_page & world.smep))
    elif world.shadow_stack:
        allowed = shadow_page & (user_page == world.user)
    elif world.user:
        allowed = user_page & (writable | (not write))
    else:
        guarded = user_page & world.smap & (world.implicit or not world.ac)
        allowed = ~guarded & (writable | (not write) | (not world.wp))

    by_key = np.zeros_like(allowed)
    if levels.keys and not fetch:
        for rights, pages in ((world.pke, user_page), (world.pks, ~user_page)):
            if rights is not None:
                obeyed = world.wp | (pages is user_page and world.user)
                by_key = by_key | pages & (bool(rights & 1) | (bool(rights & 2) and write and obeyed))

    status = np.select([absent, broken, ~allowed, by_key], [NOT_PRESENT, RESERVED, PERMISSION, KEY_ONLY], 0)
    code = ~absent * 1 | write * 2 | world.user * 4 | broken * 8 | world.shadow_stack * 64
    code = code | (fetch and ((levels.xd and world.nxe) or world.smep)) * 16 | (found & by_key) * 32
    good = status == 0

    mark = np.uint64(A | (D if write else 0))
    used = ~upper_bad & ~upper_leaf
    new_upper = u | np.where(used, np.uint64(A), np.uint64(0)) | np.where(good & upper_leaf, mark, np.uint64(0))
    lower_used = reached & ~lower_bad & ~lower_leaf
    new_lower = np.broadcast_to(low, status.shape) | np.where(lower_used, np.uint64(A), np.uint64(0))
    new_lower = new_lower | np.where(good & reached & lower_leaf, mark, np.uint64(0))
    return Prediction(status, np.where(good, 0, code), np.broadcast_to(upper_leaf, status.shape),
                      np.bitwise_or.reduce(new_upper, axis=1), new_lower)
