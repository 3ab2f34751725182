"""With nothing faulty the model ends as the plain machine does: registers, memory, exceptions.

The programs are those of other tests. Three differences are QEMU's: what it asks of an atomic on arm64 first is a
write, what it asks of a read-modify-write on x86 first is a read, and a branch of x86 to no address faults there. So
are the programs of SYSTEM: what they are refused on the plain machine, QEMU carries out.
"""

import re
from dataclasses import replace
from random import Random

import pytest

from mmu.arm64 import Abort
from mmu.arm64.format import Esr
from mmu.machine import Machine
from mmu.tcg import Switches, release
from mmu.types import Access, FaultKind
from mmu.x86 import PageFault
from tests.guest.assembler import HERE, known
from tests.guest.machines import DATA, STACK, asm, places, two_way
from tests.tcg.machines import Bench

STEP = 5  # every so many programs
REGISTERS = {
    "x86_64": {"rbx": DATA + 64, "rsi": DATA + 256, "rdi": DATA + 128, "r9": DATA + 0x300, "r8": DATA + 0xFFC},
    "aarch64": {"x1": DATA + 64, "x2": DATA + 128, "x3": DATA + 256},
}  # fmt: skip
END = {"x86_64": "hlt", "aarch64": "wfi"}
STORES_TO_ITS_CODE = "inc byte ptr [rbx+1]"
LEFT_OUT = re.compile("wrmsr|mov cr3")  # the test itself could not read the data after EFER.NXE or a root was changed
SYSTEM = re.compile(
    "clflush|mxcsr|fxsave|fxrstor|xsave|xrstor|xsetbv|lgdt|lidt|ltr|mov dr|rdpmc|wrfsbase|wrgsbase|byte 0xf0|cr8|dc c")
RAM = dict.fromkeys(("tables", "code", "data", "stack"), "ram")


# Maintenance that faults, SP and addresses that are not aligned: QEMU checks none of that, or not in all releases.
NOT_CHECKED = HERE / "snippets_arm64rights.json"


def programs():
    stores = sorted(path for path in HERE.glob("snippets*.json") if path != NOT_CHECKED)
    rows = [(arch, source, code) for arch, rows in known(stores).items() for source, code in rows.items()]
    rows = [r for r in rows if END[r[0]] in r[1] and not LEFT_OUT.search(r[1]) and not SYSTEM.search(r[1])]
    return sorted(rows)[::STEP]


def run(arch, code, emulator, where):
    space, _, _ = two_way()
    with Machine(space, arch, emulator=emulator).setup(**places(**where)) as m:
        m.load(bytes.fromhex(code)).set(**REGISTERS[arch])
        for n in range(64):
            m.write(DATA + 64 * n, bytes([n]) * 64)
        result = m.run(limit=3000)
        return result, m.read(DATA, 0x2000) + m.read(STACK, 0x10000)


def leads_nowhere(stop):
    return stop.fault is not None and (stop.fault.kind, stop.fault.access) == (FaultKind.NON_CANONICAL, Access.FETCH)


def comparable(exception):
    if isinstance(exception, Abort):
        return replace(exception, esr=exception.esr & ~Esr.WNR.mask, wnr=False)
    if isinstance(exception, PageFault):
        return replace(exception, error_code=exception.error_code & ~2)
    return exception


@pytest.mark.parametrize("where", [RAM, {}], ids=["ram", "window"])
@pytest.mark.parametrize("arch, source, code", programs(), ids=lambda x: "")
def test_a_program_ends_as_on_the_plain_machine(arch, source, code, where):
    expected, memory = run(arch, code, None, where)
    if expected.stop.reason == "limit":
        pytest.skip("it has no end of its own here")
    found, seen = run(arch, code, Switches(), where)
    if leads_nowhere(expected.stop):
        assert (found.stop.exception, found.stop.pc) == (expected.stop.exception, expected.stop.fault.va)
        return
    assert found.registers == expected.registers, source
    assert seen == memory
    assert (found.stop.reason, found.stop.pc) == (expected.stop.reason, expected.stop.pc)
    assert comparable(found.stop.exception) == comparable(expected.stop.exception)
    assert [comparable(d.exception) for d in found.delivered] == [comparable(d.exception) for d in expected.delivered]


