"""What the engine does otherwise than a CPU, and what must not be seen of it. One test for each such trap.

The file that holds the others' tests is named where they are part of something larger:

- exact fault addresses, the W bit of read-modify-writes, page-crossing and long stores: test_x86_faults,
  test_page_edges, test_arm64_faults; fetches: test_page_ends
- flags at faults: test_x86_faults, test_rotations, test_page_edges; before hooks, of wide exchanges: test_lazy_flags
- cache maintenance, of which the engine tells nobody: test_flushed_lines, test_arm64_maintenance_faults
- branches to no address: test_branches, test_returns
- the look-up at the end of a run, at address 0: test_x86_faults
- supervisor accesses of user programs, LDTR, the double fault that is none, SYSCALL, privilege: test_x86_delivery,
  test_arm64_faults; SYSENTER: test_fast_calls
- INVLPG, MOV CR, EFER, TLBI: test_second_tlb; what they refuse: test_control_registers, test_system_instructions
- MSRs that no CPU has: test_msrs; CPUID: test_cpuid; debug registers and steps: test_debug
- alignment, SP and FP of arm64: test_arm64_strict_faults; exception returns: test_arm64_rights_faults
- the flags of SSE: test_mxcsr
- code in devices, aliases, stores to code: test_code; code that others write: test_code_of_others,
  test_code_of_other_machines
- bus errors in the middle of an access, loads that have written their destination, DC ZVA: test_bus_errors; devices
  that raise there, FXSAVE and others that do not end: test_raising_devices
- atomic instructions of several machines: test_shared_memory
- accesses in pieces: test_whole
- time and random numbers, which are the host's: test_determinism
- a guest that never ends, limits, engines that leak: tests/test_machine.py
"""

import struct

import pytest

from mmu import Ram
from mmu.guest.stop import Interrupt
from mmu.types import Access
from tests.guest.kernel import PAGE, USER, Kernel
from tests.guest.machines import CODE, DATA, MIB, STACK, WINDOW, asm, code, machine

UD, GP = 6, 13
HIGH = 0xFFFF_8000_0000_0000


# -- instructions that the engine gets wrong ------------------------------------------------------


@pytest.mark.parametrize("source", [
    "vpaddd xmm0, xmm1, xmm2", "vpaddd xmm0, xmm0, xmm1", "vpaddd ymm0, ymm1, ymm2", "vmovups xmm9, [rdi]",
    "vaesenc xmm0, xmm1, xmm2", "vpshufb xmm8, xmm9, xmm10", "vpalignr xmm0, xmm1, xmm2, 3", "vzeroupper",
])  # fmt: skip
def test_avx_is_an_invalid_instruction(source):
    """The engine takes those of 128 bits for the SSE instruction with one operand less, and computes something."""
    with machine() as m:
        stop = m.load(code("x86_64", f"inc rax; {source}; inc rax")).run().stop
        assert (stop.reason, stop.exception, stop.pc) == ("fault", Interrupt(UD), CODE + 3)
        assert m.registers["rax"] == 1


@pytest.mark.parametrize("split", [1, 2, 3])
def test_avx_across_two_pages_is_invalid_too(split):
    with machine() as m:
        m.load(code("x86_64", "jmp rdi"))
        m.write(CODE + 2 * PAGE - split, asm("x86_64", "vpaddd xmm0, xmm1, xmm2") + b"\xf4")
        assert m.set(rdi=CODE + 2 * PAGE - split).run().stop.exception == Interrupt(UD)


@pytest.mark.parametrize("source, result", [
    ("andn rax, rbx, rcx", 0xF0), ("bzhi rax, rcx, rdx", 0x0F), ("shlx rax, rcx, rdx", 0xFF0),
    ("rorx rax, rcx, 4", 0xF << 60 | 0xF), ("pext rax, rcx, rbx", 0xF), ("mulx r9, rax, rcx", 4 * 0xFF),
    ("blsr rax, rcx", 0xFE),
])  # fmt: skip
def test_vex_instructions_on_general_registers_are_valid(source, result):
    with machine() as m:
        r = m.load(code("x86_64", source)).set(rbx=0x0F, rcx=0xFF, rdx=4).run()
        assert (r.stop.reason, r.registers["rax"]) == ("halt", result)


# -- registers that the engine keeps twice --------------------------------------------------------


def test_a_code_segment_set_by_the_host_says_the_privilege():
    """The engine changes the selector and nothing else."""
    with machine() as m:
        m.tables.map(USER, WINDOW + 8 * MIB, PAGE, user=1, executable=True)
        m.load(b"\xf4")
        m.write(USER, b"\xf4")
        assert m.set(cs=0x23, rip=USER).run().stop.exception == Interrupt(GP, 0)
        assert m.walk_registers().cpl == 3
        assert m.set(cs=8, ss=0x10, rip=CODE).run().stop.reason == "halt"
        with pytest.raises(ValueError, match=r"cs must be 0 \.\. 0xffff"):
            m.set(cs=0x10000)


def test_a_program_of_the_host_at_cpl_3_cannot_read_what_is_the_kernels():
    with machine() as m:
        m.tables.map(USER, WINDOW + 8 * MIB, PAGE, user=1, executable=True)
        m.load(b"\xf4")
        m.write(USER, asm("x86_64", "mov rax, [rdi]; hlt"))
        stop = m.set(cs=0x23, ss=0x1B, rip=USER).run().stop
        assert (stop.exception.error_code, stop.exception.cr2) == (5, DATA)


