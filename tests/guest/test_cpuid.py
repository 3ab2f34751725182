"""CPUID tells of what works here, and of nothing else; so does what control registers may be."""

import pytest

from mmu.guest.stop import Interrupt
from tests.guest.machines import CODE, code, machine
from tests.guest.test_control_registers import CR4
from tests.guest.test_determinism import cpuid

UD = 6
FEATURES, STRUCTURED, XSAVE, EXTENDED, WIDTHS = 1, 7, 0xD, 0x80000001, 0x80000008
EBX, ECX, EDX = 1, 2, 3
OSXSAVE = "mov rax, cr4; bts rax, 18; mov cr4, rax; xor ecx, ecx; xor edx, edx; "
# (leaf, register, bit, an instruction that is there with it), RDI being aligned and memory
PRESENT = {
    "x87": (FEATURES, EDX, 0, "fld1"), "DE": (FEATURES, EDX, 2, "mov rax, cr4; bts rax, 3; mov cr4, rax"),
    "PSE": (FEATURES, EDX, 3, "mov rax, cr4; bts rax, 4; mov cr4, rax"), "TSC": (FEATURES, EDX, 4, "rdtsc"),
    "MSR": (FEATURES, EDX, 5, "mov ecx, 16; rdmsr"), "MCE": (FEATURES, EDX, 7, "mov ecx, 0x179; rdmsr"),
    "CX8": (FEATURES, EDX, 8, "cmpxchg8b [rdi]"), "SEP": (FEATURES, EDX, 11, "mov ecx, 0x174; rdmsr"),
    "MTRR": (FEATURES, EDX, 12, "mov ecx, 0xfe; rdmsr"), "PGE": (FEATURES, EDX, 13, "mov rax, cr4; mov cr4, rax"),
    "MCA": (FEATURES, EDX, 14, "mov ecx, 0x400; rdmsr"), "CMOV": (FEATURES, EDX, 15, "cmove eax, ebx"),
    "PAT": (FEATURES, EDX, 16, "mov ecx, 0x277; rdmsr"), "CLFLUSH": (FEATURES, EDX, 19, "clflush [rdi]"),
    "MMX": (FEATURES, EDX, 23, "paddb mm0, mm1"), "FXSR": (FEATURES, EDX, 24, "fxsave [rdi]"),
    "SSE": (FEATURES, EDX, 25, "addps xmm0, xmm1"), "SSE2": (FEATURES, EDX, 26, "addpd xmm0, xmm1"),
    "SSE3": (FEATURES, ECX, 0, "haddpd xmm0, xmm1"), "PCLMULQDQ": (FEATURES, ECX, 1, "pclmulqdq xmm0, xmm1, 0"),
    "SSSE3": (FEATURES, ECX, 9, "pshufb xmm0, xmm1"), "CX16": (FEATURES, ECX, 13, "cmpxchg16b [rdi]"),
    "PCID": (FEATURES, ECX, 17, "mov rax, cr4; bts rax, 17; mov cr4, rax"),
    "SSE4.1": (FEATURES, ECX, 19, "pblendw xmm0, xmm1, 1"), "SSE4.2": (FEATURES, ECX, 20, "crc32 eax, ebx"),
    "MOVBE": (FEATURES, ECX, 22, "movbe eax, [rdi]"), "POPCNT": (FEATURES, ECX, 23, "popcnt eax, ebx"),
    "AES": (FEATURES, ECX, 25, "aesenc xmm0, xmm1"), "XSAVE": (FEATURES, ECX, 26, f"{OSXSAVE}xgetbv; xsave [rdi]"),
    "FSGSBASE": (STRUCTURED, EBX, 0, "mov rax, cr4; bts rax, 16; mov cr4, rax; rdfsbase rax"),
    "BMI1": (STRUCTURED, EBX, 3, "andn eax, ebx, ecx; tzcnt eax, ebx"),
    "SMEP": (STRUCTURED, EBX, 7, "mov rax, cr4; bts rax, 20; mov cr4, rax"),
    "BMI2": (STRUCTURED, EBX, 8, "pdep eax, ebx, ecx"), "ERMS": (STRUCTURED, EBX, 9, "xor ecx, ecx; rep movsb"),
    "ADX": (STRUCTURED, EBX, 19, "adcx eax, ebx"), "SMAP": (STRUCTURED, EBX, 20, "clac"),
    "XSAVEOPT": (XSAVE, 0, 0, f"{OSXSAVE}xsaveopt [rdi]"),  # of subleaf 1
    "LAHF": (EXTENDED, ECX, 0, "lahf"), "LZCNT": (EXTENDED, ECX, 5, "lzcnt eax, ebx"),
    "NX": (EXTENDED, EDX, 20, "mov ecx, 0xc0000080; rdmsr; wrmsr"), "RDTSCP": (EXTENDED, EDX, 27, "rdtscp"),
    "64-bit code": (EXTENDED, EDX, 29, "mov r8, r9"),
}  # fmt: skip
# (leaf, register, bit, an instruction that is invalid without it)
ABSENT = {
    "MONITOR": (FEATURES, ECX, 3, "monitor"), "MWAIT": (FEATURES, ECX, 3, "mwait"), "VMX": (FEATURES, ECX, 5, "vmxoff"),
    "SMX": (FEATURES, ECX, 6, "getsec"), "FMA": (FEATURES, ECX, 12, "vfmadd132ps xmm0, xmm1, xmm2"),
    "AVX": (FEATURES, ECX, 28, "vaddps ymm0, ymm1, ymm2"), "F16C": (FEATURES, ECX, 29, "vcvtph2ps xmm0, xmm1"),
    "RDRAND": (FEATURES, ECX, 30, "rdrand eax"), "AVX2": (STRUCTURED, EBX, 5, "vpaddd ymm0, ymm1, ymm2"),
    "INVPCID": (STRUCTURED, EBX, 10, "invpcid rax, [rdi]"), "RTM": (STRUCTURED, EBX, 11, "xend"),
    "AVX512F": (STRUCTURED, EBX, 16, "vaddps zmm0, zmm1, zmm2"), "RDSEED": (STRUCTURED, EBX, 18, "rdseed eax"),
    "CLFLUSHOPT": (STRUCTURED, EBX, 23, "clflushopt [rdi]"), "CLWB": (STRUCTURED, EBX, 24, "clwb [rdi]"),
    "SHA": (STRUCTURED, EBX, 29, "sha1nexte xmm0, xmm1"), "PKU": (STRUCTURED, ECX, 3, "rdpkru"),
    "RDPID": (STRUCTURED, ECX, 22, "rdpid rax"), "XSAVEC": (XSAVE, 0, 1, f"{OSXSAVE}xsavec [rdi]"),
    "XSAVES": (XSAVE, 0, 3, f"{OSXSAVE}xsaves [rdi]"), "SVM": (EXTENDED, ECX, 2, "vmrun"),
    "SSE4A": (EXTENDED, ECX, 6, "extrq xmm0, xmm1"),
    "MOVNTSS": (EXTENDED, ECX, 6, ".byte 0xf3, 0x0f, 0x2b, 0x07"), "3DNow": (EXTENDED, EDX, 31, "pfadd mm0, mm1"),
}  # fmt: skip


