"""x86-64 in the model: an engine that only computes, with the exception delivery of `mmu.guest`."""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mmu.core import ffi, lib
from mmu.guest.cpu import Refused
from mmu.guest.format import Rflags
from mmu.guest.stepper import Stepper
from mmu.guest.stop import Delivered, External, Interrupt, Stop
from mmu.guest.x86 import X86Cpu
from mmu.guest.x86_delivery import GP, UD, deliver
from mmu.guest.x86_ports import permitted
from mmu.guest.x86_system import Verdict, carry_out, verdict
from mmu.tcg.access import Accesses, HostPc, Mmu
from mmu.tcg.cpu import Emulator
from mmu.tcg.decode_x86 import X86Decoder, decoder
from mmu.tcg.instruction import Instruction
from mmu.tcg.signals import GuestEvent, GuestFault
from mmu.tcg.switches import Switches
from mmu.tcg.walk_x86 import walk
from mmu.tlb.cpu import Found
from mmu.tlb.cpu import X86Cpu as Rights
from mmu.types import Access, Fault, FaultKind
from mmu.x86 import PageFault, Registers, exception
from mmu.x86.format import Cr0, Cr3, Cr4, PageFaultCode

if TYPE_CHECKING:
    from mmu.memory import AddressSpace

HLT = b"\xf4"
# Changes of these bits flush the TLB. Source: QEMU, target/i386/helper.c, cpu_x86_update_cr0, cpu_x86_update_cr4.
FLUSHING = {
    "cr0": Cr0.PG.mask | Cr0.WP.mask | Cr0.PE.mask,
    "cr3": 0,
    "cr4": sum(Cr4.fields[n].mask for n in ("PGE", "PAE", "PSE", "SMEP", "SMAP", "LA57")),
}
IMPLICIT = int(Access.IMPLICIT)
TABLES = ("gdtr", "ldtr", "tr", "idtr")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Stands in for the stop record of the plain CPU."""

    fault: Fault
    kind: int = lib.MMU_GUEST_FAULT


class X86Mmu(Mmu):
    def __init__(self, cpu: ModelX86) -> None:
        self._cpu: ModelX86 = weakref.proxy(cpu)

    def index(self, access: int) -> Hashable:
        return self._cpu.mode()[access & IMPLICIT != 0]

    def walk(self, accesses: Accesses, va: int, access: int, ra: HostPc | None) -> Found | Fault:
        regs = self._cpu.paging_registers()
        answer = walk(accesses, regs, va, Access(access), ra)
        return answer if isinstance(answer, Fault) else self._cpu.rights().found(answer, Access(access))

    def bus_fault(self, va: int, access: int, result: Any) -> Fault:
        raise AssertionError("x86 does not see what the bus refuses")


class ModelX86(X86Cpu):
    """The CPU of `mmu.Machine(..., emulator=...)`; see `mmu.tcg.guest.Guest`."""

    def __init__(self, space: AddressSpace, switches: Switches) -> None:
        self.switches = switches
        self.decoder: X86Decoder = decoder()
        self.mmu = X86Mmu(self)
        self._mode: tuple[Hashable, Hashable] | None = None
        self._registers: Registers | None = None
        self._rights: Rights | None = None
        self._old = 0  # of a control register
        self._permitted_at: int | None = None  # the INS or OUTS that was found to be
        super().__init__(space, "reference")
        ports = {"data": self.ports["data"], "ptw": self.ports["walk"], "fetch": self.ports["code"]}
        self.emulator = Emulator(weakref.proxy(self), switches, space, ports, self.io)

    def _install(self) -> None:
        me = weakref.proxy(self)  # a CPU goes away when nobody has it any more
        self.stepper = Stepper(
            self.engine, HLT, lambda va, size: me.emulator.read(va, size),
            lambda va, size, value: me.emulator.write(va, size, value))
        self._kept += self.stepper.memories
        # Kept with the engine: it calls them by address.
        self._port_callbacks = {
            "port_in": ffi.callback(
                "uint32_t(void *, uint32_t, int, void *)",
                lambda uc, port, size, user: me.stepper.attempt(me._port_in, port, size)),
            "port_out": ffi.callback(
                "void(void *, uint32_t, int, uint32_t, void *)",
                lambda uc, port, size, value, user: me._attempt_out(port, size, value)),
        }  # fmt: skip
        for kind, field, instruction in self.HOOKS:
            if callback := self._port_callbacks.get(field):
                number = getattr(self.constants, instruction)
                self.engine.hook(kind, callback, ffi.NULL, instruction=number)
        self.hook_instructions(self.HOST_HOOKS)

    def _attempt_out(self, port: int, size: int, value: int) -> None:
        self.stepper.attempt(self._port_out, port, size, value)

    def _check_port(self, port: int, size: int) -> None:
        if self._permitted_at == self.emulator.pc:
            self._permitted_at = None
        elif not permitted(self, port, size, lambda va: self.emulator.read_system(va, 2)):
            raise GuestEvent(Interrupt(GP, 0))

    def _port_in(self, port: int, size: int) -> int:
        self._check_port(port, size)
        return self.emulator.port_in(port, size)

    def _port_out(self, port: int, size: int, value: int) -> int:
        self._check_port(port, size)
        return self.emulator.port_out(port, size, value)

    # -- state --------------------------------------------------------------------------------------

    def mode(self) -> tuple[Hashable, Hashable]:
        """(index of the program's accesses, index of the CPU's own)."""
        if self._mode is None:
            cpl = self.cpl
            ac = bool(self.read("rflags") & Rflags.AC.mask) and cpl != 3
            self._mode = (cpl == 3, ac), (False, False)
        return self._mode

    def mode_changed(self) -> None:
        self._mode = self._registers = self._rights = None

    def paging_registers(self) -> Registers:
        if self._registers is None:
            self._registers = self.walk_registers()
        return self._registers

    def rights(self) -> Rights:
        """What may be kept of walks with these registers."""
        if self._rights is None:
            self._rights = Rights(self.paging_registers())
        return self._rights

    def kind(self, access: int, va: int, instruction: Instruction) -> int:
        """A program at CPL 3 that makes the CPU look into its descriptor tables does so with supervisor rights."""
        if self.mode()[0] == (True, False) and any(b <= va <= b + limit for _, b, limit in map(self.table, TABLES)):
            return access | IMPLICIT
        return access

    def read_pc(self) -> int:
        return self.engine.read(self._numbers["rip"])

    def write_pc(self, pc: int) -> None:
        self.engine.write(self._numbers["rip"], pc)

    # -- special instructions -----------------------------------------------------------------------

    def special(self, instruction: Instruction, pc: int, code: bytes, accesses: Accesses) -> int | None:
        name = instruction.special
        if name == "syscall":
            self.mode_changed()
            following = self._syscall(pc, pc + instruction.length)
            assert isinstance(following, int)
            return following
        if name == "undefined":
            raise GuestEvent(Interrupt(UD))
        if name.startswith("string "):
            self._check_string(int(name.removeprefix("string ")), pc, code[: instruction.length - 1])
        if name == "invlpg":
            accesses.tlb.flush_page(self._operand(code, pc))
        elif name in ("system", "wrmsr") or name.startswith("mov "):
            return self._system(pc, code)
        return None

    def after(self, instruction: Instruction, accesses: Accesses) -> None:
        self.mode_changed()
        name = instruction.special.removeprefix("mov ").split(" ")[0]
        if name == "cr3" and (value := self.read("cr3")) & Cr3.NOFLUSH.mask:  # is not kept; but by the engine
            self.write("cr3", value & ~Cr3.NOFLUSH.mask)
        if name == "cr3" or name == "flush" or (
            name in FLUSHING and (self._old ^ self.read(name)) & FLUSHING[name]
        ):
            accesses.tlb.flush()

    def _check_string(self, size: int, pc: int, prefixes: bytes) -> None:
        """INS and OUTS ask before they touch memory, unless they are repeated for no time; not again at the port."""
        count = self.read("rcx") & (0xFFFF_FFFF if 0x67 in prefixes else (1 << 64) - 1)
        self._permitted_at = None
        if count or not {0xF2, 0xF3} & set(prefixes):
            self._check_port(self.read("rdx") & 0xFFFF, size)
            self._permitted_at = pc

    def _system(self, pc: int, code: bytes) -> int | None:
        """What the engine carries out wrongly. Returns where it goes on when that was done here."""
        instruction = next(self.disassembler.disasm(code, pc, 1))
        match verdict(self, instruction):
            case Verdict.REFUSED:
                raise GuestEvent(Interrupt(GP, 0))
            case Verdict.UNDEFINED:
                raise GuestEvent(Interrupt(UD))
            case Verdict.OURS:
                self.mode_changed()
                return carry_out(self, instruction)
        register = instruction.op_str.split(",")[0]  # of a MOV to a control register
        if register in FLUSHING:
            self._old = self.read(register)
        return None

    def _operand(self, code: bytes, pc: int) -> int:
        """Address of the memory operand."""
        return self.decoder.address(code, pc, self.read)

    def _syscall(self, at: int, pc: int) -> Any:
        if not self.read("efer") & 1:
            raise GuestEvent(Interrupt(UD))
        return super()._syscall(at, pc)

    # -- exceptions ---------------------------------------------------------------------------------

    def stopped(self, error: int, interrupt: int | None) -> Interrupt:
        if interrupt is not None:
            return self._interrupt(interrupt)
        event, pc = self._unknown_instruction(self.read_pc())
        self.write_pc(pc)
        return event

    def exception_of(self, fault: Fault) -> Any:
        """Faulty (rsvd_error_code): a reserved bit is reported without P."""
        event = exception(fault, self.paging_registers())
        if fault.kind is FaultKind.RESERVED_BIT and isinstance(event, PageFault) and self.switches.rsvd_error_code:
            event = replace(event, error_code=event.error_code & ~PageFaultCode.P.mask)
        return event

    def told(self, event: Any) -> tuple[int, int, int]:
        return event.vector, getattr(event, "cr2", 0), event.error_code or 0

    def enter(self, event: Any, pc: int, fault: Fault | None) -> Delivered | Stop:
        return deliver(self, event, pc, fault)

    def interrupt_event(self, vector: int) -> External | None:
        return External(vector) if self.read("rflags") & Rflags.IF.mask else None

    # -- the CPU's own accesses, of exception delivery ----------------------------------------------

    def load(self, va: int, size: int, access: Access = Access.READ) -> int:
        """Descriptors are read by halves."""
        halves = size == 8 and any(b <= va <= b + limit for _, b, limit in map(self.table, ("gdtr", "idtr")))
        step = 4 if halves else size
        try:
            data = b"".join(
                self.emulator.accesses.load(va + done, step, int(access), None) for done in range(0, size, step))
        except GuestFault as refused:
            raise Refused(Refusal(refused.fault)) from None
        return int.from_bytes(data, "little")

    def store(self, va: int, size: int, value: int, access: Access = Access.WRITE) -> None:
        try:
            self.emulator.accesses.store(va, size, value, int(access), None)
        except GuestFault as refused:
            raise Refused(Refusal(refused.fault)) from None

    def fault(self, stop: Any) -> Fault:
        return stop.fault if isinstance(stop, Refusal) else super().fault(stop)
