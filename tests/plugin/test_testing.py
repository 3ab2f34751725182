"""What the plugin's fixtures hand out, without the plugin."""

import pytest

from cxl import Topology, TopologyError
from cxl.testing import (
    Guest,
    Trace,
    aborted,
    bus,
    delivered,
    event,
    faulted,
    halted,
    hung,
    in_order,
    interleaved,
    stopped,
)
from cxl.testing.memory import Contents, differences
from cxl.testing.source import assembled, can_assemble
from mmu.errors import AddressRangeError, GuestError
from mmu.tcg.trace import Bus, Lock
from tests.groom.machines import MIB
from tests.guest.machines import ARCHS, code

READ = {"x86_64": "mov rax, [rdi]", "aarch64": "ldr x1, [x0]"}
LAST = {"x86_64": "PT", "aarch64": "L3"}
LEVELS = {"x86_64": ("PML4", "PDPT", "PD", "PT"), "aarch64": ("L0", "L1", "L2", "L3")}
RESULT = {"x86_64": "rax", "aarch64": "x1"}
VALUE = 0x1122334455667788


@pytest.fixture
def guest():
    made = []

    def make(arch="x86_64", source=None, **options):
        made.append(Guest(options.pop("topology", None) or interleaved(), arch,
                          source=None if source is None else code(arch, source), **options))
        return made[-1]

    yield make
    for g in made:
        g.close()


# -- guests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize("arch", ARCHS)
def test_each_level_alone_can_be_in_the_window(guest, arch, depth):
    level = LEVELS[arch][depth]
    g = guest(arch, READ[arch], tables={level: "window"}).touch()
    g.write(g.data, VALUE.to_bytes(8, "little"))
    entries = [g.entry(g.data, name) for name in LEVELS[arch]]
    assert [e.place.device is not None for e in entries] == [name == level for name in LEVELS[arch]]
    ran = g.run()
    assert ran == halted(**{RESULT[arch]: VALUE})
    assert ran.trace.find("bus", tag="ptw").count(bus("r", 8, at=entries[depth])) == 1
    assert {e.region for e in ran.trace} == {"window0"}
    assert ran.trace.count(bus(tag="data")) == 0


@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize("arch", ARCHS)
def test_one_table_can_be_moved_and_is_walked_there(guest, arch, depth):
    g = guest(arch, READ[arch]).touch()
    entry = g.move_table(g.data, LEVELS[arch][depth], "window")
    assert entry.place.device is not None
    ran = g.run()
    assert ran == halted()
    assert ran.trace.count(bus("r", 8, at=entry)) == 1


@pytest.mark.parametrize("arch", ARCHS)
def test_touch_leaves_walks_nothing_to_write(guest, arch):
    store = {"x86_64": "mov [rdi], rax", "aarch64": "str x1, [x0]"}
    assert not guest(arch, store[arch], tables="window").touch().run().trace.count(bus("w", tag="ptw"))
    written = guest("x86_64", store["x86_64"], tables="window").run().trace
    assert written.count(bus("w", tag="ptw")) == 8  # A at four levels, for code and for data, D with one of them


def test_pages_can_be_mapped_and_run_out(guest):
    g = guest("x86_64", "mov rax, [rbx]")
    va = 0x5000_0000_0000
    pa = g.map(va, "window", pages=2, writable=False)
    g.space.write(pa + 4096, VALUE.to_bytes(8, "little"))
    assert g.set(rbx=va + 4096).run() == halted(rax=VALUE)
    assert g.place(va + 4096).address == pa + 4096 != g.map(va + 0x10000, "window")
    with pytest.raises(ValueError, match="2048 pages of window are wanted, and 2045 are left"):
        g.map(va + MIB, "window", pages=2048)
    with pytest.raises(ValueError, match="is not mapped: NOT_PRESENT at level 1"):
        g.place(va + 0x3000)


def test_code_can_be_added(guest):
    g = guest("x86_64", "nop; nop; nop; nop")
    g.load(code("x86_64", "nop"), at=g.code + 1)
    assert g.run() == halted(pc=g.code + 3)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"data": "disk"}, ValueError, "a place must be one of ram, window, not 'disk'"),
        ({"tables": {"L3": "window"}}, ValueError, "no level 'L3'"),
        ({"arch": "vax"}, ValueError, "arch must be one of"),
        ({"emulator": "6.0"}, ValueError, "release must be one of"),
        ({"emulator": 8.2}, ValueError, "emulator must be a release"),
    ],
)
def test_what_cannot_be_placed_is_refused(guest, options, error, message):
    with pytest.raises(error, match=message):
        guest(**options)


