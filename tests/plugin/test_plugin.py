"""The pytest plugin, as somebody who writes tests with it sees it."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytest_plugins = ["pytester"]
# mov rax, [rdi]; inc rbx; hlt: in bytes, so that no assembler is needed
CODE = 'bytes.fromhex("488b0748ffc3f4")'


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs a test file with the plugin; the result."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # an installed plugin would be here twice

    def run(source, *arguments):
        pytester.makepyfile(f"from cxl.testing import *\nCODE = {CODE}\n{source}")
        return pytester.runpytest_inprocess("-p", "cxl.pytest_plugin", "-p", "no:cacheprovider", *arguments)

    return run


def test_the_entry_point_is_the_plugin():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"cxl_mmu": "cxl.pytest_plugin"}


def test_loading_it_imports_nothing_heavy():
    code = (
        "import sys, pytest; before = set(sys.modules); import cxl.pytest_plugin;"
        "print(*sorted(m for m in set(sys.modules) - before))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"cxl", "cxl.pytest_plugin", "__future__"}


def test_a_session_that_uses_nothing_of_it_imports_nothing_more(tmp_path):
    file = tmp_path / "test_plain.py"
    file.write_text(
        "import sys\ndef test_plain():\n    assert 'cxl.pytest_plugin' in sys.modules\n"
        "    assert not {'mmu', 'unicorn', 'capstone', 'numpy', 'click', 'cxl.testing'} & set(sys.modules)\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "cxl.pytest_plugin", "-p", "no:cacheprovider", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout


def test_a_machine_with_one_level_of_its_tables_in_the_window(run):
    result = run("""
def test_walk(cxl_machine):
    guest = cxl_machine(CODE, tables={"pt": "window"}).touch()
    entry = guest.entry(guest.data, "PT")
    ran = guest.write(guest.data, b"\\x2a").run()
    assert ran == halted(rax=0x2a, rbx=1, pc=guest.code + 7)
    assert entry.place.device == "mem0"
    assert ran.trace.find("bus", tag="ptw", offset=entry.place.offset) == [bus("r", 8, at=entry)]
""")
    result.assert_outcomes(passed=1)


def test_arm64_and_memory_by_device_and_dpa(run):
    # str x1, [x0]; wfi
    result = run("""
def test_store(cxl_machine):
    guest = cxl_machine(bytes.fromhex("010000f9 7f2003d5"), arch="aarch64", data="window", tables="window")
    ran = guest.set(x1=0x1122334455667788).run()
    assert ran == halted(x1=0x1122334455667788)
    place = guest.place(guest.data).place
    assert guest.memory(place.device, place.dpa, 8) == bytes.fromhex("8877665544332211")
    assert ran.trace.count(bus("w", tag="data")) == 2  # the engine hands 8 bytes over as two of 4
""")
    result.assert_outcomes(passed=1)


def test_topologies_by_numbers_and_by_qemu_options(run):
    result = run("""
from cxl import DEFAULT_QEMU_ARGS

def test_numbers(cxl_topology, cxl_machine):
    topology = cxl_topology(ways=4, granularity=1024, bridges=2)
    guest = cxl_machine(CODE, topology=topology, data="window")
    devices = [guest.place(guest.data + 1024 * n).place.device for n in range(5)]
    assert devices == ["mem0", "mem1", "mem2", "mem3", "mem0"]
    assert [d.registers.committed[0].ways for d in topology.devices.values()] == [4] * 4

def test_options(cxl_topology):
    assert list(cxl_topology(DEFAULT_QEMU_ARGS).devices) == ["mem0", "mem1"]
""")
    result.assert_outcomes(passed=2)


def test_a_bug_runs_a_test_both_ways(run):
    result = run("""
import pytest

@pytest.mark.cxl_bug("ptw-retaddr")
def test_both(cxl_machine, cxl_mode, cxl_switches):
    assert cxl_switches.ptw_retaddr == (cxl_mode == "faulty")
    assert cxl_switches.bugs == (("ptw-retaddr",) if cxl_mode == "faulty" else ())
    guest = cxl_machine(CODE)
    entry = guest.move_table(guest.data, "PT", "window")
    guest.touch()
    ran = guest.run()
    if cxl_mode == "faulty":
        assert ran == aborted("io_recompile", "could not find TB for pc=(nil)", pc=guest.code, level="PT",
                              device=entry.place.device, rbx=0)
        assert ran.trace.count("bus") == 0
    else:
        assert ran == halted(rbx=1)
        assert ran.trace.find("bus", tag="ptw") == [bus("r", 8, at=entry)]
        assert ran.trace == in_order(event("recompile", pc=guest.code, n=1), event("lock", change="+"), bus("r", 8))
        assert ran.lock_depth < 2

