"""x86-64 instructions as C decodes them, against capstone, for random ones."""

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmu.core import ffi, lib
from mmu.guest import x86_decode
from mmu.types import Access

ENGINE = x86_decode.new_disassembler()
PREFIXES = (b"", b"\x66", b"\xf0", b"\xf2", b"\xf3", b"\x65", b"\x26", b"\x36", b"\x67", b"\x66\xf0")
REX = (b"", b"", b"\x48", b"\x41", b"\x45", b"\x49", b"\x40")

# Of other makers, and UD1, whose ModRM capstone does not count.
OTHERS = re.compile(r"ud1|extrq|insertq|xcrypt.*|xsha.*|xstore")
NEAR = re.compile(r"j.*|call")  # with 66 and without REX.W, a displacement of 2 bytes to the engine, of 4 to capstone

opcodes = st.one_of(
    st.integers(0, 255).map(lambda b: bytes([b])), st.integers(0, 255).map(lambda b: bytes([0x0F, b])),
    st.integers(0, 255).map(lambda b: bytes([0x0F, 0x38, b])),
    st.integers(0, 255).map(lambda b: bytes([0x0F, 0x3A, b])),
    st.integers(0, 0x3FF).map(lambda n: bytes([0xC5, 0xF8 & ~(n >> 2 & 0x80), n & 0xFF])),
    st.tuples(st.sampled_from((0xE1, 0xE2, 0xE3, 0xC2, 0xC1)), st.integers(0, 255)).map(
        lambda t: bytes([0xC4, t[0], 0x78, t[1]])))  # fmt: skip
codes = st.tuples(st.sampled_from(PREFIXES), st.sampled_from(REX), opcodes, st.binary(min_size=10, max_size=10)).map(
    b"".join)


def decoded(code):
    """(length, writes back, through the stack when it reads, when it writes), as C says it; None: unknown."""
    flags = lib.mmu_guest_decode(ffi.from_buffer(code), len(code))
    return None if flags < 0 else (flags >> 8, bool(flags & 1), bool(flags & 2), bool(flags & 4))


def expected(code):
    instruction = next(ENGINE.disasm(code, 0, 1), None)
    if instruction is None or OTHERS.fullmatch(instruction.mnemonic):
        return None
    if b"\x66" in code[: instruction.size] and NEAR.fullmatch(instruction.mnemonic):
        return None
    return (
        instruction.size, x86_decode.writes_back(instruction),
        x86_decode.through_stack(instruction, Access.READ), x86_decode.through_stack(instruction, Access.WRITE))


@given(codes)
@settings(max_examples=2000, deadline=None)
@example(bytes.fromhex("f0480fc70c24").ljust(15, b"\0"))  # lock cmpxchg16b [rsp]
@example(bytes.fromhex("36488b4500").ljust(15, b"\0"))  # mov rax, ss:[rbp]
@example(bytes.fromhex("498b0424").ljust(15, b"\0"))  # mov rax, [r12]
@example(bytes.fromhex("ff3424").ljust(15, b"\0"))  # push [rsp]
@example(bytes.fromhex("8f0424").ljust(15, b"\0"))  # pop [rsp]
@example(bytes.fromhex("f06681033412").ljust(15, b"\0"))  # lock add word ptr [rbx], 0x1234
@example(bytes.fromhex("f04881a42478563412e0000000").ljust(15, b"\0"))  # lock and qword ptr [rsp+0x12345678], 0xe0
@example(bytes.fromhex("f0410fba6c240103").ljust(15, b"\0"))  # lock bts dword ptr [r12+1], 3
@example(bytes.fromhex("48833b00").ljust(15, b"\0"))  # cmp qword ptr [rbx], 0
@example(bytes.fromhex("c8100000").ljust(15, b"\0"))  # enter
@example(bytes.fromhex("48b8").ljust(15, b"\1"))  # mov rax, imm64
@example(bytes.fromhex("66b8").ljust(15, b"\1"))  # mov ax, imm16
@example(bytes.fromhex("67a1").ljust(15, b"\1"))  # mov eax, [an address of 32 bits]
@example(bytes.fromhex("48a1").ljust(15, b"\1"))  # mov rax, [an address of 64 bits]
@example(bytes.fromhex("f604240f").ljust(15, b"\1"))  # test byte ptr [rsp], 15
@example(bytes.fromhex("66f7d8").ljust(15, b"\1"))  # neg ax
@example(bytes.fromhex("c20800").ljust(15, b"\1"))  # ret 8
@example(bytes.fromhex("0f84").ljust(15, b"\1"))  # je
@example(bytes.fromhex("c5f970d001").ljust(15, b"\1"))  # vpshufd xmm2, xmm0, 1
@example(bytes.fromhex("c4e3fbf0c804").ljust(15, b"\1"))  # rorx rcx, rax, 4
def test_c_sees_what_capstone_sees(code):
    code = code[:15]
    if (known := expected(code)) is not None:
        assert known == decoded(code)


def test_too_few_bytes_are_no_instruction():
    assert decoded(b"\x48") is None
    assert decoded(b"\x0f\x38") is None
    assert decoded(b"\x48\x8b") is None
    assert decoded(b"\xc2\x08") is None
    assert decoded(b"\x66" * 15) is None