def has(m, leaf, register, bit):
    return cpuid(m, leaf, leaf == XSAVE)[register] >> bit & 1


@pytest.mark.parametrize("feature", PRESENT)
def test_what_cpuid_tells_of_works(feature):
    *place, source = PRESENT[feature]
    with machine() as m:
        assert has(m, *place)
        stop = m.load(code("x86_64", f"{source}; mov esi, 77")).set(rdi=m.plan.data.va).run().stop
        assert (stop.reason, stop.exception, m.registers["rsi"]) == ("halt", None, 77)


@pytest.mark.parametrize("feature", ABSENT)
def test_what_cpuid_does_not_tell_of_is_invalid(feature):
    *place, source = ABSENT[feature]
    with machine() as m:
        assert not has(m, *place)
        assert m.load(code("x86_64", source)).set(rdi=m.plan.data.va).run().stop.exception == Interrupt(UD)


def test_cpuid_tells_the_widths_that_walks_use():
    """The engine says 40 bits of physical addresses; and pages of 1 GiB are walked."""
    with machine() as m:
        assert cpuid(m, WIDTHS) == [48 << 8 | 52, 0, 0, 0]
        assert cpuid(m, 0x80000000)[0] == WIDTHS
        assert has(m, EXTENDED, EDX, 26)
        assert cpuid(m, FEATURES)[EBX] >> 8 & 0xFF == 64 // 8  # bytes of CLFLUSH


