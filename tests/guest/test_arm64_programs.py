"""arm64: random programs do the same however they are served, delivered, counted, parted, and wherever they lie.

Much of what they do faults: on pages that are missing, read-only, of EL0 or of EL1, and across their ends. The handler
notes what it is told, and goes on with the instruction behind.
"""

from random import Random

import pytest

from mmu.guest import state
from mmu.guest.memory import SERVICES
from mmu.machine import Machine
from tests.guest.machines import CODE, DATA, MIB, PAGE, asm, places, two_way

SEEDS = range(24)
LENGTH = 40
VECTORS, PROGRAM = CODE + 0x2000, 0x5000_0000
LOG, SHARED, READ_ONLY, HOLE = DATA + 0x8000, 0x2000_0000, 0x2100_0000, 0x3000_0000
LAST = DATA + MIB - PAGE  # what is behind it is not mapped
AREAS = (DATA, 0x9000), (LAST, PAGE), (SHARED, PAGE), (READ_ONLY, PAGE)
WFI = 0xD503207F
# What is kept of the exception: ESR, FAR, ELR, SPSR. Behind SVC, ELR is right already. X27: LOG.
HANDLER = (
    "mrs x28, esr_el1; mrs x29, far_el1; stp x28, x29, [x27], #16; mrs x29, elr_el1; mrs x30, spsr_el1;"
    " stp x29, x30, [x27], #16; lsr x28, x28, #26; cmp x28, #0x15; b.eq 1f; add x29, x29, #4; msr elr_el1, x29;"
    " 1: eret"
)
# Where X0 .. X7 point. In what is random below they are the bases, X8 .. X15 all else.
BASES = (DATA + 0x40, DATA + PAGE - 3, LAST + PAGE - 8, SHARED + 0x18, READ_ONLY + 0x20, HOLE + 8, SHARED + PAGE - 5,
         DATA - 16)  # fmt: skip
T, T2, N, M = 0, 10, 5, 16  # places of registers in an instruction: data, data, base, data
# An instruction, and the places of its fields: (first bit, bits) of what is random.
LOADS = {
    0x38000000: ((30, 2), (22, 2), (12, 9)),  # LDUR, STUR and their like, of all sizes, with gaps: some are undefined
    0x38000400: ((30, 2), (22, 1), (12, 9)), 0x38000C00: ((30, 2), (22, 1), (12, 9)),  # post- and pre-indexed
    0x38000800: ((30, 2), (22, 1), (12, 9)),  # unprivileged
    0x39000000: ((30, 2), (22, 2), (10, 3)), 0x3C000000: ((30, 2), (22, 2), (12, 9)),  # scaled; SIMD
    0x28000000: ((31, 1), (22, 1), (15, 7)), 0x28800000: ((31, 1), (22, 1), (15, 7)),  # pairs
    0x29800000: ((31, 1), (22, 1), (15, 7)), 0x2C000000: ((30, 2), (22, 1), (15, 7)),
    0x08DFFC00: ((30, 2),), 0x089FFC00: ((30, 2),),  # LDAR, STLR
    0x085F7C00: ((30, 2),), 0xC87F0000: ((15, 1),),  # LDXR, LDXP
    0x4C407000: ((10, 2),), 0x4C007000: ((10, 2),), 0x0D40A400: (), 0x4DDF8400: (),  # LD1, ST1, LD1 of a lane
}  # fmt: skip
WITH_TWO = {  # and a register of data in M: atomics, exclusives, compare and swap
    0x38200000: ((30, 2), (22, 2), (12, 3)), 0x38208000: ((30, 2), (22, 2)), 0x08007C00: ((30, 2), (15, 1)),
    0x08A07C00: ((30, 2), (22, 1), (15, 1)), 0xC8200000: ((15, 1),),
}  # fmt: skip
PLAIN = {  # data and data alone
    0x8B000000: ((10, 6), (29, 2)), 0x1A800000: ((12, 4), (31, 1)), 0x9B007C00: (), 0x9AC02000: ((10, 2),),
    0x5AC00000: ((10, 1), (31, 1)), 0x1E602800: (), 0x4EE08400: (), 0x9E670000: (),
}  # fmt: skip
ALONE = (
    0xD4000001, 0xD4000161, 0xD4200000, 0xD4000002, 0xD4000003, 0x00000000, 0xD4400000,  # SVC, BRK, HVC, SMC, UDF, HLT
    0xD5033F9F, 0xD5033FDF, 0xD503205F,  # DSB, ISB, WFE
    0xD508871F, 0xD508831F, 0xD5384100, 0xD5184100, 0xD53BE040, 0xD53B4200, 0xD51B4200,  # TLBI, SP_EL0, CNTVCT, NZCV
    0xD500409F, 0xD500419F, 0xD500407F, 0xD500417F,  # PAN, UAO
)  # fmt: skip


