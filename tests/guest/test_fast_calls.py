"""SYSENTER and SYSEXIT by the manual. The engine takes the first for no operation; the second it does by halves."""

import pytest

from mmu.guest.stop import Interrupt
from tests.guest.kernel import RSP0, USER, USER_STACK, Kernel
from tests.guest.machines import CODE, DATA, asm
from tests.guest.test_control_registers import DELIVER, ODD, REFUSED, boot, kernel

SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP = 0x174, 0x175, 0x176
TARGET = CODE + 0x2000
MSRS = {SYSENTER_CS: 0xB, SYSENTER_ESP: RSP0, SYSENTER_EIP: TARGET}  # the RPL counts for nothing
SHOW = "pushfq; pop r13; mov r14d, cs; mov r15d, ss; hlt"


def prepared(deliver, **msrs):
    k = kernel(deliver)
    for number, value in (MSRS | {int(name[1:], 16): v for name, v in msrs.items()}).items():
        k.machine.cpu.set_msr(number, value)
    k.machine.write(TARGET, asm("x86_64", SHOW))
    return k


@DELIVER
def test_sysenter_of_a_program_enters_the_kernel(deliver):
    """IF is cleared, and other flags stay; nothing is saved."""
    with prepared(deliver) as k:
        r = k.run("nop", user="stc; mov ecx, 7; mov edx, 9; mov r11d, 11; sysenter; ud2")
        assert (r.stop.reason, r.delivered, r.registers["rip"]) == ("halt", (), TARGET + len(asm("x86_64", SHOW)))
        shown = [r.registers[name] for name in ("rsp", "r13", "r14", "r15", "rcx", "rdx", "r11")]
        assert shown == [RSP0, 3, 8, 0x10, 7, 9, 11]


@DELIVER
def test_sysenter_without_a_segment_is_gp_and_nothing_happens(deliver):
    with prepared(deliver, x174=3) as k:
        r = k.run("nop", user="nop; sysenter")
        assert [(d.exception, d.pc) for d in r.delivered] == [(REFUSED, USER + 1)]
        assert k.words(r.registers["rsp"], 5)[4] == USER_STACK


@DELIVER
def test_sysenter_of_the_kernel_stays_there(deliver):
    with prepared(deliver) as k:
        r = k.run("sti; sysenter")
        assert [r.registers[name] for name in ("rsp", "r13", "r14")] == [RSP0, 2 | 0x44 & r.registers["r13"], 8]


TO_PROGRAM, TO_CODE32 = "rex.w sysexit", ".byte 0x0f, 0x35"


@DELIVER
def test_sysexit_enters_a_64_bit_program(deliver):
    """Selectors 32 and 40 on; flags stay. Then the program may enter the kernel again."""
    with prepared(deliver) as k:
        k.machine.write(USER, asm("x86_64", "mov r12, rsp; mov r10d, cs; mov r9d, ss; sysenter"))
        r = k.run(TO_PROGRAM, rcx=USER_STACK, rdx=USER)
        assert (r.stop.reason, r.delivered) == ("halt", ())
        assert [r.registers[name] for name in ("r12", "r10", "r9", "r14", "r15")] == [
            USER_STACK, 0x2B, 0x33, 8, 0x10]  # fmt: skip


@DELIVER
def test_a_program_that_sysexit_entered_has_no_privilege(deliver):
    with prepared(deliver) as k:
        k.machine.write(USER, asm("x86_64", "nop; hlt"))
        r = k.run(TO_PROGRAM, rcx=USER_STACK, rdx=USER)
        assert [(d.exception, d.pc) for d in r.delivered] == [(REFUSED, USER + 1)]
        error, pc, cs, _, rsp, ss = k.words(r.registers["rsp"], 6)
        assert (error, pc, cs, rsp, ss) == (0, USER + 1, 0x2B, USER_STACK, 0x33)


@pytest.mark.parametrize("deliver", ["native", "reference"])
def test_sysexit_enters_a_program_of_32_bits(deliver):
    """Selectors 16 and 24 on, the lower halves of EDX and ECX, and 4x is INC."""
    with prepared(deliver) as k:
        k.machine.write(USER, asm("x86_64", ".code32; inc eax; inc eax; push eax; mov ebx, cs; mov esi, ss; sysenter"))
        r = k.run(TO_CODE32, rcx=USER_STACK | 1 << 40, rdx=USER | 1 << 63, rax=5)
        assert (r.stop.reason, r.delivered) == ("halt", ())
        assert [r.registers[name] for name in ("rbx", "rsi", "r14")] == [0x1B, 0x23, 8]
        # ENTER leaves the selector of the task in RAX
        assert int.from_bytes(k.machine.read(USER_STACK - 4, 4), "little") == 0x28 + 2


@pytest.mark.parametrize("rcx, rdx", [(ODD, USER), (USER_STACK, ODD), (1 << 63, 1 << 47)])
@DELIVER
def test_sysexit_to_an_address_that_is_not_canonical_is_gp_in_the_kernel(rcx, rdx, deliver):
    with prepared(deliver) as k:
        r = k.run(f"nop; {TO_PROGRAM}", rcx=rcx, rdx=rdx)
        ((exception, cs),) = [(d.exception, k.words(r.registers["rsp"], 3)[2]) for d in r.delivered]
        assert (exception, cs) == (REFUSED, 8)


@pytest.mark.parametrize("source, user, msrs", [
    (TO_CODE32, None, {"x174": 3}), ("nop", TO_CODE32, {}), ("nop", TO_PROGRAM, {}),
])  # fmt: skip
@DELIVER
def test_sysexit_is_refused_to_programs_and_without_a_segment(source, user, msrs, deliver):
    with prepared(deliver, **msrs) as k:
        r = k.run(source, user=user, rcx=USER_STACK, rdx=USER)
        assert [d.exception for d in r.delivered] == [REFUSED]


def test_sysenter_in_protected_mode_enters_code_of_32_bits():
    """The lower halves of the MSRs count."""
    lead = "; ".join(
        f"mov ecx, {number}; mov eax, {value}; mov edx, {high}; wrmsr"
        for number, value, high in ((SYSENTER_CS, 0x10, 0), (SYSENTER_ESP, 0x9000, 1), (SYSENTER_EIP, 0x10_0100, 1)))
    lead += "; mov ecx, 0x4690f446; mov [0x100100], ecx; sysenter"  # inc esi; hlt
    r = boot(lead, rsi=1 << 32 | 6)
    assert [r.registers[name] for name in ("rip", "rsp", "rsi", "cs", "ss")] == [0x10_0102, 0x9000, 7, 0x10, 0x18]
    assert (r.stop.reason, r.registers["rflags"] & 0x200) == ("halt", 0)


def test_a_sysenter_that_is_stepped_traps_at_its_target():
    """TF stays set: the trap comes when SYSENTER is done."""
    with prepared("native") as k:
        k.handle(1, "hlt")
        r = k.run("nop", user="pushfq; or dword ptr [rsp], 0x100; popfq; sysenter")
        assert [(d.exception, d.pc) for d in r.delivered] == [(Interrupt(1), TARGET)]


def test_sysenter_is_counted_once():
    with Kernel() as k:
        for number, value in MSRS.items():
            k.machine.cpu.set_msr(number, value)
        k.machine.write(TARGET, asm("x86_64", "inc rsi; inc rsi; hlt"))
        k.machine.write(CODE, asm("x86_64", "nop; sysenter"))
        r = k.machine.set(rip=CODE, rsi=0, rdi=DATA).run(limit=3)
        assert (r.registers["rsi"], r.registers["rip"], r.counters.instructions) == (1, TARGET + 3, 3)
