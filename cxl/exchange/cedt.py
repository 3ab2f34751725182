"""The ACPI table that describes host bridges and fixed memory windows.

`Cedt` is the table as records, for tools that want it exactly; `blueprint` is the machine that it describes.
Source: CXL 3.1, "CXL Early Discovery Table"; ACPI, "System Description Table Header".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cxl import format as fmt
from cxl.blueprint import Blueprint, BridgePlan, WindowPlan
from cxl.errors import TopologyError
from mmu.stripes import ENCODED_GRANULARITY, ENCODED_WAYS, GRANULARITIES, WAYS

_Table = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Chbs:
    """A host bridge. *version* 0: CXL 1.1, *base* is its RCRB; 1: component registers."""

    uid: int
    version: int
    base: int
    length: int


@dataclass(frozen=True, slots=True)
class Cfmws:
    """A window; *targets* are UIDs in interleave order, *arithmetic* 0 modulo or 1 XOR."""

    base: int
    size: int
    granularity: int
    arithmetic: int
    restrictions: int
    qtg: int
    targets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cxims:
    """XOR maps for windows of *granularity*."""

    granularity: int
    maps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rdpas:
    """Where port registers are. *bdf*: bus 15:8, device 7:3, function 2:0; *protocol* 0 CXL.io, 1 CXL.cache and mem."""

    segment: int
    bdf: int
    protocol: int
    base: int


@dataclass(frozen=True, slots=True)
class Csds:
    """System capabilities: bit 0 CMP_M, bit 1 no clean writeback, bit 2 viral policy."""

    capabilities: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """A record of a type that this package does not know, with its header."""

    data: bytes


Record = Chbs | Cfmws | Cxims | Rdpas | Csds | Unknown


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of the ACPI header that are free."""

    revision: int = 1
    oem_id: bytes = b"CXLMMU"
    oem_table_id: bytes = b"TOPOLOGY"
    oem_revision: int = 1
    creator_id: bytes = b"CXMU"
    creator_revision: int = 1


@dataclass(frozen=True, slots=True)
class Cedt:
    """A whole table."""

    header: Header = Header()
    records: tuple[Record, ...] = field(default=())

    @classmethod
    def parse(cls, data: bytes) -> Cedt:
        """The records of *data*. Raises TopologyError, with the offset, when it is no valid CEDT.

        A checksum byte of 0 is taken as not filled in.
        """
        head = _header(data)
        records: list[Record] = []
        at = fmt.CEDT_HEADER_SIZE
        while at < len(data):
            kind, length = _record(data, at)
            records.append(_PARSERS.get(kind, _unknown)(data[at : at + length], f"CEDT record at {at:#x}"))
            at += length
        return cls(head, tuple(records))

    def to_bytes(self) -> bytes:
        """The table, lengths and checksum filled in."""
        body = b"".join(_encode(r) for r in self.records)
        head = bytearray(fmt.CEDT_HEADER_SIZE)
        values = {"signature": int.from_bytes(b"CEDT", "little"), "length": len(head) + len(body)}
        for name, offset, size in fmt.CEDT_HEADER:
            value = values.get(name, getattr(self.header, name, 0))
            head[offset : offset + size] = value if isinstance(value, bytes) else value.to_bytes(size, "little")
        head[_CHECKSUM] = -sum(head + body) & 0xFF
        return bytes(head) + body


_CHECKSUM = next(offset for name, offset, _ in fmt.CEDT_HEADER if name == "checksum")


# -- reading ---------------------------------------------------------------------------------------------


def _fields(table: _Table, data: bytes) -> dict[str, int]:
    return {name: int.from_bytes(data[offset : offset + size], "little") for name, offset, size in table}


def _header(data: bytes) -> Header:
    if len(data) < fmt.CEDT_HEADER_SIZE:
        raise TopologyError(f"CEDT: a table has at least {fmt.CEDT_HEADER_SIZE} bytes, not {len(data)}")
    if data[:4] != b"CEDT":
        raise TopologyError(f"CEDT: the signature must be b'CEDT', not {data[:4]!r}")
    length = _fields(fmt.CEDT_HEADER, data)["length"]
    if length != len(data):
        raise TopologyError(f"CEDT: its length field says {length} bytes, but there are {len(data)}")
    # QEMU hands the table to firmware with a checksum of 0, to be filled in there; dumps of that are about.
    if data[_CHECKSUM] and (total := sum(data) & 0xFF):
        raise TopologyError(f"CEDT: all bytes must add up to 0 modulo 256, not to {total:#x} (bad checksum)")
    raw = {name: data[offset : offset + size] for name, offset, size in fmt.CEDT_HEADER}
    return Header(raw["revision"][0], raw["oem_id"], raw["oem_table_id"], int.from_bytes(raw["oem_revision"], "little"),
                  raw["creator_id"], int.from_bytes(raw["creator_revision"], "little"))


