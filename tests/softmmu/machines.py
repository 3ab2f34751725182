"""A small machine with every kind of memory behind its pages, for either implementation of the softmmu."""

import numpy as np

import mmu
from mmu import Access, AddressSpace, Fault, Frames, HostMemory, Mmio, Ram, Rom, RomDevice, Striped, Target, arm64, x86
from mmu.stripes import Miss, Route, Slot, Span
from mmu.tlb import softmmu as reference
from mmu.types import MemTxResult

K, M, G = 1 << 10, 1 << 20, 1 << 30
PAGE = 4 * K
READ, WRITE, FETCH = Access.READ, Access.WRITE, Access.FETCH
RAM, ROM, DEVICE, HALF, FLASH, WINDOW, NOTHING = 0, 8 * M, 9 * M, 10 * M, 11 * M, 256 * M, 64 * M
TABLES = 1 * M
CR0, WP, PAE, PGE, PCIDE, SMEP, SMAP = 0x8001_0001, 1 << 16, 1 << 5, 1 << 7, 1 << 17, 1 << 20, 1 << 21
EFER, NOFLUSH = 0xD00, 1 << 63
IMPLEMENTATIONS = {"py": reference.SoftMmu, "c": mmu.SoftMmu}

# What the pages of a machine show, from its first page on: two of RAM side by side, and one of everything else.
SHOWN = (RAM, RAM + PAGE, ROM, DEVICE, HALF, WINDOW, WINDOW + PAGE, NOTHING, FLASH)
# 64 pages apart, so that the same pages of all of them share a slot of 64. Private but SHARED, which is global.
BASES = tuple(0x40_0000 + n * 64 * PAGE for n in range(12))
NEAR, FAR, SHARED, *MORE = BASES
LARGE = 0x4000_0000
# (base, page) of all that is mapped in small pages
PAGES = [(base, n) for base in (NEAR, FAR, SHARED) for n in range(len(SHOWN))] + [(b, n) for b in MORE for n in (0, 5)]
TAGS = (1, 2)


def route(granularity=256, dpas=(0, 0)):
    slots = tuple(Slot(i, WINDOW, dpa, 2, granularity) for i, dpa in enumerate(dpas))
    return Route((Span(WINDOW, WINDOW + M - 1, granularity.bit_length() - 1, 1, granularity, slots),))


def _odd_routes():
    """By XOR; a device that refuses; nothing behind the first page; a device that ends within the page."""
    slots = route().spans[0].slots
    yield Route((Span(WINDOW, WINDOW + M - 1, 8, 0, 256, slots, (1 << 8 | 1 << 10,)),))
    yield Route((Span(WINDOW, WINDOW + M - 1, 8, 1, 256, (slots[0], Miss("refused", at_device=True))),))
    yield Route((Span(WINDOW, WINDOW + PAGE - 1, 8, 1, 256, slots),))
    yield route(256, (0, M - 1024))
    yield route(512, (8, 12))


ROUTES = [route(256), route(512), route(1024), *_odd_routes()]


class Board:
    """Memory: RAM, ROM, a flash chip, a device that remembers, half a page of RAM, a 2-way window, and nothing."""

    def __init__(self):
        self.space, self.seen, self.registers = AddressSpace(), [], {}
        self.ram, self.half = Ram(4 * M), Ram(2 * K, name="half")
        self.device = Mmio(PAGE, self._read, self._write, name="device")
        self.flash = RomDevice(bytes(range(255, -1, -1)) * 16, self._write, self._read)
        self.memories = [HostMemory(M), HostMemory(M)]
        self.window = Striped(M, WINDOW, [Target(f"mem{i}", m) for i, m in enumerate(self.memories)])
        self.window.set_route(route())
        self.cover = Ram(PAGE, name="cover")
        self.space.map(RAM, self.ram)
        self.space.map(ROM, Rom(bytes(range(256)) * 16))
        self.space.map(DEVICE, self.device)
        self.space.map(HALF, self.half)
        self.space.map(FLASH, self.flash)
        self.space.map(WINDOW, self.window)
        for base in (RAM, RAM + PAGE, WINDOW, WINDOW + PAGE):
            self.space.write(base, np.arange(base, base + PAGE, 8, dtype=np.uint64).tobytes())
        self.frames = Frames(TABLES, 4 * M - 1)

    def _read(self, offset, size):
        self.seen.append(("read", offset, size))
        if offset == 0xFF8:
            return MemTxResult.ERROR
        return self.registers.get((offset, size), offset & (1 << 8 * size) - 1)

    def _write(self, offset, size, value):
        self.seen.append(("write", offset, size, value))
        self.registers[offset, size] = value

    def show(self, on):
        """Another RAM over the second page of RAM, or not: a change of the memory map."""
        shown = any(r.region is self.cover for r in self.space.view.ranges)
        if on and not shown:
            self.space.map(RAM + PAGE, self.cover, priority=1)
        elif shown and not on:
            self.space.unmap(self.cover)


