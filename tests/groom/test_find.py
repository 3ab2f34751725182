"""What is where, on which devices, and what it costs."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxl import Topology
from cxl.examples import find as example
from cxl.groom import cost, groom, recorded, survey
from cxl.groom.find import NOBODY, shares, shares_many
from cxl.job import space_of
from mmu.errors import AddressRangeError
from tests.cxl.machines import machine
from tests.groom.machines import CODE, DATA, MIB, REGION, guest
from tests.guest.machines import ARCHS

NAMES = {"x86_64": ["PML4", "PDPT", "PD", "PT"], "aarch64": ["L0", "L1", "L2", "L3"]}


@pytest.mark.parametrize("arch", ARCHS)
def test_tables_and_code_are_listed_with_what_they_are_for(arch):
    with guest(arch, program=example("checksum", arch)) as job:
        found = survey(job.machine, job.topology, [(DATA, 512)])
        tables = [f for f in found if f.kind == "tables"]
        # One root, and for code, data and stack a table of each level below.
        assert Counter(f.name for f in tables) == dict(zip(NAMES[arch], (1, 3, 3, 3)))
        plan = job.machine.plan
        spans = zip(NAMES[arch], (48, 39, 30, 21))
        assert {(f.name, f.va) for f in tables} == {
            (name, area.va >> bits << bits) for name, bits in spans for area in (plan.code, plan.data, plan.stack)}
        code = [f for f in found if f.kind == "code"]
        assert [(f.base, f.va) for f in code] == [(CODE + 4096 * n, plan.code.va + 4096 * n) for n in range(64)]
        (dma,) = [f for f in found if f.kind == "dma"]
        assert (dma.base, dma.shares) == (DATA, {"mem0": 256, "mem1": 256})
        assert {tuple(f.shares.items()) for f in tables} == {(("mem0", 2048), ("mem1", 2048))}


def test_code_in_ram_is_in_no_window():
    with guest(program=example("checksum", "x86_64"), code="ram") as job:
        found = survey(job.machine, job.topology)
        assert {f.kind for f in found if f.in_window} == {"tables"}
        assert any(f.kind == "code" for f in found)


TOPOLOGIES = {
    "2-way": (REGION, 512 * MIB, Topology.default),
    "8-way with switches": (0x10_0000_0000, 2048 * MIB, lambda: machine(2, 2, 2)),
    "1K": (0x10_0000_0000, 1024 * MIB, lambda: machine(4, 1, granularity=1024)),
}


@pytest.fixture(scope="module", params=TOPOLOGIES)
def programmed(request):
    base, size, make = TOPOLOGIES[request.param]
    topology = make()
    topology.commit()
    return topology, space_of(topology), base, size


@given(st.data())
def test_shares_are_what_each_byte_says(programmed, data):
    topology, space, base, room = programmed
    size = data.draw(st.integers(1, 3000))
    start = base - 1500 + data.draw(st.integers(0, 20000)) if data.draw(st.booleans()) else base + room - data.draw(
        st.integers(0, 3000))
    expected = Counter()
    for address in range(start, start + size):
        place = space.place(address)
        if place is not None and topology.window_at(address):
            expected[place.device or NOBODY] += 1
    assert shares(topology, space, start, size) == expected


@given(spans=st.lists(st.tuples(st.integers(-3000, 20000), st.integers(1, 3000)), max_size=5))
def test_many_shares_are_those_of_each(programmed, spans):
    topology, space, base, _ = programmed
    spans = [(base + at, size) for at, size in spans]
    assert shares_many(topology, space, spans) == [shares(topology, space, *span) for span in spans]


@pytest.mark.parametrize("arch", ARCHS)
def test_what_tables_cost_adds_up_to_the_traffic_of_page_walks(arch):
    with guest(arch, program=example("checksum", arch)) as job:
        result, usage = recorded(job.machine, job.machine.run)
        tables = [f for f in survey(job.machine, job.topology) if f.kind == "tables"]
        traffic = result.counters.tables.values()
        assert sum(usage.dispatches(f) for f in tables) == sum(t.reads + t.writes for t in traffic) > 0
        total = sum(usage.per_walk(f) for f in tables)
        assert total == pytest.approx(sum(t.reads + t.writes for t in traffic) / result.counters.walks)
        assert usage.complete


def test_what_a_buffer_costs_are_the_accesses_of_the_program():
    with guest(source="mov eax, [rdi]; mov [rdi+8], eax; mov [rdi+4096], eax") as job:
        _, usage = recorded(job.machine, job.machine.run)
        first, second = (
            f for f in survey(job.machine, job.topology, [(DATA, 4096), (DATA + 4096, 4096)]) if f.kind == "dma")
        assert usage.of(first) == {"data": (1, 1)}
        assert usage.of(second) == {"data": (0, 1)}
        assert (usage.dispatches(first), usage.per_walk(first)) == (2, 0)


def test_tables_in_ram_are_read_and_dispatch_nothing():
    with guest(program=example("checksum", "x86_64"), tables="ram") as job:
        result, usage = recorded(job.machine, job.machine.run)
        tables = [f for f in survey(job.machine, job.topology) if f.kind == "tables"]
        assert sum(sum(usage.of(f).get("walk", ())) for f in tables) > result.counters.walks
        assert not any(usage.dispatches(f) for f in tables)


def test_more_accesses_than_can_be_recorded_are_said_to_be(monkeypatch):
    monkeypatch.setattr(cost, "CAPACITY", 100)
    with guest(program=example("checksum", "x86_64")) as job:
        result, usage = recorded(job.machine, job.machine.run)
        assert result.stop.reason == "halt"
        assert not usage.complete
        assert sum(usage.reads["data"].values()) + sum(usage.writes["data"].values()) == 100


def test_a_report_changes_nothing_that_the_run_itself_does_not():
    with guest(program=example("checksum", "x86_64")) as job:
        before = job.machine.snapshot()
        job.machine.run()
        after = job.machine.snapshot()
        job.machine.restore(before)
        found = groom(job.machine, job.topology, job.machine.run)
        assert job.machine.snapshot() == after
        assert (found.after, found.moves, found.left) == (None, [], 74)


@pytest.mark.parametrize("span", [(1 << 40, 4096), (DATA, 0), (REGION + (4 << 30) - 8, 16)])
def test_a_buffer_where_nothing_is_is_refused(span):
    with guest(program=b"\xf4") as job, pytest.raises(AddressRangeError, match="there is no memory at the DMA buffer"):
        survey(job.machine, job.topology, [span])
