"""
An instruction that reads, changes and writes memory was carried out twice when a run ended from outside and went on.

The engine looks for a request to stop behind each of its loads and stores, and gives up the instruction that it is in,
whatever that has stored. It skips hooks as well: SYSCALL did nothing, and RDTSC showed the host's clock.
"""

import threading

import pytest

from tests.guest.kernel import ENTER, TO_USER, USER, Kernel
from tests.guest.machines import CODE, DATA, asm, code, machine

COUNT = 20_000_000
LOOPS = {
    "x86_64": (
        "mov ecx, 20000000; 1: inc qword ptr [rdi]; dec ecx; jnz 1b",
        "mov ecx, 20000000; 1: mov eax, 1; xadd [rdi], rax; dec ecx; jnz 1b",
    ),
    "aarch64": (
        "movz x9, #0x2d00; movk x9, #0x131, lsl #16; mov x10, #1; 1: ldadd x10, x11, [x0]; subs x9, x9, #1; b.ne 1b",
    ),
}  # fmt: skip
WHERE = {"x86_64": "rdi", "aarch64": "x0"}


def run_interrupted(m):
    """Runs to the end while another thread ends the run every millisecond: how often it did."""
    done, ended = threading.Event(), 0

    def interrupt():
        while not done.wait(0.001):
            m.cpu.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        while (result := m.run(timeout=None)).stop.reason == "timeout":
            ended += 1
    finally:
        done.set()
        thread.join()
    assert result.stop.reason == "halt"
    return ended


@pytest.mark.parametrize("where", ["ram", "window"])
@pytest.mark.parametrize("arch, source", [(arch, source) for arch in LOOPS for source in LOOPS[arch]])
def test_a_stop_from_outside_repeats_an_instruction(arch, source, where):
    with machine(arch, data=where, tables="ram", code="ram", stack="ram") as m:
        m.load(code(arch, source)).set(**{WHERE[arch]: DATA})
        assert run_interrupted(m) > 3
        assert int.from_bytes(m.read(DATA, 8), "little") == COUNT


def test_a_stop_from_outside_passes_over_system_calls():
    with Kernel() as kernel:
        m = kernel.machine
        m.write(CODE + 0x7000, asm("x86_64", "inc r12; mov r14, [rdi]; sysretq"))
        kernel.handle(13, "hlt")
        m.set(star=0x10 << 48 | 8 << 32, lstar=CODE + 0x7000, sfmask=1 << 9)
        m.write(CODE, asm("x86_64", f"{ENTER}; nop{TO_USER}"))
        m.write(USER, asm("x86_64", "mov ebp, 100000; 1: syscall; dec ebp; jnz 1b; hlt"))
        m.set(rip=CODE, rdi=DATA, r12=0)
        assert run_interrupted(m) > 3
        assert m.registers["r12"] == 100_000


def test_a_stop_from_outside_shows_the_clock_of_the_host():
    with machine() as m:
        source = (
            "mov ecx, 1000000; 1: rdtsc; shl rdx, 32; or rdx, rax; sub rdx, rbx; add rbx, rdx; or r8, rdx; dec ecx;"
            " jnz 1b"
        )
        m.load(code("x86_64", source)).set(rbx=0, r8=0)
        assert run_interrupted(m) > 3
        assert (m.registers["rbx"], m.registers["r8"]) == (1_000_000_000, 1000)
