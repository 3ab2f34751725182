"""Why two things that were compared with `==` are not equal, for pytest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cxl.testing.events import InOrder, Pattern, Trace
from cxl.testing.expect import Expected, Fault
from cxl.testing.memory import Contents, differences
from cxl.testing.ran import Ran

SHOWN = 40  # events


def explain(left: Any, right: Any) -> list[str] | None:
    """Lines for a failed `left == right`; None when this is none of ours."""
    for seen, wanted in ((left, right), (right, left)):
        if isinstance(seen, Ran) and isinstance(wanted, Expected):
            return [f"{seen} is not {wanted}", *wanted.complaints(seen)]
        if isinstance(seen, Contents) and isinstance(wanted, bytes):
            return [f"memory at {seen.where} is not as wanted", *differences(seen, wanted)]
        if isinstance(wanted, Fault):
            return [f"{seen} is not {wanted}", *wanted.complaints(seen)]
        if isinstance(seen, Trace) and isinstance(wanted, InOrder):
            return _in_order(seen, wanted)
        if isinstance(seen, Trace) and isinstance(wanted, list | tuple):
            return _events(seen, wanted)
    return None


def _in_order(seen: Trace, wanted: InOrder) -> list[str]:
    missing = wanted.missing(seen)
    number = wanted.patterns.index(missing) + 1 if missing is not None else 0
    return [f"pattern {number} of {len(wanted.patterns)} does not come: {missing!r}", *_listing(seen)]


def _events(seen: Trace, wanted: Sequence[Any]) -> list[str]:
    lines = [f"{len(seen)} events, not {len(wanted)}"] if len(seen) != len(wanted) else ["events differ"]
    texts = list(seen.lines())
    for i in range(min(max(len(seen), len(wanted)), SHOWN)):
        event = texts[i] if i < len(seen) else "nothing"
        pattern = repr(wanted[i]) if i < len(wanted) else "nothing"
        same = i < len(seen) and i < len(wanted) and seen[i] == wanted[i]
        lines.append(f"  {event}" if same else f"! {event}   wanted: {pattern}")
    return lines


def _listing(seen: Trace) -> list[str]:
    texts = list(seen.lines())
    more = [f"and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
    return ["the events are:", *(f"  {text}" for text in texts[:SHOWN]), *more]


__all__ = ["Pattern", "explain"]