def test_there_is_no_apic_and_nothing_tells_of_one():
    with machine() as m:
        assert not has(m, FEATURES, EDX, 9)
        assert not has(m, FEATURES, ECX, 21)
        assert not has(m, FEATURES, ECX, 24)
        assert [cpuid(m, leaf) for leaf in (5, 6, 0xA, 0xB)] == [[0, 0, 0, 0]] * 4


def test_xsave_has_two_parts_and_no_avx():
    with machine() as m:
        assert [cpuid(m, XSAVE, n) for n in range(4)] == [
            [3, 576, 576, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]  # fmt: skip


@pytest.mark.parametrize("leaf", [0xE, 0x14, 0x12345, 0x40000001, 0x80000009, 0xC0000000, 0xFFFFFFFF])
def test_beyond_the_last_leaf_is_the_last_basic_one(leaf):
    with machine() as m:
        assert cpuid(m, 0)[0] == XSAVE
        assert cpuid(m, leaf) == cpuid(m, XSAVE)
        assert cpuid(m, leaf, 1) == cpuid(m, XSAVE, 1)


# What a leaf says of a bit of CR4, and the bit.
CR4_FEATURES = {
    "VME": (FEATURES, EDX, 1, 0), "PVI": (FEATURES, EDX, 1, 1), "DE": (FEATURES, EDX, 2, 3),
    "UMIP": (STRUCTURED, ECX, 2, 11), "LA57": (STRUCTURED, ECX, 16, 12), "VMX": (FEATURES, ECX, 5, 13),
    "SMX": (FEATURES, ECX, 6, 14), "FSGSBASE": (STRUCTURED, EBX, 0, 16), "PCID": (FEATURES, ECX, 17, 17),
    "XSAVE": (FEATURES, ECX, 26, 18), "SMEP": (STRUCTURED, EBX, 7, 20), "SMAP": (STRUCTURED, EBX, 20, 21),
    "PKU": (STRUCTURED, ECX, 3, 22), "CET": (STRUCTURED, ECX, 7, 23), "PKS": (STRUCTURED, ECX, 31, 24),
}  # fmt: skip


@pytest.mark.parametrize("feature", CR4_FEATURES)
def test_a_bit_of_cr4_may_be_set_where_cpuid_tells_of_it(feature):
    *place, bit = CR4_FEATURES[feature]
    with machine() as m:
        present = has(m, *place)
        stop = m.load(code("x86_64", "mov cr4, rbx")).set(rbx=CR4 | 1 << bit).run().stop
        assert (stop.reason, stop.exception) == (("halt", None) if present else ("fault", Interrupt(13, 0)))


@pytest.mark.parametrize("value, taken", [
    (1, True), (3, True), (0, False), (2, False), (7, False), (0xB, False), (0x203, False), (1 << 63 | 3, False),
])  # fmt: skip
def test_xsetbv_takes_what_cpuid_tells_of(value, taken):
    """The engine takes AVX as well."""
    with machine() as m:
        m.load(code("x86_64", f"{OSXSAVE}mov eax, esi; mov rdx, rsi; shr rdx, 32; xsetbv; xor eax, eax; xgetbv"))
        stop = m.set(rsi=value).run().stop
        assert (stop.reason, stop.exception) == (("halt", None) if taken else ("fault", Interrupt(13, 0)))
        assert not taken or m.registers["rax"] == value


def test_xsetbv_knows_one_register_and_needs_osxsave():
    with machine() as m:
        m.load(code("x86_64", f"{OSXSAVE}mov eax, 3; inc ecx; xsetbv"))
        assert m.run().stop.exception == Interrupt(13, 0)
        m.load(code("x86_64", "mov eax, 8; xsetbv")).set(cr4=CR4, rip=CODE)
        assert m.run().stop.exception == Interrupt(UD)


def test_xsave_and_xrstor_move_what_the_area_holds():
    with machine() as m:
        source = f"{OSXSAVE}mov eax, 3; xsave [rdi]; pxor xmm3, xmm3; xrstor [rdi]; movq rbx, xmm3"
        m.load(code("x86_64", f"mov rax, 0x1234567890; movq xmm3, rax; {source}")).set(rdi=m.plan.data.va)
        assert m.run().registers["rbx"] == 0x1234567890
