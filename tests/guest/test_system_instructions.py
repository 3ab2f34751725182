"""x86-64: what LGDT, LIDT, LTR, MOV DR, RDPMC and XSETBV refuse, and LOCK before instructions that take none."""

import pytest

from mmu.guest.stop import Interrupt
from tests.guest.kernel import Kernel
from tests.guest.machines import CODE, DATA, asm

UD, GP = 6, 13
DELIVER = pytest.mark.parametrize("deliver", ["native", "reference"])
ODD, TOP = 1 << 47, 0xFFFF_8000_0000_0000
OPERAND = DATA + 0x6000
AT = CODE + 0x3000
EXTENDED = "mov rax, cr4; bts rax, 18; mov cr4, rax; "


def run(source, before="nop", deliver="native", operand=0, **registers):
    """(delivered exceptions with the distance of their instruction from the first of *source*, registers)."""
    with Kernel(deliver=deliver) as kernel:
        kernel.handle(GP, "hlt")
        kernel.handle(UD, "hlt")
        kernel.machine.write(OPERAND, operand.to_bytes(16, "little"))
        kernel.machine.write(AT, asm("x86_64", f"{source}; inc r15; hlt"))
        r = kernel.run(f"{before}; mov eax, r12d; mov edx, r13d; jmp rbp", rbx=OPERAND, rbp=AT, **registers)
        return [(d.exception, d.pc - AT) for d in r.delivered], r.registers


GDT_OF = 0x7F | ODD << 16
REFUSED = {
    "a GDT at no address": ("lgdt [rbx]", {"operand": GDT_OF}),
    "an IDT at no address": ("lidt [rbx+1]", {"operand": GDT_OF << 8}),
    "no task": ("ltr cx", {"rcx": 0}), "no task, with a privilege": ("ltr r9w", {"r9": 3}),
    "no task, in memory": ("ltr word ptr [rbx+4]", {"operand": 1 << 32}),
    "upper bits of DR7": ("mov dr7, r10", {"r10": 1 << 32}), "upper bits of DR6": ("mov dr6, rcx", {"rcx": 1 << 63}),
    "upper bits of DR7, as DR5": ("mov dr5, rcx", {"rcx": 1 << 63}),
    "counters": ("rdpmc", {"rcx": 0}),
    "AVX": ("xsetbv", {"r12": 7, "before": EXTENDED}), "AVX without SSE": ("xsetbv", {"r12": 5, "before": EXTENDED}),
    "no x87": ("xsetbv", {"r12": 2, "before": EXTENDED}), "upper bits of XCR0": (
        "xsetbv", {"r12": 3, "r13": 1, "before": EXTENDED}),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
@DELIVER
def test_a_system_instruction_that_no_cpu_carries_out_is_gp(what, deliver):
    source, given = REFUSED[what]
    delivered, after = run(source, deliver=deliver, **given)
    assert (delivered, after["r15"]) == ([(Interrupt(GP, 0), 0)], 0)


TAKEN = {
    "a GDT": ("sgdt [rbx]; lgdt [rbx]", {}), "an IDT above": ("lidt [rbx]", {"operand": 0xFFF | TOP << 16}),
    "no LDT": ("lldt cx", {}), "DR7": ("mov dr7, rcx", {"rcx": 0x400}), "DR0": ("mov dr0, rcx", {"rcx": 1 << 63}),
    "DR3": ("mov dr3, rcx", {"rcx": 1 << 63}), "SSE": ("xsetbv", {"r12": 3, "before": EXTENDED}),
    "x87": ("xsetbv", {"r12": 1, "before": EXTENDED}), "STR": ("str cx", {}), "SMSW": ("smsw cx", {}),
}  # fmt: skip


@pytest.mark.parametrize("what", TAKEN)
def test_a_system_instruction_that_a_cpu_carries_out_is(what):
    source, given = TAKEN[what]
    delivered, after = run(source, **given)
    assert (delivered, after["r15"]) == ([], 1)


def test_xsetbv_is_invalid_until_it_is_turned_on():
    assert run("xsetbv", r12=7)[0] == [(Interrupt(UD), 0)]


LOCKED = {
    "mov cr0": "f0 0f22c0", "mov cr8": "f0 440f22c0", "wrmsr": "f0 0f30", "invlpg": "f0 0f013b", "lgdt": "f0 0f0113",
    "clflush": "f0 0fae3b", "fxsave": "f0 0fae03", "ldmxcsr": "f0 0fae13", "sete": "f0 0f9403", "mov dr": "f0 0f23f8",
    "wrfsbase": "f0 f3480faed0", "xsetbv": "f0 0f01d1", "cmpxchg8b of a register": "f0 0fc7c9",
}  # fmt: skip


@pytest.mark.parametrize("what", LOCKED)
def test_lock_makes_a_system_instruction_invalid(what):
    source = ".byte " + ", ".join(f"{byte:#x}" for byte in bytes.fromhex(LOCKED[what]))
    assert run(source, before=EXTENDED, r12=7)[0] == [(Interrupt(UD), 0)]


def test_lock_before_an_instruction_that_takes_it_is_none_of_that():
    delivered, after = run("lock cmpxchg8b [rbx]; lock cmpxchg16b [rbx]; lock inc dword ptr [rbx]")
    assert (delivered, after["r15"]) == ([], 1)
