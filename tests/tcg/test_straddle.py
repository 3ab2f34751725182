"""Code in the window, and instructions that begin in RAM and end there (recipe R6)."""

import pytest

from mmu.tcg import Switches, release
from tests.tcg.machines import CODE, DATA, PAGE, WINDOW, Bench, bus, kinds

HIGH = CODE + PAGE  # the page in the window
HIGH_PA = WINDOW + 0x20_0000
SCRATCH = 0x5000_0000_0000  # the same page, as data


def bench(switches, first, second, start=0xFFF):
    """*first* at the end of a page in RAM, from offset *start*; *second* at the start of the next, in the window."""
    b = Bench(switches)
    b.map(HIGH, HIGH_PA)
    b.map(SCRATCH, HIGH_PA)
    b.machine.write(CODE + start, first)
    b.machine.write(HIGH, second)
    b.machine.set(rip=CODE + start, rdi=DATA, rsi=SCRATCH)
    return b


MOV = b"\xb8", b"\x44\x33\x22\x11"  # mov eax, 0x11223344
REST = b"\xff\xc1\xff\xc1\xf4"  # inc ecx; inc ecx; hlt


def straddler(switches):
    return bench(switches, MOV[0], MOV[1] + REST)


def test_the_second_page_is_not_expected():
    end = straddler(Switches(second_page_mmio=True)).run()
    assert (end.kind, end.message) == (
        "second_page",
        "../../accel/tcg/translator.c:175: translator_access: Assertion `phys_page != -1' failed.")
    assert end.registers["rax"] == 0
    assert kinds(end, "bus", "tb") == []


def test_the_instruction_is_alone_in_its_block():
    result = straddler(Switches()).run()
    assert (result.registers["rax"], result.registers["rcx"]) == (0x11223344, 2)
    blocks = kinds(result, "tb")
    assert [(e.pc, e.n_insns, e.page0, e.cached) for e in blocks] == [
        (CODE + 0xFFF, 1, -1, False), (HIGH + 4, 1, -1, False), (HIGH + 6, 1, -1, False), (HIGH + 8, 1, -1, False)]
    at = 0x20_0000
    assert bus(result, "fetch") == [
        ("r", at, 4), ("r", at + 4, 1), ("r", at + 5, 1), ("r", at + 6, 1), ("r", at + 7, 1), ("r", at + 8, 1)]


def test_the_block_goes_on_behind_it():
    result = straddler(Switches(straddle_final_insn=True)).run()
    (block,) = kinds(result, "tb")
    assert (block.n_insns, block.page0) == (4, -1)
    assert result.registers["rcx"] == 2


@pytest.mark.parametrize("second_page", [False, True])
def test_from_the_window_into_ram_is_no_matter(second_page):
    b = Bench(Switches(second_page_mmio=second_page))
    b.map(CODE, HIGH_PA)
    b.map(HIGH, 0x70_0000)
    b.machine.write(CODE + 0xFFF, MOV[0] + MOV[1] + REST)
    b.machine.set(rip=CODE + 0xFFF)
    assert b.run().registers["rax"] == 0x11223344
    assert bus(b.run(start=CODE + 0xFFF), "fetch") == [("r", 0x20_0FFF, 1)]


PIECES = {0xFFF: [4], 0xFFE: [1, 2], 0xFFD: [2], 0xFFC: [1]}


@pytest.mark.parametrize("start", PIECES)
def test_a_unit_over_the_edge_is_read_again_whole(start):
    """Its part in RAM makes no dispatch; the rest comes in aligned pieces."""
    code = MOV[0] + MOV[1]
    cut = PAGE - start
    b = bench(Switches(), code[:cut], code[cut:] + REST, start)
    result = b.run()
    assert result.registers["rax"] == 0x11223344
    first = kinds(result, "tb")[0]
    before = result.trace[: result.trace.index(first)]
    assert sum(e.size for e in before if e.kind == "bus") == 5 - cut
    assert (first.n_insns, first.page0) == (1, -1)


LONGEST = bytes.fromhex("66" * 5 + "48b8" + "8877665544332211")  # mov rax, imm64, of 15 bytes


