"""Reference walker: written to be read next to the manual, never for speed.

Source: DDI 0487, shared pseudocode, AArch64.FullTranslate, AArch64.S1Translate, AArch64.S1Walk and their stage 2 twins.
Choices where the manual leaves one: a Permission fault does not set AF; a Contiguous bit that does not fit the input
size is no fault; nT is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from mmu.arm64 import attributes
from mmu.arm64.descriptors import layout_of, level_shift, output_address
from mmu.arm64.format import FINAL_LEVEL, EntryKind, Stage1Leaf, Stage1Table, Stage2Leaf
from mmu.arm64.permissions import EVERYTHING, Rights, granted, stage1_rights, stage2_rights
from mmu.arm64.regime import Stage1, Stage2, Tables, stage1_of, stage2_of
from mmu.arm64.registers import Registers
from mmu.arm64.request import Request
from mmu.types import Access, Fault, FaultKind, Step, Translation

if TYPE_CHECKING:
    from mmu.memory import AddressSpace

FLAT_PAGE = 4096  # bytes: the page size reported while both stages are off
MASK64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Leaf:
    """The end of one stage's walk. `address` (bytes) includes the offset; `table` are the OR-ed table attributes."""

    address: int
    page_size: int
    descriptor: int = 0
    level: int = attributes.OFF
    entry_address: int = 0
    entry_input: int = 0  # stage 1: the IPA of the entry
    table: int = 0
    rights: Rights = EVERYTHING


