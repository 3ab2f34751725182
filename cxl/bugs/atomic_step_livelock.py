"""The step that carries out an atomic alone may not do I/O."""

from __future__ import annotations

from cxl.bugs.atomic_flags import arm64, x86
from cxl.bugs.bug import Bug, Expected, Fix, Outcome

BUG = Bug(
    name="atomic-step-livelock",
    title="an atomic instruction on CXL memory never ends",
    trigger="""
        An atomic read-modify-write on memory without a host address is carried out in a block of one
        instruction while all other CPUs stand still. When I/O came to be allowed only where a block says so,
        this block did not: its access asks for the block to be cut to one instruction and run again, where the
        atomic needs all CPUs to stand still, and so on for ever.
    """,
    fix=Fix("fixed", commit="the removal of CF_LAST_IO, 2023-10", release="8.2"),
    references=(
        "issue 1961 of the QEMU project",
        "made by 18a536f1f8d6 (8.1.2)",
    ),
    switches=("atomic_step_livelock",),
    policy={"can_do_io": "P1"},
    scenarios={"x86_64": x86, "aarch64": arm64},
    faulty=Expected(Outcome.HANG, "no instruction is completed any more"),
    fixed=Expected(Outcome.OK, counts={"atomic_exits": 1}),
)
