"""Decoders are decommitted while a guest executes from the window behind them: the same end however it was served."""

import threading
from dataclasses import replace

import pytest

from mmu.machine import Machine
from mmu.memory import Mmio
from mmu.stripes import Route
from mmu.types import Access
from tests.guest.machines import ARCHS, CODE, DATA, MIB, PAGE, WINDOW, code, places, two_way

DEVICE = 0x3000_0000
# Counts, stores to the device, jumps to the next page of the window, counts again.
PROGRAM = {
    "x86_64": "inc rbx; mov [rsi], ebx; jmp rdi",
    "aarch64": "add x1, x1, #1; str w1, [x2]; br x3",
}
REST = {"x86_64": "inc rbx", "aarch64": "add x1, x1, #1"}
COUNT = {"x86_64": "rbx", "aarch64": "x1"}


def run(arch, dispatch, granularity, decommit, again=False):
    """The guest's first page jumps to its second; the device takes the decoders away in between."""
    space, _, window = two_way(granularity)
    route = window.route

    def pull(offset, size, value):
        if decommit:
            window.set_route(Route())
        if again:
            window.set_route(route)

    space.map(1 << 31, Mmio(PAGE, write=pull))
    with Machine(space, arch, dispatch=dispatch) as m:
        m.setup(**places(tables="ram", code="window", data="ram", stack="ram"))
        m.tables.map(DEVICE, 1 << 31, PAGE, page_size=PAGE)
        m.load(code(arch, PROGRAM[arch]))
        m.write(CODE + PAGE, code(arch, REST[arch]))
        registers = {"rsi": DEVICE, "rdi": CODE + PAGE, "rbx": 0} if arch == "x86_64" else {
            "x1": 0, "x2": DEVICE, "x3": CODE + PAGE}
        result = m.set(**registers).run(start=CODE)
        return result, m.registers[COUNT[arch]]


SERVED = [("exact", 256), ("mirror", 256), ("auto", 256), ("exact", 4096), ("direct", 4096), ("mirror", 4096)]


@pytest.mark.parametrize("dispatch, granularity", SERVED)
@pytest.mark.parametrize("arch", ARCHS)
def test_the_first_fetch_from_a_window_without_decoders_is_a_bus_error(arch, dispatch, granularity):
    result, count = run(arch, dispatch, granularity, decommit=True)
    assert count == 1
    assert result.stop.pc == CODE + PAGE
    assert result.stop.reason == {"x86_64": "bus-error", "aarch64": "fault"}[arch]
    first = result.counters.first_bus_error
    assert (first.access, first.address // PAGE) == (Access.FETCH, WINDOW // PAGE + 257)


@pytest.mark.parametrize("dispatch, granularity", SERVED)
@pytest.mark.parametrize("arch", ARCHS)
def test_decoders_that_are_back_before_the_next_fetch_change_nothing(arch, dispatch, granularity):
    for decommit in False, True:
        result, count = run(arch, dispatch, granularity, decommit, again=True)
        assert (result.stop.reason, count) == ("halt", 2)
        assert not result.counters.bus_errors


@pytest.mark.parametrize("dispatch, granularity", SERVED)
@pytest.mark.parametrize("arch", ARCHS)
def test_a_guest_that_only_looks_sees_the_new_decoders(arch, dispatch, granularity):
    """It waits for a word of the window; decoders that show it elsewhere come from another thread."""
    source = {"x86_64": "1: mov eax, [rsi]; inc rbx; test eax, eax; je 1b",
              "aarch64": "1: ldr w0, [x2]; add x1, x1, #1; cbz w0, 1b"}[arch]  # fmt: skip
    space, _, window = two_way(granularity)
    swapped = replace(window.route, spans=tuple(
        replace(span, slots=span.slots[::-1]) for span in window.route.spans))  # fmt: skip
    with Machine(space, arch, dispatch=dispatch) as m:
        m.setup(**places(tables="ram", code="ram", data="window", stack="ram"))
        space.write(WINDOW + 2 * MIB, bytes(2 * granularity))
        space.write(WINDOW + 2 * MIB + granularity, b"\x07")  # in the other device, at the same place
        m.load(code(arch, source)).set(**{"x86_64": {"rsi": DATA}, "aarch64": {"x2": DATA}}[arch])
        threading.Timer(0.05, window.set_route, (swapped,)).start()
        result = m.run(timeout=5)
        assert (result.stop.reason, result.registers[{"x86_64": "rax", "aarch64": "x0"}[arch]]) == ("halt", 7)
