"""Patterns of events, and traces that are searched with them.

A pattern equals every event (`mmu.tcg.trace`) whose members it names hold what it says, so that plain lists compare:
`ran.trace.find("bus", tag="ptw") == [bus("r", 8, at=entry)]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from mmu.tcg.trace import Event, text

if TYPE_CHECKING:
    from cxl.testing.guest import Entry

# Kind of events -> their other members, each with the words that it may be, none where any value will do.
MEMBERS: dict[str, dict[str, tuple[str, ...]]] = {}
for _hints in map(get_type_hints, get_args(Event)):
    (_kind,) = get_args(_hints.pop("kind"))
    MEMBERS[_kind] = {name: get_args(hint) if get_origin(hint) is Literal else () for name, hint in _hints.items()}
HEX = ("offset", "value", "pc", "page0", "page1", "syndrome", "address", "code")


class Pattern:
    """Members of an event by name. Numbers and texts must be equal; a callable must be true of the member.

    Raises ValueError for a kind or a word, TypeError for a member that no event has: such a pattern would never match.
    """

    def __init__(self, kind: str, members: dict[str, Any], note: str = "") -> None:
        if kind not in MEMBERS:
            raise ValueError(f"an event must be one of {', '.join(MEMBERS)}, not {kind!r}")
        for name, wanted in members.items():
            if name not in MEMBERS[kind]:
                raise TypeError(f"{kind} events have no {name!r}; they have {', '.join(MEMBERS[kind])}")
            if (words := MEMBERS[kind][name]) and wanted not in words and not callable(wanted):
                raise ValueError(f"{name} of {kind} events must be one of {', '.join(words)}, not {wanted!r}")
        self.kind, self.members, self.note = kind, members, note

    def matches(self, event: Any) -> bool:
        if not isinstance(event, tuple) or getattr(event, "kind", None) != self.kind:
            return False
        known = event._asdict()  # type: ignore[attr-defined]
        for name, wanted in self.members.items():
            if not (wanted(known[name]) if callable(wanted) else known[name] == wanted):
                return False
        return True

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Pattern):
            return (self.kind, self.members) == (other.kind, other.members)
        return self.matches(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        words = [f"{n}={v:#x}" if n in HEX and isinstance(v, int) else f"{n}={v!r}" for n, v in self.members.items()]
        return f"{self.kind}({', '.join(words)}{self.note})"


def event(kind: str, **members: Any) -> Pattern:
    """An event of *kind* ("lock", "recompile", "tb", "atomic_exit", "excl", "fault", "interrupt", "abort", "bus")."""
    return Pattern(kind, members)


def bus(rw: str | None = None, size: int | None = None, *, at: Entry | None = None, **members: Any) -> Pattern:
    """A dispatch to a region without host memory: "r" or "w", bytes, *at* a table entry or other place of a guest."""
    given = {"rw": rw, "size": size} | members
    if at is not None:
        given |= {"region": at.place.region, "offset": at.place.offset}
    return Pattern("bus", {n: v for n, v in given.items() if v is not None}, f" at {at}" if at is not None else "")


class InOrder:
    """Equals a trace in which these patterns come one after the other, whatever is between them."""

    def __init__(self, patterns: tuple[Pattern, ...]) -> None:
        self.patterns = patterns

    def missing(self, events: Iterable[Any]) -> Pattern | None:
        """The first that does not come, or None."""
        rest = list(self.patterns)
        for e in events:
            if rest and rest[0].matches(e):
                rest.pop(0)
        return rest[0] if rest else None

    def __eq__(self, other: object) -> bool:
        return self.missing(other) is None if isinstance(other, tuple | list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"in_order({', '.join(map(repr, self.patterns))})"


def in_order(*patterns: Pattern) -> InOrder:
    return InOrder(patterns)


class Trace(tuple[Event, ...]):
    """The events of a run, in order."""

    __slots__ = ()

    def find(self, kind: str | Pattern, **members: Any) -> Trace:
        """Those that a pattern, or a kind with members, matches."""
        pattern = kind if isinstance(kind, Pattern) else Pattern(kind, members)
        return Trace(e for e in self if pattern.matches(e))

    def count(self, value: Any, **members: Any) -> int:
        """How many there are, of a pattern or of a kind with members."""
        return len(self.find(value, **members)) if isinstance(value, str | Pattern) else super().count(value)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, list | tuple):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other))
        return NotImplemented

    __hash__ = tuple.__hash__

    def lines(self) -> Iterator[str]:
        return map(text, self)

    def __repr__(self) -> str:
        return f"[{', '.join(self.lines())}]"
