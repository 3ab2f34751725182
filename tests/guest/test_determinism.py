"""The same program, the same trace: nothing that a guest can read is the host's, neither its time nor its chance."""

import time

import pytest

from mmu import Machine, Mmio
from mmu.guest.stop import Interrupt, Synchronous
from tests.guest.kernel import USER, Kernel
from tests.guest.machines import CODE, MIB, PAGE, WINDOW, asm, code, machine, places, two_way

UD = 6
UNDEFINED = Synchronous(0x02000000)
RDRAND, OSXSAVE, RDSEED = 1 << 30, 1 << 27, 1 << 18

def test_time_passes_alike_in_every_run():
    """The engine shows the host's time stamp counter."""
    seen = []
    for _ in range(2):
        with machine() as m:
            # rdtsc; mov ebx, eax; mov esi, edx; rdtscp; mov ecx, eax; rdtsc; hlt
            r = m.load(bytes.fromhex("0f3189c389d60f01f989c10f31f4")).run().registers
            seen.append((r["rsi"], r["rbx"], r["rcx"], r["rax"], r["rdx"]))
    assert seen == [(0, 1000, 2000, 3000, 0)] * 2


def test_time_passes_alike_on_arm64():
    seen = []
    for _ in range(2):
        with machine("aarch64") as m:
            # mrs: cntvct_el0 to x9, cntpct_el0 to x30, cntvct_el0 to x29, xzr and x10, cntfrq_el0 to x11; wfi
            r = m.load(bytes.fromhex("49e03bd53ee03bd55de03bd55fe03bd54ae03bd50be03bd57f2003d5")).run().registers
            seen.append(tuple(r[name] for name in ("x9", "x30", "x29", "x10", "x11")))
    assert seen == [(1000, 2000, 3000, 5000, 62_500_000)] * 2


# -- x86 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [
    "rdrand eax", "rdrand r9", "rdrand cx", "rdseed rbx", "rdseed r15d", "rdpid rax",
])  # fmt: skip
def test_random_numbers_are_an_invalid_instruction(source):
    with machine() as m:
        m.load(code("x86_64", f"cmp eax, 1; inc rsi; {source}; inc rsi")).set(rsi=5)
        before = m.registers
        stop = m.run().stop
        assert (stop.reason, stop.exception, stop.pc) == ("fault", Interrupt(UD), CODE + 6)
        changed = {name for name, value in m.registers.items() if value != before[name]}
        assert changed == {"rip", "rsi", "rflags"}


@pytest.mark.parametrize("split", [1, 2])
def test_random_numbers_across_two_pages_are_invalid_too(split):
    with machine() as m:
        m.load(code("x86_64", "jmp rdi"))
        m.write(CODE + 2 * PAGE - split, asm("x86_64", "rdrand eax") + b"\xf4")
        assert m.set(rdi=CODE + 2 * PAGE - split).run().stop.exception == Interrupt(UD)


def test_a_guest_with_a_handler_gets_the_exception_of_random_numbers():
    with Kernel() as k:
        k.handle(UD, "hlt")
        (delivered,) = k.run("nop", user="nop; rdrand rax; hlt").delivered
        assert (delivered.exception, delivered.pc) == (Interrupt(UD), USER + 1)


def cpuid(m, leaf, subleaf=0):
    m.load(code("x86_64", "cpuid")).set(rax=leaf | 7 << 32, rcx=subleaf)
    registers = m.run().registers
    return [registers[name] for name in ("rax", "rbx", "rcx", "rdx")]


def test_cpuid_knows_of_no_random_numbers():
    with machine() as m:
        family, _, ecx, edx = cpuid(m, 1)
        assert (family >> 8 & 15, ecx & RDRAND, ecx & OSXSAVE, edx & 1) == (6, 0, 0, 1)
        assert (cpuid(m, 7)[1] & RDSEED, cpuid(m, 7)[1] & 1 << 7) == (0, 1 << 7)  # SMEP stays
        assert cpuid(m, 7, 1) == [0, 0, 0, 0]
        assert cpuid(m, 0)[0] >= 7
        m.set(cr4=m.registers["cr4"] | 1 << 18)
        assert cpuid(m, 1)[2] & OSXSAVE


def test_rdtscp_says_on_which_cpu_it_is():
    """The engine would set RCX as well, but for the hook in its place."""
    with machine() as m:
        m.load(code("x86_64", "mov ecx, 0xc0000103; mov eax, 42; xor edx, edx; wrmsr; mov rcx, -1; rdtscp"))
        r = m.run().registers
        assert (r["rax"], r["rcx"], r["rdx"]) == (1000, 42, 0)


# -- the model of an emulator ---------------------------------------------------------------------


