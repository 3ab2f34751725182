"""arm64 in the model: an engine that only computes, with the exception delivery of `mmu.guest`."""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mmu.arm64 import Abort, Registers, exception
from mmu.arm64.format import Esr, ExceptionClass, Hcr, Ttbr
from mmu.guest.arm64 import SECURE_MONITOR_CALL, UNKNOWN_REASON, Arm64Cpu
from mmu.guest.format import Pstate
from mmu.guest.stepper import Stepper
from mmu.guest.stop import Delivered, Stop, Synchronous
from mmu.tcg.access import Accesses, HostPc, Mmu
from mmu.tcg.cpu import Emulator
from mmu.tcg.decode_arm64 import Arm64Decoder, decoder
from mmu.tcg.instruction import Instruction
from mmu.tcg.signals import GuestEvent
from mmu.tcg.switches import Switches
from mmu.tcg.walk_arm64 import walk
from mmu.tlb.cpu import Arm64Cpu as Rights
from mmu.tlb.cpu import Found
from mmu.types import Access, Fault, FaultKind, MemTxResult

if TYPE_CHECKING:
    from mmu.memory import AddressSpace

UNPRIVILEGED = int(Access.UNPRIVILEGED)
UDF = bytes(4)
ZVA_SIZE = 64  # bytes that DC ZVA clears
IRQ = 0x80  # after the vector of a synchronous exception
# System registers whose change flushes the TLB. Source: QEMU, target/arm/helper.c: vmsa_tcr_el12_write, sctlr_write,
# vmsa_ttbr_write (when the ASID changes).
FLUSHING = ("sctlr_el1", "tcr_el1")
TTBRS = ("ttbr0_el1", "ttbr1_el1")
STAGE2 = ("vtcr_el2", "vttbr_el2")  # not known to the engine, which does not translate


@dataclass(frozen=True, slots=True)
class Irq:
    """An interrupt from outside."""

    number: int
    esr: int | None = None
    far: int | None = None


class Arm64Mmu(Mmu):
    ignores_bus_errors = False

    def __init__(self, cpu: ModelArm64) -> None:
        self._cpu: ModelArm64 = weakref.proxy(cpu)

    def index(self, access: int) -> Hashable:
        return self._cpu.mode(), access & UNPRIVILEGED

    def walk(self, accesses: Accesses, va: int, access: int, ra: HostPc | None) -> Found | Fault:
        regs = self._cpu.paging_registers()
        answer = walk(accesses, regs, va, Access(access))
        return answer if isinstance(answer, Fault) else self._cpu.rights().found(answer, Access(access))

    def bus_fault(self, va: int, access: int, result: MemTxResult) -> Fault:
        return Fault(FaultKind.BUS, None, va, Access(access), detail={"result": result})


