"""Page tables to walk: real 4-level x86-64 tables in scattered frames, with the right answers at hand.

Built with numpy from the architecture's rules alone, apart from the project's own table builder, so that builder and
walkers cannot agree on a mistake.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmu import x86

U64 = np.uint64
P, RW, US, A, D, PS = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7
NX = 1 << 63
TABLE, PAGE = P | RW | US | A, P | RW | US | A | D
FAULT = (1 << 64) - 1  # the answer for an address that does not translate
SHARES = (0.85, 0.12, 0.03)  # of questions that meet a 4K, a 2M, a 1G page


@dataclass(frozen=True)
class Image:
    """Row i of `tables` (512 entries) stands at bus address `addresses[i]`; row 0 is the PML4.

    `pages` holds, for 4K, 2M and 1G, the shift and arrays of the virtual and the physical address of each page.
    """

    addresses: Any
    tables: Any
    pages: tuple[tuple[int, Any, Any], ...]

    @property
    def root(self) -> int:
        return int(self.addresses[0])

    @property
    def mappings(self) -> int:
        return sum(len(va) for _, va, _ in self.pages)

    def free_slot(self) -> int:
        """An entry of the PML4's lower half that is not in use: 256 PDPTs at most lie in 512 slots."""
        return int(np.flatnonzero(self.tables[0, :256] == 0)[0])

    def sorted(self) -> tuple[Any, Any]:
        """Virtual and physical address of every page, in the order of the tables."""
        va = np.concatenate([va for _, va, _ in self.pages])
        order = np.argsort(va)
        return va[order], np.concatenate([pa for _, _, pa in self.pages])[order]

    def questions(self, count: int, seed: int = 2) -> tuple[Any, Any]:
        """Random mapped addresses, multiples of 8, and where they lead."""
        random = np.random.default_rng(seed)
        kind = random.choice(len(SHARES), count, p=SHARES)
        va, pa = np.empty(count, U64), np.empty(count, U64)
        for k, (shift, pages, frames) in enumerate(self.pages):
            (here,) = np.nonzero(kind == k)
            page = random.integers(0, len(pages), len(here))
            offset = random.integers(0, 1 << (shift - 3), len(here)).astype(U64) << U64(3)
            va[here], pa[here] = pages[page] | offset, frames[page] | offset
        return va, pa

    def with_faults(self, count: int, seed: int = 3) -> tuple[Any, Any]:
        """Like `questions`, but of each ten addresses one is not mapped and one not canonical."""
        va, pa = self.questions(count, seed)
        va[::10] = va[::10] & U64((1 << 39) - 1) | U64(self.free_slot() << 39)
        va[1::10] ^= U64(1 << 55)
        pa[::10] = pa[1::10] = FAULT
        return va, pa


def dense(pages: int = 65536) -> Image:
    """*pages* 4K pages next to each other from address 0 on, their tables next to each other from 2 MiB on.

    Raises ValueError unless they fill page tables and take one page directory at most.
    """
    if pages % 512 or not 512 <= pages <= 512 * 512:
        raise ValueError(f"pages must be a multiple of 512 up to 262144, not {pages}")
    leaves = pages // 512
    addresses = U64(2 << 20) + np.arange(3 + leaves, dtype=U64) * U64(4096)
    tables = np.zeros((3 + leaves, 512), U64)
    tables[0, 0], tables[1, 0] = addresses[1:3] | U64(TABLE)
    tables[2, :leaves] = addresses[3:] | U64(TABLE)
    va = np.arange(pages, dtype=U64) << U64(12)
    pa = np.random.default_rng(1).permutation(va)
    tables[3:] = (pa | U64(PAGE | NX)).reshape(leaves, 512)
    return Image(addresses, tables, ((12, va, pa),))


def registers(image: Image) -> x86.Registers:
    """Long mode, NXE, WP; user mode, as the reference loops have it."""
    return x86.Registers(cr0=0x80010001, cr3=image.root, cr4=0x20, efer=0xD00, cpl=3, phys_bits=48)


def canonical(va: Any) -> Any:
    return ((va << U64(16)).astype(np.int64) >> np.int64(16)).astype(U64)


def build(base: int = 0, size: int = 512 << 20, pages: int = 65536, seed: int = 1) -> Image:
    """Tables for *pages* 4K pages, 1/32 as many of 2M and 1/256 as many of 1G, in frames of base..base+size-1.

    16 pages share a page table, 4 page tables a page directory, 4 of these a PDPT, as in a busy process. What is
    mapped lies in 0..size-1 whatever *base* is, and is not written. Raises ValueError when *pages* does not fit.
    """
    counts = [1, pages // 256, pages // 64, pages // 16]  # tables of each level, from the PML4 down
    frames = size >> 12
    if not 512 <= pages <= 65536 or sum(counts) > frames - 512:
        raise ValueError(f"pages must be 512 .. 65536 and their tables fit in {size:#x} bytes, not {pages}")
    random = np.random.default_rng(seed)
    chosen = 512 + random.permutation(frames - 512)[: sum(counts)].astype(U64)
    addresses = U64(base) + (chosen << U64(12))
    tables = np.zeros((sum(counts), 512), U64)
    first = np.cumsum([0, *counts])
    vas = np.zeros(1, U64)  # of the tables of the level at hand
    found = []
    for level, shift in enumerate((39, 30, 21, 12)):
        rows = tables[first[level] : first[level + 1]]
        children = counts[level + 1] if level < 3 else 0
        leaves = (0, counts[1], 2 * counts[2], pages)[level]
        slots = random.choice(rows.size, children + leaves, replace=False)
        at = vas[slots >> 9] | (slots & 511).astype(U64) << U64(shift)
        target = random.integers(0, max(1, size >> shift), leaves).astype(U64) << U64(shift)
        if children:
            rows.reshape(-1)[slots[:children]] = addresses[first[level + 1] : first[level + 2]] | U64(TABLE)
        rows.reshape(-1)[slots[children:]] = target | U64(PAGE | (PS if shift > 12 else NX))
        if leaves:
            found.append((shift, canonical(at[children:]), target))
        vas = at[:children]
    return Image(addresses, tables, tuple(reversed(found)))
