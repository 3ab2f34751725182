"""Machine: programs run with their tables, code, data and stack where the caller says."""

import gc
import resource
import subprocess
import sys
import threading
import weakref

import pytest

from mmu.errors import AddressRangeError, AlignmentError, ClosedError, GuestError
from mmu.machine import Machine
from mmu.memory import AddressSpace, Mmio, Ram
from tests.guest.machines import (
    ARCHS,
    CODE,
    DATA,
    DATA_SIZE,
    MIB,
    PAGE,
    STACK,
    WINDOW,
    asm,
    code,
    machine,
    places,
    run,
    two_way,
)

SUM = {  # through memory and stack, so that loads and stores matter
    "x86_64": "mov ecx, 1000; xor eax, eax; 1: add rax, rcx; mov [rdi], rax; add rax, [rdi]; shr rax, 1; push rax;"
    " pop rbx; dec ecx; jnz 1b",
    "aarch64": "mov x3, #1000; mov x4, #0; 1: add x4, x4, x3; str x4, [x0]; ldr x5, [x0]; add x4, x4, x5;"
    " lsr x4, x4, #1; str x4, [sp, #-16]!; ldr x6, [sp], #16; sub x3, x3, #1; cbnz x3, 1b",
}
RESULT = {"x86_64": "rbx", "aarch64": "x6"}


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("where", ["window", "ram"])
def test_a_program_runs_with_everything_in_one_place(arch, where):
    m, result = run(arch, SUM[arch], tables=where, code=where, data=where, stack=where)
    with m:
        assert result.stop.reason == "halt"
        assert result.registers[RESULT[arch]] == 500500
        assert int.from_bytes(m.read(DATA, 8), "little") == 500500


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("only", ["tables", "code", "data", "stack"])
def test_each_area_alone_in_the_window_changes_no_register(arch, only):
    ram = dict.fromkeys(("tables", "code", "data", "stack"), "ram")
    m, expected = run(arch, SUM[arch], **ram)
    m.close()
    m, result = run(arch, SUM[arch], dispatch="exact", **{**ram, only: "window"})
    m.close()
    moved = {"cr3", "ttbr0_el1"} if only == "tables" else set()
    assert {n: v for n, v in expected.registers.items() if n not in moved} == {
        n: v for n, v in result.registers.items() if n not in moved
    }
    reached = result.counters.data if only in ("data", "stack") else getattr(result.counters, only)
    assert reached and set(reached) <= {"mem0", "mem1"}
    others = {"data", "tables", "code"} - {"data" if only == "stack" else only}
    assert not any(getattr(result.counters, name) for name in others)


def test_registers_at_the_start_say_where_data_and_stack_are():
    with machine() as m:
        m.load(code("x86_64", "nop"))
        r = m.registers
        assert (r["rdi"], r["rsi"], r["rsp"], r["rip"]) == (DATA, DATA_SIZE, STACK + (64 << 10), CODE)
    with machine("aarch64") as m:
        m.load(code("aarch64", "nop"))
        r = m.registers
        assert (r["x0"], r["x1"], r["sp"], r["pc"]) == (DATA, DATA_SIZE, STACK + (64 << 10), CODE)


@pytest.mark.parametrize("arch", ARCHS)
def test_without_setup_everything_goes_into_the_first_ram(arch):
    space = AddressSpace()
    space.map(0x1000, Ram(4 * MIB))
    with Machine(space, arch) as m:
        result = m.load(code(arch, SUM[arch])).run()
    assert (result.stop.reason, result.registers[RESULT[arch]]) == ("halt", 500500)


def test_without_setup_and_without_ram_it_says_so():
    with Machine(AddressSpace()) as m, pytest.raises(AddressRangeError, match="no RAM of 0xd0000 bytes"):
        m.load(b"\xf4")


