"""Formats that exception delivery reads and writes. Tables only; those of paging are in mmu.x86 and mmu.arm64."""

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
