"""Random memory in which every word is a plausible descriptor, and random registers: whatever is walked goes somewhere.

Independent of the walkers. Addresses in the soup stay inside it most of the time, so a walk meets tables, blocks,
pages, holes, devices and addresses that are out of range, at every level of every granule and at both stages.
Whatever is random comes from a random.Random: a seeded one, or hypothesis' own, which shrinks.
"""

from functools import lru_cache
from random import Random

import numpy as np

from mmu import AddressSpace, Mmio, Ram
from mmu.arm64 import Registers
from mmu.arm64.format import GRANULES, Hcr, Sctlr, Tcr, TcrSingle, Vtcr
from mmu.types import Access, MemTxResult

SIZE = 1 << 20  # bytes of soup
DEVICE, DEVICE_SIZE = 0x4_0000, 0x2_0000  # a part of it that is a device
REFUSED, REFUSED_SIZE = 0x9_0000, 0x4000  # a part that errs


@lru_cache(maxsize=8)
def words(seed: int, high: bool) -> np.ndarray:
    """*high*: leave bits 51:48 of addresses clear, wherever a form keeps them, most of the time."""
    rng = np.random.default_rng(seed)
    n = SIZE // 8
    kind = rng.choice([3, 1, 0, 2], n, p=[0.72, 0.2, 0.06, 0.02]).astype(np.uint64)
    low = rng.integers(0, 1 << 10, n, dtype=np.uint64) & np.uint64(0x3FC)
    address = rng.integers(0, SIZE, n, dtype=np.uint64) & np.uint64(0xFF000)
    upper = rng.integers(0, 1 << 14, n, dtype=np.uint64) << np.uint64(50)
    upper &= rng.integers(0, 1 << 14, n, dtype=np.uint64) << np.uint64(50)  # table attributes: rather clear
    access_flag = (rng.random(n) < 0.85).astype(np.uint64) << np.uint64(10)
    far = rng.integers(0, 1 << 50, n, dtype=np.uint64) & np.uint64(0x3_FFFF_FFF0_0000)
    address |= np.where(rng.random(n) < 0.04, far, np.uint64(0))
    if high:
        clear = np.where(rng.random(n) < 0.9, np.uint64(0xF300), np.uint64(0))  # 15:12 of 64K, 9:8 with DS
        low, address = low & ~clear, address & ~clear
    return kind | low | access_flag | address | upper


def fill(seed: int, high: bool, big_endian: bool) -> bytes:
    found = words(seed, high)
    return (found.byteswap() if big_endian else found).tobytes()


class Restless:
    """Device memory in which another agent flips a software bit of a word just after one of the first reads."""

    def __init__(self, data: bytes, changes: int, every: int) -> None:
        self.data, self.changes, self.every, self.reads = bytearray(data), changes, every, 0

    def read(self, offset: int, size: int) -> int:
        value = int.from_bytes(self.data[offset : offset + size], "little")
        self.reads += 1
        if self.changes and self.reads % self.every == 0:
            self.changes -= 1
            self.data[offset + 6] ^= 0x80
            self.data[offset + 1] ^= 0x80
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        self.data[offset : offset + size] = value.to_bytes(size, "little")


class Bowl:
    """A space full of soup; `contents` is what a walk may have changed."""

    def __init__(self, data: bytes, changes: int = 0, every: int = 1) -> None:
        self.space = AddressSpace()
        self.ram = Ram(SIZE)
        self.ram.memory.write(0, data)
        self.device = Restless(data[DEVICE : DEVICE + DEVICE_SIZE], changes, every)
        self.space.map(0, self.ram)
        self.space.map(DEVICE, Mmio(DEVICE_SIZE, self.device.read, self.device.write, name="device"), priority=1)
        self.refused = Mmio(
            REFUSED_SIZE, lambda o, s: MemTxResult.ERROR, lambda o, s, v: MemTxResult.ERROR, name="refused"
        )
        self.space.map(REFUSED, self.refused, priority=1)

    def contents(self) -> tuple[bytes, bytes]:
        return self.ram.memory.read(0, SIZE), bytes(self.device.data)


def maybe(rng: Random, mask: int, often: int = 4) -> int:
    """*mask* once in *often*."""
    return mask if rng.randrange(often) == 0 else 0


def txsz(rng: Random, granule, ds: int) -> int:
    least = granule.large_min_txsz if ds or not granule.has_ds else granule.min_txsz
    return rng.choice((rng.randint(least, granule.max_txsz), least, 16, 25, 32, granule.max_txsz))


def two_range_tcr(rng: Random) -> int:
    ds, g0, g1 = rng.randrange(2), rng.choice(GRANULES), rng.choice(GRANULES)
    tcr = Tcr.make(
        T0SZ=txsz(rng, g0, ds), T1SZ=txsz(rng, g1, ds), TG0=g0.tg0, TG1=g1.tg1, DS=ds,
        IPS=rng.choice((0, 1, 5, 5, 6, 6, 7)), HA=rng.randrange(2), HD=rng.randrange(2),
        SH0=rng.randrange(4), SH1=rng.randrange(4),
    )  # fmt: skip
    for name in ("TBI0", "TBI1", "TBID0", "TBID1", "HPD0", "HPD1"):
        tcr |= maybe(rng, Tcr.fields[name].mask, 2)
    for name in ("EPD0", "EPD1", "E0PD0", "E0PD1"):
        tcr |= maybe(rng, Tcr.fields[name].mask, 16)
    return tcr