@pytest.mark.parametrize("name", ["cr0", "cr3", "efer"])
def test_registers_set_by_the_host_count_in_the_next_run(name):
    """The engine keeps its TLB when the host writes them."""
    with machine() as m:
        m.tables.protect(DATA, PAGE, writable=False)
        m.set(cr0=m.registers["cr0"] & ~(1 << 16))  # WP off
        m.load(code("x86_64", "mov [rdi], rax"))
        assert m.run().stop.reason == "halt"
        value = {
            "cr0": m.registers["cr0"] | 1 << 16,
            "cr3": m.tables.root + (200 << 10),  # nothing is there
            "efer": m.registers["efer"] & ~(1 << 11),  # NXE off: XD is a reserved bit
        }[name]
        assert m.set(**{name: value}).run(start=CODE).stop.reason == "fault"


@pytest.mark.parametrize("name", ["ttbr0_el1", "sctlr_el1", "tcr_el1"])
def test_arm64_registers_set_by_the_host_count_in_the_next_run(name):
    with machine("aarch64") as m:
        m.load(code("aarch64", "ldr x9, [x0]"))
        assert m.run().stop.reason == "halt"
        value = {
            "ttbr0_el1": m.tables.root + (200 << 10),  # nothing is there
            "sctlr_el1": m.registers["sctlr_el1"] | 1 << 19,  # WXN: code that is writable does not run
            "tcr_el1": m.registers["tcr_el1"] | 1 << 7,  # EPD0
        }[name]
        assert m.set(**{name: value}).run(start=CODE).stop.reason == "fault"


# -- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [DATA, STACK])
@pytest.mark.parametrize("offset", [1, 5, 253, 4093])
def test_an_unaligned_load_gives_the_bytes_and_no_more(base, offset):
    """The engine reads the aligned blocks around it."""
    with machine() as m:
        m.load(code("x86_64", "mov rax, [rbx]; movdqu xmm0, [rbx]; movq rcx, xmm0; movhlps xmm0, xmm0; movq rdx, xmm0"))
        data = bytes(range(1, 33))
        m.write(base + offset, data[:16])
        r = m.set(rbx=base + offset).run().registers
        assert struct.pack("<3Q", r["rax"], r["rcx"], r["rdx"]) == data[:8] + data[:16]


@pytest.mark.parametrize("source", ["fxsave [rbx]", "mov ecx, 3; rep stosq", "cmpxchg16b [rbx]", "movdqu [rbx], xmm0"])
def test_a_store_that_faults_has_no_effect(source):
    """The search for its address runs the instruction once more."""
    hole = DATA + MIB  # what follows the data is not mapped
    with machine() as m:
        at = hole - 8 if source.startswith("movdqu") else hole
        m.load(code("x86_64", source)).set(rbx=at & ~15 if "16b" in source or "fxsave" in source else at, rdi=hole)
        before = m.read(DATA, MIB)
        stop = m.run().stop
        assert stop.fault.va == hole
        assert stop.fault.access & Access.WRITE
        after = m.read(DATA, MIB)
        assert after[:-8] == before[:-8]  # a store of 16 bytes may leave its first 8


def test_an_address_of_the_upper_half():
    with machine() as m:
        m.tables.map(HIGH, WINDOW + 9 * MIB, PAGE)
        m.load(code("x86_64", "mov [rbx+8], rbx; mov rax, [rbx+8]"))
        assert m.set(rbx=HIGH).run().registers["rax"] == HIGH


def test_physical_addresses_of_52_bits():
    with machine() as m:
        base = (1 << 52) - MIB
        m.space.map(base, Ram(MIB))
        m.tables.map(HIGH, base, MIB, page_size=PAGE)
        m.load(code("x86_64", "mov [rbx], rbx; mov rax, [rbx]; jmp rcx"))
        m.space.write(base + PAGE, b"\xf4")
        r = m.set(rbx=HIGH, rcx=HIGH + PAGE).run()
        assert (r.stop.reason, r.stop.pc, r.registers["rax"]) == ("halt", HIGH + PAGE + 1, HIGH)


# -- privilege ------------------------------------------------------------------------------------


def test_privileged_instructions_of_a_user_are_general_protection_faults():
    with Kernel() as kernel:
        kernel.handle(GP, "inc r12; mov r13, [rsp+8]; add qword ptr [rsp+8], 2; cmp r12, 4; je 1f; add rsp, 8; iretq;"
                      " 1: hlt")  # fmt: skip
        result = kernel.run("nop", user="cli; nop; hlt; nop; sti; nop; hlt; nop")
        assert (result.stop.reason, result.registers["r12"]) == ("halt", 4)
        assert result.registers["r13"] == USER + 6
        assert {d.exception for d in result.delivered} == {Interrupt(GP, 0)}


def test_a_thousand_system_calls_and_back():
    """SYSCALL is nothing to the engine; and each way back changes the privilege."""
    with Kernel() as kernel:
        m = kernel.machine
        m.write(CODE + 0x7000, asm("x86_64", "inc r12; mov r14, [rdi]; sysretq"))
        kernel.handle(GP, "mov r13, [rsp+16]; hlt")
        m.set(star=0x10 << 48 | 8 << 32, lstar=CODE + 0x7000, sfmask=1 << 9)
        result = kernel.run("nop", user="mov ebp, 1000; 1: syscall; dec ebp; jnz 1b; hlt")
        assert (result.registers["r12"], result.registers["r13"]) == (1000, 0x23)
        assert len(result.delivered) == 1
