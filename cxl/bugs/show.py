"""The atlas as text, as JSON and as a page. Pure: values in, text out."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from cxl.bugs.bug import Bug, Expected, Mode, Observation
from cxl.bugs.matrix import Cell
from mmu.tcg import RELEASES

WIDTH = 100


@dataclass(frozen=True)
class Run:
    """One run of *bug*: `mode` is "faulty", "fixed", or "release" (a release as it was).

    `expected` None: nobody knows what a release would have shown with this bug alone made or mended.
    """

    bug: Bug
    arch: str
    mode: str
    release: str | None
    seen: Observation
    expected: Expected | None

    @property
    def complaints(self) -> list[str]:
        return [] if self.expected is None else self.expected.complaints(self.seen)


def faulty_in(bug: Bug) -> list[str]:
    """The releases that have the bug."""
    return [r for r in RELEASES if bug.is_in(r)]


def summary(bug: Bug) -> dict[str, Any]:
    return {
        "name": bug.name, "title": bug.title, "status": bug.fix.status, "arches": list(bug.arches),
        "fixed_in": bug.fix.release or None, "faulty_in": faulty_in(bug),
    }  # fmt: skip


def record(bug: Bug) -> dict[str, Any]:
    return summary(bug) | {
        "trigger": " ".join(bug.trigger.split()), "scenario": bug.scene,
        "fix": str(bug.fix), "commit": bug.fix.commit or None,
        "references": list(bug.references), "switches": list(bug.switches), "policy": dict(bug.policy),
        "needs": dict(bug.needs),
        "expected": {
            arch: {mode.value: bug.expected(mode, arch).outcome.value for mode in Mode} for arch in bug.arches
        },
    }  # fmt: skip


def story(bug: Bug) -> str:
    trigger = textwrap.wrap(" ".join(bug.trigger.split()), WIDTH)
    scene = textwrap.wrap(f"scenario: {bug.scene}", WIDTH)
    lines = [f"{bug.name}: {bug.title}", "", *trigger, "", *scene, f"status: {bug.fix}"]
    lines.append(f"faulty in: {', '.join(faulty_in(bug)) or 'none of ' + ', '.join(RELEASES)}")
    run_with = ", ".join(f"{name}={value!r}" for name, value in {**bug.policy, **bug.needs}.items())
    lines.append(f"switch: {', '.join(bug.switches) or 'none'}" + (f"; with {run_with}" if run_with else ""))
    for arch in bug.arches:
        for mode in Mode:
            expected = bug.expected(mode, arch)
            lines.append(f"{arch}, {mode}: {expected.outcome}" + (f": {expected.message}" if expected.message else ""))
    lines += [f"see: {reference}" for reference in bug.references]
    return "\n".join(lines)


def run_record(run: Run, trace: bool) -> dict[str, Any]:
    seen = run.seen
    out: dict[str, Any] = {
        "name": run.bug.name, "arch": run.arch, "mode": run.mode, "release": run.release,
        "outcome": seen.outcome.value, "expected": None if run.expected is None else run.expected.outcome.value,
        "as_expected": not run.complaints,
        "complaints": run.complaints, "message": seen.message, "pc": seen.pc, "counts": dict(seen.counts),
        "registers": dict(seen.registers),
    }  # fmt: skip
    return out | ({"trace": [event._asdict() for event in seen.trace]} if trace else {})


def run_text(run: Run, trace: bool) -> str:
    from mmu.tcg.trace import text

    seen, said = run.seen, "; ".join(run.complaints) or ("as expected" if run.expected else "not known before")
    under = f" (qemu {run.release})" if run.release else ""
    lines = [f"{run.bug.name}, {run.arch}, {run.mode}{under}: {seen.outcome}: {said}"]
    lines += [f"  {seen.message}"] if seen.message else []
    lines += [f"  {counts_text(seen)}"] if seen.counts else []
    return "\n".join(lines + ([f"    {text(event)}" for event in seen.trace] if trace else []))


def counts_text(seen: Observation) -> str:
    words = [f"guest PC {seen.pc:#x}"] if seen.pc is not None else []
    for name, value in seen.counts.items():
        if isinstance(value, Mapping):
            value = " + ".join(f"{n} {tag}" for tag, n in value.items() if n) or 0
        words.append(f"{name.replace('_', ' ')} {value}")
    return ", ".join(words)


def matrix_record(cells: Mapping[str, Mapping[str, Cell]]) -> dict[str, Any]:
    return {"bugs": {name: {r: c.seen.outcome.value for r, c in row.items()} for name, row in cells.items()}}


STYLE = """body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}
td,th{padding:.3em .6em;border:1px solid #ccc}th{text-align:left}td{text-align:center}
.ok{background:#e6f4e6}.abort,.crash{background:#f8d0d0}.hang{background:#f6dcb8}
.wrong-data,.error{background:#f9efb3}.guest-fault{background:#dfe6f7}.not-applicable{color:#888}"""


def html(cells: Mapping[str, Mapping[str, Cell]]) -> str:
    """One page: bugs by releases; the message of each cell is its tool tip."""
    releases = list(next(iter(cells.values()), {}))
    head = "".join(f"<th>{escape(r)}</th>" for r in releases)
    rows = []
    for name, row in cells.items():
        title = escape(next(iter(row.values())).bug.title)
        tds = "".join(
            f'<td class="{c.seen.outcome}" title="{escape(c.seen.message, quote=True)}">{c.seen.outcome}</td>'
            for c in row.values())
        rows.append(f"<tr><th>{escape(name)}<br><small>{title}</small></th>{tds}</tr>")
    return (
        f"<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>Bugs by releases</title><style>{STYLE}</style>"
        f"</head>\n<body><table>\n<tr><th>bug</th>{head}</tr>\n" + "\n".join(rows) + "\n</table></body></html>\n")