class ModelArm64(Arm64Cpu):
    """The CPU of `mmu.Machine(..., emulator=...)`; see `mmu.tcg.guest.Guest`.

    Stage 2 is on when vttbr_el2 was written, as a hypervisor does that the guest does not see.
    """

    def __init__(self, space: AddressSpace, switches: Switches) -> None:
        self._stage2 = dict.fromkeys(STAGE2, 0)
        self.switches = switches
        self.decoder: Arm64Decoder = decoder()
        self.mmu = Arm64Mmu(self)
        self._mode: Hashable = None
        self._registers: Registers | None = None
        self._rights: Rights | None = None
        self._old: dict[str, int] = {}  # system registers before an MSR
        super().__init__(space, "reference")
        ports = {"data": self.ports["data"], "ptw": self.ports["walk"], "fetch": self.ports["code"]}
        self.emulator = Emulator(weakref.proxy(self), switches, space, ports, None)

    def _install(self) -> None:
        me = weakref.proxy(self)  # a CPU goes away when nobody has it any more
        self.stepper = Stepper(
            self.engine, UDF, lambda va, size: me.emulator.read(va, size),
            lambda va, size, value: me.emulator.write(va, size, value))
        self._kept += self.stepper.memories
        self.hook_instructions(self.HOST_HOOKS)

    # -- state --------------------------------------------------------------------------------------

    def mode(self) -> Hashable:
        if self._mode is None:
            pstate = self.read("pstate")
            self._mode = Pstate.EL.get(pstate), Pstate.PAN.get(pstate), Pstate.UAO.get(pstate)
        return self._mode

    def mode_changed(self) -> None:
        self._mode = self._registers = self._rights = None

    def read(self, name: str) -> int:
        return self._stage2[name] if name in STAGE2 else super().read(name)

    def write(self, name: str, value: int) -> None:
        if name in STAGE2:
            self._stage2[name] = value
            self.mode_changed()
        else:
            super().write(name, value)

    def walk_registers(self) -> Registers:
        found, (vtcr, vttbr) = super().walk_registers(), (self._stage2[name] for name in STAGE2)
        return replace(found, hcr_el2=Hcr.VM.mask, vtcr_el2=vtcr, vttbr_el2=vttbr) if vttbr else found

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
        return access | UNPRIVILEGED if instruction.special == "unprivileged" else access

    def read_pc(self) -> int:
        return self.engine.read(self._numbers["pc"])

    def write_pc(self, pc: int) -> None:
        self.engine.write(self._numbers["pc"], pc)

    # -- special instructions -----------------------------------------------------------------------

    def special(self, instruction: Instruction, pc: int, code: bytes, accesses: Accesses) -> int | None:
        word = int.from_bytes(code, "little")
        if instruction.special == "undefined":
            raise GuestEvent(Synchronous(UNKNOWN_REASON))
        if instruction.special == "tlbi":
            self._invalidate(word, accesses)
        elif instruction.special == "msr":
            self._old = {name: self.read(name) for name in (*FLUSHING, *TTBRS)}
        elif instruction.special == "dc":
            self.emulator.touch(self._register_operand(word))
        elif instruction.special == "dc zva":
            self._zero(self._register_operand(word) & -ZVA_SIZE)
            return pc + instruction.length
        return None

    def after(self, instruction: Instruction, accesses: Accesses) -> None:
        if instruction.special == "unprivileged":
            return
        self.mode_changed()
        if instruction.special != "msr":
            return
        changed = {name: self.read(name) ^ old for name, old in self._old.items()}
        if any(changed[name] for name in FLUSHING) or any(Ttbr.ASID.get(changed[name]) for name in TTBRS):
            accesses.tlb.flush()

    def _register_operand(self, word: int) -> int:
        number = word & 31
        return 0 if number == 31 else self.read(f"x{number}")

    def _invalidate(self, word: int, accesses: Accesses) -> None:
        """By address: one page. Everything else: all, for entries have no ASID."""
        by_address = word >> 5 & 1  # op2: VMALLE1 0, VAE1 1, ASIDE1 2, VAAE1 3, VALE1 5, VAALE1 7
        if by_address and not (word >> 16 & 7):  # op1 0: the EL1&0 regime
            page = self._register_operand(word) << 12 & (1 << 56) - 1
            accesses.tlb.flush_page(page | (0xFF << 56 if page >> 55 else 0))
        else:
            accesses.tlb.flush()

    def _zero(self, va: int) -> None:
        """A device sees single bytes."""
        for at in range(va, va + ZVA_SIZE):
            self.emulator.write(at, 1, 0)

    # -- exceptions ---------------------------------------------------------------------------------

    def stopped(self, error: int, interrupt: int | None) -> Synchronous:
        if interrupt is None:
            return Synchronous(UNKNOWN_REASON)
        if interrupt == SECURE_MONITOR_CALL:  # no EL3 here: SMC is undefined. The engine is past it.
            self.write_pc(self.read_pc() - 4)
            return Synchronous(UNKNOWN_REASON)
        return self._synchronous(interrupt)

    def exception_of(self, fault: Fault) -> Abort:
        """An update that is not supported comes as one of stage 2, from a lower EL, as 7.2 was seen to report it."""
        event = exception(fault, self.paging_registers())
        if fault.kind is not FaultKind.UNSUPPORTED_ATOMIC:
            return event
        fetch = event.kind == "instruction"
        lower = ExceptionClass.INSTRUCTION_ABORT_LOWER if fetch else ExceptionClass.DATA_ABORT_LOWER
        esr = Esr.make(EC=lower, IL=1, S1PTW=1, WNR=int(event.wnr), FSC=event.fsc)
        return replace(event, esr=esr, s1ptw=True, target_el=2)

    def told(self, event: Any) -> tuple[int, int, int]:
        return event.esr, event.far or 0, 0

    def enter(self, event: Any, pc: int, fault: Fault | None) -> Delivered | Stop:
        if isinstance(event, Irq):
            return self._take_irq(event, pc)
        if isinstance(event, Abort) and event.target_el != 1:
            return Stop("fault", pc, event, fault, f"taken to EL{event.target_el}, where nothing is")
        return self._deliver(event, pc, fault)

    def interrupt_event(self, vector: int) -> Irq | None:
        return None if self.read("pstate") & Pstate.I.mask else Irq(vector)

    def _take_irq(self, event: Irq, pc: int) -> Delivered | Stop:
        """As a synchronous exception, whose vector is IRQ bytes before, but ESR and FAR keep their values."""
        found = self._deliver(Synchronous(self.read("esr_el1")), pc)
        if isinstance(found, Stop):
            return replace(found, exception=event)
        return Delivered(pc, event, found.handler + IRQ)
