"""While a guest has pages of a window in its mirror they are RAM for the host's softmmu TLB, and no longer."""

import numpy as np
import pytest

from mmu import Frames, SoftMmu, x86
from mmu.machine import Machine
from mmu.memory import Mmio, Striped
from tests.guest.machines import CODE, DATA, MIB, PAGE, WINDOW, code, places, route, two_way

VA, DEVICE = 0x7000_0000, 0x3000_0000
STORED, ANSWER = 0x1122_3344_5566_7788, 0x99AA_BBCC_DDEE_FF00
HPA = WINDOW + 2 * MIB  # of the guest's data
# mov [rdi], rax; mov rbx, [rdi + 0x1000]; the device; mov rdx, [rdi + 8]
PROGRAM = "mov [rdi], rax; mov rbx, [rdi+0x1000]; mov [rsi], ebx; mov rdx, [rdi+8]"


class Meeting:
    """A guest that stores to its page of the window, and a host that looks at it from a device's callback."""

    def __init__(self, dispatch, look):
        self.space, self.targets, self.window = two_way()
        self.space.map(1 << 31, Mmio(PAGE, write=lambda offset, size, value: look(self)))
        self.tables = tables = x86.PageTables(self.space, Frames(0, MIB - 1))
        tables.map(VA, HPA, 3 * PAGE, page_size=PAGE, dirty=1, accessed=1)
        regs = x86.Registers(cr0=0x8001_0001, cr3=tables.root, cr4=1 << 5, efer=0xD00)
        self.tlb = SoftMmu(self.space, regs)
        self.machine = Machine(self.space, dispatch=dispatch).setup(
            **places(tables="ram", code="ram", data="window", stack="ram"))
        self.machine.tables.map(DEVICE, 1 << 31, PAGE, page_size=PAGE)
        self.machine.load(code("x86_64", PROGRAM)).set(rdi=DATA, rsi=DEVICE, rax=STORED, rbx=0, rdx=0)

    def run(self):
        with self.machine as m:
            return m.run(start=CODE)


@pytest.mark.parametrize("by", ["mirror", "exact"])
def test_both_see_each_other_s_bytes_and_only_the_mirror_is_ram(by):
    seen = []

    def look(m):
        before = m.tlb.stats.bus
        seen.append(m.tlb.read(VA, 8))
        seen.append(m.tlb.load_many(np.full(64, VA, np.uint64), 8).tolist())
        m.tlb.write(VA + 8, ANSWER.to_bytes(8, "little"))
        seen.append(m.tlb.stats.bus - before)

    m = Meeting(by, look)
    result = m.run()
    assert seen == [STORED.to_bytes(8, "little"), [STORED] * 64, 0 if by == "mirror" else 66]
    assert result.registers["rdx"] == ANSWER
    assert m.targets[0].memory.read(MIB, 16) == STORED.to_bytes(8, "little") + ANSWER.to_bytes(8, "little")


def test_the_tlb_lets_go_of_the_mirror_when_the_guest_does():
    m = Meeting("mirror", lambda m: m.tlb.read(VA, 8) and None)
    m.tlb.read(VA, 8)  # from the device, as long as the page is at home
    m.run()
    m.targets[0].memory.write(MIB, b"changed!")
    assert m.tlb.read(VA, 8) == b"changed!"
    assert m.tlb.load_many(np.full(64, VA, np.uint64), 8).tolist() == [int.from_bytes(b"changed!", "little")] * 64
    m.tlb.write(VA, b"and back")
    assert m.targets[0].memory.read(MIB, 8) == b"and back"


def test_a_page_that_the_guest_did_not_touch_is_no_ram():
    seen = []

    def look(m):
        before = m.tlb.stats.bus
        seen.append((m.tlb.read(VA + 2 * PAGE, 8), m.tlb.stats.bus - before))

    m = Meeting("mirror", look)
    m.targets[0].memory.write(MIB + PAGE, b"at home!")
    m.run()
    assert seen == [(b"at home!", 1)]


def test_a_page_of_another_window_whose_blocks_are_in_another_order_is_no_ram():
    """The second window shows a device in one piece; its page begins with a block that begins a page of the mirror."""
    seen, base = [], WINDOW + (1 << 32)

    def look(m):
        seen.append([m.tlb.read(VA + 4 * PAGE + at, 8) for at in (0, 256, 512)])

    m = Meeting("mirror", look)
    second = Striped(8 * MIB, base, m.targets, "second")
    second.set_route(route(4096, 1, base, 8 * MIB))
    m.space.map(base, second)
    m.tables.map(VA + 4 * PAGE, base + MIB, PAGE, page_size=PAGE, dirty=1, accessed=1)
    for at in 0, 256, 512:
        m.targets[0].memory.write(MIB + at, b"block%03d" % at)
    m.run()
    assert seen == [[STORED.to_bytes(8, "little"), b"block256", b"block512"]]
