"""Declarative bit layouts: the one place where a hardware format is written down."""

from __future__ import annotations

from typing import ClassVar, Literal

Kind = Literal["field", "reserved", "ignored"]


class Bits:
    """Bits ``hi`` down to ``lo`` (both inclusive) of a word, with the manual's own name."""

    def __init__(self, hi: int, lo: int | None = None, doc: str = "", kind: Kind = "field") -> None:
        self.hi, self.lo, self.doc, self.kind = hi, hi if lo is None else lo, doc, kind
        if not 0 <= self.lo <= self.hi:
            raise TypeError(f"bits {self.hi}:{self.lo} are not a range")
        self.width = self.hi - self.lo + 1
        self.mask = ((1 << self.width) - 1) << self.lo
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def get(self, word: int) -> int:
        """The field's value, shifted down to bit 0."""
        return (word & self.mask) >> self.lo

    def put(self, value: int) -> int:
        """*value* shifted into place. Raises ValueError when it does not fit."""
        if not 0 <= value < 1 << self.width:
            raise ValueError(f"{self.name}: {value:#x} does not fit in {self.width} bits")
        return value << self.lo


def reserved(hi: int, lo: int | None = None) -> Bits:
    return Bits(hi, lo, "must be zero", "reserved")


def ignored(hi: int, lo: int | None = None) -> Bits:
    return Bits(hi, lo, "ignored by hardware", "ignored")


class Layout:
    """A register or descriptor format. Every bit is claimed exactly once, or the class cannot be made."""

    BITS: ClassVar[int]
    SOURCE: ClassVar[str]
    fields: ClassVar[dict[str, Bits]]
    reserved_mask: ClassVar[int]
    _decoded: ClassVar[tuple[tuple[str, int, int], ...]]  # name, lowest bit, ones: of each field, in bit order

    def __init_subclass__(cls, *, bits: int, source: str) -> None:
        cls.BITS, cls.SOURCE = bits, source
        # Bases too: formats that differ in the address only share their attribute bits through a plain class.
        rows = [vars(base) for base in reversed(cls.__mro__)]
        cls.fields = {k: v for row in rows for k, v in row.items() if isinstance(v, Bits)}
        seen = 0
        for f in cls.fields.values():
            if seen & f.mask:
                raise TypeError(f"{cls.__name__}.{f.name} overlaps another field")
            seen |= f.mask
        if seen >> bits:
            raise TypeError(f"{cls.__name__}: bits {seen >> bits << bits:#x} lie outside the {bits}-bit word")
        if missing := ((1 << bits) - 1) & ~seen:
            raise TypeError(f"{cls.__name__}: bits {missing:#x} are not described")
        cls.reserved_mask = sum(f.mask for f in cls.fields.values() if f.kind == "reserved")
        named = sorted((f for f in cls.fields.values() if f.kind == "field"), key=lambda f: f.lo)
        cls._decoded = tuple((f.name, f.lo, f.mask >> f.lo) for f in named)

    @classmethod
    def make(cls, **values: int) -> int:
        """A word with the named fields set and all else zero. Raises KeyError on an unknown name."""
        return sum(cls.fields[k].put(v) for k, v in values.items())

    @classmethod
    def decode(cls, word: int) -> dict[str, int]:
        """The named fields of *word*, in bit order; reserved and ignored bits are left out."""
        return {name: word >> low & ones for name, low, ones in cls._decoded}
