"""Mistakes in the atlas itself: what it expects, what it counts, and how an emulator's windows look on a bus."""

from tests.mutations import Mutation

EXPECTED = ("tests/cli/test_bug.py", "-k", "complaints or mended or release or one_object or status")
ALIASES = ("tests/regress/test_interleaved_range_is_shown_as_plain_ram.py",)
EXITS = ("tests/regress/test_reserved_encoding_ends_the_process.py",)

MUTATIONS = (
    Mutation(
        "atlas: counts are not compared",
        "cxl/bugs/bug.py",
        "if seen.counts.get(name) != value:",
        "if False:",
        EXPECTED,
    ),
    Mutation(
        "atlas: the message is not compared",
        "cxl/bugs/bug.py",
        "elif self.message not in seen.message:",
        "elif False:",
        EXPECTED,
    ),
    Mutation(
        "atlas: a release is run without what the trigger needs",
        "cxl/bugs/bug.py",
        "return switches_of(release).replace(**self.needs)",
        "return switches_of(release)",
        ("tests/bugs/test_matrix.py",),
    ),
    Mutation(
        "atlas: the exit status is 0 whatever is seen",
        "cxl/cli/bug.py",
        "return int(any(r.complaints for r in runs))",
        "return 0",
        EXPECTED,
    ),
    Mutation(
        "atlas: a lock that is held twice counts as one",
        "cxl/bugs/rig.py",
        'counts = counts_of(trace) | {"lock_depth": stop.counters.lock_depth}',
        "counts = counts_of(trace)",
        ("tests/regress/test_interrupt_through_mmio_tables_takes_the_lock_twice.py",),
    ),
    Mutation(
        "atlas: what a guest must leave in registers is not looked at",
        "cxl/bugs/rig.py",
        "if result.registers[n] != v]",
        "if False]",
        ("tests/regress/test_rewritten_straddling_instruction_runs_as_before.py",),
    ),
    Mutation(
        "emulator: an alias stays when its decoder is uncommitted",
        "cxl/emulator.py",
        "if not s.committed or s.iw or found is None:",
        "if s.iw or found is None:",
        ALIASES,
    ),
    Mutation(
        "emulator: what a device decoder interleaves is RAM",
        "cxl/emulator.py",
        "if not s.committed or s.iw or found is None:",
        "if not s.committed or found is None:",
        ALIASES,
    ),
    Mutation(
        "emulator: an alias begins at the device's first byte",
        "cxl/emulator.py",
        "Alias(self._memory[id(device)], s.dpa + first - s.base, last - first + 1)",
        "Alias(self._memory[id(device)], 0, last - first + 1)",
        ALIASES,
    ),
    Mutation(
        "emulator: every address of a window with a reserved encoding ends the process",
        "cxl/emulator.py",
        "if isinstance(found, Exit):",
        "if True:",
        EXITS,
    ),
    Mutation(
        "emulator: stores do not end the process",
        "cxl/emulator.py",
        "            check(at)\n            return self._bare.store(base + at, n, value)",
        "            return self._bare.store(base + at, n, value)",
        EXITS,
    ),
    Mutation(
        "run: flags are left clear although they are to be set",
        "cxl/job.py",
        "if self.release is not None and self._flags_set:",
        "if False:",
        ("tests/cli/test_run_release.py",),
    ),
)