@pytest.mark.cxl_bug("ptw-retaddr", mode="fixed")
def test_one(cxl_switches):
    assert not cxl_switches.ptw_retaddr

@pytest.mark.cxl_bug("double_lock")
class TestClass:
    def test_of_a_class(self, cxl_switches): pass
""", "-v")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines([
        "*::test_both[[]faulty] PASSED*", "*::test_both[[]fixed] PASSED*", "*::test_one[[]fixed] PASSED*",
        "*test_of_a_class[[]faulty] PASSED*"])


def test_a_bug_of_decoders_sends_data_to_another_device(run):
    # mov [rdi+0x400], rsi; hlt
    run("""
import pytest

@pytest.mark.cxl_bug("hdm-target-list")
def test_the_fifth_granule(cxl_machine, cxl_topology, cxl_mode):
    topology = cxl_topology(ways=8, strict=False)
    guest = cxl_machine(bytes.fromhex("4889b700040000f4"), topology=topology, data="window")
    assert guest.set(rsi=0x1234).run() == halted()
    place = guest.place(guest.data + 0x400).place
    assert place.device == {"faulty": "mem0", "fixed": "mem4"}[cxl_mode]
    dpa = 2 * 2 ** 20 // 8
    assert guest.memory("mem4", dpa, 2) == (b"\\x34\\x12" if cxl_mode == "fixed" else bytes(2))
""").assert_outcomes(passed=2)


def test_an_emulator_by_release(run):
    source = """
import pytest

@pytest.mark.parametrize("release, outcome", [("8.2", "abort"), ("9.0", "abort"), ("qemu-9.2", "halt")])
def test_release(cxl_machine, release, outcome):
    guest = cxl_machine(CODE, emulator=release)
    guest.move_table(guest.data, "PT", "window")
    assert guest.touch().run().outcome == outcome

def test_default(cxl_machine, request):
    guest = cxl_machine(CODE)
    guest.move_table(guest.data, "PT", "window")
    assert guest.touch().run().outcome == {None: "halt", "8.2": "abort"}[request.config.getoption("--cxl-release")]
"""
    run(source).assert_outcomes(passed=4)
    run(source, "--cxl-release", "8.2").assert_outcomes(passed=4)


@pytest.mark.parametrize(
    "marker, message",
    [
        ('"ptw-retadr"', "cxl_bug: there is no bug 'ptw-retadr': do you mean ptw-retaddr"),
        ('"bus-error-x86"', "cxl_bug: bus-error-x86 is by design: no emulator is without it"),
        ('"ptw-retaddr", mode="broken"', "mode must be one of faulty, fixed, not 'broken'"),
        ("", "cxl_bug*missing*name"),
    ],
)
def test_a_wrong_marker_is_an_error_that_says_what_is_wrong(run, marker, message):
    result = run(f"import pytest\n@pytest.mark.cxl_bug({marker})\ndef test_x(): pass\n")
    assert result.ret != 0
    text = result.stdout.str() + result.stderr.str()
    assert all(part in text for part in message.split("*")), text
    assert "pytest_plugin.py" not in text  # a line, and no way through our code


def test_two_bugs_at_a_time_are_refused(run):
    two = """import pytest
@pytest.mark.cxl_bug("double-lock")
@pytest.mark.cxl_bug("ptw-retaddr")
def test_x(): pass
"""
    result = run(two)
    result.stdout.fnmatch_lines(["*cxl_bug: a test has one bug at a time*"])
    assert result.ret != 0


def test_the_bug_of_a_test_comes_before_that_of_its_class(run):
    source = """
