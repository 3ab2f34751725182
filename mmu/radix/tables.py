"""Builds page tables anywhere on a bus: the part that every architecture shares.

What is written, and when: an edit is first planned by reading, every check made and every frame taken. Then each
new table is zeroed through the bus, filled, and linked by a single store after its contents. Entries are written by
one store of their own size each. When anything fails the edit has not happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import index as integer
from typing import TYPE_CHECKING, Any, ClassVar

from mmu.errors import AlignmentError
from mmu.radix.edits import Edit, Map, Merge, Protect, Split, Unmap
from mmu.radix.form import Kind, Level, Right
from mmu.radix.frames import FramePool
from mmu.radix.plan import Commit, Node, Plan
from mmu.radix.relocate import Movable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmu.memory import AddressSpace
    from mmu.scan import Form

Invalidate = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Page:
    """One page as the tables have it: addresses and size in bytes, rights by the keywords of `map()`."""

    va: int
    pa: int
    size: int
    rights: Mapping[str, int]


class PageTables(Movable):
    """A tree of tables in *space*, in frames taken from *frames*.

    Args:
        frames: called for the base (bytes, a multiple of the table size) of each frame; raises when there is none.
            `mmu.memory.LevelFrames` gives each level frames of its own.
        free: takes back a frame of a table that is gone; default `frames.free` where that exists.
        root: an existing root table. Default: a fresh, zeroed one.
        invalidate: called with (address, size) after valid entries changed, before frames of dropped tables are
            freed; what a kernel's TLB shootdown would be. Nothing here keeps a TLB.

    Tables that are there already are used as they are: what they deny to all below stays denied.
    Nothing protects an edit from other writers of the same tables, a walker's accessed and dirty updates included.
    """

    RIGHTS: Mapping[str, Right]
    SHORTHANDS: ClassVar[Mapping[str, int]] = {}  # further keywords, which `expand` resolves, with defaults
    BREAK_BEFORE_MAKE: ClassVar[bool] = False

    def __init__(
        self,
        space: AddressSpace,
        frames: Callable[[], int],
        levels: tuple[Level, ...],
        pa_bits: int,
        *,
        root_bits: int = 52,
        free: Callable[[int], None] | None = None,
        root: int | None = None,
        invalidate: Invalidate | None = None,
    ) -> None:
        self.space, self.levels, self.pa_bits, self.invalidate = space, levels, pa_bits, invalidate
        self.va_bits = levels[0].shift + levels[0].bits
        self.page_sizes = tuple(level.size for level in levels if level.leaf is not None)
        self.loose = frozenset(name for name, right in self.RIGHTS.items() if right.loose)
        self.frames = FramePool(space, frames, free, self.page_sizes[-1], pa_bits)
        if root is None:
            root = self.frames.take_root(levels[0].number, levels[0].table_bytes, root_bits)
        self.root = root
        if self.root % levels[0].table_bytes:
            raise AlignmentError(f"the root must be a multiple of {levels[0].table_bytes:#x}, not {self.root:#x}")

    # Edits

    def map(self, va: int, pa: int, size: int, *, page_size: int | None = None, **rights: int) -> None:
        """Map *size* bytes at *va* to *pa* and up, by the largest pages that fit, or by pages of *page_size* only.

        What is mapped the same way already stays as it is. ValueError, and nothing done, when something else is
        mapped there, and for addresses and sizes that no page can have.
        """
        sizes = self.page_sizes if page_size is None else (self._page_size(page_size),)
        first, last = self._range(va, size, sizes[-1])
        pa = integer(pa)
        if pa % sizes[-1]:
            raise AlignmentError(f"the physical address must be a multiple of {sizes[-1]:#x}, not {pa:#x}")
        if pa < 0 or pa + size > 1 << self.pa_bits:
            raise ValueError(
                f"physical addresses must be in 0..{(1 << self.pa_bits) - 1:#x}, not {pa:#x}..{pa + size - 1:#x}")
        start = {**{name: right.default for name, right in self.RIGHTS.items()}, **self.SHORTHANDS}
        self._edit(Map(self, first, last, pa, sizes, self.expand(start, self._known({**self.SHORTHANDS, **rights}))))

    def unmap(self, va: int, size: int) -> None:
        """Unmap *size* bytes at *va*, splitting pages that stick out. ValueError unless all of it is mapped."""
        self._edit(Unmap(self, *self._range(va, size)))

    def protect(self, va: int, size: int, **changes: int) -> None:
        """Change the rights named, and those only. Splits and refuses as `unmap` does."""
        self._edit(Protect(self, *self._range(va, size), self._known(changes)))

    def split(self, va: int, size: int, page_size: int | None = None) -> None:
        """Split what is mapped there into pages of at most *page_size* bytes (default: the smallest)."""
        self._edit(Split(self, *self._range(va, size), self._page_size(page_size or self.page_sizes[-1])))

    def merge(self, va: int, size: int, page_size: int | None = None) -> None:
        """Merge pages in that range into pages of up to *page_size* bytes (default: the largest) where they agree.

        Pages agree when they are contiguous, aligned as the larger page must be, and of equal rights; the larger
        page is accessed or dirty when one of them is.
        """
        self._edit(Merge(self, *self._range(va, size), self._page_size(page_size or self.page_sizes[0])))

    def find(self, va: int) -> Page | None:
        """The page that maps *va*, or None."""
        first, _ = self._range(va & -self.page_sizes[-1], self.page_sizes[-1])
        plan, node = self._plan(), self._plan().root
        for level in self.levels:
            index = first >> level.shift & ((1 << level.bits) - 1)
            entry = plan.entry(node, index)
            kind = level.kind(entry)
            if kind is Kind.LEAF and level.leaf is not None:
                low = va & -level.size
                return Page(low, level.leaf.target(entry), level.size, self.rights(level, entry))
            if kind is not Kind.TABLE or level.table is None:
                break
            node = Node(node.depth + 1, 0, level.table.target(entry))
        return None

    # Reading all of it

    def scan(self, **options: Any) -> NDArray[np.void]:
        """Every mapping as one array of records (va, pa, size, flags); options as of `mmu.scan.stream`."""
        from mmu.scan import collect

        return collect(self.space, self.scan_form(), self.root, **options)

    def scan_batches(self, **options: Any) -> Iterator[NDArray[np.void]]:
        """The same in batches, for trees of any size."""
        from mmu.scan import stream

        return stream(self.space, self.scan_form(), self.root, **options)

    # What an architecture says, or may refine

    def scan_form(self) -> Form:
        """How a scan is to read these tables."""
        raise NotImplementedError

    def strip(self, va: int) -> int:
        """*va* without the bits that no table is indexed by. ValueError when they are not what they must be."""
        if not 0 <= va < 1 << self.va_bits:
            raise ValueError(f"addresses must be in 0..{(1 << self.va_bits) - 1:#x}, not {va:#x}")
        return va

    def show(self, stripped: int) -> str:
        """An address, of which `strip` left *stripped*, in hexadecimal."""
        return f"{stripped:#x}"

    def expand(self, current: Mapping[str, int], changes: Mapping[str, int]) -> dict[str, int]:
        """The rights of a page that had *current* and is to have *changes*, shorthands resolved."""
        return {**current, **changes}

    # Entries, for the edits

    def fields(self, rights: Mapping[str, int]) -> dict[str, int]:
        fields = dict.fromkeys((right.field for right in self.RIGHTS.values()), 0)
        for name, right in self.RIGHTS.items():
            fields[right.field] |= right.encode(rights[name])
        return fields

    def rights(self, level: Level, entry: int) -> dict[str, int]:
        """The rights that a leaf says."""
        assert level.leaf is not None
        known = level.leaf.layout.fields
        return {
            name: right.decode(known[right.field].get(entry) if right.field in known else 0)
            for name, right in self.RIGHTS.items()
        }

    def page(self, level: Level, rights: Mapping[str, int], pa: int = 0) -> int:
        """A leaf. ValueError when a right does not fit in its field, or this format has no such field."""
        assert level.leaf is not None
        return level.leaf.make(pa, self.fields(rights))

    def rewrite(self, level: Level, entry: int, rights: Mapping[str, int]) -> int:
        """*entry* with other rights, every other bit as it is."""
        assert level.leaf is not None
        fields = level.leaf.layout.fields
        mask = sum(fields[name].mask for name in {right.field for right in self.RIGHTS.values()} & fields.keys())
        return entry & ~mask | self.page(level, rights) & mask

    def resize(self, level: Level, to: Level, entry: int, pa: int, rights: Mapping[str, int]) -> int:
        """A leaf of another level for *pa* that keeps what *entry* has in bits that both formats ignore."""
        assert level.leaf is not None and to.leaf is not None
        return self.page(to, rights, pa) | entry & level.leaf.ignored & to.leaf.ignored

    def same(self, a: Mapping[str, int], b: Mapping[str, int]) -> bool:
        """Equal but for what is loose."""
        return all(a[name] == b[name] for name in self.RIGHTS if name not in self.loose)

    def describe(self, rights: Mapping[str, int]) -> str:
        """Rights for messages: the usual three, and what is not as by default."""
        return " ".join(
            f"{name}={int(rights[name])}"
            for number, (name, right) in enumerate(self.RIGHTS.items())
            if number < 3 or rights[name] != right.default
        )

    def explain(self, level: Level, entry: int) -> str:
        """What an entry is, for messages."""
        kind = level.kind(entry)
        if kind is Kind.LEAF and level.leaf is not None:
            rights = self.describe(self.rights(level, entry))
            return f"mapped to {level.leaf.target(entry):#x} by a page of {level.size:#x} bytes with {rights}"
        if kind is Kind.TABLE and level.table is not None:
            return f"covered by a table at {level.table.target(entry):#x}"
        return f"{level.name} {entry:#x} ({kind.value})"

    # The machinery of an edit

    def _plan(self) -> Plan:
        return Plan(self.space, self.levels, Node(0, 0, self.root), self._split_entries, self._link)

    def _split_entries(self, level: Level, below: Level, entry: int) -> dict[int, int]:
        assert level.leaf is not None
        pa, rights = level.leaf.target(entry), self.rights(level, entry)
        first = self.resize(level, below, entry, 0, rights)
        assert below.leaf is not None
        return {i: first | below.leaf.place(pa + i * below.size) for i in range(1 << below.bits)}

    def _link(self, level: Level, table: int) -> int:
        assert level.table is not None
        return level.table.make(table, {})

    def _edit(self, edit: Edit) -> None:
        plan = self._plan()
        plan.run(edit.first, edit.last, edit)
        plan.settle()
        frames = self.frames.take([plan.level(node).number for node in plan.missing()])
        commit = Commit(plan, iter(frames), self._broken if self.BREAK_BEFORE_MAKE else None)
        try:
            commit.run()
        except BaseException:
            self.frames.give_back(frames)
            raise
        self.frames.owned.update(frames)
        if commit.changed:
            self._broken(edit.first, edit.last - edit.first + 1)
        gone = [node.address for node in plan.drop if node.address in self.frames.owned]
        self.frames.owned.difference_update(gone)
        self.frames.give_back(gone)

    def _broken(self, low: int, size: int) -> None:
        if self.invalidate is not None:
            self.invalidate(int(self.show(low), 16), size)

    # Arguments

    def _known(self, rights: Mapping[str, int]) -> dict[str, int]:
        for name in rights:
            if name not in self.RIGHTS and name not in self.SHORTHANDS:
                known = ", ".join([*self.RIGHTS, *self.SHORTHANDS])
                raise TypeError(f"{name!r} is not a right of {type(self).__module__} tables; they have: {known}")
        return {name: integer(value) for name, value in rights.items()}

    def _page_size(self, size: int) -> int:
        if size not in self.page_sizes:
            sizes = ", ".join(f"{s:#x}" for s in self.page_sizes)
            raise ValueError(f"page_size must be one of {sizes} bytes, not {size:#x}")
        return size

    def _range(self, va: int, size: int, unit: int | None = None) -> tuple[int, int]:
        """First and last address (inclusive, stripped), both on page boundaries."""
        va, size, unit = integer(va), integer(size), unit or self.page_sizes[-1]
        if size <= 0:
            raise ValueError(f"size must be positive, not {size}")
        for what, value in (("address", va), ("size", size)):
            if value % unit:
                raise AlignmentError(f"the {what} must be a multiple of {unit:#x}, not {value:#x}")
        first, last = self.strip(va), self.strip(va + size - 1)
        if last - first != size - 1:
            raise ValueError(f"{va:#x}..{va + size - 1:#x} crosses addresses that no table can map")
        return first, last
