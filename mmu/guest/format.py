"""Formats that exception delivery reads and writes, and the MSRs of x86. Tables only; those of paging are in mmu.x86
and mmu.arm64."""

from enum import IntEnum
from typing import NamedTuple

from mmu.layout import Bits, Layout, reserved

_SDM = "Intel SDM vol. 3A, "
_ARM = "Arm ARM DDI 0487, "


class Rflags(Layout, bits=64, source="Intel SDM vol. 1, 'EFLAGS Register'"):
    CF = Bits(0)
    ONE = Bits(1, doc="always 1")
    PF = Bits(2)
    R3 = reserved(3)
    AF = Bits(4)
    R5 = reserved(5)
    ZF = Bits(6)
    SF = Bits(7)
    TF = Bits(8, doc="trap after each instruction")
    IF = Bits(9, doc="maskable interrupts on")
    DF = Bits(10)
    OF = Bits(11)
    IOPL = Bits(13, 12)
    NT = Bits(14, doc="nested task")
    R15 = reserved(15)
    RF = Bits(16, doc="resume: no instruction breakpoint on the next one")
    VM = Bits(17)
    AC = Bits(18, doc="alignment checks; with CR4.SMAP: supervisor accesses to user pages")
    VIF = Bits(19)
    VIP = Bits(20)
    ID = Bits(21)
    R63 = reserved(63, 22)


class Dr6(Layout, bits=64, source=_SDM + "'Debug Status Register (DR6)'"):
    B = Bits(3, 0, doc="conditions of breakpoints that were met")
    ONES = Bits(12, 4, doc="1, where the CPU has nothing to tell of")
    BD = Bits(13, doc="an access to debug registers, which DR7.GD forbids")
    BS = Bits(14, doc="single step")
    BT = Bits(15, doc="task switch")
    MORE_ONES = Bits(31, 16)
    R63 = reserved(63, 32)


class Dr7(Layout, bits=64, source=_SDM + "'Debug Control Register (DR7)'"):
    ENABLED = Bits(9, 0, doc="L0, G0 .. L3, G3, LE, GE")
    ONE = Bits(10, doc="1")
    RTM = Bits(11)
    R12 = reserved(12)
    GD = Bits(13, doc="#DB before MOV from or to a debug register")
    R15 = reserved(15, 14)
    CONDITIONS = Bits(31, 16, doc="R/W0, LEN0 .. R/W3, LEN3")
    R63 = reserved(63, 32)


class GateLow(Layout, bits=64, source=_SDM + "'64-Bit Mode IDT': bytes 7..0 of a gate"):
    OFFSET_LOW = Bits(15, 0)
    SELECTOR = Bits(31, 16)
    IST = Bits(34, 32, doc="1..7: stack of the TSS")
    R39 = reserved(39, 35)
    TYPE = Bits(43, 40, doc="14 interrupt gate, 15 trap gate")
    S = Bits(44, doc="0: a system descriptor")
    DPL = Bits(46, 45, doc="least privileged CPL that may use INT n")
    P = Bits(47, doc="present")
    OFFSET_MID = Bits(63, 48)


class GateHigh(Layout, bits=64, source=_SDM + "'64-Bit Mode IDT': bytes 15..8 of a gate"):
    OFFSET_HIGH = Bits(31, 0)
    R63 = reserved(63, 32)


class Segment(Layout, bits=64, source=_SDM + "'Segment Descriptors'"):
    LIMIT_LOW = Bits(15, 0)
    BASE_LOW = Bits(39, 16)
    TYPE = Bits(43, 40, doc="bit 3: code; of code, bit 2: conforming")
    S = Bits(44, doc="1: code or data")
    DPL = Bits(46, 45)
    P = Bits(47)
    LIMIT_HIGH = Bits(51, 48)
    AVL = Bits(52)
    L = Bits(53, doc="64-bit code")
    DB = Bits(54)
    G = Bits(55)
    BASE_HIGH = Bits(63, 56)


class SelectorCode(Layout, bits=32, source=_SDM + "'Error Code'"):
    EXT = Bits(0, doc="not by a software interrupt")
    IDT = Bits(1, doc="the index is that of a gate")
    TI = Bits(2)
    INDEX = Bits(15, 3)
    R31 = reserved(31, 16)


class Star(Layout, bits=64, source=_SDM + "'Fast System Calls in 64-Bit Mode': IA32_STAR"):
    EIP = Bits(31, 0, doc="32-bit SYSCALL target (AMD)")
    SYSCALL = Bits(47, 32, doc="CS of SYSCALL; SS is the next")
    SYSRET = Bits(63, 48)


class Pstate(Layout, bits=32, source=_ARM + "C5.2.19 'SPSR_EL1', from AArch64"):
    SP = Bits(0, doc="1: SP_ELx, 0: SP_EL0")
    R1 = reserved(1)
    EL = Bits(3, 2)
    AARCH32 = Bits(4, doc="0: AArch64")
    R5 = reserved(5)
    F = Bits(6)
    I = Bits(7)  # noqa: E741
    A = Bits(8)
    D = Bits(9)
    BTYPE = Bits(11, 10)
    SSBS = Bits(12)
    R19 = reserved(19, 13)
    IL = Bits(20)
    SS = Bits(21)
    PAN = Bits(22, doc="privileged accesses may not use EL0's pages")
    UAO = Bits(23)
    DIT = Bits(24)
    TCO = Bits(25)
    R27 = reserved(27, 26)
    V = Bits(28)
    C = Bits(29)
    Z = Bits(30)
    N = Bits(31)


