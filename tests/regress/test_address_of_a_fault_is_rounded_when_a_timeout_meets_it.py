"""
A guest's handler got the first byte of the page for the address of a fault, once in some thousands.

The exact address comes from a replay of the instruction, which a request to end the run, such as that of a timeout,
ended before it had told anything.
"""

import threading

from tests.guest.kernel import ENTER, Kernel
from tests.guest.machines import CODE, DATA, asm

FAULTS = 20_000
NOWHERE = 0x3000_0123
# mov ecx, FAULTS; 1: mov eax, [rbx]; dec ecx; jnz 1b; hlt
PROGRAM = b"\xb9" + FAULTS.to_bytes(4, "little") + bytes.fromhex("8b03 ffc9 75fa f4")


def test_address_of_a_fault_is_rounded_when_a_timeout_meets_it():
    with Kernel(**dict.fromkeys(("tables", "code", "data", "stack"), "ram")) as k:
        m, done, reason, seen = k.machine, threading.Event(), "timeout", set()
        k.handle(14, "add qword ptr [rsp+8], 2; add rsp, 8; iretq")
        m.write(CODE, asm("x86_64", ENTER) + PROGRAM)
        m.set(rdi=DATA, rbx=NOWHERE, rip=CODE)

        def interrupt():
            while not done.is_set():
                m.cpu.interrupt()

        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            while reason == "timeout":
                result = m.run(timeout=None)
                reason = result.stop.reason
                seen |= {d.exception.cr2 for d in result.delivered}
        finally:
            done.set()
            thread.join()
    assert seen <= {NOWHERE}
