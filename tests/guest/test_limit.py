"""A run that counts its instructions does what one does that does not count: one engine, another translation."""

import pytest

from mmu.machine import Machine
from tests.guest.machines import CODE, DATA, MIB, PAGE, WINDOW, asm, machine, places, two_way

NOWHERE = 0x3000_0000
RAM = dict.fromkeys(("tables", "code", "data", "stack"), "ram")
# lea rbx, [rip+5]; mov ecx, 3; 1: mov eax, 5; add rdx, rax; inc byte ptr [rbx+1] (the 5); dec ecx; jnz 1b; hlt
REWRITES_ITSELF = "488d1d05000000 b903000000 b805000000 4801c2 fe4301 ffc9 75f1 f4"
LENGTH = 2 + 3 * 5 + 1


def run(code, limit, where=RAM, **registers):
    space, _, _ = two_way()
    with Machine(space).setup(**places(**where)) as m:
        m.load(bytes.fromhex(code)).set(**registers)
        return m.run(limit=limit)


@pytest.mark.parametrize(
    "code",
    ["1cbc ff03 f4", "1cbc f0ff03 f4", "04ff 8b03 f4", "2c20 4889 03 f4", "d0e0 87 03 f4", "f9 1100 8303 01 f4"],
    ids=["sbb; inc", "sbb; lock inc", "add; load", "sub; store", "shl; xchg", "stc; adc"],
)  # fmt: skip
def test_the_flags_at_a_fault_are_those_before_the_instruction(code):
    plain, counted = (run(code, limit, rbx=NOWHERE, rax=0x10) for limit in (None, 1000))
    assert plain.stop.reason == counted.stop.reason == "fault"
    assert counted.registers == plain.registers


# Behind ADD AL, -1; NEG AL; SHL AL, 1; and with the flags in the register itself.
BEFORE = {"add": "04ff", "neg": "f6d8", "shl": "d0e0", "sahf": "b4d5 9e"}
# RCL and RCR by 1, by 3 and by CL; SETcc for each condition
ROTATIONS = ["d113", "d11b", "48c11303", "48c11b03", "d313", "66d31b", "c01b03"]
CONDITIONS = [f"0f{condition:02x}03" for condition in range(0x90, 0xA0)]


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("instruction", ROTATIONS + CONDITIONS)
def test_the_flags_at_a_fault_are_not_worked_out_twice(before, instruction):
    """The engine does so: for the instruction, and from what it got once more."""
    nop = run(BEFORE[before] + " f4", None, rbx=NOWHERE, rax=0x10)
    found = run(BEFORE[before] + instruction + " f4", None, rbx=NOWHERE, rax=0x10)
    assert (nop.stop.reason, found.stop.reason) == ("halt", "fault")
    resume = 1 << 16
    assert found.registers["rflags"] & ~resume == nop.registers["rflags"] & ~resume


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("instruction", ["0fc70f", "480fc70f", "f00fc70f"])
def test_a_compare_and_exchange_of_two_words_leaves_all_flags_but_zero(before, instruction):
    nop, found = (run(BEFORE[before] + then + " f4", None, rbx=1, rax=0x10, rdi=DATA) for then in ("90", instruction))
    assert (nop.stop.reason, found.stop.reason) == ("halt", "halt")
    zero = 1 << 6
    assert found.registers["rflags"] & ~zero == nop.registers["rflags"] & ~zero


@pytest.mark.parametrize(
    "code",
    ["04ff f6f1 f4", "04ff 0f05 f4", "04ff 8ed3 f4", "04ff 48cf f4", "04ff 0f00db f4", "04ff cd55 f4", "04ff 0f0b f4"],
    ids=["div by 0", "syscall to nowhere", "mov ss", "iretq", "ltr", "int 0x55", "ud2"],
)  # fmt: skip
def test_the_flags_at_an_exception_are_those_before_the_instruction(code):
    plain, counted = (run(code, limit, rbx=NOWHERE + 0x1234, rax=0x11) for limit in (None, 1000))
    assert plain.stop.reason == counted.stop.reason == "fault"
    assert counted.registers == plain.registers
    assert plain.registers["rflags"] & 0x11 == 0x11  # of 0x11 + 0xff: carry out of both digits


def test_the_flags_at_a_fault_across_two_pages_of_code():
    """Its REX prefix is the last byte of a page: there is a hook on it, because INVLPG could begin there."""
    space, _, _ = two_way()
    with Machine(space).setup(**places(**RAM)) as m:
        m.load(b"\xf4")
        m.write(CODE + PAGE - 3, bytes.fromhex("0402 488b03 f4"))  # add al, 2; mov rax, [rbx]
        found = m.set(rbx=NOWHERE, rax=0xFF).run(start=CODE + PAGE - 3)
    assert (found.stop.reason, found.registers["rflags"] & 0x11) == ("fault", 0x11)


@pytest.mark.parametrize("where", [RAM, {}], ids=["ram", "window"])
def test_a_store_to_the_code_that_runs_counts_once_and_leaves_the_flags(where):
    plain, counted = (run(REWRITES_ITSELF, limit, where) for limit in (None, 1000))
    assert (plain.stop.reason, plain.registers["rdx"]) == ("halt", 5 + 6 + 7)
    assert counted.registers == plain.registers
    assert counted.counters.instructions == LENGTH


# mov ecx, 3; add al, 0xff; (one of these); pushfq; pop r12; hlt
STRINGS = {"stosb": "f3aa", "movsb": "f3a4", "lodsb": "f3ac", "outsb": "f36e", "insb": "f36c", "stosq": "f348ab"}


