"""What programs find in the floating-point unit that have not initialized it."""

import pytest

from mmu.machine import Machine
from mmu.memory import AddressSpace, Ram
from mmu.tcg import Switches
from tests.guest.machines import DATA, MIB, asm, places


@pytest.fixture(params=["plain", "model"])
def m(request):
    space = AddressSpace()
    space.map(0, Ram(32 * MIB))
    chosen = {"emulator": Switches()} if request.param == "model" else {}
    with Machine(space, **chosen).setup(**places("ram", "ram", "ram", "ram")) as machine:
        yield machine


def run(m, source):
    return m.load(asm("x86_64", source) + b"\xf4").set(rdi=DATA).run()


def test_a_division_by_zero_is_masked_and_no_exception(m):
    """With the control word that the engine begins with, FWAIT would raise #MF."""
    r = run(m, "fld1; fldz; fdivp; fwait; fstp qword ptr [rdi]")
    assert (r.stop.reason, r.stop.exception) == ("halt", None)
    assert m.read(DATA, 8) == bytes.fromhex("000000000000f07f")  # infinity


def test_the_control_words_are_those_of_fninit_and_a_reset(m):
    run(m, "stmxcsr [rdi]; fnstenv [rdi+8]")
    words = [int.from_bytes(m.read(DATA + at, 2), "little") for at in (0, 8, 12, 16)]
    assert words == [0x1F80, 0x37F, 0, 0xFFFF]


def test_a_third_has_64_bits(m):
    run(m, "fld1; push 3; fild qword ptr [rsp]; fdivp; fstp tbyte ptr [rdi]")
    assert m.read(DATA, 10) == bytes.fromhex("abaaaaaaaaaaaaaafd3f")
