"""One CPU: an engine, the C guest that answers it, its ports, and its view of memory.

Architectures derive from `Cpu`: `mmu.guest.x86`, `mmu.guest.arm64`. Not for two threads at once.
"""

from __future__ import annotations

import struct
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mmu.core import check, ffi, lib
from mmu.errors import ClosedError, GuestError
from mmu.guest import asked
from mmu.guest.delivered import Record
from mmu.guest.engine import PAGE, Engine
from mmu.guest.memory import EngineMemory
from mmu.guest.sharing import announce, register
from mmu.guest.stop import Delivered, Stop
from mmu.memory.host import HostMemory
from mmu.types import Access, Fault

if TYPE_CHECKING:
    from mmu.memory import AddressSpace, Frames, LevelFrames

Outcome = int | Delivered | Stop  # where to go on, the handler that was entered, or how the run ends

PORTS = ("data", "walk", "code", "probe", "blocks")
ENGINE_FUNCTIONS = (
    "reg_read", "reg_read_batch", "reg_write", "emu_start", "emu_stop", "context_save", "context_restore", "hook_add",
    "hook_del",
)  # fmt: skip


class Refused(Exception):
    """An access that the CPU made for an exception was refused. Never leaves this room; `stop` says why."""

    def __init__(self, stop: Any) -> None:
        super().__init__(stop)
        self.stop = stop


def _dispose(engine: Engine, guest: Any, kept: list[Any]) -> None:
    """Everything that C points to goes after the engine, which points to it. Devices may hold *guest* for longer."""
    lib.mmu_guest_close(guest)  # gives back what a run left in the mirror
    engine.close()
    kept.clear()


