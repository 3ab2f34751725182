"""What a translation says besides the address: memory attributes, and the steps that led to it.

Shared by both engines: it reads the leaf descriptors that they found.
Source: DDI 0487, "Memory type and attribute fields", pseudocode S1DecodeMemAttrs, S2CombineS1MemAttrs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmu.arm64.descriptors import layout_of, level_shift
from mmu.arm64.format import EntryKind, Form, Stage1Leaf, Stage2Leaf
from mmu.arm64.regime import Stage1, Stage2, Tables, regime_of, stage1_of, stage2_of
from mmu.arm64.registers import Registers
from mmu.types import Access, Place, Step

OFF = 4  # the level of a stage that is off
NON_SHAREABLE, OUTER, INNER = 0, 2, 3
DEVICE_NGNRNE, NON_CACHEABLE, WRITE_THROUGH_READ, WRITE_BACK = 0x00, 0x44, 0xAA, 0xFF  # MAIR encodings


def step(
    stage: int, form: Form, level: int, kind: EntryKind, address: int, value: int, place: Place | None
) -> Step:  # fmt: skip
    """A step named "L1 table", "L2 block", "L3 page" or "L2 invalid"; its flags by the manual's names."""
    word = ("invalid", "table", "page" if level == 3 else "block")[kind]
    flags = layout_of(stage, form, level, kind).decode(value)
    return Step(level, f"L{level} {word}", address, value, flags, stage, place)


def stage2_is_device(descriptor: int) -> bool:
    return Stage2Leaf.MEMATTR.get(descriptor) >> 2 == 0


def is_device(attr: int) -> bool:
    """*attr* is a MAIR byte: 0b0000xxxx is Device memory (0xF0 is Normal, tagged)."""
    return attr >> 4 == 0


def _shareability(attr: int, sh: int) -> int:
    """Device and Non-cacheable memory is always outer shareable."""
    return OUTER if is_device(attr) or attr == NON_CACHEABLE else sh


def _of_flat(p: Stage1, access: Access) -> tuple[int, int]:
    """(MAIR byte, SH) while stage 1 is off. Source: pseudocode AArch64.S1DisabledOutput."""
    if p.cacheable:
        return WRITE_BACK, NON_SHAREABLE
    if access & Access.FETCH:
        return WRITE_THROUGH_READ if p.fetch_cacheable else NON_CACHEABLE, OUTER
    return DEVICE_NGNRNE, OUTER


def _leaf_sh(t: Tables, descriptor: int) -> int:
    """With DS=1 the descriptor has no room for SH, and TCR.SHx holds for all."""
    return t.sh if t.form in (Form.K4_DS, Form.K16_DS) else Stage1Leaf.SH.get(descriptor)


def _stage2_attr(p: Stage2, descriptor: int) -> int:
    """MemAttr[3:0] as a MAIR byte; allocation hints are all set. FWB is not interpreted."""
    outer, inner = divmod(Stage2Leaf.MEMATTR.get(descriptor), 4)
    if outer == 0:
        return inner << 2  # Device
    if p.cd:
        return NON_CACHEABLE
    return sum((kind << 2 | (3 if kind != 1 else 0)) << at for kind, at in ((outer, 4), (inner, 0)))


def _cacheability(nibble: int) -> int:
    """0 Non-cacheable, 1 Write-Through, 2 Write-Back, of half a MAIR byte; transient or not."""
    if nibble == 4:
        return 0
    return 1 if nibble >> 2 in (0, 2) else 2


def _weaker(one: int, two: int) -> int:
    """The less cacheable of two nibbles; allocation hints and transience are stage 1's (S2CombineS1AttrHints)."""
    if 4 in (one, two):
        return 4
    if _cacheability(two) < _cacheability(one):
        transient = one >> 2 == 1
        return (0 if transient else 2) << 2 | one & 3  # Write-Through
    return one


def combine(one: int, two: int) -> int:
    """Stage 1 and stage 2 attributes together, as a MAIR byte."""
    if is_device(one) or is_device(two):
        return min(a for a in (one, two) if is_device(a))
    if one == 0xF0:  # tagged Write-Back
        one = WRITE_BACK
    return _weaker(one >> 4, two >> 4) << 4 | _weaker(one & 15, two & 15)


