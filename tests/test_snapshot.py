"""Snapshots: a machine goes on from one as if nothing had happened, here or in another process."""

import os
from functools import partial
from random import Random

import pytest

from mmu.errors import SnapshotError
from mmu.guest import state
from mmu.machine import Machine
from mmu.memory import AddressSpace, HostMemory, Ram, resident
from mmu.memory.resident import runs, touched
from mmu.snapshot import MAGIC, Snapshot
from tests.guest.kernel import KERNEL_CODE, USER_CODE, Kernel
from tests.guest.machines import ARCHS, CODE, DATA, END, MIB, PAGE, STACK, WINDOW, code, machine, places, two_way
from tests.tcg.test_twin import REGISTERS, random_program

# Touches memory, flags, stack and floating point in each round, so that a register left out shows.
WORK = {
    "x86_64": "mov ecx, 40; mov eax, 3; cvtsi2sd xmm0, eax; fild qword ptr [rdi]; 1: imul rax, rax, 7; adc rax, rcx;"
    " mov [rdi+rcx*8], rax; push rax; addsd xmm0, xmm0; divsd xmm0, xmm1; movq [rdi+rcx*8+1024], xmm0; fld1; faddp;"
    " fst qword ptr [rdi+rcx*8+2048]; cvtsi2sd xmm1, ecx; dec ecx; jnz 1b; pop rbx",
    "aarch64": "mov x3, #40; mov x4, #3; scvtf d0, x4; 1: mul x4, x4, x3; adds x4, x4, #1; adc x4, x4, x3;"
    " str x4, [x0, x3, lsl #3]; str x4, [sp, #-16]!; fadd d0, d0, d1; fmul d0, d0, d0; str d0, [x0, x3, lsl #3];"
    " scvtf d1, x3; sub x3, x3, #1; cbnz x3, 1b; ldr x5, [sp], #16",
}


def everything(m):
    """Registers, wide ones too, and all memory of a machine."""
    return m.snapshot()


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("steps", [1, 17, 100, 233])
def test_a_machine_goes_on_from_a_snapshot_in_another_machine(arch, steps, tmp_path):
    with machine(arch) as m:
        m.load(code(arch, WORK[arch]))
        assert m.run(limit=steps).stop.reason == "limit"
        m.snapshot().save(tmp_path / "half")
        expected = m.run()
        end = everything(m)
    assert expected.stop.reason == "halt"
    with Machine(two_way()[0], arch) as other:
        other.restore(Snapshot.load(tmp_path / "half"))
        found = other.run()
        assert (found.stop, found.registers) == (expected.stop, expected.registers)
        assert everything(other) == end


def cut(seed, arch, steps):
    """Whether a random program goes on from a snapshot after *steps*; False when it ended before."""
    with machine(arch) as m:
        m.load(random_program(arch, Random(seed))).set(**REGISTERS[arch])
        if m.run(limit=steps).stop.reason != "limit":
            return False
        half = m.snapshot()
        expected, end = m.run(limit=1000), m.snapshot()
    with Machine(two_way()[0], arch) as other:
        assert other.restore(half).snapshot() == half
        found = other.run(limit=1000)
        assert (found.stop, found.registers) == (expected.stop, expected.registers)
        assert other.snapshot() == end
    return True


@pytest.mark.parametrize("arch, steps", [("x86_64", 1), ("x86_64", 3), ("aarch64", 1)])
def test_random_programs_go_on_from_a_snapshot(arch, steps):
    assert sum(cut(seed, arch, steps) for seed in range(40)) > 3


@pytest.mark.parametrize("arch", ARCHS)
def test_restore_takes_back_everything_that_a_run_did(arch):
    with machine(arch) as m:
        m.load(code(arch, WORK[arch]))
        before = m.snapshot()
        first = m.run()
        after = m.snapshot()
        assert after != before
        m.restore(before)
        assert m.snapshot() == before
        assert m.run().registers == first.registers
        assert m.snapshot() == after


@pytest.mark.parametrize("arch", ARCHS)
def test_a_run_from_a_snapshot_makes_the_same_accesses_every_time(arch):
    with machine(arch) as m:
        m.load(code(arch, WORK[arch]))
        start = m.snapshot()
        traces = [m.restore(start).run(trace=10000).trace for _ in range(3)]
    assert len(traces[0]) > 100
    assert traces[0] == traces[1] == traces[2]


