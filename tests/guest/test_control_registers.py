"""MOV to control registers and WRMSR: #GP(0) for what a CPU refuses to hold. The engine takes it all."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mmu.guest.stop import Interrupt
from mmu.guest.x86_control import MOVES, move_permitted
from mmu.guest.x86_msr import permitted as msr_permitted
from mmu.machine import Machine
from mmu.tcg import Switches
from tests.guest.kernel import ENTER, Kernel
from tests.guest.machines import CODE, MIB, asm, code, machine, two_way
from tests.guest.test_multiboot import TO_LONG_MODE, header

GP = 13
REFUSED = Interrupt(GP, 0)
CR0, CR4, EFER = 0x8001_0033, 0x6A0, 0xD01  # of a machine that was set up
PG, CD, NW, PE, LME, PAE, PCIDE, NOFLUSH = 1 << 31, 1 << 30, 1 << 29, 1, 1 << 8, 1 << 5, 1 << 17, 1 << 63
IN_RAM = {"user": 32 * MIB, **dict.fromkeys(("tables", "code", "data", "stack"), "ram")}
STATE = ("cr0", "cr3", "cr4", "efer", "fs_base", "gs_base", "kernel_gs_base", "lstar", "sfmask")
ODD, TOP, LOW = 1 << 47, 0xFFFF_8000_0000_0000, 0x7FFF_FFFF_FFFF  # not canonical, and what lies on either side
DELIVER = pytest.mark.parametrize("deliver", ["native", "reference", "model"])


def kernel(deliver):
    """*deliver* "model": in the model of an emulator, all in RAM."""
    model = deliver == "model"
    with pytest.MonkeyPatch.context() as patch:
        arch, dispatch, emulator, _ = Machine.__init__.__defaults__
        chosen = (Switches(), "native") if model else (emulator, deliver)
        patch.setattr(Machine.__init__, "__defaults__", (arch, dispatch, *chosen))
        k = Kernel(**(IN_RAM if model else {}))
    k.handle(GP, "hlt")
    return k


def write_of(register, value):
    """(instruction, general registers) that write the control register or, by its number, the MSR."""
    if isinstance(register, str):
        return f"mov {register}, r10", {"r10": value}
    return "wrmsr", {"rcx": register, "rdx": value >> 32, "rax": value & 0xFFFF_FFFF}


def state(k):
    return {name: k.machine.cpu.read(name) for name in STATE}


def write(k, register, value, before="", **more):
    """Run the write between other instructions; (result, its address)."""
    instruction, registers = write_of(register, value)
    lead = f"{before}mov eax, r12d; cmp ebp, 4"
    at = CODE + len(asm("x86_64", f"{ENTER}; {lead}"))
    registers["r12"] = registers.pop("rax", 0)
    return k.run(f"{lead}; {instruction}; inc r15; mov r14, rsp", rbp=3, **registers, **more), at


VALUES = {
    "a reserved bit of CR0": ("cr0", CR0 | 1 << 32), "the last bit of CR0": ("cr0", CR0 | 1 << 63),
    "paging without protection": ("cr0", CR0 & ~PE), "NW without CD": ("cr0", CR0 | NW),
    "no paging in 64-bit code": ("cr0", CR0 & ~PG),
    "VME": ("cr4", CR4 | 1), "PVI": ("cr4", CR4 | 2), "UMIP": ("cr4", CR4 | 1 << 11),
    "5 levels": ("cr4", CR4 | 1 << 12), "VMX": ("cr4", CR4 | 1 << 13),
    "protection keys": ("cr4", CR4 | 1 << 22), "CET": ("cr4", CR4 | 1 << 23), "LAM": ("cr4", CR4 | 1 << 28),
    "bit 15 of CR4": ("cr4", CR4 | 1 << 15), "bit 32 of CR4": ("cr4", CR4 | 1 << 32),
    "no PAE in long mode": ("cr4", CR4 & ~PAE),
    "a root above the address width": ("cr3", 1 << 52), "a masked pointer in CR3": ("cr3", 1 << 61),
    "bit 63 without PCIDs": ("cr3", NOFLUSH), "a priority of 16": ("cr8", 16), "a negative priority": ("cr8", 1 << 63),
    "a reserved bit of EFER": (0xC0000080, EFER | 2), "SVM": (0xC0000080, EFER | 1 << 12),
    "the last bit of EFER": (0xC0000080, EFER | 1 << 63), "no long mode": (0xC0000080, EFER & ~LME),
    "LSTAR": (0xC0000082, ODD), "CSTAR": (0xC0000083, TOP - 1), "FS": (0xC0000100, ODD), "GS": (0xC0000101, 1 << 63),
    "kernel GS": (0xC0000102, LOW + 1), "a stack of SYSENTER": (0x175, ODD), "SYSENTER": (0x176, ODD),
    "SFMASK": (0xC0000084, 1 << 32), "TSC_AUX": (0xC0000103, 1 << 40),
}  # fmt: skip


@pytest.mark.parametrize("what", VALUES)
@DELIVER
def test_a_value_that_no_cpu_holds_is_gp_and_nothing_happens(what, deliver):
    """At the instruction, which stands between others; with the registers and flags from before it."""
    register, value = VALUES[what]
    with kernel(deliver) as k:
        if register == "cr3" and value != NOFLUSH:
            value |= k.machine.registers["cr3"]
        before = state(k)
        r, at = write(k, register, value, r14=0, r15=0)
        (delivered,) = r.delivered
        assert (delivered.exception, delivered.pc) == (REFUSED, at)
        assert state(k) == before
        assert (r.registers["r14"], r.registers["r15"]) == (0, 0)
        error, pc, _, flags = k.words(r.registers["rsp"], 4)
        assert (error, pc, flags & 0x8D5) == (0, at, 0x95)  # of 3 - 4: CF, AF, SF, and PF


PERMITTED = {
    "no write protection": ("cr0", CR0 & ~(1 << 16)), "no caches": ("cr0", CR0 | CD | NW), "CD": ("cr0", CR0 | CD),
    "ignored bits of CR0": ("cr0", CR0 | 1 << 6 | 1 << 28), "every bit of CR4": ("cr4", 0x3707FC),
    "the priority": ("cr8", 15), "EFER": (0xC0000080, EFER & ~0x801), "LMA is not written": (0xC0000080, EFER & ~0x400),
    "LSTAR": (0xC0000082, TOP), "FS": (0xC0000100, LOW), "GS": (0xC0000101, TOP), "kernel GS": (0xC0000102, LOW),
    "SFMASK": (0xC0000084, 0xFFFF_FFFF), "the PAT": (0x277, 0x0007_0106_0005_0406),
}  # fmt: skip


@pytest.mark.parametrize("what", PERMITTED)
@pytest.mark.parametrize("deliver", ["native", "model"])
def test_a_value_that_a_cpu_holds_is_taken(what, deliver):
    with kernel(deliver) as k:
        r, _ = write(k, *PERMITTED[what], r15=0)
        assert (r.stop.reason, r.delivered, r.registers["r15"]) == ("halt", (), 1)
        assert r.registers["efer"] & 0x400


SET_PCIDE = "mov rax, cr4; bts rax, 17; mov cr4, rax; "


@DELIVER
def test_pcids_are_not_turned_on_while_cr3_has_a_low_bit(deliver):
    """PWT, PCD and ignored bits would become the PCID."""
    with kernel(deliver) as k:
        start = "mov rax, cr3; or rax, 8; mov cr3, rax; "
        r, at = write(k, "cr4", CR4 | PCIDE, start, r15=0)
        assert [(d.exception, d.pc) for d in r.delivered] == [(REFUSED, at)]
        assert r.registers["cr4"] == CR4


@pytest.mark.parametrize("deliver", ["native", "model"])
def test_with_pcids_bit_63_and_a_pcid_are_taken_and_pcids_may_stay_on(deliver):
    with kernel(deliver) as k:
        root = k.machine.registers["cr3"]
        before = f"{SET_PCIDE}mov rax, cr3; bts rax, 63; or rax, 5; mov cr3, rax; "
        r, _ = write(k, "cr4", CR4 | PCIDE | 1 << 20, before, r15=0)
        assert (r.delivered, r.registers["r15"], r.registers["cr3"]) == ((), 1, root | 5)


def test_a_kernel_goes_on_behind_a_write_that_was_refused():
    """The handler of #GP passes over it."""
    with kernel("native") as k:
        k.handle(GP, "add rsp, 8; add qword ptr [rsp], 4; iretq")
        r, at = write(k, "cr3", 1 << 55, r15=0)
        assert [d.pc for d in r.delivered] == [at]
        assert (r.stop.reason, r.registers["r15"]) == ("halt", 1)