def one_range_tcr(rng: Random) -> int:
    ds, granule = rng.randrange(2), rng.choice(GRANULES)
    tcr = TcrSingle.make(
        T0SZ=txsz(rng, granule, ds), TG0=granule.tg0, DS=ds, PS=rng.choice((0, 5, 6, 7)),
        HA=rng.randrange(2), HD=rng.randrange(2), SH0=rng.randrange(4),
    )  # fmt: skip
    for name in ("TBI", "TBID", "HPD"):
        tcr |= maybe(rng, TcrSingle.fields[name].mask, 2)
    return tcr


def vtcr(rng: Random, pa_range: int) -> int:
    """Mostly a start level that fits; now and then any."""
    ds, granule = rng.randrange(2), rng.choice(GRANULES)
    least = 64 - (pa_range if ds or not granule.has_ds else min(pa_range, 48))
    size = rng.randint(least, granule.max_txsz)
    fits = []
    for code, level in enumerate(granule.start_level):
        low = (3 - level) * granule.stride + granule.page_shift + 1
        if granule.start_pa[code] <= pa_range and low <= 64 - size <= low + granule.stride + 3:
            fits.append(code)
    code = rng.choice(fits or [0]) if rng.randrange(16) else rng.randrange(8)
    return Vtcr.make(
        T0SZ=size, SL0=code & 3, SL2=code >> 2, TG0=granule.tg0, DS=ds, PS=rng.choice((0, 1, 5, 6)),
        HA=rng.randrange(2), HD=rng.randrange(2), SH0=rng.randrange(4),
    )  # fmt: skip


def ttbr(rng: Random) -> int:
    """A table inside the soup; the 52-bit form's bits, the ASID and CnP now and then."""
    base = rng.randrange(SIZE // 64) * 64
    return base | maybe(rng, rng.randrange(16) << 2, 8) | maybe(rng, 0xABCD << 48) | maybe(rng, 1)


def registers(rng: Random, big_endian: bool = False) -> Registers:
    pa_range = rng.choice((52, 52, 48, 44, 40, 36, 32))
    sctlr = [Sctlr.M.mask if rng.randrange(8) else 0 for _ in range(3)]
    for name in ("WXN", "EPAN", "I"):
        sctlr = [s | maybe(rng, Sctlr.fields[name].mask) for s in sctlr]
    sctlr = [s | Sctlr.EE.put(int(big_endian)) for s in sctlr]
    hcr = maybe(rng, Hcr.VM.mask, 2)
    for name in ("PTW", "E2H", "FWB", "TEA", "CD"):
        hcr |= maybe(rng, Hcr.fields[name].mask)
    for name in ("DC", "TGE"):
        hcr |= maybe(rng, Hcr.fields[name].mask, 8)
    stage2 = hcr & (Hcr.VM.mask | Hcr.DC.mask)
    return Registers(
        sctlr_el1=sctlr[0], sctlr_el2=sctlr[1], sctlr_el3=sctlr[2],
        tcr_el1=two_range_tcr(rng), tcr_el2=two_range_tcr(rng) if hcr & Hcr.E2H.mask else one_range_tcr(rng),
        tcr_el3=one_range_tcr(rng), ttbr0_el1=ttbr(rng), ttbr1_el1=ttbr(rng), ttbr0_el2=ttbr(rng),
        ttbr1_el2=ttbr(rng), ttbr0_el3=ttbr(rng), vttbr_el2=ttbr(rng), hcr_el2=hcr,
        vtcr_el2=vtcr(rng, pa_range) if stage2 else 0, mair_el1=0x00_04_44_BB_AA_F0_77_FF,
        mair_el2=0xFF_44_04_00_4F_F4_88_F0, mair_el3=0xFF, scr_el3=maybe(rng, 8),
        el=rng.choice((0, 0, 1, 1, 1, 2, 3)), pan=bool(rng.randrange(2)), uao=rng.randrange(4) == 0, pa_range=pa_range,
    )  # fmt: skip


def address(rng: Random) -> int:
    """Any bits below a sign: canonical for some input size, or not."""
    bits = rng.randint(12, 52)
    va = rng.randrange(1 << bits)
    if rng.randrange(2):
        va |= (1 << 64) - (1 << bits)
    return va ^ maybe(rng, 1 << rng.randrange(64), 8) ^ maybe(rng, 0x5A << 56, 6)


ACCESSES = (
    Access.READ, Access.WRITE, Access.WRITE, Access.FETCH, Access.READ | Access.UNPRIVILEGED,
    Access.WRITE | Access.UNPRIVILEGED,
)  # fmt: skip


def maintained(rng: Random, access: Access) -> Access:
    """Some of what is an access of its own kind becomes cache maintenance."""
    plain = access in (Access.READ, Access.WRITE)
    return access | Access.MAINTENANCE if plain and rng.randrange(4) == 0 else access
