"""Machines that share memory: atomic instructions are atomic for all of them, on two threads as on one."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mmu import Access, AddressSpace, HostMemory, Machine, Mmio, Ram, Striped, Target, arm64, x86
from mmu.guest import sharing
from tests.guest.machines import ARCHS, CODE, DATA, MIB, PAGE, SIZE, WINDOW, code, places, route, two_way

ROOT = Path(__file__).resolve().parents[2]
SHARED = 0x2000_0000
COUNT = 4000
# The shared pages: +0 the word, +64 a lock, +128 and +192 the flags of both. R12 / X12: their address. Each sets its
# own flag and waits for the other's, so that they run at the same time.
MEET = {
    "x86_64": "mov dword ptr [r12+r13], 1; 9: cmp dword ptr [r12+r14], 0; je 9b; mov ecx, 4000;",
    "aarch64": "mov w9, #1; str w9, [x12, x13]; 9: ldr w9, [x12, x14]; cbz w9, 9b; mov w11, #4000; add x8, x12, #64;",
}
# source, and where it counts
UPDATES = {
    "x86_64": (
        ("1: lock inc qword ptr [r12]; dec ecx; jnz 1b", (0,)),
        ("1: mov eax, 1; lock xadd [r12], eax; dec ecx; jnz 1b", (0,)),
        ("1: lock add word ptr [r12+2], 1; dec ecx; jnz 1b", (2,)),
        ("1: mov rax, [r12]; 2: lea rbx, [rax+1]; lock cmpxchg [r12], rbx; jne 2b; dec ecx; jnz 1b", (0,)),
        ("1: mov eax, 1; xchg [r12+64], eax; test eax, eax; jnz 1b; inc qword ptr [r12]; mov dword ptr [r12+64], 0;"
         " dec ecx; jnz 1b", (0,)),
        ("1: lock bts dword ptr [r12+64], 3; jc 1b; inc qword ptr [r12]; lock btr dword ptr [r12+64], 3; dec ecx;"
         " jnz 1b", (0,)),
        ("mov esi, ecx; 1: mov rax, [r12]; mov rdx, [r12+8]; 2: lea rbx, [rax+1]; lea rcx, [rdx+1];"
         " lock cmpxchg16b [r12]; jne 2b; dec esi; jnz 1b", (0, 8)),
        ("1: lock inc dword ptr [r12+2]; dec ecx; jnz 1b", (2,)),
        ("1: lock inc qword ptr [r12+60]; dec ecx; jnz 1b", (60,)),
        ("1: lock inc qword ptr [r12+252]; dec ecx; jnz 1b", (252,)),
        ("1: mov eax, 1; lock xadd [r12+4094], eax; dec ecx; jnz 1b", (4094,)),
        ("1: stc; lock adc word ptr [r12+1], 0; dec ecx; jnz 1b", (1,)),
        ("1: clc; lock sbb dword ptr [r12+4094], -1; dec ecx; jnz 1b", (4094,)),
        ("mov esi, ecx; 1: mov eax, [r12+60]; mov edx, [r12+64]; 2: lea ebx, [rax+1]; mov ecx, edx;"
         " lock cmpxchg8b [r12+60]; jne 2b; dec esi; jnz 1b", (60,)),
    ),
    "aarch64": (
        ("mov x9, #1; 1: ldadd x9, x10, [x12]; sub w11, w11, #1; cbnz w11, 1b", (0,)),
        ("mov w9, #1; add x12, x12, #2; 1: ldaddalh w9, w10, [x12]; sub w11, w11, #1; cbnz w11, 1b", (2,)),
        ("1: ldxr x9, [x12]; add x9, x9, #1; stxr w10, x9, [x12]; cbnz w10, 1b; sub w11, w11, #1; cbnz w11, 1b", (0,)),
        ("1: ldr x9, [x12]; 2: mov x10, x9; add x15, x9, #1; casal x9, x15, [x12]; cmp x9, x10; b.ne 2b;"
         " sub w11, w11, #1; cbnz w11, 1b", (0,)),
        ("1: mov w9, #1; swpal w9, w10, [x8]; cbnz w10, 1b; ldr x9, [x12]; add x9, x9, #1; str x9, [x12];"
         " stlr wzr, [x8]; sub w11, w11, #1; cbnz w11, 1b", (0,)),
        ("mov x4, x12; 1: ldp x0, x1, [x4]; 2: mov x6, x0; mov x7, x1; add x2, x0, #1; add x3, x1, #1;"
         " caspal x0, x1, x2, x3, [x4]; cmp x0, x6; ccmp x1, x7, #0, eq; b.ne 2b; sub w11, w11, #1; cbnz w11, 1b",
         (0, 8)),
        ("1: ldp w0, w1, [x12]; 2: mov w6, w0; mov w7, w1; add w2, w0, #1; mov w3, w1; casp w0, w1, w2, w3, [x12];"
         " cmp w0, w6; ccmp w1, w7, #0, eq; b.ne 2b; sub w11, w11, #1; cbnz w11, 1b", (0,)),
        ("1: ldaxp w0, w1, [x12]; add w0, w0, #1; stlxp w10, w0, w1, [x12]; cbnz w10, 1b; sub w11, w11, #1;"
         " cbnz w11, 1b", (0,)),
        ("1: ldxp x0, x1, [x12]; add x0, x0, #1; add x1, x1, #1; stxp w10, x0, x1, [x12]; cbnz w10, 1b;"
         " sub w11, w11, #1; cbnz w11, 1b", (0, 8)),
    ),
}  # fmt: skip
CASES = [(arch, *update) for arch in ARCHS for update in UPDATES[arch]]


def two_machines(arch, space, where):
    """Two machines with areas of their own, and the same two pages, apart, of *where* ("window", "ram") at SHARED."""
    machines = []
    for n in range(2):
        areas = places(**dict.fromkeys(("tables", "code", "data", "stack"), "ram"))
        own = {name: (base + n * 5 * MIB, size, va) for name, (base, size, va) in areas.items()}
        m = Machine(space[n % len(space)], arch).setup(**own)
        pa = WINDOW + 6 * MIB if where == "window" else 40 * MIB
        for page in range(2):
            m.tables.map(SHARED + page * PAGE, pa + page * MIB, PAGE, page_size=PAGE, executable=False)
        machines.append(m)
    return machines


def run_both(machines, arch, *sources, timeout=60):
    """Each its source; the last one is that of all others too."""
    own, other, base = {"x86_64": ("r13", "r14", "r12"), "aarch64": ("x13", "x14", "x12")}[arch]
    for n, m in enumerate(machines):
        m.load(code(arch, sources[min(n, len(sources) - 1)]))
        m.set(**{own: 128 + 64 * n, other: 192 - 64 * n, base: SHARED})
    results = [None, None]

    def work(n):
        results[n] = machines[n].run(timeout=timeout)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [r.stop.reason for r in results] == ["halt", "halt"]
    return results


def total(m, place=0):
    return int.from_bytes(m.read(SHARED + place, 8), "little")


@pytest.mark.parametrize("where", ["window", "ram"])
@pytest.mark.parametrize("arch, update, counts", CASES)
def test_no_update_is_lost(arch, update, counts, where):
    space, _, _ = two_way()
    one, two = two_machines(arch, [space], where)
    with one, two:
        run_both((one, two), arch, f"{MEET[arch]} {update}")
        assert [total(one, at) for at in counts] == [total(two, at) for at in counts] == [2 * COUNT] * len(counts)


HALVES = (
    "1: lock inc dword ptr [r12+64]; dec ecx; jnz 1b",
    "1: mov eax, [r12+64]; 2: lea edx, [rax+1]; lock cmpxchg [r12+64], edx; jne 2b; dec ecx; jnz 1b",
    "1: mov [r12+64], ecx; cmp [r12+64], ecx; jne 2f; dec ecx; jnz 1b; mov dword ptr [r12+64], 4000; 2:",
)  # fmt: skip


@pytest.mark.parametrize("where", ["window", "ram"])
@pytest.mark.parametrize("half", HALVES)
def test_a_split_lock_beside_accesses_to_half_of_it(half, where):
    """One counts in 8 bytes across two lines; the other in the upper half of them, or stores there and looks."""
    space, _, _ = two_way()
    one, two = two_machines("x86_64", [space], where)
    split = "1: lock inc qword ptr [r12+60]; dec ecx; jnz 1b"
    with one, two:
        run_both((one, two), "x86_64", f"{MEET['x86_64']} {split}", f"{MEET['x86_64']} {half}")
        assert total(one, 60) == COUNT << 32 | COUNT


# -- one update that comes between the load and the store of another, every time ------------------


def leaf_in_device(m, act):
    """Moves the table that maps SHARED into a device; the second look at the entry calls *act*."""
    walk = {"x86_64": x86.walk, "aarch64": arm64.walk}[m.arch]
    steps = walk(m.space, m.walk_registers(), SHARED, Access.READ, update=False).steps
    entry, table = steps[-1].address, steps[-1].address // PAGE * PAGE
    image, looks = bytearray(m.space.read(table, PAGE)), []

    def read(offset, size):
        if offset == entry - table:
            looks.append(offset)
            if len(looks) == 2:
                act()
        return int.from_bytes(image[offset : offset + size], "little")

    def write(offset, size, value):
        image[offset : offset + size] = value.to_bytes(size, "little")

    m.space.map(0xF000_0000, Mmio(PAGE, read, write))
    m.space.store(steps[-2].address, 8, steps[-2].value - table + 0xF000_0000)


LOST = (
    ("x86_64", "lock inc qword ptr [r12]", {}, 101), ("x86_64", "lock xadd [r12], rax", {"rax": 100}, 107),
    ("x86_64", "xchg [r12], rax", {"rax": 100}, 7), ("x86_64", "xchg [r12], al", {"rax": 100}, 7),
    ("x86_64", "mov eax, 1; lock cmpxchg [r12], rbx", {"rax": 100}, 100),
    ("x86_64", "lock neg word ptr [r12]", {}, 0x10000 - 100),
    ("x86_64", "lock or dword ptr [r12], 0x1000", {}, 0x1064), ("aarch64", "ldadd x9, x9, [x12]", {"x9": 100}, 107),
    ("aarch64", "swpalb w9, w10, [x12]", {"x10": 100}, 7),
    ("aarch64", "mov x9, #1; cas x9, x11, [x12]", {"x9": 100}, 100),
    ("aarch64", "ldxr x9, [x12]; stxr w10, x11, [x12]", {"x10": 1}, 100),
    ("x86_64", "mov eax, 1; xor edx, edx; xor ecx, ecx; lock cmpxchg16b [r12]", {"rax": 100, "rdx": 0}, 100),
    ("aarch64", "mov x0, #1; mov x1, xzr; mov x2, x9; mov x3, xzr; casp x0, x1, x2, x3, [x12]", {"x0": 100}, 100),
    ("aarch64", "mov x0, #1; mov x1, xzr; mov x2, x9; mov x3, xzr; caspa x0, x1, x2, x3, [x12]", {"x0": 100}, 100),
    ("aarch64", "ldxp x0, x1, [x12]; stxp w10, x11, x1, [x12]", {"x10": 1}, 100),
)  # fmt: skip


@pytest.mark.parametrize("arch, source, changed, word", LOST, ids=[source for _, source, _, _ in LOST])
def test_an_update_that_comes_in_between_is_not_overwritten(arch, source, changed, word):
    """The page is clean: the engine loads, asks for the right to store, and gets it when another has stored."""
    space, _, _ = two_way()
    one, two = two_machines(arch, [space], "ram")
    with one, two:
        pa = 40 * MIB
        clean = {"x86_64": {"accessed": 1, "dirty": 0}, "aarch64": {"dbm": 1, "writable": 0}}
        one.tables.protect(SHARED, PAGE, **clean[arch])
        leaf_in_device(one, lambda: space.store(pa, 8, 100))
        space.store(pa, 8, 1)
        if arch == "aarch64":
            one.set(tcr_el1=one.registers["tcr_el1"] | 3 << 39)  # HA, HD
        names = {"x86_64": ("r12", "rax", "rbx"), "aarch64": ("x12", "x9", "x11")}[arch]
        r = one.load(code(arch, source)).set(**dict(zip(names, (SHARED, 7, 55)))).run().registers
        assert {name: r[name] for name in changed} == changed
        assert space.load(pa, 8)[0] == word


def test_hosts_that_share_a_device():
    """Two spaces with RAM of their own, and one set of devices."""
    targets = [Target(f"mem{n}", HostMemory(SIZE // 2)) for n in range(2)]
    spaces = []
    for _ in range(2):
        space = AddressSpace()
        space.map(0, Ram(64 * MIB))
        window = Striped(SIZE, WINDOW, targets, "window")
        window.set_route(route())
        space.map(WINDOW, window)
        spaces.append(space)
    one, two = two_machines("x86_64", spaces, "window")
    with one, two:
        run_both((one, two), "x86_64", f"{MEET['x86_64']} {UPDATES['x86_64'][0][0]}")
        assert total(one) == total(two) == 2 * COUNT


def test_an_instruction_limit_counts_each_once():
    space, _, _ = two_way()
    one, two = two_machines("x86_64", [space], "ram")
    with one, two:
        one.load(code("x86_64", "1: lock inc qword ptr [r12]; lock inc qword ptr [r12+8]; jmp 1b")).set(r12=SHARED)
        result = one.run(limit=3 * 100 + 1)
        assert (result.counters.instructions, total(one)) == (301, 101)
        assert two.read(SHARED + 8, 8) == (100).to_bytes(8, "little")


@pytest.mark.parametrize("arch, source", [
    ("x86_64", "lock inc qword ptr [r12+8]"), ("x86_64", "xchg [r12+8], rax"),
    ("aarch64", "add x12, x12, #8; ldadd x9, x10, [x12]"),
])  # fmt: skip
def test_a_fault_of_an_atomic_instruction_is_exact(arch, source):
    space, _, _ = two_way()
    one, two = two_machines(arch, [space], "ram")
    with one, two:
        one.tables.protect(SHARED, PAGE, writable=False)
        one.load(code(arch, source)).set(**{{"x86_64": "r12", "aarch64": "x12"}[arch]: SHARED})
        stop = one.run().stop
        assert (stop.reason, stop.fault.va) == ("fault", SHARED + 8)
        assert stop.pc == CODE + (4 if arch == "aarch64" else 0)


def test_atomic_instructions_on_a_page_of_code():
    space, _, _ = two_way()
    one, two = two_machines("x86_64", [space], "ram")
    with one, two:
        source = ("lea rbx, [rip+1f]; mov ecx, 3; 1: mov eax, 5; add rdx, rax; lock inc byte ptr [rbx+1]; dec ecx;"
                  " jnz 1b")  # fmt: skip
        assert one.load(code("x86_64", source)).run().registers["rdx"] == 5 + 6 + 7


def test_alone_a_machine_runs_them_at_full_speed():
    """Nothing leaves the engine while nobody shares its memory."""
    space, _, _ = two_way()
    one, two = two_machines("x86_64", [space], "ram")
    with one:
        one.load(code("x86_64", "lock inc qword ptr [rdi]; mov rax, [rdi]"))
        assert one.run().counters.bus_writes > 0
        two.close()
        counters = one.set(rdi=DATA).run(start=CODE).counters
        assert (counters.bus_reads, counters.bus_writes) == (0, 0)


@pytest.mark.parametrize("limit", [4, 5])
def test_a_stop_while_an_update_is_lost_counts_it_once(limit):
    space, _, _ = two_way()
    one, two = two_machines("x86_64", [space], "ram")
    with one, two:
        one.tables.protect(SHARED, PAGE, accessed=1, dirty=0)
        leaf_in_device(one, lambda: (space.store(40 * MIB, 8, 100), one.cpu.interrupt()))
        one.load(code("x86_64", "nop; lock inc qword ptr [r12]; 1: inc rbx; jmp 1b")).set(r12=SHARED, rbx=0)
        first = one.run(limit=limit)
        assert (first.stop.reason, first.stop.pc, first.counters.instructions) == ("timeout", CODE + 1, 1)
        assert one.run(limit=limit - 1).counters.instructions == limit - 1
        assert (total(one), one.registers["rbx"]) == (101, (limit - 1) // 2)


# -- who else runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 60])
def test_a_machine_that_comes_when_another_runs(at):
    """The one that runs was alone, and its atomic instructions the engine's own business."""
    space, _, _ = two_way()
    one = Machine(space).setup(**places(**dict.fromkeys(("tables", "code", "data", "stack"), "ram")))
    one.tables.map(SHARED, 40 * MIB, PAGE, page_size=PAGE, executable=False)
    one.load(code("x86_64", f"1: lock inc qword ptr [r12+{at}]; inc rbx; cmp dword ptr [r12+128], 0; je 1b"))
    one.set(r12=SHARED, rbx=0)
    results = []
    thread = threading.Thread(target=lambda: results.append(one.run(timeout=60)))
    thread.start()
    while not space.read(40 * MIB, 8 + at)[at]:
        pass
    areas = places(**dict.fromkeys(("tables", "code", "data", "stack"), "ram"))
    with Machine(space).setup(**{name: (base + 5 * MIB, size, va) for name, (base, size, va) in areas.items()}) as two:
        two.tables.map(SHARED, 40 * MIB, PAGE, page_size=PAGE, executable=False)
        source = f"mov ecx, 40000; 1: lock inc qword ptr [r12+{at}]; dec ecx; jnz 1b; mov dword ptr [r12+128], 1"
        two.load(code("x86_64", source)).set(r12=SHARED).run(timeout=60)
    thread.join()
    with one:
        assert total(one, at) == results[0].registers["rbx"] + 40_000


