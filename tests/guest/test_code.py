"""Code in windows, devices and RAM: what runs is what memory holds, also after stores to it."""

import pytest

from mmu.machine import Machine
from mmu.memory import HostMemory, Mmio, Striped, Target
from tests.guest.machines import ARCHS, CODE, MIB, PAGE, SIZE, WINDOW, asm, code, machine, places, route, two_way

WHERE = ("window", "ram")


@pytest.mark.parametrize("where", WHERE)
def test_a_loop_that_rewrites_itself(where):
    with machine(code=where) as m:
        source = "lea rbx, [rip+1f]; mov ecx, 3; 1: mov eax, 5; add rdx, rax; inc byte ptr [rbx+1]; dec ecx; jnz 1b"
        m.load(code("x86_64", source))
        assert m.run().registers["rdx"] == 5 + 6 + 7


@pytest.mark.parametrize("where", WHERE)
def test_x86_sees_a_store_to_the_very_next_instruction(where):
    """No jump in between: the CPU compares stores with what it has prefetched."""
    with machine(code=where) as m:
        m.load(code("x86_64", "mov byte ptr [rip+1f+1], 7; 1: mov eax, 5; mov ecx, eax"))
        assert m.run().registers["rcx"] == 7


@pytest.mark.parametrize("where", WHERE)
def test_a_store_from_another_page_changes_code_that_ran(where):
    with machine(code=where) as m:
        function = CODE + 3 * PAGE
        m.load(code("x86_64", "call rbx; mov byte ptr [rbx+1], 9; mov edx, eax; call rbx"))
        m.write(function, asm("x86_64", "mov eax, 1; ret"))
        m.set(rbx=function)
        r = m.run().registers
        assert (r["rdx"], r["rax"]) == (1, 9)


@pytest.mark.parametrize("where", WHERE)
def test_a_store_through_another_address_changes_code_that_ran(where):
    with machine(code=where) as m:
        base = (WINDOW if where == "window" else 8 * MIB) + MIB + 3 * PAGE
        m.tables.map(0x2000_0000, base, PAGE)
        m.load(code("x86_64", "call rbx; mov edx, eax; mov byte ptr [rsi+1], 9; call rbx"))
        m.write(CODE + 3 * PAGE, asm("x86_64", "mov eax, 1; ret"))
        m.set(rbx=CODE + 3 * PAGE, rsi=0x2000_0000)
        r = m.run().registers
        assert (r["rdx"], r["rax"]) == (1, 9)


@pytest.mark.parametrize("where", WHERE)
def test_a_page_that_was_written_before_it_ran(where):
    """The right to write it, under another address, must not outlive its first instruction."""
    with machine(code=where) as m:
        base = (WINDOW if where == "window" else 8 * MIB) + MIB + 3 * PAGE
        m.tables.map(0x2000_0000, base, PAGE)
        function = int.from_bytes(asm("x86_64", "mov eax, 1; ret").ljust(8, b"\x90"), "little")
        m.load(code("x86_64", "mov [rsi], rcx; call rbx; mov edx, eax; mov byte ptr [rsi+1], 9; call rbx"))
        r = m.set(rbx=CODE + 3 * PAGE, rsi=0x2000_0000, rcx=function).run().registers
        assert (r["rdx"], r["rax"]) == (1, 9)


@pytest.mark.parametrize("where", WHERE)
def test_code_that_is_rewritten_again_and_again_through_another_address(where):
    with machine(code=where) as m:
        base = (WINDOW if where == "window" else 8 * MIB) + MIB + 3 * PAGE
        m.tables.map(0x2000_0000, base, PAGE)
        function = int.from_bytes(asm("x86_64", "mov eax, 1; ret").ljust(8, b"\x90"), "little")
        m.load(code("x86_64", "mov [rsi], rcx; mov ecx, 9; 1: mov [rsi+1], cl; call rbx; add rdx, rax; call rbx;"
                    " add rdx, rax; dec ecx; jnz 1b"))
        r = m.set(rbx=CODE + 3 * PAGE, rsi=0x2000_0000, rcx=function).run().registers
        assert r["rdx"] == 2 * sum(range(1, 10))


@pytest.mark.parametrize("where", WHERE)
def test_an_unaligned_store_across_two_pages_of_code(where):
    with machine(code=where) as m:
        end = CODE + 2 * PAGE  # mov eax, imm32 with its last two bytes on the next page
        m.load(code("x86_64", "call rbx; mov edx, eax; mov dword ptr [rbx+1], 0x12345678; call rbx"))
        m.write(end - 3, asm("x86_64", "mov eax, 1; ret"))
        m.set(rbx=end - 3)
        r = m.run().registers
        assert (r["rdx"], r["rax"]) == (1, 0x1234_5678)