def program(rnd):
    words = []
    for n in range(LENGTH):
        kind = rnd.choices(("load", "two", "plain", "zero", "branch", "alone", "base"), (10, 5, 4, 1, 2, 3, 3))[0]
        if kind == "alone":
            words.append(rnd.choice(ALONE))
        elif kind == "base":  # one of the bases as it was, in X16 .. X23, a little further
            words.append(0x91000000 | rnd.randrange(64) << 10 | 16 + rnd.randrange(8) << N | rnd.randrange(8))
        elif kind == "branch":  # on a condition, forwards
            words.append(0x54000000 | rnd.randrange(1, min(6, LENGTH + 1 - n)) << 5 | rnd.randrange(14))
        elif kind == "zero":  # DC ZVA
            words.append(0xD50B7420 | rnd.randrange(8))
        else:
            word, fields = rnd.choice(list({"load": LOADS, "two": WITH_TWO, "plain": PLAIN}[kind].items()))
            for first, bits in fields:
                word |= rnd.getrandbits(bits) << first
            word |= 8 + rnd.randrange(8) << T | (8 * (kind == "plain") + rnd.randrange(8)) << N
            if kind != "load":
                word |= 8 + rnd.randrange(8) << M
            elif word & 0x3A000000 == 0x28000000 or word == 0xC87F0000:
                word |= 8 + rnd.randrange(8) << T2
            words.append(word)
    return b"".join(word.to_bytes(4, "little") for word in (*words, *[WFI] * (1024 - LENGTH)))


class Guest:
    """A machine with the program of *seed*: everything but *where* its parts lie is the same for the same seed."""

    def __init__(self, seed, where, **how):
        rnd = Random(seed)
        space = two_way(rnd.choice((256, 1024, 4096)))[0]
        self.machine = m = Machine(space, "aarch64", **how).setup(**places(**where))
        user, el0 = rnd.random() < 0.5, rnd.random() < 0.5
        for va, at, rights in (
            (SHARED, m.plan.data.base + 6 * MIB, {"user": user, "executable": False}),
            (READ_ONLY, m.plan.data.base + 7 * MIB, {"user": user, "writable": False, "executable": False}),
            (PROGRAM, m.plan.code.base + 9 * MIB, {"user": el0, "writable": not el0, "executable": True}),
        ):
            m.tables.map(va, at, PAGE, page_size=PAGE, **rights)
        m.load(asm("aarch64", HANDLER))
        for vector in 0x200, 0x400:
            m.write(VECTORS + vector, asm("aarch64", HANDLER))
        for va, size in AREAS:
            m.write(va, rnd.randbytes(size))
        m.write(PROGRAM, program(rnd))
        waits = 1 << 16 | 1 << 18  # WFI and WFE of EL0 are none of EL1's business
        m.set(vbar_el1=VECTORS, x27=LOG, pc=PROGRAM, sctlr_el1=m.registers["sctlr_el1"] | waits)
        for n, base in enumerate(BASES):
            m.set(**{f"x{n}": base, f"x{n + 8}": rnd.getrandbits(rnd.choice((3, 40, 64))), f"x{n + 16}": base})
        m.cpu._set_pstate(rnd.choice((0, 1 << 22)) | rnd.getrandbits(4) << 28 | 0x3C0 | (0 if el0 else 5))
        self.delivered = []

    def run(self, **options):
        result = self.machine.run(timeout=5, **options)
        self.delivered += result.delivered
        return result.stop

    def outcome(self, stop):
        m = self.machine
        kept = state.take(m.cpu)
        del kept["system"]["ttbr0_el1"]
        memory = [m.read(va, size) for va, size in AREAS]
        m.close()
        return stop, self.delivered, kept, memory


def at_once(guest):
    return guest.outcome(guest.run())


def counted(guest):
    return guest.outcome(guest.run(limit=10**6))


def in_parts(guest, rnd):
    while (stop := guest.run(limit=rnd.choice((1, 1, 2, 7)))).reason == "limit":
        pass
    return guest.outcome(stop)


def moved(guest, other, rnd):
    """Every now and then the other machine goes on."""
    while (stop := guest.run(limit=rnd.randrange(1, 40))).reason == "limit":
        other.machine.restore(guest.machine.snapshot())
        other.delivered = guest.delivered
        guest, other = other, guest
    other.machine.close()
    return guest.outcome(stop)


@pytest.mark.parametrize("seed", SEEDS)
def test_programs_do_the_same_however_they_run(seed):
    expected = at_once(Guest(seed, {}, dispatch="exact"))
    assert expected[0].reason == "halt"
    ram = dict.fromkeys(("tables", "code", "data", "stack"), "ram")
    where = {name: Random(seed).choice(("ram", "window")) for name in ram}
    for dispatch in SERVICES:
        assert expected == at_once(Guest(seed, {}, dispatch=dispatch)), dispatch
    for place in ram, where:
        assert expected == at_once(Guest(seed, place)), place
    assert expected == at_once(Guest(seed, {}, deliver="reference"))
    assert expected == counted(Guest(seed, where))
    assert expected == in_parts(Guest(seed, where), Random(seed))
    assert expected == moved(Guest(seed, where), Guest(seed, where), Random(seed))
