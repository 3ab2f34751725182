"""Down a tree of ordinary tables, one bus access per entry: stage 1, and nested paging as stage 2.

Source: Intel SDM vol. 3A, 'Hierarchical Paging Structures: an Overview' and 'Accessed and Dirty Flags'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mmu.layout import Layout
from mmu.types import Access, Fault, FaultKind, MemTxResult, Place, Step
from mmu.x86.format import Level, PaePdpte, Pde4M, Pte
from mmu.x86.rights import Page

PHYSICAL = (1 << 52) - 1  # widest physical address
NOTHING = Access(0)
HIGH_TO_PHYSICAL = 19  # Pde4M.HIGH, bits 20:13, stands for physical address bits 39:32


class Space(Protocol):
    """What a walk needs of an address space. One call is one bus access."""

    def load(self, address: int, size: int, /) -> tuple[int, MemTxResult]: ...
    def exchange(self, address: int, size: int, expected: int, desired: int, /) -> tuple[int, MemTxResult]: ...
    def place(self, address: int, /) -> Place | None: ...


class LostRaceError(Exception):
    """Somebody changed an entry between its read and its update: the walk begins again at the root."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A table entry that was read. `address` is where the bus has it, `gpa` what the tables call that place."""

    level: Level
    layout: type[Layout]
    address: int
    gpa: int
    value: int
    stage: int

    @property
    def leaf(self) -> bool:
        return self.layout is self.level.leaf

    def has(self, flag: str) -> bool:
        return bool(self.value & self.layout.fields[flag].mask)


@dataclass(frozen=True, slots=True)
class Host:
    """What stage 2 made of a guest-physical address; without a stage 2 the address itself.

    `linear` is the size in bytes of the aligned block that is translated alike (0: no limit), `leaf` the entry that
    did.
    """

    pa: int
    linear: int = 0
    writable: bool = True
    executable: bool = True
    granted: Access = NOTHING
    leaf: Entry | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What one stage is asked: stage 1 the linear address, stage 2 a guest-physical one."""

    stage: int
    address: int
    wanted: Access
    on_table: bool = False


class Entries:
    """Reads and updates entries for one `walk` call, and keeps the record of what was read."""

    def __init__(self, space: Space, va: int, access: Access, update: bool, machine_check: bool) -> None:
        self.space, self.va, self.access = space, va, access
        self.update, self.machine_check = update, machine_check
        self.steps: list[Step] = []

    def fault(self, kind: FaultKind, request: Request, entry: Entry | None, **detail: object) -> Fault:
        level, address, value = (entry.level.number, entry.address, entry.value) if entry else (None, None, None)
        if request.stage == 1:
            return Fault(kind, level, self.va, self.access, address, value, detail=detail)
        detail = {"wanted": request.wanted, **detail}
        return Fault(
            kind, level, self.va, self.access, address, value, 2, request.address, request.on_table, detail=detail)

    def read(self, level: Level, address: int, gpa: int, request: Request) -> Entry | Fault:
        value, result = self.space.load(address, level.size)
        layout = layout_of(level, value)
        entry = Entry(level, layout, address, gpa, value, request.stage)
        place = self.space.place(address)
        self.steps.append(
            Step(level.number, level.name, address, value, layout.decode(value), request.stage, place))
        if result and self.machine_check:
            return self.fault(FaultKind.BUS, request, entry)
        return entry

    def set(self, entry: Entry, flags: int, request: Request) -> Fault | None:
        """Set *flags* in the entry by a locked compare-and-exchange of its own size.

        Raises LostRaceError when the entry is no longer what was read.
        """
        if not self.update:
            return None
        old, result = self.space.exchange(entry.address, entry.level.size, entry.value, entry.value | flags)
        if result and self.machine_check:
            return self.fault(FaultKind.BUS, request, entry)
        if old != entry.value:
            raise LostRaceError
        return None


def layout_of(level: Level, value: int) -> type[Layout]:
    """The format of an entry: bit PS decides where a level has both kinds."""
    if level.table is None:
        assert level.leaf is not None
        return level.leaf
    if level.leaf is not None and value & level.leaf.fields["PS"].mask:
        return level.leaf
    return level.table


def page_frame(entry: Entry) -> int:
    """Physical address of what a leaf maps."""
    frame = entry.value & entry.layout.fields["ADDR"].mask
    if entry.layout is Pde4M:
        frame |= (entry.value & Pde4M.HIGH.mask) << HIGH_TO_PHYSICAL
    return frame


@dataclass(frozen=True, slots=True)
class Paging:
    """One stage's tables. `locate` turns the address of an entry into where the bus has it."""

    levels: tuple[Level, ...]
    root: int
    phys_bits: int
    nxe: bool
    locate: Callable[[int], Host | Fault]

    def reserved(self, layout: type[Layout]) -> int:
        """Bits that must be 0: by format, above MAXPHYADDR, and XD without EFER.NXE."""
        beyond = PHYSICAL >> self.phys_bits << self.phys_bits
        mask = layout.reserved_mask
        if layout.BITS == 64:
            mask |= beyond
        elif layout is Pde4M:
            mask |= beyond >> HIGH_TO_PHYSICAL & Pde4M.HIGH.mask
        if "XD" in layout.fields and not self.nxe:
            mask |= layout.fields["XD"].mask
        return mask


