"""What an arm64 CPU refuses before it runs an instruction: FP that is off, a stack pointer or an address that is not
aligned. The engine checks none of it, but for exclusives and atomics.
"""

import pytest

from mmu.guest.stop import Synchronous
from mmu.types import Access, FaultKind
from tests.guest.machines import CODE, DATA, MIB, PAGE, STACK, WINDOW, asm, code, machine

HOLE, USER = 0x3000_0000, 0x5000_0000
VECTORS = CODE + 0x2000
SPX, LOWER = VECTORS + 0x200, VECTORS + 0x400
IL, WNR = 1 << 25, 1 << 6
A, SA, SA0 = 1 << 1, 1 << 3, 1 << 4
TRAPPED, SP_ALIGNMENT = 0x1FE0_0000 | IL, 0x26 << 26 | IL
ABORT, ABORT_LOWER, ALIGNMENT = 0x25 << 26 | IL, 0x24 << 26 | IL, 0x21
TOP = STACK + (64 << 10)
MEMORY = 64


@pytest.fixture
def m():
    with machine("aarch64") as m:
        m.tables.map(USER, WINDOW + 9 * MIB, 2 * PAGE, page_size=PAGE, user=1, writable=False, executable=True)
        m.tables.map(USER + 4 * PAGE, WINDOW + 10 * MIB, 2 * PAGE, page_size=PAGE, user=1, executable=False)
        yield m


def sctlr(m, bits):
    return m.registers["sctlr_el1"] | bits


def stop_of(m, source, before="", **registers):
    """The stop of *source*, which has no effect and is where it should be; None where it runs."""
    m.load(asm("aarch64", f"{before}nop; {source}; mov x27, #1; wfi"))
    at = CODE + len(asm("aarch64", f"{before}nop; wfi")) - 4
    result = m.set(x27=0, **registers).run()
    if result.stop.reason == "halt":
        assert result.registers["x27"] == 1
        return None
    assert (result.stop.reason, result.stop.pc, result.registers["x27"]) == ("fault", at, 0)
    return result.stop


# -- FP ---------------------------------------------------------------------------------------------

FLOATING = (
    "fadd d0, d1, d2", "fmov x9, d0", "add v0.4s, v1.4s, v2.4s", "movi v0.2d, #0", "ldr q0, [x0]", "str d0, [x0]",
    "ldp q0, q1, [x0]", "ld1 {v0.16b}, [x0]", "st4 {v0.s, v1.s, v2.s, v3.s}[1], [x0]", "ldr s0, [x0, x9]",
    "mrs x9, fpcr", "msr fpsr, x9", ".arch armv8.2-a+crypto; aese v0.16b, v1.16b", "scvtf d0, x9", "fcmp d0, d1",
)  # fmt: skip
NOT_FLOATING = ("ldr x9, [x0]", "mul x9, x9, x9", "mrs x9, nzcv", "ldp x9, x10, [x0]", "crc32b w9, w9, w9")


@pytest.mark.parametrize("source", FLOATING)
def test_fp_instructions_are_trapped_where_fpen_says_so(m, source):
    for fpen in (0, 2):
        stop = stop_of(m, source, cpacr_el1=fpen << 20, x9=0)
        assert stop.exception == Synchronous(TRAPPED), fpen
    for fpen in (1, 3):
        assert stop_of(m, source, cpacr_el1=fpen << 20) is None, fpen


@pytest.mark.parametrize("source", NOT_FLOATING)
def test_other_instructions_are_no_fp(m, source):
    assert stop_of(m, source, cpacr_el1=0) is None


def test_fp_that_is_off_is_trapped_before_all_else(m):
    """Nothing is there, and SP is not aligned either."""
    stop = stop_of(m, "ldr q0, [sp]", cpacr_el1=0, sp=HOLE + 1, sctlr_el1=sctlr(m, A | SA))
    assert stop.exception == Synchronous(TRAPPED)


# X7, then X8, which goes on to it. As RET: the engine keeps a block for each state of PSTATE.BTYPE.
TWO_CALLS = "adr x30, 1f; ret x7; 1: adr x30, 2f; ret x8; 2: wfi"


