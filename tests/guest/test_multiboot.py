"""Multiboot kernels: 32-bit entry, the way to long mode, and images that are none."""

import struct

import pytest

from mmu import Machine, Ram
from mmu.errors import AddressRangeError, BusError, GuestError
from mmu.guest.devices import DebugExit, Serial16550
from mmu.guest.multiboot import INFO
from mmu.memory import AddressSpace
from tests.guest.machines import MIB, WINDOW, asm, two_way

LOAD, HEAD, LONG, GDT = 0x10_0000, 32, 0x400, 0x800
GDT_BYTES = struct.pack("<3Q", 0, 0x00AF9A00_0000FFFF, 0x00CF9200_0000FFFF) + struct.pack("<HI", 23, LOAD + GDT)
# Tables at 0x10000: the first 2 MiB, and (PML4 entry 1) the window by one page of 1 GiB.
TO_LONG_MODE = (
    ".code32; mov esi, ebx; mov dword ptr [0x10000], 0x11003; mov dword ptr [0x11000], 0x12003;"
    " mov dword ptr [0x12000], 0x83; mov dword ptr [0x10008], 0x13003; mov dword ptr [0x13000], 0x83;"
    " mov dword ptr [0x13004], 0x10; mov ecx, cr4; or ecx, 0x20; mov cr4, ecx; mov ecx, 0x10000; mov cr3, ecx;"
    " mov ebp, eax;"
    " mov ecx, 0xc0000080; rdmsr; or eax, 0x100; wrmsr; mov eax, cr0; or eax, 0x80000000; mov cr0, eax;"
    f" lgdt [{LOAD + GDT + 24}]; .byte 0xea; .long {LOAD + LONG}; .word 8"
)
IN_LONG_MODE = (
    "mov ax, 16; mov ds, eax; mov ss, eax; movabs rdi, 0x8000000000; mov [rdi+8], rdi; mov r8, [rdi+8];"
    " mov edx, 0x3f8; mov al, 0x36; out dx, al; mov al, 0x34; out dx, al; mov eax, 42; out 0xf4, eax; 1: jmp 1b"
)


def header(entry=LOAD + HEAD, flags=1 << 16, load=LOAD, load_end=0, bss_end=0, checksum=0):
    return struct.pack(
        "<8I", 0x1BADB002, flags, -(0x1BADB002 + flags) + checksum & 0xFFFFFFFF, load, load, load_end, bss_end, entry)


def kernel(code32, **options):
    image = (header(**options) + code32).ljust(LONG, b"\0") + asm("x86_64", IN_LONG_MODE)
    return image.ljust(GDT, b"\0") + GDT_BYTES


@pytest.fixture
def m():
    space, _, _ = two_way()
    with Machine(space) as m:
        yield m


def test_a_kernel_goes_to_long_mode_and_into_the_window(m):
    m.io.map(0x3F8, serial := Serial16550())
    m.io.map(0xF4, DebugExit(m))
    stop = m.boot(kernel(asm("x86_64", TO_LONG_MODE))).run().stop
    assert (stop.reason, stop.code, serial.output) == ("exit", 42, b"64")
    r = m.registers
    assert (r["r8"], r["rbp"], r["rsi"]) == (0x8000000000, 0x2BADB002, INFO)
    assert m.space.load(WINDOW + 8, 8)[0] == 0x8000000000
    assert (r["efer"] & 0x500, r["cs"]) == (0x500, 8)


def test_a_machine_boots_again(m):
    """From long mode, whose code segment is none of 32 bits."""
    m.io.map(0xF4, DebugExit(m))
    for _ in range(2):
        stop = m.boot(kernel(asm("x86_64", TO_LONG_MODE))).run().stop
        assert (stop.reason, stop.code) == ("exit", 42)


def test_the_boot_information(m):
    m.boot(kernel(asm("x86_64", ".code32; hlt")), command_line="console=ttyS0")
    assert m.run().stop.reason == "halt"
    info = m.space.read(INFO, 120)
    flags, lower, upper, _, line = struct.unpack_from("<5I", info)
    length, table = struct.unpack_from("<2I", info, 44)
    assert (flags, lower, upper) == (0x45, 640, 63 * 1024)
    assert m.space.read(line, 14) == b"console=ttyS0\0"
    assert struct.unpack("<IQQI", m.space.read(table, length)) == (20, 0, 64 * MIB, 1)


