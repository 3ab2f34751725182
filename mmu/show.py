"""Plain text of what a walk did. Pure: values in, text out."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Any

from mmu.types import Access, Fault, Place, Step, Translation

_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
DECIMAL = ("vector", "level", "stage", "target_el")


def size_text(size: int) -> str:
    """A size in bytes in the largest unit that divides it."""
    for unit, name in _UNITS:
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def flags_text(step: Step) -> str:
    """The fields of an entry that are not zero: single bits by name, wider ones with their value, no addresses."""
    words = []
    for name, value in step.flags.items():
        if value and not name.startswith(("ADDR", "TABLE", "OA", "NLTA")):
            words.append(name if value == 1 else f"{name}={value:#x}")
    return " ".join(words)


def access_text(access: Access) -> str:
    """"write, shadow stack" for WRITE|SHADOW_STACK."""
    return ", ".join((member.name or "").lower().replace("_", " ") for member in access)


def exception_text(value: Any) -> str:
    """ "PageFault: vector 14, error code 0x6, cr2 0x1000": numbers in hexadecimal but for DECIMAL, which come first."""
    members = asdict(value) if is_dataclass(value) and not isinstance(value, type) else {}
    words = []
    for name in sorted(members, key=lambda name: name not in DECIMAL):
        field = members[name]
        if isinstance(field, bool):
            field = "yes" if field else "no"
        elif isinstance(field, int) and name not in DECIMAL:
            field = f"{field:#x}"
        if field is not None:
            words.append(f"{name.replace('_', ' ')} {field}")
    return f"{type(value).__name__}: {', '.join(words)}"


def _step_text(step: Step, width: int) -> str:
    stage = "  " if step.stage == 1 else "2 "
    where = "nothing there" if step.place is None else str(step.place)
    return f"{stage}{step.name:<{width}}  at {step.address:#014x} = {step.value:#018x}  {where:<22}  {flags_text(step)}"


def walk_text(va: int, access: Access, result: Translation | Fault, place: Place | None = None) -> str:
    """One line for each entry read and one for the outcome; *place* is where the translated address is."""
    width = max((len(step.name) for step in result.steps), default=0)
    lines = [f"walk of {va:#x} for {access_text(access)}"]
    lines += [_step_text(step, width).rstrip() for step in result.steps]
    if isinstance(result, Translation):
        rights = [name for name in ("writable", "user", "executable") if getattr(result, name)]
        where = "" if place is None else f", {place}"
        what = f"{size_text(result.page_size)} page, {', '.join(rights) or 'read only'}"
        lines.append(f"-> {result.pa:#x}{where}: {what}")
    else:
        level = "" if result.level is None else f" at level {result.level}"
        stage = "" if result.stage == 1 else f", stage {result.stage}, guest-physical {result.gpa or 0:#x}"
        lines.append(f"-> fault: {result.kind.name.lower().replace('_', ' ')}{level}{stage}")
    return "\n".join(lines)
