"""Compiles the reference loops with the compiler at hand and calls them."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# As the project's own C is built (pyproject.toml), so that a ratio compares code and not options.
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra")


def compiler() -> str:
    for name in (os.environ.get("CC", ""), "gcc", "clang"):
        if name and shutil.which(name.split()[0]):
            return name
    raise OSError("no C compiler found: the reference loops need gcc or clang, or CC set to one")


def accepts(flag: str) -> bool:
    """Whether the compiler knows *flag*."""
    command = [*compiler().split(), flag, "-E", "-x", "c", "-"]
    return subprocess.run(command, input=b"", capture_output=True).returncode == 0


class Loops:
    """The functions of NAME.c, each `void f(const uint64_t *setup, const uint64_t *in, uint64_t *out, uint64_t n)`."""

    def __init__(self, name: str, *flags: str) -> None:
        source = Path(__file__).with_name(f"{name}.c")
        with tempfile.TemporaryDirectory() as folder:
            built = Path(folder) / f"{name}.so"
            subprocess.run([*compiler().split(), *FLAGS, *flags, "-shared", "-fPIC", str(source), "-o", str(built)],
                           check=True)
            self._library = ctypes.CDLL(str(built))

    def address(self, function: str) -> int:
        """Where *function* is, for a loop that calls it."""
        return ctypes.cast(getattr(self._library, function), ctypes.c_void_p).value or 0

    def bind(self, function: str, setup: list[int], questions: Any, answers: Any) -> Callable[[], None]:
        """A run of *function* over all of *questions*; both arrays hold uint64 and are as long."""
        for array in (questions, answers):
            if array.dtype != np.uint64 or not array.flags.c_contiguous or len(array) != len(questions):
                raise ValueError(f"{function}: both arrays must be contiguous uint64 of one length")
        words = np.array(setup, dtype=np.uint64)
        call = getattr(self._library, function)
        call.argtypes, call.restype = [ctypes.c_void_p] * 3 + [ctypes.c_uint64], None

        def run(words: Any = words) -> None:
            call(words.ctypes.data, questions.ctypes.data, answers.ctypes.data, len(questions))

        return run
