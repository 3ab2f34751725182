"""What a caller may ask of a run, checked before anything happens."""

from __future__ import annotations

import threading
from operator import index

WORD = 1 << 64


def number(name: str, value: int | None, first: int = 0, end: int = WORD) -> int:
    """*value*, an integer of first .. end-1, or 0 for None. Raises ValueError, or TypeError when it is no integer."""
    if value is None:
        return 0
    try:
        found = index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if not first <= found < end:
        raise ValueError(f"{name} must be {first} .. {end - 1:#x}, not {found:#x}")
    return found


def switch(name: str, value: bool) -> bool:
    """*value*, True or False. Raises TypeError for anything else."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r:.80}")
    return value


def seconds(value: float | None) -> float | None:
    """*value* as threads can wait for it; None: for ever. Raises ValueError, or TypeError when it is no number."""
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise TypeError(f"timeout must be seconds or None, not {value!r}")
    if not value >= 0:
        raise ValueError(f"timeout must be at least 0 seconds, not {value}")
    return min(value, threading.TIMEOUT_MAX)