def with_device(m, read, write=lambda offset, size, value: None):
    m.space.map(0xF000_0000, Mmio(PAGE, read, write))
    m.tables.map(SHARED + 4 * PAGE, 0xF000_0000, PAGE, page_size=PAGE, executable=False)


def one_machine(space, at=0):
    """Alone on *space*, so far, with the shared page at SHARED."""
    areas = places(**dict.fromkeys(("tables", "code", "data", "stack"), "ram"))
    m = Machine(space).setup(**{name: (base + at, size, va) for name, (base, size, va) in areas.items()})
    m.tables.map(SHARED, 40 * MIB, PAGE, page_size=PAGE, executable=False)
    return m


ASKS = ("mov eax, [r12+0x4000]", "mov [r12+0x4000], eax", "in al, 0x70", "out 0x70, al", "")


@pytest.mark.parametrize("source", ASKS)
def test_a_machine_that_comes_while_a_device_is_asked(source):
    """In the middle of a block that holds atomic instructions; or while one waits for a page table in a device."""
    spaces, ram, came = [AddressSpace(), AddressSpace()], Ram(64 * MIB), []
    for space, memory in zip(spaces, (ram, Ram(64 * MIB))):
        space.map(0, memory)
    one, two = (one_machine(space) for space in spaces)
    two.load(code("x86_64", "nop"))

    def come(*_):
        if not came:  # nothing is written, and the map of the first one stays: all there is to see is the machine
            spaces[1].map(WINDOW, ram)
            came.append(two.run().stop.reason)
        return 0

    with one, two:
        if source:
            with_device(one, come, come)
            one.io.map(0x70, Mmio(1, come, come))
        else:
            one.tables.protect(SHARED, PAGE, accessed=1, dirty=0)  # looked at again for the store
            leaf_in_device(one, come)
        first = "mov qword ptr [r12], 0; " if source else ""  # no TLB miss comes behind the device
        one.load(code("x86_64", f"{first}{source}; lock inc qword ptr [r12]")).set(r12=SHARED)
        writes = one.run().counters.bus_writes
        assert came == ["halt"]
        assert writes > source.startswith("mov [")  # that of the device
        assert total(one) == 1


