"""Every mapping of an address space, streamed in batches of numpy records.

A record (va, pa, size, flags) is one page, or a run of them when merged; addresses and sizes are in bytes. Pages of
which a part lies in the range asked for are given whole. Tables are read through the bus (C, with the GIL released);
how often an entry is read is not defined, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Any, Literal

from mmu.core import check, ffi, lib
from mmu.errors import BusError
from mmu.radix.form import Entry, Level
from mmu.types import MemTxResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmu.memory import AddressSpace

BATCH = 1 << 14  # records
COLLECT_BATCH = 1 << 17
BUDGET = 1 << 22  # entries read between two looks at signals: some milliseconds
FIELDS = ("va", "pa", "size", "flags")

OnError = Literal["raise", "report"]


class Flag(IntFlag):
    """What the tables grant over all levels. Registers (CR0.WP, SMEP, PAN, ...) may take more away.

    READ, WRITE and FETCH have the numbers of `mmu.Access`; FETCH is for the privileged, USER_FETCH for user mode.
    BUS_ERROR: `pa` is the address of the first entry that cannot be read, of those for va .. va+size-1.
    INVALID: likewise, the address of an entry that is present and that no walker takes.
    """

    READ = 1
    WRITE = 2
    FETCH = 4
    USER = 8
    USER_FETCH = 16
    GLOBAL = 32
    ACCESSED = 64
    DIRTY = 128
    CONTIGUOUS = 256
    BUS_ERROR = 1 << 62
    INVALID = 1 << 63


@dataclass(frozen=True)
class Rule:
    """Entries whose fields have these values have these flags. A value may be (mask in the field, value).

    A field that the format does not have counts as 0 in a page; in a table it takes nothing away.
    """

    flags: Flag
    fields: Mapping[str, int | tuple[int, int]]

    def bits(self, entry: Entry, is_page: bool) -> tuple[int, int] | None:
        """(mask, value) in an entry; None when the rule cannot hold."""
        mask = value = 0
        for name, wanted in self.fields.items():
            inside, wanted = wanted if isinstance(wanted, tuple) else (-1, wanted)
            if (field := entry.layout.fields.get(name)) is None:
                if wanted or not is_page:
                    return None
                continue
            mask |= inside << field.lo & field.mask
            value |= wanted << field.lo
        return mask, value


@dataclass(frozen=True)
class Form:
    """Tables to be scanned: their levels, what entries mean, and how addresses are to be shown.

    `leaf` rules give a page its flags, `table` rules take flags from all that lies below.
    `forbidden`: fields that make an entry invalid when they are set.
    `implied`: a page with all of the first flags loses the second ones.
    `sign`: bits of an address, of which the highest is copied upwards (0: none). `base`: added to every address.
    """

    levels: tuple[Level, ...]
    leaf: Sequence[Rule]
    table: Sequence[Rule]
    pa_bits: int
    forbidden: frozenset[str] = frozenset()
    implied: tuple[Flag, Flag] = (Flag(0), Flag(0))
    sign: int = 0
    base: int = 0
    big_endian: bool = False

    def native(self) -> Any:
        """struct mmu_scan_format."""
        return ffi.new("struct mmu_scan_format *", {
            "base": self.base, "sign": self.sign, "levels": len(self.levels),
            "bus_error": Flag.BUS_ERROR.value, "invalid": Flag.INVALID.value, "swap": self.big_endian,
            "with": self.implied[0].value, "without": self.implied[1].value,
            "level": [
                {
                    "present": level.present, "shift": level.shift, "bits": level.bits, "width": level.width,
                    "table": self._entry(level.table, False), "leaf": self._entry(level.leaf, True),
                }
                for level in self.levels
            ],
        })  # fmt: skip

    def _entry(self, entry: Entry | None, is_page: bool) -> dict[str, Any]:
        if entry is None:
            return {}
        fields = entry.layout.fields
        reserved = entry.layout.reserved_mask if entry.strict else 0
        reserved |= sum(fields[name].mask for name in self.forbidden if name in fields)
        for mask, lo, low in entry.parts:
            reserved |= mask >> lo << low >> self.pa_bits << self.pa_bits >> low << lo
        rules = self.leaf if is_page else self.table
        bits = [(found, rule.flags) for rule in rules if (found := rule.bits(entry, is_page)) is not None]
        return {
            "mask": entry.mask, "value": entry.value, "reserved": reserved,
            "part": [{"mask": mask, "lo": lo, "low": low} for mask, lo, low in entry.parts], "parts": len(entry.parts),
            "rule": [{"mask": m, "value": v, "flags": flags.value} for (m, v), flags in bits], "rules": len(bits),
        }  # fmt: skip


def stream(
    space: AddressSpace,
    form: Form,
    root: int,
    *,
    first: int = 0,
    last: int | None = None,
    merge: bool = False,
    batch: int = BATCH,
    on_error: OnError = "raise",
) -> Iterator[NDArray[np.void]]:
    """Batches of up to *batch* records, by ascending table index.

    Args:
        first, last: the part of the addresses to look at (inclusive, bytes, without sign or base).
        merge: pages next to each other in both address spaces, of equal flags, become one record.
        on_error: "raise" a BusError where an entry cannot be read, and leave invalid entries out as a walker would;
            or "report" both as records of their own.
    """
    import numpy as np

    if batch < 2:
        raise ValueError(f"batch must be at least 2 records, not {batch}")
    if on_error not in ("raise", "report"):
        raise ValueError(f"on_error must be 'raise' or 'report', not {on_error!r}")
    top = (1 << (form.levels[0].shift + form.levels[0].bits)) - 1
    last = top if last is None else last
    if not 0 <= first <= last <= top:
        raise ValueError(f"a range within 0..{top:#x} is wanted, not {first:#x}..{last:#x}")
    native, state, count = form.native(), ffi.new("struct mmu_scan *"), ffi.new("uint64_t *")
    check(lib.mmu_scan_begin(native, root, first, last, merge, state), "tables that a scan cannot follow")
    while not state.done or state.waiting:
        out = np.empty(batch, record_type())
        records = ffi.cast("struct mmu_mapping *", ffi.from_buffer(out))
        check(lib.mmu_scan_next(space.port, native, state, BUDGET, records, batch, count), "scan")
        found = out[: count[0]]
        if on_error == "raise":
            found = _without_trouble(found)
        if len(found):
            yield found


def collect(
    space: AddressSpace, form: Form, root: int, *, batch: int = COLLECT_BATCH, **options: Any
) -> NDArray[np.void]:
    """All records as one array; options as of `stream`."""
    import numpy as np

    found = list(stream(space, form, root, batch=batch, **options))
    if len(found) == 1 and 4 * len(found[0]) >= batch:
        return found[0]  # as it is: a copy would cost as much as the scan
    return np.concatenate([np.empty(0, record_type()), *found])


def record_type() -> np.dtype[np.void]:
    import numpy as np

    return np.dtype([(name, np.uint64) for name in FIELDS])


def _without_trouble(found: NDArray[np.void]) -> NDArray[np.void]:
    trouble = found["flags"] >= Flag.BUS_ERROR.value
    if not trouble.any():
        return found
    for record in found[trouble]:
        if int(record["flags"]) & Flag.BUS_ERROR:
            va, pa, last = int(record["va"]), int(record["pa"]), int(record["va"]) + int(record["size"]) - 1
            raise BusError(f"the table entry at {pa:#x} (for {va:#x}..{last:#x}) cannot be read", MemTxResult.ERROR)
    return found[~trouble]
