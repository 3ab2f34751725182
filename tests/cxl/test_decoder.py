"""The register block: what software sees, what commits, what does not."""

import pytest

from cxl import format as fmt
from cxl.decoder import DecoderBlock
from mmu.errors import AddressRangeError, AlignmentError
from tests.cxl.machines import MIB

GIB = 1 << 30
C = fmt.DecoderControl


def bridge(capability=fmt.BRIDGE_CAPABILITY, strict=True):
    return DecoderBlock("hb", capability, strict=strict)


def device(capability=fmt.DEVICE_CAPABILITY, capacity=4 * GIB, strict=True):
    return DecoderBlock("mem", capability, device=True, capacity=capacity, strict=strict)


def control(block, n):
    return block.read32(block.offset(n, fmt.CONTROL))


def test_capability_header_leads_to_the_decoders():
    block = bridge()
    header = fmt.CapabilityHeader.decode(block.read32(0x1000))
    assert (header["ID"], header["ARRAY_SIZE"]) == (1, 1)
    entry = fmt.CapabilityEntry.decode(block.read32(0x1004))
    assert (entry["ID"], entry["POINTER"]) == (5, 0x128)
    assert block.read32(0x1128) == 0x382  # as QEMU 11.1
    assert device().read32(0x1128) == 0x1B12
    assert block.read32(0xFFFC) == 0


def test_register_access_wrong():
    block = bridge()
    with pytest.raises(AlignmentError, match="0x1002 is not a multiple of 4"):
        block.read32(0x1002)
    with pytest.raises(AddressRangeError, match="end at 0x10000, not 0x10000"):
        block.read32(0x10000)
    with pytest.raises(AddressRangeError, match="not 0x100000000"):
        block.write32(0x1000, 1 << 32)


@pytest.mark.parametrize("field, kept", [
    (fmt.BASE_LOW, 0xF000_0000), (fmt.BASE_HIGH, 0xFFFF_FFFF), (fmt.SIZE_LOW, 0xF000_0000),
    (fmt.SIZE_HIGH, 0xFFFF_FFFF), (fmt.SKIP_LOW, 0xF000_0000), (fmt.SKIP_HIGH, 0xFFFF_FFFF),
])
def test_only_existing_bits_are_kept(field, kept):
    block = device()
    block.write32(block.offset(1, field), 0xFFFF_FFFF)
    assert block.read32(block.offset(1, field)) == kept


def test_read_only_registers_stay():
    block = bridge()
    for offset in (0x1000, 0x1004, 0x1128, 0x1128 + 8, 0x1128 + 0x10 + 0x20 * 4):
        before = block.read32(offset)
        block.write32(offset, 0xFFFF_FFFF)
        assert block.read32(offset) == before
    block.write32(block.offset(0, fmt.TARGETS_LOW), 0x03020100)
    assert block.read32(block.offset(0, fmt.TARGETS_LOW)) == 0x03020100


def test_commit_by_registers():
    block = bridge()
    for field, value in ((fmt.BASE_HIGH, 0x10), (fmt.SIZE_LOW, 0x2000_0000), (fmt.TARGETS_LOW, 0x0105)):
        block.write32(block.offset(0, field), value)
    assert block.match(0x10_0000_0000) == "HDM decoding is off (global control, bit 1)"
    block.write32(0x112C, 2)
    assert block.match(0x10_0000_0000) == "no committed decoder covers the address"
    block.write32(block.offset(0, fmt.CONTROL), C.make(IW=1, IG=1, COMMIT=1))
    assert control(block, 0) == 0x611
    s = block.match(0x10_0000_0200)
    assert block.target(s, 0x10_0000_0200) == (1, 1)
    assert block.target(s, 0x10_0000_01FF) == (0, 5)
    assert isinstance(block.match(0x10_2000_0000), str)
    assert block.uncommit(0) and control(block, 0) == 0x11