def _record(data: bytes, at: int) -> tuple[int, int]:
    left = len(data) - at
    if left < fmt.RECORD_HEADER_SIZE:
        raise TopologyError(f"CEDT record at {at:#x}: {left} bytes are left, a record header has "
                            f"{fmt.RECORD_HEADER_SIZE}")
    head = _fields(fmt.RECORD_HEADER, data[at:])
    if not fmt.RECORD_HEADER_SIZE <= head["length"] <= left:
        raise TopologyError(f"CEDT record at {at:#x}: its length must be in {fmt.RECORD_HEADER_SIZE}..{left}, "
                            f"not {head['length']}")
    return head["type"], head["length"]


def _need(data: bytes, size: int, where: str) -> None:
    if len(data) < size:
        raise TopologyError(f"{where}: its length must be at least {size}, not {len(data)}")


def _granularity(hbig: int, where: str) -> int:
    if hbig >= len(GRANULARITIES):
        raise TopologyError(f"{where}: the granularity encoding must be in 0..{len(GRANULARITIES) - 1}, not {hbig}")
    return GRANULARITIES[hbig]


def _chbs(data: bytes, where: str) -> Record:
    _need(data, fmt.CHBS_SIZE, where)
    return Chbs(**_fields(fmt.CHBS, data))


def _cfmws(data: bytes, where: str) -> Record:
    _need(data, fmt.CFMWS_SIZE, where)
    f = _fields(fmt.CFMWS, data)
    if f["eniw"] not in WAYS:
        raise TopologyError(f"{where}: the ways encoding must be one of {sorted(WAYS)}, not {f['eniw']}")
    if f["arithmetic"] not in (0, 1):
        raise TopologyError(f"{where}: the arithmetic must be 0 (modulo) or 1 (XOR), not {f['arithmetic']}")
    ways = WAYS[f["eniw"]]
    _need(data, fmt.CFMWS_SIZE + 4 * ways, f"{where} with {ways} targets")
    targets = tuple(int.from_bytes(data[i : i + 4], "little")
                    for i in range(fmt.CFMWS_SIZE, fmt.CFMWS_SIZE + 4 * ways, 4))  # fmt: skip
    return Cfmws(f["base"], f["size"], _granularity(f["hbig"], where), f["arithmetic"], f["restrictions"], f["qtg"],
                 targets)


def _cxims(data: bytes, where: str) -> Record:
    _need(data, fmt.CXIMS_SIZE, where)
    f = _fields(fmt.CXIMS, data)
    end = fmt.CXIMS_SIZE + 8 * f["count"]
    _need(data, end, f"{where} with {f['count']} maps")
    maps = tuple(int.from_bytes(data[i : i + 8], "little") for i in range(fmt.CXIMS_SIZE, end, 8))
    return Cxims(_granularity(f["hbig"], where), maps)


def _rdpas(data: bytes, where: str) -> Record:
    """Two layouts are about, told apart by length."""
    _need(data, fmt.RDPAS_SIZE, where)
    return Rdpas(**_fields(fmt.RDPAS_ACPICA if len(data) >= fmt.RDPAS_ACPICA_SIZE else fmt.RDPAS, data))


def _csds(data: bytes, where: str) -> Record:
    _need(data, fmt.CSDS_SIZE, where)
    return Csds(**_fields(fmt.CSDS, data))


def _unknown(data: bytes, where: str) -> Record:
    return Unknown(data)


_PARSERS = {0: _chbs, 1: _cfmws, 2: _cxims, 3: _rdpas, 4: _csds}


# -- writing ---------------------------------------------------------------------------------------------


def _encode(record: Record) -> bytes:
    match record:
        case Chbs():
            return _pack(0, fmt.CHBS_SIZE, fmt.CHBS, record)
        case Cfmws(targets=targets):
            codes = {"hbig": ENCODED_GRANULARITY[record.granularity], "eniw": ENCODED_WAYS[len(targets)]}
            tail = b"".join(t.to_bytes(4, "little") for t in targets)
            return _pack(1, fmt.CFMWS_SIZE, fmt.CFMWS, record, codes, tail)
        case Cxims(maps=maps):
            codes = {"hbig": ENCODED_GRANULARITY[record.granularity], "count": len(maps)}
            return _pack(2, fmt.CXIMS_SIZE, fmt.CXIMS, record, codes, b"".join(m.to_bytes(8, "little") for m in maps))
        case Rdpas():
            return _pack(3, fmt.RDPAS_SIZE, fmt.RDPAS, record)
        case Csds():
            return _pack(4, fmt.CSDS_SIZE, fmt.CSDS, record)
        case Unknown(data=data):
            return data


