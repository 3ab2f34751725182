"""Where an arm64 exception return may not go, what EL0 may not mask, and what the CPU says that it has."""

import pytest

from mmu.guest.stop import Synchronous
from tests.guest.machines import CODE, MIB, PAGE, WINDOW, asm, code, machine

USER, VECTORS = 0x5000_0000, CODE + 0x2000
IL_BIT, IL = 1 << 25, 1 << 20
ILLEGAL, SYSTEM = 0x0E << 26 | IL_BIT, 0x18 << 26 | IL_BIT
UMA = 1 << 9
EL1H, EL1T, EL0 = 5, 4, 0


@pytest.fixture
def m():
    with machine("aarch64") as m:
        m.tables.map(USER, WINDOW + 9 * MIB, 2 * PAGE, page_size=PAGE, user=1, writable=False, executable=True)
        yield m


def returned(m, spsr, **registers):
    """Registers after ERET with *spsr* to an instruction that adds 1 to X9, and what the handler saw."""
    m.load(asm("aarch64", "msr vbar_el1, x1; isb; msr spsr_el1, x4; adr x10, 1f; msr elr_el1, x10; nop; eret; "
                          "1: add x9, x9, #1; wfi"))  # fmt: skip
    for offset in (0, 0x200, 0x400):
        handler = f"mrs x12, esr_el1; mrs x13, elr_el1; mrs x14, spsr_el1; mov x15, #{offset}; wfi"
        m.write(VECTORS + offset, asm("aarch64", handler))
    return m.set(x1=VECTORS, x4=spsr, x9=0, x12=0, **registers).run(timeout=2)


@pytest.mark.parametrize("mode", (1, 2, 3, 6, 7, 8, 9, 12, 13, 0x10, 0x13, 0x1F))
def test_a_return_to_where_no_cpu_goes_is_an_illegal_state_behind_it(m, mode):
    """To EL2, EL3, AArch32, and modes that there are not: the EL stays, flags and masks are those of SPSR_EL1."""
    result = returned(m, 0x6000_0240 | mode)
    r = result.registers
    assert (r["x9"], r["x12"], r["x13"], r["x15"]) == (0, ILLEGAL, CODE + 28, 0x200)
    assert r["x14"] == 0x6000_0240 | IL | EL1H
    (delivered,) = result.delivered
    assert (delivered.exception, delivered.pc) == (Synchronous(ILLEGAL), CODE + 28)


@pytest.mark.parametrize("mode", (EL1H, EL1T))
def test_a_return_to_el1_is_none(m, mode):
    r = returned(m, 0x3C0 | mode).registers
    assert (r["x9"], r["x12"]) == (1, 0)


def test_without_vectors_the_run_ends_at_an_illegal_return(m):
    m.load(code("aarch64", "msr spsr_el1, x4; eret"))
    stop = m.set(x4=9).run().stop
    assert (stop.reason, stop.exception, stop.pc) == ("fault", Synchronous(ILLEGAL), CODE + 4)


def test_eret_of_el0_is_undefined(m):
    """Whatever is in SPSR_EL1."""
    m.load(code("aarch64", "nop"))
    m.space.write(WINDOW + 9 * MIB, asm("aarch64", "eret"))
    m.cpu.write("spsr_el1", 9)
    m.cpu._set_pstate(0x3C0)
    assert m.set(pc=USER).run().stop.exception == Synchronous(IL_BIT)


def user(m, source, uma=False):
    sctlr = m.registers["sctlr_el1"] & ~UMA
    m.load(code("aarch64", "msr vbar_el1, x1; isb; msr spsr_el1, xzr; msr elr_el1, x2; eret"))
    m.write(VECTORS + 0x400, asm("aarch64", "mrs x12, esr_el1; mrs x13, elr_el1; wfi"))
    m.space.write(WINDOW + 9 * MIB, asm("aarch64", f"{source}; svc #3"))
    r = m.set(x1=VECTORS, x2=USER, sctlr_el1=sctlr | uma * UMA).run(timeout=2).registers
    return r["x12"], r["x13"]


@pytest.mark.parametrize("source, iss", [
    ("msr daifset, #2", 6 << 17 | 3 << 14 | 4 << 10 | 31 << 5 | 2 << 1),
    ("msr daifclr, #15", 7 << 17 | 3 << 14 | 4 << 10 | 31 << 5 | 15 << 1),
    ("msr daif, x9", 3 << 20 | 1 << 17 | 3 << 14 | 4 << 10 | 9 << 5 | 2 << 1),
    ("mrs x9, daif", 3 << 20 | 1 << 17 | 3 << 14 | 4 << 10 | 9 << 5 | 2 << 1 | 1),
])  # fmt: skip
def test_el0_that_masks_interrupts_is_trapped_with_what_it_did(m, source, iss):
    assert user(m, f"nop; {source}") == (SYSTEM | iss, USER + 4)
    assert user(m, source, uma=True)[0] == 0x5600_0003


def test_the_cpu_says_that_it_has_no_sve_no_aarch32_and_no_bti(m):
    r = m.load(code("aarch64", "mrs x9, id_aa64pfr0_el1; mrs x10, id_aa64pfr1_el1")).run().registers
    pfr0 = r["x9"]
    assert r["x10"] & 15 == 0
    assert (pfr0 & 15, pfr0 >> 4 & 15, pfr0 >> 32 & 15) == (1, 1, 0)
    assert pfr0 >> 16 & 15 != 15  # FP
