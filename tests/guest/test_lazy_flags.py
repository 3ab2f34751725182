"""x86-64: several instructions in one block that are looked at before they run; the last one is refused.

The engine tells the flags wrong before the second of them, or the third, where what computed them last left them in the
same form as what had before the one that was looked at last, and something noted another form in between: a load that
missed the TLB, CLC, STC or CMC.
"""

import random
import struct

import pytest

from mmu.machine import Machine
from tests.guest.machines import CODE, DATA, MIB, PAGE, WINDOW, asm, machine, places

FAR, NOWHERE = 0x2000_0000, 0x6000_0000
PAGES = 64
STATUS, ZF = 0x8D5, 0x40
LOOKED_AT = ("sete byte ptr [rdi]", "clflush [rdi]", "setc byte ptr [rdi+1]")
ALU = ("add al, -1", "add ecx, 7", "sub al, 3", "inc edx", "dec cl", "neg al", "shl al, 1", "cmp al, al", "cmp cl, al",
       "test al, al", "xor edx, eax", "sahf", "adc al, 5", "sar ecx, 1")  # fmt: skip
DIRECT = ("clc", "stc", "cmc")
MISS = "mov r9, [rbx]; lea rbx, [rbx+4096]"
REFUSED = {
    "vaddps xmm0, xmm1, [rdi]": "invalid", "clflush [rsi]": "fault", "sete byte ptr [rsi]": "fault",
    "rcl dword ptr [rsi], 1": "fault", "lock cmpxchg8b [rsi]": "fault", "repe cmpsb": "fault",
}  # fmt: skip


def flags(code, **options):
    with machine() as m:
        m.tables.map(FAR, WINDOW + 6 * MIB, PAGES * PAGE, executable=False)
        m.load(code).set(rbx=FAR, rsi=NOWHERE, rax=0x1234_5607, rcx=0x8000_0003, rdx=0x7FFF_FFFF)
        result = m.run(**options)
        return result.stop.reason, result.stop.pc, result.registers["rflags"] & STATUS


def compare(lines, refused, **options):
    """*refused* behind *lines* sees the flags that lines without those that are looked at leave."""
    ready = asm("x86_64", "jmp 2f; 2: nop")
    body = [asm("x86_64", line) for line in lines]
    plain = [b"\x90" * len(b) if line in LOOKED_AT else b for line, b in zip(lines, body, strict=True)]
    _, halted, expected = flags(ready + b"".join(plain) + asm("x86_64", "hlt"))
    _, at, found = flags(ready + b"".join(body) + asm("x86_64", refused), **options)
    assert (at, hex(found)) == (halted - 1, hex(expected)), (lines, refused)


@pytest.mark.parametrize("direct", DIRECT)
@pytest.mark.parametrize("refused", REFUSED)
def test_a_refused_instruction_behind_two_others_and_clc(refused, direct):
    compare([*LOOKED_AT[:2], "add al, -1", direct], refused)


@pytest.mark.parametrize("refused", REFUSED)
def test_a_refused_instruction_behind_one_other_and_a_load_that_misses_the_tlb(refused):
    compare(["add al, -1", LOOKED_AT[0], MISS, "add al, 7"], refused)
    compare(["sub al, 3", LOOKED_AT[0], MISS, "sub al, 3", MISS], refused)


@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("before", ["test al, al", "and al, 15", "xor dl, al", "inc cl", "add al, 3", "clc"])
@pytest.mark.parametrize("exchange", ["lock cmpxchg8b [rdi]", "cmpxchg16b [rdi]"])
def test_a_wide_exchange_leaves_all_flags_but_one(exchange, before, limit):
    """The engine takes the flags for what the word of an earlier instruction makes of the operands of the last one."""
    lead = asm("x86_64", f"mov r9, [rbx]; {before}")
    _, _, expected = flags(lead + asm("x86_64", "hlt"), limit=limit)
    _, _, found = flags(lead + asm("x86_64", f"{exchange}; hlt"), limit=limit)
    assert hex(found & ~ZF) == hex(expected & ~ZF)