def test_a_topology_without_memory_has_no_window(guest):
    with pytest.raises((TopologyError, AddressRangeError), match="no region to put things in"):
        guest(topology=Topology.from_qemu(
            "-M q35,cxl=on -m 512M -device pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.0 "
            "-M cxl-fmw.0.targets.0=cxl.0,cxl-fmw.0.size=4G"), data="window")


def test_exceptions_with_and_without_a_handler(guest):
    ran = guest("x86_64", "ud2").run()
    assert ran == faulted(vector=6, pc=0x400000)
    assert ran.faults == (delivered(vector=6),)
    assert ran != faulted(vector=13)
    assert guest("x86_64", "1: jmp 1b").run(limit=10) == stopped("limit")


@pytest.mark.parametrize("release", ["7.2", "8.2", "10.0"])
def test_arm64_reads_its_tables_past_what_x86_trips_over(guest, release):
    made = {}
    for arch in ARCHS:
        g = guest(arch, READ[arch], emulator=release)
        entry = g.move_table(g.data, LAST[arch], "window")
        made[arch] = entry, g.touch().write(g.data, VALUE.to_bytes(8, "little")).run()
    entry, ran = made["aarch64"]
    assert ran == halted(x1=VALUE)
    assert ran.trace.find("bus") == [bus("r", 8, tag="ptw", at=entry)]
    assert ran.trace.count("recompile") == 0
    entry, ran = made["x86_64"]
    if release == "8.2":
        assert ran == aborted("io_recompile", level="PT", device=entry.place.device)
    else:
        assert ran == halted(rax=VALUE)
        assert ran.trace.count("recompile") == (release == "10.0")


def test_a_plain_machine_has_no_lock(guest):
    with pytest.raises(ValueError, match="no lock to hold"):
        _ = guest("x86_64", "nop").run().lock_depth


def test_a_trace_that_is_not_complete_is_not_searched(guest, monkeypatch):
    from cxl.testing import guest as module

    monkeypatch.setattr(module, "TRACE", 20)
    source = "mov ecx, 40; 1: mov rax, [rdi]; dec ecx; jnz 1b"
    ran = guest("x86_64", source, data="window").run()
    assert (ran.outcome, ran.complete, 0 < len(ran.events) <= 20) == ("halt", False, True)
    with pytest.raises(ValueError, match="has only the first"):
        _ = ran.trace
    monkeypatch.setattr(module, "TRACE", 200)
    assert guest("x86_64", source, data="window").run().trace.count(bus("r", tag="data")) == 80


@pytest.mark.parametrize("ways, bridges", [(1, 1), (2, 2), (4, 2), (8, 2), (8, 4)])
def test_topologies_are_interleaved_in_the_order_of_their_devices(ways, bridges):
    topology = interleaved(ways=ways, bridges=bridges, granularity=512)
    (region,) = topology.commit()
    assert [d.name for d in region.devices] == [f"mem{n}" for n in range(ways)]
    found = [topology.decode(region.base + 512 * n).device for n in range(2 * ways)]
    assert found == [f"mem{n % ways}" for n in range(2 * ways)]


def test_devices_that_do_not_spread_evenly_are_refused():
    with pytest.raises(ValueError, match="3 devices do not spread evenly over 2 host bridges"):
        interleaved(ways=3, bridges=2)


# -- patterns ---------------------------------------------------------------------------------------

EVENTS = Trace((
    Lock("lock", "+"), Bus("bus", "r", "window0", 8, 8, 0x1007, "OK", "ptw"),
    Bus("bus", "w", "window0", 8, 4, 0x1027, "ERROR", "data"), Lock("lock", "-"),
))  # fmt: skip


