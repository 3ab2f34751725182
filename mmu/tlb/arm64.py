"""An arm64 PE's TLB: what each TLBI invalidates.

Source: Arm ARM (DDI 0487), "TLB maintenance instructions" and the pages of the TLBI instructions. Writes to system
registers invalidate nothing; an entry's context holds all registers but the table bases, so that it answers only where
the architecture lets it. TTL is a hint and ignored. The "last level" forms differ from the others only for walk caches,
which are not modelled.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from mmu.arm64.format import Tcr, TcrSingle, Ttbr, Vtcr
from mmu.arm64.regime import Regime, in_host, regime_of, stage1_of, stage2_of
from mmu.arm64.registers import Registers
from mmu.arm64.walker import walk
from mmu.tlb import ENTRIES, KIND, VICTIMS, Domain, Scope, Tlb
from mmu.types import Access, Fault, Translation

if TYPE_CHECKING:
    from mmu.memory import AddressSpace

By = Literal["all", "vm", "asid", "va", "va, all asids", "ipa"]


@dataclass(frozen=True, slots=True)
class Operation:
    """`el`: of the regime. `stage` None: both stages. `ranged`: the operand is a range (FEAT_TLBIRANGE)."""

    by: By
    el: int
    stage: Literal[1, 2] | None = 1
    ranged: bool = False


_BY_ADDRESS: tuple[tuple[str, By, int], ...] = (
    ("VAE1", "va", 1), ("VALE1", "va", 1), ("VAAE1", "va, all asids", 1), ("VAALE1", "va, all asids", 1),
    ("VAE2", "va", 2), ("VALE2", "va", 2), ("VAE3", "va", 3), ("VALE3", "va", 3),
)  # fmt: skip
OPERATIONS = {
    "VMALLE1": Operation("vm", 1),
    "VMALLS12E1": Operation("vm", 1, None),
    "ALLE1": Operation("all", 1, None),
    "ALLE2": Operation("all", 2),
    "ALLE3": Operation("all", 3),
    "ASIDE1": Operation("asid", 1),
    "IPAS2E1": Operation("ipa", 1, 2),
    "IPAS2LE1": Operation("ipa", 1, 2),
    "RIPAS2E1": Operation("ipa", 1, 2, ranged=True),
    "RIPAS2LE1": Operation("ipa", 1, 2, ranged=True),
    **{name: Operation(by, el) for name, by, el in _BY_ADDRESS},
    **{f"R{name}": Operation(by, el, ranged=True) for name, by, el in _BY_ADDRESS},
}
RANGE_GRANULES = {1: 12, 2: 14, 3: 16}  # TG of a range -> log2 bytes
TABLE_BASES: dict[str, Any] = {
    "ttbr0_el1": 0, "ttbr1_el1": 0, "ttbr0_el2": 0, "ttbr1_el2": 0, "ttbr0_el3": 0, "vttbr_el2": 0,
}  # fmt: skip


def operation(name: str) -> tuple[Operation, bool]:
    """The operation of a TLBI mnemonic in any case, and whether it is broadcast (IS, OS). ValueError: there is none."""
    base = name.upper().removesuffix("NXS")
    broadcast = base.endswith(("IS", "OS"))
    base = base[:-2] if broadcast else base
    if base not in OPERATIONS:
        raise ValueError(f"TLBI {name} is none of {', '.join(OPERATIONS)} (with IS or OS, and NXS)")
    return OPERATIONS[base], broadcast


def _signed(value: int, bits: int) -> int:
    """The top bit copied upwards to bit 63."""
    return value | (-(value >> (bits - 1)) << bits) & (1 << 64) - 1


class Arm64Tlb:
    """A TLB, the registers that it is used with, and TLBI, which is not refused at any EL.

    `peers`: the other PEs of the shareability domain, to which IS and OS operations go as well.
    """

    def __init__(self, space: AddressSpace, regs: Registers, entries: int = ENTRIES, victims: int = VICTIMS) -> None:
        self.space, self.regs, self.tlb = space, regs, Tlb(entries, victims)
        self.peers: list[Arm64Tlb] = []
        self.msr()

    def msr(self, **changes: Any) -> None:
        """Change registers or PSTATE; invalidates nothing."""
        self.regs = replace(self.regs, **changes)
        self._context: Hashable = replace(self.regs, **TABLE_BASES)

    def translate(self, va: int, access: Access) -> Translation | Fault:
        """The answer of an entry, or else of a walk, which is kept. Faults are never kept."""
        domain = self._domain(va, access)
        if domain is None:
            return walk(self.space, self.regs, va, access, engine="reference")
        address = _signed(va & (1 << 56) - 1, 56)
        if (known := self.tlb.lookup(address, access, domain)) is not None:
            return known
        found = walk(self.space, self.regs, va, access, engine="reference")
        if isinstance(found, Translation):
            one_range = not regime_of(self.regs, self.regs.el).two_ranges
            is_global = one_range or not found.attributes.get("ng")  # stage 1 off: for every ASID
            self.tlb.fill(address, found, found.attributes["allowed"], domain, is_global=is_global)
        return found

    def tlbi(self, name: str, operand: int = 0) -> int:
        """TLBI *name*, Xt: how many entries went, here and in the peers. ValueError: no such operation."""
        what, broadcast = operation(name)
        scope = self._scope(what, operand)
        if scope is None:
            return 0
        return sum(pe.tlb.invalidate(scope) for pe in (self, *(self.peers if broadcast else ())))

    # Inside

    def _domain(self, va: int, access: Access) -> Domain | None:
        """None: such an access is not kept (nothing translates it, or its top byte is not a copy of bit 55)."""
        regime = regime_of(self.regs, self.regs.el)
        upper = bool(va >> 55 & 1)
        stage1, stage2 = stage1_of(self.regs, regime, upper), stage2_of(self.regs, regime)
        if not stage1.enabled and stage2 is None:
            return None
        if _signed(va & (1 << 56) - 1, 56) != va and not (stage1.enabled and stage1.tbi and not stage1.tbid):
            return None
        vm = self._vmid() if regime is Regime.EL10 else 0
        return Domain(regime.value[0], self._asid(regime), vm, (access & ~KIND, self._context))

    def _asid(self, regime: Regime) -> int:
        """The current ASID; 0 in a regime that has none."""
        if not regime.two_ranges:
            return 0
        el = regime.el
        tcr = getattr(self.regs, f"tcr_el{el}")
        ttbr = getattr(self.regs, f"ttbr{Tcr.A1.get(tcr)}_el{el}")
        return Ttbr.ASID.get(ttbr) & self._asid_mask(regime)

    def _asid_mask(self, regime: Regime) -> int:
        return 0xFFFF if Tcr.AS.get(getattr(self.regs, f"tcr_el{regime.el}")) else 0xFF

    def _vmid(self) -> int:
        return Ttbr.ASID.get(self.regs.vttbr_el2) & (0xFFFF if Vtcr.VS.get(self.regs.vtcr_el2) else 0xFF)

    def _regime(self, el: int) -> Regime:
        """What an operation for EL1 or EL2 is about depends on HCR_EL2.E2H and TGE."""
        if el == 1:
            return Regime.EL20 if in_host(self.regs) and self.regs.el >= 2 else Regime.EL10
        return regime_of(self.regs, el)

    def _scope(self, what: Operation, operand: int) -> Scope | None:
        if what.by == "all" and what.el == 1:
            return Scope(Regime.EL10.value[0])  # whatever HCR_EL2 says
        regime = self._regime(what.el)
        vm = self._vmid() if regime is Regime.EL10 else None
        if what.by in ("all", "vm"):
            return Scope(regime.value[0], vm=vm, stage=what.stage)
        asid = Ttbr.ASID.get(operand) & self._asid_mask(regime) if regime.two_ranges else None
        if what.by == "asid":
            return Scope(regime.value[0], vm=vm, space=asid, global_too=False, stage=1)
        span = self._range(operand, what) if what.ranged else self._address(operand, what)
        if span is None:
            return None
        space = asid if what.by == "va" else None
        return Scope(regime.value[0], vm=vm, space=space, first=span[0], last=span[1], stage=what.stage)

    def _address(self, operand: int, what: Operation) -> tuple[int, int]:
        """Xt[43:0] is VA[55:12]; of an IPA it is IPA[51:12] in bits 39:0."""
        address = (operand & (1 << 40) - 1) << 12 if what.by == "ipa" else _signed((operand & (1 << 44) - 1) << 12, 56)
        return address, address

    def _range(self, operand: int, what: Operation) -> tuple[int, int] | None:
        """BaseADDR (bits 36:0: in granules, or with DS=1 in 64K), SCALE, NUM and TG. With TG=0 nothing has to go."""
        shift = RANGE_GRANULES.get(operand >> 46 & 3)
        if shift is None:
            return None
        scale, number = operand >> 44 & 3, operand >> 39 & 31
        unit = 16 if self._has_ds(what) else shift
        low = (operand & (1 << 37) - 1) << unit
        first = low if what.by == "ipa" else _signed(low, 37 + unit)
        last = first + ((number + 1) << (5 * scale + 1) << shift) - 1
        return first, min(last, (1 << 64) - 1)

    def _has_ds(self, what: Operation) -> bool:
        if what.by == "ipa":
            return bool(Vtcr.DS.get(self.regs.vtcr_el2))
        regime = self._regime(what.el)
        tcr = getattr(self.regs, f"tcr_el{regime.el}")
        return bool((Tcr if regime.two_ranges else TcrSingle).DS.get(tcr))