def with_vectors(m, source, handler, at=SPX, **registers):
    m.load(code("aarch64", f"msr vbar_el1, x1; isb; {source}"))
    m.write(at, asm("aarch64", handler))
    return m.set(x1=VECTORS, **registers).run(timeout=2)


LAZY = "mrs x12, esr_el1; mov x13, #3 << 20; msr cpacr_el1, x13; isb; add x14, x14, #1; eret"


def test_a_handler_turns_fp_on_and_the_instruction_runs_again(m):
    """As a kernel does that keeps FP for those who use it. The guest turned it off itself."""
    off = "fmov d1, #2.0; msr cpacr_el1, xzr; isb;"
    r = with_vectors(m, f"{off} fmov x9, d1; fadd d1, d1, d1; fmov x10, d1", LAZY).registers
    assert (r["x12"], r["x9"], r["x10"], r["x14"]) == (TRAPPED, 0x4000 << 48, 0x4010 << 48, 1)


def test_fp_goes_off_and_on_again_and_again(m):
    loop = "mov x15, #3; 1: msr cpacr_el1, xzr; isb; fmov d0, x15; fmov x9, d0; sub x15, x15, #1; cbnz x15, 1b"
    result = with_vectors(m, loop, LAZY)
    assert (result.registers["x14"], result.registers["x9"], len(result.delivered)) == (3, 1, 3)


@pytest.mark.parametrize("last", (1, 2))
def test_fp_is_trapped_on_a_page_that_ran_before(m, last):
    """MSR is the last instruction, or the last but one, of its page; the next page has run with FP on."""
    m.load(asm("aarch64", TWO_CALLS))
    off = ("msr cpacr_el1, xzr; " + "isb; " * (last - 1)).rstrip("; ")
    m.write(CODE + 2 * PAGE - 4 * last, asm("aarch64", off))
    m.write(CODE + 2 * PAGE, asm("aarch64", "fmov d0, x7; ret"))
    stop = m.set(x7=CODE + 2 * PAGE, x8=CODE + 2 * PAGE - 4 * last).run().stop
    assert (stop.exception, stop.pc) == (Synchronous(TRAPPED), CODE + 2 * PAGE)


def user(m, source, handler="mrs x12, esr_el1; mrs x13, far_el1; mrs x14, elr_el1; wfi", **registers):
    """Run *source* at EL0, whose page is at USER; its exceptions end the run in the handler."""
    m.load(code("aarch64", "msr vbar_el1, x1; isb; msr spsr_el1, xzr; msr elr_el1, x2; msr sp_el0, x3; eret"))
    m.write(LOWER, asm("aarch64", handler))
    m.space.write(WINDOW + 9 * MIB, asm("aarch64", f"{source}; svc #3"))
    return m.set(x1=VECTORS, x2=USER, **{"x3": USER + 5 * PAGE} | registers).run(timeout=2).registers


@pytest.mark.parametrize("fpen", range(4))
def test_fp_of_el0(m, fpen):
    """1 is for EL0 alone: in the handler FP is on."""
    r = user(m, "nop; fmov d0, x2", "mrs x12, esr_el1; mrs x14, elr_el1; wfi", cpacr_el1=fpen << 20)
    assert (r["x12"], r["x14"]) == ((0x5600_0003, USER + 12) if fpen == 3 else (TRAPPED, USER + 4))


def test_the_kernel_has_fp_that_el0_has_not(m):
    r = user(m, "fmov d0, x2", "mrs x12, esr_el1; fmov d0, x2; fmov x14, d0; wfi", cpacr_el1=1 << 20)
    assert (r["x12"], r["x14"]) == (TRAPPED, USER)


# -- SP ---------------------------------------------------------------------------------------------

