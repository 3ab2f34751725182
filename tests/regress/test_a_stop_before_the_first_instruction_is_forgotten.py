"""
A run that was being made ready, which may take until other machines have come out of theirs, forgot that it had been
asked to end, and went on for ever.
"""

from mmu.guest import sharing
from tests.guest.machines import CODE, code, machine


def test_a_stop_before_the_first_instruction_is_forgotten(monkeypatch):
    with machine() as one, machine():
        def memories(space, found=sharing._memories):
            one.cpu.interrupt()
            return found(space)

        one.load(code("x86_64", "1: jmp 1b"))
        monkeypatch.setattr(sharing, "_memories", memories)
        stop = one.run(limit=1000).stop
        assert (stop.reason, stop.pc) == ("timeout", CODE)
        monkeypatch.undo()
        assert one.run(limit=1000).stop.reason == "limit"  # one stop ends one run