def test_patterns_equal_the_events_whose_members_they_name():
    assert [event("lock"), bus("r", 8), bus("w", tag="data", value=lambda v: v & 0x20), event("lock")] == EVENTS
    assert [event("lock"), bus("r", 8), bus("w", tag="data", value=lambda v: v & 0x100), event("lock")] != EVENTS
    assert [event("lock"), bus("r", 4), bus("w"), event("lock")] != EVENTS
    assert [event("lock"), bus("r", 8), bus("w")] != EVENTS
    assert (EVENTS.count("bus"), EVENTS.count(bus(rw="w")), EVENTS.count("lock", change="-")) == (2, 1, 1)
    assert EVENTS.find(bus(result="ERROR")) == [EVENTS[2]]


def test_patterns_in_order_may_leave_events_out_and_not_turn_them_round():
    assert in_order(event("lock", change="+"), bus("w"), event("lock", change="-")) == EVENTS
    assert in_order(bus("w"), bus("r")) != EVENTS
    assert in_order(bus("r"), bus("r")) != EVENTS


def test_a_member_that_an_event_does_not_have_is_a_mistake():
    with pytest.raises(TypeError, match="bus events have no 'colour'; they have rw, region, offset"):
        EVENTS.find("bus", colour=1)


def test_a_pattern_that_could_never_match_is_a_mistake_even_where_nothing_is_searched():
    with pytest.raises(TypeError, match="lock events have no 'depth'; they have change"):
        Trace(()).count("lock", depth=2)
    with pytest.raises(ValueError, match=r"an event must be one of bus, lock, recompile, .*, not 'lok'"):
        event("lok")
    with pytest.raises(ValueError, match="tag of bus events must be one of ptw, data, fetch, not 'walk'"):
        Trace(()).find("bus", tag="walk")
    with pytest.raises(ValueError, match="rw of bus events must be one of r, w, not 'read'"):
        bus("read")
    assert bus(tag=lambda tag: tag != "ptw") == EVENTS.find("bus")[1]


@pytest.mark.parametrize("make", [
    lambda: aborted("relock"), lambda: hung("bql_relock"), lambda: stopped("halted")], ids=["abort", "hang", "stop"])
def test_an_end_that_no_run_has_is_a_mistake(make):
    with pytest.raises(ValueError, match=r"must be one of .*, not '"):
        make()


@pytest.mark.parametrize("start", [0, 0x1_0000_0000])
def test_the_rows_of_a_difference_stand_below_each_other(start):
    seen, wanted, marks = differences(Contents(bytes(16), start, "mem0"), bytes(15) + b"\1")
    assert seen.index(" 00 00") == wanted.index(" 00 00")
    assert (len(seen), len(marks)) == (len(wanted), len(seen))


def test_expectations_say_every_difference(guest):
    ran = guest("x86_64", "mov eax, 5").run()
    assert halted(rax=5).complaints(ran) == []
    assert halted(pc=1, rax=6, rzx=1).complaints(ran)[:2] == ["pc is 0x400006, not 0x1", "rax is 0x5, not 0x6"]
    assert "no register 'rzx'" in halted(rzx=1).complaints(ran)[0]
    assert "ended by halt at 0x400006, not by abort" in aborted().complaints(ran)[0]
    assert ran != aborted() and ran != halted(rax=6)


def test_memory_differences_name_the_byte():
    seen = Contents(bytes(range(40)), 0x1000, "mem0")
    wanted = bytearray(seen)
    wanted[17] = 0xFF
    rows = list(differences(seen, bytes(wanted)))
    assert rows[0].startswith("0x1010: 10 11 12")
    assert rows[1].endswith("wanted: " + bytes(wanted[16:32]).hex(" ")) or bytes(wanted[16:32]).hex(" ") in rows[1]
    assert rows[2].index("^^") == rows[0].index("11")
    assert list(differences(seen, bytes(seen))) == []
    assert next(differences(seen, bytes(seen[:39]))) == "40 bytes, not 39"


def test_source_is_assembled_once_and_its_errors_are_one_line():
    if not can_assemble("x86_64"):
        pytest.skip("GNU as for x86_64 is not installed")
    first = assembled("x86_64", "mov eax, 1 ; hlt")
    assert first.segments[0].data == bytes.fromhex("b801000000f4")
    assert assembled("x86_64", "mov eax, 1 ; hlt") is first
    with pytest.raises(GuestError, match=r"assembling the snippet: .*bogus") as caught:
        assembled("x86_64", "bogus eax")
    assert "\n" not in str(caught.value)