def test_run_without_tables_is_refused():
    space, _, _ = two_way()
    with Machine(space) as m, pytest.raises(GuestError, match="no page tables"):
        m.run()


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"arch": "riscv64"}, "arch must be one of x86_64, aarch64, not 'riscv64'"),
        ({"dispatch": "fast"}, "dispatch must be one of auto, exact, direct, mirror, not 'fast'"),
        ({"emulator": "qemu-8.3"}, "release must be one of"),
    ],
)
def test_what_is_not_there_is_refused_clearly(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Machine(AddressSpace(), **kwargs)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"code": (WINDOW + 1, 4096)}, AlignmentError, "code: base must be whole pages of 4096 bytes"),
        ({"data": (WINDOW + MIB, 8192)}, AddressRangeError, "data 0x1000100000..0x1000101fff overlaps code"),
        ({"stack": (WINDOW, 0)}, AddressRangeError, "stack: 0x0 bytes"),
        ({"tables": (WINDOW, 2 * PAGE)}, AddressRangeError, "no frame left"),
    ],
)
def test_setup_wrong_place(change, error, message):
    space, _, _ = two_way()
    with Machine(space) as m, pytest.raises(error, match=message):
        m.setup(**{**places(), **change})


def test_load_wrong_program():
    with machine() as m:
        with pytest.raises(AddressRangeError, match="does not fit"):
            m.load(bytes(65 << 10))
        with pytest.raises(ValueError, match="at least one byte"):
            m.load(b"")
        with pytest.raises(ValueError, match="multiple of 4096"):
            m.load(b"\xf4", at=0x1234)


def test_code_goes_where_at_says():
    with machine() as m:
        result = m.load(code("x86_64", "nop"), at=0x55_0000).run()
        assert result.stop.pc == 0x55_0002


def test_registers_are_written_by_name():
    with machine() as m:
        m.load(code("x86_64", "add rax, rbx")).set(rax=40, rbx=2)
        assert m.run().registers["rax"] == 42
        with pytest.raises(ValueError, match="x86_64 has no register 'x0'"):
            m.set(x0=1)
        with pytest.raises(ValueError, match="rax must be 0"):
            m.set(rax=-1)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_run_goes_on_where_the_last_one_stopped(arch):
    step = {"x86_64": "add rax, 1", "aarch64": "add x9, x9, #1"}[arch]
    with machine(arch) as m:
        m.load(code(arch, f"{step}; {'hlt' if arch == 'x86_64' else 'wfi'}; {step}"))
        name = {"x86_64": "rax", "aarch64": "x9"}[arch]
        assert [m.run().registers[name] for _ in range(2)] == [1, 2]


# -- bounded runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHS)
def test_a_guest_that_never_ends_is_stopped_in_time_and_can_go_on(arch):
    with machine(arch) as m:
        m.load(asm(arch, {"x86_64": "1: inc rax; jmp 1b", "aarch64": "1: add x9, x9, #1; b 1b"}[arch]))
        first, second = m.run(timeout=0.05), m.run(timeout=0.05)
        assert (first.stop.reason, second.stop.reason) == ("timeout", "timeout")
        name = {"x86_64": "rax", "aarch64": "x9"}[arch]
        assert 0 < first.registers[name] < second.registers[name]


@pytest.mark.parametrize("arch", ARCHS)
def test_a_limit_counts_instructions_exactly(arch):
    with machine(arch) as m:
        m.load(code(arch, {"x86_64": "inc rax; " * 50, "aarch64": "add x9, x9, #1; " * 50}[arch]))
        name = {"x86_64": "rax", "aarch64": "x9"}[arch]
        first = m.run(limit=7)
        assert (first.stop.reason, first.registers[name], first.counters.instructions) == ("limit", 7, 7)
        assert m.run(limit=13).registers[name] == 20
        assert m.run().stop.reason == "halt"


def test_no_time_at_all_still_ends():
    with machine() as m:
        m.load(asm("x86_64", "1: jmp 1b"))
        assert m.run(timeout=0).stop.reason == "timeout"


