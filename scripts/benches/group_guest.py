"""x86-64 guests: accesses, code and TLB misses with a 2-way window at 256 bytes, against RAM and a bare callback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

from mmu import AddressSpace, HostMemory, Machine, Ram, Striped, Target
from mmu.core import ffi
from mmu.guest.engine import Engine
from mmu.stripes import Route, Slot, Span
from scripts.benches.harness import Bench, Row, WrongAnswer
from scripts.benches.native import Loops

MIB = 1 << 20
WINDOW, SIZE, GRANULARITY = 1 << 36, 64 * MIB, 256
CODE, DATA, STACK = 0x40_0000, 0x1000_0000, 0x7FFF_FFF0_0000
FIRST = 0x4000  # offset of the function in the code
# For TLB misses: pages that share a slot of the engine's TLB, however large it grows, and do not fit in its victims.
FAR, STRIDE, PAGES = 1 << 40, 1 << 30, 64
PER_LOOP = 8  # accesses

# mov rax, [rdi + disp32] or back, eight times, each in another block; dec rcx; jnz; hlt
LOOP_END = bytes.fromhex("48ffc9 75c3 f4")
LOAD = b"".join(b"\x48\x8b\x87" + (512 * n + 8).to_bytes(4, "little") for n in range(PER_LOOP)) + LOOP_END
STORE = b"".join(b"\x48\x89\x87" + (512 * n + 8).to_bytes(4, "little") for n in range(PER_LOOP)) + LOOP_END
CALLS = bytes.fromhex("ffd6 48ffc9 75f9 f4")  # call rsi; dec rcx; jnz; hlt
ADDS = 30
FUNCTION = bytes.fromhex("4801d8" * ADDS + "c3")  # add rax, rbx; ret
IN_FUNCTION = ADDS + 4  # instructions of a call, with the loop's
# next: mov rax, [rdi]; add rdi, rsi; dec rcx; jnz next; mov rdi, rbx; mov rcx, rdx; dec r8; jnz next; hlt
MISSES = bytes.fromhex("488b07 4801f7 48ffc9 75f5 4889df 4889d1 49ffc8 75ea f4")


def space() -> AddressSpace:
    made = AddressSpace()
    made.map(0, Ram(SIZE))
    targets = [Target(f"mem{n}", HostMemory(SIZE // 2)) for n in range(2)]
    window = Striped(SIZE, WINDOW, targets)
    slots = tuple(Slot(n, WINDOW, 0, 2, GRANULARITY) for n in range(2))
    window.set_route(Route((Span(WINDOW, WINDOW + SIZE - 1, 8, 1, GRANULARITY, slots),)))
    made.map(WINDOW, window)
    return made


class Guest:
    """A machine with one program, its areas in RAM but for those that are to be in the window."""

    def __init__(self, program: bytes, dispatch: str, *in_window: str, **registers: int) -> None:
        offsets = {"tables": 0, "code": 1, "data": 2, "stack": 3}
        vas = {"tables": 0, "code": CODE, "data": DATA, "stack": STACK}
        areas = {
            name: ((WINDOW if name in in_window else 0) + n * MIB, MIB, vas[name]) for name, n in offsets.items()
        }
        self.machine = Machine(space(), dispatch=dispatch).setup(**areas)
        for n in range(PAGES):
            self.machine.tables.map(FAR + n * STRIDE, 16 * MIB + n * 4096, 4096, page_size=4096)
        self.machine.load(program)
        self.machine.write(CODE + FIRST, FUNCTION)
        self.registers = {"rdi": DATA} | registers
        self.result: Any = None

    def at(self, **registers: int) -> Guest:
        """The same machine and program, so that the engine's code lies where it lies, with other registers."""
        other = copy(self)
        other.registers = self.registers | registers
        return other

    def run(self) -> None:
        self.result = self.machine.set(**self.registers).run(start=CODE, timeout=None)

    def check(self, bus: int) -> Guest:
        """Raise WrongAnswer unless a run ends well and makes so many accesses on the bus."""
        self.run()
        counters = self.result.counters
        found = self.result.stop.reason, counters.bus_reads + counters.bus_writes
        if found != ("halt", bus):
            raise WrongAnswer(f"a guest must halt after {bus} accesses on the bus, not end with {found}")
        return self


