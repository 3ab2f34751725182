"""Exception delivery through the guest's own IDT.

The engine executes but never enters a handler by itself; what is here does, between two runs, by the book: gate,
code segment, stack switch (IST, TSS), frame, and what follows when one of these accesses faults in turn.
Source: Intel SDM vol. 3A, 'Interrupt and Exception Handling' and 'Exception and Interrupt Handling in 64-bit Mode'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmu.core import lib
from mmu.guest.cpu import Refused
from mmu.guest.format import Dr7, GateHigh, GateLow, Rflags, Segment, SelectorCode
from mmu.guest.stop import Delivered, External, Interrupt, Stop
from mmu.types import Access, Fault
from mmu.x86 import PageFault, exception
from mmu.x86.format import Efer

if TYPE_CHECKING:
    from mmu.guest.x86 import X86Cpu

DE, DB, BP, OF, UD, DF, TS, NP, SS, GP, PF, AC, MC = 0, 1, 3, 4, 6, 8, 10, 11, 12, 13, 14, 17, 18
WITH_CODE = {DF, TS, NP, SS, GP, PF, AC}
CONTRIBUTORY = {DE, TS, NP, SS, GP}
NO_RESUME = {DB, BP, OF, DF, MC}  # traps and aborts: RF is not set in the saved flags
INTERRUPT_GATE, TRAP_GATE = 14, 15
CODE, CONFORMING = 8, 4  # of a segment's type
TSS_RSP0, TSS_IST1 = 4, 0x24
FRAME_WORDS = 6  # with an error code
MASK = (1 << 64) - 1


class _Fails(Exception):
    """Delivery raises another exception. Never leaves this file."""

    def __init__(self, event: Any) -> None:
        super().__init__(event)
        self.event = event


def _selector_fault(vector: int, selector: int, ext: int, idt: int = 0) -> _Fails:
    code = selector & (SelectorCode.TI.mask | SelectorCode.INDEX.mask)
    return _Fails(Interrupt(vector, code | SelectorCode.make(EXT=ext, IDT=idt)))


def deliver(cpu: X86Cpu, event: Any, pc: int, fault: Fault | None = None) -> Delivered | Stop:
    """Enter the guest's handler for *event*, or for what it turns into on the way; *fault* is the walk behind it."""
    first = event
    if isinstance(event, PageFault):
        cpu.write("cr2", event.cr2)
    if cpu.table("idtr")[2] == 0:
        return Stop("fault", pc, first, fault, "the guest has no IDT")
    if not cpu.read("efer") & Efer.LMA.mask:
        return Stop("fault", pc, first, fault, "exceptions are delivered in long mode only")
    while True:
        try:
            handler = _enter(cpu, event, pc)
            if event.vector == DB and not event.software:
                cpu.write("dr7", cpu.read("dr7") & ~Dr7.GD.mask)
            return Delivered(pc, event, handler)
        except _Fails as failure:
            second = failure.event
        except BaseException:  # a device's: an INT is not done
            if isinstance(event, Interrupt) and event.software:
                cpu.write("rip", pc - _interrupt_length(cpu, event.vector, pc))
            raise
        if isinstance(event, Interrupt) and event.software:
            pc -= _interrupt_length(cpu, event.vector, pc)
        if event.vector == DF:
            return triple_fault(pc, first, fault, second.vector)
        if isinstance(second, PageFault):
            cpu.write("cr2", second.cr2)
        event = _escalate(event, second)


def triple_fault(pc: int, first: Any, fault: Fault | None, vector: int) -> Stop:
    """*first*, of the walk *fault* if there was one, ended in *vector* while a double fault was delivered."""
    return Stop("triple-fault", pc, first, fault, f"vector {vector} while delivering a double fault")


def _escalate(first: Any, second: Any) -> Any:
    """What is delivered when *second* comes while delivering *first*.

    Source: SDM, 'Interrupt 8: Double Fault Exception', 'Conditions for Generating a Double Fault'.
    """
    double = (first.vector in CONTRIBUTORY and second.vector in CONTRIBUTORY) or (
        first.vector == PF and (second.vector == PF or second.vector in CONTRIBUTORY)
    )
    return Interrupt(DF, 0) if double else second


def _interrupt_length(cpu: X86Cpu, vector: int, pc: int) -> int:
    """Bytes of the INT n, INT3 or INT1 before *pc*: when it cannot be delivered, what follows is a fault of it."""
    last = cpu.peek(pc - 1 & MASK, 1)
    return 1 if (vector, last) in ((BP, b"\xcc"), (DB, b"\xf1")) else 2


def _own(cpu: X86Cpu, va: int, size: int, value: int | None = None, implicit: bool = True) -> int:
    """An access of the CPU itself. Its fault is an exception that delivery raises."""
    kind = Access.IMPLICIT if implicit else Access(0)
    try:
        if value is None:
            return cpu.load(va, size, Access.READ | kind)
        cpu.store(va, size, value, Access.WRITE | kind)
        return 0
    except Refused as refused:
        stop = refused.stop
    if stop.kind != lib.MMU_GUEST_FAULT:
        return 0  # a bus error: bytes that nobody answered are 0, and it is counted
    raise _Fails(exception(cpu.fault(stop), cpu.walk_registers()))


