"""x86-64 guests: registers, and what each stop of the engine means to the CPU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

from mmu.core import check, ffi, lib
from mmu.guest import asked
from mmu.guest.context import get, put, x86_places
from mmu.guest.cpu import Cpu, Outcome
from mmu.guest.format import Dr6, Rflags, Segment, Star
from mmu.guest.stop import Interrupt, Stop
from mmu.guest.x86_cpuid import rows
from mmu.guest.x86_decode import LONGEST, decode, new_disassembler, refine
from mmu.guest.x86_delivery import DB, GP, MC, NP, SS, UD, WITH_CODE, deliver, triple_fault
from mmu.guest.x86_system import carry_out
from mmu.memory import AddressSpace
from mmu.memory.frames import Frames, LevelFrames
from mmu.types import Access, Fault, FaultKind
from mmu.x86 import GeneralProtection, MachineCheck, PageFault, PageTables, Registers, StackFault, exception
from mmu.x86.format import Cr0, Cr4, Efer

MSR = {"efer": 0xC0000080, "star": 0xC0000081, "lstar": 0xC0000082, "sfmask": 0xC0000084, "kernel_gs_base": 0xC0000102}
ENCODED = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))  # in instructions
GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)))
INT1 = re.compile(rb"[\x66\x67\xf2\xf3\x2e\x36\x3e\x26\x64\x65\x40-\x4f]*\xf1")  # after prefixes
FAR_RETURNS = {"iret": 2, "iretd": 4, "iretq": 8, "retf": 4, "retfq": 8}  # bytes of a word of their frames
FLAT = ("cs", "ss", "ds", "es")  # segments that are the same for all programs
SHOWN = (
    *GENERAL, "rip", "rflags", "cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base", "cr0", "cr2", "cr3", "cr4",
    "efer",
)  # fmt: skip
HIDDEN = ("cr8", "dr6", "dr7")

# As FNINIT and a reset leave it: all exceptions masked, extended precision, an empty stack. The engine has zeros.
FLOATING = {"fpcw": 0x37F, "fptag": 0xFFFF, "mxcsr": 0x1F80}
TABLE = "<H6xQII"  # uc_x86_mmr: selector, base, limit, flags
SAME_IDS = ("cr0", "cr2", "cr3", "cr4", "cr8", "dr6", "dr7", "cs", "ss", "msr", "gdtr", "idtr", "ldtr", "tr")
MSR_LAYOUT = "<I4xQ"  # uc_x86_msr
# The engine's summary of EFER.LMA and the segments, beside the CPL; of 64-bit code; where all segments have a base.
MODE_LONG, MODE_CS_64, MODE_BASES = 1 << 14, 1 << 15, 1 << 6
MODE_32 = 1 << 5 | 1 << 4
MODE_64 = MODE_CS_64 | MODE_32


class X86Cpu(Cpu):
    ARCH, PC = "x86_64", "rip"
    NUMBER = lib.MMU_GUEST_X86_64
    ENGINE = ("UC_ARCH_X86", "UC_MODE_64")
    PHYS_BITS, LINEAR_BITS = 52, 48
    TABLES = {"PML4": 4, "PDPT": 3, "PD": 2, "PT": 1}
    FLAT_CODE = Segment.make(TYPE=11, S=1, P=1, L=1, G=1, LIMIT_LOW=0xFFFF, LIMIT_HIGH=15)
    FLAT_CODE_32 = FLAT_CODE & ~Segment.L.mask | Segment.DB.mask
    FLAT_DATA = Segment.make(TYPE=3, S=1, P=1, DB=1, G=1, LIMIT_LOW=0xFFFF, LIMIT_HIGH=15)
    HOOKS = (
        ("INSN", "syscall", "UC_X86_INS_SYSCALL"), ("INSN", "port_in", "UC_X86_INS_IN"),
        ("INSN", "port_out", "UC_X86_INS_OUT"), ("EDGE_GENERATED", "x86_translated", ""),
    )  # fmt: skip
    HOST_HOOKS = (
        ("INSN", "rdtsc", "UC_X86_INS_RDTSC"), ("INSN", "rdtscp", "UC_X86_INS_RDTSCP"),
        ("INSN", "cpuid", "UC_X86_INS_CPUID"),
    )  # fmt: skip

    # -- what Cpu asks ------------------------------------------------------------------------------

    def load_constants(self) -> Any:
        from unicorn import x86_const

        return x86_const

    def _number(self, name: str) -> int:
        number: int = getattr(self.constants, f"UC_X86_REG_{name.upper()}")
        return number

    def model(self) -> int:
        """SMEP, SMAP and 1 GiB pages, no protection keys and no 5-level paging, which the engine hides from us."""
        model: int = self.constants.UC_CPU_X86_BROADWELL
        return model

    def ids(self) -> dict[str, int | list[int]]:
        names = {"pc": "rip", "flags": "rflags"} | {n: n for n in SAME_IDS}
        general = [self._number(name) for name in ENCODED]
        return {"general": general} | {field: self._number(name) for field, name in names.items()}

    def new_io(self) -> AddressSpace:
        return AddressSpace()

    def places(self) -> Mapping[str, int]:
        return {name: place for name, place in asdict(x86_places()).items() if name != "xcr0"}  # which C has no use for

    def configure(self, config: Any) -> None:
        for n, (leaf, subleaf, answer) in enumerate(rows(self.PHYS_BITS, self.LINEAR_BITS)):
            row = config.cpuid[n]
            row.leaf, row.subleaf, row.registers = leaf, subleaf, answer

    def register_numbers(self) -> Mapping[str, int]:
        return {name: self._number(name) for name in (*SHOWN, *HIDDEN) if name not in MSR} | dict.fromkeys(MSR, -1)

    def read(self, name: str) -> int:
        return self.msr(MSR[name]) if name in MSR else super().read(name)

    def write(self, name: str, value: int) -> None:
        if name in MSR:
            self.set_msr(MSR[name], asked.number(name, value))
        elif name in FLAT:
            self._write_segment(name, asked.number(name, value))
        else:
            super().write(name, value)

    def _write_segment(self, name: str, selector: int) -> None:
        """Load a flat segment under *selector*, without a look at tables; that of CS says the privilege."""
        self._open()
        if not 0 <= selector <= 0xFFFF:
            raise ValueError(f"{name} must be 0 .. 0xffff, not {selector:#x}")
        descriptor = self.FLAT_CODE if name == "cs" else self.FLAT_DATA
        cpl = selector & 3 if name == "cs" else self.cpl
        self.switch({name: (selector, descriptor | Segment.DPL.put(selector & 3))}, cpl)

    def registers(self) -> dict[str, int]:
        return {name: self.read(name) for name in SHOWN}

    def msr(self, number: int) -> int:
        return self.structure(self._number("msr"), MSR_LAYOUT, number)[1]

    def set_msr(self, number: int, value: int) -> None:
        self.set_structure(self._number("msr"), MSR_LAYOUT, number, value)

    @cached_property
    def disassembler(self) -> Any:
        return new_disassembler()

    def table(self, name: str) -> tuple[int, int, int]:
        """(selector, base, limit) of gdtr, idtr, ldtr or tr."""
        return self.table_flags(name)[:3]

    def table_flags(self, name: str) -> tuple[int, int, int, int]:
        """And the upper word of the descriptor, of ldtr and tr."""
        selector, base, limit, flags = self.structure(self._number(name), TABLE)
        return selector, base, limit, flags

    def reset(self) -> None:
        """Long mode with paging on, at CPL 0, flat segments, no GDT, IDT or TSS; CR3 is still to be set."""
        self.write("cr4", Cr4.make(PAE=1, PGE=1, OSFXSR=1, OSXMMEXCPT=1))
        self.write("cr3", 0)
        self.write("cr0", Cr0.make(PE=1, MP=1, ET=1, NE=1, WP=1, PG=1))
        self.write("efer", Efer.make(SCE=1, LME=1, LMA=1, NXE=1))
        self.write("rflags", Rflags.make(ONE=1))
        for name, value in FLOATING.items():
            self.engine.write(self._number(name), value)
        data = (16, self.FLAT_DATA)
        self.switch({"cs": (8, self.FLAT_CODE), "ss": data, "ds": data, "es": data}, cpl=0)

    def start_32(self, pc: int) -> None:
        """Protected mode with paging off and flat 32-bit segments at CPL 0; general registers are 0."""
        for name in GENERAL:
            self.write(name, 0)
        for name, value in {"cr0": Cr0.make(PE=1, ET=1), "cr4": 0, "cr3": 0, "efer": 0}.items():
            self.write(name, value)
        self.write("rflags", Rflags.make(ONE=1))
        data = (16, self.FLAT_DATA)
        flat = {"cs": (8, self.FLAT_CODE_32), "ss": data, "ds": data, "es": data, "fs": data, "gs": data}
        self.switch(flat, cpl=0)  # the engine left 64-bit code with CR0.PG
        self.write("rip", pc)

    def start(self, pc: int, stack: int, data: int, size: int) -> None:
        """Registers of a program's first instruction."""
        for name in GENERAL:
            self.write(name, 0)
        for name, value in {"rsp": stack, "rdi": data, "rsi": size, "rip": pc}.items():
            self.write(name, value)

    def new_tables(self, frames: Frames | LevelFrames) -> PageTables:
        return PageTables(self.space, frames)

    def set_tables(self, root: int) -> None:
        self.write("cr3", root)

    @property
    def has_tables(self) -> bool:
        """Or needs none: paging is off."""
        return self.read("cr3") != 0 or not self.read("cr0") & Cr0.PG.mask

    @property
    def cpl(self) -> int:
        return self.read("cs") & 3

    @property
    def in_64_bit_code(self) -> bool:
        """And not in code of 32 bits, in long mode or not."""
        return bool(get(self.engine.save(self.context), x86_places().hflags, 4) & MODE_CS_64)

    @property
    def marked_long(self) -> bool:
        """CS.L is set, which says nothing outside of long mode."""
        places = x86_places()
        flags = get(self.engine.save(self.context), places.segments + places.stride + 20, 4)
        return bool(flags << 32 & Segment.L.mask)

    def peek_physical(self, pa: int, count: int) -> tuple[int, ...]:
        """So many words of 8 bytes, 0 where the bus has none. Uncounted."""
        words = ffi.new("uint64_t[]", count)
        for n in range(count):
            check(lib.mmu_port_load(self.ports["probe"].handle, pa + 8 * n, 8, words + n), "a physical word")
        return tuple(words)

    def walk_registers(self) -> Registers:
        return Registers(
            cr0=self.read("cr0"), cr3=self.read("cr3"), cr4=self.read("cr4"), efer=self.read("efer"),
            ac=bool(self.read("rflags") & Rflags.AC.mask), cpl=self.cpl, phys_bits=self.PHYS_BITS)

    # -- stops --------------------------------------------------------------------------------------

    def handle(self, stop: Any) -> Outcome:
        kind = stop.kind
        if kind == lib.MMU_GUEST_FAULT:
            fault = self.fault(refine(self, stop))
            return deliver(self, exception(fault, self.walk_registers()), stop.pc, fault)
        if kind == lib.MMU_GUEST_INTERRUPT:
            return deliver(self, self._mend_not_present(self._interrupt(stop.number), stop.pc), stop.pc)
        if kind == lib.MMU_GUEST_INVALID:
            return deliver(self, *self._unknown_instruction(stop.pc))
        if kind == lib.MMU_GUEST_PROTECTION:
            return deliver(self, Interrupt(GP, 0), stop.pc)
        if kind == lib.MMU_GUEST_SYSCALL:
            self.write("dr6", stop.number)  # the engine has noted a step, if TF was set
            return self._syscall(stop.va, stop.pc)
        if kind == lib.MMU_GUEST_TRIPLE_FAULT:
            walked = stop.event.kind != lib.MMU_GUEST_EVENT_INTERRUPT
            return triple_fault(stop.pc, self.event(stop.event), self.fault(stop) if walked else None, stop.number)
        if kind == lib.MMU_GUEST_SYSTEM:
            return self._stepped(carry_out(self, decode(self, stop.pc)))
        assert kind == lib.MMU_GUEST_BUS_ERROR, f"stop kind {kind}"
        return Stop("bus-error", stop.pc, detail=f"no instruction at physical {stop.hpa:#x}")

    def fault(self, stop: Any) -> Fault:
        """The walk that a stop record tells of, as a value."""
        raw = stop.x86
        key = {"protection_key": raw.protection_key - 1} if raw.protection_key else {}
        entry = {"level": raw.level, "entry_address": raw.entry_address, "entry": raw.entry} if raw.level else {
            "level": None}  # fmt: skip
        return Fault(
            FaultKind(raw.kind), va=stop.va, access=Access(stop.access), stage=raw.stage, on_table=bool(raw.on_table),
            detail=key, **entry)

    def event(self, raw: Any) -> Any:
        if raw.kind == lib.MMU_GUEST_EVENT_INTERRUPT:
            return Interrupt(raw.vector, raw.code if raw.has_code else None, bool(raw.software))
        if raw.kind == lib.MMU_GUEST_EVENT_PAGE_FAULT:
            return PageFault(raw.code, raw.address)
        if raw.vector == MC:
            return MachineCheck(raw.address or None)
        return {GP: GeneralProtection, SS: StackFault}[raw.vector](raw.code)

    def _interrupt(self, vector: int) -> Interrupt:
        """What the engine stopped for. It must forget it, or it takes the next one for a double fault."""
        places = x86_places()
        blob = self.engine.save(self.context)
        software = bool(get(blob, places.software, 4))
        code = get(blob, places.error_code, 4) if vector in WITH_CODE and not software else None
        put(blob, places.previous, 4, -1)
        put(blob, places.software, 4, 0)
        self.engine.restore(self.context)
        return Interrupt(vector, code, software)

    def _mend_not_present(self, event: Interrupt, pc: int) -> Interrupt:
        """Of IRET and RETF to another privilege: that the stack's segment is not present is #SS, which the engine takes
        for that of the code's."""
        instruction = decode(self, pc) if event.vector == NP else None
        size = FAR_RETURNS.get(instruction.mnemonic) if instruction else None
        if size is None or event.error_code is None:
            return event
        at = self.translate(self.read("rsp") + size, Access.READ)
        code = self.peek_physical(at, 1)[0] if isinstance(at, int) else event.error_code
        return Interrupt(SS, event.error_code) if (code ^ event.error_code) & 0xFFFC else event

    def switch(self, segments: Mapping[str, tuple[int, int]], cpl: int) -> None:
        """Load segments, as (selector, descriptor) by name, and the CPL, which the engine keeps apart from both.

        The caches hold the descriptor's upper word without base and limit; in 64-bit mode both are flat.
        """
        places = x86_places()
        blob = self.engine.save(self.context)
        mode = get(blob, places.hflags, 4) & ~3 | cpl
        if "cs" in segments:
            wide = mode & MODE_LONG and Segment.L.get(segments["cs"][1])
            mode = mode & ~(MODE_BASES | MODE_64) | (MODE_64 if wide else MODE_32)
        for name, (selector, descriptor) in segments.items():
            at = places.segments + places.stride * ("es", "cs", "ss", "ds", "fs", "gs").index(name)
            put(blob, at, 4, selector)
            put(blob, at + 8, 8, 0)
            put(blob, at + 16, 4, 0xFFFFFFFF)
            put(blob, at + 20, 4, descriptor >> 32 & 0x00F0FF00)
        if not mode & MODE_CS_64 and any(
            get(blob, places.segments + places.stride * n + 8, 8) for n in (0, 2, 3)
        ):
            mode |= MODE_BASES
        put(blob, places.hflags, 4, mode)
        self.engine.restore(self.context)

    def _unknown_instruction(self, pc: int) -> tuple[Interrupt, int]:
        """What one that the engine does not know raises, and where: INT1 is #DB, as a trap."""
        last = INT1.match(self.peek(pc, LONGEST))
        return (Interrupt(DB), pc + last.end()) if last else (Interrupt(UD), pc)

    def _syscall(self, at: int, pc: int) -> Outcome:
        """SYSCALL, which the engine takes for no operation. It begins *at*, and *pc* is after it."""
        if not self.read("efer") & Efer.SCE.mask or not self.in_64_bit_code:
            self.write("rip", at)
            return deliver(self, Interrupt(UD), at)
        flags = self.read("rflags")
        self.write("rcx", pc)
        self.write("r11", flags & ~Rflags.RF.mask)
        self.write("rflags", flags & ~self.read("sfmask") & ~Rflags.RF.mask | Rflags.ONE.mask)
        selector = Star.SYSCALL.get(self.read("star")) & ~3
        self.switch({"cs": (selector, self.FLAT_CODE), "ss": (selector + 8, self.FLAT_DATA)}, cpl=0)
        return self._stepped(self.read("lstar"))

    def _stepped(self, pc: int) -> Outcome:
        """What was carried out here traps when it is done, if the guest steps."""
        if not self.read("rflags") & Rflags.TF.mask:
            return pc
        self.write("dr6", self.read("dr6") | Dr6.BS.mask)
        self.write("rip", pc)
        return deliver(self, Interrupt(DB), pc)