class Cpu(ABC):
    """Runs instructions between stops. Registers are plain integers under their manual's names in small letters."""

    ARCH: ClassVar[str]
    NUMBER: ClassVar[int]
    ENGINE: ClassVar[tuple[str, str]]
    PC: ClassVar[str]
    PHYS_BITS: ClassVar[int]
    TABLES: ClassVar[Mapping[str, int]]  # what a table is called -> the number of its level, from the root down
    # hooks beside those that every guest has: (kind, field of mmu_guest_hooks, instruction or "")
    HOOKS: ClassVar[tuple[tuple[str, str, str], ...]] = ()
    HOST_HOOKS: ClassVar[tuple[tuple[str, str, str], ...]]  # of what would be the host's: see csrc/guest_host.c

    def __init__(self, space: AddressSpace, deliver: str = "native") -> None:
        """*deliver*: who enters the guest's handlers: C ("native"), or `handle` in Python ("reference"), its twin."""
        self.space, self.deliver = space, deliver
        self.delivered = Record(self)
        self.constants = self.load_constants()
        self._numbers = self.register_numbers()
        self.engine = Engine(*self.ENGINE, self.model())
        self.ports = {name: space.new_port() for name in PORTS}
        self._limit_hook: int | None = None
        self._hooks = ffi.new("struct mmu_guest_hooks *")
        lib.mmu_guest_hooks(self._hooks)
        self._shadow, self._scratch = HostMemory(lib.mmu_guest_shadow_size()), HostMemory(PAGE)
        self.io = self.new_io()
        self._kept: list[Any] = [self.ports, self._shadow, self._scratch, space.bus]
        self.context = self.engine.new_context()
        try:
            self._guest = self._create()
        except BaseException:
            self.engine.close()
            raise
        self._memory = EngineMemory(space, self.engine, self._guest, self._kept)
        self._finalizer = weakref.finalize(self, _dispose, self.engine, self._guest, self._kept)
        try:
            self._install()
            self.reset()
        except BaseException:
            self.close()
            raise
        self._observer = register(self)

    # -- what an architecture says ------------------------------------------------------------------

    @abstractmethod
    def load_constants(self) -> Any: ...

    @abstractmethod
    def model(self) -> int: ...

    @abstractmethod
    def ids(self) -> Mapping[str, int | list[int]]:
        """Register numbers for struct mmu_guest_ids."""

    @abstractmethod
    def reset(self) -> None:
        """Registers of a fresh CPU."""

    @abstractmethod
    def register_numbers(self) -> Mapping[str, int]:
        """Registers of at most 64 bits by name."""

    @abstractmethod
    def registers(self) -> dict[str, int]: ...

    @abstractmethod
    def start(self, pc: int, stack: int, data: int, size: int) -> None:
        """Registers of a program's first instruction."""

    def start_32(self, pc: int) -> None:
        """Registers of a kernel's 32-bit entry, where the architecture has one; else ValueError."""
        raise ValueError(f"{self.ARCH} has no 32-bit entry")

    @abstractmethod
    def new_tables(self, frames: Frames | LevelFrames) -> Any:
        """An empty tree of page tables in frames of the space."""

    @abstractmethod
    def set_tables(self, root: int) -> None: ...

    @property
    @abstractmethod
    def has_tables(self) -> bool: ...

    @abstractmethod
    def walk_registers(self) -> Any: ...

    @abstractmethod
    def fault(self, stop: Any) -> Fault:
        """The walk that a stop record tells of, as a value."""

    @abstractmethod
    def handle(self, stop: Any) -> Outcome:
        """Do what *stop* (struct mmu_guest_stop) asks for."""

    def new_io(self) -> AddressSpace | None:
        """The space of IN and OUT, where there are such instructions."""
        return None

    @abstractmethod
    def places(self) -> Mapping[str, int]:
        """Offsets in the engine's blobs for struct mmu_guest_places."""

    def configure(self, config: Any) -> None:  # noqa: B027
        """Fill in what struct mmu_guest_config has for one architecture alone."""

    @abstractmethod
    def event(self, raw: Any) -> Any:
        """What struct mmu_guest_event tells of, as a value."""

    # -- life ---------------------------------------------------------------------------------------

    def _create(self) -> Any:
        library = self.engine.library
        config = ffi.new("struct mmu_guest_config *")
        config.arch, config.phys_bits, config.bus = self.NUMBER, self.PHYS_BITS, self.space.bus
        for name, port in self.ports.items():
            setattr(config, name, port.handle)
        if self.io is not None:
            port = self.io.new_port()
            self._kept += [port, self.io.bus]
            config.io = port.handle
        config.shadow = ffi.cast("uint8_t *", self._shadow.address)
        config.context, config.bus_context, config.tried_context = (self.engine.new_context() for _ in range(3))
        config.deliver = self.deliver == "native"
        config.engine.uc = self.engine.uc
        for name in ENGINE_FUNCTIONS:
            setattr(config.engine, name, library.functions[f"uc_{name}"])
        config.engine.control = library.uc_ctl
        for name, number in self.ids().items():
            setattr(config.ids, name, number)
        for name, place in self.places().items():
            setattr(config.places, name, place)
        self.configure(config)
        out = ffi.new("mmu_guest **")
        check(lib.mmu_guest_create(config, out), "guest")
        return ffi.gc(out[0], lib.mmu_guest_destroy)

    def _install(self) -> None:
        hooks, engine = self._hooks, self.engine
        size = lib.mmu_guest_bus_size()
        engine.map_callbacks(lib.mmu_guest_bus_base(), size, hooks.bus_read, hooks.bus_write, self.guest)
        whole = lib.mmu_guest_whole_base()
        engine.map_callbacks(whole, size, hooks.whole_read, hooks.whole_write, self.guest)
        engine.protect(whole, size, 0)
        engine.hook("MEM_READ_PROT", hooks.access, self.guest, whole, whole + size - 1)
        engine.hook("MEM_WRITE_PROT", hooks.access, self.guest, whole, whole + size - 1)
        engine.map_host(lib.mmu_guest_shadow_base(), self._shadow.size, self._shadow.address)
        engine.map_host(lib.mmu_guest_scratch_base(), PAGE, self._scratch.address)
        nowhere = lib.mmu_guest_nowhere_base()
        engine.hook("TLB_FILL", hooks.fill, self.guest)
        engine.hook("MEM_UNMAPPED", hooks.unmapped, self.guest, nowhere, nowhere + PAGE - 1)
        engine.hook("INTR", hooks.interrupt, self.guest)
        engine.hook("BLOCK", hooks.block, self.guest)
        self.hook_instructions((*self.HOOKS, *self.HOST_HOOKS))

    def hook_instructions(self, hooks: tuple[tuple[str, str, str], ...]) -> None:
        for kind, field, instruction in hooks:
            number = getattr(self.constants, instruction) if instruction else None
            self.engine.hook(kind, getattr(self._hooks, field), self.guest, instruction=number)

    def close(self) -> None:
        """Free the engine. Twice is fine."""
        self._finalizer()

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    def _open(self) -> None:
        if self.closed:
            raise ClosedError("this machine is closed")

    @property
    def guest(self) -> Any:
        """The C guest. Raises ClosedError when the machine is closed."""
        self._open()
        return self._guest

    # -- memory -------------------------------------------------------------------------------------

    def load(self, va: int, size: int, access: Access = Access.READ) -> int:
        """One access by the CPU itself, with its present privilege. Raises Refused."""
        out, stop = ffi.new("uint64_t *"), ffi.new("struct mmu_guest_stop *")
        if check(lib.mmu_guest_load(self.guest, va, size, access, out, stop), f"load of {size} bytes at {va:#x}"):
            raise Refused(stop)
        value: int = out[0]
        return value

    def store(self, va: int, size: int, value: int, access: Access = Access.WRITE) -> None:
        stop = ffi.new("struct mmu_guest_stop *")
        if check(lib.mmu_guest_store(self.guest, va, size, access, value, stop), f"store of {size} bytes at {va:#x}"):
            raise Refused(stop)

    def translate(self, va: int, access: Access) -> int | Any:
        """Physical address, or the stop record of the fault. Changes nothing."""
        out, stop = ffi.new("uint64_t *"), ffi.new("struct mmu_guest_stop *")
        if check(lib.mmu_guest_translate(self.guest, va, access, out, stop), f"translation of {va:#x}"):
            return stop
        pa: int = out[0]
        return pa

    def peek(self, va: int, size: int) -> bytes:
        """Code bytes from *va* on, as many of *size* as can be fetched. Uncounted."""
        out = bytearray()
        while len(out) < size:
            pa = self.translate(va + len(out), Access.FETCH)
            if not isinstance(pa, int):
                break
            run = min(size - len(out), PAGE - pa % PAGE)
            buffer = bytearray(run)
            if check(lib.mmu_port_read(self.ports["probe"].handle, pa, ffi.from_buffer(buffer), run), "code"):
                break
            out += buffer
        return bytes(out)

    # -- registers ----------------------------------------------------------------------------------

    def read(self, name: str) -> int:
        self._open()
        return self.engine.read(self._register(name))

    def write(self, name: str, value: int) -> None:
        self._open()
        self.engine.write(self._register(name), asked.number(name, value))

    def _register(self, name: str) -> int:
        if name not in self._numbers:
            raise ValueError(f"{self.ARCH} has no register {name!r}; known are {', '.join(self._numbers)}")
        return self._numbers[name]

    @property
    def pc(self) -> int:
        return self.read(self.PC)

    def structure(self, register: int, layout: str, *values: int) -> tuple[int, ...]:
        """Read a register that the engine keeps in a structure; *values* go in first (its selector)."""
        data = ffi.new("char[]", struct.calcsize(layout))
        fields = len(struct.unpack(layout, bytes(len(data))))
        ffi.buffer(data)[:] = struct.pack(layout, *values, *[0] * (fields - len(values)))
        self.engine.transfer(register, data)
        return struct.unpack(layout, bytes(ffi.buffer(data)))

    def set_structure(self, register: int, layout: str, *values: int) -> None:
        data = ffi.new("char[]", struct.pack(layout, *values))
        self.engine.transfer(register, data, write=True)

    # -- running ------------------------------------------------------------------------------------

    def begin(self, limit: int, dispatch: str, exceptions: int = 0, whole: bool = False, traced: bool = False) -> None:
        """Make ready for a run of at most *limit* instructions (0: any number; counting costs about 10 ns for each)
        that ends when so many *exceptions* were delivered (0: any number).

        *dispatch*, a key of mmu.guest.memory.SERVICES, says how windows are served; *whole*, whether accesses to them
        are not cut; *traced*, whether it is to have the trace of any other run that begins alike. To be matched by
        end().

        Takes over what the space shows now, and forgets code and translations: the host may have changed any of it.
        """
        lib.mmu_guest_resume(self.guest)  # first: the rest may wait for other machines, and who asks meanwhile is heard
        self._memory.sync()
        if limit and self._limit_hook is None:
            self._limit_hook = self.engine.hook("CODE", self._hooks.code, self.guest)
        elif not limit and self._limit_hook is not None:
            lib.mmu_guest_unhook(self.guest, self._limit_hook)
            self._limit_hook = None
        lib.mmu_guest_set_traced(self.guest, traced)
        lib.mmu_guest_set_whole(self.guest, whole)
        announce(self)
        lib.mmu_guest_begin(self.guest, limit, exceptions, self._memory.serve(dispatch))
        self.delivered.begin(exceptions)

    def end(self) -> None:
        """What the guest wrote is in the devices from now on."""
        if self.closed:  # which gave it all back
            return
        lib.mmu_guest_end(self.guest)
        self._memory.end()

    def run(self, pc: int) -> Any:
        """Run until a stop that wants attention: struct mmu_guest_stop. Raises what a device's callback raised."""
        stop = ffi.new("struct mmu_guest_stop *")
        check(lib.mmu_guest_run(self.guest, pc, stop), "running the guest")
        self.write(self.PC, stop.pc)
        if stop.kind == lib.MMU_GUEST_CALLBACK:
            check(lib.MMU_ECALLBACK, f"the guest at {stop.pc:#x}")
        if stop.kind == lib.MMU_GUEST_ENGINE:
            text = ffi.string(self.engine.library.uc_strerror(stop.number)).decode()
            raise GuestError(f"the instruction engine failed at {stop.pc:#x}: {text}")
        return stop

    def interrupt(self) -> None:
        """End the run that is under way, from any thread."""
        lib.mmu_guest_interrupt(self.guest)

    def exited(self) -> int | None:
        """The value that the guest wrote to a `DebugExit` since resume(), None when it did not."""
        value = ffi.new("uint32_t *")
        return value[0] if lib.mmu_guest_exited(self.guest, value) else None

    def resume(self) -> None:
        """Withdraw interrupt(), and forget an exit."""
        lib.mmu_guest_resume(self.guest)

    @property
    def counters(self) -> Any:
        """struct mmu_guest_counters."""
        return lib.mmu_guest_counters(self.guest)
