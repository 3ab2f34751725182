"""Timing: interleaved passes in one process, CPU time of the calling thread, medians."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


class WrongAnswer(Exception):
    """What was about to be timed computes something wrong, so there is no time to report."""


def expect(what: str, questions: Any, actual: Any, expected: Any) -> None:
    """Raise WrongAnswer unless the arrays *actual* and *expected* are equal, with the first question that differs."""
    wrong = np.flatnonzero(np.asarray(actual) != np.asarray(expected))
    if len(wrong):
        i = wrong[0]
        raise WrongAnswer(
            f"{what}: {len(wrong)} of {len(actual)} answers are wrong; the first, for {int(questions[i]):#x}, "
            f"must be {int(expected[i]):#x}, not {int(actual[i]):#x}")


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. Times are ns for one item (an access, a walk, a mapping); None where the row is not a time.

    `ratio` is ours over theirs; `ok` is whether it is at most `limit`, and True where there is no limit.
    """

    group: str
    name: str
    ours_ns: float | None
    against: str | None = None
    against_ns: float | None = None
    ratio: float | None = None
    limit: float | None = None
    ok: bool = True


class Bench:
    """What a group measures with. *quick* asks for a tenth of the work; *share* for that part of it, in one pass."""

    def __init__(self, group: str, quick: bool = False, share: float | None = None) -> None:
        self.group = group
        self.passes = 1 if share else 5 if quick else 9
        self._share = share or (0.1 if quick else 1)

    def items(self, full: int) -> int:
        """How many of *full* items to work on, at least one."""
        return max(1, int(full * self._share))

    def times(self, runs: Mapping[str, Callable[[], object]], items: int) -> dict[str, float]:
        """Median ns an item of each run, every run of which handles *items* items.

        One pass of each is thrown away; then they take turns, in alternating order, so that a change of the
        machine's load meets all of them.
        """
        taken: dict[str, list[int]] = {name: [] for name in runs}
        for run in runs.values():
            run()
        collecting = gc.isenabled()
        gc.disable()
        try:
            for i in range(self.passes):
                for name in list(runs)[:: 1 if i % 2 == 0 else -1]:
                    start = time.thread_time_ns()
                    runs[name]()
                    taken[name].append(time.thread_time_ns() - start)
        finally:
            if collecting:
                gc.enable()
        return {name: statistics.median(t) / items for name, t in taken.items()}

    def row(
        self, name: str, ours_ns: float, against: str | None = None, against_ns: float | None = None,
        limit: float | None = None,
    ) -> Row:  # fmt: skip
        ratio = None if against_ns is None else ours_ns / against_ns
        return Row(self.group, name, ours_ns, against, against_ns, ratio, limit, _holds(ratio, limit))

    def memory_row(self, name: str, run: Callable[[], object], limit: int) -> Row:
        """A row that holds when *run* needs at most *limit* bytes of memory beyond what is resident before it."""
        used = peak_memory(run)
        if used is None:
            return Row(self.group, f"{name}: cannot be measured here", None)
        ratio = used / limit
        return Row(self.group, f"{name} ({used / 1024:.0f} KiB)", None, f"{limit >> 10} KiB", None, ratio, 1.0,
                   _holds(ratio, 1.0))


def _holds(ratio: float | None, limit: float | None) -> bool:
    return limit is None or (ratio is not None and ratio <= limit)


def _status(field: str) -> int:
    for text in Path("/proc/self/status").read_text().splitlines():
        if text.startswith(field + ":"):
            return int(text.split()[1]) << 10
    raise OSError(f"/proc/self/status has no {field}")


def peak_memory(run: Callable[[], object]) -> int | None:
    """Bytes by which the resident set rises above its size now while *run* runs; None where Linux does not tell."""
    run()  # what is allocated once and kept is not part of a later call
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # glibc keeps what was freed: it would hide that the next call allocates as much
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to the size now
        before = _status("VmRSS")
        run()
        return max(0, _status("VmHWM") - before)
    except OSError:
        return None