class X86Board(Board):
    """Two address spaces; LARGE is a 2 MiB page of RAM. Page 0 of FAR is read-only, page 1 the supervisor's."""

    def __init__(self):
        super().__init__()
        self.tables = {tag: x86.PageTables(self.space, self.frames) for tag in TAGS}
        for tables in self.tables.values():
            for base, n in PAGES:
                tables.map(base + n * PAGE, SHOWN[n], PAGE, user=True, global_=base == SHARED)
            tables.map(LARGE, RAM, 2 * M, user=False)
            tables.protect(FAR, PAGE, writable=False)
            tables.protect(FAR + PAGE, PAGE, user=False)

    def regs(self, tag=1, cr4=PAE | PGE | PCIDE, **more):
        pcid = tag if cr4 & PCIDE else 0
        return x86.Registers(**{"cr0": CR0, "cr3": self.tables[tag].root | pcid, "cr4": cr4, "efer": EFER, **more})

    def edit(self, tag, page, what):
        """Change an entry behind the TLB's back."""
        tables, (base, n) = self.tables[tag], page
        va = base + n * PAGE
        if what in ("protect", "unprotect"):
            if tables.find(va) is not None:
                tables.protect(va, PAGE, writable=what == "unprotect")
            return
        if tables.find(va) is not None:
            tables.unmap(va, PAGE)
        if what == "move":
            tables.map(va, SHOWN[n - 1], PAGE, user=True, **self.tagged(base == SHARED))

    @staticmethod
    def tagged(is_global):
        return {"global_": is_global}


class Arm64Board(Board):
    """As X86Board, with ASIDs; hardware makes page 0 of each private base dirty."""

    def __init__(self):
        super().__init__()
        self.tables = {tag: arm64.PageTables(self.space, self.frames, 4096) for tag in TAGS}
        for tables in self.tables.values():
            for base, n in PAGES:
                clean = n == 0 and base != SHARED
                tables.map(
                    base + n * PAGE, SHOWN[n], PAGE, user=True, writable=not clean, dbm=int(clean), accessed=not clean,
                    not_global=base != SHARED)
            tables.map(LARGE, RAM, 2 * M, user=False, not_global=1)
            tables.protect(FAR, PAGE, writable=False)
            tables.protect(FAR + PAGE, PAGE, user=False)

    def regs(self, tag=1, **more):
        tables = self.tables[tag]
        tcr = tables.tcr() | 1 << 36 | 3 << 39 | 1 << 37 | 1 << 23  # AS, HA and HD, TBI0, EPD1
        return arm64.Registers(**{"sctlr_el1": 1, "tcr_el1": tcr, "ttbr0_el1": tables.ttbr(tag), **more})

    edit = X86Board.edit

    @staticmethod
    def tagged(is_global):
        return {"not_global": not is_global}


def load_many(tlb, vas, size, status):
    """What load_many gives, access by access, for an implementation without batches."""
    if hasattr(tlb, "load_many"):
        states = np.zeros(len(vas), np.uint8) if status else None
        found = tlb.load_many(np.array(vas, dtype=np.uint64), size, status=states)
        return found if isinstance(found, Fault) else (found.tolist(), states.tolist() if status else None)
    values, states = [], []
    for va in vas:
        found = tlb.read(va, size)
        if isinstance(found, Fault) and not status:
            return found
        states.append(int(found.kind) if isinstance(found, Fault) else 0)
        values.append(0 if isinstance(found, Fault) else int.from_bytes(found, "little"))
    return values, states if status else None


def store_many(tlb, vas, values, size, status):
    values = [value & (1 << 8 * size) - 1 for value in values]
    if hasattr(tlb, "store_many"):
        states = np.zeros(len(vas), np.uint8) if status else None
        found = tlb.store_many(np.array(vas, dtype=np.uint64), np.array(values, dtype=np.uint64), size, status=states)
        return found if isinstance(found, Fault) else (states.tolist() if status else None)
    states = []
    for va, value in zip(vas, values):
        found = tlb.write(va, value.to_bytes(size, "little"))
        if found is not None and not status:
            return found
        states.append(0 if found is None else int(found.kind))
    return states if status else None


class NptBoard(X86Board):
    """Behind nested tables: guest-physical is physical, in large pages but for the first two of RAM."""

    def __init__(self):
        super().__init__()
        self.frames = Frames(3 * M, 4 * M - 1)
        self.nested = self.make()
        for n in range(2):
            self.nested.map(n * PAGE, n * PAGE, PAGE, writable=n == 0)
        self.nested.map(2 * PAGE, 2 * PAGE, 2 * M - 2 * PAGE)
        for base in (2 * M, 8 * M, 10 * M, WINDOW):
            self.nested.map(base, base, 2 * M)

    def make(self):
        return x86.NptTables(self.space, self.frames)

    def regs(self, tag=1, cr4=PAE | PGE | PCIDE, **more):
        npt = x86.Npt(ncr3=self.nested.root, cr4=PAE, efer=EFER)
        return super().regs(tag, cr4, **{"stage2": npt, **more})


class EptBoard(NptBoard):
    """With accessed and dirty flags, of which the first page of RAM has none."""

    def make(self):
        return x86.EptTables(self.space, self.frames)

    def regs(self, tag=1, cr4=PAE | PGE | PCIDE, **more):
        return X86Board.regs(self, tag, cr4, **{"stage2": x86.Ept(self.nested.eptp(accessed_dirty=True)), **more})


class Stage2Board(Arm64Board):
    """Behind stage 2, which makes its first page dirty by hardware; VMID 3."""

    def __init__(self):
        super().__init__()
        self.nested = arm64.Stage2Tables(self.space, Frames(3 * M, 4 * M - 1), start_level=1)
        self.nested.map(0, 0, PAGE, writable=False, dbm=1, accessed=False)
        self.nested.map(PAGE, PAGE, PAGE, writable=False)
        self.nested.map(2 * PAGE, 2 * PAGE, 2 * M - 2 * PAGE)
        for base in (2 * M, 8 * M, 10 * M, WINDOW):
            self.nested.map(base, base, 2 * M)

    def regs(self, tag=1, **more):
        vtcr = self.nested.vtcr() | 1 << 21 | 1 << 22  # HA, HD
        stage2 = {"hcr_el2": 1, "vtcr_el2": vtcr, "vttbr_el2": self.nested.vttbr(more.pop("vmid", 3))}
        return super().regs(tag, **{**stage2, **more})