# (decoder, base, size, ways, granularity, targets, skip); the last step is refused
REFUSED = {
    "order": (bridge, [(1, 0, GIB, 1, 256)], "must commit after decoder 0"),
    "zero size": (bridge, [(0, 0, 0, 1, 256)], "must have a size, not 0"),
    "overflow": (bridge, [(0, (1 << 64) - 256 * MIB, GIB, 1, 256)], "64-bit"),
    "3 ways in a bridge": (bridge, [(0, 0, 3 * GIB, 3, 256)], "3 ways need 3 targets"),
    "16 ways in a bridge": (bridge, [(0, 0, 4 * GIB, 16, 256)], "16 ways need"),
    "4 ways of 2 targets": (
        lambda: bridge(fmt.HdmCapability.make(DECODER_COUNT=2, TARGET_COUNT=2, INTERLEAVE_11_8=1)),
        [(0, 0, 4 * GIB, 4, 256)], "it has 2"),
    "no bits 14:12": (
        lambda: bridge(fmt.HdmCapability.make(DECODER_COUNT=2, TARGET_COUNT=8, INTERLEAVE_11_8=1)),
        [(0, 0, 4 * GIB, 4, 2048)], "bits 11..12 need interleave on 14:12"),
    "no 3 ways": (
        lambda: device(fmt.HdmCapability.make(TARGET_COUNT=1, INTERLEAVE_11_8=1)),
        [(0, 0, 3 * GIB, 3, 256)], "need the 3, 6, 12-way capability"),
    "no 16 ways": (
        lambda: device(fmt.HdmCapability.make(TARGET_COUNT=1, INTERLEAVE_11_8=1)),
        [(0, 0, 4 * GIB, 16, 256)], "need the 16-way capability"),
    "multiple": (device, [(0, 0, GIB, 3, 256)], "a multiple of 3 ways x 256 MiB"),
    "overlap": (
        bridge, [(0, GIB, GIB, 1, 256),
                 (1, GIB, GIB, 1, 256)], "below the end 0x80000000 of decoder 0"),
    "below": (
        bridge, [(0, GIB, GIB, 1, 256),
                 (1, 0, GIB, 1, 256)], "begins at 0x0, below the end"),
    "capacity": (device, [(0, 0, 5 * GIB, 1, 256)],
                 "ends at DPA 0x140000000, beyond the capacity 0x100000000"),
    "capacity with skip": (device, [(0, 0, GIB, 1, 256, (), 4 * GIB)], "beyond"),
    "capacity of the second": (
        device, [(0, 0, 8 * GIB, 4, 256),
                 (1, 8 * GIB, 3 * GIB, 1, 256)], "ends at DPA 0x140000000"),
}  # fmt: skip


@pytest.mark.parametrize("make, steps, message", REFUSED.values(), ids=REFUSED)
def test_refused_commit_sets_error_and_changes_nothing(make, steps, message):
    block = make()
    for step in steps[:-1]:
        assert block.program(*step) == ""
    before = block.ranges()
    n = steps[-1][0]
    assert message in block.program(*steps[-1])
    assert n not in block.committed and block.ranges() == before

    # By hand, to see the bit itself; clearing COMMIT clears it.
    block.write32(block.offset(n, fmt.CONTROL), control(block, n) | C.COMMIT.mask)
    assert control(block, n) & (C.COMMITTED.mask | C.ERROR_NOT_COMMITTED.mask) == C.ERROR_NOT_COMMITTED.mask
    block.uncommit(n)
    assert control(block, n) & C.ERROR_NOT_COMMITTED.mask == 0


@pytest.mark.parametrize("ig, iw", [(7, 0), (15, 1), (0, 5), (0, 7), (0, 11), (0, 15)])
def test_reserved_encoding_is_refused(ig, iw):
    block = device()
    block.write32(block.offset(0, fmt.SIZE_HIGH), 0x30)
    block.write32(block.offset(0, fmt.CONTROL), C.make(IG=ig, IW=iw, COMMIT=1))
    assert "is reserved" in block.refusals[0]
    assert control(block, 0) & C.ERROR_NOT_COMMITTED.mask


def test_recommit_below_a_committed_decoder():
    """Decoder 0 may come back between its neighbours only as large as before: decoder 1's DPA must not move."""
    block = device()
    assert block.program(0, 0, GIB, 1, 256) == "" and block.program(1, 2 * GIB, GIB, 1, 256) == ""
    block.uncommit(0)
    assert "which moves decoder 1 from 0x40000000" in block.program(0, 0, 2 * GIB, 1, 256)
    assert "above the base 0x80000000 of decoder 1" in block.program(0, GIB, 2 * GIB, 1, 256)
    assert block.program(0, GIB, GIB, 1, 256) == ""
    assert [s.dpa for s in block.ranges()] == [0, GIB]


def test_dpa_accumulates_shares_and_skips():
    block = device(capacity=16 * GIB)
    assert block.program(0, 0, 2 * GIB, 2, 256, skip=GIB) == ""
    assert block.program(1, 2 * GIB, 3 * GIB, 3, 512) == ""
    assert block.program(2, 8 * GIB, GIB, 1, 256, skip=5 * GIB) == ""
    assert [s.dpa for s in block.ranges()] == [GIB, 2 * GIB, 8 * GIB]