@pytest.mark.parametrize("where", WHERE)
def test_code_written_page_by_page_and_run(where):
    """A copy of a function over an old one costs one step, not one for each byte."""
    with machine(code=where) as m:
        old, new = CODE + 3 * PAGE, CODE + 5 * PAGE
        m.load(code("x86_64", "call rbx; mov rdi, rbx; mov ecx, 64; rep movsb; call rbx"))
        m.write(old, asm("x86_64", "mov eax, 1; ret"))
        m.write(new, asm("x86_64", "add eax, 41; ret").ljust(64, b"\x90"))
        m.set(rbx=old, rsi=new)
        result = m.run()
        assert result.registers["rax"] == 42
        assert result.counters.steps <= 2


@pytest.mark.parametrize("where", WHERE)
def test_arm64_sees_new_code_after_the_barriers_it_asks_for(where):
    with machine("aarch64", code=where) as m:
        function = CODE + 3 * PAGE
        source = ("blr x9; mov x2, x0; str w3, [x9]; dc cvau, x9; dsb ish; ic ivau, x9; dsb ish; isb; blr x9")
        m.load(code("aarch64", source))
        m.write(function, asm("aarch64", "mov x0, #1; ret"))
        m.set(x9=function, x3=int.from_bytes(asm("aarch64", "mov x0, #9"), "little"))
        r = m.run().registers
        assert (r["x2"], r["x0"]) == (1, 9)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("where", WHERE)
def test_code_that_the_host_changed_between_runs(arch, where):
    with machine(arch, code=where) as m:
        name = {"x86_64": "eax", "aarch64": "w0"}[arch]
        hash_ = {"x86_64": "", "aarch64": "#"}[arch]
        m.load(code(arch, f"mov {name}, {hash_}1"))
        m.run()
        m.write(CODE, code(arch, f"mov {name}, {hash_}2"))
        assert m.run(start=CODE).registers[{"x86_64": "rax", "aarch64": "x0"}[arch]] == 2


@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("first", ["mov [rbx+0x800], al", "mov [rbx], al; mov [rbx], al", "xchg [rbx+0x800], al"])
@pytest.mark.parametrize("where", WHERE)
def test_x86_runs_stale_code_behind_a_second_store_to_its_page(where, first, limit):
    """The engine looks at the first store to a page of code; then it lets the page be written."""
    with machine(code=where) as m:
        m.load(code("x86_64", f"nop; nop; {first}; mov byte ptr [rip+1f+1], 7; mov edx, 9; 1: mov ecx, 5; nop"))
        r = m.set(rbx=CODE, rax=0x90).run(limit=limit).registers
        assert (r["rcx"], r["rdx"]) == (7, 9)


MAINTENANCE = "dc cvau, x9; dsb ish; ic ivau, x9; dsb ish; isb"


@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("where", WHERE)
def test_arm64_runs_stale_code_of_a_page_that_holds_data_as_well(where, limit, capfd):
    with machine("aarch64", code=where) as m:
        loop = "2: add w1, w1, #0x20; str w1, [x9]; str xzr, [x2, #0x800]; str w1, [x9]"
        behind = "add x5, x5, x3; str xzr, [x2, #0x800]; sub x6, x6, #1; cbnz x6, 2b"
        m.load(code("aarch64", f"adr x9, 1f; mov x6, #3; {loop}; {MAINTENANCE}; 1: mov w3, #0x11; {behind}"))
        first = int.from_bytes(asm("aarch64", "mov w3, #0x11"), "little")
        r = m.set(x1=first, x2=CODE, x5=0).run(limit=limit).registers
        assert (r["x3"], r["x5"]) == (0x14, 0x12 + 0x13 + 0x14)
    assert capfd.readouterr().err == ""  # the engine has an opinion of registers that it does not know


def test_data_on_a_page_of_code_stays_right(dispatch):
    """Each store to a copy of the page runs alone; the rest of the program does not notice."""
    with machine() as m:
        m.load(code("x86_64", "mov ecx, 50; 1: inc qword ptr [rbx]; add rax, [rbx]; dec ecx; jnz 1b")).set(rbx=0x400100)
        result = m.run()
        assert result.registers["rax"] == sum(range(1, 51))
        assert result.counters.steps == (50 if dispatch == "exact" else 0)
        assert m.read(0x400100, 8) == (50).to_bytes(8, "little")


def test_a_fault_inside_a_step_is_exact():
    """movsq reads an unmapped page and would write to a page of code."""
    with machine() as m:
        m.load(code("x86_64", "mov [rdi], rax; mov esi, 0x30000004; movsq")).set(rdi=0x400100)
        stop = m.run().stop
        assert (stop.exception.error_code, stop.exception.cr2) == (0, 0x3000_0004)