THROUGH_SP = (
    "ldr x9, [sp]", "str x9, [sp, #8]", "ldp x9, x10, [sp, #16]", "stp x9, x10, [sp, #-16]!", "ldrb w9, [sp], #1",
    "ldr q0, [sp]", "ldr x9, [sp, x10]", "ldur x9, [sp, #-8]", "ldxr x9, [sp]", "ldar x9, [sp]", "stlr x9, [sp]",
    "ldadd x9, x10, [sp]", "cas x9, x10, [sp]", "ld1 {v0.16b}, [sp]", "st1 {v0.b}[0], [sp]",
    ".arch armv8.4-a; ldapur x9, [sp]",
)  # fmt: skip
NOT_THROUGH_SP = (
    "prfm pldl1keep, [sp]", "prfum pldl1keep, [sp, #3]", "prfm pldl1keep, [sp, x10]", "add x9, sp, #1",
    "ldr x9, [x0]", "ldr x9, . + 0x7c", "ldr q0, . + 0x7c", "prfm pldl1keep, .", "str xzr, [x0]",
)  # fmt: skip


@pytest.mark.parametrize("source", THROUGH_SP)
def test_an_access_through_an_sp_that_is_not_aligned_is_an_exception(m, source):
    """Of SP alone, whatever the address is; FAR does not change."""
    stop = stop_of(m, source, sp=TOP - 0x108, x10=8, sctlr_el1=sctlr(m, SA))
    assert stop.exception == Synchronous(SP_ALIGNMENT)
    assert m.registers["sp"] == TOP - 0x108
    assert stop_of(m, source, sp=TOP - 0x100, x10=0, sctlr_el1=sctlr(m, SA)) is None


@pytest.mark.parametrize("source", NOT_THROUGH_SP)
def test_what_accesses_nothing_through_sp_may_run(m, source):
    assert stop_of(m, source, sp=TOP - 0x108, x10=8, sctlr_el1=sctlr(m, SA)) is None


@pytest.mark.parametrize("bits", (0, SA0))
def test_sp_need_not_be_aligned_where_nothing_says_so(m, bits):
    assert stop_of(m, "ldr x9, [sp]", sp=TOP - 0x108, sctlr_el1=m.registers["sctlr_el1"] & ~SA | bits) is None


MOVES = (
    "sub sp, sp, #8", "add sp, sp, #-8 & 0xfff", "mov sp, x8", "sub sp, sp, x9", "add sp, x8, w9, uxtw #2",
    "add sp, x8, #0x1, lsl #12", "and sp, x8, #0xfffffffffffffffe", "orr sp, x8, #1", "str x9, [sp, #-8]!",
    "ldr x9, [sp], #8", "ldp w9, w10, [sp], #8", "strb w9, [sp, #-1]!", "ld1 {v0.8b}, [sp], #8",
    "ld1 {v0.16b}, [sp], x9", "st1 {v0.b}[3], [sp], #1", "stp d0, d1, [sp, #-24]!", "mov wsp, w8",
    "msr spsel, #0; mov sp, x8", "msr sp_el0, x8; msr spsel, #0", "mov x10, sp; mov sp, x8; mov x11, sp",
)  # fmt: skip


@pytest.mark.parametrize("source", MOVES)
@pytest.mark.parametrize("how", ("native", "counted"))
def test_sp_that_an_instruction_leaves_unaligned_is_noticed(m, source, how):
    m.load(asm("aarch64", f"{source}; nop; ldr x9, [sp]; mov x27, #1; wfi"))
    registers = {"sctlr_el1": sctlr(m, SA), "x8": TOP - 0x1F8, "x9": 8, "sp": TOP - 0x100}
    result = m.set(**registers).run(**{"limit": 50} if how == "counted" else {})
    at = CODE + len(asm("aarch64", f"{source}; nop; wfi")) - 4
    assert (result.stop.exception, result.stop.pc) == (Synchronous(SP_ALIGNMENT), at)


def test_what_is_looked_at_again_counts_once(m):
    m.load(code("aarch64", "sub sp, sp, #8; ldr x9, [x0]; add sp, sp, #8; msr cpacr_el1, xzr; isb; ldr x9, [sp]"))
    result = m.set(sctlr_el1=sctlr(m, SA)).set(sp=TOP - 16).run(limit=100)
    assert (result.stop.reason, result.counters.instructions) == ("halt", 7)