def test_the_mod_bits_of_a_move_say_nothing():
    """0F 22 24 is MOV CR4, RSP all the same. Nothing follows it: not the SIB byte of an operand in memory."""
    with machine() as m:
        at = CODE + (64 << 10) - 3
        m.load(b"\x90")
        m.write(at, b"\x0f\x22\x24")
        stop = m.set(rip=at, rsp=CR4 | 1 << 22).run().stop
        assert (stop.exception, stop.pc) == (REFUSED, at)


@pytest.mark.parametrize("counted", [{}, {"limit": 100}])
def test_a_write_that_is_refused_faults_also_when_instructions_are_counted(counted):
    with machine() as m:
        m.load(code("x86_64", "nop; mov cr8, r10")).set(r10=16)
        stop = m.run(**counted).stop
        assert (stop.reason, stop.exception, stop.pc) == ("fault", REFUSED, CODE + 1)


# -- code of 32 bits ----------------------------------------------------------------------------------


def boot(source, **registers):
    """The result of 32-bit code that starts without paging."""
    space, _, _ = two_way()
    with Machine(space) as m:
        return m.boot(header() + asm("x86_64", f".code32; {source}; hlt")).set(**registers).run()


@pytest.mark.parametrize("source", [
    "mov eax, 0x80000010; mov cr0, eax", "mov eax, 0x20000011; mov cr0, eax",
    "mov eax, 0x20020; mov cr4, eax", "mov eax, 0x1020; mov cr4, eax",
    "mov ecx, 0xc0000080; mov eax, 0x100; xor edx, edx; wrmsr; mov eax, 0x80000011; mov cr0, eax",
    "mov ecx, 0xc0000080; mov eax, 2; xor edx, edx; wrmsr",
])  # fmt: skip
def test_code_of_32_bits_is_refused_what_it_may_not_write(source):
    stop = boot(source).stop
    length = len(asm("x86_64", f".code32; {source}"))
    last = 2 if source.endswith("wrmsr") else 3
    assert (stop.reason, stop.exception, stop.pc) == ("fault", REFUSED, 0x10_0020 + length - last)