def test_committed_decoder_keeps_what_it_was_committed_with():
    block = bridge()
    block.program(0, GIB, GIB, 1, 256, (3,))
    block.write32(block.offset(0, fmt.TARGETS_LOW), 7)
    assert block.match(GIB).targets[0] == 3
    block.uncommit(0)
    block.write32(block.offset(0, fmt.CONTROL), C.make(COMMIT=1))
    assert block.match(GIB).targets[0] == 7


def test_locked_decoder_is_read_only_until_reset():
    block = bridge()
    assert block.program(0, GIB, GIB, 1, 256, (3,), lock=True) == ""
    for field in range(0, 0x1C, 4):
        before = block.read32(block.offset(0, field))
        block.write32(block.offset(0, field), 0x1000_0000)
        assert block.read32(block.offset(0, field)) == before
    assert not block.uncommit(0)
    assert block.program(1, 2 * GIB, GIB, 1, 256) == ""
    block.reset()
    assert block.committed == {} and block.read32(block.offset(0, fmt.SIZE_LOW)) == 0
    assert block.read32(0x1128) == 0x382


def test_poison_needs_the_capability():
    plain, able = bridge(), bridge(fmt.BRIDGE_CAPABILITY | fmt.HdmCapability.POISON_ON_ERROR.mask)
    for block in (plain, able):
        block.write32(0x112C, 0xFFFF_FFFF)
    assert (plain.read32(0x112C), able.read32(0x112C)) == (2, 3)
    assert not plain.poison and able.poison


def test_32_decoders():
    count = fmt.HdmCapability.DECODER_COUNT
    block = device(fmt.DEVICE_CAPABILITY & ~count.mask | count.put(12), capacity=64 * GIB)
    for n in range(32):
        assert block.free_decoder() == n
        assert block.program(n, n * 2 * GIB, GIB, 1, 256) == ""
    assert block.free_decoder() is None
    assert block.match(31 * 2 * GIB).dpa == 31 * GIB


def test_a_committed_decoder_answers_only_while_decoding_is_on():
    block = bridge()
    assert block.program(0, GIB, GIB, 1, 256, (3,)) == ""
    block.write32(0x112C, 0)
    assert block.match(GIB) == "HDM decoding is off (global control, bit 1)"
    block.write32(0x112C, 2)
    assert block.match(GIB).targets[0] == 3


# -- permissive: what QEMU does ------------------------------------------------------------------------


def test_permissive_commits_anything_quirk():
    block = bridge(strict=False)
    block.write32(block.offset(2, fmt.CONTROL), C.make(IW=15, IG=15, COMMIT=1, LOCK_ON_COMMIT=1))
    assert control(block, 2) & C.COMMITTED.mask
    assert block.uncommit(2)


def test_permissive_ignores_the_enable_bit_and_sees_registers_live_quirk():
    block = bridge(strict=False)
    block.program(0, GIB, GIB, 1, 256, (3,))
    block.write32(0x112C, 0)
    assert block.match(GIB).targets[0] == 3
    block.write32(block.offset(0, fmt.TARGETS_LOW), 7)
    assert block.match(GIB).targets[0] == 7


def test_permissive_uncommitted_range_hides_a_later_one_quirk():
    block = bridge(strict=False)
    block.program(0, GIB, GIB, 1, 256)
    block.program(1, GIB, 2 * GIB, 1, 256, (1,))
    assert block.match(GIB).number == 0
    block.uncommit(0)
    assert block.match(GIB) == "decoder 0 is asked first and is not committed"
    assert block.match(2 * GIB).number == 1


def test_permissive_device_stops_at_its_first_uncommitted_decoder_quirk():
    block = device(strict=False)
    block.program(1, GIB, GIB, 1, 256)
    assert block.match(GIB) == "decoder 0 is asked first and is not committed"
    block.program(0, 8 * GIB, GIB, 1, 256)
    assert (block.match(GIB).number, block.match(GIB).dpa) == (1, GIB)


def test_permissive_dpa_counts_skips_and_shares_before_the_match():
    block = device(strict=False)
    block.program(0, 8 * GIB, 2 * GIB, 2, 256, skip=GIB)
    block.program(1, GIB, GIB, 1, 256, skip=512 * MIB)
    assert block.match(8 * GIB).dpa == GIB
    assert block.match(GIB).dpa == 2 * GIB + 512 * MIB


def test_permissive_reserved_ways_before_the_match_quirk():
    block = device(strict=False)
    block.write32(block.offset(0, fmt.CONTROL), C.make(IW=5, COMMIT=1))
    block.program(1, GIB, GIB, 1, 256)
    assert block.match(GIB) == "decoder 0 has the reserved ways encoding 5"
