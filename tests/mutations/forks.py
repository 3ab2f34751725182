"""Runs pytest in forks of a process that has imported what no mutation touches: half of the time of a short run.

A program of its own: reads a list of pytest arguments as one line of JSON, and answers with [status, output]; the
status is that of the process, negative for a signal, None when it did not end in time.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import sys
import tempfile
from typing import IO

TIMEOUT = 60.0  # seconds
# Libraries of the tests and of what they test, and parts of them that are imported late.
IMPORTS = (
    "pytest", "hypothesis", "hypothesis.extra.numpy", "hypothesis.internal.conjecture.engine", "hypothesis.stateful",
    "numpy", "cffi", "unicorn", "unicorn.x86_const", "unicorn.arm64_const", "capstone", "click.testing", "rich.console",
    "msgspec", "elftools.elf.elffile",
)  # fmt: skip


def wait(child: int, output: IO[bytes]) -> tuple[int | None, str]:
    handle = os.pidfd_open(child)
    ended = bool(select.select([handle], [], [], TIMEOUT)[0])
    os.close(handle)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # also whom it has left behind
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    output.seek(0)
    return status if ended else None, output.read().decode(errors="replace")


def main() -> int:
    for name in IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import pytest

    gc.freeze()  # no collection in a fork looks at all that again
    for line in sys.stdin:
        with tempfile.TemporaryFile() as output:
            child = os.fork()
            if not child:
                os.setsid()
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                return pytest.main(json.loads(line))
            print(json.dumps(wait(child, output)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
