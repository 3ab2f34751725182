"""Random physical memory with tables of one guest mode and one nested mode, and registers that point into it.

Most entries lead on to a table of the next level; some are broken in one way or another. Everything follows from a
seed: two images of one seed are equal.
"""

import random
from dataclasses import dataclass, field

from mmu import Access, AddressSpace, HostMemory, Mmio, Ram, Striped, Target
from mmu.layout import Layout
from mmu.stripes import Route, Slot, Span
from mmu.types import MemTxResult
from mmu.x86 import Ept, Npt, Registers
from mmu.x86 import format as f

PAGE = 4096
FRAMES = 64
SLOTS = (0, 1, 2, 3, 256, 510, 511)  # indices that a random address uses
# Frames: guest tables of level n at 2n and 2n+1, nested ones at 16+2n and 17+2n, data; from DEVICE on memory behind
# MMIO (another table each of levels 1 and 2), from REFUSING on MMIO that refuses, from HOLE on nothing.
NESTED, DATA, DEVICE, REFUSING, HOLE = 16, 32, 56, 58, 60
ACCESSES = (
    Access.READ, Access.WRITE, Access.FETCH,
    Access.READ | Access.IMPLICIT, Access.WRITE | Access.IMPLICIT, Access.READ | Access.STACK,
    Access.READ | Access.SHADOW_STACK, Access.WRITE | Access.SHADOW_STACK,
)  # fmt: skip
GUESTS = {
    "4-level": f.FOUR_LEVEL, "5-level": f.FIVE_LEVEL, "pae": f.PAE, "32-bit": f.TWO_LEVEL,
    "32-bit pse": f.TWO_LEVEL_PSE, "unpaged": (),
}  # fmt: skip
STAGE2 = {
    "npt 4-level": f.FOUR_LEVEL, "npt 5-level": f.FIVE_LEVEL, "npt pae": f.PAE, "npt 32-bit": f.TWO_LEVEL_PSE,
    "ept 4-level": f.EPT_FOUR_LEVEL, "ept 5-level": f.EPT_FIVE_LEVEL,
}  # fmt: skip
# percent of ones for a flag that a format has
LIKELY = {"P": 98, "R": 97, "RW": 85, "W": 85, "US": 85, "X": 85, "A": 50, "D": 50, "G": 20, "PAT": 20, "XD": 10}
LIKELY_NESTED = {**LIKELY, "P": 99, "RW": 96, "W": 96, "US": 98, "X": 96, "XD": 4}  # or nothing would get to stage 1


def chance(r: random.Random, percent: int) -> bool:
    return r.randrange(100) < percent


def random_entry(r: random.Random, level: f.Level, frame: int, leaf: bool, broken: int, likely: dict[str, int]) -> int:
    """An entry of the level's table or leaf format; `frame` where its size can hold it; a stray bit in `broken` %."""
    layout: type[Layout] | None = level.leaf if leaf else level.table
    assert layout is not None
    values = {name: int(chance(r, percent)) for name, percent in likely.items() if name in layout.fields}
    if leaf and level.table is not None:
        values["PS"] = 1
    if "PK" in layout.fields:
        values["PK"] = r.randrange(16)
    if "MT" in layout.fields:
        values["MT"] = 6
    entry = layout.make(**values)
    if not leaf or level.shift == 12:
        entry |= frame * PAGE
    elif chance(r, 10):
        entry |= r.choice((1 << 31, 1 << 35, 1 << 14)) & (1 << layout.BITS) - 1
    if chance(r, broken):
        entry ^= 1 << r.randrange(layout.BITS)
    return entry