@pytest.mark.parametrize("where", ["ram", "window"])
@pytest.mark.parametrize("shows", [0, 1])
def test_memory_that_becomes_common_while_a_machine_runs(shows, where):
    """In the middle of a block; the machine that runs is shown it, or the other one is."""
    spaces, memory = [AddressSpace(), AddressSpace()], HostMemory(64 * MIB)
    for n, space in enumerate(spaces):
        space.map(0, Ram(64 * MIB))
        if where == "ram" and n != shows:
            space.map(WINDOW, Ram(64 * MIB, memory=memory))
    windows = [Striped(SIZE, WINDOW, [Target(f"mem{n}", memory), Target("more", HostMemory(SIZE))]) for n in range(2)]
    windows[1 - shows].set_route(route())
    if where == "window":
        spaces[1 - shows].map(WINDOW, windows[1 - shows])
    one, two = (one_machine(space) for space in spaces)

    def come(*_):
        if where == "ram":
            spaces[shows].map(WINDOW, Ram(64 * MIB, memory=memory))
        else:
            spaces[shows].map(WINDOW, windows[shows])
            windows[shows].set_route(route())

    with one, two:
        with_device(one, lambda *_: 0, come)
        one.load(code("x86_64", "mov [r12], rax; mov [r12+0x4000], eax; lock inc qword ptr [r12]")).set(r12=SHARED)
        assert one.run().counters.bus_writes > 1  # to the device
        one.load(code("x86_64", "lock inc qword ptr [r12]")).set(r12=SHARED)
        two.close()
        assert one.run().counters.bus_writes == 0


