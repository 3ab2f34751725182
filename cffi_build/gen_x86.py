"""Renders the levels of every x86 paging mode as initializers of `struct x86_level` arrays (csrc/walk_x86.h)."""

from mmu.layout import Layout
from mmu.x86.format import ENTRIES, MODES, Level

NUMBER = {layout: number for number, (_, layout) in enumerate(ENTRIES)}
# member of struct x86_format -> the field whose mask it holds
MASKS = {"address": "ADDR", "high": "HIGH", "accessed": "A", "dirty": "D", "xd": "XD", "key": "PK"}


def _format(member: str, layout: type[Layout] | None) -> str:
    if layout is None:
        return f".{member} = {{ 0 }}"
    noun = f"X86_{layout.__name__.upper()}"
    masks = [f".{c} = {noun}_{field}" for c, field in MASKS.items() if field in layout.fields]
    numbers = [f".rights = {int('RW' in layout.fields)}", f".number = {NUMBER[layout]}"]
    return f".{member} = {{ {', '.join([f'.reserved = {noun}_RESERVED', *masks, *numbers])} }}"


def _level(level: Level) -> list[str]:
    both = level.table is not None and level.leaf is not None
    ps = f"X86_{level.leaf.__name__.upper()}_PS" if both and level.leaf else "0"
    return [
        f"{{ .number = {level.number}, .shift = {level.shift}, .index_bits = {level.bits}, .size = {level.size},",
        f"  .leaf_only = {int(level.table is None)}, .ps = {ps},",
        f"  {_format('table', level.table)},",
        f"  {_format('leaf', level.leaf)} }},",
    ]


def render_levels() -> list[str]:
    out: list[str] = []
    for name, levels in MODES.items():
        rows = [line for level in levels for line in _level(level)]
        out += [f"#define X86_LEVELS_{name} {{ \\", *(f"\t{row} \\" for row in rows), "}", ""]
    return out
