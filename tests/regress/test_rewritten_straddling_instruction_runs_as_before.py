"""straddle-jump-cache."""

from cxl.bugs.rig import CODE, PAGE, Rig, listing
from cxl.bugs.second_page_mmio import START, straddling
from mmu.tcg import Switches
from tests.regress import bus, faulty, fixed


def straddlers(seen):
    return [event for event in seen.trace if event[0] == "tb" and event.pc == START]


def fetches_after_the_store(seen):
    events = bus(seen)
    store = next(i for i, event in enumerate(events) if event[1] == "w")
    return [event for event in events[store:] if event[7] == "fetch" and event[3] == 0]


def test_the_old_block_is_found_again():
    seen = faulty("straddle-jump-cache")
    assert seen.outcome == "wrong-data"
    assert seen.registers["rax"] == 0x11111111
    assert len(straddlers(seen)) == 1
    assert fetches_after_the_store(seen) == []


def test_its_bytes_are_fetched_again_when_fixed():
    seen = fixed("straddle-jump-cache")
    assert seen.outcome == "ok"
    assert seen.registers["rax"] == 0x22222222
    assert len(straddlers(seen)) == 2
    assert fetches_after_the_store(seen) != []


WRITE_FLUSH = "44 89 07   mov [rdi], r8d\n41 0f 22 da   mov cr3, r10\n"
CHAINED = WRITE_FLUSH + "e9 f3 00 00 00   jmp START"
LOOKED_UP = WRITE_FLUSH + "ff e3   jmp rbx"
STRADDLER = """
    b8 11 11 11 11      mov eax, 0x11111111
    48 ff c9            dec rcx
    41 b8 22 22 22 22   mov r8d, 0x22222222
    0f 85 ed fe ff ff   jne BACK
    f4                  hlt
"""
BACK = CODE + 0xF00


def flushed(text, **switches):
    """Twice: a new constant for the straddler, a TLB flush, and a jump to it."""
    rig = Rig("x86_64", Switches(**switches))
    straddling(rig, STRADDLER)
    rig.fill((rig.word(rig.entry(CODE)) & -PAGE) + BACK - CODE, listing(text))
    registers = {"rcx": 2, "rdi": CODE + PAGE, "rbx": START, "r10": rig.root, "r8": 0x11111111}
    return rig.observe(BACK, registers=registers, results={"rcx": 0}).registers["rax"]


def test_a_chained_jump_survives_a_flush_of_the_tlb():
    assert flushed(CHAINED, straddle_jump_cache=True) == 0x11111111
    assert flushed(CHAINED) == 0x22222222


def test_what_is_looked_up_after_a_flush_is_new():
    assert flushed(LOOKED_UP, straddle_jump_cache=True) == 0x22222222
    assert flushed(LOOKED_UP) == 0x22222222