def test_a_snapshot_has_what_is_in_the_devices_and_no_more(tmp_path):
    space, targets, _ = two_way()
    with Machine(space) as m:
        m.setup(**places()).load(b"\xf4")
        targets[1].memory.write(5 * MIB + 1, b"x")
        found = {image.name: image for image in m.snapshot().memories}
    assert [(name, image.size) for name, image in found.items()] == [
        ("ram", 64 * MIB), ("mem0", 8 * MIB), ("mem1", 8 * MIB)]  # fmt: skip
    assert found["ram"].runs == ()
    assert (5 * MIB, b"\0x" + bytes(4094)) in found["mem1"].runs
    assert all(any(data) for image in found.values() for _, data in image.runs)


def test_a_guest_at_user_level_with_descriptor_tables_goes_on():
    """HLT is privileged: at CPL 3 it goes through IDT, GDT and TSS to a handler on the kernel's stack."""
    with Kernel() as k:
        k.handle(13, "mov rax, cs; hlt")
        m = k.machine
        m.run = partial(m.run, limit=300)
        stopped = k.run("nop", user="mov ecx, 1000; 1: dec ecx; jnz 1b; hlt")
        assert (stopped.stop.reason, stopped.registers["cs"]) == ("limit", USER_CODE)
        snapshot = m.snapshot()
        del m.run
        expected = m.run()
        end = m.snapshot()
    assert (expected.stop.reason, expected.registers["rax"], len(expected.delivered)) == ("halt", KERNEL_CODE, 1)
    with Machine(two_way()[0]) as other:
        other.restore(snapshot)
        found = other.run()
        assert (found.stop, found.registers, found.delivered) == (
            expected.stop, expected.registers, expected.delivered)
        assert other.snapshot() == end


CLOCKS = {
    "x86_64": ("rdtsc; mov ebx, eax; rdtsc", ("rbx", "rax")),
    "aarch64": ("mrs x9, cntvct_el0; mrs x10, cntpct_el0", ("x9", "x10")),
}
SYSTEM = {
    "x86_64": ("mov eax, 5; cdq; mov ecx, 0xc0000103; wrmsr; mov ecx, 0x277; wrmsr; nop; rdmsr; mov ebx, eax;"
               " mov ecx, 0xc0000103; rdmsr", ("rax", "rbx")),
    "aarch64": ("mov x1, #5; msr csselr_el1, x1; msr cntkctl_el1, x1; msr mdscr_el1, x1; nop; nop;"
                " mrs x2, csselr_el1; mrs x3, cntkctl_el1; mrs x4, mdscr_el1; and x4, x4, x1", ("x2", "x3", "x4")),
}  # fmt: skip


@pytest.mark.parametrize("arch", ARCHS)
def test_the_time_goes_on_from_a_snapshot(arch):
    """In the machine itself, which had gone on meanwhile, and in another one."""
    source, names = CLOCKS[arch]
    with machine(arch) as m, Machine(two_way()[0], arch) as other:
        m.load(code(arch, source))
        m.run()
        m.load(code(arch, source))
        snapshot = m.snapshot()
        seen = []
        for one in m, m, other:
            r = one.restore(snapshot).run().registers
            seen.append(tuple(r[name] for name in names))
        assert seen == [(3000, 4000)] * 3


def test_the_last_instruction_of_the_floating_point_unit_survives():
    with machine() as m, Machine(two_way()[0]) as other:
        m.load(code("x86_64", "fild dword ptr [rdi+8]; fxsave [rdi+0x40]"))
        m.run(limit=1)
        other.restore(m.snapshot())
        m.run()
        other.run()
        assert m.read(DATA + 0x40, 32) == other.read(DATA + 0x40, 32)
        assert int.from_bytes(m.read(DATA + 0x48, 8), "little") == CODE


@pytest.mark.parametrize("arch", ARCHS)
def test_system_registers_survive(arch):
    source, names = SYSTEM[arch]
    with machine(arch) as m, Machine(two_way()[0], arch) as other:
        m.load(code(arch, source))
        m.run(limit=6)
        other.restore(m.snapshot())
        r = other.run().registers
        assert [r[name] for name in names] == [5] * len(names)


@pytest.mark.parametrize("arch", ARCHS)
def test_the_state_of_a_cpu_survives_twice(arch):
    with machine(arch) as m, machine(arch) as other:
        m.load(code(arch, WORK[arch]))
        m.run(limit=60)
        taken = state.take(m.cpu)
        state.give(other.cpu, taken)
        assert state.take(other.cpu) == taken


