"""x86 tables as `mmu.radix` and `mmu.scan` want them: what makes an entry a page, and what its bits grant."""

from __future__ import annotations

from mmu.layout import Layout
from mmu.radix.form import Entry, Level
from mmu.scan import Flag, Form, Rule
from mmu.x86 import format as f

# PSE-36 splits the address; everywhere else ADDR stands where it belongs.
ADDRESS: dict[type[Layout], dict[str, int]] = {f.Pde4M: {"ADDR": 22, "HIGH": 32}}

# Fields that make an entry present; those that a new entry has when it refers to a table, so that pages alone decide.
ORDINARY = (("P",), ("RW", "US"))
EXTENDED = (("R", "W", "X"), ("R", "W", "X", "XU"))

LEAF = (
    Rule(Flag.READ, {}),
    Rule(Flag.WRITE, {"RW": 1}),
    Rule(Flag.FETCH, {"XD": 0}),
    Rule(Flag.USER, {"US": 1}),
    Rule(Flag.USER_FETCH, {"US": 1, "XD": 0}),
    Rule(Flag.GLOBAL, {"G": 1}),
    Rule(Flag.ACCESSED, {"A": 1}),
    Rule(Flag.DIRTY, {"D": 1}),
)
TABLE = (
    Rule(Flag.WRITE, {"RW": 0}),
    Rule(Flag.USER | Flag.USER_FETCH, {"US": 0}),
    Rule(Flag.FETCH | Flag.USER_FETCH, {"XD": 1}),
)
EPT_LEAF = (
    Rule(Flag.READ, {"R": 1}),
    Rule(Flag.WRITE, {"W": 1}),
    Rule(Flag.FETCH, {"X": 1}),
    Rule(Flag.ACCESSED, {"A": 1}),
    Rule(Flag.DIRTY, {"D": 1}),
)
EPT_TABLE = (Rule(Flag.READ, {"R": 0}), Rule(Flag.WRITE, {"W": 0}), Rule(Flag.FETCH, {"X": 0}))


def _entry(layout: type[Layout] | None, kind: dict[str, int], preset: tuple[str, ...]) -> Entry | None:
    if layout is None:
        return None
    return Entry(layout, kind, {name: 1 for name in preset if name in layout.fields}, ADDRESS.get(layout))


def is_extended(levels: tuple[f.Level, ...]) -> bool:
    return levels in (f.EPT_FOUR_LEVEL, f.EPT_FIVE_LEVEL)


def radix(levels: tuple[f.Level, ...]) -> tuple[Level, ...]:
    """The levels of a paging mode."""
    ept = is_extended(levels)
    presence, preset = EXTENDED if ept else ORDINARY
    out = []
    for level in levels:
        fields = (level.table or level.leaf or Layout).fields
        present = sum(fields[name].mask for name in presence)
        kind = {} if ept else {"P": 1}
        ps: tuple[dict[str, int], ...] = ({"PS": 0}, {"PS": 1}) if level.table and level.leaf else ({}, {})
        table, leaf = _entry(level.table, {**kind, **ps[0]}, preset), _entry(level.leaf, {**kind, **ps[1]}, ())
        out.append(Level(level.number, level.name, level.shift, level.bits, present, table, leaf, level.size))
    return tuple(out)


def scan_form(levels: tuple[f.Level, ...], phys_bits: int, no_execute: bool = True) -> Form:
    """*no_execute*: EFER.NXE, without which XD is reserved."""
    ept = is_extended(levels)
    top = levels[0].shift + levels[0].bits
    return Form(
        radix(levels), EPT_LEAF if ept else LEAF, EPT_TABLE if ept else TABLE, phys_bits,
        forbidden=frozenset() if no_execute or ept else frozenset({"XD"}), sign=0 if ept or top <= 32 else top,
    )  # fmt: skip
