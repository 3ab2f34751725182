"""Addresses by the million: lines in, lines out, translated in C."""

from __future__ import annotations

from typing import TextIO

import click
import numpy as np

from cxl import Topology

BLOCK = 1 << 20  # bytes of input at a time


def stream(machine: Topology, source: TextIO, sink: TextIO) -> int:
    """For each line of *source*, a decimal or 0x... HPA, the line "HPA DEVICE DPA" or "HPA - -", the HPA as given.

    Returns 1 when any has no answer, else 0.
    Raises click.BadParameter, naming the line, when one is no address; what came before it is written.
    """
    names, number, missed, rest = list(machine.devices), 0, 0, ""
    while True:
        block = source.read(BLOCK)
        lines = (rest + block).split("\n")
        rest = lines.pop() if block else ""
        words = [w for w in lines if w]
        if words:
            hpas, wrong = _numbers(words)
            found = machine.decode_many(hpas)
            sink.write(_text(words, found, names))
            missed |= int(found["status"].any())
            if wrong is not None:
                line = number + len(hpas) + 1
                raise click.BadParameter(f"line {line}: {wrong!r} is not an HPA; write 4096 or 0x1000")
        number += len(lines)
        if not block:
            return missed


def _numbers(words: list[str]) -> tuple[np.ndarray, str | None]:
    """The addresses up to the first word that is none, and that word."""
    try:
        return np.array([int(w, 0) for w in words], dtype=np.uint64), None
    except (ValueError, OverflowError):
        good = []
        for word in words:
            try:
                good.append(np.uint64(int(word, 0)))
            except (ValueError, OverflowError):
                return np.array(good, dtype=np.uint64), word
        raise


def _text(words: list[str], found: np.ndarray, names: list[str]) -> str:
    rows = zip(words, found["device"].tolist(), found["dpa"].tolist(), found["status"].tolist())
    return "".join([f"{w} - -\n" if s else f"{w} {names[d]} {a:#x}\n" for w, d, a, s in rows])
