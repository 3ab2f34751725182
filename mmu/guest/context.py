"""What unicorn keeps of a CPU but has no register for: privilege, segment caches, error codes, syndromes.

It is in the context blob, whose layout is private to a build. So the places are found by experiment, once per process:
known values go in and are looked for. A build where that is not conclusive is refused with GuestError.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from mmu.core import ffi, lib
from mmu.errors import GuestError
from mmu.guest.engine import PAGE, Engine
from mmu.memory.host import HostMemory

CODE = 0x1000


def _only(found: Iterable[int], what: str) -> int:
    places = list(found)
    if len(places) != 1:
        raise GuestError(f"this build of unicorn keeps {what} at {len(places)} places, not at one: {places}")
    return places[0]


def _places(blob: bytes, value: int, size: int) -> Iterable[int]:
    pattern = value.to_bytes(size, "little")
    at = blob.find(pattern)
    while at >= 0:
        yield at
        at = blob.find(pattern, at + 1)


class _Bench:
    """An engine with one page of plain memory at CODE, identity-mapped, that stops at every exception."""

    def __init__(self, arch: str, mode: str, model: int) -> None:
        self.memory = HostMemory(PAGE)
        self.engine = Engine(arch, mode, model, tlb=False)
        self.engine.map_host(CODE, PAGE, self.memory.address)
        self._context = self.engine.new_context()
        # The hook wants a guest only to note the exception: it has to end the engine.
        self._guest = ffi.new("mmu_guest **")
        config = ffi.new("struct mmu_guest_config *")
        config.engine.uc, config.engine.emu_stop = self.engine.uc, self.engine.library.uc_emu_stop
        lib.mmu_guest_create(config, self._guest)
        hooks = ffi.new("struct mmu_guest_hooks *")
        lib.mmu_guest_hooks(hooks)
        self.engine.hook("INTR", hooks.interrupt, self._guest[0])

    def run(self, code: bytes) -> bytes:
        """The blob after running *code*."""
        self.memory.write(0, code)
        self.engine.start(CODE)
        return self.blob()

    def blob(self) -> bytes:
        return bytes(self.engine.save(self._context))

    def patch(self, at: int, size: int, value: int) -> None:
        self.engine.save(self._context)[at : at + size] = value.to_bytes(size, "little")
        self.engine.restore(self._context)

    def __enter__(self) -> _Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()
        lib.mmu_guest_destroy(self._guest[0])


@dataclass(frozen=True)
class X86Places:
    """Byte offsets in the blob. A segment is selector (4 bytes), padding, base (8), limit (4), flags (4)."""

    segments: int  # of ES; then CS, SS, DS, FS, GS, every `stride` bytes
    stride: int
    hflags: int  # bits 1:0 are the CPL
    error_code: int
    software: int  # nonzero: INT n
    previous: int  # the exception being delivered, -1 none: unicorn never clears it
    sse: int  # how SSE computes; see the distances below
    xcr0: int  # 8 bytes: the parts of the state that XSAVE may save


# From X86Places.sse: exceptions so far, whether denormal results become 0, MXCSR. In csrc/guest_mxcsr.c as well.
SSE_FLAGS, SSE_FLUSH, SSE_MXCSR = 2, 4, 8

HLT = b"\xf4"


def _x86_bench() -> _Bench:
    from unicorn import x86_const as u

    return _Bench("UC_ARCH_X86", "UC_MODE_64", u.UC_CPU_X86_BROADWELL)


def _load_ss(selector: int) -> bytes:
    """mov eax, selector with RPL 3; mov ss, eax: #GP(selector) while the GDT is empty."""
    return b"\xb8" + (selector | 3).to_bytes(4, "little") + b"\x8e\xd0" + HLT


@cache
def x86_places() -> X86Places:
    from unicorn import x86_const as u

    with _x86_bench() as bench:
        bases = []
        for register, value in (u.UC_X86_REG_FS_BASE, 0x1122334455667704), (u.UC_X86_REG_GS_BASE, 0x1122334455667705):
            bench.engine.write(register, value)
            bases.append(_only(_places(bench.blob(), value, 8), "a segment base"))
        stride = bases[1] - bases[0]
        segments = bases[0] - 8 - 4 * stride
        bench.engine.write(u.UC_X86_REG_CS, 0x5A5B)
        if int.from_bytes(bench.blob()[segments + stride :][:4], "little") != 0x5A5B:
            raise GuestError("this build of unicorn does not keep CS between ES and SS")
    hflags = segments - 8
    _check_privilege(hflags)
    blobs = {}
    for selector in (0x1C, 0x24):
        with _x86_bench() as bench:
            before, blobs[selector] = bench.blob(), bench.run(_load_ss(selector))
    error_code = _only(
        set(_places(blobs[0x1C], 0x1C, 4)) & set(_places(blobs[0x24], 0x24, 4)), "an exception's error code")
    previous = _only(
        set(_places(before, 0xFFFFFFFF, 4)) & {p for p in _places(blobs[0x1C], 13, 4) if p > error_code},
        "the exception being delivered")
    with _x86_bench() as bench:
        software = bench.run(b"\xcd\x80")
    near = range(error_code - 16, error_code + 17, 4)
    flag = _only(
        (p for p in near if software[p : p + 4] == b"\1\0\0\0" and blobs[0x1C][p : p + 4] == bytes(4)),
        "whether an interrupt is INT n")
    return X86Places(segments, stride, hflags, error_code, flag, previous, _x86_sse(), _x86_xcr0())