@pytest.mark.parametrize("arch, source, registers", [
    ("x86_64", "rdtsc; mov ebx, eax; rdtscp; nop", ("rbx", "rax")),
    ("aarch64", "mrs x9, cntvct_el0; mrs x10, pmccntr_el0", ("x9", "x10")),
])  # fmt: skip
def test_time_passes_alike_in_the_model_of_an_emulator(arch, source, registers):
    with Machine(two_way()[0], arch, emulator="qemu-8.2") as m:
        r = m.setup(**places(*["ram"] * 4)).load(code(arch, source)).run().registers
        assert [r[name] for name in registers] == [1000, 2000]


@pytest.mark.parametrize("arch, source, exception", [
    ("x86_64", "nop; rdrand eax", Interrupt(UD)), ("x86_64", "nop; rdseed rax", Interrupt(UD)),
    ("aarch64", "nop; mrs x9, s3_3_c2_c4_0", UNDEFINED),
])  # fmt: skip
def test_the_model_of_an_emulator_has_no_random_numbers(arch, source, exception):
    with Machine(two_way()[0], arch, emulator="qemu-8.2") as m:
        stop = m.setup(**places(*["ram"] * 4)).load(code(arch, source)).run().stop
        assert (stop.reason, stop.exception, stop.pc) == ("fault", exception, CODE + (1 if arch == "x86_64" else 4))


# -- arm64 ----------------------------------------------------------------------------------------

RNDR, RNDRRS, ISAR0 = "s3_3_c2_c4_0", "s3_3_c2_c4_1", "id_aa64isar0_el1"


@pytest.mark.parametrize("register", [RNDR, RNDRRS])
@pytest.mark.parametrize("handler", [False, True])
def test_random_numbers_are_undefined_on_arm64(register, handler):
    """With what follows in their block undone."""
    with machine("aarch64") as m:
        m.load(code("aarch64", f"cmp x1, x1; mrs x9, {register}; str x1, [x0]; mov x10, #1; svc #0"))
        m.write(CODE + 0xA00, asm("aarch64", "wfi"))  # in the vectors: EL1, SP_EL1
        if handler:
            m.set(vbar_el1=CODE + 0x800)
        r = m.set(x9=9, x1=7).run()
        stop = r.delivered[0] if handler else r.stop
        assert (stop.exception, stop.pc) == (UNDEFINED, CODE + 4)
        assert (r.registers["x9"], r.registers["x10"], m.read(m.registers["x0"], 8)) == (9, 0, bytes(8))
        flags = r.registers["spsr_el1" if handler else "pstate"]
        assert flags >> 28 == 0b0110


def test_the_features_of_arm64_have_no_random_numbers():
    with machine("aarch64") as m:
        r = m.load(code("aarch64", f"mrs x9, {ISAR0}")).run().registers
        assert (r["x9"] >> 60, r["x9"] >> 20 & 15) == (0, 2)  # the atomics stay


PMU = "mov x1, #1; msr pmcr_el0, x1; mov x1, #-1; msr pmcntenset_el0, x1"
TIMERS = "mov x1, #100; msr cntv_tval_el0, x1; msr cntp_tval_el0, x1; msr cntv_cval_el0, x1; msr cntv_ctl_el0, x1"


@pytest.mark.parametrize("register", [
    "pmccntr_el0", "cntv_tval_el0", "cntp_tval_el0", "cntv_cval_el0", "cntp_cval_el0", "cntv_ctl_el0", "pmevcntr0_el0",
])  # fmt: skip
def test_clocks_of_arm64_are_the_same_in_every_run(register):
    seen = []
    for _ in range(2):
        with machine("aarch64") as m:
            r = m.load(code("aarch64", f"{PMU}; {TIMERS}; mrs x9, {register}; mrs x10, {register}")).run().registers
            seen.append((r["x9"], r["x10"]))
    assert seen[0] == seen[1]
    assert max(seen[0]) < 1 << 32


@pytest.mark.parametrize("register, control, bit", [
    ("cntpct_el0", "cntkctl_el1", 0), ("cntvct_el0", "cntkctl_el1", 1), ("cntv_tval_el0", "cntkctl_el1", 8),
    ("cntp_tval_el0", "cntkctl_el1", 9), ("pmccntr_el0", "pmuserenr_el0", 0), ("pmccntr_el0", "pmuserenr_el0", 2),
    (ISAR0, "cntkctl_el1", None),
])  # fmt: skip
def test_a_user_reads_a_clock_where_its_kernel_lets_it(register, control, bit):
    for value in (0, 1 << (bit or 0)):
        with machine("aarch64") as m:
            m.tables.map(USER, WINDOW + 8 * MIB, PAGE, user=1, writable=False, executable=True)
            m.load(code("aarch64", f"mov x1, #{value}; msr {control}, x1; msr spsr_el1, xzr; msr elr_el1, x2; eret"))
            m.space.write(WINDOW + 8 * MIB, asm("aarch64", f"mrs x9, {register}; svc #3"))
            stop = m.set(x2=USER).run().stop
            permitted = bool(value and bit is not None)
            assert stop.pc == USER + (8 if permitted else 0)
            assert (m.registers["x9"] != 0) == permitted


