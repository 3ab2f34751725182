"""The public Machine: a space, one CPU, and a program that runs with its tables, code, data and stack where you say."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmu.core import lib
from mmu.errors import AddressRangeError, BusError, GuestError
from mmu.guest import asked
from mmu.guest.counters import Snapshot
from mmu.guest.delivered import DELIVER
from mmu.guest.loader import Program, read_program
from mmu.guest.plan import PAGE, Area, Place, Plan, default_plan, plan
from mmu.guest.result import RunResult
from mmu.guest.stop import Delivered, Stop
from mmu.guest.trees import builder
from mmu.guest.watch import traced, watchdog
from mmu.memory.frames import Frames, LevelFrames
from mmu.types import Access

if TYPE_CHECKING:
    from mmu.guest.cpu import Cpu
    from mmu.memory import AddressSpace
    from mmu.snapshot import Snapshot as MachineSnapshot

CPUS = {"x86_64": ("mmu.guest.x86", "X86Cpu"), "aarch64": ("mmu.guest.arm64", "Arm64Cpu")}
DISPATCH = ("auto", "exact", "direct", "mirror")


class Machine:
    """One guest CPU on an address space.

    *arch* is "x86_64" (long mode, 4-level paging) or "aarch64" (EL1, TTBR0, 4 KiB granule, 4 levels).
    *dispatch* says how windows are served while the guest runs. All give the same bytes, registers, faults and device
    files; what differs is speed and what `Counters` can tell.

    - "exact": every access goes through the bus and is counted. The engine hands an access of 8 bytes over as two of
      4, and an unaligned load as the aligned words around it.
    - "direct": a page that lies in one piece in one device (1 way, or a granularity of 4 KiB and more) is RAM for the
      engine, in place. Other pages are exact.
    - "mirror": the blocks of a page that is touched move to host memory in the order of the window, until the run
      ends, and the page is RAM for the engine. Whoever else asks for these bytes, by HPA or DPA, finds them there.
    - "auto": direct where that is possible, else mirror; exact when the run is traced.

    Pages that the decoders do not give to devices as a whole are exact in any case, and so is everything when there is
    no memory for the mirror, which is said once (`mmu.errors.MirrorWarning`). When decoders change during a run, the
    guest goes on with what they say from its next block of instructions on.

    *emulator* None is the plain CPU. A release of QEMU ("qemu-8.2") or `mmu.tcg.Switches` runs the program in a model
    of that emulator, which dispatches every access itself: see `mmu.tcg`.

    *deliver* says who enters the guest's exception handlers: C ("native"), or the slow twin in Python ("reference").

    A machine owns host resources: close() it, or use it as a context manager.
    """

    def __init__(
        self, space: AddressSpace, arch: str = "x86_64", dispatch: str = "auto", emulator: object | None = None,
        deliver: str = "native",
    ) -> None:  # fmt: skip
        from mmu.memory import AddressSpace

        if not isinstance(space, AddressSpace):
            raise TypeError(f"a Machine needs an AddressSpace, not {type(space).__name__}")
        if arch not in CPUS:
            raise ValueError(f"arch must be one of {', '.join(CPUS)}, not {arch!r}")
        if deliver not in DELIVER:
            raise ValueError(f"deliver must be one of {', '.join(DELIVER)}, not {deliver!r}")
        self.space, self.arch, self.dispatch = space, arch, dispatch
        self._model: Any = None
        if emulator is None:
            module, name = CPUS[arch]
            self.cpu: Cpu = getattr(import_module(module), name)(space, deliver)
        else:
            self._model = import_module("mmu.tcg.runs")
            self.cpu = self._model.new_cpu(space, arch, emulator)
        self.plan: Plan | None = None
        self.tables: Any = None  # mmu.x86.PageTables or mmu.arm64.PageTables, once setup() made them
        self._program: list[tuple[int, int]] = []  # what load() mapped: (va, size)
        self._busy = threading.Lock()

    @property
    def dispatch(self) -> str:
        """How windows are served from the next run on."""
        return self._dispatch

    @dispatch.setter
    def dispatch(self, value: str) -> None:
        if value not in DISPATCH:
            raise ValueError(f"dispatch must be one of {', '.join(DISPATCH)}, not {value!r}")
        self._dispatch = value

    def close(self) -> None:
        """Free the engine. Twice is fine; anything else afterwards raises ClosedError. GuestError during a run."""
        with self._alone("close()"):
            self.cpu.close()

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """One at a time, and none from within another: whoever comes second is told so."""
        if not self._busy.acquire(blocking=False):
            raise GuestError(f"{what} must wait until the run of this machine is over: end it first")
        try:
            yield
        finally:
            self._busy.release()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- before a run -------------------------------------------------------------------------------

    def setup(self, *, tables: Place | Mapping[str, Place], code: Place, data: Place, stack: Place) -> Machine:
        """Say where everything is, as (base, size) or (base, size, va) in bytes, and build the page tables there.

        *tables* may say it for each level: {"PT": place, "rest": place}; the levels are PML4, PDPT, PD and PT, or
        L0, L1, L2 and L3.
        Data and stack are mapped readable and writable, not executable; code when it is loaded. The guest runs
        with supervisor rights. Default addresses: see `mmu.guest.plan`.
        Raises AlignmentError or AddressRangeError when an area is not whole pages or overlaps another, BusError when
        the tables cannot be written where they are to be, GuestError during a run.
        """
        with self._alone("setup()"):
            return self._setup(tables=tables, code=code, data=data, stack=stack)

    def _setup(self, *, tables: Place | Mapping[str, Place], code: Place, data: Place, stack: Place) -> Machine:
        chosen = plan(tables, code, data, stack, self.cpu.TABLES)
        new = self.cpu.new_tables(_frames(chosen))
        for mapped in chosen.data, chosen.stack:
            new.map(mapped.va, mapped.base, mapped.size, page_size=PAGE, writable=True, executable=False)
        self.cpu.set_tables(new.root)
        self.plan, self.tables = chosen, new
        self._program.clear()
        return self

    def load(self, program: bytes | str | PathLike[str] | Program, at: int | None = None) -> Machine:
        """Put a program into memory and the registers at its start.

        Bytes are code without a header; a path is a raw .bin, an ELF file, or GNU assembler source (.s); see
        `mmu.guest.loader`. Code without addresses goes to *at* (default: the plan's code address), mapped writable
        and executable. Without setup() before, everything goes into the first RAM that is large enough; with tables
        of your own (registers set by `set`), the bytes are written through them, to *at*.
        Registers: see `cxl.examples`. GuestError during a run.
        """
        with self._alone("load()"):
            return self._load(program, at)

    def _load(self, program: bytes | str | PathLike[str] | Program, at: int | None) -> Machine:
        found = program if isinstance(program, Program) else read_program(program, self.arch)
        if self.tables is None and self.cpu.has_tables:
            return self._load_through(found, at)
        if self.plan is None:
            chosen = default_plan(self.space)
            places = {n: getattr(chosen, n) for n in ("tables", "code", "data", "stack")}
            self._setup(**{n: (a.base, a.size) for n, a in places.items()})
        assert self.plan is not None
        for va, size in self._program:  # the program before
            self.tables.unmap(va, size)
        self._program.clear()
        base = self._place(found, self.plan.code, at)
        data, stack = self.plan.data, self.plan.stack
        self.cpu.start(found.entry + base, stack.va + stack.size, data.va, data.size)
        return self

    def _place(self, program: Program, area: Area, at: int | None) -> int:
        """Map and write each segment into the code area, one after the other. Returns what to add to addresses."""
        base = (area.va if at is None else at) if program.relocatable else 0
        if at is not None and not program.relocatable:
            raise ValueError(f"the program is linked to run at {program.segments[0].va:#x}: it cannot go to {at:#x}")
        if base % PAGE:
            raise ValueError(f"code must be loaded at a multiple of {PAGE}, not {base:#x}")
        room, end = area, 0
        for segment in program.segments:
            first = (segment.va + base) // PAGE * PAGE
            if first < end:
                raise ValueError(f"two segments of the program share the page at {first:#x}: link them apart")
            size = -(-(segment.va + base + segment.size) // PAGE) * PAGE - first
            if program.relocatable:
                size = room.size  # the rest of the area is scratch space of the program
            if segment.va + base + segment.size - first > room.size or size > room.size:
                raise AddressRangeError(
                    f"the program does not fit: {size:#x} bytes, and the code area has {room.size:#x} left")
            self.tables.map(
                first, room.base, size, page_size=PAGE, writable=segment.writable, executable=segment.executable)
            self._program.append((first, size))
            lead = segment.va + base - first
            self.space.write(room.base, bytes(lead) + segment.data + bytes(size - lead - len(segment.data)))
            room, end = Area(room.base + size, room.size - size, 0), first + size
        return base

    def _load_through(self, program: Program, at: int | None) -> Machine:
        if program.relocatable and at is None:
            raise ValueError("code without addresses, on page tables of your own, needs at=")
        base = at or 0
        if not program.relocatable and at is not None:
            raise ValueError(f"the program is linked to run at {program.segments[0].va:#x}: it cannot go to {at:#x}")
        for segment in program.segments:
            self.write(segment.va + base, segment.data + bytes(segment.size - len(segment.data)))
        self.cpu.write(self.cpu.PC, program.entry + base)
        return self

    def boot(self, kernel: bytes | str | PathLike[str], command_line: str = "") -> Machine:
        """Put a multiboot kernel (version 1) where its header says, and the CPU at its 32-bit entry, paging off.

        x86 only. EAX and EBX are as the specification has them; the memory map shows RAM, not windows. Long mode and
        its tables are the kernel's affair; until then no exception is delivered, it ends the run.
        Raises GuestError for an image that is none and during a run, AddressRangeError or BusError when it does not fit
        into memory.
        """
        from mmu.guest import multiboot

        if self.arch != "x86_64":
            raise ValueError(f"multiboot kernels are for x86_64, not {self.arch}")
        image = kernel if isinstance(kernel, bytes) else Path(kernel).read_bytes()
        found = multiboot.read_kernel(image)
        with self._alone("boot()"):
            multiboot.place(self.space, found, command_line.encode())
            self.plan, self.tables = None, None
            self._program.clear()
            self.cpu.start_32(found.entry)
        return self.set(rax=multiboot.BOOT_MAGIC, rbx=multiboot.INFO)

    def set(self, **registers: int) -> Machine:
        """Write registers by name. ValueError for a name that the CPU does not have, GuestError during a run."""
        with self._alone("set()"):
            for name, value in registers.items():
                self.cpu.write(name, value)
        return self

    def snapshot(self) -> MachineSnapshot:
        """What the machine is now; see `mmu.snapshot`."""
        from mmu.snapshot import take

        with self._alone("snapshot()"):
            return take(self)

    def restore(self, snapshot: MachineSnapshot) -> Machine:
        """Become what *snapshot* found.

        Nothing changed when it raises: SnapshotError when that machine had another shape, BusError when a file behind
        memory lost what is to be written.
        """
        from mmu.snapshot import restore

        with self._alone("restore()"):
            restore(self, snapshot)
        return self

    @property
    def program(self) -> tuple[tuple[int, int], ...]:
        """What load() mapped, as (va, bytes)."""
        return tuple(self._program)

    def adopt(self, plan: Plan | None, program: Sequence[tuple[int, int]]) -> None:
        """Go on with tables that are there already, as the registers say, and *program*, what load() had mapped."""
        self.plan, self._program, self.tables = plan, list(program), None
        if plan is not None:
            frames = _frames(plan)
            tables = builder(self.cpu, frames)
            with suppress(BusError):  # tables that nobody can read are no tables to go on with
                for node in tables.nodes() if tables is not None else ():
                    frames.reserve(node.address)
                self.tables = tables

    # -- looking ------------------------------------------------------------------------------------

    @property
    def io(self) -> AddressSpace:
        """x86: what IN and OUT reach, ports 0 .. 0xffff; nothing is mapped there at first. See mmu.guest.devices."""
        if self.cpu.io is None:
            raise ValueError(f"{self.arch} has no IN and OUT: map devices into the space")
        return self.cpu.io

    @property
    def registers(self) -> dict[str, int]:
        return self.cpu.registers()

    def walk_registers(self) -> Any:
        """The registers that translate now: mmu.x86.Registers or mmu.arm64.Registers, for their walk()."""
        return self.cpu.walk_registers()

    def _translate(self, va: int) -> int:
        for access in Access.READ | Access.IMPLICIT, Access.READ:  # a supervisor's eyes; under SMAP, the program's
            pa = self.cpu.translate(va, access)
            if isinstance(pa, int):
                return pa
        raise AddressRangeError(f"{va:#x} cannot be read through the page tables: {self.cpu.fault(pa).kind.name}")

    def _pieces(self, va: int, size: int) -> Iterator[tuple[int, int]]:
        """(physical address, bytes) of each page of a virtual range. AddressRangeError where it is not mapped."""
        if size < 0 or not 0 <= va <= asked.WORD - size:
            raise AddressRangeError(f"{size:#x} bytes at {va:#x} are not in an address space of 64 bits")
        done = 0
        while done < size:
            run = min(size - done, PAGE - (va + done) % PAGE)
            pa = self._translate(va + done)
            yield pa, run
            done += run

    def read(self, va: int, size: int) -> bytes:
        """Memory as the guest would address it now; a look by the host, uncounted, that sets no flag."""
        return b"".join(self.space.read(pa, run) for pa, run in self._pieces(va, size))

    def write(self, va: int, data: bytes) -> None:
        raw, done = memoryview(data).tobytes(), 0  # an array may have wider items
        for pa, run in list(self._pieces(va, len(raw))):
            self.space.write(pa, raw[done : done + run])
            done += run

    # -- running ------------------------------------------------------------------------------------

    def interrupt(self, vector: int, after: int = 0) -> Machine:
        """Raise an external interrupt in the next run, when *after* instructions have run. Models of emulators only."""
        if self._model is None:
            raise ValueError("interrupts from outside need a model of an emulator: Machine(..., emulator=...)")
        self.cpu.emulator.raise_interrupt(vector, after)  # type: ignore[attr-defined]
        return self

    def run(
        self, start: int | None = None, timeout: float | None = 10.0, limit: int | None = None, trace: int = 0,
        exceptions: int | None = None, whole: bool = False,
    ) -> RunResult:  # fmt: skip
        """Run from *start* (default: where the guest stands) until it stops.

        Args:
            timeout: seconds until it is stopped with reason "timeout"; None: never.
            limit: instructions until it is stopped with reason "limit"; counting makes a run much slower.
            trace: how many bus accesses to record at most; the oldest are kept. What goes to pages that are RAM for
                the engine is none.
            whole: accesses to windows reach the bus uncut, up to 8 bytes, as those to devices always do and all do in a
                model of an emulator. Without it they come in pieces of at most 4, an unaligned load as the aligned
                words around it. Where windows are served access by access, that then takes twice as long.
            exceptions: stopped with reason "limit" at the handler of the exception that is the last one allowed.
        An exception raised by a device's callback comes out of here; the guest then stands at that instruction.
        In a model of an emulator all events are recorded (`mmu.tcg.trace`), and EmulatorStop comes out of here when
        the emulator itself ends: an abort, a hang, a crash.
        Raises GuestError when the machine runs already, here or in another thread.
        """
        timeout, trace = asked.seconds(timeout), asked.number("trace", trace, end=1 << 32)
        limit, exceptions = asked.number("limit", limit, 1), asked.number("exceptions", exceptions, 1)
        whole = asked.switch("whole", whole)
        with self._alone("run()"):
            return self._run(asked.number("start", self.cpu.pc if start is None else start), timeout, limit, trace,
                             exceptions, whole)

    def _run(
        self, start: int, timeout: float | None, limit: int, trace: int, exceptions: int, whole: bool
    ) -> RunResult:
        if self.plan is None and not self.cpu.has_tables:
            raise GuestError("no page tables: call setup() or load(), or set the registers that point to them")
        cpu = self.cpu
        if self._model is not None:
            found = self._model.run(cpu, start, timeout, limit, exceptions)
            return RunResult(found[0], cpu.registers(), *found[1:])
        dispatch = "exact" if trace and self.dispatch == "auto" else self.dispatch
        cpu.begin(limit, dispatch, exceptions, whole, bool(trace))
        before = Snapshot(cpu)
        try:
            with traced(cpu, trace) as entries, watchdog(cpu, timeout):
                stop = self._loop(start)
        finally:
            cpu.end()
        return RunResult(stop, cpu.registers(), entries, before.since(), cpu.delivered.all())

    def _loop(self, pc: int) -> Stop:
        ends = {
            lib.MMU_GUEST_HALTED: "halt", lib.MMU_GUEST_INTERRUPTED: "timeout", lib.MMU_GUEST_LIMIT: "limit",
            lib.MMU_GUEST_EXIT: "exit",
        }  # fmt: skip
        while True:
            raw = self.cpu.run(pc)
            if raw.kind in ends:
                return Stop(ends[raw.kind], raw.pc, code=raw.number if raw.kind == lib.MMU_GUEST_EXIT else None)
            found = self.cpu.handle(raw)
            if isinstance(found, Stop):
                self.cpu.write(self.cpu.PC, found.pc)
                return found
            pc = found.handler if isinstance(found, Delivered) else found
            if isinstance(found, Delivered) and self.cpu.delivered.note(found):
                self.cpu.write(self.cpu.PC, pc)
                return Stop("limit", pc)


def _frames(plan: Plan) -> Frames | LevelFrames:
    pools = {area: Frames(area.base, area.last) for area in (plan.tables, *plan.levels.values())}
    if not plan.levels:
        return pools[plan.tables]
    return LevelFrames(pools[plan.tables], {number: pools[area] for number, area in plan.levels.items()})
