"""What a guest may be placed on, beside plain RAM and windows: aliases, ROM, odd sizes, changes while it runs."""

import pytest

from mmu.machine import Machine
from mmu.memory import Alias, Mmio, Ram, RamDevice, Rom
from mmu.stripes import Route
from mmu.x86.format import Cr4
from tests.guest.machines import CODE, DATA, MIB, PAGE, WINDOW, asm, code, machine, places, route, two_way

VA = 0x2000_0000


def mapped(space, pa, size=PAGE, **rights):
    m = Machine(space).setup(**places())
    m.load(code("x86_64", "nop"))
    m.tables.map(VA, pa, size, page_size=PAGE, executable=True, **rights)
    return m


def run(m, source, **registers):
    m.write(CODE, code("x86_64", source))
    with m:
        return m.set(rip=CODE, rbx=VA, **registers).run()


def test_rom_runs_and_drops_stores():
    space, _, _ = two_way()
    image = asm("x86_64", "mov eax, 42; ret").ljust(PAGE, b"\0")
    space.map(0xF000_0000, Rom(image))
    result = run(mapped(space, 0xF000_0000), "mov byte ptr [rbx+1], 9; call rbx; mov cl, [rbx+1]")
    assert (result.stop.reason, result.registers["rax"], result.registers["rcx"]) == ("halt", 42, 42)


def test_device_ram_is_ram():
    space, _, _ = two_way()
    space.map(0xF000_0000, RamDevice(PAGE, "bar"))
    result = run(mapped(space, 0xF000_0000), "mov [rbx+8], rbx; mov rax, [rbx+8]")
    assert result.registers["rax"] == VA
    assert result.counters.bus_writes == 0


def test_a_region_that_ends_inside_a_page():
    space, _, _ = two_way()
    space.map(0xF000_0000, Ram(0x1800, "short"))
    result = run(mapped(space, 0xF000_0000, 2 * PAGE),
                 "mov [rbx+0x17fc], ebx; mov eax, [rbx+0x17fc]; mov ecx, [rbx+0x1800]; mov [rbx], ebx; mov edx, [rbx]")
    r = result.registers
    assert (r["rax"], r["rcx"], r["rdx"]) == (VA, 0, VA)
    assert result.counters.bus_errors == 1
    assert result.counters.first_bus_error.address == 0xF000_1800


def test_regions_that_share_a_page_each_get_their_own():
    space, _, _ = two_way()
    low, high = Ram(0x800, "low"), Ram(0x800, "high")
    space.map(0xF000_0000, low)
    space.map(0xF000_0800, high)
    result = run(mapped(space, 0xF000_0000), "mov rax, 0x1122334455667788; mov [rbx+0x7fc], rax; mov rcx, [rbx+0x7fc]")
    assert result.registers["rcx"] == 0x1122334455667788
    assert (low.memory.read(0x7FC, 4), high.memory.read(0, 4)) == (b"\x88\x77\x66\x55", b"\x44\x33\x22\x11")


def test_a_region_shown_askew_to_its_own_pages():
    space, _, _ = two_way()
    ram = Ram(0x4000)
    space.map(0xF000_0000, Alias(ram, 0x123, 2 * PAGE))
    m = mapped(space, 0xF000_0000)
    m.write(VA, asm("x86_64", "mov eax, 42; ret"))
    result = run(m, "call rbx; mov [rbx+0x10], rbx")
    assert result.registers["rax"] == 42
    assert ram.memory.read(0x133, 8) == VA.to_bytes(8, "little")


@pytest.mark.parametrize("kind", ["ram", "window", "device"])
def test_a_store_through_an_alias_changes_code_that_ran(kind):
    """Two physical addresses of one memory: the code is known by what it is, not by where it is shown."""
    space, _, window = two_way()
    image = bytearray(PAGE)

    def write(offset, size, value):
        image[offset : offset + size] = value.to_bytes(size, "little")

    device = Mmio(PAGE, read=lambda o, n: int.from_bytes(image[o : o + n], "little"), write=write)
    target = {"ram": Ram(PAGE), "window": window, "device": device}[kind]
    at = WINDOW + 8 * MIB if kind == "window" else 0xF000_0000
    if kind != "window":
        space.map(at, target)
    space.map(0xF100_0000, Alias(target, 8 * MIB if kind == "window" else 0, PAGE))
    m = mapped(space, at)
    m.tables.map(VA + PAGE, 0xF100_0000, PAGE)
    m.write(VA, asm("x86_64", "mov eax, 1; ret"))
    result = run(m, "call rbx; mov edx, eax; mov byte ptr [rbx+4097], 9; call rbx")
    assert (result.registers["rdx"], result.registers["rax"]) == (1, 9)