class _Stop(Exception):
    """Carries the fault out of the nested stages; never leaves this file."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


class Walker:
    """One walk over *space*. `steps` collects every entry read, in order."""

    def __init__(self, space: AddressSpace, regs: Registers, request: Request) -> None:
        self.space, self.regs, self.request = space, regs, request
        self.steps: list[Step] = []
        upper = request.regime.two_ranges and bool(request.va >> 55 & 1)
        self.stage1: Stage1 = stage1_of(regs, request.regime, upper)
        self.stage2: Stage2 | None = stage2_of(regs, request.regime)

    def run(self) -> Translation | Fault:
        """AArch64.FullTranslate."""
        try:
            one = self.stage1_translate()
            two = Leaf(one.address, one.page_size)
            if self.stage2 is not None and not self.request.stage1_only:
                access = self.request.access & (Access.READ | Access.WRITE | Access.FETCH)
                two = self.stage2_translate(self.stage2, one.address, access, on_table=False)
        except _Stop as stop:
            return replace(stop.fault, steps=tuple(self.steps))
        return self.translation(one, two)

    def stop(
        self, kind: FaultKind, level: int, at: int | None = None, entry: int | None = None, *,
        ipa: int | None = None, on_table: bool = False, **detail: object,
    ) -> NoReturn:  # fmt: skip
        raise _Stop(
            Fault(
                kind, level, self.request.va, self.request.access, at, entry,
                stage=1 if ipa is None else 2, gpa=ipa, on_table=on_table, detail=detail,
            )
        )  # fmt: skip

    # -- stage 1 ------------------------------------------------------------------------------------

    def stage1_translate(self) -> Leaf:
        """AArch64.S1Translate: walk, check, and only then write AF and dirty state back; again when they changed."""
        p, request = self.stage1, self.request
        if not p.enabled:
            return self.stage1_off()
        self.check_input()
        while True:
            leaf = self.walk(p.tables, request.va, None, on_table=False)
            rights = stage1_rights(p, leaf.descriptor, 0 if p.hpd else leaf.table)
            pan = request.pan and not request.access & Access.FETCH
            if not request.access & granted(rights, user=request.user, pan=pan, epan=p.epan):
                self.stop(FaultKind.PERMISSION, leaf.level, leaf.entry_address, leaf.descriptor)
            new = leaf.descriptor | (Stage1Leaf.AF.mask if p.tables.ha else 0)
            if p.tables.hd and Stage1Leaf.DBM.get(new) and request.dirties:
                new &= ~Stage1Leaf.AP.put(2)  # AP[2]
            if self.write_back(p.tables, leaf, new, None, on_table=False):
                return replace(leaf, descriptor=new if request.update else leaf.descriptor, rights=rights)

    def stage1_off(self) -> Leaf:
        """AArch64.S1DisabledOutput."""
        top = 55 if self.top_byte_ignored() else 63
        address = self.request.va & ((1 << top + 1) - 1)
        if address >> self.regs.pa_range:
            self.stop(FaultKind.ADDRESS_SIZE, 0)
        return Leaf(address, FLAT_PAGE)

    def top_byte_ignored(self) -> bool:
        """AArch64.AddrTop: TBID keeps TBI to data accesses."""
        return self.stage1.tbi and not (self.stage1.tbid and self.request.access & Access.FETCH)

    def check_input(self) -> None:
        """AArch64.VAIsOutOfRange, and the reasons not to walk; all are Translation faults at level 0."""
        p = self.stage1
        top = 55 if self.top_byte_ignored() else 63
        above = (self.request.va & ((1 << top + 1) - 1)) >> p.tables.input_bits
        expected = (1 << top + 1 - p.tables.input_bits) - 1 if p.upper else 0
        if not p.tables.valid or above != expected or p.epd or (p.e0pd and self.request.user):
            self.stop(FaultKind.NOT_PRESENT, 0)

    # -- stage 2 ------------------------------------------------------------------------------------

    def stage2_translate(self, p: Stage2, ipa: int, access: Access, *, on_table: bool) -> Leaf:
        """AArch64.S2Translate; *on_table*: for an entry of stage 1, which EL0 does not read itself."""
        if not p.tables.valid or ipa >> p.tables.input_bits:
            self.stop(FaultKind.NOT_PRESENT, 0, ipa=ipa, on_table=on_table)
        while True:
            leaf = self.walk(p.tables, ipa, ipa, on_table=on_table)
            rights = stage2_rights(p.tables.hd, leaf.descriptor)
            device = on_table and p.ptw and attributes.stage2_is_device(leaf.descriptor)
            user = self.request.user and not on_table
            checked = on_table or self.request.checked
            if device or (checked and not access & (rights.user if user else rights.privileged)):
                at, entry = leaf.entry_address, leaf.descriptor
                self.stop(FaultKind.PERMISSION, leaf.level, at, entry, ipa=ipa, on_table=on_table)
            new = leaf.descriptor | (Stage2Leaf.AF.mask if p.tables.ha else 0)
            dirties = bool(access & Access.WRITE) if on_table else self.request.dirties
            if p.tables.hd and Stage2Leaf.DBM.get(new) and dirties:
                new |= Stage2Leaf.S2AP.put(2)  # S2AP[1]
            if self.write_back(p.tables, leaf, new, ipa, on_table=on_table):
                return replace(leaf, descriptor=new if self.request.update else leaf.descriptor, rights=rights)

    # -- both ---------------------------------------------------------------------------------------

    def walk(self, t: Tables, address: int, ipa: int | None, *, on_table: bool) -> Leaf:
        """AArch64.S1Walk, AArch64.S2Walk: from the first table to the leaf that maps *address*."""
        base, level, top, attributes_above = t.base, t.start_level, t.input_bits, 0
        if base >> t.output_bits:
            self.stop(FaultKind.ADDRESS_SIZE, 0, ipa=ipa, on_table=on_table)
        while True:
            shift = level_shift(t.granule, level)
            entry_input = base | ((address & ((1 << top) - 1)) >> shift) << 3
            at = entry_input if t.stage == 2 else self.table_address(entry_input, Access.READ)
            descriptor, kind = self.read(t, level, at, ipa, on_table)
            if kind is EntryKind.INVALID:
                self.stop(FaultKind.NOT_PRESENT, level, at, descriptor, ipa=ipa, on_table=on_table)
            base = output_address(t.form, layout_of(t.stage, t.form, level, kind), descriptor)
            base &= (1 << t.descriptor_bits) - 1
            if base >> t.output_bits:
                self.stop(FaultKind.ADDRESS_SIZE, level, at, descriptor, ipa=ipa, on_table=on_table)
            if kind is EntryKind.LEAF:
                break
            attributes_above |= descriptor
            level, top = level + 1, shift
        if not (t.ha or Stage1Leaf.AF.get(descriptor)):
            self.stop(FaultKind.ACCESS_FLAG, level, at, descriptor, ipa=ipa, on_table=on_table)
        offset = address & ((1 << shift) - 1)
        return Leaf(base | offset, 1 << shift, descriptor, level, at, entry_input, attributes_above)

    def table_address(self, address: int, access: Access) -> int:
        """Where a stage 1 entry lies: its address is an IPA while stage 2 is on."""
        if self.stage2 is None:
            return address
        return self.stage2_translate(self.stage2, address, access, on_table=True).address

    def read(self, t: Tables, level: int, at: int, ipa: int | None, on_table: bool) -> tuple[int, EntryKind]:
        """FetchDescriptor and AArch64.DecodeDescriptorType: one 8-byte bus access."""
        raw, result = self.space.load(at, 8)
        if result:
            self.stop(FaultKind.BUS, level, at, ipa=ipa, on_table=on_table, result=result)
        descriptor = swap(raw) if t.big_endian else raw
        kind = kind_of(t, level, descriptor)
        self.steps.append(attributes.step(t.stage, t.form, level, kind, at, descriptor, self.space.place(at)))
        return descriptor, kind

    def write_back(self, t: Tables, leaf: Leaf, new: int, ipa: int | None, *, on_table: bool) -> bool:
        """AArch64.MemSwapTableDesc. False: another agent changed the entry, so the walk starts again."""
        if new == leaf.descriptor or not self.request.update:
            return True
        at = leaf.entry_address if t.stage == 2 else self.table_address(leaf.entry_input, Access.WRITE)
        pair = (swap(leaf.descriptor), swap(new)) if t.big_endian else (leaf.descriptor, new)
        old, result = self.space.exchange(at, 8, *pair)
        if result:
            self.stop(FaultKind.BUS, leaf.level, at, leaf.descriptor, ipa=ipa, on_table=on_table, result=result)
        return old == pair[0]

    def translation(self, one: Leaf, two: Leaf) -> Translation:
        request, rights = self.request, one.rights & two.rights
        # PAN asks what stage 1 lets EL0 do.
        own = granted(one.rights, user=request.user, pan=request.pan, epan=self.stage1.epan)
        own &= granted(two.rights, user=request.user, pan=False, epan=False)
        sizes = [leaf.page_size for leaf in (one, two) if leaf.level != attributes.OFF]
        own_tables = rights.user if request.user else rights.privileged
        return Translation(
            pa=two.address,
            page_size=min(sizes, default=FLAT_PAGE),
            writable=bool(rights.privileged & Access.WRITE),
            user=bool(rights.user & (Access.READ | Access.WRITE)),
            executable=bool(own_tables & Access.FETCH),
            attributes=attributes.of(
                self.stage1, self.stage2, request.access, one.address, (one.level, one.descriptor),
                (two.level, two.descriptor), rights.privileged, rights.user, own,
            ),
            steps=tuple(self.steps),
        )  # fmt: skip


def swap(value: int) -> int:
    """The other byte order of 8 bytes."""
    return int.from_bytes(value.to_bytes(8, "little"), "big")


def kind_of(t: Tables, level: int, descriptor: int) -> EntryKind:
    """AArch64.DecodeDescriptorType."""
    if not Stage1Table.VALID.get(descriptor):
        return EntryKind.INVALID
    if Stage1Table.TYPE.get(descriptor):
        return EntryKind.LEAF if level == FINAL_LEVEL else EntryKind.TABLE
    block = level >= 0 and t.block_levels >> level & 1
    return EntryKind.LEAF if block else EntryKind.INVALID