def test_two_machines_that_come_at_once(monkeypatch):
    """The second comes when the first has looked for others, and before it noted what it found."""
    space, _, _ = two_way()
    one, elsewhere, threads = one_machine(space), one_machine(two_way()[0]), []

    def come():
        with one_machine(space, 5 * MIB) as two:
            two.load(code("x86_64", "mov dword ptr [r12+128], 1")).set(r12=SHARED).run(timeout=None)

    def memories(space, found=sharing._memories):
        if not threads:
            threads.append(threading.Thread(target=come))
            threads[0].start()
            threads[0].join(0.5)
        return found(space)

    with one, elsewhere:
        monkeypatch.setattr(sharing, "_memories", memories)
        one.load(code("x86_64", "9: cmp dword ptr [r12+128], 0; je 9b; lock inc qword ptr [r12]")).set(r12=SHARED)
        assert one.run(timeout=60).counters.bus_writes
        threads[0].join()


def test_a_device_that_waits_for_another_machine_stops_nobody():
    """A split lock waits until no other machine runs; one that only waits for a device does not run."""
    space, _, _ = two_way()
    one, two = two_machines("x86_64", [space], "ram")
    asked, done, seen = threading.Event(), threading.Event(), []

    def read(offset, size):
        asked.set()
        seen.append(done.wait(5))
        return 0

    with one, two:
        with_device(two, read)
        two.load(code("x86_64", "mov eax, [r12+0x4000]")).set(r12=SHARED)
        thread = threading.Thread(target=two.run, kwargs={"timeout": None})
        thread.start()
        assert asked.wait(30)
        one.load(code("x86_64", "lock inc qword ptr [r12+60]")).set(r12=SHARED)
        assert one.run(timeout=None).stop.reason == "halt"
        done.set()
        thread.join()
        assert (seen, total(one, 60)) == ([True], 1)


