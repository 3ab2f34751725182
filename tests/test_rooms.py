"""The house stands as DESIGN says: who may import whom, and where the C core is touched."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("mmu", "cxl", "cffi_build")

_BASE = ("mmu.answer", "mmu.core", "mmu.types", "mmu.layout", "mmu.errors")
_WALKERS = ("mmu.x86", "mmu.arm64", "mmu.radix", "mmu.scan", "mmu.tlb", "mmu.softmmu")

# Module prefix -> prefixes of our own modules that it may import. The longest matching prefix decides.
MAY_IMPORT = {
    "mmu.layout": (),
    "mmu.types": (),
    "mmu.errors": ("mmu.types",),
    "mmu.stripes": (),
    "mmu.core": ("mmu._core", "mmu.types", "mmu.errors", "mmu.layout"),
    "mmu.x86.format": ("mmu.layout", "mmu.types"),
    "mmu.arm64.format": ("mmu.layout", "mmu.types"),
    "mmu.guest.format": ("mmu.layout", "mmu.types"),
    "mmu.guest.devices.format": ("mmu.layout", "mmu.types"),
    "cxl.format": ("mmu.layout", "mmu.types"),
    "mmu.radix": ("mmu.radix", "mmu.scan", *_BASE),
    "mmu.scan": ("mmu.radix", "mmu.scan", *_BASE),
    "mmu.x86": ("mmu.x86", "mmu.radix", "mmu.scan", *_BASE),
    "mmu.arm64": ("mmu.arm64", "mmu.radix", "mmu.scan", *_BASE),
    "mmu.tlb": ("mmu.tlb", "mmu.x86", "mmu.arm64", *_BASE),
    "mmu.tlb.softmmu": ("mmu.tlb", "mmu.memory", *_BASE),  # the twin asks a region what it is, as the C bus does
    "mmu.softmmu": (*_WALKERS, *_BASE),
    "mmu.memory": ("mmu.memory", "mmu.stripes", *_BASE),
    "mmu.guest": ("mmu.guest", "mmu.memory", "mmu.stripes", *_WALKERS, *_BASE),
    "mmu.tcg": ("mmu.tcg", "mmu.guest", "mmu.memory", "mmu.stripes", *_WALKERS, *_BASE),
    "mmu.snapshot": ("mmu.guest", "mmu.memory", *_BASE),
    "mmu.machine": ("mmu.tcg", "mmu.guest", "mmu.snapshot", "mmu.memory", "mmu.stripes", *_WALKERS, *_BASE),
    "mmu.show": ("mmu.types",),
    "mmu": ("mmu",),
    "cxl.cli": ("cxl", "mmu"),
    "cxl": ("cxl", "mmu"),
    "cffi_build": (
        "cffi_build", "mmu.layout", "mmu.types", "mmu.x86.format", "mmu.arm64.format", "mmu.guest.format",
        "mmu.guest.devices.format",
    ),
}
# Third-party packages with a room of their own.
ONLY_IN = {"unicorn": "mmu.guest", "click": "cxl.cli", "rich": "cxl.cli", "mmu._core": "mmu.core"}


def modules():
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


def imports(path, module):
    """Names imported anywhere in *path*, those for type checkers alone left out."""
    tree = ast.parse(path.read_text())
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for child in block.body
        for node in ast.walk(child)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(name, prefix):
    return name == prefix or name.startswith(prefix + ".")


def allowed(module):
    return MAY_IMPORT[max((p for p in MAY_IMPORT if under(module, p)), key=len)]


@pytest.mark.parametrize("module, path", list(modules()), ids=lambda x: x if isinstance(x, str) else "")
def test_a_room_imports_only_what_it_may(module, path):
    for name in imports(path, module):
        if name.split(".")[0] in ROOMS and name not in ROOMS:
            ok = any(under(name, p) or under(p, name) for p in allowed(module))
            assert ok, f"{module} must not import {name}"
            assert not (under(name, "cxl.cli") and not under(module, "cxl.cli")), f"{module} must not import {name}"
            assert not (under(name, "mmu.core") and under(module, "cxl")), f"{module} must not import {name}"
        for package, room in ONLY_IN.items():
            if under(name, package):
                assert under(module, room), f"{module} must not import {package}: only {room} may"


def test_the_rule_can_fail(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("from cxl import Topology\nimport unicorn\n")
    assert sorted(imports(bad, "mmu.bad")) == ["cxl", "cxl.Topology", "unicorn"]
    assert not any(under("cxl.Topology", p) for p in allowed("mmu.bad"))


def test_nothing_else_at_the_top():
    tracked = {p.name for p in ROOT.iterdir() if not p.name.startswith(".")}
    extra = tracked - {
        "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "mmu", "cxl", "cffi_build", "csrc", "tests",
        "scripts", "build", "dist", "cxl_mmu.egg-info",
    }  # fmt: skip
    assert not extra


def test_every_c_file_is_built():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (module,) = project["tool"]["setuptools"]["ext-modules"]
    built = {s for s in module["sources"] if s != "csrc/_core.c"}
    assert {f"csrc/{p.name}" for p in (ROOT / "csrc").glob("*.c") if p.name != "_core.c"} == built


def test_every_package_is_shipped():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    here = {name for name, path in modules() if path.name == "__init__.py" and not name.startswith("cffi_build")}
    assert here == set(project["tool"]["setuptools"]["packages"])
