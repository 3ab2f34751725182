"""Programs: raw code, ELF files, assembler source, and what is wrong with them."""

import shutil
import subprocess

import pytest

from mmu.errors import AddressRangeError, GuestError
from mmu.guest import loader
from mmu.guest.loader import Program, Segment
from tests.guest.machines import ARCHS, CODE, asm, code, machine

PREFIX = {"x86_64": "x86_64-linux-gnu-", "aarch64": "aarch64-linux-gnu-"}
SOURCE = {
    "x86_64": """
	.intel_syntax noprefix
	.globl _start
	.section .rodata
table:	.quad 40
	.data
value:	.quad 2
	.bss
zero:	.skip 0x3000
	.text
	nop
_start:
	mov rax, table[rip]
	add rax, value[rip]
	add rax, zero[rip+0x2000]
	inc qword ptr value[rip]
	hlt
""",
    "aarch64": """
	.globl _start
	.section .rodata
table:	.quad 40
	.data
value:	.quad 2
	.bss
zero:	.skip 0x3000
	.text
	nop
_start:
	ldr x9, =table
	ldr x0, [x9]
	ldr x9, =value
	ldr x1, [x9]
	add x0, x0, x1
	add x1, x1, #1
	str x1, [x9]
	ldr x9, =zero + 0x2000
	ldr x1, [x9]
	add x0, x0, x1
	wfi
""",
}


def build(tmp_path, arch, *flags, link=True):
    """An ELF file made by the GNU tools."""
    if not loader.can_assemble(arch):
        pytest.skip(f"no GNU as and ld for {arch}")
    tools = [shutil.which(PREFIX[arch] + t) or shutil.which(t) for t in ("as", "ld")]
    source, unit, linked = tmp_path / "a.s", tmp_path / "a.o", tmp_path / "a.elf"
    source.write_text(SOURCE[arch])
    subprocess.run([tools[0], "-o", unit, source], check=True)
    if link:
        subprocess.run([tools[1], "-o", linked, *flags, unit], check=True)
    return linked if link else unit


@pytest.mark.parametrize("arch", ARCHS)
def test_an_elf_file_runs_at_its_addresses(arch, tmp_path):
    path = build(tmp_path, arch, "-Ttext=0x600000", "-z", "max-page-size=4096")
    with machine(arch) as m:
        result = m.load(path).run()
        assert result.stop.reason == "halt"
        assert result.registers[{"x86_64": "rax", "aarch64": "x0"}[arch]] == 42
        assert 0x600000 < result.stop.pc < 0x601000


def test_segments_have_the_rights_of_the_file(tmp_path):
    path = build(tmp_path, "x86_64", "-Ttext=0x600000", "-z", "max-page-size=4096", "-z", "separate-code")
    program = loader.read_program(path, "x86_64")
    rights = {(s.writable, s.executable) for s in program.segments}
    assert (False, True) in rights and (True, False) in rights
    with machine() as m:
        m.load(path)
        m.set(rip=program.entry)
        text = next(s for s in program.segments if s.executable)
        m.tables.find(text.va)
        assert not m.tables.find(text.va).rights["writable"]


def test_an_elf_image_may_be_given_as_bytes(tmp_path):
    data = build(tmp_path, "x86_64", "-Ttext=0x600000", "-z", "max-page-size=4096").read_bytes()
    with machine() as m:
        assert m.load(data).run().registers["rax"] == 42


@pytest.mark.parametrize("arch, other", [ARCHS, ARCHS[::-1]])
def test_an_elf_file_for_another_machine(arch, other, tmp_path):
    path = build(tmp_path, other, "-Ttext=0x600000")
    with machine(arch) as m, pytest.raises(GuestError, match=f"the guest is {loader.MACHINES[arch]}, 64, little"):
        m.load(path)


def test_an_object_file_is_refused(tmp_path):
    path = build(tmp_path, "x86_64", link=False)
    with pytest.raises(GuestError, match=r"is ET_REL; it must be linked"):
        loader.read_program(path, "x86_64")


