"""RDMSR and WRMSR: #GP(0) for registers that the CPU has not, and for values that it refuses. The engine has all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmu.guest.format import MSRS
from mmu.guest.x86_msr import find, permitted
from tests.guest.kernel import USER
from tests.guest.machines import CODE, asm, code, machine
from tests.guest.test_control_registers import DELIVER, REFUSED, boot, kernel, write

CLOCK, APIC, PAT, MTRRCAP, MCG_CAP, MISC_ENABLE, DEBUGCTL = 0x10, 0x1B, 0x277, 0xFE, 0x179, 0x1A0, 0x1D9
ABSENT = (
    0, 1, APIC, 0x3A, 0x3B, 0x48, 0x6E0, 0xC1, 0x210, 0x257, 0x428, 0x480, 0x802, 0xC0000085, 0xC0000104, 0xC0010117,
    0x4000_0000, 0xFFFF_FFFF, 0x4000_0080,
)  # fmt: skip


@pytest.mark.parametrize("number", ABSENT)
@DELIVER
def test_a_register_that_the_cpu_has_not_is_gp_for_both(number, deliver):
    """And nothing is read: RAX and RDX stay."""
    for instruction in ("rdmsr", "wrmsr"):
        with kernel(deliver) as k:
            r = k.run(f"nop; {instruction}; inc r15", rcx=number | 5 << 32, rax=7, rdx=0, r15=0)
            at = CODE + len(asm("x86_64", "lgdt [rdi+0x2800]; lidt [rdi+0x2810]; mov eax, 0x28; ltr ax; nop"))
            assert [(d.exception, d.pc) for d in r.delivered] == [(REFUSED, at)]
            assert [r.registers[name] for name in ("rdx", "rcx", "r15")] == [0, number | 5 << 32, 0]


REFUSED_VALUES = {
    "MTRRCAP": (MTRRCAP, 0x508), "MCG_CAP": (MCG_CAP, 0), "a reserved type in the PAT": (PAT, 0x0007_0406_0002_0406),
    "type 3 in the PAT": (PAT, 3), "type 8 in the PAT": (PAT, 8 << 56), "type 7 in an MTRR": (0x200, 7),
    "bit 8 of an MTRR": (0x206, 0x106), "an MTRR above all memory": (0x20E, 1 << 52),
    "bit 10 of a mask": (0x201, 1 << 10), "a mask of 53 bits": (0x20F, 1 << 52), "a fixed MTRR": (0x26F, 2 << 24),
    "the default type": (0x2FF, 0xC02),
    "bit 9 of the default": (0x2FF, 0x206), "bit 12 of the default": (0x2FF, 1 << 12), "MCG_STATUS": (0x17A, 8),
    "a status": (0x401, 1), "an address": (0x426, 1 << 40), "MISC": (0x403, 1 << 63), "no XD": (MISC_ENABLE, 1 << 34),
    "branch records": (DEBUGCTL, 1),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED_VALUES)
@DELIVER
def test_a_value_that_an_msr_cannot_hold_is_gp(what, deliver):
    number, value = REFUSED_VALUES[what]
    with kernel(deliver) as k:
        before = k.machine.cpu.msr(number)
        r, at = write(k, number, value, r15=0)
        assert [(d.exception, d.pc) for d in r.delivered] == [(REFUSED, at)]
        assert (k.machine.cpu.msr(number), r.registers["r15"]) == (before, 0)


TAKEN = {
    "the PAT": (PAT, 0x0007_0106_0005_0404), "an MTRR": (0x20E, (1 << 52) - 0x1000 | 6),
    "a mask": (0x20F, (1 << 52) - 0x800), "a fixed MTRR": (0x250, 0x0001_0405_0606_0606),
    "the default type": (0x2FF, 0xC06), "a bank": (0x424, (1 << 64) - 1), "STAR": (0xC0000081, (1 << 64) - 1),
    "SYSENTER_CS": (0x174, 8), "MISC_ENABLE": (MISC_ENABLE, 0),
}  # fmt: skip


@pytest.mark.parametrize("what", TAKEN)
@pytest.mark.parametrize("deliver", ["native", "model"])
def test_a_value_that_an_msr_holds_is_read_again(what, deliver):
    number, value = TAKEN[what]
    with kernel(deliver) as k:
        k.machine.write(CODE + 0x2000, asm("x86_64", "mov eax, -1; mov edx, eax; rdmsr; hlt"))
        r, _ = write(k, number, value)
        assert (r.stop.reason, r.delivered) == ("halt", ())
        r = k.machine.set(rip=CODE + 0x2000).run()
        assert r.registers["rdx"] << 32 | r.registers["rax"] == value


@pytest.mark.parametrize("instruction", ["rdmsr", "wrmsr"])
@pytest.mark.parametrize("number", [CLOCK, APIC, PAT])
@DELIVER
def test_a_program_has_no_msrs_at_all(number, instruction, deliver):
    with kernel(deliver) as k:
        r = k.run(f"mov ecx, {number}", user=f"nop; {instruction}")
        assert [(d.exception, d.pc) for d in r.delivered] == [(REFUSED, USER + 1)]


@DELIVER
def test_the_clock_is_the_guests_and_may_be_set(deliver):
    """The engine's MSR reads 0, while RDTSC goes on."""
    read = "rdmsr; mov r8, rax; mov r9, rdx"
    with kernel(deliver) as k:
        source = f"rdtsc; mov rbx, rax; mov ecx, 16; {read}; mov eax, 5; mov edx, 3; wrmsr"
        r = k.run(f"{source}; rdtsc; mov r10, rax; mov r11, rdx", r8=1 << 40, r9=1 << 40).registers
        assert [r[name] for name in ("rbx", "r8", "r9", "r10", "r11")] == [1000, 2000, 0, 1005, 3]