class MsrRule(IntEnum):
    """What WRMSR may write to a register, besides that bits of `Msr.reserved` are 0."""

    BITS = 0
    READ_ONLY = 1
    ADDRESS = 2  # canonical
    TYPE = 3  # the lowest byte is a memory type of an MTRR
    TYPES = 4  # each byte is
    PAT = 5  # each byte is one of the PAT
    EFER = 6
    CLOCK = 7  # any value, which is the guest's time from then on


class Msr(NamedTuple):
    """Every *step*-th register of *first* .. *last*."""

    first: int
    last: int
    step: int
    rule: MsrRule
    reserved: int


_UPPER, _ALL = 0xFFFFFFFF_00000000, (1 << 64) - 1
_BEYOND = 0xFFF << 52  # what physical addresses do not have
_BANKS = 4 * 10  # registers of machine check banks

# Those that the CPU has, which are those that the engine keeps and CPUID tells of, and the clock.
# Source: Intel SDM vol. 4, 'Architectural MSRs'; vol. 3A, 'Memory Cache Control', 'Machine-Check Architecture'.
MSRS = (
    Msr(0x10, 0x10, 1, MsrRule.CLOCK, 0),  # TIME_STAMP_COUNTER
    Msr(0x8B, 0x8B, 1, MsrRule.BITS, 0),  # BIOS_SIGN_ID
    Msr(0xFE, 0xFE, 1, MsrRule.READ_ONLY, 0),  # MTRRCAP
    Msr(0x174, 0x174, 1, MsrRule.BITS, 0),  # SYSENTER_CS
    Msr(0x175, 0x176, 1, MsrRule.ADDRESS, 0),  # SYSENTER_ESP, SYSENTER_EIP
    Msr(0x179, 0x179, 1, MsrRule.READ_ONLY, 0),  # MCG_CAP
    Msr(0x17A, 0x17A, 1, MsrRule.BITS, _ALL - 7),  # MCG_STATUS
    Msr(0x17B, 0x17B, 1, MsrRule.BITS, 0),  # MCG_CTL
    Msr(0x1A0, 0x1A0, 1, MsrRule.BITS, _ALL - 1),  # MISC_ENABLE: nothing to choose but fast strings
    Msr(0x1D9, 0x1D9, 1, MsrRule.BITS, _ALL),  # DEBUGCTL: no branch records
    Msr(0x200, 0x20E, 2, MsrRule.TYPE, _BEYOND | 0xF00),  # MTRR_PHYSBASE0 .. 7
    Msr(0x201, 0x20F, 2, MsrRule.BITS, _BEYOND | 0x7FF),  # MTRR_PHYSMASK0 .. 7
    Msr(0x250, 0x250, 1, MsrRule.TYPES, 0),  # MTRR_FIX64K_00000
    Msr(0x258, 0x259, 1, MsrRule.TYPES, 0),  # MTRR_FIX16K_80000, _A0000
    Msr(0x268, 0x26F, 1, MsrRule.TYPES, 0),  # MTRR_FIX4K_C0000 .. F8000
    Msr(0x277, 0x277, 1, MsrRule.PAT, 0),
    Msr(0x2FF, 0x2FF, 1, MsrRule.TYPE, _ALL - 0xCFF),  # MTRR_DEF_TYPE
    Msr(0x400, 0x400 + _BANKS - 1, 4, MsrRule.BITS, 0),  # MCi_CTL
    Msr(0x401, 0x400 + _BANKS - 1, 4, MsrRule.BITS, _ALL),  # MCi_STATUS: only cleared
    Msr(0x402, 0x400 + _BANKS - 1, 4, MsrRule.BITS, _ALL),  # MCi_ADDR
    Msr(0x403, 0x400 + _BANKS - 1, 4, MsrRule.BITS, _ALL),  # MCi_MISC
    Msr(0xC0000080, 0xC0000080, 1, MsrRule.EFER, 0),
    Msr(0xC0000081, 0xC0000081, 1, MsrRule.BITS, 0),  # STAR
    Msr(0xC0000082, 0xC0000083, 1, MsrRule.ADDRESS, 0),  # LSTAR, CSTAR
    Msr(0xC0000084, 0xC0000084, 1, MsrRule.BITS, _UPPER),  # SFMASK
    Msr(0xC0000100, 0xC0000102, 1, MsrRule.ADDRESS, 0),  # FS_BASE, GS_BASE, KERNEL_GS_BASE
    Msr(0xC0000103, 0xC0000103, 1, MsrRule.BITS, _UPPER),  # TSC_AUX
)
MTRR_TYPES = (0, 1, 4, 5, 6)  # UC, WC, WT, WP, WB
PAT_TYPES = (*MTRR_TYPES, 7)  # UC-
