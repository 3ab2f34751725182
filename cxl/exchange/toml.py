"""Hand-written machines as TOML: arrays of tables named after the parts, fields named as in `cxl.blueprint`.

Numbers are integers or text ("256M", "0x2f0000000"); memory is a size, or a table of size, path and share;
`decoders = "none"` makes a host bridge a pass-through.
`[[region]]` tables are created in order once the machine is built.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any

from cxl.blueprint import Backing, Blueprint, BridgePlan, DevicePlan, PortPlan, SwitchPlan, WindowPlan
from cxl.errors import TopologyError
from cxl.exchange.options import size as parse_size

if TYPE_CHECKING:
    from cxl.topology import Topology

Table = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RegionPlan:
    """A region to create; see `Topology.create_region`."""

    window: str
    devices: tuple[str, ...]
    granularity: int | None = None
    size: int | None = None
    mode: str = "ram"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class RamPlan:
    """Ordinary memory at `base`, for a guest."""

    base: int
    size: int


PARTS: dict[str, type] = {
    "bridge": BridgePlan, "port": PortPlan, "switch": SwitchPlan, "device": DevicePlan, "window": WindowPlan,
    "region": RegionPlan, "ram": RamPlan,
}  # fmt: skip


def read(text: str) -> tuple[Blueprint, list[RegionPlan]]:
    """Raises TopologyError, naming table and key, when it is not what `schema` says."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TopologyError(f"TOML: {error}") from None
    parts: dict[str, list[Any]] = {name: [] for name in PARTS}
    for name, tables in data.items():
        if name not in PARTS:
            raise TopologyError(f"TOML: there is no table {name}, only {', '.join(PARTS)}")
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            raise TopologyError(f"TOML: {name} must be an array of tables, [[{name}]]")
        parts[name] = [_part(PARTS[name], table, f"[[{name}]] number {n}") for n, table in enumerate(tables)]
    plan = Blueprint(parts["bridge"], parts["port"], parts["switch"], parts["device"], parts["window"],
                     [(r.base, r.size) for r in parts["ram"]])
    return plan, parts["region"]


def _part(kind: type, table: Table, where: str) -> Any:
    known = {f.name: f for f in fields(kind)}
    where = f"{where} ({table['name']})" if table.get("name") and isinstance(table["name"], str) else where
    for key in table:
        if key not in known:
            raise TopologyError(f"TOML: {where}: no key {key}, only {', '.join(known)}")
    for key, f in known.items():
        if f.default is MISSING and f.default_factory is MISSING and key not in table:
            raise TopologyError(f"TOML: {where}: {key} is missing")
    values = {key: _value(str(known[key].type), value, f"{where}: {key}") for key, value in table.items()}
    if kind is DevicePlan:
        values = {k: _named(v, f"{table['name']}-{k}") for k, v in values.items()}
    return kind(**values)


def _named(value: Any, name: str) -> Any:
    return Backing(value.name or name, value.size, value.path, value.share) if isinstance(value, Backing) else value


def _value(kind: str, value: object, where: str) -> Any:
    """*kind* is a field's annotation, the one place where types are written down."""
    base = kind.removesuffix(" | None")
    if value == "none" and base == "int" and base != kind:
        return None
    match base:
        case "int":
            return _number(value, where)
        case "bool" | "str":
            if isinstance(value, bool if base == "bool" else str):
                return value
        case "Backing":
            if isinstance(value, dict):
                return _part(Backing, {"name": "", **value}, where)
            return Backing("", _number(value, where))
        case "tuple[int, ...]":
            if isinstance(value, list):
                return tuple(_number(v, where) for v in value)
        case "tuple[str, ...]":
            if isinstance(value, list) and all(isinstance(v, str) for v in value):
                return tuple(value)
    raise TopologyError(f"TOML: {where} must be {_NAMES[base]}, not {value!r}")


_NAMES = {
    "int": "a number", "bool": "true or false", "str": "text", "Backing": "a size or a table",
    "tuple[int, ...]": "an array of numbers", "tuple[str, ...]": "an array of text",
}  # fmt: skip


def _number(value: object, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        return parse_size(value, f"TOML: {where}")
    raise TopologyError(f"TOML: {where} must be a number, not {value!r}")


# -- writing ---------------------------------------------------------------------------------------------


def write(plan: Blueprint, topo: Topology | None = None) -> str:
    """TOML that `read` reads as the same machine, with the regions of *topo*. What only a CEDT says is left out."""
    tables: list[tuple[str, Any]] = [("ram", RamPlan(*r)) for r in plan.ram]
    tables += [(name, part) for name, parts in (
        ("bridge", plan.bridges), ("port", plan.ports), ("switch", plan.switches), ("device", plan.devices),
        ("window", plan.windows)) for part in parts]
    if topo is not None:
        tables += [("region", RegionPlan(r.window.name, tuple(d.name for d in r.devices), r.granularity, r.size,
                                         r.mode, r.name)) for r in topo.regions.values()]
    return "\n".join(f"[[{name}]]\n{_keys(part)}" for name, part in tables)


def _keys(part: Any) -> str:
    """Every field that is not its default; addresses and sizes in hexadecimal."""
    lines = []
    for f in fields(part):
        value = getattr(part, f.name)
        if f.default is MISSING or value != f.default:
            if value is None:  # TOML has no null: the pass-through is the one None that is not a default
                lines.append(f'{f.name} = "none"\n')
            else:
                lines.append(f"{f.name} = {_text(f.name, value)}\n")
    return "".join(lines)


def _text(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return hex(value) if value >= 4096 or key in ("maps", "restrictions") else str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_text(key, v) for v in value) + "]"
    if isinstance(value, Backing):
        inner = {f.name: getattr(value, f.name) for f in fields(Backing) if getattr(value, f.name) not in (None, True)}
        return "{" + ", ".join(f"{k} = {_text(k, v)}" for k, v in inner.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def schema() -> dict[str, Any]:
    """A JSON Schema of the files that `read` takes, from the same annotations."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "cxl-mmu topology", "type": "object",
        "additionalProperties": False,
        "properties": {name: {"type": "array", "items": _object(kind)} for name, kind in PARTS.items()},
    }  # fmt: skip


def _object(kind: type) -> dict[str, Any]:
    required = [f.name for f in fields(kind) if f.default is MISSING and not (kind is Backing and f.name == "name")]
    return {
        "type": "object", "additionalProperties": False, "description": (kind.__doc__ or "").split("\n\n")[0],
        "required": required, "properties": {f.name: _schema_of(str(f.type)) for f in fields(kind)},
    }  # fmt: skip


def _schema_of(kind: str) -> dict[str, Any]:
    number = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}
    match kind.removesuffix(" | None"):
        case "int":
            return number
        case "bool":
            return {"type": "boolean"}
        case "Backing":
            return {"anyOf": [*number["anyOf"], _object(Backing)]}
        case "tuple[int, ...]":
            return {"type": "array", "items": number}
        case "tuple[str, ...]":
            return {"type": "array", "items": {"type": "string"}}
    return {"type": "string"}
