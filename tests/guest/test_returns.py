"""IRETQ, RETFQ and SYSRETQ to an address that is not canonical: #GP(0) where they are, and nothing has happened.

The engine goes there, and faults then, with the stack and the privilege of the program.
"""

import pytest

from mmu.guest.stop import Interrupt
from tests.guest.kernel import GDTR, USER, USER_STACK, Kernel, segment
from tests.guest.machines import CODE, DATA, asm, code, machine
from tests.guest.test_control_registers import LOW, ODD, REFUSED, TOP

PROGRAM, KERNEL = (0x23, 0x1B), (8, 0x10)
GP, UD, PF = 13, 6, 14
NATIVE = pytest.mark.parametrize("deliver", ["native", "reference"])
STAR = 0x0013_0008 << 32


def kernel(deliver, *vectors):
    """With the handlers of *vectors*, which stop."""
    with pytest.MonkeyPatch.context() as patch:
        from mmu.machine import Machine

        arch, dispatch, emulator, _ = Machine.__init__.__defaults__
        patch.setattr(Machine.__init__, "__defaults__", (arch, dispatch, emulator, deliver))
        k = Kernel()
    for vector in vectors:
        k.handle(vector, "hlt")
    return k


def returned(k, source, frame, at=DATA + 0x8000, **registers):
    """The result of *source* in the kernel, with *frame* on the stack at *at*."""
    k.machine.write(at, b"".join(word.to_bytes(8, "little") for word in frame))
    return k.run(f"mov rsp, r14; cmp ebp, 4; {source}; ud2", r14=at, rbp=3, **registers)


@pytest.mark.parametrize("target", [ODD, TOP - 1, 1 << 63, LOW + 1])
@pytest.mark.parametrize("cs, ss", [PROGRAM, KERNEL])
@NATIVE
def test_iretq_to_an_address_that_is_not_canonical_is_gp_at_the_iretq(target, cs, ss, deliver):
    with kernel(deliver, GP) as k:
        r = returned(k, "iretq", (target, cs, 2, USER_STACK, ss))
        (delivered,) = r.delivered
        error, pc, old_cs, flags, rsp, old_ss = k.words(r.registers["rsp"], 6)
        assert (delivered.exception, error) == (REFUSED, 0)
        assert k.machine.read(pc, 2) == asm("x86_64", "iretq")
        assert (old_cs, rsp, old_ss, flags & 0x8D5) == (8, DATA + 0x8000, 0x10, 0x95)


@pytest.mark.parametrize("source", ["rex.w retf", "rex.w retf 16"])
@NATIVE
def test_retfq_to_an_address_that_is_not_canonical_is_gp_at_the_retfq(source, deliver):
    with kernel(deliver, GP) as k:
        r = returned(k, source, (ODD, 8))
        assert [d.exception for d in r.delivered] == [REFUSED]
        assert k.words(r.registers["rsp"], 5)[4] == DATA + 0x8000


@pytest.mark.parametrize("target", [TOP, LOW, USER])
@NATIVE
def test_iretq_to_the_ends_of_the_address_space_goes_there(target, deliver):
    with kernel(deliver, GP, PF) as k:
        r = returned(k, "iretq", (target, 8, 2, DATA + 0x7000, 0x10))
        (delivered,) = r.delivered
        assert (delivered.exception.vector, delivered.pc) == (PF, target)


@NATIVE
def test_a_frame_that_iretq_cannot_read_is_a_page_fault_all_the_same(deliver):
    with kernel(deliver, GP, PF) as k:
        end = k.machine.plan.data.va + k.machine.plan.data.size
        r = returned(k, "iretq", (ODD, 0x23), at=end - 16)
        assert [d.exception.vector for d in r.delivered] == [PF]
        assert r.registers["cr2"] == end