def _gate(cpu: X86Cpu, vector: int, software: bool) -> tuple[int, int]:
    """Both words of the gate, checked."""
    _, base, limit = cpu.table("idtr")
    at, ext = vector * 16, int(not software)
    refused = _selector_fault(GP, vector << 3, ext, idt=1)
    if at + 15 > limit:
        raise refused
    low, high = _own(cpu, base + at & MASK, 8), _own(cpu, base + at + 8 & MASK, 8)
    if GateLow.S.get(low) or GateLow.TYPE.get(low) not in (INTERRUPT_GATE, TRAP_GATE):
        raise refused
    if software and GateLow.DPL.get(low) < cpu.cpl:
        raise refused
    if not GateLow.P.get(low):
        raise _selector_fault(NP, vector << 3, ext, idt=1)
    return low, high


def _code_segment(cpu: X86Cpu, selector: int, ext: int) -> int:
    """The descriptor of the handler's segment, checked."""
    if not selector & ~3:
        raise _Fails(Interrupt(GP, ext))
    _, base, limit = cpu.table("ldtr" if selector & 4 else "gdtr")
    refused = _selector_fault(GP, selector, ext)
    if (selector & ~7) + 7 > limit:
        raise refused
    descriptor = _own(cpu, base + (selector & ~7) & MASK, 8)
    code = Segment.S.get(descriptor) and Segment.TYPE.get(descriptor) & CODE
    if not code or Segment.DPL.get(descriptor) > cpu.cpl:
        raise refused
    if not Segment.P.get(descriptor):
        raise _selector_fault(NP, selector, ext)
    if not Segment.L.get(descriptor) or Segment.DB.get(descriptor):
        raise refused
    return descriptor


def _canonical(va: int) -> bool:
    return va + (1 << 47) & MASK < 1 << 48


def _stack(cpu: X86Cpu, ist: int, cpl: int, ext: int) -> int:
    """RSP before the frame: the present one, or one of the TSS."""
    stack = cpu.read("rsp")
    if ist or cpl != cpu.cpl:
        selector, base, limit = cpu.table("tr")
        at = TSS_IST1 + 8 * (ist - 1) if ist else TSS_RSP0 + 8 * cpl
        if at + 7 > limit:
            raise _selector_fault(TS, selector, ext)
        stack = _own(cpu, base + at & MASK, 8)
    stack &= ~15
    if not (_canonical(stack - 8) and _canonical(stack - 8 * FRAME_WORDS)):
        raise _Fails(Interrupt(SS, ext))
    return stack


def _frame(cpu: X86Cpu, event: Any, pc: int, software: bool) -> list[int]:
    """What is pushed, first word first."""
    flags = cpu.read("rflags") & ~Rflags.RF.mask  # the engine keeps it for longer than one instruction
    if not software and event.vector not in NO_RESUME and not isinstance(event, External):
        flags |= Rflags.RF.mask
    frame = [cpu.read("ss"), cpu.read("rsp"), flags, cpu.read("cs"), pc]
    if event.vector in WITH_CODE and not software:
        frame.append(event.error_code or 0)
    return frame


def _enter(cpu: X86Cpu, event: Any, pc: int) -> int:
    """Build the frame and switch to the handler. When it fails nothing has changed but for bytes of the frame."""
    software = isinstance(event, Interrupt) and event.software
    ext = int(not software)
    low, high = _gate(cpu, event.vector, software)
    selector = GateLow.SELECTOR.get(low)
    descriptor = _code_segment(cpu, selector, ext)
    cpl = cpu.cpl if Segment.TYPE.get(descriptor) & CONFORMING else Segment.DPL.get(descriptor)
    stack = _stack(cpu, GateLow.IST.get(low), cpl, ext)
    handler = GateLow.OFFSET_LOW.get(low) | GateLow.OFFSET_MID.get(low) << 16 | GateHigh.OFFSET_HIGH.get(high) << 32
    if not _canonical(handler):
        raise _Fails(Interrupt(GP, ext))
    for word in _frame(cpu, event, pc, software):
        stack = stack - 8 & MASK
        _own(cpu, stack, 8, word, implicit=cpl != cpu.cpl)
    segments = {"cs": (selector & ~3 | cpl, descriptor)}
    if cpl != cpu.cpl:
        segments["ss"] = (cpl, cpu.FLAT_DATA | Segment.DPL.put(cpl))  # a null selector
    cleared = Rflags.TF.mask | Rflags.NT.mask | Rflags.RF.mask | Rflags.VM.mask
    if GateLow.TYPE.get(low) == INTERRUPT_GATE:
        cleared |= Rflags.IF.mask
    cpu.switch(segments, cpl)
    cpu.write("rsp", stack)
    cpu.write("rflags", cpu.read("rflags") & ~cleared)
    return handler
