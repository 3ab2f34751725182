"""The JSON of `cxl list`, in all its nestings, as flat tables of objects.

Takes what any of -B -P -E -M -D -R -T, -v to -vvv and -u print: one array or object, nested or not, old or new.
Source: ndctl, Documentation/cxl/cxl-list.txt and cxl/json.c, as described in its own words there.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from cxl.errors import TopologyError
from cxl.exchange.options import UNITS
from cxl.format import DECODER_GRAIN

Json = dict[str, Any]

# What an object is, by the key that names it; a decoder also has a "region", which it belongs to.
_KINDS = ("bus", "port", "endpoint", "decoder", "region", "memdev")
_CHILDREN = re.compile(r"(buses|ports|endpoints|memdevs|decoders|regions)(?::(.*))?")
_LISTS = ("buses", "ports", "endpoints", "memdevs", "decoders", "regions", "anon memdevs", "root decoders",
          "port decoders", "endpoint decoders")  # fmt: skip
_HUMAN = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGTPE])iB\b.*|([0-9]+) ?(?:bytes|B)?")


@dataclass(slots=True)
class Thing:
    """One object: its fields, and the name of the object that it is nested in."""

    name: str
    fields: Json
    parent: str = ""

    def number(self, key: str, default: int | None = None) -> int:
        """A field in any notation: a number, "0x10", "256.00 MiB (268.44 MB)"."""
        if key not in self.fields:
            if default is None:
                raise TopologyError(f"cxl list: {self.name} has no {key}")
            return default
        return number(self.fields[key], f"{self.name} {key}")

    def text(self, key: str) -> str:
        value = self.fields.get(key, "")
        if not isinstance(value, str):
            raise TopologyError(f"cxl list: {self.name} {key} must be a string, not {value!r}")
        return value

    def objects(self, key: str) -> list[Json]:
        value = self.fields.get(key, [])
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            raise TopologyError(f"cxl list: {self.name} {key} must be an array of objects, not {value!r}")
        return value


@dataclass(slots=True)
class Listing:
    """All objects by name, in the order in which they were met."""

    buses: dict[str, Thing] = field(default_factory=dict)
    ports: dict[str, Thing] = field(default_factory=dict)
    endpoints: dict[str, Thing] = field(default_factory=dict)
    memdevs: dict[str, Thing] = field(default_factory=dict)
    decoders: dict[str, Thing] = field(default_factory=dict)
    regions: dict[str, Thing] = field(default_factory=dict)

    def table(self, kind: str) -> dict[str, Thing]:
        tables: dict[str, dict[str, Thing]] = {
            "bus": self.buses, "port": self.ports, "endpoint": self.endpoints, "memdev": self.memdevs,
            "decoder": self.decoders, "region": self.regions,
        }  # fmt: skip
        return tables[kind]


def read(text: str | bytes) -> Listing:
    """Raises TopologyError, with line and column, when it is no JSON, and naming the object when that is odd."""
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TopologyError(f"cxl list: {_place(text, error)}") from None
    except RecursionError:
        raise TopologyError("cxl list: the JSON is nested too deeply") from None
    listing = Listing()
    _visit(data, "", listing)
    return listing


def _place(text: str | bytes, error: ValueError) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return f"the file is no text: {error}"
    lines = error.doc.splitlines()
    before = lines[error.lineno - 2].strip() if error.lineno > 1 else ""
    here = lines[error.lineno - 1].strip() if error.lineno <= len(lines) else "the end"
    return f"bad JSON at line {error.lineno}, column {error.colno}: {error.msg}, between {before!r} and {here!r}"


def _visit(data: object, parent: str, listing: Listing) -> None:
    if isinstance(data, list):
        for item in data:
            _visit(item, parent, listing)
    elif isinstance(data, dict):
        kind = next((k for k in _KINDS if isinstance(data.get(k), str)), None)
        if kind is None:
            for key, value in data.items():
                if key in _LISTS or _CHILDREN.fullmatch(key):
                    _visit(value, parent, listing)
        else:
            _add(kind, data, parent, listing)
    else:
        raise TopologyError(f"cxl list: expected an object or an array, not {data!r}")


def _add(kind: str, data: Json, parent: str, listing: Listing) -> None:
    name = data[kind]
    table = listing.table(kind)
    known = table.get(name)
    if known is None:
        table[name] = Thing(name, data, parent)
    else:
        # -M and -E name a memdev twice, once with more to say; anything else must agree.
        for key, value in data.items():
            if known.fields.setdefault(key, value) != value and not key.startswith(tuple(_LISTS)):
                raise TopologyError(f"cxl list: {kind} {name} is listed twice, with {key} {known.fields[key]!r} "
                                    f"and {value!r}")
        known.parent = known.parent or parent
    for key, value in data.items():
        if (match := _CHILDREN.fullmatch(key)) is not None:
            _visit(value, match.group(2) or name, listing)
    if kind == "endpoint" and isinstance(data.get("memdev"), dict):
        _visit(data["memdev"], name, listing)


def number(value: object, what: str) -> int:
    """-u rounds sizes to two decimals; decoders are multiples of 256 MiB, so a rounded size is taken to be one."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        if re.fullmatch(r"0[xX][0-9a-fA-F]+", value):
            return int(value, 16)
        if (match := _HUMAN.fullmatch(value)) is not None:
            amount, unit, plain = match.group(1, 2, 3)
            return int(str(plain)) if plain is not None else _rounded(str(amount), UNITS[str(unit).lower()])
    raise TopologyError(f"cxl list: {what} must be a number, not {value!r}")


def _rounded(amount: str, unit: int) -> int:
    whole, _, fraction = amount.partition(".")
    exact = int(whole) * unit + int(int(fraction or 0) * unit / 10 ** len(fraction))
    if not int(fraction or 0) or unit <= DECODER_GRAIN // 100:
        return exact
    return (exact + DECODER_GRAIN // 2) // DECODER_GRAIN * DECODER_GRAIN