def test_the_clock_is_read_when_instructions_are_counted():
    """Each instruction once, on both sides of it."""
    with machine() as m:
        m.load(code("x86_64", "mov ecx, 16; rdmsr; inc rsi; inc rsi")).set(rsi=0)
        for limit, expected in ((2, 0), (3, 1), (4, 2)):
            r = m.set(rip=CODE, rsi=0).run(limit=limit)
            assert (r.stop.reason, r.registers["rsi"], r.counters.instructions) == ("limit", expected, limit)


def test_code_of_32_bits_reads_the_clock_too():
    """Behind 4x, which is INC there; in 64-bit code it would be a prefix."""
    r = boot("mov ecx, 16; inc esi; rdmsr; mov ebx, eax; rdmsr", rsi=0, rax=0)
    assert (r.stop.reason, [r.registers[name] for name in ("rsi", "rbx", "rax")]) == ("halt", [1, 1000, 2000])


def test_code_of_32_bits_has_the_same_registers():
    stop = boot("mov ecx, 0x1b; inc esi; rdmsr").stop
    assert (stop.reason, stop.exception, stop.pc) == ("fault", REFUSED, 0x10_0020 + 6)


@pytest.mark.parametrize("allow", ["nop", "mov rax, cr4; bts rax, 8; mov cr4, rax"])
@pytest.mark.parametrize("user", [None, "rdpmc; ud2"])
@pytest.mark.parametrize("deliver", ["native", "model"])
def test_there_are_no_performance_counters(allow, user, deliver):
    """RDPMC: #GP(0), at any privilege, with and without CR4.PCE. The engine takes it for an invalid instruction."""
    with kernel(deliver) as k:
        r = k.run(allow if user else f"{allow}; rdpmc", user=user)
        assert [d.exception for d in r.delivered] == [REFUSED]


def test_an_msr_with_a_lock_prefix_is_invalid():
    with machine() as m:
        m.load(bytes.fromhex("90f00f32f4")).set(rcx=APIC)
        assert m.run().stop.exception.vector == 6


def test_no_register_is_described_twice():
    for msr in MSRS:
        assert all(find(n) is msr for n in range(msr.first, msr.last + 1, msr.step))


known = st.sampled_from([n for m in MSRS for n in range(m.first, m.last + 1, m.step)])
near = st.tuples(known, st.integers(-2, 2)).map(lambda two: max(0, sum(two)))
types = st.lists(st.sampled_from((0, 1, 4, 5, 6, 6, 7, 2)), min_size=8, max_size=8)
types = types.map(lambda numbers: int.from_bytes(numbers, "little"))
values = st.one_of(st.just(0), st.integers(0, 63).map(lambda n: 1 << n), types, st.integers(0, (1 << 64) - 1))


@given(st.one_of(known, near, st.integers(0, 0x1000), st.integers(0, (1 << 32) - 1)), values)
@settings(max_examples=200, deadline=None)
def test_c_has_the_msrs_of_the_reference(number, value):
    with machine() as m:
        m.load(asm("x86_64", "wrmsr; rdmsr; hlt"))
        m.set(rcx=number, rdx=value >> 32, rax=value & 0xFFFF_FFFF)
        expected = CODE if not permitted(m.cpu, number, value) else None
        stop = m.run().stop
        refused = stop.pc if stop.reason == "fault" else None
        assert refused == expected
        if find(number) is None:
            assert m.set(rip=CODE + 2).run().stop.pc == CODE + 2