# -- what reaches the host ------------------------------------------------------------------------


def test_an_exception_in_a_device_comes_out_unchanged():
    class Broken(Exception):
        pass

    def read(offset, size):
        raise Broken(offset)

    space, _, _ = two_way()
    space.map(0xF000_0000, Mmio(PAGE, read=read))
    with Machine(space).setup(**places()) as m:
        m.tables.map(0x2000_0000, 0xF000_0000, PAGE)
        m.load(code("x86_64", "mov eax, [rbx+16]")).set(rbx=0x2000_0000)
        with pytest.raises(Broken) as caught:
            m.run()
        assert caught.value.args == (16,)
        assert m.registers["rip"] == CODE


def test_a_page_table_in_a_broken_device_raises_too():
    def read(offset, size):
        raise RuntimeError("table device")

    space, _, _ = two_way()
    space.map(0xF000_0000, Mmio(PAGE, read=read))
    with Machine(space).setup(**places()) as m:
        m.load(code("x86_64", "nop"))
        m.set(cr3=0xF000_0000)
        with pytest.raises(RuntimeError, match="table device"):
            m.run()


def test_a_device_sees_accesses_whole_and_in_order():
    seen = []
    space, _, _ = two_way()
    device = Mmio(
        PAGE, read=lambda o, n: seen.append(("r", o, n)) or 0x11, write=lambda o, n, v: seen.append((o, n, v)))
    space.map(0xF000_0000, device)
    with Machine(space).setup(**places()) as m:
        m.tables.map(0x2000_0000, 0xF000_0000, PAGE)
        m.load(code("x86_64", "mov rax, [rbx+8]; mov [rbx+16], rax; mov byte ptr [rbx+3], 5")).set(rbx=0x2000_0000)
        result = m.run()
    assert seen == [("r", 8, 8), (16, 8, 0x11), (3, 1, 5)]
    assert result.registers["rax"] == 0x11


@pytest.mark.parametrize("arch", ARCHS)
def test_the_trace_is_what_walker_and_guest_did_in_order(arch):
    source = {"x86_64": "mov rax, [rdi+8]", "aarch64": "ldr x9, [x0, #8]"}[arch]
    m = machine(arch, code="ram")
    with m:
        m.load(code(arch, source))
        m.run()
        result = m.run(start=CODE, trace=100)
        data = WINDOW + 2 * MIB
        reads = [e.address for e in result.trace]
        assert [data + 8, data + 12] == reads[-2:]
        assert len(reads) == 10  # two walks of 4 levels, for code and for data
        root = m.walk_registers().cr3 if arch == "x86_64" else m.walk_registers().ttbr0_el1
        assert [root + (CODE >> 39) * 8, root + (DATA >> 39) * 8] == [reads[0], reads[4]]
        assert {8} == {e.size for e in result.trace[:8]}
        assert len(m.run(start=CODE, trace=3).trace) == 3


def test_nothing_of_python_runs_per_access():
    with machine(dispatch="exact") as m:
        m.load(code("x86_64", "1: mov [rdi], rcx; mov rax, [rdi]; dec rcx; jnz 1b"))

        def calls(iterations):
            m.set(rcx=iterations)
            seen = []
            sys.setprofile(lambda frame, event, arg: seen.append(event))
            try:
                result = m.run(start=CODE, timeout=None)
            finally:
                sys.setprofile(None)
            assert 4 * iterations == result.counters.bus_reads + result.counters.bus_writes
            return len(seen)

        calls(1)
        assert calls(1) == calls(20000)


# -- lifetimes ------------------------------------------------------------------------------------


def test_a_closed_machine_refuses():
    m = machine()
    m.load(code("x86_64", "nop"))
    m.close()
    m.close()
    for act in (m.run, lambda: m.registers, lambda: m.set(rax=1)):
        with pytest.raises(ClosedError):
            act()


