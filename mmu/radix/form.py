"""Radix page tables as data: what the entries of each level look like, whatever is done with them.

The builder (`mmu.radix.tables`) and the scanner (`mmu.scan`) are one loop over these tables, for every architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from mmu.layout import Layout


class Kind(Enum):
    """What one entry is to a walker."""

    HOLE = "not present"
    TABLE = "table"
    LEAF = "page"
    INVALID = "invalid"  # present, but no walker accepts it at this level


@dataclass(frozen=True, slots=True)
class Right:
    """One keyword of `map()`: the field that it sets, or one bit of that field, and its default.

    `inverted`: the bit is 0 when the keyword is true. `loose`: it does not count when two mappings are compared,
    because a walker may change the field by itself, or because it is a hint.
    """

    field: str
    default: int = 0
    inverted: bool = False
    loose: bool = False
    bit: int | None = None

    def encode(self, value: int) -> int:
        """The field's value, all other bits of it 0."""
        value = int(not value) if self.inverted else int(value)
        return value if self.bit is None else (value & 1) << self.bit

    def decode(self, value: int) -> int:
        """The keyword's value, from that of the field."""
        value = value if self.bit is None else value >> self.bit & 1
        return int(not value) if self.inverted else value


@dataclass(frozen=True)
class Entry:
    """One kind of entry.

    `kind`: the fields, with values, that make a present entry this kind. `preset`: fields that a new entry has
    besides. `address`: field -> lowest address bit that it holds, where that is not the field's own position.
    `strict`: a reserved bit that is set makes an entry invalid.
    """

    layout: type[Layout]
    kind: Mapping[str, int]
    preset: Mapping[str, int] = field(default_factory=dict)
    address: Mapping[str, int] | None = None
    strict: bool = True

    @cached_property
    def mask(self) -> int:
        return sum(self.layout.fields[name].mask for name in self.kind)

    @cached_property
    def value(self) -> int:
        return self.layout.make(**self.kind)

    @cached_property
    def parts(self) -> tuple[tuple[int, int, int], ...]:
        """(mask in the entry, lowest bit in the entry, lowest bit of the address) per piece of the address."""
        where = self.address or {"ADDR": self.layout.fields["ADDR"].lo}
        return tuple((self.layout.fields[n].mask, self.layout.fields[n].lo, low) for n, low in where.items())

    @cached_property
    def address_mask(self) -> int:
        return sum(mask for mask, _, _ in self.parts)

    @cached_property
    def reach(self) -> int:
        """The address bits that an entry can hold."""
        return sum(mask >> lo << low for mask, lo, low in self.parts)

    @cached_property
    def in_place(self) -> bool:
        """Every address bit stands where it belongs, as mostly."""
        return self.reach == self.address_mask and all(lo == low for _, lo, low in self.parts)

    @cached_property
    def ignored(self) -> int:
        return sum(f.mask for f in self.layout.fields.values() if f.kind == "ignored")

    def place(self, address: int) -> int:
        """The address bits of an entry for *address* (bytes)."""
        if self.in_place:
            return address & self.reach
        return sum(address >> low << lo & mask for mask, lo, low in self.parts)

    def target(self, entry: int) -> int:
        """The address (bytes) that *entry* holds."""
        if self.in_place:
            return entry & self.reach
        return sum((entry & mask) >> lo << low for mask, lo, low in self.parts)

    def make(self, address: int, fields: Mapping[str, int]) -> int:
        """An entry for *address*. Raises ValueError when a field is not part of this format and not 0."""
        known = {n: v for n, v in fields.items() if n in self.layout.fields}
        for name in fields.keys() - known.keys():
            if fields[name]:
                raise ValueError(f"{self.layout.__name__} has no field {name} (wanted: {fields[name]:#x})")
        return self.layout.make(**{**self.preset, **known, **self.kind}) | self.place(address)


@dataclass(frozen=True)
class Level:
    """One level of a tree of tables; a tuple of them, root first, is all that a loop needs.

    `number` is the manual's. Address bits `shift` + `bits` - 1 .. `shift` index a table of this level.
    `present`: an entry with none of these bits set is a hole. Entries have `width` bytes.
    `hint`: the bit that says that 1 << `run` aligned pages of this level are one piece (arm64 Contiguous).
    """

    number: int
    name: str
    shift: int
    bits: int
    present: int
    table: Entry | None
    leaf: Entry | None
    width: int = 8
    hint: int = 0
    run: int = 0

    @property
    def size(self) -> int:
        """Bytes of address that one entry covers."""
        return 1 << self.shift

    @property
    def table_bytes(self) -> int:
        return self.width << self.bits

    def kind(self, entry: int) -> Kind:
        if not entry & self.present:
            return Kind.HOLE
        for kind, form in ((Kind.LEAF, self.leaf), (Kind.TABLE, self.table)):
            if form is not None and entry & form.mask == form.value:
                return Kind.INVALID if form.strict and entry & form.layout.reserved_mask else kind
        return Kind.INVALID