def _pack(
    kind: int, size: int, table: _Table, record: Record, codes: dict[str, int] | None = None, tail: bytes = b""
) -> bytes:
    """*codes* are fields that the record has in another form."""
    out = bytearray(size)
    out[0], out[2:4] = kind, (size + len(tail)).to_bytes(2, "little")
    for name, offset, width in table:
        value = (codes or {}).get(name)
        if value is None:
            value = getattr(record, name)
        if value >> 8 * width:
            raise TopologyError(f"CEDT: {name} {value:#x} does not fit in {width} bytes")
        out[offset : offset + width] = value.to_bytes(width, "little")
    return bytes(out) + tail


# -- machines --------------------------------------------------------------------------------------------


def blueprint(data: bytes) -> Blueprint:
    """Host bridges and windows of a CEDT; what hangs below the bridges is not in one. Bridges are named hb<UID>."""
    table = Cedt.parse(data)
    plan = Blueprint(cedt=replace(table, records=tuple(r for r in table.records if isinstance(r, _CARRIED))))
    maps = {r.granularity: r.maps for r in reversed(table.records) if isinstance(r, Cxims)}
    for record in table.records:
        if isinstance(record, Chbs):
            plan.bridges.append(_bridge(record))
        elif isinstance(record, Cfmws):
            plan.windows.append(_window(record, len(plan.windows), maps))
    return plan


_CARRIED = (Cxims, Rdpas, Csds, Unknown)  # records that a blueprint does not say in its own words


def _bridge(record: Chbs) -> BridgePlan:
    if record.version > 1 or record.length != fmt.CHBS_LENGTHS[record.version]:
        raise TopologyError(
            f"CHBS of UID {record.uid}: version and length must be 0 and 0x2000 or 1 and 0x10000, "
            f"not {record.version} and {record.length:#x}")
    restricted = record.version == 0
    return BridgePlan(f"hb{record.uid}", record.uid, None if restricted else 4, record.base, restricted)


def _window(record: Cfmws, number: int, maps: dict[int, tuple[int, ...]]) -> WindowPlan:
    found: tuple[int, ...] | None = None
    if record.arithmetic:
        found = maps.get(record.granularity, ())
        if not found and len(record.targets) not in (1, 3):
            raise TopologyError(
                f"CFMWS at {record.base:#x} uses XOR at {record.granularity} bytes, but no CXIMS has that granularity")
    return WindowPlan(f"window{number}", record.base, record.size, record.granularity,
                      tuple(f"hb{t}" for t in record.targets), found, record.restrictions, record.qtg)


def table(plan: Blueprint) -> Cedt:
    """The CEDT of a machine: bridges and windows in their order, then the rest.

    Raises TopologyError when it has none: a bridge whose registers have no address, maps that exclude each other.
    """
    source = plan.cedt if isinstance(plan.cedt, Cedt) else Cedt()
    uids = {b.name: b.uid for b in plan.bridges}
    records: list[Record] = [_chbs_of(b) for b in plan.bridges]
    for w in plan.windows:
        records.append(Cfmws(w.base, w.size, w.granularity, int(w.maps is not None), w.restrictions, w.qtg,
                             tuple(uids[t] for t in w.targets)))
    known = {r.granularity: r.maps for r in source.records if isinstance(r, Cxims)}
    for w in plan.windows:
        if w.maps and known.setdefault(w.granularity, w.maps) != w.maps:
            raise TopologyError(
                f"window {w.name}: a CEDT has one list of XOR maps per granularity; that of {w.granularity} bytes "
                f"is {[hex(m) for m in known[w.granularity]]}, not {[hex(m) for m in w.maps]}")
    given = [r for r in source.records if isinstance(r, Cxims)]
    records += given or [Cxims(g, maps) for g, maps in known.items()]
    records += [r for r in source.records if not isinstance(r, Cxims)]
    return Cedt(source.header, tuple(records))


def _chbs_of(bridge: BridgePlan) -> Chbs:
    if bridge.registers is None:
        raise TopologyError(f"host bridge {bridge.name}: a CHBS needs the address of its registers, which is not known")
    version = 0 if bridge.restricted else 1
    return Chbs(bridge.uid, version, bridge.registers, fmt.CHBS_LENGTHS[version])