ALIGNED = (
    "stp x9, x10, [sp, #-16]!; ldp x9, x10, [sp], #16; sub sp, sp, #0x10", "sub sp, sp, #1, lsl #12",
    "stp x9, x10, [sp, #-16]!; ldp x9, x10, [sp], #16",
    "mov x10, sp; and sp, x8, #0xfffffffffffffff0", "add x9, sp, #8; sub sp, x9, #8",
)  # fmt: skip


@pytest.mark.parametrize("source", ALIGNED)
def test_sp_that_stays_aligned_may_be_used(m, source):
    assert stop_of(m, "ldr x9, [sp, #-8]", before=source + "; ", sctlr_el1=sctlr(m, SA), x8=TOP - 0x1F8) is None


def test_sp_that_the_last_instruction_of_a_page_moves_is_noticed_on_the_next_one(m):
    """Which has run before."""
    m.load(asm("aarch64", TWO_CALLS))
    m.write(CODE + 2 * PAGE - 4, asm("aarch64", "mov sp, x9"))
    m.write(CODE + 2 * PAGE, asm("aarch64", "ldr x10, [sp]; ret"))
    m.set(x7=CODE + 2 * PAGE, x8=CODE + 2 * PAGE - 4, x9=TOP - 8, sp=TOP - 16, sctlr_el1=sctlr(m, SA))
    stop = m.run().stop
    assert (stop.exception, stop.pc) == (Synchronous(SP_ALIGNMENT), CODE + 2 * PAGE)


def test_a_guest_that_turns_the_check_on_finds_its_own_sp(m):
    on = "mrs x9, sctlr_el1; orr x9, x9, #8; msr sctlr_el1, x9; isb; "
    stop = stop_of(m, "ldr x9, [sp]", f"sub sp, sp, #8; ldr x9, [sp]; {on}")
    assert stop.exception == Synchronous(SP_ALIGNMENT)


def test_an_exception_of_sp_goes_to_the_handler_which_may_align_it(m):
    """The handler runs on another stack."""
    fix = "mrs x12, esr_el1; mrs x13, far_el1; mrs x14, elr_el1; msr sp_el0, x3; eret"
    source = "msr spsel, #0; mov sp, x8; nop; str x9, [sp, #-16]!; ldr x10, [sp]"
    r = with_vectors(m, source, fix, VECTORS, x8=TOP - 24, x3=TOP - 32, x9=5, sctlr_el1=sctlr(m, SA), far_el1=7)
    assert r.stop.reason == "halt"
    assert [r.registers[n] for n in ("x10", "x12", "x13", "x14")] == [5, SP_ALIGNMENT, 7, CODE + 20]


def test_sp_of_el0_has_a_bit_of_its_own(m):
    base = m.registers["sctlr_el1"] & ~(SA | SA0)
    source = "sub sp, sp, #8; ldr x9, [sp]"
    r = user(m, source, sctlr_el1=base | SA0)
    assert (r["x12"], r["x14"]) == (SP_ALIGNMENT, USER + 4)
    assert user(m, source, sctlr_el1=base | SA)["x12"] == 0x5600_0003
    assert user(m, "ldr x9, [sp]", sctlr_el1=base | SA0, x3=USER + 5 * PAGE - 8)["x14"] == USER


def test_the_kernels_own_stack_is_fine_when_el0_has_none(m):
    handler = "str x9, [sp, #-16]!; ldr x12, [sp]; mrs x14, esr_el1; wfi"
    r = user(m, "sub sp, sp, #8; ldr x9, [sp]", handler, sctlr_el1=sctlr(m, SA | SA0), x9=77)
    assert (r["x12"], r["x14"]) == (77, SP_ALIGNMENT)


# -- addresses --------------------------------------------------------------------------------------

