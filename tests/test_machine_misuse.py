"""A machine that is used wrongly says so in one line: it neither crashes nor does something else."""

import struct
import threading
from array import array

import pytest

from mmu.errors import AddressRangeError, ClosedError, GuestError
from mmu.guest.devices import DebugExit
from mmu.machine import Machine
from mmu.memory import Mmio
from tests.guest.machines import ARCHS, CODE, DATA, MIB, PAGE, code, machine, places
from tests.guest.programs import DEVICE

APART = 0x5000_0000
HALTS = {arch: code(arch, "nop") for arch in ARCHS}


@pytest.fixture(params=ARCHS)
def ready(request):
    with machine(request.param, code="ram", tables="ram") as m:
        yield m.load(HALTS[request.param])


@pytest.mark.parametrize(
    "asked, error, said",
    [({"limit": 0}, ValueError, "limit must be 1"), ({"limit": -1}, ValueError, "not -0x1"),
     ({"limit": 1 << 64}, ValueError, "limit must be"), ({"limit": 1.5}, TypeError, "limit must be an integer"),
     ({"exceptions": -1}, ValueError, "exceptions must be 1"), ({"trace": -1}, ValueError, "trace must be 0"),
     ({"trace": 1 << 40}, ValueError, "trace must be 0"), ({"start": -1}, ValueError, "start must be 0"),
     ({"start": 1 << 64}, ValueError, "start must be 0"), ({"timeout": -1}, ValueError, "timeout must be at least 0"),
     ({"whole": None}, TypeError, "whole must be True or False, not None"), ({"whole": -1}, TypeError, "whole must be"),
     ({"timeout": float("nan")}, ValueError, "timeout must be"), ({"timeout": "1"}, TypeError, "timeout must be")],
)  # fmt: skip
def test_run_refuses_what_is_no_bound(ready, asked, error, said):
    with pytest.raises(error, match=said):
        ready.run(**asked)


def test_a_timeout_longer_than_threads_can_wait_is_the_longest(ready):
    assert ready.run(timeout=1e300).stop.reason == "halt"


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_registers_have_64_bits(ready, value):
    for name in ("efer", "rax") if ready.arch == "x86_64" else ("sctlr_el1", "x0"):
        with pytest.raises(ValueError, match=f"{name} must be 0"):
            ready.set(**{name: value})


@pytest.mark.parametrize("va, size", [(-1, 8), (1 << 64, 8), ((1 << 64) - 4, 8), (DATA, -8)])
def test_memory_outside_the_address_space(ready, va, size):
    with pytest.raises(AddressRangeError):
        ready.read(va, size)


def test_all_bytes_of_an_array_of_wide_items_are_written_page_by_page(ready):
    """What was left over at the end of a page went to the physical page behind it, and the rest nowhere."""
    items = array("Q", range(1, 9))
    ready.tables.map(APART, 40 * MIB, PAGE, page_size=PAGE)
    ready.tables.map(APART + PAGE, 48 * MIB, PAGE, page_size=PAGE)
    ready.write(APART + PAGE - 24, items)
    assert ready.read(APART + PAGE - 24, 64) == items.tobytes()
    assert ready.space.read(40 * MIB + PAGE, 64) == bytes(64)


@pytest.mark.parametrize("wrong", [None, "a file", b"bytes"])
def test_a_machine_is_restored_from_nothing_but_a_snapshot(ready, wrong):
    with pytest.raises(TypeError, match=f"restored from a Snapshot, not from {wrong!r}"):
        ready.restore(wrong)


def test_setup_that_fails_leaves_the_machine_as_it_was(ready):
    plan, tables = ready.plan, ready.tables
    with pytest.raises(AddressRangeError, match="no frame left"):
        ready.setup(tables=(0, PAGE), code=(PAGE, PAGE), data=(2 * PAGE, PAGE), stack=(3 * PAGE, PAGE))
    assert (ready.plan, ready.tables) == (plan, tables)
    assert ready.run().stop.reason == "halt"


# -- closed -----------------------------------------------------------------------------------------

USES = {
    "snapshot": lambda m: m.snapshot(), "registers": lambda m: m.registers, "run": lambda m: m.run(),
    "read": lambda m: m.read(DATA, 8), "write": lambda m: m.write(DATA, b"1"), "setup": lambda m: m.setup(**places()),
    "load": lambda m: m.load(HALTS[m.arch]), "walk_registers": lambda m: m.walk_registers(),
    "set": lambda m: m.set(**{"efer" if m.arch == "x86_64" else "ttbr0_el1": 0}),
    "translate": lambda m: m.cpu.translate(DATA, 1), "interrupt": lambda m: m.cpu.interrupt(),
}  # fmt: skip