@pytest.mark.parametrize("start", range(0xFF0, 0x1000))
@pytest.mark.parametrize("first, second", [("ram", "window"), ("window", "ram"), ("window", "window"), ("ram", "ram")])
def test_the_longest_instruction_at_each_place(start, first, second):
    pages = {"ram": (0x76_0000, 0x77_0000), "window": (HIGH_PA, HIGH_PA + PAGE)}
    for switches in (release("10.0"), release("8.2"), release("7.2")):
        b = Bench(switches)
        b.map(CODE, pages[first][0])
        b.map(HIGH, pages[second][1])
        b.machine.write(CODE + start, LONGEST + b"\xf4")
        result = b.run(start=CODE + start)
        crosses = start + len(LONGEST) > PAGE
        if (first, second) == ("ram", "window") and crosses and switches.second_page_mmio:
            assert result.kind == "second_page"
            continue
        assert (result.stop.reason, result.registers["rax"]) == ("halt", 0x1122334455667788)
        block = kinds(result, "tb")[0]
        assert (block.page0 == -1) == (first == "window" or (second == "window" and crosses))
        assert (block.page1 != -1) == (crosses and first == second == "ram")


def test_only_the_first_instruction_of_a_block_crosses():
    b = bench(Switches(), b"\x90" + MOV[0], MOV[1] + REST, 0xFFE)
    blocks = kinds(b.run(), "tb")
    assert [(e.pc, e.n_insns, e.page0 != -1) for e in blocks][:2] == [(CODE + 0xFFE, 1, True), (CODE + 0xFFF, 1, False)]


def looping(switches):
    """Twice over the straddler; in between the bytes in the window change by a store."""
    b = Bench(switches)
    b.map(HIGH, HIGH_PA)
    b.map(SCRATCH, HIGH_PA)
    start = CODE + 0xFF0
    ram = bytes.fromhex("8916" "ffc3" "eb09")  # mov [rsi], edx; inc ebx; jmp to 0xfff of the page
    b.machine.write(start, ram)
    b.machine.write(CODE + 0xFFF, MOV[0])
    # mov edx, 0x55667788; cmp ebx, 2; je to the hlt; jmp start
    tail = bytes.fromhex("ba88776655" "83fb02" "7402") + b"\xeb" + bytes([(start - (HIGH + 4 + 12)) & 0xFF]) + b"\xf4"
    b.machine.write(HIGH, MOV[1] + tail)
    b.machine.set(rip=start, rsi=SCRATCH, rdx=0x11223344)
    return b.run()


def test_a_block_from_the_window_is_not_run_twice():
    result = looping(Switches())
    assert (result.registers["rbx"], result.registers["rax"]) == (2, 0x55667788)


def test_a_block_that_was_kept_runs_what_was_there():
    result = looping(Switches(straddle_jump_cache=True))
    assert (result.registers["rbx"], result.registers["rax"]) == (2, 0x11223344)
    straddlers = [e for e in kinds(result, "tb") if e.pc == CODE + 0xFFF]
    assert len(straddlers) == 1


def test_code_in_the_window_is_read_each_time():
    b = Bench(Switches())
    b.map(HIGH, HIGH_PA)
    b.machine.write(HIGH, b"\xff\xc3\x83\xfb\x03\x75\xf9\xf4")  # 1: inc ebx; cmp ebx, 3; jne 1b; hlt
    b.machine.set(rip=HIGH)
    result = b.run()
    assert result.registers["rbx"] == 3
    assert len(kinds(result, "tb")) == 10
    assert {e.n_insns for e in kinds(result, "tb")} == {1}
    assert not any(e.cached for e in kinds(result, "tb"))


@pytest.mark.parametrize("name, message", [("7.2", "second_page"), ("8.2", None), ("9.1", None)])
def test_by_release(name, message):
    assert getattr(straddler(release(name)).run(), "kind", None) == message


def test_an_instruction_that_changes_itself_runs_as_it_was_read():
    """A store to code in RAM ends its block; what follows is translated anew."""
    b = Bench(Switches()).load("mov byte ptr [rip+1f+1], 7; 1: mov eax, 5; mov ecx, eax; hlt")
    result = b.run()
    assert result.registers["rcx"] == 7
    assert result.counters.invalidated == 1