def test_after_a_restore_another_program_can_be_loaded_and_gets_fresh_frames():
    with machine() as m:
        m.load(code("x86_64", "nop"))
        snapshot = m.snapshot()
    with Machine(two_way()[0]) as other:
        other.restore(snapshot)
        nodes = {node.address for node in other.tables.nodes()}
        other.load(code("x86_64", WORK["x86_64"]))
        assert other.run().stop.reason == "halt"
        other.tables.map(0x5000_0000_0000, 0, PAGE)
        fresh = {node.address for node in other.tables.nodes()} - nodes
        assert len(fresh) == 3
        assert other.read(STACK, 8) is not None and other.read(DATA, 8)


def test_memory_over_a_file_is_taken_and_written_back(tmp_path):
    path = tmp_path / "m0"
    path.write_bytes(bytes(4 * PAGE) + b"device" + bytes(4 * PAGE - 6))
    memory = HostMemory(16 * PAGE)
    fd = os.open(path, os.O_RDWR)
    memory.map_file(4 * PAGE, 8 * PAGE, fd)
    os.close(fd)
    memory.write(PAGE, b"before")
    space = AddressSpace()
    space.map(0, Ram(16 * PAGE, memory=memory))
    space.map(WINDOW, Ram(4 * MIB, "other"))
    with Machine(space) as m:
        snapshot = m.snapshot()
        (image, _) = snapshot.memories
        assert [at for at, _ in image.runs] == [PAGE, 8 * PAGE]
        memory.write(8 * PAGE, b"changed")
        memory.write(10 * PAGE, b"new")
        m.restore(snapshot)
    memory.sync()
    assert path.read_bytes() == bytes(4 * PAGE) + b"device" + bytes(4 * PAGE - 6)


def test_holes_of_a_file_are_not_read(tmp_path):
    path = tmp_path / "large"
    with open(path, "wb") as f:
        f.truncate(1 << 40)
        f.seek((1 << 39) + 5)
        f.write(b"old")
    memory = HostMemory((1 << 40) + MIB)
    fd = os.open(path, os.O_RDWR)
    memory.map_file(MIB, 1 << 40, fd)
    os.close(fd)
    memory.write(MIB, b"first")
    memory.write((1 << 38) + MIB, b"new")
    memory.write((1 << 40) + MIB - 4, b"last")
    memory.write(7, b"before")
    starts = [at for at, _ in runs(memory)]
    assert starts == [0, MIB, (1 << 38) + MIB, (1 << 39) + MIB, (1 << 40) + MIB - 4096]
    # A file that took the name says nothing about the one that is mapped.
    path.rename(tmp_path / "elsewhere")
    small = HostMemory(2 * PAGE)
    fd = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 2 * PAGE)
    small.map_file(0, 2 * PAGE, fd)
    os.close(fd)
    small.write(PAGE, b"here")
    (tmp_path / "other").rename(tmp_path / "gone")
    (tmp_path / "other").write_bytes(b"")
    assert list(runs(small)) == [(PAGE, PAGE)]


def test_runs_of_a_sparse_memory_cost_what_is_touched():
    memory = HostMemory(1 << 36)
    memory.write((1 << 35) + 4095, b"ab")
    memory.write(1 << 20, bytes(8192))  # touched, and still zero
    assert list(runs(memory)) == [(1 << 35, 8192)]
    assert sum(n for _, n in touched(memory)) <= 64 << 20  # host pages, which may be huge ones


def can_scan():
    with open("/proc/self/pagemap", "rb") as pagemap:
        try:
            return list(resident._scan(pagemap.fileno(), 1 << 20, 1 << 20 | PAGE)) == []
        except OSError:
            return False


@pytest.mark.skipif(not can_scan(), reason="needs Linux 6.7")
def test_runs_of_terabytes_read_no_page_map(monkeypatch):
    """A snapshot took seconds for each terabyte that nobody had touched."""
    monkeypatch.setattr(os, "pread", None)
    memory = HostMemory(8 << 40)
    for at in (5, 3 << 40, (8 << 40) - 1):
        memory.write(at, b"x")
    assert list(runs(memory)) == [(0, 4096), (3 << 40, 4096), ((8 << 40) - 4096, 4096)]


def test_runs_are_the_same_where_the_page_map_must_be_read(monkeypatch):
    memory = HostMemory(64 * MIB + 5)
    for n in range(3000):  # more than are asked for at once
        memory.write(2 * n * PAGE, b"x")
    memory.write(64 * MIB + 4, b"x")
    expected = list(runs(memory))
    monkeypatch.setattr(resident, "SCAN", 0xC0606613)  # no call
    assert list(runs(memory)) == expected == [(2 * n * PAGE, PAGE) for n in range(3000)] + [(64 * MIB, 5)]


