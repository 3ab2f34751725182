"""unicorn's own x86 MMU as a second opinion: its page walk, asked directly, with error code and CR2."""

from mmu import Access
from mmu.core import ffi
from mmu.guest.context import x86_places
from mmu.guest.engine import Engine
from mmu.memory.host import HostMemory
from mmu.x86 import Registers
from mmu.x86.format import Cr0, Efer

PHYS_BITS = 40  # what this version takes for MAXPHYADDR whatever the model says
UNTOUCHED = 0x5A5A5A5A5A5A5A5A
PROTECTION = {Access.READ: 1, Access.WRITE: 2, Access.FETCH: 4}
CODE = 1 << 24  # where its own few instructions lie, apart from the tables under test
WRPKRU_HLT = b"\x0f\x01\xef\xf4"
AC, PKE = 1 << 18, 1 << 22


class UnicornWalker:
    """Walks tables in *size* bytes of RAM at 0 that start as zeroes: `memory` reads and writes them."""

    def __init__(self, size: int) -> None:
        from unicorn import x86_const as u

        self.u = u
        self.engine = Engine("UC_ARCH_X86", "UC_MODE_64", u.UC_CPU_X86_ICELAKE_SERVER, tlb=False)
        self.memory, self._code = HostMemory(size), HostMemory(4096)
        self.engine.map_host(0, size, self.memory.address)
        self.engine.map_host(CODE, 4096, self._code.address)
        self._code.write(0, WRPKRU_HLT)
        self._context = self.engine.new_context()
        self._places = x86_places()
        self._physical = ffi.new("uint64_t *")
        constants = self.engine.library.constants
        self._flush_tlb = constants.UC_CTL_TLB_FLUSH | constants.UC_CTL_IO_WRITE << 30
        self._translate = self._function("uc_vmem_translate", "int(*)(void *, uint64_t, int, uint64_t *)")

    def _function(self, name: str, prototype: str):
        import ctypes

        from unicorn.unicorn_py3 import unicorn as binding

        address = ctypes.cast(getattr(binding.uclib, name), ctypes.c_void_p).value
        return ffi.cast(prototype, ffi.cast("uintptr_t", address))

    def close(self) -> None:
        self.engine.close()

    def configure(self, regs: Registers) -> None:
        u, write = self.u, self.engine.write
        self._privilege(0)
        write(u.UC_X86_REG_CR0, regs.cr0 & ~Cr0.PG.mask)
        write(u.UC_X86_REG_CR4, regs.cr4)
        efer = ffi.new("uint64_t[2]", [0xC0000080, regs.efer & ~Efer.LMA.mask])  # LMA follows from CR0.PG
        self.engine.transfer(u.UC_X86_REG_MSR, efer, write=True)
        self._pkru(regs)
        write(u.UC_X86_REG_CR3, regs.cr3)
        write(u.UC_X86_REG_CR0, regs.cr0)
        write(u.UC_X86_REG_EFLAGS, 2 | (AC if regs.ac else 0))
        self._privilege(regs.cpl)

    def _pkru(self, regs: Registers) -> None:
        u, write = self.u, self.engine.write
        write(u.UC_X86_REG_CR4, regs.cr4 | PKE)
        write(u.UC_X86_REG_RAX, regs.pkru)
        write(u.UC_X86_REG_RCX, 0)
        write(u.UC_X86_REG_RDX, 0)
        error = self.engine.start(CODE)
        if error or self.engine.read(u.UC_X86_REG_RIP) != CODE + len(WRPKRU_HLT):
            raise RuntimeError(f"unicorn did not run WRPKRU: error {error}")
        write(u.UC_X86_REG_CR4, regs.cr4)

    def _privilege(self, cpl: int) -> None:
        blob, at = self.engine.save(self._context), self._places.hflags
        word = int.from_bytes(blob[at : at + 4], "little") & ~3 | cpl
        blob[at : at + 4] = word.to_bytes(4, "little")
        self.engine.restore(self._context)

    def query(self, va: int, access: Access) -> tuple:
        """("pa", address), ("#PF", error code, CR2) or ("#GP",)."""
        library = self.engine.library
        library.uc_ctl(self.engine.uc, self._flush_tlb)
        self.engine.write(self.u.UC_X86_REG_CR2, UNTOUCHED)
        if self._translate(self.engine.uc, va, PROTECTION[access], self._physical) == 0:
            return ("pa", self._physical[0])
        cr2 = self.engine.read(self.u.UC_X86_REG_CR2)
        if cr2 == UNTOUCHED:
            return ("#GP",)
        blob, at = self.engine.save(self._context), self._places.error_code
        return ("#PF", int.from_bytes(blob[at : at + 4], "little"), cr2)
