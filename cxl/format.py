"""Register and table formats as tables of bits. No control flow in this file.

Component registers: a block of 64 KiB whose CXL.cache/mem registers begin at 0x1000.
"""

from mmu.layout import Bits, Layout, reserved

COMPONENT_BLOCK_SIZE = 0x10000  # bytes
CACHE_MEM_OFFSET = 0x1000  # of the CXL.cache/mem registers in the block
HDM_CAPABILITY_ID = 5
HDM_POINTER = 0x128  # of the HDM decoder capability, from CACHE_MEM_OFFSET; where QEMU 9.0 and later have it
HDM_OFFSET = CACHE_MEM_OFFSET + HDM_POINTER

HDM_GLOBAL_CONTROL = 0x04  # from HDM_OFFSET
DECODER_FIRST = 0x10  # decoder n begins at DECODER_FIRST + n * DECODER_STRIDE
DECODER_STRIDE = 0x20
BASE_LOW, BASE_HIGH, SIZE_LOW, SIZE_HIGH, CONTROL, TARGETS_LOW, TARGETS_HIGH = range(0x00, 0x1C, 4)
SKIP_LOW, SKIP_HIGH = TARGETS_LOW, TARGETS_HIGH  # the same words in a device

DECODER_GRAIN = 256 << 20  # bytes; bits below do not exist in base, size and skip
DECODER_COUNTS = {0: 1, 1: 2, 2: 4, 3: 6, 4: 8, 5: 10, 6: 12, 7: 14, 8: 16, 9: 20, 10: 24, 11: 28, 12: 32}
ENCODED_DECODER_COUNTS = {count: code for code, count in DECODER_COUNTS.items()}
TARGET_COUNTS = (1, 2, 4, 8)
WORD_MASK = 0xFFFF_FFFF

_COMPONENT = "CXL 3.1, 'CXL.cache and CXL.mem Registers'"
_HDM = "CXL 3.1, 'CXL HDM Decoder Capability Structure'"
_CEDT = "CXL 3.1, 'CXL Early Discovery Table'"


class CapabilityHeader(Layout, bits=32, source=f"{_COMPONENT}, 'CXL Capability Header'"):
    ID = Bits(15, 0, doc="1")
    VERSION = Bits(19, 16)
    CACHE_MEM_VERSION = Bits(23, 20)
    ARRAY_SIZE = Bits(31, 24, doc="number of entries that follow")


class CapabilityEntry(Layout, bits=32, source=f"{_COMPONENT}, 'CXL Capability Header'"):
    ID = Bits(15, 0)
    VERSION = Bits(19, 16)
    POINTER = Bits(31, 20, doc="bytes from the capability header")


class HdmCapability(Layout, bits=32, source=f"{_HDM}, 'CXL HDM Decoder Capability Register'"):
    DECODER_COUNT = Bits(3, 0, doc="encoded, DECODER_COUNTS")
    TARGET_COUNT = Bits(7, 4, doc="1, 2, 4 or 8; 1 in a device")
    INTERLEAVE_11_8 = Bits(8, doc="interleave on address bits 11:8")
    INTERLEAVE_14_12 = Bits(9, doc="interleave on address bits 14:12")
    POISON_ON_ERROR = Bits(10, doc="can return poison on a decode error")
    INTERLEAVE_3_6_12 = Bits(11, doc="3, 6 and 12 ways")
    INTERLEAVE_16 = Bits(12, doc="16 ways")
    UIO = Bits(13)
    RSVD14 = reserved(15, 14)
    UIO_DECODER_COUNT = Bits(19, 16)
    MEMDATA_NXM = Bits(20)
    COHERENCY = Bits(22, 21, doc="supported coherency models")
    RSVD23 = reserved(31, 23)


class HdmGlobalControl(Layout, bits=32, source=f"{_HDM}, 'CXL HDM Decoder Global Control Register'"):
    POISON_ON_ERROR = Bits(0, doc="return poison on a decode error")
    ENABLE = Bits(1, doc="the HDM decoders decode; 0: the DVSEC ranges do")
    RSVD2 = reserved(31, 2)


class DecoderLow(Layout, bits=32, source=f"{_HDM}, 'CXL HDM Decoder n Base Low Register' (size and DPA skip alike)"):
    RSVD0 = reserved(27, 0)
    VALUE = Bits(31, 28)


