"""Registers of serial ports. Tables only."""

from mmu.layout import Bits, Layout, reserved

_PC16550 = "National Semiconductor PC16550D data sheet, "
_PL011 = "Arm PrimeCell UART (PL011) TRM, DDI 0183, "


class Lcr(Layout, bits=8, source=_PC16550 + "'Line Control Register'"):
    FORMAT = Bits(6, 0, doc="word length, stop bits, parity, break: no line to send it over")
    DLAB = Bits(7, doc="1: offsets 0 and 1 are the divisor")


class Ier(Layout, bits=8, source=_PC16550 + "'Interrupt Enable Register'"):
    RECEIVED = Bits(0)
    EMPTY = Bits(1, doc="transmitter")
    LINE = Bits(2)
    MODEM = Bits(3)
    R7 = reserved(7, 4)


class Iir(Layout, bits=8, source=_PC16550 + "'Interrupt Identification Register'"):
    NONE = Bits(0, doc="1: nothing is pending")
    ID = Bits(3, 1, doc="1 transmitter empty, 2 data received")
    R5 = reserved(5, 4)
    FIFO = Bits(7, 6, doc="both: FIFOs are on")


class Fcr(Layout, bits=8, source=_PC16550 + "'FIFO Control Register'"):
    ENABLE = Bits(0)
    CLEAR_RECEIVER = Bits(1)
    CLEAR_TRANSMITTER = Bits(2)
    DMA = Bits(3)
    R5 = reserved(5, 4)
    TRIGGER = Bits(7, 6)


class Mcr(Layout, bits=8, source=_PC16550 + "'Modem Control Register'"):
    DTR = Bits(0)
    RTS = Bits(1)
    OUT1 = Bits(2)
    OUT2 = Bits(3)
    LOOP = Bits(4, doc="what is sent is received")
    R7 = reserved(7, 5)


class Lsr(Layout, bits=8, source=_PC16550 + "'Line Status Register'"):
    READY = Bits(0, doc="a byte was received")
    ERRORS = Bits(4, 1)
    HOLDING_EMPTY = Bits(5)
    EMPTY = Bits(6)
    FIFO_ERROR = Bits(7)


class Msr(Layout, bits=8, source=_PC16550 + "'Modem Status Register'"):
    CHANGES = Bits(3, 0)
    CTS = Bits(4)
    DSR = Bits(5)
    RI = Bits(6)
    DCD = Bits(7)


class Fr(Layout, bits=16, source=_PL011 + "'UARTFR register'"):
    CTS = Bits(0)
    DSR = Bits(1)
    DCD = Bits(2)
    BUSY = Bits(3)
    RXFE = Bits(4, doc="nothing received")
    TXFF = Bits(5)
    RXFF = Bits(6)
    TXFE = Bits(7, doc="nothing to send")
    RI = Bits(8)
    R15 = reserved(15, 9)


class Ris(Layout, bits=16, source=_PL011 + "'UARTRIS register'; UARTIMSC, UARTMIS and UARTICR alike"):
    MODEM = Bits(3, 0)
    RX = Bits(4)
    TX = Bits(5)
    RT = Bits(6)
    ERRORS = Bits(10, 7)
    R15 = reserved(15, 11)
