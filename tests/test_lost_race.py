"""An entry that another processor changes between its read and its update: the walk begins again at the root."""

from dataclasses import dataclass
from typing import Any

import pytest

from mmu import Access, AddressSpace, Fault, FaultKind, Mmio, Ram, Translation, arm64, x86
from mmu.arm64.format import Tcr

TABLES, LAST, VA, PAGE = (0x1000, 0x2000, 0x3000), 0x100000, 0x123, 0x5000
SOFTWARE = 1 << 55  # a bit that both architectures leave to software


@dataclass(frozen=True)
class Architecture:
    """`table` refers to a table, `page` is a page's entry with no flag set, `marked` the flags that a write sets."""

    module: Any
    regs: Any
    levels: int  # above the last
    table: int
    page: int
    marked: int


ARCHITECTURES = {
    "x86": Architecture(
        x86, x86.Registers(cr0=0x80010001, cr3=TABLES[0], cr4=0x20, efer=0xD00), 3, 0x23, PAGE | 3, 0x60),
    "arm64": Architecture(
        arm64,
        arm64.Registers(sctlr_el1=1, tcr_el1=Tcr.make(T0SZ=25, T1SZ=25, EPD1=1, HA=1, HD=1, IPS=2),
                        ttbr0_el1=TABLES[0], ttbr1_el1=0),
        2, 3, PAGE | 1 << 51 | 1 << 7 | 3, 1 << 10),
}  # fmt: skip


class Busy:
    """The last table; entry 0 becomes *then* right after its first read."""

    def __init__(self, first: int, then: int) -> None:
        self.entry, self.then = first, [then]
        self.region = Mmio(4096, self._read, self._write)

    def _read(self, offset: int, size: int) -> int:
        value = self.entry
        if self.then:
            self.entry = self.then.pop()
        return value

    def _write(self, offset: int, size: int, value: int) -> None:
        self.entry = value


def race(a: Architecture, engine: str, then: int):
    space, busy = AddressSpace(), Busy(a.page, then)
    space.map(0, Ram(0x10000))
    space.map(LAST, busy.region)
    tables = [*TABLES[: a.levels], LAST]
    for here, below in zip(tables, tables[1:]):
        space.write(here, (below | a.table).to_bytes(8, "little"))
    with space.trace() as trace:
        answer = a.module.walk(space, a.regs, VA, Access.WRITE, engine=engine)
    return answer, busy.entry, [(e.kind, e.stored) for e in trace]


@pytest.fixture(params=ARCHITECTURES, ids=str)
def arch(request):
    return ARCHITECTURES[request.param]


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_the_new_entry_is_read_and_marked(arch, engine):
    answer, entry, trace = race(arch, engine, arch.page | SOFTWARE)
    reads = [("read", None)] * (arch.levels + 1)
    assert trace == [*reads, ("exchange", False), *reads, ("exchange", True)]
    assert isinstance(answer, Translation) and answer.pa == PAGE | VA
    assert [step.address for step in answer.steps][-arch.levels - 1 :] == [*TABLES[: arch.levels], LAST]
    read_only = 1 << 7 if arch.module is arm64 else 0  # DBM: dirty is AP[2] clear
    assert entry == (arch.page | SOFTWARE | arch.marked) & ~read_only


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_a_page_unmapped_meanwhile_faults_and_stays_unmapped(arch, engine):
    answer, entry, trace = race(arch, engine, 0)
    assert isinstance(answer, Fault) and answer.kind is FaultKind.NOT_PRESENT
    assert entry == 0
    assert [kind for kind, _ in trace].count("exchange") == 1
