"""Proof that the tests can fail: known mistakes, planted one at a time in a copy of the tree, must turn them red.

`python -m tests.mutations [WORD...]` runs those whose name holds one of the words, or all. A table of mutations is
one file `table_ROOM.py` with `MUTATIONS`, a tuple of `Mutation`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PREFIX = "table_"


@dataclass(frozen=True, slots=True)
class Mutation:
    """In *file*, *old* (there exactly once) becomes *new*; then one of *tests* (pytest arguments) must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, text: str) -> str:
        """The mutated text. Raises ValueError unless the old text is there exactly once and the new one differs."""
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"{self.name}: {self.file} must hold the old text exactly once, not {count} times")
        if self.new == self.old:
            raise ValueError(f"{self.name}: the new text is the old text")
        return text.replace(self.old, self.new)


def mutations(words: Sequence[str] = ()) -> list[Mutation]:
    found = []
    for path in sorted(Path(__file__).parent.glob(f"{PREFIX}*.py")):
        found += importlib.import_module(f"tests.mutations.{path.stem}").MUTATIONS
    return [m for m in found if not words or any(w in m.name for w in words)]
