"""arm64 tables as `mmu.radix` and `mmu.scan` want them: what makes an entry a page, and what its bits grant."""

from __future__ import annotations

from mmu.arm64 import format as f
from mmu.layout import Layout
from mmu.radix.form import Entry, Level
from mmu.scan import Flag, Form, Rule

# Granule in bytes -> the form with 48-bit addresses, and with 52-bit ones.
FORMS = {4096: (f.Form.K4, f.Form.K4_DS), 16384: (f.Form.K16, f.Form.K16_DS), 65536: (f.Form.K64, f.Form.K64)}
VALID, CONTIGUOUS = (f.Stage1Leaf.fields[name].mask for name in ("VALID", "CONTIGUOUS"))

LEAF = (
    Rule(Flag.READ, {}),
    Rule(Flag.WRITE, {"AP": (2, 0)}),
    Rule(Flag.USER, {"AP": (1, 1)}),
    Rule(Flag.FETCH, {"PXN": 0}),
    Rule(Flag.USER_FETCH, {"UXN": 0}),
    Rule(Flag.GLOBAL, {"NG": 0}),
    Rule(Flag.ACCESSED, {"AF": 1}),
    Rule(Flag.CONTIGUOUS, {"CONTIGUOUS": 1}),
)
TABLE = (
    Rule(Flag.USER, {"APTABLE": (1, 1)}),
    Rule(Flag.WRITE, {"APTABLE": (2, 2)}),
    Rule(Flag.FETCH, {"PXNTABLE": 1}),
    Rule(Flag.USER_FETCH, {"UXNTABLE": 1}),
)
# One range: nothing is for EL0, and bits 54 and 60 forbid execution.
SINGLE_LEAF = (
    Rule(Flag.READ, {}),
    Rule(Flag.WRITE, {"AP": (2, 0)}),
    Rule(Flag.FETCH, {"UXN": 0}),
    Rule(Flag.ACCESSED, {"AF": 1}),
    Rule(Flag.CONTIGUOUS, {"CONTIGUOUS": 1}),
)
SINGLE_TABLE = (Rule(Flag.WRITE, {"APTABLE": (2, 2)}), Rule(Flag.FETCH, {"UXNTABLE": 1}))
# XN[1:0]: 0 both, 1 EL0 only, 2 none, 3 EL1 only.
STAGE2_LEAF = (
    Rule(Flag.READ, {"S2AP": (1, 1)}),
    Rule(Flag.WRITE, {"S2AP": (2, 2)}),
    Rule(Flag.FETCH | Flag.USER_FETCH, {"XN": 0}),
    Rule(Flag.USER_FETCH, {"XN": 1}),
    Rule(Flag.FETCH, {"XN": 3}),
    Rule(Flag.ACCESSED, {"AF": 1}),
    Rule(Flag.CONTIGUOUS, {"CONTIGUOUS": 1}),
)


def _entry(layout: type[Layout], form: f.Form, kind: int, wide: bool) -> Entry:
    where = {"ADDR": layout.fields["ADDR"].lo}
    if wide and "ADDR_HI" in layout.fields:
        where["ADDR_HI"] = f.ADDR_HI_SHIFT[form]
    return Entry(layout, {"VALID": 1, "TYPE": kind}, address=where, strict=False)  # RES0 bits: a walk does not look


def radix(
    granule: f.Granule, form: f.Form, bits: int, stage: int, start: int | None, block_levels: int, wide: bool
) -> tuple[Level, ...]:
    """The levels that translate addresses of *bits* bits.

    `start`: the level to begin at, where that is not what *bits* says (stage 2: up to 16 concatenated tables).
    `block_levels`: a mask, bit L for level L. `wide`: descriptors hold addresses of 52 bits.
    """
    index = bits - granule.page_shift
    default = f.FINAL_LEVEL + 1 - -(-index // granule.stride)
    start = default if start is None else start
    top = index - granule.stride * (f.FINAL_LEVEL - start)
    if not 0 < top <= granule.stride + (4 if stage == 2 else 0):
        raise ValueError(f"level {start} cannot resolve {top} bits of an address of {bits} bits")
    rows = f.DESCRIPTORS[stage, form]
    pages = [level for level in rows.leaf if (block_levels | 1 << f.FINAL_LEVEL) >> level & 1]
    return tuple(
        Level(
            number=level,
            name=f"level {level} descriptor",
            shift=granule.page_shift + granule.stride * (f.FINAL_LEVEL - level),
            bits=top if level == start else granule.stride,
            present=VALID,
            table=_entry(rows.table, form, 1, wide) if level < f.FINAL_LEVEL else None,
            leaf=_entry(rows.leaf[level], form, int(level == f.FINAL_LEVEL), wide) if level in pages else None,
            hint=CONTIGUOUS if level in pages and granule.contiguous[level] else 0,
            run=granule.contiguous[level] if level in pages else 0,
        )
        for level in range(start, f.FINAL_LEVEL + 1)
    )


def scan_form(
    levels: tuple[Level, ...],
    stage: int,
    pa_bits: int,
    *,
    two_ranges: bool = True,
    hierarchical: bool = True,
    base: int = 0,
    big_endian: bool = False,
) -> Form:
    """*hierarchical*: the attributes of table descriptors count (TCR_ELx.HPD is 0)."""
    if stage == 2:
        return Form(levels, STAGE2_LEAF, (), pa_bits, big_endian=big_endian)
    leaf, table = (LEAF, TABLE) if two_ranges else (SINGLE_LEAF, SINGLE_TABLE)
    # Arm ARM, "Instruction execution permissions": what EL0 may write, EL1 does not execute.
    implied = (Flag.USER | Flag.WRITE, Flag.FETCH) if two_ranges else (Flag(0), Flag(0))
    return Form(
        levels, leaf, table if hierarchical else (), pa_bits, implied=implied, base=base, big_endian=big_endian
    )