def _stage1(p: Stage1, access: Access, level: int, descriptor: int) -> dict[str, Any]:
    if level == OFF:
        attr, sh = _of_flat(p, access)
        return {"attr_index": None, "attr": attr, "sh": sh, "level": None}
    index = Stage1Leaf.ATTRINDX.get(descriptor)
    attr = p.mair >> 8 * index & 0xFF
    found: dict[str, Any] = {"attr_index": index, "attr": attr}
    found |= {"sh": _shareability(attr, _leaf_sh(p.tables, descriptor)), "level": level}
    found |= {"af": Stage1Leaf.AF.get(descriptor), "dbm": Stage1Leaf.DBM.get(descriptor)}
    found |= {"ng": Stage1Leaf.NG.get(descriptor), "gp": Stage1Leaf.GP.get(descriptor)}
    return found | {"contiguous": _contiguous(p.tables, level, descriptor)}


def _contiguous(t: Tables, level: int, descriptor: int) -> int:
    """Bytes of the run that the Contiguous bit announces; 0 without it, or where it has no effect."""
    entries = t.granule.contiguous[level] if Stage1Leaf.CONTIGUOUS.get(descriptor) else 0
    return 1 << level_shift(t.granule, level) + entries if entries else 0


def _stage2(p: Stage2, ipa: int, level: int, descriptor: int) -> dict[str, Any]:
    """The keys of stage 2; the combined attributes replace stage 1's."""
    found: dict[str, Any] = {"ipa": ipa, "s2_level": level, "s2_memattr": Stage2Leaf.MEMATTR.get(descriptor)}
    found |= {"s2_sh": _leaf_sh(p.tables, descriptor), "s2_contiguous": _contiguous(p.tables, level, descriptor)}
    return found | {"s2_af": Stage2Leaf.AF.get(descriptor), "s2_dbm": Stage2Leaf.DBM.get(descriptor), "fwb": p.fwb}


def _most_shareable(one: int, two: int) -> int:
    return next((sh for sh in (OUTER, INNER) if sh in (one, two)), NON_SHAREABLE)


def _clean(one: Stage1, two: Stage2 | None, first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Hardware must still mark the page dirty before a write."""
    level, descriptor = first
    if level != OFF and one.tables.hd and Stage1Leaf.DBM.get(descriptor) and Stage1Leaf.AP.get(descriptor) & 2:
        return True
    level, descriptor = second
    if two is None or level == OFF or not two.tables.hd:
        return False
    return bool(Stage2Leaf.DBM.get(descriptor) and not Stage2Leaf.S2AP.get(descriptor) & 2)


def of(
    p: Stage1, p2: Stage2 | None, access: Access, ipa: int, first: tuple[int, int], second: tuple[int, int],
    privileged: Access, user: Access, own: Access,
) -> dict[str, Any]:  # fmt: skip
    """`Translation.attributes`; *first* and *second* are (level, leaf descriptor) of the stages.

    Always: attr_index (None when stage 1 is off), attr (a MAIR byte), sh, level, privileged and user (what the tables
    let each do, PAN left out), allowed (what this privilege may do next without another walk). Stage 1 on: af, dbm, ng,
    gp, contiguous (bytes, 0: none). Stage 2 on: ipa, s2_level, s2_memattr, s2_sh, s2_af, s2_dbm, s2_contiguous, fwb;
    attr and sh are then the combination.
    """
    found = _stage1(p, access, *first)
    if p2 is not None and second[0] != OFF:
        found |= _stage2(p2, ipa, *second)
        found["attr"] = combine(found["attr"], _stage2_attr(p2, second[1]))
        found["sh"] = _shareability(found["attr"], _most_shareable(found["sh"], found["s2_sh"]))
    if _clean(p, p2, first, second):
        own &= ~Access.WRITE
    return found | {"privileged": privileged, "user": user, "allowed": own}


class Attributes(Mapping[str, Any]):
    """What `of` gives, worked out when it is first looked at."""

    __slots__ = ("_found", "_raw")

    def __init__(self, *raw: Any) -> None:
        self._raw = raw
        self._found: Mapping[str, Any] | None = None

    def _known(self) -> Mapping[str, Any]:
        if self._found is None:
            self._found = _worked_out(*self._raw)
        return self._found

    def __getitem__(self, name: str) -> Any:
        return self._known()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())

    def __repr__(self) -> str:
        return repr(self._known())


def _worked_out(
    regs: Registers, va: int, access: Access, ipa: int, leaves: tuple[tuple[int, int], tuple[int, int]],
    privileged: int, user: int, allowed: int,
) -> dict[str, Any]:  # fmt: skip
    regime = regime_of(regs, regs.el)
    one = stage1_of(regs, regime, regime.two_ranges and bool(va >> 55 & 1))
    return of(
        one, stage2_of(regs, regime), access, ipa, *leaves, Access(privileged), Access(user), Access(allowed)
    )  # fmt: skip