def test_code_of_32_bits_runs_as_such(m):
    """0x40 is INC EAX there, and a prefix in 64-bit code."""
    code = asm("x86_64", ".code32; inc eax; push eax; pop ecx; mov edx, 0xffffffff; inc edx; hlt")
    r = m.boot(kernel(code)).set(rsp=0x8000).run().registers
    assert (r["rcx"], r["rdx"]) == (0x2BADB003, 0)


def test_an_exception_before_long_mode_ends_the_run(m):
    m.boot(kernel(asm("x86_64", f".code32; lidt [{LOAD + GDT + 24}]; ud2")))
    stop = m.run().stop
    assert (stop.reason, stop.detail) == ("fault", "exceptions are delivered in long mode only")
    assert stop.exception.vector == 6


def test_zeroes_behind_the_image(m):
    m.space.write(LOAD, b"\xff" * 0x4000)
    image = kernel(asm("x86_64", ".code32; hlt"), load_end=LOAD + 0x100, bss_end=LOAD + 0x2000)
    m.boot(image)
    assert m.space.read(LOAD, 0x2001) == image[:0x100] + bytes(0x1F00) + b"\xff"


@pytest.mark.parametrize(
    "image, error, message",
    [
        (b"", GuestError, "no multiboot header"), (bytes(9000), GuestError, "no multiboot header"),
        (bytes(8192) + header(), GuestError, "no multiboot header"),
        (header(checksum=1), GuestError, "no multiboot header"),
        (header(flags=4 | 1 << 16), GuestError, "asks for 0x4"),
        (header()[:16], GuestError, "ends behind the image"),
        (header(load_end=LOAD + 0x1000), GuestError, "loads bytes"),
        (header(flags=0), GuestError, "is no ELF file"),
        (header(load=0xE000_0000), BusError, "0xe0000000"),
        (header(load=INFO, entry=INFO), AddressRangeError, "overlaps the boot information"),
    ],
)  # fmt: skip
def test_images_that_cannot_be_booted(m, image, error, message):
    with pytest.raises(error, match=message):
        m.boot(image)


def test_multiboot_is_for_x86():
    with Machine(AddressSpace(), "aarch64") as arm, pytest.raises(ValueError, match="for x86_64, not aarch64"):
        arm.boot(b"")


def test_an_elf_kernel(m, tmp_path):
    """A 32-bit ELF file, made by hand: one segment, loaded at another address than it is linked to."""
    code = asm("x86_64", ".code32; mov ecx, 77; hlt")
    body = struct.pack("<3I", 0x1BADB002, 0, -0x1BADB002 & 0xFFFFFFFF) + code
    elf = b"\x7fELF" + bytes([1, 1, 1]) + bytes(9) + struct.pack(
        "<2H5I6H", 2, 3, 1, 0xC010_000C, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    elf += struct.pack("<8I", 1, 84, 0xC010_0000, 0x10_0000, len(body), 0x1000, 7, 4)
    path = tmp_path / "kernel"
    path.write_bytes(elf + body)
    r = m.boot(path).run()
    assert (r.stop.reason, r.registers["rcx"]) == ("halt", 77)
    assert r.stop.pc == 0x10_000C + len(code)


def test_ram_apart_is_in_the_map():
    space = AddressSpace()
    space.map(0, Ram(2 * MIB))
    space.map(1 << 32, Ram(4 * MIB))
    with Machine(space) as m:
        m.boot(kernel(asm("x86_64", ".code32; hlt")))
        length, table = struct.unpack("<2I", m.space.read(INFO + 44, 8))
        entries = m.space.read(table, length)
        assert [struct.unpack_from("<IQQI", entries, n) for n in (0, 24)] == [
            (20, 0, 2 * MIB, 1), (20, 1 << 32, 4 * MIB, 1)]
