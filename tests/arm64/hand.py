"""Memory and registers written by hand, with the manual's numbers; nothing of `mmu.arm64.format`.

Descriptor bits: DDI 0487 "VMSAv8-64 descriptor formats"; TCR_EL1 and VTCR_EL2 bits: their register descriptions.
"""

from mmu import AddressSpace, Ram, arm64
from mmu.types import Access, Fault

R, W, X = Access.READ, Access.WRITE, Access.FETCH
TABLE, PAGE, BLOCK = 0b11, 0b11, 0b01
AF, SH_INNER = 1 << 10, 3 << 8
AP_RW, AP_RW_EL0, AP_RO, AP_RO_EL0 = 0 << 6, 1 << 6, 2 << 6, 3 << 6
DBM, CONTIGUOUS, PXN, UXN = 1 << 51, 1 << 52, 1 << 53, 1 << 54
# Stage 2: MemAttr Normal write-back, S2AP read and write, AF.
S2_RW = 0xF << 2 | 3 << 6 | AF
EPD0, EPD1, HA, HD, DS = 1 << 7, 1 << 23, 1 << 39, 1 << 40, 1 << 59
TG0 = {"4K": 0 << 14, "64K": 1 << 14, "16K": 2 << 14}
IPS_48, IPS_52 = 5 << 32, 6 << 32
VM, PTW, DC, TGE, RW, E2H = 1 << 0, 1 << 2, 1 << 12, 1 << 27, 1 << 31, 1 << 34


def bits(value: int, high: int, low: int) -> int:
    """value[high:low], as the manual writes it."""
    return value >> low & (1 << high - low + 1) - 1


def memory(words: dict[int, int], *places: int, size: int = 1 << 24) -> AddressSpace:
    """RAM from 0, and 1 MiB at each of *places*, with 8-byte little-endian *words* in it."""
    space = AddressSpace()
    space.map(0, Ram(size))
    for place in places:
        space.map(place, Ram(1 << 20, name=f"ram at {place:#x}"))
    for address, word in words.items():
        space.write(address, word.to_bytes(8, "little"))
    return space


def word(space: AddressSpace, address: int) -> int:
    return int.from_bytes(space.read(address, 8), "little")


def tcr(granule: str, t0sz: int, more: int = 0) -> int:
    """TTBR0 only; 48-bit output unless *more* holds another IPS."""
    return t0sz | TG0[granule] | EPD1 | more | (0 if more & 7 << 32 else IPS_48)


def el1(granule: str, t0sz: int, table: int, more: int = 0, **registers: int) -> arm64.Registers:
    return arm64.Registers(sctlr_el1=1, tcr_el1=tcr(granule, t0sz, more), ttbr0_el1=table, **registers)


def four_levels(leaf: int, va: int = 0x12_3456_7000) -> tuple[dict[int, int], arm64.Registers]:
    """4K tables at 0x1000, 0x2000, 0x3000, 0x4000 for *va* with a page descriptor, and registers to walk them."""
    words = {
        0x1000 + 8 * bits(va, 47, 39): 0x2000 | TABLE,
        0x2000 + 8 * bits(va, 38, 30): 0x3000 | TABLE,
        0x3000 + 8 * bits(va, 29, 21): 0x4000 | TABLE,
        0x4000 + 8 * bits(va, 20, 12): leaf,
    }
    return words, el1("4K", 16, 0x1000)


def status(space, regs, va, access, engine="native") -> tuple[str, int | None, int]:
    """(kind, level, ESR) of a fault, or ("", level, pa)."""
    found = arm64.walk(space, regs, va, access, engine=engine)
    if isinstance(found, Fault):
        return found.kind.name, found.level, arm64.exception(found, regs).esr
    return "", found.attributes["level"], found.pa