@pytest.mark.parametrize("source", [
    "mov eax, cr0; inc esp; mov cr0, eax", "mov eax, cr0; inc esp; .byte 0x66; mov cr0, eax",
    "mov eax, 0x20; mov cr4, eax; xor eax, eax; mov cr4, eax",
    "mov eax, 0xfffff018; mov cr3, eax",
])  # fmt: skip
def test_code_of_32_bits_may_write_what_it_writes(source):
    """44 is INC ESP there, and would make the MOV that follows one to CR8."""
    assert boot(source).stop.reason == "halt"


def test_a_write_that_is_refused_is_not_taken_for_the_instruction_before():
    """44, which would be a prefix in 64-bit code, runs; then the MOV is refused where it begins."""
    r = boot("mov eax, 0x1020; inc esp; .byte 0x66; mov cr4, eax", rsp=0)
    assert (r.stop.exception, r.stop.pc, r.registers["rsp"]) == (REFUSED, 0x10_0020 + 6, 1)


def test_code_of_32_bits_writes_the_lower_half():
    assert boot("mov cr4, ebx", rbx=1 << 40 | PAE).stop.reason == "halt"


def test_paging_of_32_bits_needs_no_pae():
    """Tables of one entry, a page of 4 MiB."""
    tables = "mov dword ptr [0x10000], 0x83; mov eax, 0x10; mov cr4, eax; mov eax, 0x10000; mov cr3, eax"
    r = boot(f"{tables}; mov eax, 0x80000011; mov cr0, eax")
    assert (r.stop.reason, r.registers["cr0"] & PG) == ("halt", PG)


@pytest.mark.parametrize("marks, taken", [(0xCF9A, True), (0xEF9A, False), (0xAF9A, False)])
def test_long_mode_is_not_entered_by_code_that_is_marked_for_it(marks, taken):
    """CS.L with and without CS.D: outside of long mode it says nothing but this."""
    gdt = f"mov dword ptr [0x9008], 0xffff; mov dword ptr [0x900c], {marks << 8}"
    load = "mov dword ptr [0x9100], 0x90000017; mov dword ptr [0x9104], 0; lgdt [0x9100]"
    load += "; .byte 0xea; .long {}; .short 8"
    enter = "mov eax, 0x20; mov cr4, eax; mov ecx, 0xc0000080; mov eax, 0x100; xor edx, edx; wrmsr; mov eax, 0x80000011"
    source = f"{gdt}; {load}; {enter}; mov cr0, eax"
    at = 0x10_0020 + len(asm("x86_64", f".code32; {gdt}; {load.format(0)}"))
    if marks == 0xAF9A:  # code of 16 bits then: operands of 32 bits need a prefix
        source = f"{gdt}; {load}; .code16; {enter}; mov cr0, eax"
    stop = boot(source.format(at)).stop
    assert (stop.exception == REFUSED) is not taken
    assert taken or stop.pc == 0x10_0020 + len(asm("x86_64", f".code32; {source.format(at)}")) - 3


PAE_TABLES = "mov dword ptr [0x10000], 0x11001; mov dword ptr [0x10004], {}; mov dword ptr [0x11000], 0x83; "
PAE_ON = "mov eax, 0x10000; mov cr3, eax; mov eax, 0x20; mov cr4, eax; mov eax, 0x80000011; mov cr0, eax"


