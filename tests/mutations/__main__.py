"""Runs the mutations two at a time. Exit status 1 when one survives, or does not fit the code any more."""

from __future__ import annotations

import os
import queue
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutations import Mutation, mutations
from tests.mutations.tree import Tree, make_trees


@dataclass(frozen=True)
class Outcome:
    mutation: Mutation
    caught_by: list[str]
    error: str | None
    seconds: float


class Runner:
    def __init__(self, trees: Sequence[Tree]) -> None:
        self._free: queue.SimpleQueue[Tree] = queue.SimpleQueue()
        for tree in trees:
            self._free.put(tree)

    def __call__(self, mutation: Mutation) -> Outcome:
        tree, start = self._free.get(), time.monotonic()
        caught: list[str] = []
        error = None
        try:
            caught = tree.try_mutation(mutation)
        except (OSError, RuntimeError, ValueError) as e:
            error = str(e)
        finally:
            self._free.put(tree)
        return Outcome(mutation, caught, error, time.monotonic() - start)


def report(outcome: Outcome) -> None:
    if outcome.error is not None:
        print(f"   BROKEN    {outcome.mutation.name}: {outcome.error}")
    elif outcome.caught_by:
        print(f"   caught    {outcome.mutation.name}  by {outcome.caught_by[0]} ({outcome.seconds:.1f} s)")
    else:
        print(f"   SURVIVED  {outcome.mutation.name} in {outcome.mutation.file}: {' '.join(outcome.mutation.tests)}")
    sys.stdout.flush()


def main(words: Sequence[str]) -> int:
    wanted = mutations(words)
    if not wanted:
        print(f"no mutation has {' or '.join(words)} in its name", file=sys.stderr)
        return 2
    jobs = min(2, os.cpu_count() or 1, len(wanted))
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="cxl-mmu-mutations-") as folder, ThreadPoolExecutor(jobs) as pool:
        trees = make_trees(Path(folder), jobs)
        for outcome in pool.map(Runner(trees), wanted):
            report(outcome)
            outcomes.append(outcome)
        # A red test proves something only if it is green without the mutation.
        catchers = sorted({o.caught_by[0] for o in outcomes if o.caught_by and "::" in o.caught_by[0]})
        red = trees[0].pytest(*catchers)[1] if catchers else []
        for tree in trees:
            tree.close()
    for name in red:
        print(f"   BROKEN    {name} fails in a clean copy too")
    survived = sum(not o.caught_by for o in outcomes)
    print(f"   {len(outcomes) - survived} of {len(outcomes)} mutations caught")
    return 1 if survived or red else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
