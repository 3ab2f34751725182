"""The atlas and the model behind it, against what they may cost: start-up, single bugs, the whole matrix."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cxl.bugs import NAMES, get
from cxl.bugs.matrix import cell
from cxl.bugs.rig import CODE, DATA, PAGE, Rig
from mmu import Machine
from mmu.tcg import RELEASES, release
from scripts.benches.harness import Bench, Row, WrongAnswer

ROOT = Path(__file__).resolve().parent.parent.parent
SECOND = 1e9  # ns
LOOP = """
    48 8b 07      mov rax, [rdi]
    48 01 c3      add rbx, rax
    48 ff c9      dec rcx
    75 f5         jne back
    f4            hlt
"""
PER_ROUND = 4
INSTRUCTION = SECOND / 20_000
PLACES = (
    ("RAM", "r", "r", "r"), ("data in a window", "r", "w", "r"), ("code in a window", "w", "r", "r"),
    ("all in a window", "w", "w", "w"),
)  # fmt: skip
WORD = DATA + PAGE  # not in the slot of the TLB that the code has
SHELL = "from cxl.cli.main import entry; entry()"
COMMANDS = {"bug list": 1.0, "bug run ptw-retaddr": 1.0, "bug run straddle-jump-cache": 1.0}
IMPORTS = {"mmu": 0.1, "cxl": 0.15}


def rows(bench: Bench) -> Iterator[Row]:
    yield from _imports(bench)
    yield from _commands(bench)
    yield _matrix(bench)
    yield from _model(bench)


def _wall(*arguments: str) -> float:
    """Least wall time (ns) of a few runs of the interpreter."""
    taken = []
    for _ in range(5):
        start = time.perf_counter_ns()
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
        taken.append(time.perf_counter_ns() - start)
        if done.returncode:
            raise WrongAnswer(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return float(min(taken))


def _imports(bench: Bench) -> Iterator[Row]:
    bare = _wall("-c", "pass")
    for name, limit in IMPORTS.items():
        ours = max(0.0, _wall("-c", f"import {name}") - bare)
        yield bench.row(f"import {name}", ours, f"{limit} s", limit * SECOND, 1.0)


def _commands(bench: Bench) -> Iterator[Row]:
    for command, limit in COMMANDS.items():
        ours = _wall("-c", SHELL, *command.split())
        yield bench.row(f"cxl-mmu {command}", ours, f"{limit} s", limit * SECOND, 1.0)


def _matrix(bench: Bench) -> Row:
    """All cells, or as many as the share of the work has: the limit is for all of them."""
    cells = [(bug, name) for bug in NAMES for name in RELEASES]
    some = cells[:: max(1, len(cells) // bench.items(len(cells)))]
    start = time.perf_counter_ns()
    for bug, name in some:
        if complaints := cell(get(bug), name).complaints:
            raise WrongAnswer(f"{bug} under {name}: {'; '.join(complaints)}")
    whole = (time.perf_counter_ns() - start) / len(some) * len(cells)
    return bench.row(f"bug matrix, {len(cells)} cells", whole, "20 s", 20 * SECOND, 1.0)


def _model(bench: Bench) -> Iterator[Row]:
    rounds = bench.items(2000)
    for name, code, data, table in PLACES:
        rig = Rig("x86_64", release("10.0"), root=table)
        rig.code(CODE, LOOP, code, 3 * table)
        rig.fill(rig.map(WORD, data, 3 * table), b"\x03")
        with rig.machine as machine:

            def run(machine: Machine = machine) -> None:
                machine.set(rdi=WORD, rcx=rounds, rbx=0)
                machine.run(CODE, timeout=None)

            taken = bench.times({name: run}, rounds * PER_ROUND + 1)[name]
            if machine.registers["rbx"] != 3 * rounds:
                raise WrongAnswer(f"the loop in {name} must leave {3 * rounds}, not {machine.registers['rbx']}")
        yield bench.row(f"instruction of the model, {name}", taken, "20,000 per second", INSTRUCTION, 1.0)