def _x86_sse() -> int:
    """The flags are 4 after a division by zero, 1 after one of zero by zero; of denormal numbers nothing is left."""
    from unicorn import x86_const as u

    mxcsr, blobs = 0x3F80, []
    for ones in (0, 1):
        with _x86_bench() as bench:
            bench.engine.write(u.UC_X86_REG_CR4, 1 << 9)  # OSFXSR
            bench.engine.write(u.UC_X86_REG_MXCSR, mxcsr)
            # mov eax, ones; cvtsi2ss xmm0, eax; xorps xmm1, xmm1; divss xmm0, xmm1
            code = b"\xb8" + ones.to_bytes(4, "little") + bytes.fromhex("f30f2ac0 0f57c9 f30f5ec1")
            blobs.append(bench.run(code + HLT))
    sse = _only(
        (p - SSE_MXCSR for p in _places(blobs[0], mxcsr, 4)
         if [blob[p - SSE_MXCSR + SSE_FLAGS] for blob in blobs] == [1, 4]), "the floating-point state of SSE")
    for flush in (0, 1):
        with _x86_bench() as bench:
            bench.engine.write(u.UC_X86_REG_CR4, 1 << 9)
            bench.patch(sse + SSE_FLUSH, 1, flush)
            # mov eax, 0x00800000; movd xmm0, eax; mov eax, 0x3f000000; movd xmm1, eax; mulss xmm0, xmm1; movd eax, xmm0
            bench.run(bytes.fromhex("b800008000 660f6ec0 b80000003f 660f6ec8 f30f59c1 660f7ec0") + HLT)
            if bench.engine.read(u.UC_X86_REG_EAX) != (0 if flush else 0x0040_0000):
                raise GuestError(f"this build of unicorn does not say at offset {sse} what becomes of denormal results")
    return sse


def _x86_xcr0() -> int:
    found = []
    for parts in (3, 7):
        with _x86_bench() as bench:
            # mov rax, cr4; bts rax, 18; mov cr4, rax; xor ecx, ecx; xor edx, edx; mov eax, parts; xsetbv; xor eax, eax
            enable = bytes.fromhex("0f20e0480fbae8120f22e031c931d2b8")
            blob = bench.run(enable + parts.to_bytes(4, "little") + bytes.fromhex("0f01d131c0") + HLT)
            found.append(set(_places(blob, parts, 8)))
    return _only(found[0] & found[1], "XCR0")


@cache
def x86_cpuid(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """EAX, EBX, ECX and EDX that the engine answers."""
    from unicorn import x86_const as u

    with _x86_bench() as bench:
        # mov eax, leaf; mov ecx, subleaf; cpuid
        bench.run(b"\xb8" + leaf.to_bytes(4, "little") + b"\xb9" + subleaf.to_bytes(4, "little") + b"\x0f\xa2" + HLT)
        eax, ebx, ecx, edx = (getattr(u, f"UC_X86_REG_E{letter}X") for letter in "ABCD")
        read = bench.engine.read
        return read(eax), read(ebx), read(ecx), read(edx)


def _check_privilege(hflags: int) -> None:
    """HLT ends the engine at CPL 0 and is #GP at CPL 3."""
    from unicorn import x86_const as u

    ends = {}
    for cpl in (0, 3):
        with _x86_bench() as bench:
            word = int.from_bytes(bench.blob()[hflags : hflags + 4], "little")
            if word & 3:
                raise GuestError(f"this build of unicorn starts with hflags {word:#x} at offset {hflags}, not at CPL 0")
            bench.patch(hflags, 4, word | cpl)
            bench.run(HLT)
            ends[cpl] = bench.engine.read(u.UC_X86_REG_RIP) - CODE
    if ends != {0: 1, 3: 0}:
        raise GuestError(f"this build of unicorn does not keep the CPL at offset {hflags}: HLT ended {ends}")


@dataclass(frozen=True)
class Arm64Places:
    """Byte offsets in the blob."""

    syndrome: int  # 4 bytes: ESR of the exception
    address: int  # 8 bytes: FAR of it


def _arm64_bench() -> _Bench:
    from unicorn import arm64_const as u

    return _Bench("UC_ARCH_ARM64", "UC_MODE_ARM", u.UC_CPU_ARM64_MAX)


@cache
def arm64_places() -> Arm64Places:
    from unicorn import arm64_const as u

    blobs = {}
    for imm in (0x1234, 0x4321):
        with _arm64_bench() as bench:
            blobs[imm] = bench.run((0xD4000001 | imm << 5).to_bytes(4, "little"))  # svc #imm
    syndrome = _only(
        set(_places(blobs[0x1234], 0x56001234, 4)) & set(_places(blobs[0x4321], 0x56004321, 4)), "a syndrome")
    with _arm64_bench() as bench:
        unaligned = CODE + 0x335
        bench.engine.write(u.UC_ARM64_REG_X1, unaligned)
        blob = bench.run((0xC85F7C20).to_bytes(4, "little"))  # ldxr x0, [x1]
    address = _only(
        (p for p in _places(blob, unaligned, 8) if syndrome < p <= syndrome + 32), "the address of an exception")
    return Arm64Places(syndrome, address)


def get(buffer: Any, at: int, size: int) -> int:
    return int.from_bytes(buffer[at : at + size], "little")


def put(buffer: Any, at: int, size: int, value: int) -> None:
    buffer[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
