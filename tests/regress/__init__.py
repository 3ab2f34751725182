"""One file per bug of the atlas, named by its symptom. What must be seen is written here, not taken from there."""

from cxl.bugs import get
from cxl.bugs.bug import Mode


def faulty(name, arch=None):
    """What the scenario of bug *name* shows with that bug and no other."""
    return _run(name, Mode.FAULTY, arch)


def fixed(name, arch=None):
    return _run(name, Mode.FIXED, arch)


def _run(name, mode, arch):
    bug = get(name)
    return bug.run(bug.chosen(arch), bug.emulator(mode))


def bus(seen):
    """The accesses of a run to memory without a host address."""
    return [event for event in seen.trace if event[0] == "bus"]