SKIP = "mrs x12, elr_el1; add x12, x12, #4; msr elr_el1, x12; add x14, x14, #1; eret"


@pytest.mark.parametrize("limit", [None, 100])
@pytest.mark.parametrize("refused", ["dc cvac, x8", "dc zva, x7"])
def test_a_clock_behind_what_is_refused_has_not_been_read(refused, limit):
    """The engine goes on to the end of its block; all of that is undone, and a look at the clock moves it."""
    with machine("aarch64") as m:
        m.tables.map(0x2800_0000, 0xF000_0000, PAGE)  # nothing is there
        m.load(code("aarch64", f"{refused}; mrs x9, cntvct_el0; mrs x10, cntv_tval_el0"))
        m.write(CODE + 0x2200, asm("aarch64", SKIP))
        m.set(x8=0x3000_0000, x7=0x2800_0000, vbar_el1=CODE + 0x2000)
        r = m.run(limit=limit).registers
        assert (r["x9"], r["x10"], r["x14"]) == (1000, -2000 & 0xFFFF_FFFF, 1)


def test_a_clock_behind_a_port_that_raises_has_not_been_read():
    def read(offset, size):
        raise ValueError("out of paper")

    with machine() as m:
        m.io.map(0x60, Mmio(8, read=read))
        m.load(code("x86_64", "in al, 0x60; rdtsc"))
        with pytest.raises(ValueError, match="out of paper"):
            m.run()
        assert m.run(start=CODE + 2).registers["rax"] == 1000


SLOW = 0.15  # s; the engine looks at the clock when it flushes its TLB, and makes it smaller after 0.1
FLUSH = "mov rax, cr3; mov cr3, rax"
ALIKE = 16 * MIB  # pages so far apart have one place in a TLB of 4096 entries
CLOCKED = (
    "mov r9d, 8; 4: mov rcx, 3000; mov rbx, rdi; 1: mov rax, [rbx]; add rbx, 4096; dec rcx; jnz 1b; "
    f"{FLUSH}; dec r9d; jnz 4b; mov [r15], eax; {FLUSH}; mov rax, [rdi]; mov [r15], eax; {FLUSH}; mov rax, [rdi]; "
    f"{FLUSH}; mov r9d, 20; 5: mov rcx, 10; mov rbx, rsi; 6: mov rax, [rbx]; add rbx, {ALIKE}; dec rcx; jnz 6b; "
    "dec r9d; jnz 5b")
DEVICE, PAGES, APART = 0x6000_0000, 0x2000_0000, 0x8000_0000


def clocked(seconds):
    with machine("x86_64", dispatch="exact", tables="ram", code="ram") as m:
        m.space.map(0xF000_0000, Mmio(PAGE, write=lambda offset, size, value: time.sleep(seconds)))
        m.load(code("x86_64", CLOCKED))
        m.tables.map(DEVICE, 0xF000_0000, PAGE, page_size=PAGE)
        for n in range(3):
            m.tables.map(PAGES + n * 1000 * PAGE, 32 * MIB, 1000 * PAGE, page_size=PAGE)
        for n in range(10):
            m.tables.map(APART + n * ALIKE, 32 * MIB, PAGE, page_size=PAGE)
        return m.set(rdi=PAGES, rsi=APART, r15=DEVICE).run(trace=1 << 20, timeout=None)


def test_the_trace_does_not_depend_on_the_clock():
    fast, slow = clocked(0), clocked(SLOW)
    assert fast.stop.reason == slow.stop.reason == "halt"
    assert fast.trace == slow.trace


@pytest.mark.parametrize("service", ["exact", "mirror"])
def test_a_machine_that_ran_the_program_before_has_the_same_trace(service):
    """A mirror that takes a page makes the second TLB forget, and hooks that are new make the engine's forget."""
    touch = "mov rax, [rdi]; mov rax, [rdi+0x1000]; mov rax, [rdi+0x2000]"
    one, two = "jmp 1f; 1: rcl dword ptr [rdi+0x3000], 1", "jmp 2f; 2: rcr byte ptr [rdi+0x4000], 1"
    source = f"{touch}; {one}; {touch}; {two}; {touch}"
    with machine(dispatch=service) as m:
        m.load(code("x86_64", source))
        begin = m.snapshot()
        traces = []
        for _ in range(3):
            m.restore(begin)
            traces.append(m.run(trace=1 << 16).trace)
    assert traces[0] == traces[1] == traces[2]
