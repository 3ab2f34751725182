"""unicorn's C interface, bound by the addresses of its functions. Nothing else in the house talks to unicorn.

Why not unicorn's own Python class: its callbacks enter Python, ours are C functions; and an engine must live exactly as
long as the memory and the guest that it points to, so closing it is ours to order.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from mmu.core import ffi
from mmu.errors import ClosedError, GuestError

VERSION = (2, 1, 4)  # what the behaviour was measured with; see the calibration in mmu.guest.context

# unicorn.h, as cffi reads C.
_PROTOTYPES = {
    "uc_version": "unsigned int(*)(unsigned int *, unsigned int *)",
    "uc_strerror": "const char *(*)(int)",
    "uc_open": "int(*)(int, int, void **)",
    "uc_close": "int(*)(void *)",
    "uc_ctl": "int(*)(void *, int, ...)",
    "uc_hook_add": "int(*)(void *, size_t *, int, void *, void *, uint64_t, uint64_t, ...)",
    "uc_hook_del": "int(*)(void *, size_t)",
    "uc_mem_map_ptr": "int(*)(void *, uint64_t, size_t, uint32_t, void *)",
    "uc_mem_protect": "int(*)(void *, uint64_t, size_t, uint32_t)",
    "uc_mmio_map": "int(*)(void *, uint64_t, size_t, void *, void *, void *, void *)",
    "uc_reg_read": "int(*)(void *, int, void *)",
    "uc_reg_read_batch": "int(*)(void *, int *, void **, int)",
    "uc_reg_write": "int(*)(void *, int, const void *)",
    "uc_emu_start": "int(*)(void *, uint64_t, uint64_t, uint64_t, size_t)",
    "uc_emu_stop": "int(*)(void *)",
    "uc_context_alloc": "int(*)(void *, void **)",
    "uc_context_size": "size_t(*)(void *)",
    "uc_context_save": "int(*)(void *, void *)",
    "uc_context_restore": "int(*)(void *, void *)",
    "uc_context_free": "int(*)(void *)",
}
ALL = 7  # UC_PROT_ALL
PAGE = 4096


class Library:
    """The functions of libunicorn, callable through cffi and handed to C by address."""

    def __init__(self) -> None:
        import ctypes

        import unicorn.unicorn_const as constants
        from unicorn.unicorn_py3 import unicorn as binding

        self.constants: Any = constants
        self.functions: dict[str, Any] = {}
        for name, prototype in _PROTOTYPES.items():
            address = ctypes.cast(getattr(binding.uclib, name), ctypes.c_void_p).value
            self.functions[name] = ffi.cast(prototype, ffi.cast("uintptr_t", address))
        major, minor = ffi.new("unsigned int *"), ffi.new("unsigned int *")
        packed = self.functions["uc_version"](major, minor)
        version = (major[0], minor[0], packed >> 8 & 0xFF)
        if version != VERSION:
            raise GuestError(f"unicorn must be {_dotted(VERSION)}, not {_dotted(version)}")

    def __getattr__(self, name: str) -> Any:
        try:
            return self.functions[name]
        except KeyError:
            raise AttributeError(name) from None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


@cache
def library() -> Library:
    return Library()


class Engine:
    """One unicorn instance whose TLB misses are answered by a callback. Closed once, by its owner."""

    def __init__(self, arch: str, mode: str, model: int, tlb: bool = True) -> None:
        """*arch* and *mode* by unicorn's names (UC_ARCH_..., UC_MODE_...), *model* of the CPU by its number.

        Without *tlb* unicorn translates by itself.
        """
        self.library = library()
        constants = self.library.constants
        out = ffi.new("void **")
        self._check(
            self.library.uc_open(getattr(constants, arch), getattr(constants, mode), out), f"uc_open({arch}, {mode})")
        self._uc = out[0]
        self._contexts: list[Any] = []
        self._reg_read, self._value = self.library.uc_reg_read, ffi.new("uint64_t[2]")
        try:
            self._control("UC_CTL_CPU_MODEL", model)
            if arch == "UC_ARCH_ARM64":
                self._control("UC_CTL_UC_PAGE_SIZE", PAGE)  # its granule is 1 KiB otherwise
            self._control("UC_CTL_TCG_BUFFER_SIZE", 16 << 20)  # 1 GiB of addresses otherwise
            if tlb:
                self._control("UC_CTL_TLB_TYPE", constants.UC_TLB_VIRTUAL)
        except GuestError:
            self.close()
            raise

    def _check(self, error: int, what: str) -> None:
        if error:
            text = ffi.string(self.library.uc_strerror(error)).decode()
            raise GuestError(f"{what} failed: {text}")

    def _control(self, name: str, value: int) -> None:
        constants = self.library.constants
        control = getattr(constants, name) | 1 << 26 | constants.UC_CTL_IO_WRITE << 30
        self._check(self.library.uc_ctl(self.uc, control, ffi.cast("int", value)), f"uc_ctl({name}, {value})")

    @property
    def uc(self) -> Any:
        """unicorn's handle. Raises ClosedError when there is none any more."""
        if not self._uc:
            raise ClosedError("this machine is closed")
        return self._uc

    def close(self) -> None:
        if self._uc:
            for context in self._contexts:
                self.library.uc_context_free(context)
            self.library.uc_close(self._uc)
            self._uc, self._contexts = ffi.NULL, []

    # -- memory and hooks ---------------------------------------------------------------------------

    def map_host(self, address: int, size: int, host: Any) -> None:
        """Show *size* bytes of host memory at a physical address. The memory must outlive the engine."""
        error = self.library.uc_mem_map_ptr(self.uc, address, size, ALL, host)
        self._check(error, f"mapping {size:#x} bytes at {address:#x}")

    def map_callbacks(self, address: int, size: int, read: Any, write: Any, user: Any) -> None:
        """Send accesses to *size* bytes at a physical address to two C functions."""
        self._check(
            self.library.uc_mmio_map(self.uc, address, size, read, user, write, user),
            f"mapping {size:#x} at {address:#x}")

    def protect(self, address: int, size: int, permissions: int) -> None:
        """Give a region other UC_PROT_* than all. For one of callbacks that is who is asked before an access."""
        self._check(
            self.library.uc_mem_protect(self.uc, address, size, permissions), f"protecting {size:#x} at {address:#x}")

    def hook(
        self, kind: str, function: Any, user: Any, first: int = 1, last: int = 0, instruction: int | None = None
    ) -> int:
        """Call a C function on UC_HOOK_*kind*, between two addresses (inclusive; first > last: everywhere)."""
        out = ffi.new("size_t *")
        extra = () if instruction is None else (ffi.cast("int", instruction),)
        self._check(
            self.library.uc_hook_add(
                self.uc, out, getattr(self.library.constants, f"UC_HOOK_{kind}"), function, user, first, last, *extra),
            f"hook {kind}")
        handle: int = out[0]
        return handle

    # -- registers ----------------------------------------------------------------------------------

    def read(self, register: int) -> int:
        """Value of a register of at most 64 bits."""
        out = self._value
        out[0] = 0  # a narrow register leaves the rest alone
        if error := self._reg_read(self.uc, register, out):
            self._check(error, f"reading register {register}")
        value: int = out[0]
        return value

    def write(self, register: int, value: int) -> None:
        data = ffi.new("uint64_t[2]", [value & (1 << 64) - 1, 0])
        self._check(self.library.uc_reg_write(self.uc, register, data), f"writing register {register}")

    def transfer(self, register: int, data: Any, write: bool = False) -> None:
        """Read or write a register that unicorn keeps in a structure (MSR, descriptor table, system register)."""
        function = self.library.uc_reg_write if write else self.library.uc_reg_read
        self._check(function(self.uc, register, data), f"register {register}")

    # -- running and contexts -----------------------------------------------------------------------

    def start(self, pc: int, count: int = 0) -> int:
        """Run (for calibration: a guest runs from C). Returns unicorn's error, 0 when it ended by itself."""
        error: int = self.library.uc_emu_start(self.uc, pc, 0, 0, count)
        return error

    def new_context(self) -> Any:
        """A blob that holds the whole CPU state; freed with the engine."""
        out = ffi.new("void **")
        self._check(self.library.uc_context_alloc(self.uc, out), "uc_context_alloc")
        self._contexts.append(out[0])
        return out[0]

    def save(self, context: Any) -> Any:
        """Fill the blob; returns its bytes as a writable buffer."""
        self._check(self.library.uc_context_save(self.uc, context), "uc_context_save")
        return ffi.buffer(context, self.library.uc_context_size(self.uc))

    def restore(self, context: Any) -> None:
        self._check(self.library.uc_context_restore(self.uc, context), "uc_context_restore")