def bare(loops: Loops, program: bytes, count: int) -> Callable[[], None]:
    """The same loop on the engine alone, its data in a device that is an array, by one callback in C."""
    from unicorn import x86_const as x86

    engine = Engine("UC_ARCH_X86", "UC_MODE_64", x86.UC_CPU_X86_BROADWELL)
    code, memory = HostMemory(4096), HostMemory(MIB)
    code.write(0, program)
    engine.map_host(CODE, 4096, code.address)
    read, write = (ffi.cast("void *", loops.address(name)) for name in ("device_read", "device_write"))
    engine.map_callbacks(DATA, MIB, read, write, memory.address)
    engine.hook("TLB_FILL", ffi.cast("void *", loops.address("identity")), ffi.NULL)

    def run(keep: object = (code, memory, loops)) -> None:
        engine.write(x86.UC_X86_REG_RDI, DATA)
        engine.write(x86.UC_X86_REG_RCX, count)
        if error := engine.start(CODE):
            raise WrongAnswer(f"the bare loop ended with error {error}")

    return run


def rows(bench: Bench) -> Iterator[Row]:
    yield from accesses(bench)
    yield from code(bench)
    yield from misses(bench)


def accesses(bench: Bench) -> Iterator[Row]:
    fast, slow = bench.items(8_000_000) // PER_LOOP + 1, bench.items(800_000) // PER_LOOP + 1
    for what, program in ("load", LOAD), ("store", STORE):
        auto = Guest(program, "auto", "data", rcx=fast).check(0)
        ram = auto.at(rdi=FAR).check(0)
        times = bench.times({"auto": auto.run, "ram": ram.run}, fast * PER_LOOP)
        yield bench.row(f"{what} of 8 bytes, window, auto", times["auto"], "in RAM", times["ram"], 1.2)
        exact = Guest(program, "exact", "data", rcx=slow).check(2 * slow * PER_LOOP)
        times = bench.times({"exact": exact.run, "bare": bare(Loops("guest"), program, slow)}, slow * PER_LOOP)
        yield bench.row(f"{what} of 8 bytes, window, exact", times["exact"], "bare callback in C", times["bare"], 1.3)


def code(bench: Bench) -> Iterator[Row]:
    count = bench.items(1_000_000)
    registers = {"rcx": count, "rsi": CODE + FIRST, "rbx": 1, "rax": 0}
    runs = {
        "auto": Guest(CALLS, "auto", "code", **registers).check(0),
        "exact": Guest(CALLS, "exact", "code", **registers).check(0),
        "ram": Guest(CALLS, "auto", **registers).check(0),
    }  # fmt: skip
    for name, guest in runs.items():
        if guest.result.registers["rax"] != ADDS * count:
            raise WrongAnswer(f"code, {name}: rax must be {ADDS * count}, not {guest.result.registers['rax']}")
    times = bench.times({name: guest.run for name, guest in runs.items()}, count * IN_FUNCTION)
    yield bench.row("instruction of code in the window, auto", times["auto"], "in RAM", times["ram"], 1.2)
    yield bench.row("instruction of code in the window, exact", times["exact"], "in RAM", times["ram"])


def misses(bench: Bench) -> Iterator[Row]:
    rounds = bench.items(4000)
    registers = {"rdi": FAR, "rbx": FAR, "rdx": PAGES, "rcx": PAGES, "rsi": STRIDE, "r8": rounds}
    runs = {}
    for name, dispatch, where in ("auto", "auto", ["tables"]), ("exact", "exact", ["tables"]), ("ram", "auto", []):
        guest = runs[name] = Guest(MISSES, dispatch, *where, **registers).check(0)
        if guest.result.counters.walks < rounds * PAGES:
            raise WrongAnswer(f"each load must miss the TLB: {rounds * PAGES}, not {guest.result.counters.walks} walks")
    times = bench.times({name: guest.run for name, guest in runs.items()}, rounds * PAGES)
    if any(guest.result.counters.walks < rounds * PAGES for guest in runs.values()):
        raise WrongAnswer("the engine's TLB grew: not every load missed it")
    yield bench.row("TLB miss and walk, tables in the window, auto", times["auto"], "in RAM", times["ram"], 1.2)
    yield bench.row("TLB miss and walk, tables in the window, exact", times["exact"], "in RAM", times["ram"], 2.0)