@pytest.mark.cxl_bug("double-lock")
class Test:
    @pytest.mark.cxl_bug("ptw-retaddr", mode="faulty")
    def test_own(self, cxl_switches):
        assert cxl_switches.bugs == ("ptw-retaddr",)

    def test_shared(self, cxl_switches, cxl_mode):
        assert cxl_switches.bugs == (("double-lock",) if cxl_mode == "faulty" else ())
"""
    run("import pytest\n" + source).assert_outcomes(passed=3)


def test_a_wrong_release_is_an_error_that_says_which_there_are(run):
    result = run("def test_x(cxl_machine): pass\n", "--cxl-release", "6.0")
    result.stderr.fnmatch_lines(["ERROR: --cxl-release: release must be one of 7.2, *not '6.0'*"])
    assert (result.ret, len(result.errlines)) == (pytest.ExitCode.USAGE_ERROR, 2)


def test_machines_are_closed_after_the_test(run):
    run("""
from mmu.errors import ClosedError
import pytest
made = []

def test_make(cxl_machine):
    made.append(cxl_machine(CODE))

def test_closed():
    with pytest.raises(ClosedError):
        made[0].run()
""").assert_outcomes(passed=2)


def test_without_an_assembler_a_test_with_source_is_skipped(run):
    run("""
from cxl.testing import source
import pytest

def test_x(cxl_machine, monkeypatch):
    monkeypatch.setattr(source.loader, "_tool", lambda arch, name: None)
    assert cxl_machine(CODE).run() == halted()
    cxl_machine("hlt")
""").assert_outcomes(skipped=1)


FAILURES = {
    "registers": (
        "assert cxl_machine(CODE).run() == halted(rax=1, rbx=2)",
        ["*<ended by halt at 0x400007> is not ended by halt, rax=0x1, rbx=0x2*", "*rax is 0x0, not 0x1*",
         "*rbx is 0x1, not 0x2*"],
    ),
    "an end": (
        'assert cxl_machine(bytes.fromhex("488b0425000000f0")).run() == halted()',
        ["*it ended by fault at 0x400000, not by halt*", "*the last exception was PageFault(error_code=0, cr2=*"],
    ),
    "a fault": (
        'assert cxl_machine(bytes.fromhex("488b042500000070")).run() == faulted(vector=14, cr2=0x1, error_code=0)',
        ["*PageFault: cr2 is 0x70000000, not 0x1*"],
    ),
    "memory": (
        "g = cxl_machine(CODE, data='window'); g.write(g.data, b'A' * 8 + b'B' * 16)\n"
        "    assert g.memory('mem0', 0x100000, 24) == b'A' * 9 + b'B' * 15",
        ["*memory at mem0 DPA 0x100000 is not as wanted*",
         "*0x100000: 41 41 41 41 41 41 41 41 42 42 42 42 42 42 42 42*",
         "*wanted: 41 41 41 41 41 41 41 41 41 42 42 42 42 42 42 42*", "*^^*"],
    ),
    "events": (
        "g = cxl_machine(CODE, tables={'PT': 'window'}).touch(); t = g.run().trace\n"
        "    assert t.find('bus', tag='ptw') == [bus('r', 8, offset=0x2000), bus('w', 8)]",
        ["*  bus r window0+0x2000 8 -> *", "*! bus r window0+0x0 8 -> *wanted: bus(rw='w', size=8)*"],
    ),
    "fewer events": (
        "assert cxl_machine(CODE).run().trace == [event('recompile')]",
        ["*0 events, not 1*", "*! nothing   wanted: recompile()*"],
    ),
    "an order": (
        "t = cxl_machine(CODE, emulator='10.0').run().trace\n"
        "    assert t == in_order(event('tb'), event('lock', change='+'))",
        ["*pattern 2 of 2 does not come: lock(change='+')*", "*tb pc=0x400000 n_insns=3*"],
    ),
    "an abort": (
        "g = cxl_machine(CODE, emulator='8.2'); g.move_table(g.data, 'PT', 'window')\n"
        "    assert g.touch().run() == aborted('bql_relock', level='PD', rbx=7)",
        ["*kind is 'io_recompile', not 'bql_relock'*", "*level is 'PT', not 'PD'*", "*rbx is 0x0, not 0x7*"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FAILURES)
def test_a_failure_says_what_differs(run, what):
    statement, lines = FAILURES[what]
    result = run(f"def test_x(cxl_machine):\n    {statement}\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(lines)
