"""Copies of the tree to plant mutations in, and a build that compiles only what a mutation touched."""

from __future__ import annotations

import compileall
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.mutations import ROOT, Mutation

FOLDERS = ("mmu", "cxl", "csrc", "cffi_build", "tests", "scripts")
FLAGS = ("-std=c11", "-O1", "-fPIC")
GENERATED = "_core"  # large, and the same whatever is planted in the other C files


def compiler() -> str:
    found = next((c for c in (os.environ.get("CC"), "gcc", "clang") if c and shutil.which(c)), None)
    if found is None:
        raise OSError("no C compiler found: needs gcc or clang, or CC set to one")
    return found


class Tree:
    """A copy of the project under *folder* that imports from itself. Objects in *objects* may be shared by trees."""

    def __init__(self, folder: Path, objects: Path) -> None:
        self.folder, self.objects = folder, objects
        self.core = folder / f"mmu/_core{sysconfig.get_config_var('EXT_SUFFIX')}"
        ignored = shutil.ignore_patterns("__pycache__", "*.so", ".hypothesis")
        for name in FOLDERS:
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, folder / name)
        # Validated by content: a time stamp would let a mutated module pass for the clean one.
        compileall.compile_dir(folder, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
        self.environment = {
            **os.environ, "PYTHONPATH": str(folder), "PYTHONHASHSEED": "0", "HYPOTHESIS_PROFILE": "mutations",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }  # fmt: skip
        self._forks: subprocess.Popen[str] | None = None

    def close(self) -> None:
        if self._forks:
            self._forks.communicate()
            self._forks = None

    def must(self, *command: str) -> None:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}")

    def sources(self) -> list[str]:
        """Stems of the C files, the generated one too."""
        self.must(sys.executable, "-m", "cffi_build.build")
        return sorted(p.stem for p in (self.folder / "csrc").glob("*.c"))

    def compile(self, stem: str, folder: Path) -> None:
        self.must(
            compiler(), *FLAGS, "-MMD", "-Icsrc", f"-I{sysconfig.get_path('include')}", "-c", f"csrc/{stem}.c",
            "-o", str(folder / f"{stem}.o"))  # fmt: skip

    def users(self, header: str) -> list[str]:
        """Stems of the C files that include csrc/*header*, as the compiler has noted."""
        return [p.stem for p in self.objects.glob("*.d") if f"csrc/{header}" in p.read_text().split()]

    def link(self, own: Path) -> None:
        """Link the core of this tree from the objects in *own* and, where it has none, the shared ones."""
        objects = {p.stem: p for folder in (self.objects, own) for p in folder.glob("*.o")}
        self.core.unlink(missing_ok=True)
        self.must(compiler(), "-shared", "-o", str(self.core), *map(str, objects.values()), "-lpthread", "-lm")

    def restore(self) -> None:
        """The clean core again."""
        self.core.unlink(missing_ok=True)
        shutil.copy(self.objects / self.core.name, self.core)

    def build(self, changed: str) -> None:
        """Bring the core up to date after a change of csrc/*changed*; a header counts for all but the generated."""
        own = self.folder / "objects"
        own.mkdir()
        try:
            for stem in [Path(changed).stem] if changed.endswith(".c") else self.users(changed):
                if stem != GENERATED:
                    self.compile(stem, own)
            self.link(own)
        finally:
            shutil.rmtree(own)

    def fork(self, arguments: list[str]) -> tuple[int | None, str]:
        """Status and output of pytest; see forks.py."""
        if not self._forks:
            self._forks = subprocess.Popen(
                [sys.executable, "-P", "tests/mutations/forks.py"], cwd=self.folder, env=self.environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        assert self._forks.stdin and self._forks.stdout
        print(json.dumps(arguments), file=self._forks.stdin, flush=True)
        status, output = json.loads(self._forks.stdout.readline())
        return status, output

    def pytest(self, *tests: str) -> tuple[int, list[str]]:
        """(exit status, ids of the tests that failed); stops at the first failure."""
        status, output = self.fork([
            "-x", "-q", "-rfE", "--tb=line", "--show-capture=no", "--no-header", "-p", "no:cacheprovider",
            "-p", "tests.mutations.profile", *tests,
        ])  # fmt: skip
        if status is None:
            return 1, ["a test that no longer ends"]
        if status < 0:
            return 1, [f"signal {-status} in the C core"]
        if status not in (0, 1):
            raise RuntimeError(f"pytest {' '.join(tests)} ended with {status}:\n{output}")
        return status, re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.M)

    def try_mutation(self, mutation: Mutation) -> list[str]:
        """Ids of the tests that fail with *mutation* planted; the tree is as before afterwards."""
        path = self.folder / mutation.file
        clean = path.read_text()
        is_c = path.suffix in (".c", ".h")
        try:
            path.write_text(mutation.apply(clean))
            if is_c:
                self.build(path.name)
            return self.pytest(*mutation.tests)[1]
        finally:
            path.write_text(clean)
            if is_c:
                self.restore()


def make_trees(folder: Path, count: int) -> list[Tree]:
    """*count* trees that share one set of objects and one clean core, each ready to be tested."""
    objects = folder / "objects"
    objects.mkdir()
    trees = [Tree(folder / f"tree{i}", objects) for i in range(count)]
    for stem in trees[0].sources():
        trees[0].compile(stem, objects)
    trees[0].link(objects)
    shutil.copy(trees[0].core, objects)
    for tree in trees:
        tree.restore()
    return trees