@pytest.mark.parametrize("target", [ODD, 1 << 63, TOP - 1])
@NATIVE
def test_sysretq_to_an_address_that_is_not_canonical_is_gp_in_the_kernel(target, deliver):
    """With the kernel's stack and segments, as on a CPU of Intel."""
    with kernel(deliver, GP) as k:
        r = k.run("mov rsp, r14; rex.w sysret", star=STAR, rcx=target, r11=2, r14=DATA + 0x8000)
        assert [d.exception for d in r.delivered] == [REFUSED]
        _, _, cs, _, rsp, ss = k.words(r.registers["rsp"], 6)
        assert (cs, rsp, ss) == (8, DATA + 0x8000, 0x10)


@pytest.mark.parametrize("flags, kept", [
    (0x3E_FFFF_FFFF & ~0x100, 0x3C_7ED7), (1 << 17, 2), (1 << 16 | 1, 3), (1 << 19, 1 << 19 | 2), (0x8D5, 0x8D7),
    (1 << 20, 1 << 20 | 2),
])  # fmt: skip
@NATIVE
def test_sysretq_takes_the_flags_of_r11_but_rf_and_vm(flags, kept, deliver):
    """The engine would take RF, and VM, which makes it read 8086 code; and leave VIF and VIP."""
    with kernel(deliver, GP, UD) as k:
        k.machine.write(USER, asm("x86_64", "ud2"))
        r = k.run("mov rsp, r14; rex.w sysret", star=STAR, rcx=USER, r11=flags, r14=DATA + 0x8000)
        assert [(d.exception, d.pc) for d in r.delivered] == [(Interrupt(UD), USER)]
        _, cs, pushed, rsp, ss = k.words(r.registers["rsp"], 5)
        assert (cs, rsp, ss) == (0x23, DATA + 0x8000, 0x1B)
        assert pushed & ~(1 << 16) == kept


def test_sysret_to_32_bits_is_no_matter_of_canonical_addresses():
    with kernel("native", UD) as k:
        k.machine.write(USER, asm("x86_64", ".code32; inc eax; inc eax; ud2"))
        r = k.run("mov eax, 5; .byte 0x0f, 0x07", star=STAR, rcx=USER | ODD, r11=1 << 16)
        assert [(d.exception, d.pc) for d in r.delivered] == [(Interrupt(UD), USER + 2)]
        assert (r.registers["rax"], k.words(r.registers["rsp"], 2)[1]) == (7, 0x13)


@pytest.mark.parametrize("source", ["syscall", "dec eax; .byte 0x0f, 0x07", ".byte 0x0f, 0x07"])
@NATIVE
def test_code_of_32_bits_has_no_fast_system_calls(source, deliver):
    """On a CPU of Intel SYSCALL and SYSRET are invalid there."""
    with kernel(deliver, UD) as k:
        k.machine.write(USER, asm("x86_64", f".code32; {source}"))
        k.machine.cpu.set_msr(0x174, 8)
        r = k.run(".byte 0x0f, 0x35", star=STAR, rcx=USER_STACK, rdx=USER, rax=9)
        at = USER + (source.startswith("dec"))
        assert [(d.exception, d.pc) for d in r.delivered] == [(Interrupt(UD), at)]


def test_code_of_32_bits_returns_where_it_likes():
    """48 CF is DEC EAX and IRET there, whose frame has 4-byte words."""
    with kernel("native", UD, GP) as k:
        k.machine.write(USER, asm("x86_64", ".code32; .byte 0x48, 0xcf"))
        k.machine.cpu.set_msr(0x174, 8)
        frame = b"".join(n.to_bytes(4, "little") for n in (USER + 0x80, 0x3B, 2, 1 << 31, 0x1B))
        k.machine.write(USER + 0x1000, frame)
        k.machine.write(DATA + 0x38, bytes.fromhex("ffff000000facf00"))  # CODE32, for programs
        k.machine.write(USER + 0x80, asm("x86_64", "ud2"))
        r = k.run(".byte 0x0f, 0x35", star=STAR, rcx=USER + 0x1000, rdx=USER, rax=9)
        assert [(d.exception, d.pc) for d in r.delivered] == [(Interrupt(UD), USER + 0x80)]


