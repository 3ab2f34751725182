"""Guests with a topology, for the tests of grooming."""

from contextlib import contextmanager

from cxl import Topology
from cxl.groom import groom
from cxl.job import Job, Placement
from tests.guest.machines import code

MIB = 1 << 20
REGION = 0x2F0000000
CODE, DATA = REGION + MIB, REGION + 2 * MIB
ROOTS = {"x86_64": "cr3", "aarch64": "ttbr0_el1"}


@contextmanager
def guest(arch="x86_64", source=None, program=None, **sides):
    """A Job, loaded with a snippet (which is given its end) or a program, all of it in the window but *sides*."""
    job = Job(Topology.default(), arch, Placement(**sides))
    try:
        job.machine.load(code(arch, source) if source is not None else program)
        yield job
    finally:
        job.close()


def groomed(job, **options):
    return groom(job.machine, job.topology, lambda: job.machine.run(timeout=5), apply=True, **options)
