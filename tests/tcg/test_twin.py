"""With nothing faulty the model ends as the plain machine does: registers, memory, exceptions.

The programs are those of other tests. Two differences are QEMU's: what it asks of an atomic on arm64 first is a write,
and what it asks of a read-modify-write on x86 first is a read.
"""

from dataclasses import replace

import pytest

from mmu.arm64 import Abort
from mmu.arm64.format import Esr
from mmu.machine import Machine
from mmu.tcg import Switches, release
from mmu.x86 import PageFault
from tests.guest.assembler import known
from tests.guest.machines import DATA, STACK, places, two_way

STEP = 5  # every so many programs
REGISTERS = {
    "x86_64": {"rbx": DATA + 64, "rsi": DATA + 256, "rdi": DATA + 128, "r9": DATA + 0x300, "r8": DATA + 0xFFC},
    "aarch64": {"x1": DATA + 64, "x2": DATA + 128, "x3": DATA + 256},
}  # fmt: skip
END = {"x86_64": "hlt", "aarch64": "wfi"}
STORES_TO_ITS_CODE = "inc byte ptr [rbx+1]"  # the plain machine loses CF there
RAM = dict.fromkeys(("tables", "code", "data", "stack"), "ram")


def programs():
    rows = [(arch, source, code) for arch, rows in known().items() for source, code in rows.items()]
    rows = [r for r in rows if END[r[0]] in r[1] and STORES_TO_ITS_CODE not in r[1]]
    return sorted(rows)[::STEP]


def run(arch, code, emulator, where):
    space, _, _ = two_way()
    with Machine(space, arch, emulator=emulator).setup(**places(**where)) as m:
        m.load(bytes.fromhex(code)).set(**REGISTERS[arch])
        for n in range(64):
            m.write(DATA + 64 * n, bytes([n]) * 64)
        result = m.run(limit=3000)
        return result, m.read(DATA, 0x2000) + m.read(STACK, 0x10000)


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
