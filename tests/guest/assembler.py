"""Machine code of the snippets that tests run: kept in snippets.json, so that no assembler is needed to test.

`python -m tests.guest.assembler` forgets what it knows; the next run with CXL_MMU_REGEN=1 and GNU as fills it again.
"""

import json
import os
import tempfile
from pathlib import Path

from mmu.guest import loader

STORE = Path(__file__).with_name("snippets.json")
DIRECTIVES = {"x86_64": ".intel_syntax noprefix\n", "aarch64": ".arch armv8.2-a\n"}


def known():
    return json.loads(STORE.read_text()) if STORE.exists() else {}


_known = known()


def assembled(arch, source):
    """Fresh from GNU as."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "snippet.s")
        path.write_text(DIRECTIVES[arch] + source.replace(";", "\n") + "\n")
        return loader.assemble(path, arch).segments[0].data


def asm(arch, source):
    """Bytes of *source*, instructions separated by semicolons, Intel syntax on x86."""
    rows = _known.setdefault(arch, {})
    if source not in rows:
        code = assembled(arch, source)
        assert os.environ.get("CXL_MMU_REGEN"), f"{source!r} is not in {STORE.name}: run with CXL_MMU_REGEN=1"
        rows[source] = code.hex()
        STORE.write_text(json.dumps({a: dict(sorted(r.items())) for a, r in sorted(_known.items())}, indent=1) + "\n")
    return bytes.fromhex(rows[source])


if __name__ == "__main__":
    STORE.unlink(missing_ok=True)