def test_without_a_page_map_a_memory_is_read_as_a_whole(monkeypatch):
    memory = HostMemory(8 * MIB)
    memory.write(3 * MIB, b"here")
    memory.write(5 * MIB + 4095, b"ab")
    expected = list(runs(memory))
    monkeypatch.setattr(resident, "PAGEMAP", "/nowhere")
    assert list(runs(memory)) == expected == [(3 * MIB, 4096), (5 * MIB, 8192)]
    with pytest.raises(OSError, match="/nowhere cannot be read, so a memory of 0x1000000000 bytes"):
        list(runs(HostMemory(1 << 36)))


def test_runs_of_a_memory_that_ends_within_a_page():
    memory = HostMemory(5000)
    memory.write(4999, b"z")
    assert list(runs(memory)) == [(4096, 904)]


def damaged(data):
    start = len(MAGIC) + 8
    length = int.from_bytes(data[len(MAGIC) : start], "little")
    header, contents = data[start : start + length], data[start + length :]

    def built(header):
        return MAGIC + len(header).to_bytes(8, "little") + header + contents

    yield b"", "must begin with"
    yield b"PK" + data[2:], "must begin with"
    yield data[: len(MAGIC) + 3], "header"
    yield data[: start + 10], "the file ends after"
    yield data[:-1], "the file ends within it"
    yield data[:-1] + bytes([data[-1] ^ 1]), "CRC-32"
    yield built(b"{}"), "header is damaged: KeyError: 'memories'"
    yield built(b"[]"), "header is damaged"
    yield built(b"\xff" + header[1:]), "header is damaged"
    yield built(header.replace(b'"plan": {', b'"plan": [{', 1)), "header is damaged"
    yield built(header.replace(b'"runs": [[', b'"runs": [[-1')), "leave its"


def test_a_damaged_file_is_refused_with_one_clear_line(tmp_path):
    with machine() as m:
        m.load(code("x86_64", "nop"))
        m.write(DATA, b"\1" * PAGE)
        m.snapshot().save(tmp_path / "good")
        path = tmp_path / "bad"
        cases = list(damaged((tmp_path / "good").read_bytes()))
        for data, message in cases:
            path.write_bytes(data)
            with pytest.raises(SnapshotError, match=message) as caught:
                Snapshot.load(path)
            assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_snapshot_of_another_machine_is_refused_and_nothing_changes():
    with machine() as m, machine("aarch64") as arm:
        m.load(code("x86_64", "nop"))
        taken = m.snapshot()
        before = arm.snapshot()
        with pytest.raises(SnapshotError, match="of an x86_64 machine, and this is an aarch64 one"):
            arm.restore(taken)
        assert arm.snapshot() == before
    space = AddressSpace()
    space.map(0, Ram(32 * MIB))
    sizes = r"ram \(0x4000000 bytes\), mem0 .*ram \(0x2000000"
    with Machine(space) as small, pytest.raises(SnapshotError, match=sizes):
        small.restore(taken)


def test_a_damaged_cpu_is_refused_and_nothing_changes():
    with machine() as m:
        m.load(code("x86_64", WORK["x86_64"]))
        taken = m.snapshot()
        m.run()
        before = m.snapshot()
        for group, name in (("general", "rax"), ("wide", "xmm3"), ("segments", "cs")):
            bad = {**taken.cpu, group: {k: v for k, v in taken.cpu[group].items() if k != name}}
            with pytest.raises(SnapshotError, match=f"state of the CPU is damaged: KeyError: '{name}'"):
                m.restore(Snapshot(taken.arch, bad, taken.plan, taken.memories, taken.program))
            assert m.snapshot() == before


def test_the_ends_of_programs_are_known():
    assert set(END) == set(ARCHS) == set(WORK)


def test_memory_types_and_parts_of_xsave_are_in_a_snapshot():
    """MTRRs, and XCR0, for which the engine has no register."""
    enable = "mov rax, cr4; bts rax, 18; mov cr4, rax; xor ecx, ecx; xor edx, edx; mov eax, 3; xsetbv"
    with machine() as m:
        m.load(code("x86_64", f"{enable}; mov ecx, 0x250; mov eax, 0x06060405; wrmsr"))
        assert m.run().stop.reason == "halt"
        taken = m.snapshot()
        m.load(code("x86_64", "xor ecx, ecx; xgetbv; mov rbx, rax; mov ecx, 0x250; rdmsr"))
        after = m.snapshot()
        with machine() as other:
            for snapshot in (taken, after):
                other.restore(snapshot)
            r = other.set(rip=CODE).run()
            assert (r.stop.reason, r.registers["rbx"], r.registers["rax"]) == ("halt", 3, 0x06060405)