@pytest.mark.parametrize("size", [5, 20, 63, 64, 100, 200])
def test_a_truncated_elf_file_is_one_clear_error(size, tmp_path):
    data = build(tmp_path, "x86_64", "-Ttext=0x600000", "-z", "max-page-size=4096").read_bytes()
    with pytest.raises(GuestError, match="the program"):
        loader.read_program(data[:size], "x86_64")


def test_an_elf_file_whose_every_byte_is_damaged_in_turn_never_breaks_the_loader(tmp_path):
    data = bytearray(build(tmp_path, "x86_64", "-Ttext=0x600000", "-z", "max-page-size=4096").read_bytes())
    for at in range(0, 0x200):
        for value in (0, 0x7F, 0xFF):
            damaged = bytes(data[:at]) + bytes([value]) + bytes(data[at + 1 :])
            try:
                program = loader.read_program(damaged, "x86_64")
            except GuestError:
                continue
            assert all(len(s.data) <= s.size for s in program.segments)


def test_an_elf_file_cannot_be_moved(tmp_path):
    path = build(tmp_path, "x86_64", "-Ttext=0x600000")
    with machine() as m, pytest.raises(ValueError, match="it cannot go to 0x700000"):
        m.load(path, at=0x70_0000)


def test_segments_that_do_not_fit():
    program = Program((Segment(0x60_0000, b"\xf4", 1 << 20),), 0x60_0000)
    with machine() as m, pytest.raises(AddressRangeError, match="0x100000 bytes, and the code area has 0x10000 left"):
        m.load(program)


def test_two_segments_in_one_page_are_refused():
    program = Program((Segment(0x60_0000, b"\xf4", 1), Segment(0x60_0800, b"\1", 1)), 0x60_0000)
    with machine() as m, pytest.raises(ValueError, match="share the page at 0x600000"):
        m.load(program)


# -- raw code and source --------------------------------------------------------------------------


def test_a_raw_file(tmp_path):
    path = tmp_path / "raw.bin"
    path.write_bytes(code("x86_64", "mov eax, 42"))
    with machine() as m:
        assert m.load(str(path)).run().registers["rax"] == 42


def test_a_file_that_is_not_there(tmp_path):
    for name in ("none.bin", "none.s"):
        with pytest.raises(FileNotFoundError):
            loader.read_program(tmp_path / name, "x86_64")


def test_assembler_source(tmp_path):
    if not loader.can_assemble("x86_64"):
        pytest.skip("no GNU as and ld for x86_64")
    path = tmp_path / "program.s"
    path.write_text(".globl _start\nnop\n_start: mov $42, %eax\nhlt\n")
    program = loader.read_program(path, "x86_64")
    assert (program.entry, program.relocatable) == (1, True)
    with machine() as m:
        result = m.load(path).run()
        assert (result.registers["rax"], result.stop.pc) == (42, CODE + 7)


@pytest.mark.parametrize(
    "source, message",
    [
        ("this is no instruction\n", "assembling .*Error"),
        (".data\n.quad 1\n.text\nhlt\n", "8 bytes in .data: put everything into .text"),
        (".bss\n.skip 16\n.text\nhlt\n", "16 bytes in .bss"),
        ("call elsewhere\n", "linking .*undefined reference"),
        ("# nothing\n", "no code in .text"),
    ],
)
def test_source_that_cannot_be_used(source, message, tmp_path):
    if not loader.can_assemble("x86_64"):
        pytest.skip("no GNU as and ld for x86_64")
    path = tmp_path / "program.s"
    path.write_text(source)
    with pytest.raises(GuestError, match=message):
        loader.read_program(path, "x86_64")


def test_without_an_assembler_it_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(loader.shutil, "which", lambda name: None)
    path = tmp_path / "program.s"
    path.write_text("hlt\n")
    with pytest.raises(GuestError, match="needs aarch64-linux-gnu-as"):
        loader.read_program(path, "aarch64")


def test_the_known_snippets_are_what_gnu_as_makes():
    """Of each architecture that can be assembled here, a sample: all of them take too long."""
    from tests.guest.assembler import assembled, known

    for arch, rows in known().items():
        if loader.can_assemble(arch):
            for source in sorted(rows)[:: max(1, len(rows) // 25)]:
                assert assembled(arch, source) == asm(arch, source), source
