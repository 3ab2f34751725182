"""Delivery in C and its reference in Python: the same registers, memory, bus accesses and record, for any tables.

Kernels whose IDT, TSS, GDT and stacks are drawn at random: missing, unmapped, read-only, not canonical, of the wrong
kind; so that delivery faults at every step, doubly and triply.
"""

import struct

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mmu.machine import Machine
from tests.guest import kernel
from tests.guest.kernel import CODE32, DATA, IDT, KERNEL_CODE, KERNEL_DATA, TSS, USER, USER_STACK, Kernel, gate
from tests.guest.machines import CODE, MIB, PAGE, STACK, WINDOW, asm, code, machine

HOLE, READ_ONLY, ODD = 0x3000_0000, 0x2000_0000, 1 << 63
EDGE = (1 << 47) - 16 * 13  # an IDT whose gate 13 is at no address
ENDS = DATA + 0xE000  # a stack in the data area
CONFORMING = 0x48

# What raises an exception, in kernel or user code; R8 holds a hole, R9 a page that is read-only, R10 no address at all.
CAUSES = {
    "load": "mov al, [r8+3]", "store": "mov [r8+9], rax", "rmw": "inc qword ptr [r9]", "push": "push [r8]",
    "pop": "pop [r9]", "gp": "mov ds, ebx", "noncanonical": "mov al, [r10]",
    "stack": "mov rsp, r10; push rax", "lost stack": "mov rsp, r8; push rax", "int3": "int3",
    "int 0x33": "int 0x33", "int 8": "int 8", "int 14": "int 14", "div": "xor ecx, ecx; div ecx", "ud": "ud2",
    "syscall": "syscall", "jump": "jmp r8", "nx": "jmp rdi", "hlt": "hlt", "in": "in al, 0x60",
    "insb": "mov dx, 0x60; insb",
    "sysenter": "sysenter", "sysexit": "mov rcx, rsp; mov rdx, rdi; rex.w sysexit", "sysexit 32": ".byte 0x0f, 0x35",
    "clock": "mov ecx, 16; rdmsr; wrmsr", "no msr": "mov ecx, 0x1b; rdmsr", "priority": "mov cr8, rbx; mov rax, cr8",
    "sysret": "mov rcx, rdi; xor r11d, r11d; cmp ebx, 0x44; sete r11b; shl r11d, 17; rex.w sysret",
    "sysret nowhere": "mov rcx, r10; rex.w sysret",
    "iret nowhere": "push rbx; push rsp; push 2; push 8; push r10; iretq",
    "debug": "xor eax, eax; cmp ebx, 0x44; sete al; shl eax, 13; mov dr7, rax; mov rax, dr1",
    "steps": "push 0x102; popfq; nop; rdtsc; sysenter", "far": "push 8; push r10; rex.w retf",
}  # fmt: skip
VECTORS = (0, 1, 3, 6, 8, 10, 11, 12, 13, 14, 0x33)

gates = st.fixed_dictionaries({
    "kind": st.sampled_from((14, 14, 14, 15, 15, 12, 5)), "dpl": st.sampled_from((0, 3)),
    "ist": st.sampled_from((0, 0, 0, 1, 2, 7)), "present": st.sampled_from((1, 1, 1, 0)),
    "selector": st.sampled_from(
        (KERNEL_CODE, KERNEL_CODE, KERNEL_CODE, 0, KERNEL_DATA, CODE32, 0x40, CONFORMING, 0x23, 0x4, 0x1000)),
})  # fmt: skip
stacks = st.sampled_from(
    (kernel.RSP0, kernel.RSP0 + 5, ENDS, HOLE + 0x100, READ_ONLY + 0x800, ODD, DATA + 0xA004, USER_STACK, IDT + 0xE8))
kernels = st.fixed_dictionaries({
    "gates": st.dictionaries(st.sampled_from(VECTORS), gates, max_size=10),
    "rsp0": stacks, "ist": st.tuples(stacks, stacks), "rsp": stacks,
    "idt": st.sampled_from((IDT, IDT, IDT, IDT, HOLE, READ_ONLY + 0xF40, EDGE)),
    "idt_limit": st.sampled_from((0xFFF, 0xFFF, 0xDF, 14 * 16 + 15, 0)),
    "tss_limit": st.sampled_from((0x67, 0x67, 0x67, 0x0A, 0x25)),
    "cause": st.sampled_from(sorted(CAUSES)), "user": st.booleans(),
    "handler": st.sampled_from(("hlt", "again", "fix")), "sce": st.booleans(), "ac": st.booleans(),
})  # fmt: skip
CAUSE_CODE = {name: asm("x86_64", f"{source}; hlt") for name, source in CAUSES.items()}
HANDLERS = {"hlt": "mov r12, rsp; hlt", "again": "add r12, 1; mov r13, [r8]; hlt", "fix": "lea r8, [rdi+64]; iretq"}


def outcome(deliver, drawn):
    with pytest.MonkeyPatch.context() as patch:
        arch, _, emulator, _ = Machine.__init__.__defaults__
        patch.setattr(Machine.__init__, "__defaults__", (arch, "exact", emulator, deliver))
        with Kernel(idt_limit=drawn["idt_limit"], tss_limit=drawn["tss_limit"]) as k:
            return run(k, drawn)


