"""What is expensive to load is loaded by what needs it."""

import subprocess
import sys

import pytest

HEAVY = ("unicorn", "capstone", "elftools", "rich", "numpy", "hypothesis")
MODEL = ("mmu.tcg", "cxl.bugs", "mmu.guest")


def loaded(code):
    """The modules that *code* loads."""
    program = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stderr.split()


def within(modules, rooms):
    return [name for name in modules if any(name == room or name.startswith(room + ".") for room in rooms)]


@pytest.mark.parametrize("code", [
    "import mmu", "import cxl", "import mmu.tcg", "import cxl.bugs", "from mmu import AddressSpace, Ram",
    "from cxl import Topology; Topology.default()", "import cxl.cli.main",
    "from cxl.bugs import every; every()",
    "from cxl.cli.main import main; main(['bug', 'show', 'ptw-retaddr'])",
    "from cxl.cli.main import main; main(['bug', 'list', '--json'])",
])  # fmt: skip
def test_nothing_heavy_is_loaded(code):
    assert within(loaded(code), HEAVY) == []


@pytest.mark.parametrize("code", ["import mmu", "import cxl", "from cxl import Topology; Topology.default().commit()"])
def test_the_model_is_loaded_by_who_asks_for_it(code):
    assert within(loaded(code), MODEL) == []


def test_a_plain_machine_loads_no_model():
    code = "from mmu import AddressSpace, Machine; Machine(AddressSpace()).close()"
    assert within(loaded(code), ("mmu.tcg", "cxl")) == []


def test_what_is_heavy_would_be_noticed():
    assert within(loaded("import rich.table"), HEAVY) != []
