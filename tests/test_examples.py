"""The shipped guest programs: their bytes are what their sources say, and they do what they say."""

import pytest

from cxl import examples
from mmu.guest import loader
from mmu.machine import Machine
from tests.guest.machines import ARCHS, CODE, DATA, DATA_SIZE, MIB, WINDOW, machine, places, two_way

RESULT = {"x86_64": "rax", "aarch64": "x0"}
CHECKSUM_BYTES = 0x4000


def run(name, arch, **options):
    with machine(arch, **options) as m:
        result = m.load(examples.path(name, arch)).run()
        return result, m.read(DATA, CHECKSUM_BYTES)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", examples.NAMES)
def test_the_bytes_are_those_of_the_source(name, arch):
    if not loader.can_assemble(arch):
        pytest.skip(f"no GNU as and ld for {arch}")
    (segment,) = loader.assemble(examples.path(name, arch, "s"), arch).segments
    assert segment.data == examples.path(name, arch).read_bytes()


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", examples.NAMES)
def test_a_source_runs_as_its_bytes_do(name, arch):
    if not loader.can_assemble(arch):
        pytest.skip(f"no GNU as and ld for {arch}")
    with machine(arch) as m:
        expected = m.load(examples.path(name, arch)).run()
    with machine(arch) as m:
        assert m.load(examples.path(name, arch, "s")).run() == expected


def pattern():
    return bytes(13 * i + (i >> 8) & 255 for i in range(CHECKSUM_BYTES))


def checksum(data):
    total = 0
    for i in range(0, len(data), 8):
        total = (total << 7 | total >> 57) & (1 << 64) - 1
        total ^= int.from_bytes(data[i : i + 8], "little")
    return total


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("granularity", [256, 1024, 4096, 16384])
def test_checksum_in_a_two_way_window(arch, granularity):
    """Registers against plain arithmetic, and each device against where interleaving puts each byte."""
    space, targets, _ = two_way(granularity)
    with Machine(space, arch).setup(**places()) as m:
        result = m.load(examples.path("checksum", arch)).run()
    assert result.stop.reason == "halt"
    assert result.registers[RESULT[arch]] == checksum(pattern())
    base = 2 * MIB  # of the data area in the window; a multiple of both devices' granules
    for position, target in enumerate(targets):
        share = b"".join(
            pattern()[i : i + granularity]
            for i in range(0, CHECKSUM_BYTES, granularity)
            if (base + i) // granularity % 2 == position
        )
        assert target.memory.read(base // 2, len(share)) == share


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", ["checksum", "handler", "selfmod"])
@pytest.mark.parametrize("only", ["tables", "code", "data", "stack"])
def test_where_things_are_changes_neither_registers_nor_memory(name, arch, only):
    ram = dict.fromkeys(("tables", "code", "data", "stack"), "ram")
    expected, expected_data = run(name, arch, **ram)
    result, data = run(name, arch, **{**ram, only: "window"})
    root = {"cr3", "ttbr0_el1"}
    assert {n: v for n, v in result.registers.items() if n not in root} == {
        n: v for n, v in expected.registers.items() if n not in root
    }
    assert data == expected_data
    assert (result.stop, result.delivered) == (expected.stop, expected.delivered)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("where", ["window", "ram"])
def test_handler(arch, where):
    result, _ = run("handler", arch, tables=where, data=where)
    count = {"x86_64": "rcx", "aarch64": "x9"}[arch]
    assert (result.stop.reason, result.registers[RESULT[arch]], result.registers[count]) == ("halt", 6, 3)
    addresses = [d.exception.cr2 if arch == "x86_64" else d.exception.far for d in result.delivered]
    assert addresses == [DATA + DATA_SIZE + 8 * n for n in (1, 2, 3)]


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("where", ["window", "ram"])
def test_selfmod(arch, where):
    result, _ = run("selfmod", arch, code=where)
    assert (result.stop.reason, result.registers[RESULT[arch]]) == ("halt", sum(range(10)))


def test_fault_x86():
    result, data = run("fault", "x86_64")
    stop = result.stop
    assert (stop.reason, stop.exception.vector, stop.exception.error_code) == ("fault", 14, 2)
    assert stop.exception.cr2 == stop.fault.va == DATA + DATA_SIZE + 0x123
    assert CODE < stop.pc < CODE + 32
    assert data[:2] == b"\x34\x12"


def test_fault_arm64():
    result, _ = run("fault", "aarch64")
    abort = result.stop.exception
    assert (abort.far, abort.wnr, abort.fsc) == (DATA + DATA_SIZE + 0x128, True, 7)


def test_find(tmp_path):
    assert examples.find("checksum", "aarch64") == examples.HERE / "checksum.aarch64.bin"
    own = tmp_path / "own.bin"
    own.write_bytes(b"\xf4")
    assert examples.find(str(own), "x86_64") == own
    with pytest.raises(ValueError, match="'nothing' is neither a file nor an example; examples are checksum"):
        examples.find("nothing", "x86_64")
    with pytest.raises(ValueError, match="there is no example 'nothing'"):
        examples.path("nothing", "x86_64")
    with pytest.raises(ValueError, match="not for 'riscv64'"):
        examples.path("checksum", "riscv64")


def test_the_window_is_where_the_data_went():
    """The other tests would pass if nothing went through a device."""
    space, _, _ = two_way()
    with Machine(space, dispatch="exact").setup(**places()) as m:
        result = m.load(examples.path("checksum", "x86_64")).run()
    wrote = sum(t.write_bytes for t in result.counters.data.values())
    assert wrote >= CHECKSUM_BYTES + 2 * 8 * 63
    assert space.place(WINDOW + 2 * MIB).device == "mem0"


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", examples.NAMES)
def test_the_same_program_makes_the_same_accesses_in_the_same_order(name, arch):
    def traced():
        with machine(arch) as m:
            return m.load(examples.path(name, arch)).run(trace=1 << 16)

    first = traced()
    assert len(first.trace) > 4
    assert traced() == first