@dataclass
class Image:
    """An address space of FRAMES frames: RAM, then a device that is memory, one that refuses, and nothing."""

    seed: int
    guest: str
    nested: str = "none"
    plain: bool = False  # RAM only
    tidy: bool = False  # no table is also a page, or a table of another level
    ways: int = 0  # instead of RAM, a window over so many devices, 256 bytes each in turn
    space: AddressSpace = field(init=False)
    device: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self.space = AddressSpace()
        self.device = bytearray(0 if self.plain else (REFUSING - DEVICE) * PAGE)
        if self.ways:
            self.space.map(0, self._window(FRAMES * PAGE))
        elif self.plain:
            self.space.map(0, Ram(FRAMES * PAGE))
        else:
            self.space.map(0, Ram(DEVICE * PAGE))
            self.space.map(DEVICE * PAGE, Mmio(len(self.device), self._read, self._write))
            refuse = MemTxResult.ERROR
            self.space.map(REFUSING * PAGE, Mmio((HOLE - REFUSING) * PAGE, lambda o, s: refuse, lambda o, s, v: refuse))
        r = random.Random(self.seed)
        broken = r.choice((0, 2, 2, 10))
        self._fill(r, GUESTS[self.guest], 0, SLOTS, broken)
        if self.nested != "none":
            self._fill(r, STAGE2[self.nested], NESTED, range(FRAMES), broken // 2)

    def _window(self, size: int) -> Striped:
        targets = [Target(f"mem{n}", HostMemory(size)) for n in range(self.ways)]
        slots = tuple(Slot(n, 0, 0, self.ways, 256) for n in range(self.ways))
        window = Striped(size, 0, targets)
        window.set_route(Route((Span(0, size - 1, 8, (self.ways - 1).bit_length(), 256, slots),)))
        return window

    def _read(self, offset: int, size: int) -> int:
        return int.from_bytes(self.device[offset : offset + size], "little")

    def _write(self, offset: int, size: int, value: int) -> None:
        self.device[offset : offset + size] = value.to_bytes(size, "little")

    def _fill(self, r: random.Random, levels: tuple[f.Level, ...], base: int, slots, broken: int) -> None:
        for level in levels:
            frames = [base + 2 * level.number, base + 2 * level.number + 1]
            if base == 0 and level.number <= 2 and not self.plain:
                frames.append(DEVICE + level.number - 1)
            for frame in frames:
                for slot in slots:
                    # a nested table maps low guest-physical frames to themselves, mostly
                    entry = self._entry(r, level, base, slot if base and chance(r, 90) else None, broken)
                    where = frame * PAGE + slot % (1 << level.bits) * level.size
                    self.space.write(where, entry.to_bytes(level.size, "little"))

    def _entry(self, r: random.Random, level: f.Level, base: int, same: int | None, broken: int) -> int:
        leaf = level.table is None or (level.leaf is not None and chance(r, 12))
        if leaf:
            frame = r.randrange(DATA if self.tidy else 0, FRAMES) if same is None else same
        elif chance(r, 3) and not self.tidy:
            frame = r.randrange(FRAMES)
        else:
            frame = base + 2 * (level.number - 1) + r.randrange(2)
            if base == 0 and level.number in (2, 3) and not self.plain and chance(r, 20):
                frame = DEVICE + level.number - 2
        return random_entry(r, level, frame, leaf, broken, LIKELY_NESTED if base else LIKELY)

    def memory(self) -> bytes:
        return self.space.read(0, (FRAMES if self.plain else DEVICE) * PAGE) + bytes(self.device)


def address(r: random.Random, guest: str, exotic: bool = True) -> int:
    """A linear address whose indices are slots; now and then with metadata, or not canonical."""
    if guest in ("32-bit", "32-bit pse"):
        return r.choice(SLOTS) << 22 | r.choice(SLOTS) << 12 | r.randrange(PAGE)
    if guest == "unpaged":
        return r.randrange(FRAMES) * PAGE + r.randrange(PAGE)
    if guest == "pae":
        return r.randrange(4) << 30 | r.choice(SLOTS) << 21 | r.choice(SLOTS) << 12 | r.randrange(PAGE)
    va = r.randrange(PAGE)
    top = 48 if guest == "5-level" else 39
    for shift in range(12, top + 9, 9):
        va |= r.choice(SLOTS) << shift
    if va >> top + 8:
        va |= (1 << 64) - (1 << top + 9)
    if exotic and chance(r, 15):
        va ^= r.randrange(1 << 17) << 47
    return va


def registers(r: random.Random, guest: str, stage2: Npt | Ept | None = None, bus_error: str = "zero") -> Registers:
    long_mode = guest in ("4-level", "5-level")
    cr0 = f.Cr0.make(PE=1, PG=guest != "unpaged", WP=chance(r, 60))
    cr4 = f.Cr4.make(
        PSE=guest == "32-bit pse", PAE=guest in ("4-level", "5-level", "pae"), PGE=1, LA57=guest == "5-level",
        SMEP=chance(r, 50), SMAP=chance(r, 50), PKE=chance(r, 50), PKS=chance(r, 50),
        LAM_SUP=long_mode and chance(r, 30), PCIDE=long_mode)  # fmt: skip
    cr3 = 2 * GUESTS[guest][0].number * PAGE if GUESTS[guest] else 0
    if long_mode:
        cr3 |= f.Cr3.make(LAM_U48=chance(r, 20), LAM_U57=chance(r, 20), NOFLUSH=chance(r, 30)) | r.randrange(PAGE)
    efer = f.Efer.make(LME=long_mode, LMA=long_mode, NXE=chance(r, 75))
    return Registers(
        cr0, cr3, cr4, efer, r.getrandbits(32), r.getrandbits(32), chance(r, 50), r.choice((0, 0, 3, 3, 1)),
        r.choice((36, 40, 46, 52)), stage2, bus_error)  # type: ignore[arg-type]


def stage2(r: random.Random, kind: str) -> Npt | Ept | None:
    if kind == "none":
        return None
    root = (NESTED + 2 * STAGE2[kind][0].number) * PAGE
    if kind.startswith("ept"):
        length = 4 if kind == "ept 5-level" else 3
        return Ept(f.Eptp.make(MT=6, LENGTH=length, AD=chance(r, 60)) | root, r.choice((36, 40, 52)))
    long_mode = kind in ("npt 4-level", "npt 5-level")
    cr4 = f.Cr4.make(PAE=long_mode or kind == "npt pae", PSE=1, LA57=kind == "npt 5-level")
    return Npt(root, cr4, f.Efer.make(LME=long_mode, NXE=chance(r, 75), SVME=1), r.choice((36, 40, 52)))