def run(k, drawn):
    m = k.machine
    m.tables.map(READ_ONLY, WINDOW + 9 * MIB, 2 * PAGE, page_size=PAGE, writable=False, executable=False)
    m.write(kernel.IDTR, struct.pack("<HQ", drawn["idt_limit"], drawn["idt"]))
    m.write(kernel.GDT + CONFORMING, kernel.segment(0x9E, 0xA))
    m.write(kernel.GDTR, struct.pack("<H", CONFORMING + 7))
    m.write(TSS + 4, struct.pack("<Q", drawn["rsp0"]))
    m.write(TSS + 0x24, struct.pack("<2Q", *drawn["ist"]))
    for vector, options in drawn["gates"].items():
        at = k.handle(vector, HANDLERS[drawn["handler"]])
        m.write(IDT + 16 * vector, gate(at, **options))
    cause = CAUSE_CODE[drawn["cause"]]
    m.write(USER, cause)
    efer = m.registers["efer"] & ~(0 if drawn["sce"] else 1)
    flags = 2 | drawn["ac"] << 18
    m.set(r8=HOLE, r9=READ_ONLY, r10=ODD, rbx=0x44, efer=efer, star=KERNEL_CODE << 32, lstar=CODE + 0xC00,
          sfmask=1 << 18)
    m.write(CODE + 0xC00, b"\xf4")
    for number, value in ((0x174, drawn["sce"] and 0x8), (0x175, drawn["rsp0"]), (0x176, CODE + 0xC00)):
        m.cpu.set_msr(number, value)
    m.write(CODE, asm("x86_64", kernel.ENTER))
    entered = m.run(limit=4)
    assert entered.stop.reason == "limit"
    if drawn["user"]:
        m.write(DATA + 0xF000, struct.pack("<5Q", USER, 0x23, flags, USER_STACK, 0x1B))
        m.write(CODE + 0xE00, asm("x86_64", "iretq"))
        m.set(rip=CODE + 0xE00, rsp=DATA + 0xF000)
    else:
        m.write(CODE + 0xE00, cause)
        m.set(rip=CODE + 0xE00, rsp=drawn["rsp"], rflags=flags)
    result = m.run(trace=4000, exceptions=6, timeout=None)
    memory = [target.memory.read(0, 16 * MIB // 2) for target in m.space.targets]
    return result.stop, result.registers, result.delivered, result.trace, result.counters, memory


PLAIN = {
    "gates": {}, "rsp0": kernel.RSP0, "ist": (ENDS, HOLE), "rsp": STACK + 0x8000, "idt": IDT, "idt_limit": 0xFFF,
    "tss_limit": 0x67, "cause": "load", "user": False, "handler": "hlt", "sce": False, "ac": False,
}  # fmt: skip
GATE = {"kind": 14, "dpl": 0, "ist": 0, "present": 1, "selector": KERNEL_CODE}


@given(kernels)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(PLAIN)
@example(PLAIN | {"gates": {14: GATE}, "handler": "fix"})
@example(PLAIN | {"gates": {8: GATE | {"ist": 1}}, "user": True, "cause": "rmw"})
@example(PLAIN | {"gates": {14: GATE, 8: GATE | {"ist": 1}}, "rsp": HOLE, "cause": "push"})
@example(PLAIN | {"gates": {14: GATE, 8: GATE | {"ist": 2}}, "rsp0": HOLE, "user": True})
@example(PLAIN | {"gates": {0x33: GATE | {"dpl": 3}, 13: GATE}, "user": True, "cause": "int 0x33"})
@example(PLAIN | {"gates": {0x33: GATE, 13: GATE}, "user": True, "cause": "int 0x33"})
@example(PLAIN | {"gates": {10: GATE, 14: GATE | {"ist": 7}}, "tss_limit": 0x25})
@example(PLAIN | {"gates": {6: GATE | {"selector": CONFORMING}}, "user": True, "cause": "syscall"})
@example(PLAIN | {"gates": {12: GATE | {"ist": 1}}, "cause": "stack"})
@example(PLAIN | {"gates": {6: GATE | {"selector": 4}, 13: GATE}, "cause": "ud"})
@example(PLAIN | {"sce": True, "cause": "syscall", "user": True, "ac": True})
@example(PLAIN | {"gates": {13: GATE}, "tss_limit": 0x25, "cause": "in", "user": True})
@example(PLAIN | {"sce": True, "cause": "sysenter", "user": True})
@example(PLAIN | {"sce": True, "cause": "sysexit 32", "gates": {14: GATE}})
@example(PLAIN | {"sce": True, "cause": "steps", "gates": {1: GATE}, "handler": "fix"})
@example(PLAIN | {"cause": "sysret", "gates": {14: GATE}})
@example(PLAIN | {"cause": "debug", "gates": {1: GATE}})
@example(PLAIN | {"gates": {13: GATE}, "tss_limit": 0x25, "cause": "insb", "user": True})
def test_x86_delivery_in_c_is_that_of_the_reference(drawn):
    native, reference = outcome("native", drawn), outcome("reference", drawn)
    for ours, theirs in zip(native, reference):
        assert ours == theirs


# -- arm64 ----------------------------------------------------------------------------------------

VECTORS_AT = CODE + 0x2000
ARM_CAUSES = {
    "load": "ldr x9, [x8, #24]", "store": "str x9, [x8, #24]", "exclusive": "stxr w9, x10, [x8]",
    "unaligned": "add x8, x0, #1; ldxr x9, [x8]", "svc": "svc #5", "brk": "brk #7", "smc": "smc #1", "udf": "udf #0",
    "floating": "msr cpacr_el1, xzr; isb; fmov d0, x8", "clean": "dc cvac, x8", "translate": "at s1e1w, x11",
    "stack": "mrs x9, sctlr_el1; orr x9, x9, #0x8; msr sctlr_el1, x9; isb; mov x9, #24; mov sp, x9; ldr x9, [sp]",
    "strict": "mrs x9, sctlr_el1; orr x9, x9, #0x2; msr sctlr_el1, x9; isb; str x9, [x8, #5]!",
    "jump": "br x8", "nothing": "ldr x9, [x11]", "fetch nothing": "br x12",
    "vector": "add x1, x8, #0; msr vbar_el1, x1; isb; svc #1",
}  # fmt: skip
ARM_CAUSE_CODE = {name: asm("aarch64", f"{source}; wfi") for name, source in ARM_CAUSES.items()}
arm_kernels = st.fixed_dictionaries({
    "cause": st.sampled_from(sorted(ARM_CAUSES)), "el0": st.booleans(),
    "pstate": st.sampled_from((0, 1 << 30, 1 << 22)),
    "vbar": st.sampled_from((VECTORS_AT, VECTORS_AT, VECTORS_AT, HOLE, 0)),
    "handler": st.sampled_from(("wfi", "ldr x13, [x8]; wfi", "mov x8, x0; eret")), "span": st.booleans(),
    "stack": st.booleans(),
})  # fmt: skip


def arm_outcome(deliver, drawn):
    with pytest.MonkeyPatch.context() as patch:
        _, _, emulator, _ = Machine.__init__.__defaults__
        patch.setattr(Machine.__init__, "__defaults__", ("aarch64", "exact", emulator, deliver))
        with machine("aarch64") as m:
            return arm_run(m, drawn)


def arm_run(m, drawn):
    m.tables.map(USER, WINDOW + 9 * MIB, 2 * PAGE, page_size=PAGE, user=1, writable=False, executable=True)
    m.tables.map(0x2800_0000, 0xF000_0000, PAGE)  # nothing is there
    m.tables.map(0x2900_0000, 0xF000_0000, PAGE, executable=True)
    m.load(code("aarch64", "nop"))
    for offset in range(0, 0x800, 0x80):
        m.write(VECTORS_AT + offset, asm("aarch64", drawn["handler"]))
    source = ARM_CAUSE_CODE[drawn["cause"]]
    m.write(CODE, source)
    m.write(USER, source)
    span = 1 << 23
    m.set(x8=HOLE, x11=0x2800_0000, x12=0x2900_0000, vbar_el1=drawn["vbar"], sp_el0=DATA + 0x8000,
          sctlr_el1=m.registers["sctlr_el1"] & ~span | (span if drawn["span"] else 0))
    m.cpu._set_pstate(drawn["pstate"] | 0x3C0 | (0 if drawn["el0"] else 4 | drawn["stack"]))
    m.set(pc=USER if drawn["el0"] else CODE)
    result = m.run(trace=4000, exceptions=6, timeout=None)
    memory = [target.memory.read(0, 16 * MIB // 2) for target in m.space.targets]
    return result.stop, result.registers, result.delivered, result.trace, result.counters, memory


ARM_PLAIN = {
    "cause": "load", "el0": False, "pstate": 0, "vbar": VECTORS_AT, "handler": "wfi", "span": True, "stack": True,
}  # fmt: skip


@given(arm_kernels)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(ARM_PLAIN)
@example(ARM_PLAIN | {"cause": "exclusive", "el0": True, "pstate": 1 << 30})
@example(ARM_PLAIN | {"cause": "nothing", "stack": False, "span": False})
@example(ARM_PLAIN | {"cause": "fetch nothing", "el0": True})
@example(ARM_PLAIN | {"cause": "vector", "handler": "mov x8, x0; eret"})
@example(ARM_PLAIN | {"cause": "unaligned", "handler": "mov x8, x0; eret"})
@example(ARM_PLAIN | {"cause": "smc", "vbar": 0})
@example(ARM_PLAIN | {"cause": "floating"})
@example(ARM_PLAIN | {"cause": "clean", "el0": True})
@example(ARM_PLAIN | {"cause": "stack", "handler": "mov x8, x0; eret"})
@example(ARM_PLAIN | {"cause": "strict"})
def test_arm64_delivery_in_c_is_that_of_the_reference(drawn):
    native, reference = arm_outcome("native", drawn), arm_outcome("reference", drawn)
    for ours, theirs in zip(native, reference):
        assert ours == theirs