@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("string", STRINGS)
def test_a_repeated_instruction_leaves_the_flags_of_what_comes_before_it(string, limit):
    """Also counted: the engine looked its page up and took the flags for the operand of the addition."""
    found = run(f"b903000000 04ff {STRINGS[string]} 9c 415c f4", limit, rax=0x49, rsi=DATA, rdi=DATA + 512)
    assert (found.stop.reason, found.registers["rcx"], found.registers["r12"]) == ("halt", 0, 0x17)


# lea rax, [rip+6]; mov word ptr [rax], 0xc1ff; nop; nop (these two: inc ecx); hlt
REWRITES_WHAT_COMES = "488d0506000000 66c700ffc1 90 9090 f4"
# lea rax, [rip]; mov word ptr [rax], 0xc766 (its own first bytes); inc ecx; hlt
REWRITES_WHERE_IT_IS = "488d0500000000 66c70066c7 ffc1 f4"


@pytest.mark.parametrize("where", [RAM, {}], ids=["ram", "window"])
@pytest.mark.parametrize("code, length", [(REWRITES_WHAT_COMES, 5), (REWRITES_WHERE_IT_IS, 4)], ids=["next", "own"])
@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_a_counted_store_to_code_of_its_own_block_does_not_begin_again_for_ever(step, code, length, where):
    space, _, _ = two_way()
    with Machine(space).setup(**places(**where)) as m:
        m.load(bytes.fromhex(code)).set(rcx=0)
        runs = [m.run(limit=step)]
        while runs[-1].stop.reason == "limit" and len(runs) < 20:
            runs.append(m.run(limit=step))
        assert (runs[-1].stop.reason, m.registers["rcx"]) == ("halt", 1)
        assert sum(run.counters.instructions for run in runs) == length


def test_each_limit_is_one_instruction_further():
    pcs = [run(REWRITES_ITSELF, limit).registers["rip"] for limit in range(1, LENGTH)]
    assert all(a != b for a, b in zip(pcs, pcs[1:]))
    assert pcs[4] - pcs[3] == 3


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_repeated_instruction_that_a_limit_parts_ends_with_its_last_flags(step):
    space, _, _ = two_way()
    with Machine(space).setup(**places(**RAM)) as m:
        m.load(bytes.fromhex("b906000000 f2ae f4"))  # mov ecx, 6; repne scasb; hlt
        m.write(DATA, bytes([0x11, 0x80, 0x01, 0xFF, 0x90, 0x20]))
        m.set(rdi=DATA, rax=0x10)
        flags = m.run().registers["rflags"]
        m.set(rip=CODE, rdi=DATA)
        while m.run(limit=step).stop.reason == "limit":
            pass
        assert m.registers["rflags"] == flags


# -- behind a run that did not count ------------------------------------------------------------------

ARM64_VECTORS = CODE + 0x2000
SKIP = "mrs x12, elr_el1; add x12, x12, #4; msr elr_el1, x12; add x14, x14, #1; eret"
# FP that is off, a stack pointer that is not aligned, on one page and on the next one
REFUSED = {
    "fp": "fmov d0, x9; nop; fmov d1, x9; wfi",
    "sp": "sub sp, sp, #8; ldr x9, [sp]; nop; str x9, [sp]; wfi",
}  # fmt: skip


@pytest.mark.parametrize("at", [CODE, CODE + PAGE - 4])
@pytest.mark.parametrize("source", REFUSED)
def test_what_is_refused_counts_also_behind_a_run_that_did_not_count(source, at):
    """There, the hooks on such instructions are older than the one that counts."""
    seen = []
    for before in (False, True):
        with machine("aarch64") as m:
            m.load(asm("aarch64", "nop"))
            m.write(at, asm("aarch64", REFUSED[source]))
            m.write(ARM64_VECTORS + 0x200, asm("aarch64", SKIP))
            start = {"sp": m.registers["sp"], "sctlr_el1": m.registers["sctlr_el1"] | 1 << 3, "x14": 0}
            m.set(vbar_el1=ARM64_VECTORS, cpacr_el1=0 if source == "fp" else 3 << 20)
            if before:
                m.set(**start).run(start=at)
            counted = m.set(**start).run(start=at, limit=1000)
            seen.append((counted.stop.reason, counted.registers["x14"], counted.counters.instructions))
    assert seen[0] == seen[1]
    assert seen[0][:2] == ("halt", 2)


def test_a_limit_ends_a_run_before_what_would_be_refused():
    with machine("aarch64") as m:
        m.load(asm("aarch64", REFUSED["fp"])).set(cpacr_el1=0)
        assert m.run(start=CODE + 8).stop.reason == "fault"
        stop = m.run(start=CODE + 4, limit=1).stop
        assert (stop.reason, stop.pc) == ("limit", CODE + 8)
        stop = m.run(limit=1).stop
        assert (stop.reason, stop.pc) == ("fault", CODE + 8)


def test_taking_a_hook_away_accesses_no_tables():
    """The engine looks up where the hook was. What a walk leaves in the tables is for what the guest does."""
    other = CODE + (64 << 20)
    with machine("aarch64") as m:
        m.tables.map(other, WINDOW + 9 * MIB, PAGE, page_size=PAGE, executable=True)
        m.load(asm("aarch64", "nop; wfi"))
        m.space.write(WINDOW + 9 * MIB, asm("aarch64", "nop; wfi"))
        m.run(start=other, limit=10)
        before = m.cpu.counters.walks
        m.cpu.begin(0, "exact")
        m.cpu.end()
        assert m.cpu.counters.walks == before
