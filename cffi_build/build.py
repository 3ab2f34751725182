"""Declares the C interface of mmu._core (out-of-line API mode) and writes every generated source."""

from pathlib import Path

from cffi import FFI

from cffi_build import gen_tables

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"

# Each file holds declarations only: the C compiler reads it through mmu.h, cffi reads it verbatim.
# The order is the order of definition.
API = (
    "places_api.h", "bus_api.h", "hostmem_api.h", "mirror_api.h", "walk_api.h", "x86_api.h", "arm64_api.h",
    "tlb_api.h", "guest_api.h", "uart_api.h", "scan_api.h", "locate_api.h",
)

# Called from C on the thread that entered C; the GIL is taken by cffi.
CALLBACKS = """
extern "Python" int mmu_py_io_read(void *, uint64_t, uint32_t, uint64_t *);
extern "Python" int mmu_py_io_write(void *, uint64_t, uint32_t, uint64_t);
extern "Python" int mmu_py_io_accepts(void *, uint64_t, uint32_t, uint32_t);
"""


def ffibuilder() -> FFI:
    ffi = FFI()
    ffi.cdef(gen_tables.render_enums())
    for name in API:
        ffi.cdef((CSRC / name).read_text())
    ffi.cdef(CALLBACKS)
    ffi.set_source("mmu._core", '#include "mmu.h"')
    return ffi


def write_generated_sources() -> None:
    (CSRC / "mmu_tables.h").write_text(gen_tables.render())
    ffibuilder().emit_c_code(str(CSRC / "_core.c"))


if __name__ == "__main__":
    write_generated_sources()
