"""Debug registers: what MOV refuses, general detect, single steps, and breakpoints on instructions."""

import pytest

from mmu.guest.stop import Interrupt
from tests.guest.kernel import DATA, ENTER, TO_USER, USER, Kernel
from tests.guest.machines import CODE, asm, code, machine
from tests.guest.test_control_registers import REFUSED, boot
from tests.guest.test_returns import NATIVE, kernel

DB, UD, GP = 1, 6, 13
GD, BD, BS, B0 = 1 << 13, 1 << 13, 1 << 14, 1
START = CODE + len(asm("x86_64", ENTER))
STEP = "pushfq; or dword ptr [rsp], 0x100; popfq"
COUNT = "inc r15; iretq"


def detect(k, source):
    """The result of *source* where DR7.GD forbids accesses; the handler reads DR6 and DR7."""
    k.handle(DB, "mov r13, dr6; mov r14, dr7; hlt")
    return k.run(f"mov eax, {GD | 0x400}; mov dr7, rax; mov rbx, r12; {source}; inc r15", r12=9, r15=0)


@pytest.mark.parametrize("source", ["mov rbx, dr0", "mov dr3, rbx", "mov rbx, dr6", "mov dr7, rbx", "mov rbx, dr5"])
@NATIVE
def test_general_detect_traps_before_any_access_to_debug_registers(source, deliver):
    """And lets the handler make them."""
    with kernel(deliver) as k:
        r = detect(k, source)
        at = START + len(asm("x86_64", f"mov eax, {GD | 0x400}; mov dr7, rax; mov rbx, r12"))
        assert [(d.exception, d.pc) for d in r.delivered] == [(Interrupt(DB), at)]
        assert [r.registers[name] for name in ("rbx", "r15", "r14")] == [9, 0, 0x400]
        assert r.registers["r13"] & (BD | BS) == BD


@pytest.mark.parametrize("number", range(8))
@NATIVE
def test_the_upper_half_of_debug_control_is_reserved(number, deliver):
    """DR4 and DR5 are DR6 and DR7. Addresses are whole."""
    move = bytes((0x0F, 0x23, 0xC3 | number << 3))
    source = ".byte " + ", ".join(map(str, move))
    with kernel(deliver, GP) as k:
        r = k.run(f"mov rbx, r12; {source}; inc r15", r12=1 << 35 | 0x400, r15=0)
        refused = [(REFUSED, START + 3)] if number >= 4 else []
        assert [(d.exception, d.pc) for d in r.delivered] == refused


@pytest.mark.parametrize("source", [".byte 0x0f, 0x21, 0xe3", ".byte 0x0f, 0x23, 0xeb", ".byte 0x44, 0x0f, 0x21, 0xc0"])
def test_debug_registers_that_are_none_are_invalid(source):
    """DR4 and DR5 with CR4.DE, before general detect; DR8."""
    with kernel("native", UD) as k:
        k.handle(DB, "hlt")
        r = k.run(f"mov rax, cr4; or eax, 8; mov cr4, rax; mov eax, {GD}; mov dr7, rax; {source}", rbx=1 << 40)
        assert [d.exception for d in r.delivered] == [Interrupt(UD)]


def test_a_program_has_no_debug_registers():
    with kernel("native", GP) as k:
        k.handle(DB, "hlt")
        r = k.run(f"mov eax, {GD}; mov dr7, rax", user="nop; mov rax, dr0")
        assert [(d.exception, d.pc) for d in r.delivered] == [(REFUSED, USER + 1)]


def test_code_of_32_bits_writes_the_lower_half_of_debug_control():
    assert boot("mov dr7, ebx; mov eax, dr7", rbx=1 << 40).stop.reason == "halt"
    stop = boot("mov ebx, 0x2400; mov dr7, ebx; inc esi; mov eax, dr7").stop
    assert (stop.exception, stop.pc) == (Interrupt(DB), 0x10_0020 + 9)


STEPPED = {
    "nothing": ("nop", ["nop"]), "CPUID": ("cpuid", ["cpuid"]), "RDTSC": ("rdtsc; nop", ["rdtsc", "nop"]),
    "the clock": ("mov ecx, 16; rdmsr; nop", ["mov ecx, 16", "rdmsr", "nop"]),
    "setting the clock": ("mov ecx, 16; wrmsr; nop", ["mov ecx, 16", "wrmsr", "nop"]),
    "a priority": ("mov rax, cr8; mov cr8, rax; nop", ["mov rax, cr8", "mov cr8, rax", "nop"]),
    "a table": ("lidt [rdi+0x2810]; nop", ["lidt [rdi+0x2810]", "nop"]),
    "a shadow": ("mov ss, r10d; nop; nop", ["mov ss, r10d; nop", "nop"]),
}  # fmt: skip


