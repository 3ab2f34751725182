"""arm64 guests at EL1 and EL0: registers, and the delivery of exceptions through VBAR_EL1.

Source: Arm ARM DDI 0487, D1 'The AArch64 System Level Programmers' Model', pseudocode AArch64.TakeException.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mmu.arm64 import Abort, PageTables, Registers, exception
from mmu.arm64.format import Esr, ExceptionClass, FaultStatus, Sctlr, Tcr
from mmu.core import lib
from mmu.guest import asked
from mmu.guest.context import arm64_places, get
from mmu.guest.cpu import Cpu, Outcome
from mmu.guest.format import Pstate
from mmu.guest.stop import Delivered, Stop, Synchronous
from mmu.memory.frames import Frames, LevelFrames
from mmu.types import Access, Fault, FaultKind, MemTxResult

GENERAL = tuple(f"x{n}" for n in range(31))
PLAIN = (
    *GENERAL, "sp", "pc", "pstate", "ttbr0_el1", "ttbr1_el1", "mair_el1", "vbar_el1", "elr_el1", "esr_el1",
    "far_el1", "sp_el0", "tpidr_el0", "cpacr_el1",
)  # fmt: skip
# Registers that the engine has only by number: CRn, CRm, op0, op1, op2.
SYSTEM = {
    "sctlr_el1": (1, 0, 3, 0, 0), "tcr_el1": (2, 0, 3, 0, 2), "spsr_el1": (4, 0, 3, 0, 0),
    "contextidr_el1": (13, 0, 3, 0, 1), "scr_el3": (1, 1, 3, 6, 0), "hcr_el2": (1, 1, 3, 4, 0),
    "csselr_el1": (0, 0, 3, 2, 0), "cntkctl_el1": (14, 1, 3, 0, 0), "mdscr_el1": (0, 2, 2, 0, 2),
    "pmuserenr_el0": (9, 14, 3, 3, 0),
}  # fmt: skip
SHOWN = (*PLAIN, "sctlr_el1", "tcr_el1", "spsr_el1")
SYSTEM_LAYOUT = "<5I4xQ"  # uc_arm64_cp_reg

VECTOR_SP0, VECTOR_SPX, VECTOR_LOWER = 0x000, 0x200, 0x400
UNDEFINED, SUPERVISOR_CALL = 1, 2  # the engine's exception numbers that need care
SECURE_MONITOR_CALL = 13
UNKNOWN_REASON = 0x02000000  # ESR: EC 0, IL 1
PC_ALIGNMENT = 0x22 << 26 | UNKNOWN_REASON
TRAPS = {
    lib.MMU_GUEST_TRAP_FLOATING: 0x07 << 26 | UNKNOWN_REASON | 1 << 24 | 0xE << 20,  # CV, COND: always
    lib.MMU_GUEST_TRAP_STACK: 0x26 << 26 | UNKNOWN_REASON,
    lib.MMU_GUEST_TRAP_RETURN: 0x0E << 26 | UNKNOWN_REASON,
}
# What an illegal exception return takes from SPSR_EL1 all the same.
TAKEN = Pstate.make(N=1, Z=1, C=1, V=1, D=1, A=1, I=1, F=1, PAN=1)
ALIGNMENT_NUMBERS = (3, 4)  # prefetch and data abort: the engine checks alignment by itself

# Bits that were RES1 before extensions gave some of them a meaning: 29, 28, 23 (SPAN), 22, 20, 11.
SCTLR_RES1 = 1 << 29 | 1 << 28 | 1 << 23 | 1 << 22 | 1 << 20 | 1 << 11

# Store-exclusive instructions, as (mask, value): the engine reads before it writes, the CPU only writes.
# Source: Arm ARM DDI 0487, C4.1 'Load/store exclusive register', 'exclusive pair'.
STORE_EXCLUSIVE = ((0x3FE00000, 0x08000000), (0xBFE00000, 0x88200000))


class Arm64Cpu(Cpu):
    ARCH, PC = "aarch64", "pc"
    NUMBER = lib.MMU_GUEST_AARCH64
    ENGINE = ("UC_ARCH_ARM64", "UC_MODE_ARM")
    PHYS_BITS = 48
    HOOKS = (("INSN", "system", "UC_ARM64_INS_SYS"), ("EDGE_GENERATED", "translated", ""))
    HOST_HOOKS = (("INSN", "mrs", "UC_ARM64_INS_MRS"),)
    TABLES = {"L0": 0, "L1": 1, "L2": 2, "L3": 3}

    # -- what Cpu asks ------------------------------------------------------------------------------

    def load_constants(self) -> Any:
        from unicorn import arm64_const

        return arm64_const

    def _number(self, name: str) -> int:
        number: int = getattr(self.constants, f"UC_ARM64_REG_{name.upper()}")
        return number

    def model(self) -> int:
        """The one with atomics (FEAT_LSE)."""
        model: int = self.constants.UC_CPU_ARM64_MAX
        return model

    def ids(self) -> dict[str, int | list[int]]:
        names = {
            "pc": "pc", "pstate": "pstate", "ttbr0": "ttbr0_el1", "ttbr1": "ttbr1_el1", "mair": "mair_el1",
            "coprocessor": "cp_reg", "vbar": "vbar_el1", "elr": "elr_el1", "esr": "esr_el1", "far_": "far_el1",
            "sp": "sp", "sp_el0": "sp_el0", "sp_el1": "sp_el1",
        }  # fmt: skip
        return {field: self._number(name) for field, name in names.items()} | {"x": [self._number(n) for n in GENERAL]}

    def places(self) -> Mapping[str, int]:
        return asdict(arm64_places())

    def register_numbers(self) -> Mapping[str, int]:
        return {name: self._number(name) for name in PLAIN} | dict.fromkeys(SYSTEM, -1)

    def read(self, name: str) -> int:
        if name not in SYSTEM:
            return super().read(name)
        return self.structure(self._number("cp_reg"), SYSTEM_LAYOUT, *SYSTEM[name])[5]

    def write(self, name: str, value: int) -> None:
        if name in SYSTEM:
            self.set_structure(self._number("cp_reg"), SYSTEM_LAYOUT, *SYSTEM[name], asked.number(name, value))
        else:
            super().write(name, value)

    def registers(self) -> dict[str, int]:
        return {name: self.read(name) for name in SHOWN}

    def reset(self) -> None:
        """EL1 with its own stack pointer, stage 1 on, interrupts masked, FP on; TTBR0 is still to be set."""
        self.write("scr_el3", 1 << 10 | 0x31)  # RW: EL2 and below are AArch64; NS and RES1 bits
        self.write("hcr_el2", 1 << 31)  # RW: EL1 is AArch64
        self.write("mair_el1", 0xFF)  # attribute 0: normal write-back memory
        self.write("tcr_el1", Tcr.make(T0SZ=16, EPD1=1, IPS=5, SH0=3, ORGN0=1, IRGN0=1))
        self.write("sctlr_el1", SCTLR_RES1 | Sctlr.make(M=1, C=1, I=1))
        self.write("cpacr_el1", 3 << 20)  # FPEN: no traps
        self._set_pstate(Pstate.make(EL=1, SP=1, D=1, A=1, I=1, F=1))

    def start(self, pc: int, stack: int, data: int, size: int) -> None:
        """Registers of a program's first instruction."""
        for name in GENERAL:
            self.write(name, 0)
        for name, value in {"sp": stack, "x0": data, "x1": size, "pc": pc}.items():
            self.write(name, value)

    def new_tables(self, frames: Frames | LevelFrames) -> PageTables:
        return PageTables(self.space, frames, pa_bits=self.PHYS_BITS)

    def set_tables(self, root: int) -> None:
        self.write("ttbr0_el1", root)

    @property
    def has_tables(self) -> bool:
        return self.read("ttbr0_el1") != 0

    def walk_registers(self) -> Registers:
        pstate = self.read("pstate")
        return Registers(
            **{name: self.read(name) for name in ("sctlr_el1", "tcr_el1", "ttbr0_el1", "ttbr1_el1", "mair_el1")},
            el=Pstate.EL.get(pstate), pan=bool(Pstate.PAN.get(pstate)), uao=bool(Pstate.UAO.get(pstate)),
            pa_range=self.PHYS_BITS)  # fmt: skip

    # -- stops --------------------------------------------------------------------------------------

    def handle(self, stop: Any) -> Outcome:
        kind = stop.kind
        if stop.pc & 3:  # before all that the instruction there may do
            return self._deliver(Synchronous(PC_ALIGNMENT, stop.pc), stop.pc)
        if kind == lib.MMU_GUEST_FAULT:
            fault = self.fault(self._refine(stop))
            return self._deliver(exception(fault, self.walk_registers()), stop.pc, fault)
        if kind == lib.MMU_GUEST_TRAP:
            return self._trap(stop)
        if kind == lib.MMU_GUEST_BUS_ERROR:
            return self._deliver(self._external(stop), stop.pc)
        assert kind in (lib.MMU_GUEST_INTERRUPT, lib.MMU_GUEST_INVALID), f"stop kind {kind}"
        if kind == lib.MMU_GUEST_INVALID:
            return self._deliver(Synchronous(UNKNOWN_REASON), stop.pc)
        if stop.number == SECURE_MONITOR_CALL:  # no EL3 here: SMC is undefined. The engine is past it.
            return self._deliver(Synchronous(UNKNOWN_REASON), stop.pc - 4)
        return self._deliver(self._synchronous(stop.number), stop.pc)

    def _trap(self, stop: Any) -> Delivered | Stop:
        """An ERET that is illegal has been carried out but for the change of EL. Source: SetPSTATEFromPSR."""
        event = Synchronous(TRAPS[stop.number])
        if stop.number != lib.MMU_GUEST_TRAP_RETURN or not self.read("vbar_el1"):
            return self._deliver(event, stop.pc)
        pstate = (self.read("pstate") & ~TAKEN) | (self.read("spsr_el1") & TAKEN) | Pstate.IL.mask
        return self._deliver(event, self.read("elr_el1"), pstate=pstate)

    def fault(self, stop: Any) -> Fault:
        """The walk that a stop record tells of, as a value."""
        raw = stop.arm64
        kind = FaultKind(raw.kind)
        return Fault(
            kind, raw.level, stop.va, Access(stop.access),
            entry_address=raw.entry_address if raw.has_entry & 1 else None,
            entry=raw.entry if raw.has_entry & 2 else None, stage=raw.stage, on_table=bool(raw.on_table),
            detail={"result": MemTxResult(raw.result)} if kind is FaultKind.BUS else {})

    def _refine(self, stop: Any) -> Any:
        """A store-exclusive is a write, whatever the engine asked first. Of atomics, a read that faults is reported."""
        access = Access(stop.access)
        if not access & Access.READ:
            return stop
        word = int.from_bytes(self.peek(stop.pc, 4), "little")
        if not any(word & mask == value for mask, value in STORE_EXCLUSIVE):
            return stop
        again = self.translate(stop.va, access & ~Access.READ | Access.WRITE)
        return stop if isinstance(again, int) else again

    def _external(self, stop: Any) -> Abort:
        """A synchronous external abort: the bus refused what the instruction accessed."""
        access = Access(stop.access)
        fetch, write = bool(access & Access.FETCH), bool(access & Access.WRITE)
        lower = ExceptionClass.INSTRUCTION_ABORT_LOWER if fetch else ExceptionClass.DATA_ABORT_LOWER
        regs = self.walk_registers()
        known = not MemTxResult(stop.result) & MemTxResult.DECODE_ERROR
        esr = Esr.make(
            EC=lower + (regs.el == 1), IL=1, EA=int(known), FNV=int(not stop.exact), WNR=int(write),
            FSC=FaultStatus.EXTERNAL)
        return Abort(
            kind="instruction" if fetch else "data", esr=esr, fsc=FaultStatus.EXTERNAL, level=None,
            far=stop.va if stop.exact else 0,
            stage=1, wnr=write, s1ptw=False, ea=known, hpfar=None, target_el=1)

    def event(self, raw: Any) -> Any:
        if raw.kind == lib.MMU_GUEST_EVENT_SYNCHRONOUS:
            return Synchronous(raw.code, raw.address if raw.has_address else None)
        fetch = Esr.EC.get(raw.code) in (
            ExceptionClass.INSTRUCTION_ABORT_LOWER, ExceptionClass.INSTRUCTION_ABORT_LOWER + 1)
        return Abort(
            kind="instruction" if fetch else "data", esr=raw.code, fsc=Esr.FSC.get(raw.code),
            level=raw.level if raw.kind == lib.MMU_GUEST_EVENT_ABORT else None, far=raw.address, stage=1,
            wnr=bool(Esr.WNR.get(raw.code)), s1ptw=False, ea=bool(Esr.EA.get(raw.code)), hpfar=None, target_el=1)

    def _synchronous(self, number: int) -> Synchronous:
        places = arm64_places()
        blob = self.engine.save(self.context)
        far = get(blob, places.address, 8) if number in ALIGNMENT_NUMBERS else None
        return Synchronous(get(blob, places.syndrome, 4) or self._syndrome_of_system(), far)

    def _syndrome_of_system(self) -> int:
        """MSR DAIFSet and DAIFClr of EL0, of which the engine forgets what it trapped."""
        word = int.from_bytes(self.peek(self.pc, 4), "little")
        op0, op1, crn, crm, op2 = (word >> at & (1 << n) - 1 for at, n in ((19, 2), (16, 3), (12, 4), (8, 4), (5, 3)))
        fields = op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | (word & 31) << 5 | crm << 1 | word >> 21 & 1
        return 0x18 << 26 | UNKNOWN_REASON | fields

    def _deliver(
        self, event: Abort | Synchronous, pc: int, fault: Fault | None = None, pstate: int | None = None
    ) -> Delivered | Stop:
        """*pstate*: of the CPU when it takes the exception, unless it is what the engine has."""
        vbar = self.read("vbar_el1")
        if not vbar:
            return Stop("fault", pc, event, fault, "the guest has no exception vectors (VBAR_EL1 is 0)")
        if pstate is None:
            pstate = self.read("pstate")
        el, spx = Pstate.EL.get(pstate), Pstate.SP.get(pstate)
        handler = vbar + (VECTOR_LOWER if el == 0 else VECTOR_SPX if spx else VECTOR_SP0)
        if pc == handler and isinstance(event, Abort) and event.kind == "instruction":
            return Stop("fault", pc, event, fault, "the exception vector itself cannot be fetched")
        self.write("esr_el1", event.esr)
        if event.far is not None:
            self.write("far_el1", event.far)
        self.write("elr_el1", pc)
        self.write("spsr_el1", pstate)
        if not el or not spx:
            self._use_own_stack()
        pan = Pstate.PAN.get(pstate) or not Sctlr.SPAN.get(self.read("sctlr_el1"))
        kept = pstate & (Pstate.N.mask | Pstate.Z.mask | Pstate.C.mask | Pstate.V.mask | Pstate.DIT.mask)
        self._set_pstate(kept | Pstate.make(EL=1, SP=1, D=1, A=1, I=1, F=1, PAN=int(pan)))
        return Delivered(pc, event, handler)

    def _use_own_stack(self) -> None:
        """From SP_EL0 to SP_EL1: the engine keeps the selected one in SP."""
        self.engine.write(self._number("sp_el0"), self.engine.read(self._number("sp")))
        self.engine.write(self._number("sp"), self.engine.read(self._number("sp_el1")))

    def _set_pstate(self, value: int) -> None:
        """The engine derives EL and translation regime anew only when a system register is written."""
        self.write("pstate", value)
        self.write("contextidr_el1", self.read("contextidr_el1"))
