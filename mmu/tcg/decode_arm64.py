"""A64 instructions as a translator sees them, by the encoding tables of the manual.

Source: Arm ARM (DDI 0487), "A64 instruction set encoding"; how control leaves a block: QEMU,
target/arm/tcg/translate-a64.c.
"""

from __future__ import annotations

from functools import cache

from mmu.tcg.instruction import Flow, Instruction

LENGTH = 4
DIRECT, INDIRECT, MAIN_LOOP = Flow.DIRECT, Flow.INDIRECT, Flow.MAIN_LOOP
# (mask, value, instruction): the first that matches counts.
ENCODINGS: tuple[tuple[int, int, Instruction], ...] = (
    (0x7C000000, 0x14000000, Instruction(LENGTH, DIRECT, alone=False)),  # B, BL
    (0xFF000010, 0x54000000, Instruction(LENGTH, DIRECT, alone=False)),  # B.cond
    (0x7C000000, 0x34000000, Instruction(LENGTH, DIRECT, alone=False)),  # CBZ, CBNZ, TBZ, TBNZ
    (0xFFFFF3FF, 0xD69F03E0, Instruction(LENGTH, MAIN_LOOP, special="mode")),  # ERET
    (0xFE000000, 0xD6000000, Instruction(LENGTH, INDIRECT, alone=False)),  # BR, BLR, RET
    (0xFF000000, 0xD4000000, Instruction(LENGTH, MAIN_LOOP)),  # SVC, HVC, SMC, BRK, HLT
    (0xFFFFFFFF, 0xD503207F, Instruction(LENGTH, Flow.HALT)),  # WFI
    (0xFFFFFFFF, 0xD503205F, Instruction(LENGTH, MAIN_LOOP)),  # WFE: other CPUs get a turn
    (0xFFFFF0FF, 0xD50330DF, Instruction(LENGTH, MAIN_LOOP)),  # ISB
    (0xFFFFF01F, 0xD503201F, Instruction(LENGTH, alone=False)),  # other hints
    (0xFFFFF01F, 0xD503301F, Instruction(LENGTH, alone=False)),  # barriers
    (0xFFF8F01F, 0xD500401F, Instruction(LENGTH, MAIN_LOOP, special="mode")),  # MSR (immediate)
    (0xFFFFFFE0, 0xD50B7420, Instruction(LENGTH, special="dc zva")),
    (0xFFFFFEE0, 0xD50B7C20, Instruction(LENGTH, special="dc")),  # DC CVAP, CVADP: they translate
    (0xFFF8FF00, 0xD5087800, Instruction(LENGTH, MAIN_LOOP)),  # AT
    (0xFFF8F000, 0xD5088000, Instruction(LENGTH, MAIN_LOOP, special="tlbi")),
    (0xFFF80000, 0xD5080000, Instruction(LENGTH)),  # other SYS: caches
    (0xFFF00000, 0xD5100000, Instruction(LENGTH, MAIN_LOOP, special="msr")),
    (0xFFFFFFC0, 0xD53B2400, Instruction(LENGTH, MAIN_LOOP, special="undefined")),  # RNDR, RNDRRS: the host's
    (0xFFF00000, 0xD5300000, Instruction(LENGTH)),  # MRS
    (0x3B200C00, 0x38200000, Instruction(LENGTH, atomic=True)),  # LDADD, ..., SWP
    (0x3FA07C00, 0x08A07C00, Instruction(LENGTH, atomic=True)),  # CAS
    (0xBFA07C00, 0x08207C00, Instruction(LENGTH, atomic=True)),  # CASP
    (0x3FE00000, 0x08000000, Instruction(LENGTH, atomic=True)),  # STXR, STLXR
    (0xBFE00000, 0x88200000, Instruction(LENGTH, atomic=True)),  # STXP, STLXP
    (0x3B200C00, 0x38000800, Instruction(LENGTH, special="unprivileged")),  # LDTR, STTR
    (0xBE000000, 0x28000000, Instruction(LENGTH, join=8)),  # LDP, STP, LDNP, STNP of W; LDPSW
    (0xFE000000, 0xA8000000, Instruction(LENGTH, join=16)),  # of X
    (0xFE000000, 0xAC000000, Instruction(LENGTH, join=16)),  # of Q, each
    (0xFC800000, 0x3C800000, Instruction(LENGTH, join=16)),  # LDR, STR of Q
    (0x0A000000, 0x08000000, Instruction(LENGTH)),  # all other loads and stores
    (0xFFFF0000, 0x00000000, Instruction(LENGTH, MAIN_LOOP)),  # UDF
    (0x00000000, 0x00000000, Instruction(LENGTH, alone=False)),  # what only computes
)


class Arm64Decoder:
    longest = LENGTH

    def __init__(self) -> None:
        self._known: dict[bytes, Instruction] = {}

    def decode(self, code: bytes) -> Instruction:
        code = code[:LENGTH]
        found = self._known.get(code)
        if found is None:
            word = int.from_bytes(code, "little")
            found = next(i for mask, value, i in ENCODINGS if word & mask == value)
            self._known[code] = found
        return found

    def unit(self, known: bytes) -> int:
        return 0 if known else LENGTH


@cache
def decoder() -> Arm64Decoder:
    return Arm64Decoder()