@pytest.mark.parametrize("what", STEPPED)
@NATIVE
def test_each_instruction_traps_when_it_is_stepped(what, deliver):
    """Also those with a hook, and those that the engine does not carry out."""
    source, steps = STEPPED[what]
    with kernel(deliver) as k:
        k.handle(DB, COUNT)
        r = k.run(f"{STEP}; {source}", r10=0x10, r15=0, rdx=0)
        at, expected = START + len(asm("x86_64", STEP)), []
        for step in steps:
            at += len(asm("x86_64", step))
            expected.append((Interrupt(DB), at))
        assert [(d.exception, d.pc) for d in r.delivered] == expected
        assert k.machine.cpu.read("dr6") & BS


@NATIVE
def test_a_system_call_that_is_stepped_traps_at_its_target_unless_tf_is_masked(deliver):
    for mask in (0, 0x100):
        with kernel(deliver) as k:
            k.handle(DB, "hlt")
            k.machine.write(CODE + 0x2000, asm("x86_64", "nop; hlt"))
            r = k.run("nop", user=f"{STEP}; syscall", lstar=CODE + 0x2000, star=0x13_0008 << 32, sfmask=mask)
            expected = [] if mask else [(Interrupt(DB), CODE + 0x2000)]
            assert [(d.exception, d.pc) for d in r.delivered] == expected
            assert bool(k.machine.cpu.read("dr6") & BS) is not bool(mask)


def test_a_step_that_nobody_handles_is_told():
    with machine() as m:
        m.load(code("x86_64", f"{STEP}; mov rax, cr8; nop"))
        stop = m.run().stop
        assert (stop.reason, stop.exception) == ("fault", Interrupt(DB))
        assert stop.pc == CODE + len(asm("x86_64", f"{STEP}; mov rax, cr8"))


def test_a_breakpoint_on_an_instruction_is_a_fault_that_rf_passes_over():
    with Kernel() as k:
        k.handle(DB, "mov r12, dr6; inc r15; bts dword ptr [rsp+16], 16; iretq")
        k.handle(GP, "hlt")
        r = k.run(f"mov eax, {USER + 1}; mov dr0, rax; mov eax, 0x402; mov dr7, rax", user="nop; nop; nop; hlt", r15=0)
        assert [(d.exception.vector, d.pc) for d in r.delivered] == [(DB, USER + 1), (GP, USER + 3)]
        assert (r.registers["r15"], r.registers["r12"] & 15) == (1, B0)


def test_a_breakpoint_in_a_loop_traps_each_time():
    setup = f"mov eax, {CODE + 0x100}; mov dr0, rax; mov eax, 0x402; mov dr7, rax; jmp rbx"
    with Kernel() as k:
        k.handle(DB, "inc r15; bts dword ptr [rsp+16], 16; iretq")
        k.machine.write(CODE + 0x100, asm("x86_64", "1: nop; dec r14; jnz 1b; hlt"))
        assert k.run(setup, r14=3, r15=0, rbx=CODE + 0x100).registers["r15"] == 3


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("source", ["pushfq; pop rdx", "nop; jmp 1f; 1: pushfq; pop rdx", "ud2; pushfq; pop rdx"])
def test_rf_is_seen_long_after_the_handler_that_resumed_with_it(source, limit, user):
    """The engine keeps it until something ends a block otherwise than by a jump, and PUSHF does not hide it."""
    with Kernel() as kernel:
        kernel.handle(6, "mov r12, [rsp+16]; add qword ptr [rsp], 2; iretq")
        kernel.handle(13, "hlt")
        m, program = kernel.machine, asm("x86_64", f"ud2; {source}; hlt")
        m.write(CODE, asm("x86_64", f"{ENTER}; jmp rbx"))
        m.write(CODE + 0x100, program)
        m.write(USER, program)
        if user:
            m.write(CODE, asm("x86_64", ENTER + TO_USER))
        r = m.set(rip=CODE, rdi=DATA, rbx=CODE + 0x100).run(limit=limit).registers
        assert (r["r12"] >> 16 & 1, r["rdx"] >> 16 & 1) == (1, 0)