@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_random_blocks_tell_the_flags_where_they_are_refused(seed, limit):
    draw = random.Random(seed)
    for _ in range(40):
        kinds = draw.choices((LOOKED_AT, ALU, DIRECT, (MISS,)), (3, 4, 2, 3), k=draw.randrange(2, 14))
        compare([draw.choice(kind) for kind in kinds], draw.choice(list(REFUSED)), limit=limit)


@pytest.mark.parametrize("limit", [5, 9, 100])
def test_an_instruction_that_begins_a_block_of_its_own_is_counted_once(limit):
    one, two, three = LOOKED_AT
    code = f"nop; {one}; nop; {two}; cmpxchg16b [rdi+16]; {three}; cmpxchg8b [rdi+16]; nop; hlt"
    with machine() as m:
        result = m.load(asm("x86_64", code)).run(limit=limit)
        assert result.counters.instructions == min(limit, 9)


KEEPERS = ("pushfq", "verr dx", "verw dx", "lar ecx, dx", "lsl ecx, dx", "rdtsc", "rdtscp", "cpuid")


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("source", KEEPERS)
def test_the_flags_behind_what_leaves_them_when_it_is_counted(source, whole):
    """They were taken for the operand of the addition, where the TLB was missed, or a hook asked."""
    code = asm("x86_64", f"lgdt [rdi]; add al, -1; {source}; hlt")
    descriptors = struct.pack("<3Q", 0, 0xAF9B000000FFFF, 0xCF93000000FFFF)
    with machine() as m:
        m.tables.map(FAR, WINDOW + 6 * MIB, PAGES * PAGE, executable=False)
        m.load(code).set(rax=0x49, rdx=16, rsp=FAR + PAGE)
        m.write(DATA, struct.pack("<HQ", 23, FAR + 2 * PAGE))
        m.write(FAR + 2 * PAGE, descriptors)
        found = m.run(limit=1000, whole=whole)
    assert (found.stop.reason, found.registers["rflags"] & STATUS & ~ZF) == ("halt", 0x15)


@pytest.mark.parametrize("limit", [None, 1000])
def test_the_flags_behind_a_wide_exchange_that_goes_on_in_the_next_page_where_memory_is_shared(limit):
    """It is lost, and begins again: from what was kept then, and not when code was searched meanwhile."""
    at = CODE + PAGE - 3
    with machine() as m, Machine(m.space).setup(**places(tables="ram", code="ram", data="ram", stack="ram")):
        m.load(b"\xf4")
        m.write(at, asm("x86_64", "lock cmpxchg16b [rdi]; hlt"))
        found = m.set(rax=1, rflags=0x2 | STATUS).run(start=at, limit=limit)
    assert (found.stop.reason, hex(found.registers["rflags"] & STATUS)) == ("halt", hex(STATUS & ~ZF))


def test_instructions_that_are_looked_at_one_behind_another_do_not_each_begin_a_block():
    """Each was translated anew to the end of the code, and looked up."""
    body = 500 * b"\x0f\x94\x07" + b"\xff\xc9"  # sete byte ptr [rdi]; dec ecx
    with machine() as m:
        m.load(body + b"\x0f\x85" + struct.pack("<i", -len(body) - 6) + b"\xf4").set(rcx=3)
        found = m.run()
        assert (found.stop.reason, found.counters.fills < 100) == ("halt", True)


@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("where", ["ram", "window"])
@pytest.mark.parametrize("before", ["add al, 0x7f", "stc", "mov al, [rbx]; add al, 0x80"])
@pytest.mark.parametrize("instruction", ["seto byte ptr [r11]", "rcl byte ptr [r11], 1", "rcr byte ptr [r11], 1"])
def test_an_instruction_that_stores_to_its_own_block_loses_the_flags(instruction, before, where, limit):
    """The engine begins it once more, as a block of its own."""
    seen = []
    for at in CODE, DATA + 0x100:
        with machine(code=where) as m:
            m.load(asm("x86_64", f"{'nop; ' * 16}{before}; {instruction}; mov dl, [r11]; adc r8, 0; nop; hlt"))
            m.write(DATA + 0x100, m.read(CODE, 16))
            r = m.set(rax=0x41, rbx=DATA, r11=at).run(limit=limit).registers
            seen.append([hex(r[name]) for name in ("rax", "rdx", "r8", "rflags")])
    assert seen[0] == seen[1]