def test_a_device_that_runs_another_machine():
    space, _, _ = two_way()
    one, two = two_machines("x86_64", [space], "ram")
    with one, two:
        one.load(code("x86_64", "lock inc qword ptr [r12+60]")).set(r12=SHARED)
        with_device(two, lambda offset, size: one.run(start=CODE, timeout=None).registers["r12"])
        two.load(code("x86_64", "lock inc qword ptr [r12+60]; mov rax, [r12+0x4000]; lock inc qword ptr [r12+60]"))
        result = two.set(r12=SHARED).run(timeout=None)
        assert (result.stop.reason, result.registers["rax"]) == ("halt", SHARED)
        assert total(two, 60) == 3


@pytest.mark.parametrize("source", ["lock cmpxchg16b [r12+0x4000]", "lock inc qword ptr [r12+0x3ffc]"])
def test_a_register_of_a_device_in_a_locked_access(source):
    """It is asked in the middle of what is to be alone: others may run then, and nobody waits for ever."""
    space, _, _ = two_way()
    one, two = two_machines("x86_64", [space], "ram")
    written = []

    def read(offset, size):
        two.run(start=CODE, timeout=None)
        return 0

    with one, two:
        with_device(one, read, lambda offset, size, value: written.append(value))
        one.tables.map(SHARED + 3 * PAGE, 44 * MIB, PAGE, page_size=PAGE, executable=False)
        two.load(code("x86_64", "lock inc qword ptr [r12+60]")).set(r12=SHARED)
        one.load(code("x86_64", source)).set(r12=SHARED, rax=0, rdx=0, rbx=1, rcx=1)
        assert one.run(timeout=None).stop.reason == "halt"
        assert written and total(two, 60) > 0


AT_EXIT = """
import threading, time
from tests.guest.machines import code, machine
m = machine("x86_64").load(code("x86_64", "1: jmp 1b"))
threading.Thread(target=lambda: m.run(timeout=None), daemon=True).start()
time.sleep(0.3)
"""


def test_a_process_that_ends_while_a_thread_is_in_a_run():
    done = subprocess.run([sys.executable, "-c", AT_EXIT], timeout=60, cwd=ROOT, capture_output=True)
    assert done.returncode == 0