def test_a_window_that_is_routed_anew_between_runs():
    with machine(tables="ram", code="ram", stack="ram") as m:
        window = next(r.region for r in m.space.view.ranges if r.region.name == "window")
        m.load(code("x86_64", "mov rax, [rdi]; mov qword ptr [rdi], 7"))
        assert m.run().registers["rax"] == 0
        assert m.run(start=CODE).registers["rax"] == 7
        window.set_route(Route())
        lost = m.run(start=CODE)
        assert (lost.registers["rax"], lost.counters.bus_errors) == (0, 2)  # reads err, writes are dropped
        window.set_route(route())
        back = m.run(start=CODE)
        assert (back.registers["rax"], back.counters.bus_errors, back.counters.first_bus_error) == (7, 0, None)


def test_a_guest_that_programs_the_decoder_itself():
    """A store to a device takes the route away: the very next access misses."""
    space, _, window = two_way()
    space.map(0xF000_0000, Mmio(PAGE, write=lambda o, n, v: window.set_route(Route() if v else route())))
    m = Machine(space).setup(**places(tables="ram", code="ram", stack="ram"))
    m.load(code("x86_64", "nop"))
    m.tables.map(VA, 0xF000_0000, PAGE)
    result = run(m, "mov dword ptr [rdi], 5; mov ecx, [rdi]; mov dword ptr [rbx], 1; mov edx, [rdi];"
                    " mov dword ptr [rbx], 0; mov esi, [rdi]", rdi=DATA)
    r = result.registers
    assert (r["rcx"], r["rdx"], r["rsi"]) == (5, 0, 5)
    assert result.counters.bus_errors == 1


def test_ram_that_appears_between_runs():
    space, _, _ = two_way()
    m = mapped(space, 0xF000_0000)
    with m:
        m.write(CODE, code("x86_64", "mov [rbx], rbx; mov rax, [rbx]"))
        m.set(rip=CODE, rbx=VA)
        assert m.run().registers["rax"] == 0
        space.map(0xF000_0000, Ram(PAGE))
        assert m.run(start=CODE).registers["rax"] == VA
        space.unmap(next(r.region for r in space.view.ranges if r.first == 0xF000_0000))
        assert m.run(start=CODE).registers["rax"] == 0


def test_supervisor_access_prevention():
    """SMAP: a user's page is out of reach unless AC is set; SMEP: it does not run in any case."""
    space, _, _ = two_way()
    m = mapped(space, WINDOW + 8 * MIB, user=1)
    bits = Cr4.make(SMAP=1, SMEP=1)
    with m:
        allowed = "mov rax, cr4; or rax, rcx; mov cr4, rax; stac; mov rdx, [rbx]; clac"
        m.write(CODE, code("x86_64", f"{allowed}; mov rdx, [rbx]"))
        stop = m.set(rip=CODE, rbx=VA, rcx=bits).run().stop
        assert (stop.exception.error_code, stop.exception.cr2) == (1, VA)
        assert stop.pc == CODE + len(asm("x86_64", allowed))
        m.write(CODE, code("x86_64", "stac; jmp rbx"))
        stop = m.set(rip=CODE, rbx=VA).run().stop
        assert (stop.exception.error_code, stop.pc) == (1 | 16, VA)


def test_another_program_takes_the_place_of_the_one_before():
    with machine() as m:
        for at, number in (None, 1), (0x55_0000, 2), (None, 3):
            assert m.load(code("x86_64", f"mov eax, {number}"), at=at).run().registers["rax"] == number
        assert m.tables.find(0x55_0000) is None