@pytest.mark.parametrize("split", [1, 2])
def test_iretq_across_two_pages_is_looked_at_too(split):
    with machine() as m:
        at = CODE + 0x2000 - split
        m.load(code("x86_64", "nop")).write(at, asm("x86_64", "iretq") + b"\xf4")
        m.write(DATA, b"".join(n.to_bytes(8, "little") for n in (ODD, 8, 2, 0, 0x10)))
        stop = m.set(rip=at, rsp=DATA).run().stop
        assert (stop.exception, stop.pc) == (REFUSED, at)


# -- descriptor tables ------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["[rdi+0x5000]", "[rip+9f]", "[rbx+r9*8+0x40]", "[0x10005000]"])
@pytest.mark.parametrize("name", ["lgdt", "lidt"])
def test_a_table_that_is_not_canonical_is_gp(name, address):
    with machine() as m:
        source = f"{name} {address}; hlt; 9: .short 0x7f; .quad 1 << 47"
        m.load(asm("x86_64", source))
        for at in (DATA + 0x5000, DATA + 0x6000 + 8 * 3 + 0x40):
            m.write(at, (0x7F).to_bytes(2, "little") + ODD.to_bytes(8, "little"))
        before = m.cpu.table("gdtr"), m.cpu.table("idtr")
        stop = m.set(rdi=DATA, rbx=DATA + 0x6000, r9=3).run().stop
        assert (stop.exception, stop.pc) == (REFUSED, CODE)
        assert (m.cpu.table("gdtr"), m.cpu.table("idtr")) == before


@pytest.mark.parametrize("base", [TOP, LOW, 0])
def test_a_table_that_is_canonical_is_taken(base):
    with machine() as m:
        m.load(code("x86_64", "lidt [rdi]"))
        m.write(DATA, (0x7F).to_bytes(2, "little") + base.to_bytes(8, "little"))
        assert m.run().stop.reason == "halt"
        assert m.cpu.table("idtr")[1:] == (base, 0x7F)


def test_no_task_is_gp():
    with machine() as m:
        m.load(code("x86_64", "mov eax, 3; ltr ax"))
        stop = m.run().stop
        assert (stop.exception, stop.pc) == (REFUSED, CODE + 5)


def test_movntps_is_of_sse_and_no_matter_of_sse4a():
    with machine() as m:
        assert m.load(code("x86_64", "movntps [rdi], xmm0; movntpd [rdi], xmm1")).run().stop.reason == "halt"


@pytest.mark.parametrize("cs, ss, vector, code", [
    (0x53, 0x63, 12, 0x60), (0x5B, 0x63, 11, 0x58), (0x53, 0x1B, None, None), (0x53, 0x5B, 13, 0x58),
])  # fmt: skip
@pytest.mark.parametrize("source", ["iretq", "rex.w retf", "iret", "retf"])
@NATIVE
def test_a_stack_that_is_not_present_is_ss_and_code_that_is_not_is_np(cs, ss, vector, code, source, deliver):
    with kernel(deliver, UD, 11, 12, GP) as k:
        k.machine.write(DATA + 0x50, segment(0xFA, 0xA) + segment(0x7A, 0xA) + segment(0x72, 0xC))
        k.machine.write(GDTR, (0x67).to_bytes(2, "little"))
        k.machine.write(USER, asm("x86_64", "ud2"))
        flags = [2] if "iret" in source else []
        frame = [USER, cs, *flags, USER_STACK, ss]
        if source in ("iret", "retf"):  # words of 4 bytes
            frame = [low | high << 32 for low, high in zip(frame[::2], [*frame[1::2], 0])]
        (delivered,) = returned(k, source, frame).delivered
        assert delivered.exception == (Interrupt(UD) if vector is None else Interrupt(vector, code))
