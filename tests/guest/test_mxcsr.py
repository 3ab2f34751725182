"""x86-64: MXCSR tells which exceptions SSE met. The engine keeps that apart, and looks at it nowhere."""

import struct

import pytest

from mmu.guest.state import give, take
from mmu.guest.stop import Interrupt
from tests.guest.kernel import USER, Kernel
from tests.guest.machines import CODE, DATA, MIB, asm, code, machine

NM, GP = 7, 13
DELIVER = pytest.mark.parametrize("deliver", ["native", "reference"])
IE, ZE, OE, UE, PE = 1, 4, 8, 16, 32
DAZ, FZ, RESET = 1 << 6, 1 << 15, 0x1F80
VALUES = {"zero": 0, "one": 0x3F800000, "three": 0x40400000, "huge": 0x7F000000, "tiny": 0x00800000, "qnan": 0x7FC00000,
          "minus": 0xBF800000, "half": 0x3F000000, "denormal": 0x00000003}  # fmt: skip


@pytest.fixture
def m():
    with machine() as m:
        yield m


def load(a, b):
    return f"mov eax, {VALUES[a]}; movd xmm0, eax; mov eax, {VALUES[b]}; movd xmm1, eax"


def bits(m, at, size=4):
    return int.from_bytes(m.read(at, size), "little")


MET = [
    ("one", "zero", "divss xmm0, xmm1", ZE), ("zero", "zero", "divss xmm0, xmm1", IE),
    ("one", "three", "divss xmm0, xmm1", PE), ("huge", "huge", "mulss xmm0, xmm1", OE | PE),
    ("tiny", "tiny", "mulss xmm0, xmm1", UE | PE), ("one", "three", "mulss xmm0, xmm1", 0),
    ("tiny", "half", "mulss xmm0, xmm1", 0), ("minus", "minus", "sqrtss xmm0, xmm1", IE),
    ("huge", "huge", "cvttss2si ecx, xmm0", IE), ("qnan", "one", "comiss xmm0, xmm1", IE),
    ("qnan", "one", "ucomiss xmm0, xmm1", 0), ("half", "one", "cvtss2si ecx, xmm0", PE),
]  # fmt: skip
EXTENDED = "mov rax, cr4; bts rax, 18; mov cr4, rax; xor ecx, ecx; xor edx, edx; mov eax, 3; xsetbv"
STORES = {"stmxcsr [rdi+24]": "nop", "fxsave [rdi]": "nop", "xsave [rdi]": EXTENDED, "xsaveopt [rdi]": EXTENDED}


@pytest.mark.parametrize("a, b, source, flags", MET)
def test_what_sse_met_is_in_mxcsr(m, a, b, source, flags):
    m.load(code("x86_64", f"{load(a, b)}; {source}; stmxcsr [rdi]; stmxcsr [rdi+4]"))
    assert m.run().stop.reason == "halt"
    assert struct.unpack("<2I", m.read(DATA, 8)) == (RESET | flags, RESET | flags)


@pytest.mark.parametrize("store", STORES)
def test_what_sse_met_is_stored_with_all_of_its_state(m, store):
    m.load(code("x86_64", f"{STORES[store]}; {load('one', 'three')}; divss xmm0, xmm1; mov eax, 3; {store}"))
    assert m.run().stop.reason == "halt"
    assert bits(m, DATA + 24) == RESET | PE


def test_flags_stay_until_they_are_loaded(m):
    """And what was met before that is forgotten."""
    m.load(code("x86_64", f"{load('one', 'zero')}; divss xmm0, xmm1; stmxcsr [rdi]; {load('one', 'three')};"
                " divss xmm0, xmm1; stmxcsr [rdi+4]; mov dword ptr [rdi+8], 0x3f80; ldmxcsr [rdi+8]; stmxcsr [rdi+12];"
                f" {load('zero', 'zero')}; divss xmm0, xmm1; ldmxcsr [rdi+8]; stmxcsr [rdi+16]"))  # fmt: skip
    assert m.run().stop.reason == "halt"
    assert struct.unpack("<5I", m.read(DATA, 20)) == (RESET | ZE, RESET | ZE | PE, 0x3F80, 0x3F80, 0x3F80)


@pytest.mark.parametrize("restore", ["ldmxcsr [rdi+24]", "fxrstor [rdi]", "xrstor [rdi]"])
def test_flags_that_are_loaded_are_seen(m, restore):
    m.load(code("x86_64", f"{EXTENDED}; {load('one', 'three')}; divss xmm0, xmm1; mov eax, 2; {restore};"
                " stmxcsr [rdi+0x400]"))  # fmt: skip
    m.write(DATA + 24, (RESET | OE | 2).to_bytes(4, "little"))
    assert m.run().stop.reason == "halt"
    assert bits(m, DATA + 0x400) == RESET | OE | 2


def test_a_load_that_faults_changes_nothing(m):
    m.load(code("x86_64", f"{load('one', 'zero')}; divss xmm0, xmm1; ldmxcsr [rbx]")).set(rbx=DATA + MIB - 2)
    assert m.run().stop.exception.cr2 == DATA + MIB
    m.load(code("x86_64", "stmxcsr [rdi]")).set(rip=CODE)
    assert m.run().stop.reason == "halt"
    assert bits(m, DATA) == RESET | ZE


