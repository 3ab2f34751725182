"""Single instructions on an engine that owns no memory: code comes in images, data through two functions.

The engine sees code and data in scratch pages only. Before it loads, the owner of memory is asked for the bytes, which
go into the scratch page; what it stores is handed on and otherwise forgotten. So the owner alone decides what an access
does, and may end an instruction in the middle of one by an exception: the registers are then as before it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from mmu.core import ffi
from mmu.errors import GuestError
from mmu.guest.engine import PAGE, Engine
from mmu.memory.host import HostMemory

IMAGES_BASE, DATA_BASE = 1 << 53, 1 << 54  # physical addresses that only the engine knows
IMAGES, DATA_PAGES = 1 << 14, 1 << 9
PER_INSTRUCTION = 64  # pages of data, at most
FETCH, READ_MEMORY, WRITE_MEMORY = 18, 16, 17  # UC_MEM_FETCH, UC_MEM_READ, UC_MEM_WRITE
READ_WRITE, EXECUTE = 3, 4  # a page of code that is read has data of its own
PAGE_MASK = (1 << 64) - PAGE
UNREACHABLE = 1 << 63 | 1  # where no program counter ever is: not canonical, odd
FLUSH_TLB, FLUSH_TB = 11 | 1 << 30, 10 | 1 << 30
INVALID_INSTRUCTION, EXCEPTION = 10, 21  # UC_ERR_INSN_INVALID, UC_ERR_EXCEPTION

Read = Callable[[int, int], bytes]
Write = Callable[[int, int, int], None]


class Image:
    """Code bytes as an engine runs them, alone in pages of their own: (virtual page, page of the images) of each."""

    __slots__ = ("pages",)

    def __init__(self, pages: tuple[tuple[int, int], ...]) -> None:
        self.pages = pages


class Stepper:
    """*read*(va, size) and *write*(va, size, value) are called for each access that an instruction makes, before it
    is made. *filler* is an instruction that ends a block of the engine; it stands where an image has nothing.
    """

    def __init__(self, engine: Engine, filler: bytes, read: Read, write: Write) -> None:
        self.engine, self._filler = engine, filler * (PAGE // len(filler))
        self._read, self._write = read, write
        self._code, self._data = HostMemory(IMAGES * PAGE), HostMemory(DATA_PAGES * PAGE)
        engine.map_host(IMAGES_BASE, self._code.size, self._code.address)
        engine.map_host(DATA_BASE, self._data.size, self._data.address)
        self.memories = (self._code, self._data)  # must outlive the engine
        self._bytes = ffi.buffer(self._data.address, self._data.size)
        self._images: dict[tuple[int, bytes], Image] = {}
        self._used = 0
        self._shown: dict[int, int] = {}  # virtual page of code -> page of the images
        self._fetched: set[int] = set()  # those that the engine may have in its TLB
        self._slots: dict[int, int] = {}  # virtual page of data -> page of the scratch memory
        self._pages = [0] * DATA_PAGES
        self._failure: BaseException | None = None
        self.interrupt: int | None = None  # number of the exception that the engine stopped for
        self._page = 0  # of the instruction that is run
        self._left = False  # it went to address 0
        self._context = engine.new_context()
        library = engine.library
        self._start, self._stop, self._control = library.uc_emu_start, library.uc_emu_stop, library.uc_ctl
        self._save, self._restore = library.uc_context_save, library.uc_context_restore
        self._install()
        self._forget_images()

    def _install(self) -> None:
        me = weakref.proxy(self)
        # Kept with the engine: it calls them by address.
        self._callbacks = (
            ffi.callback("_Bool(void *, uint64_t, int, uint64_t *, void *)", lambda *a: me._fill(*a)),
            ffi.callback("void(void *, int, uint64_t, int, int64_t, void *)", lambda *a: me._access(*a)),
            ffi.callback("void(void *, uint32_t, void *)", lambda *a: me._interrupted(*a)),
        )
        fill, access, interrupted = self._callbacks
        self.engine.hook("TLB_FILL", fill, ffi.NULL)
        self.engine.hook("MEM_READ", access, ffi.NULL)
        self.engine.hook("MEM_WRITE", access, ffi.NULL)
        self.engine.hook("INTR", interrupted, ffi.NULL)

    # -- code ---------------------------------------------------------------------------------------

    def image(self, pc: int, code: bytes) -> Image:
        """The image of *code* at *pc*, of at most a page; the same bytes at the same place have the same image."""
        found = self._images.get((pc, code))
        if found is None:
            if self._used + 2 > IMAGES:
                self._forget_images()
            found = self._images[pc, code] = self._new_image(pc, code)
        return found

    def _new_image(self, pc: int, code: bytes) -> Image:
        first, last = pc & PAGE_MASK, pc + len(code) - 1 & PAGE_MASK
        pages = []
        for va in (first,) if last == first else (first, last):
            self._code.write(self._used * PAGE, self._filler)
            pages.append((va, self._used))
            self._used += 1
        at = pages[0][1] * PAGE + pc % PAGE  # the second page follows the first one
        self._code.write(at, code)
        return Image(tuple(pages))

    def _forget_images(self) -> None:
        """Page 0 holds filler only, for code that is not to run yet."""
        self._images.clear()
        self._shown.clear()
        self._code.write(0, self._filler)
        self._used = 1
        self._control(self.engine.uc, FLUSH_TB)
        self._flush()

    def _flush(self) -> None:
        self._control(self.engine.uc, FLUSH_TLB)
        self._fetched.clear()

    def show(self, image: Image) -> None:
        """Code of the pages of *image* is that image from now on."""
        for va, page in image.pages:
            if self._shown.get(va, 0) != page:
                self._shown[va] = page
                if va in self._fetched:
                    self._flush()

    # -- running ------------------------------------------------------------------------------------

    def run(self, pc: int, count: int = 1) -> int:
        """Run *count* instructions at *pc*, which are shown. Returns the engine's error, 0 when there was none.

        What an access raised is raised here; registers are then as they were before.
        """
        self.interrupt = None
        uc = self.engine.uc
        if len(self._slots) > DATA_PAGES - PER_INSTRUCTION:
            self._slots.clear()
            self._flush()
        self._page, self._left = pc & PAGE_MASK, False
        if self._page and 0 in self._fetched:
            self._flush()
        self._save(uc, self._context)
        error: int = self._start(uc, pc, 0 if self._page else UNREACHABLE, 0, count)
        if self._left:
            error = 0
        if self._failure is not None:
            failure, self._failure = self._failure, None
            self._restore(uc, self._context)
            raise failure
        return error

    def _fill(self, uc: Any, va: int, kind: int, out: Any, user: Any) -> bool:
        if kind == FETCH:
            if not va and self._page:  # the engine ends at address 0, but by a WFI, which EL0 may not
                self._left = True
                return False
            self._fetched.add(va)
            out[0] = IMAGES_BASE + self._shown.get(va, 0) * PAGE
            out[1] = EXECUTE
        else:
            out[0] = DATA_BASE + self._slot(va) * PAGE
            out[1] = READ_WRITE
        return True

    def _slot(self, va: int) -> int:
        slot = self._slots.get(va)
        if slot is None:
            slot = len(self._slots)
            self._slots[va], self._pages[slot] = slot, va
        return slot

    def _access(self, uc: Any, kind: int, address: int, size: int, value: int, user: Any) -> None:
        if self._failure is not None:
            return
        at = address - DATA_BASE
        try:
            if not 0 <= at < DATA_PAGES * PAGE:
                raise GuestError(f"the instruction engine accessed {address:#x}, where it has no data")
            va = self._pages[at // PAGE] + at % PAGE
            if kind == WRITE_MEMORY:
                self._write(va, size, value & (1 << 8 * size) - 1)
            else:
                self._put(at, va, self._read(va, size))
        except BaseException as failure:
            self._failure = failure
            self._stop(uc)

    def attempt(self, function: Callable[..., int], *arguments: int) -> int:
        """For callbacks of the engine in mid-instruction: what *function* raises ends the instruction, with 0."""
        if self._failure is not None:
            return 0
        try:
            return function(*arguments)
        except BaseException as failure:
            self._failure = failure
            self._stop(self.engine.uc)
            return 0

    def _put(self, at: int, va: int, data: bytes) -> None:
        room = PAGE - at % PAGE
        self._bytes[at : at + min(room, len(data))] = data[:room]
        if len(data) > room:
            at = self._slot(va + room & PAGE_MASK) * PAGE
            self._bytes[at : at + len(data) - room] = data[room:]

    def _interrupted(self, uc: Any, number: int, user: Any) -> None:
        self.interrupt = number
        self._stop(uc)
