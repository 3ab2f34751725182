"""Random loads, stores and read-modify-writes through windows, against plain integers."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mmu.machine import Machine
from tests.guest.machines import DATA, MIB, places, two_way

SIZES = (1, 2, 4, 8)
SPAN = 0x3000  # bytes of the data area that are used
# x86-64 instructions on [rdi + disp32], by size in bytes: opcode bytes before ModRM
STORE = {1: b"\x88", 2: b"\x66\x89", 4: b"\x89", 8: b"\x48\x89"}
LOAD = {1: b"\x0f\xb6", 2: b"\x0f\xb7", 4: b"\x8b", 8: b"\x48\x8b"}
XOR = {1: b"\x30", 2: b"\x66\x31", 4: b"\x31", 8: b"\x48\x31"}
EDGES = [n * step + d for step in (256, 4096) for n in (1, 2) for d in (-9, -7, -4, -3, -1, 0)]

offsets = st.one_of(st.integers(0, SPAN - 8), st.sampled_from(EDGES))
operations = st.lists(
    st.tuples(st.sampled_from(["store", "load", "xor"]), st.sampled_from(SIZES), offsets, st.integers(0, 2**64 - 1)),
    min_size=1, max_size=25)


def assembled(program):
    """Every result goes into R9: r9 = rol(r9, 7) ^ rax."""
    out = b""
    for kind, size, offset, value in program:
        rdi_disp32 = bytes([0x87]) + offset.to_bytes(4, "little")  # ModRM: RAX, [RDI + disp32]
        out += b"\x48\xb8" + value.to_bytes(8, "little")
        if kind == "load":
            out += LOAD[size] + rdi_disp32
        else:
            out += {"store": STORE, "xor": XOR}[kind][size] + rdi_disp32
        out += b"\x49\xc1\xc1\x07\x49\x31\xc1"
    return out + b"\xf4"


def by_hand(program):
    memory, total = bytearray(SPAN), 0
    for kind, size, offset, value in program:
        old = int.from_bytes(memory[offset : offset + size], "little")
        low = value & (1 << 8 * size) - 1
        if kind == "load":
            value = old
        else:
            memory[offset : offset + size] = (low if kind == "store" else old ^ low).to_bytes(size, "little")
        total = ((total << 7 | total >> 57) ^ value) & 2**64 - 1
    return bytes(memory), total


@pytest.fixture(scope="module", params=[256, 4096], ids=["256 B", "4 KiB"])
def setup(request):
    space, targets, _ = two_way(request.param)
    with Machine(space).setup(**places()) as m:
        yield m, targets, request.param


@given(program=operations)
@example(program=[("store", 8, 4096 - 3, 0x1122334455667788), ("xor", 8, 4096 - 5, 2**64 - 1), ("load", 8, 4093, 0)])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_accesses_against_plain_integers(setup, program):
    m, targets, granularity = setup
    m.write(DATA, bytes(SPAN))
    result = m.load(assembled(program)).run()
    memory, total = by_hand(program)
    assert result.stop.reason == "halt"
    assert result.registers["r9"] == total
    for n, target in enumerate(targets):
        share = b"".join(
            memory[i : i + granularity] for i in range(0, SPAN, granularity) if i // granularity % 2 == n)
        assert target.memory.read(MIB, len(share)) == share