class DecoderControl(Layout, bits=32, source=f"{_HDM}, 'CXL HDM Decoder n Control Register'"):
    IG = Bits(3, 0, doc="granularity 256 << IG bytes")
    IW = Bits(7, 4, doc="ways: 0..4 1 << IW, 8..10 3 << (IW - 8)")
    LOCK_ON_COMMIT = Bits(8)
    COMMIT = Bits(9)
    COMMITTED = Bits(10, doc="read only")
    ERROR_NOT_COMMITTED = Bits(11, doc="read only")
    HOST_ONLY = Bits(12, doc="1: the target is host-only memory (type 3)")
    BI = Bits(13, doc="back-invalidate")
    UIO = Bits(14)
    RSVD15 = reserved(15)
    UIG = Bits(19, 16, doc="upstream interleave granularity")
    UIW = Bits(23, 20, doc="upstream interleave ways")
    ISP = Bits(27, 24, doc="interleave set position")
    RSVD28 = reserved(31, 28)


class Restrictions(Layout, bits=16, source=f"{_CEDT}, 'CXL Fixed Memory Window Structure', Window Restrictions"):
    DEVICE_COHERENT = Bits(0, doc="type 2 memory")
    HOST_ONLY = Bits(1, doc="type 3 memory")
    VOLATILE = Bits(2)
    PERSISTENT = Bits(3)
    FIXED = Bits(4, doc="the configuration must not change")
    BACK_INVALIDATE = Bits(5)
    RSVD6 = reserved(15, 6)


# What QEMU 11.1 advertises: 4 decoders; interleave on bits 14:8; devices also 3, 6, 12 and 16 ways.
BRIDGE_CAPABILITY = HdmCapability.make(DECODER_COUNT=2, TARGET_COUNT=8, INTERLEAVE_11_8=1, INTERLEAVE_14_12=1)
DEVICE_CAPABILITY = HdmCapability.make(
    DECODER_COUNT=2, TARGET_COUNT=1, INTERLEAVE_11_8=1, INTERLEAVE_14_12=1, INTERLEAVE_3_6_12=1, INTERLEAVE_16=1
)
# Bits that software may write; the others are constant or set by the device.
CONTROL_WRITABLE = 0x0FFF_73FF
GLOBAL_WRITABLE = 0x0000_0003

# -- CEDT: little endian, packed. Each record: (field, offset, bytes); a list at the end has its own offset. -----------

CEDT_HEADER = (
    ("signature", 0, 4), ("length", 4, 4), ("revision", 8, 1), ("checksum", 9, 1), ("oem_id", 10, 6),
    ("oem_table_id", 16, 8), ("oem_revision", 24, 4), ("creator_id", 28, 4), ("creator_revision", 32, 4),
)  # fmt: skip
CEDT_HEADER_SIZE = 36
RECORD_HEADER = (("type", 0, 1), ("reserved", 1, 1), ("length", 2, 2))
RECORD_HEADER_SIZE = 4
CHBS = (("uid", 4, 4), ("version", 8, 4), ("base", 16, 8), ("length", 24, 8))
CHBS_SIZE = 32
CFMWS = (
    ("base", 8, 8), ("size", 16, 8), ("eniw", 24, 1), ("arithmetic", 25, 1), ("hbig", 28, 4),
    ("restrictions", 32, 2), ("qtg", 34, 2),
)  # fmt: skip
CFMWS_SIZE = 36  # then 4 bytes per target
CXIMS = (("hbig", 6, 1), ("count", 7, 1))
CXIMS_SIZE = 8  # then 8 bytes per map
RDPAS = (("segment", 4, 2), ("bdf", 6, 2), ("protocol", 8, 1), ("base", 9, 8))
RDPAS_SIZE = 17
RDPAS_ACPICA = (("segment", 4, 2), ("bdf", 6, 2), ("base", 8, 8), ("protocol", 16, 1))  # ACPICA since June 2026
RDPAS_ACPICA_SIZE = 20
CSDS = (("capabilities", 4, 2),)
CSDS_SIZE = 8
CHBS_LENGTHS = (0x2000, 0x10000)  # bytes of registers by version: CXL 1.1 RCRB, CXL 2.0 component registers