def test_a_hundred_machines_leak_neither_engines_nor_memory():
    def cycle(n):
        for i in range(n):
            m, result = run("x86_64" if i % 2 else "aarch64", SUM["x86_64" if i % 2 else "aarch64"])
            assert result.stop.reason == "halt"
            if i % 3:
                m.close()  # the others are closed by going away
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    cycle(20)
    before = cycle(10)
    assert cycle(100) - before < 40_000  # KiB; an engine alone takes about 3000


def test_a_machine_goes_away_without_close():
    m, _ = run("x86_64", "nop")
    gone = weakref.ref(m.cpu)
    del m
    gc.collect()
    assert gone() is None


def test_two_machines_run_on_two_threads():
    results = {}

    def work(arch):
        m, result = run(arch, SUM[arch])
        results[arch] = result.registers[RESULT[arch]]
        m.close()

    threads = [threading.Thread(target=work, args=(arch,)) for arch in ARCHS]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert dict.fromkeys(ARCHS, 500500) == results


def test_importing_mmu_does_not_import_unicorn():
    heavy = ("unicorn", "capstone", "elftools")
    code = f"import sys, mmu, mmu.machine; assert not any(m.startswith({heavy}) for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


NAMES = {"x86_64": ("PML4", "PDPT", "PD", "PT"), "aarch64": ("L0", "L1", "L2", "L3")}


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("depth", range(4))
def test_tables_of_one_level_alone_in_the_window(arch, depth):
    m, expected = run(arch, SUM[arch], tables="ram")
    m.close()
    where = places()
    where["tables"] = {NAMES[arch][depth]: where["tables"][:2], "rest": places(tables="ram")["tables"][:2]}
    space, _, _ = two_way()
    with Machine(space, arch) as m:
        result = m.setup(**where).load(code(arch, SUM[arch])).run()
        nodes = m.tables.nodes()
    assert [node.level is m.tables.levels[depth] for node in nodes] == [node.address >= WINDOW for node in nodes]
    assert result.registers[RESULT[arch]] == expected.registers[RESULT[arch]]
    assert result.counters.tables


@pytest.mark.parametrize(
    "tables, message",
    [
        ({"PT": (WINDOW, 4096)}, "no place for PML4, PDPT, PD, and none for the rest"),
        ({"L3": (WINDOW, 4096), "rest": (0, 4096)}, "no level 'L3': levels are PML4, PDPT, PD, PT, and rest"),
        ({"PT": (WINDOW, 4096), "pte": (0, 4096), "rest": (0, 4096)}, "a level is named twice"),
        ({"PT": (WINDOW, 4096), "rest": (WINDOW, 8192)}, "overlaps tables"),
    ],
)
def test_places_of_levels_that_make_no_plan_are_refused(tables, message):
    space, _, _ = two_way()
    with Machine(space) as m, pytest.raises(ValueError, match=message):
        m.setup(**{**places(), "tables": tables})


def test_levels_may_share_an_area_and_have_the_names_of_their_entries():
    space, _, _ = two_way()
    ram = places(tables="ram")["tables"][:2]
    tables = {"pml4e": ram, "PDPTE": ram, "pd": (WINDOW, 64 << 10), "PTE": (WINDOW, 64 << 10)}
    with Machine(space) as m:
        m.setup(**{**places(), "tables": tables})
        assert {node.level.number: node.address >= WINDOW for node in m.tables.nodes()} == {
            4: False, 3: False, 2: True, 1: True,
        }  # fmt: skip


def test_a_trace_says_which_accesses_are_page_walks():
    space, _, _ = two_way()
    with Machine(space) as m:
        m.setup(**places()).load(code("x86_64", SUM["x86_64"]))
        trace = m.run(trace=1000).trace
        tables = [node.address for node in m.tables.nodes()]
    assert {entry.initiator for entry in trace} == {"data", "walk"}
    for entry in trace:
        assert (entry.initiator == "walk") == (entry.address & -PAGE in tables)