@pytest.mark.parametrize("arch", ARCHS)
def test_code_in_a_device_is_read_once_and_runs(arch):
    image = code(arch, {"x86_64": "mov eax, 77", "aarch64": "mov x0, #77"}[arch]).ljust(PAGE, b"\0")
    seen = []

    def read(offset, size):
        seen.append((offset, size))
        return int.from_bytes(image[offset : offset + size], "little")

    space, _, _ = two_way()
    space.map(0xF000_0000, Mmio(PAGE, read=read))
    with Machine(space, arch).setup(**places()) as m:
        m.load(code(arch, "nop"))
        m.tables.map(0x2000_0000, 0xF000_0000, PAGE, executable=True)
        result = m.run(start=0x2000_0000)
        assert result.registers[{"x86_64": "rax", "aarch64": "x0"}[arch]] == 77
        assert sum(size for _, size in seen) == PAGE
        assert result.counters.shadows == 1


def test_a_store_to_code_in_a_device_reaches_the_device_and_the_code():
    image = bytearray(asm("x86_64", "mov eax, 1; ret").ljust(PAGE, b"\0"))

    def write(offset, size, value):
        image[offset : offset + size] = value.to_bytes(size, "little")

    space, _, _ = two_way()
    space.map(0xF000_0000, Mmio(PAGE, read=lambda o, n: int.from_bytes(image[o : o + n], "little"), write=write))
    with Machine(space).setup(**places()) as m:
        m.load(code("x86_64", "call rbx; mov edx, eax; mov byte ptr [rbx+1], 9; call rbx"))
        m.tables.map(0x2000_0000, 0xF000_0000, PAGE, executable=True)
        r = m.set(rbx=0x2000_0000).run().registers
        assert (r["rdx"], r["rax"], image[1]) == (1, 9, 9)


@pytest.mark.parametrize("where", WHERE)
def test_more_pages_of_code_than_the_guest_remembers(where, dispatch):
    """The copies are dropped and made again; the program does not notice. (6144 pages are remembered.)"""
    count = 6500
    space, _, _ = two_way()
    base = 16 * MIB
    if where == "window":
        base = 1 << 40
        large = Striped(32 * MIB, base, [Target(f"large{n}", HostMemory(16 * MIB)) for n in range(2)])
        large.set_route(route(base=base, size=32 * MIB))
        space.map(base, large)
    with Machine(space).setup(**places(tables="ram", code="ram", data="ram", stack="ram")) as m:
        function = asm("x86_64", "inc rax; ret")
        for n in range(count):
            space.write(base + n * PAGE, function)
        m.load(code("x86_64", "1: call rbx; add rbx, 4096; dec ecx; jnz 1b"))
        m.tables.map(0x2000_0000, base, count * PAGE, page_size=PAGE, executable=True)
        result = m.set(rbx=0x2000_0000, rcx=count).run()
        assert (result.stop.reason, result.registers["rax"]) == ("halt", count)
        copied = count if where == "window" else 0
        assert (result.counters.shadows, result.counters.mirrored) == (
            (copied, 0) if dispatch == "exact" else (0, copied))


SECOND = 0x3800_0000


@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("where", WHERE)
def test_zeroing_the_code_that_runs_next_makes_it_undefined(where, limit):
    with machine("aarch64", code=where) as m:
        m.load(code("aarch64", "nop; nop; dc zva, x9; nop; nop; mov x10, #1")).set(x9=CODE)
        stop = m.run(limit=limit).stop
        assert (stop.reason, stop.pc, stop.exception.esr, m.registers["x10"]) == ("fault", CODE + 12, 0x0200_0000, 0)


def test_code_that_is_zeroed_through_a_second_window():
    """The function is called, then a block of it is zeroed where the same memory lies as data, then it is called."""
    space, targets, _ = two_way(PAGE)
    again = Striped(SIZE, 1 << 37, targets, "again")
    again.set_route(route(PAGE, base=1 << 37))
    space.map(1 << 37, again)
    function = CODE + 3 * PAGE
    with Machine(space, "aarch64").setup(**places()) as m:
        m.tables.map(SECOND, (1 << 37) + MIB + 3 * PAGE, PAGE, page_size=PAGE, executable=False)
        m.load(code("aarch64", "blr x9; dc zva, x10; dsb ish; isb; blr x9"))
        m.write(function, asm("aarch64", "add x0, x0, #1; ret"))
        stop = m.set(x9=function, x10=SECOND, x0=0).run().stop
        assert m.read(function, 64) == bytes(64)
        assert (stop.reason, stop.pc, m.registers["x0"]) == ("fault", function, 1)