@pytest.mark.parametrize("source, taken", [
    ("{on}", True), ("mov dword ptr [0x10000], 0x11003; {on}", False), ("mov dword ptr [0x10008], 2; {on}", True),
    ("mov dword ptr [0x10018], 0x101; {on}", False),
    ("mov dword ptr [0x1001c], 1 << 20; mov byte ptr [0x10018], 1; {on}", False),
    ("{on}; mov dword ptr [0x10000], 0x11003; mov eax, 0xb0; mov cr4, eax", False),
    ("{on}; mov dword ptr [0x10000], 0x11003; mov eax, 0x24; mov cr4, eax", True),
    ("{on}; mov dword ptr [0x10000], 0x11003; mov eax, 0xc0000011; mov cr0, eax", False),
    ("{on}; mov dword ptr [0x10000], 0x11003; mov eax, 0x80010011; mov cr0, eax", True),
    ("{on}; mov dword ptr [0x10020], 3; mov eax, 0x10000; mov cr3, eax", True),
    ("{on}; mov dword ptr [0x10020], 3; mov eax, 0x10020; mov cr3, eax", False),
])  # fmt: skip
def test_pae_paging_loads_its_pointers_and_refuses_reserved_bits(source, taken):
    """At MOV to CR0 and CR4 that change what counts for it, and at any MOV to CR3."""
    text = PAE_TABLES.format(0) + source.format(on=PAE_ON)
    stop, length = boot(text).stop, len(asm("x86_64", f".code32; {text}"))
    assert (stop.exception, stop.pc) == (REFUSED, 0x10_0020 + length - 3) or taken
    assert stop.exception != REFUSED or not taken


def test_long_mode_is_not_entered_with_a_task_of_16_bits():
    set_task = "mov dword ptr [0x9008], 0x67; mov dword ptr [0x900c], {}; mov dword ptr [0x9100], 0x9000000f"
    set_task += "; mov dword ptr [0x9104], 0; lgdt [0x9100]; mov eax, 8; ltr ax; "
    enter = "mov eax, 0x20; mov cr4, eax; mov ecx, 0xc0000080; mov eax, 0x100; xor edx, edx; wrmsr; mov eax, 0x80000011"
    for kind, refused in ((0x8100, True), (0x8900, False)):
        stop = boot(f"{set_task.format(kind)}{enter}; mov cr0, eax").stop
        assert (stop.exception == REFUSED) is refused


def test_long_mode_is_left_by_code_of_32_bits():
    """From compatibility mode, as manuals say: no paging, then no LME."""
    leave = "mov eax, cr0; btr eax, 31; mov cr0, eax; mov ecx, 0xc0000080; rdmsr; btr eax, 8; wrmsr; hlt"
    source = TO_LONG_MODE[: TO_LONG_MODE.index(" lgdt")].removeprefix(".code32; ")
    r = boot(f"{source} {leave}")
    assert (r.stop.reason, r.registers["efer"] & 0x500, r.registers["cr0"] & PG) == ("halt", 0, 0)


def test_long_mode_stays_while_it_pages():
    """In compatibility mode: PAE and LME are not cleared, and the reserved bits of CR4 not set."""
    source = TO_LONG_MODE[: TO_LONG_MODE.index(" lgdt")].removeprefix(".code32; ")
    for write in ("xor eax, eax; mov cr4, eax", "rdmsr; btr eax, 8; wrmsr", "mov eax, 0x400020; mov cr4, eax"):
        assert boot(f"{source} {write}").stop.exception == REFUSED


# -- the twins ----------------------------------------------------------------------------------------

MSRS = (0x175, 0x176, 0x277, *range(0xC0000080, 0xC0000085), *range(0xC0000100, 0xC0000104))
bits = st.integers(0, 63).map(lambda n: 1 << n)
values = st.one_of(
    bits, st.sampled_from((0, CR0, CR4, EFER, ODD, TOP, LOW)), st.integers(0, (1 << 64) - 1),
    st.tuples(st.sampled_from((CR0, CR4, EFER)), bits).map(lambda two: two[0] ^ two[1]))


@given(st.one_of(st.sampled_from(sorted(MOVES)), st.sampled_from(MSRS)), values, st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example("cr4", CR4 | PCIDE, False, True)
@example("cr3", NOFLUSH, True, False)
def test_c_refuses_what_the_reference_refuses(register, value, pcide, low):
    """With and without PCIDs, with and without a low bit in CR3."""
    instruction, registers = write_of(register, value)
    with machine() as m:
        m.load(asm("x86_64", instruction) + b"\xf4")
        m.set(cr4=CR4 | pcide * PCIDE, cr3=m.registers["cr3"] | low * 8, **registers)
        permitted = move_permitted if isinstance(register, str) else msr_permitted
        expected = permitted(m.cpu, register, value)
        stop = m.run().stop
        refused = (stop.reason, stop.exception, stop.pc) == ("fault", REFUSED, CODE)
        assert refused is not expected