@pytest.mark.parametrize("restore", ["ldmxcsr [rdi]", "fxrstor [rdi-24]", "mov eax, 3; xrstor [rdi-24]"])
@pytest.mark.parametrize("fz", [0, 1])
def test_denormal_results_are_zero_when_mxcsr_says_so(m, restore, fz):
    m.load(code("x86_64", f"{EXTENDED}; lea rdi, [rdi+24]; {restore}; {load('tiny', 'half')}; mulss xmm0, xmm1;"
                " movss [rdi+0x400], xmm0; stmxcsr [rdi+0x404]"))  # fmt: skip
    value = RESET | fz * FZ
    m.write(DATA + 24, value.to_bytes(4, "little"))
    assert m.run().stop.reason == "halt"
    assert bits(m, DATA + 24 + 0x400) == (0 if fz else 0x0040_0000)
    assert bits(m, DATA + 24 + 0x404) == value | (UE | PE if fz else 0)


def test_denormal_operands_are_zero_when_mxcsr_says_so(m):
    m.load(code("x86_64", f"ldmxcsr [rdi]; {load('denormal', 'huge')}; mulss xmm0, xmm1; movss [rdi+4], xmm0;"
                " stmxcsr [rdi+8]"))  # fmt: skip
    m.write(DATA, (RESET | DAZ).to_bytes(4, "little"))
    assert m.run().stop.reason == "halt"
    assert (bits(m, DATA + 4), bits(m, DATA + 8)) == (0, RESET | DAZ)


RESTORES = {"ldmxcsr [rbx+24]": "nop", "fxrstor [rbx]": "nop", "mov eax, 3; xrstor [rbx]": EXTENDED}


@pytest.mark.parametrize("restore", RESTORES)
@pytest.mark.parametrize("bit", [16, 17, 31])
@DELIVER
def test_reserved_bits_of_mxcsr_are_gp_and_nothing_is_loaded(restore, bit, deliver):
    with Kernel(deliver=deliver) as kernel:
        m = kernel.machine
        kernel.handle(GP, "stmxcsr [rdi+0x3000]; movd r12d, xmm0; hlt")
        m.write(USER + 0x1000, bytes(24) + (RESET | 1 << bit).to_bytes(4, "little") + bytes(600))
        before = f"{RESTORES[restore]}; {load('one', 'three')}; divss xmm0, xmm1; xor edx, edx"
        lead = "".join(f"{part}; " for part in restore.split("; ")[:-1]) + "cmp ebp, 5"
        last = restore.split("; ")[-1]
        r = kernel.run(before, user=f"{lead}; {last}; hlt", rbx=USER + 0x1000, rbp=4)
        assert [(d.exception, d.pc) for d in r.delivered] == [(Interrupt(GP, 0), USER + len(asm("x86_64", lead)))]
        assert (bits(m, DATA + 0x3000), r.registers["r12"]) == (RESET | PE, 0x3EAAAAAB)
        assert kernel.words(r.registers["rsp"], 4)[3] & 0x8D5 == 0x95  # of 4 - 5


@pytest.mark.parametrize("source", ["xsave [rdi]", "xrstor [rdi]", "xsaveopt [rdi]", "fxsave [rdi]", "fxrstor [rdi]",
                                    "ldmxcsr [rdi]", "stmxcsr [rdi]"])  # fmt: skip
@DELIVER
def test_state_of_another_task_is_not_saved(source, deliver):
    """CR0.TS says whose it is."""
    with Kernel(deliver=deliver) as kernel:
        kernel.handle(NM, "clts; stmxcsr [rdi+0x3000]; hlt")
        before = f"{EXTENDED}; {load('one', 'three')}; divss xmm0, xmm1; mov rax, cr0; bts rax, 3; mov cr0, rax"
        r = kernel.run(f"{before}; lea rdi, [rdi+0x5000]; mov eax, 3; {source}; hlt")
        assert [d.exception for d in r.delivered] == [Interrupt(NM)]
        assert bits(kernel.machine, DATA + 0x5000 + 0x3000) == RESET | PE


def test_what_sse_met_and_flushes_goes_with_the_state_of_the_cpu(m):
    m.load(code("x86_64", f"ldmxcsr [rdi]; {load('one', 'zero')}; divss xmm0, xmm1"))
    m.write(DATA, (RESET | FZ).to_bytes(4, "little"))
    m.run()
    state = take(m.cpu)
    assert state["floating"]["mxcsr"] == RESET | FZ | ZE
    with machine() as other:
        other.load(code("x86_64", f"{load('zero', 'zero')}; divss xmm0, xmm1"))
        other.run()
        root = other.registers["cr3"]
        give(other.cpu, state)
        other.set(cr3=root, rip=CODE)
        other.load(code("x86_64", f"stmxcsr [rdi]; {load('tiny', 'half')}; mulss xmm0, xmm1; movss [rdi+4], xmm0"))
        assert other.run().stop.reason == "halt"
        assert (bits(other, DATA), bits(other, DATA + 4)) == (RESET | FZ | ZE, 0)


def test_code_of_32_bits_sees_what_sse_met():
    with Kernel() as kernel:
        user = "push 0x38; lea rax, [rip+1f]; push rax; retfq; .code32; 1: inc esp; stmxcsr [edi]; hlt"
        kernel.run(f"{load('one', 'three')}; divss xmm0, xmm1; add edi, 0x5000; {user}")
        assert bits(kernel.machine, DATA + 0x5000) == RESET | PE