def test_a_store_to_code_leaves_the_flags():
    """INC and DEC keep the carry flag of the ADD before."""
    source = next(s for s in known()["x86_64"] if STORES_TO_ITS_CODE in s and s.endswith("hlt"))
    result, _ = run("x86_64", known()["x86_64"][source], release("10.0"), RAM)
    assert result.registers["rflags"] & 1 == 0


@pytest.mark.parametrize("arch, code, name", [
    ("x86_64", "0f31 0f01f9 f4", "rax"), ("aarch64", "49e03bd5 49e03bd5 7f2003d5", "x9"),
])  # fmt: skip
def test_the_time_is_that_of_the_plain_machine_and_not_the_hosts(arch, code, name):
    assert run(arch, code, release("10.0"), RAM)[0].registers[name] == 2000


OFTEN = {  # bytes and words that make instructions which access memory or branch
    "x86_64": [0x48, 0x66, 0x0F, 0xF3, 0x8B, 0x89, 0x01, 0xFF, 0x50, 0x58, 0x90, 0xEB, 0x75],
    "aarch64": [(0xF9400000, 22), (0x8B000000, 21), (0x38000000, 24), (0x91000000, 24), (0x88000000, 24),
                (0x28000000, 25), (0xF8200000, 22), (0xB4000000, 8), (0x54000000, 8)],
}  # fmt: skip
PADDING = {"x86_64": b"\x90" * 15 + b"\xf4", "aarch64": bytes.fromhex("7f2003d5")}


def random_program(arch, rnd):
    if arch == "x86_64":
        return bytes(rnd.choice([rnd.randrange(256), rnd.choice(OFTEN[arch])]) for _ in range(24)) + PADDING[arch]
    words = (base | rnd.randrange(1 << bits) for base, bits in (rnd.choice(OFTEN[arch]) for _ in range(8)))
    return b"".join(word.to_bytes(4, "little") for word in words) + PADDING[arch]


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("arch", END)
def test_a_random_program_ends_as_on_the_plain_machine(arch, seed):
    code = random_program(arch, Random(seed)).hex()
    expected, memory = run(arch, code, None, {} if seed % 2 else RAM)
    if expected.stop.reason == "limit":
        pytest.skip("it does not end")
    found, seen = run(arch, code, Switches(), {} if seed % 2 else RAM)
    assert (found.stop.reason, found.stop.pc) == (expected.stop.reason, expected.stop.pc)
    assert found.registers == expected.registers
    assert seen == memory


def test_flags_at_a_fault_are_those_of_the_instruction_before():
    """0 - 0xbc borrows, also out of the low half; 0x44 has an even number of bits set."""
    b = Bench(Switches()).load(bytes.fromhex("1cbc" "ff03"), rbx=0x30000000)  # sbb al, 0xbc; inc dword ptr [rbx]
    assert b.run().registers["rflags"] == 0x17


@pytest.mark.parametrize("emulator", [None, Switches()], ids=["plain", "model"])
def test_a_program_at_address_0(emulator):
    """The engine ends where the PC is 0: on arm64 by a WFI, which EL0 may not."""
    space, _, _ = two_way()
    with Machine(space, "aarch64", emulator=emulator).setup(**places(**RAM)) as m:
        m.load(asm("aarch64", "msr vbar_el1, x1; msr elr_el1, xzr; msr spsr_el1, xzr; isb; eret"))
        m.tables.map(0, 40 << 20, 4096, page_size=4096, user=1, executable=1)
        m.write(0, asm("aarch64", "mov x5, #7; svc #0"))
        m.tables.map(0x5000_0000, 41 << 20, 4096, page_size=4096, executable=1)
        m.write(0x5000_0400, asm("aarch64", "mrs x7, elr_el1; wfi"))
        result = m.set(x1=0x5000_0000).run(limit=50)
        assert (result.stop.reason, result.registers["x5"], result.registers["x7"]) == ("halt", 7, 8)


@pytest.mark.parametrize("where", [RAM, {}], ids=["ram", "window"])
@pytest.mark.parametrize("code", ["66 0f38f11e", "0f38f11e", "48 0f38f11e", "48 0f38f15e03", "48 0f38f006 48 0f38f107"])
def test_movbe_stores_its_bytes_turned_round(code, where):
    """What the engine tells of a store is the value of before that."""
    assert run("x86_64", code + "f4", Switches(), where)[1] == run("x86_64", code + "f4", None, where)[1]