@pytest.mark.parametrize("use", USES)
def test_a_closed_machine_says_that_it_is_closed(ready, use):
    ready.close()
    with pytest.raises(ClosedError, match="this machine is closed"):
        USES[use](ready)


def test_a_closed_machine_cannot_be_restored(ready):
    found = ready.snapshot()
    ready.close()
    with pytest.raises(ClosedError):
        ready.restore(found)


def test_the_exit_of_a_closed_machine_is_a_register_without_effect(ready):
    space = ready.space
    space.map(0xF000_0000, DebugExit(ready))
    ready.close()
    space.store(0xF000_0000, 4, 7)
    with Machine(space).setup(**places()).load(HALTS["x86_64"]) as other:
        assert other.run().stop.reason == "halt"


# -- busy -------------------------------------------------------------------------------------------


ALONE = {
    "close": Machine.close, "run": Machine.run, "snapshot": Machine.snapshot, "load": lambda m: m.load(b"\xf4"),
    "setup": lambda m: m.setup(**places(tables="ram")), "boot": lambda m: m.boot(KERNEL),
}  # fmt: skip
KERNEL = struct.pack("<III", 0x1BADB002, 0x10000, -(0x1BADB002 + 0x10000) & 0xFFFFFFFF) + struct.pack(
    "<5I", 0x100000, 0x100000, 0, 0, 0x100020) + b"\xf4"  # a header that says where it goes, and HLT


@pytest.mark.parametrize("use", ALONE)
def test_a_device_cannot_have_the_machine_that_runs(use):
    with machine("x86_64", code="ram", tables="ram") as m:
        m.space.map(0xF000_0000, Mmio(PAGE, write=lambda *_: ALONE[use](m)))
        m.tables.map(DEVICE, 0xF000_0000, PAGE)
        m.load(bytes.fromhex("c70301000000 f4")).set(rbx=DEVICE)  # mov dword ptr [rbx], 1; hlt
        with pytest.raises(GuestError, match=rf"{use}\(\) must wait until the run of this machine is over"):
            m.run()
        assert m.run(start=CODE + 6).stop.reason == "halt"


def test_another_thread_cannot_have_the_machine_that_runs(ready):
    ready.load(b"\xeb\xfe" if ready.arch == "x86_64" else b"\0\0\0\x14")  # a jump to itself
    found = []
    spin = threading.Thread(target=lambda: found.append(ready.run(timeout=0.5).stop.reason))
    spin.start()
    while not ready._busy.locked():
        assert spin.is_alive()
    for use in ready.run, ready.close:
        with pytest.raises(GuestError, match="until the run of this machine is over"):
            use()
    spin.join()
    assert found == ["timeout"]


@pytest.mark.parametrize("wrong", ["fast", None, 1])
def test_another_dispatch_is_refused_when_it_is_set_and_not_by_the_next_run(ready, wrong):
    with pytest.raises(ValueError, match=f"dispatch must be one of auto, exact, direct, mirror, not {wrong!r}"):
        ready.dispatch = wrong
    assert ready.run().stop.reason == "halt"


@pytest.mark.parametrize("wrong", [0, -1, 1 << 32])
def test_a_mirror_has_as_many_pages_as_there_are_numbers_for(ready, wrong):
    with pytest.raises(AddressRangeError, match=rf"mirror_pages must be in 1\.\.4294967294, not {wrong}"):
        ready.space.mirror_pages = wrong
    assert ready.run().stop.reason == "halt"
    with pytest.raises(ValueError, match="is there already, with room for 1048576 pages"):
        ready.space.mirror_pages = 4


@pytest.mark.parametrize("space", [None, 1, "ram"])
def test_a_machine_without_a_space_is_refused_by_name(space):
    with pytest.raises(TypeError, match=f"a Machine needs an AddressSpace, not {type(space).__name__}"):
        Machine(space)


def test_registers_are_not_set_during_a_run():
    """The engine has some of them elsewhere while it runs: a write would be lost, or not."""
    seen = []

    def read(offset, size):
        with pytest.raises(GuestError, match=r"set\(\) must wait until the run of this machine is over"):
            m.set(rax=1)
        seen.append(offset)
        return 0

    with machine("x86_64") as m:
        m.space.map(0xF000_0000, Mmio(4096, read, lambda offset, size, value: None))
        m.tables.map(0x3000_0000, 0xF000_0000, 4096, executable=False)
        m.load(code("x86_64", "mov eax, [r12]")).set(r12=0x3000_0000).run()
        assert seen == [0] and m.set(rax=5).registers["rax"] == 5