ACCESSES = (
    "ldr x9, [x8, #8]", "ldrh w9, [x8, #2]", "ldrsw x9, [x8, #4]", "str w9, [x8, #4]", "strh w9, [x8]",
    "ldur x9, [x8, #-8]", "stur w9, [x8, #-5]", "ldr x9, [x8], #8", "str x9, [x8, #-16]!", "ldtr x9, [x8, #8]",
    "sttrh w9, [x8, #2]", "ldp x9, x10, [x8, #16]", "stp w9, w10, [x8, #-8]!", "ldpsw x9, x10, [x8], #8",
    "ldnp x9, x10, [x8, #32]", "stnp q0, q1, [x8, #-32]", "ldr q0, [x8, #16]", "str d0, [x8, #8]", "ldr h0, [x8]",
    "ldp s0, s1, [x8, #4]", "stp q0, q1, [x8], #32", "ldr x9, [x8, x11]", "ldr w9, [x8, w11, uxtw #2]",
    "str x9, [x8, w12, sxtw #3]", "ldr q0, [x8, x11, lsl #4]", "strh w9, [x8, x12, sxtx]", "ld1 {v0.8h}, [x8]",
    "st1 {v0.4s, v1.4s}, [x8]", "ld2 {v0.d, v1.d}[1], [x8]", "ld1r {v0.4s}, [x8]", "st3 {v0.h, v1.h, v2.h}[2], [x8]",
    "ld1 {v0.2d}, [x8], #16", "ld4r {v0.2d, v1.2d, v2.2d, v3.2d}, [x8]",
)  # fmt: skip
ORDERED = (
    "ldar x9, [x8]", "ldarh w9, [x8]", "stlr w9, [x8]", "stlrh w9, [x8]", ".arch armv8.3-a; ldapr x9, [x8]",
    ".arch armv8.4-a; ldapur x9, [x8, #8]", ".arch armv8.4-a; stlurh w9, [x8, #-2]", ".arch armv8.1-a; ldlar w9, [x8]",
    ".arch armv8.1-a; stllr x9, [x8]",
)  # fmt: skip
ATOMIC = (
    "ldxr x9, [x8]", "ldaxrh w9, [x8]", "ldxp x9, x10, [x8]", "ldadd x9, x10, [x8]",
    "swp w9, w10, [x8]", "cas x9, x10, [x8]", "ldclralh w9, w10, [x8]",
)  # fmt: skip
BYTES = (
    "ldrb w9, [x8, #3]", "strb w9, [x8]", "ldr b0, [x8]", "st1 {v0.16b}, [x8]", "dc zva, x8", "prfm pldl1keep, [x8]",
    "ldarb w9, [x8]", "ld1 {v0.b}[5], [x8]", "dc cvac, x8",
)  # fmt: skip
FORMS = {"x8": HOLE + 0x201, "x11": 0x10, "x12": (1 << 64) - 16}


@pytest.mark.parametrize("source", ACCESSES)
def test_with_alignment_checks_an_unaligned_access_is_an_abort_at_its_address(m, source):
    """Before translation; where nothing is without them the engine says what the address would have been."""
    forms = FORMS | {"x8": HOLE + 0x204} if "#-5" in source else FORMS
    plain = stop_of(m, source, **forms)
    assert plain.exception.fsc == 6
    strict = stop_of(m, source, sctlr_el1=sctlr(m, A), **forms)
    assert (strict.exception.esr, strict.exception.far) == (plain.exception.esr & ~63 | ALIGNMENT, plain.exception.far)
    assert (strict.fault.kind, strict.fault.access & 3) == (FaultKind.ALIGNMENT, plain.fault.access & 3)
    aligned = FORMS | {"x8": DATA + 0x205 if "#-5" in source else DATA + 0x200}
    if "tr" not in source[2:5] and "sttr" not in source:  # EL0 may not access the data
        assert stop_of(m, source, sctlr_el1=sctlr(m, A), **aligned) is None


@pytest.mark.parametrize("source", ACCESSES)
def test_without_them_it_may_be_anywhere(m, source):
    stop = stop_of(m, source, **FORMS | {"x8": DATA + 0x201})
    assert stop is None or stop.fault.access & Access.UNPRIVILEGED