@dataclass(frozen=True, slots=True)
class Leaf:
    entry: Entry
    page: Page
    host: Host  # of the entry, for its own update


def descend(entries: Entries, paging: Paging, request: Request) -> Leaf | Fault:
    """From the root to the entry that maps the page. Its rights are gathered, not yet judged.

    The accessed flag of an entry that references a table is set as soon as the walk uses the entry, before what lies
    below is known: the manual lets a processor do so even when the access faults later, and emulators do.
    PAE PDPTEs have no accessed flag. Hardware loads them at MOV CR3 and refuses reserved bits there; here they are
    read from memory in every walk, as AMD does under nested paging, and reserved bits are a fault of the walk.
    """
    table = paging.root
    writable = user = executable = True
    for level in paging.levels:
        gpa = table + (request.address >> level.shift) % (1 << level.bits) * level.size
        host = paging.locate(gpa)
        if isinstance(host, Fault):
            return host
        entry = entries.read(level, host.pa, gpa, request)
        if isinstance(entry, Fault):
            return entry
        if not entry.has("P"):
            return entries.fault(FaultKind.NOT_PRESENT, request, entry)
        if entry.value & paging.reserved(entry.layout):
            return entries.fault(FaultKind.RESERVED_BIT, request, entry)
        tables_writable = writable
        if entry.layout is not PaePdpte:
            writable &= entry.has("RW")
            user &= entry.has("US")
            executable &= "XD" not in entry.layout.fields or not entry.has("XD")
        if entry.leaf:
            shadow_stack = tables_writable and not entry.has("RW") and entry.has("D")
            key = Pte.PK.get(entry.value) if "PK" in entry.layout.fields else 0
            return Leaf(entry, Page(writable, user, executable, shadow_stack, key), host)
        if refused := mark(entries, entry, host, ("A",), request):
            return refused
        table = entry.value & entry.layout.fields["ADDR"].mask
    raise AssertionError("the last level has leaves only")


def mark(entries: Entries, entry: Entry, host: Host, flags: tuple[str, ...], request: Request) -> Fault | None:
    """Set the flags of an entry that are still clear, in one exchange.

    Behind stage 2 the place must be writable: EPT without accessed and dirty flags finds that out only here.
    """
    layout = entry.layout.fields
    missing = sum(layout[f].mask for f in flags if f in layout and not entry.has(f))
    if not missing:
        return None
    if not host.writable:
        access = Request(2, entry.gpa, Access.READ | Access.WRITE, on_table=True)
        return entries.fault(FaultKind.PERMISSION, access, host.leaf, granted=host.granted)
    return entries.set(entry, missing, request)
