"""Machine code of the snippets that tests run: kept in snippets*.json, so that no assembler is needed to test.

`python -m tests.guest.assembler` forgets what it knows; the next run with CXL_MMU_REGEN=1 and GNU as fills it again:
snippets.json, or snippets_WORD.json with CXL_MMU_REGEN=WORD.
"""

import json
import os
import tempfile
from pathlib import Path

from mmu.guest import loader

HERE = Path(__file__).parent
WORD = os.environ.get("CXL_MMU_REGEN", "1")
STORE = HERE / ("snippets.json" if WORD == "1" else f"snippets_{WORD}.json")
DIRECTIVES = {"x86_64": ".intel_syntax noprefix\n", "aarch64": ".arch armv8.2-a\n"}


def known(paths=None):
    """Rows of *paths*, or of all there are."""
    out = {}
    for path in sorted(HERE.glob("snippets*.json")) if paths is None else paths:
        for arch, rows in json.loads(path.read_text()).items():
            out.setdefault(arch, {}).update(rows)
    return out


_known = known()
_own = known([STORE] if STORE.exists() else [])  # what a new snippet is stored with


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
        rows[source] = _own.setdefault(arch, {})[source] = code.hex()
        STORE.write_text(json.dumps({a: dict(sorted(r.items())) for a, r in sorted(_own.items())}, indent=1) + "\n")
    return bytes.fromhex(rows[source])


if __name__ == "__main__":
    for store in HERE.glob("snippets*.json"):
        store.unlink()