@pytest.mark.parametrize("source", ORDERED)
def test_ordered_accesses_must_be_aligned(m, source):
    words = source.split("; ")[-1]
    offset = int(words[words.index("#") + 1 : -1]) if "#" in words else 0
    stop = stop_of(m, source, sctlr_el1=sctlr(m, A), x8=HOLE + 0x201)
    write = WNR if words.startswith("st") else 0
    assert (stop.exception.esr, stop.exception.far) == (ABORT | write | ALIGNMENT, HOLE + 0x201 + offset)
    assert stop_of(m, source, sctlr_el1=sctlr(m, A), x8=DATA + 0x200) is None


@pytest.mark.parametrize("source", ATOMIC)
def test_atomic_accesses_must_be_aligned_always(m, source):
    stop = stop_of(m, source, x8=DATA + 0x201)
    assert (stop.exception.esr, stop.exception.far) == (ABORT | ALIGNMENT, DATA + 0x201)


@pytest.mark.parametrize("source", BYTES)
def test_bytes_and_lines_are_always_aligned(m, source):
    assert stop_of(m, source, sctlr_el1=sctlr(m, A), x8=DATA + 0x203) is None


def test_literals_are_checked_as_well(m):
    """The PC is a multiple of 4."""
    for source, far in (
        ("ldr x9, . + 4", None), ("ldr x9, . + 8", CODE + 12), ("ldr w9, . + 8", None), ("ldr q0, . + 12", None),
        ("ldr q0, . + 4", CODE + 8), ("ldr s0, . + 8", None), ("ldrsw x9, . + 8", None), ("ldr x9, . - 8", CODE - 4),
    ):  # fmt: skip
        stop = stop_of(m, source, sctlr_el1=sctlr(m, A))
        assert (stop and stop.exception.far) == far


def test_a_guest_turns_alignment_checks_on_and_off(m):
    switch = "mrs x9, sctlr_el1; {} x9, x9, #2; msr sctlr_el1, x9; isb; "
    on, off = switch.format("orr"), switch.format("bic")
    source = f"ldr x9, [x8]; {on}ldr x9, [x8]; add x15, x15, #1; {off}ldr x9, [x8]"
    handler = "mrs x12, far_el1; mrs x13, elr_el1; add x13, x13, #4; msr elr_el1, x13; add x14, x14, #1; eret"
    r = with_vectors(m, source, handler, x8=DATA + 1)
    assert (r.stop.reason, r.registers["x12"], r.registers["x14"], r.registers["x15"]) == ("halt", DATA + 1, 1, 1)


def test_alignment_is_checked_at_el0_too(m):
    r = user(m, "ldr x9, [x8]", x8=USER + 1, sctlr_el1=sctlr(m, A))
    assert (r["x12"], r["x13"], r["x14"]) == (ABORT_LOWER | ALIGNMENT, USER + 1, USER)


def test_more_accesses_than_there_are_hooks(m):
    """Six pages of loads, and then the one that counts."""
    m.load(asm("aarch64", "nop"))
    for n in range(6):
        m.write(CODE + n * PAGE, asm("aarch64", "ldr x9, [x0]") * (PAGE // 4))
    m.write(CODE + 6 * PAGE, code("aarch64", "ldr x9, [x8]"))
    stop = m.set(x8=DATA + 2, sctlr_el1=sctlr(m, A)).run().stop
    assert (stop.exception.far, stop.pc) == (DATA + 2, CODE + 6 * PAGE)


def test_then_sp_and_fp_are_still_watched(m):
    m.load(asm("aarch64", "nop"))
    for n in range(5):
        m.write(CODE + n * PAGE, asm("aarch64", "ldr x9, [x0]") * (PAGE // 4))
    m.write(CODE + 5 * PAGE, code("aarch64", "mov sp, x8; msr cpacr_el1, xzr; ldr q0, [sp]"))
    m.set(x8=DATA + 8, sctlr_el1=sctlr(m, A | SA))
    assert m.run().stop.exception == Synchronous(TRAPPED)
    m.write(CODE + 5 * PAGE, code("aarch64", "mov sp, x8; nop; nop"))
    m.write(CODE + 5 * PAGE + 8, code("aarch64", "ldr x9, [sp]"))
    stop = m.run(start=CODE).stop
    assert (stop.exception, stop.pc) == (Synchronous(SP_ALIGNMENT), CODE + 5 * PAGE + 8)
