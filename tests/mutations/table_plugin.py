"""Mistakes in the pytest plugin and what it compares, and in the command walk."""

from tests.mutations import Mutation

TESTING = ("tests/plugin/test_testing.py",)


def plugin(word: str) -> tuple[str, ...]:
    return ("tests/plugin/test_plugin.py", "-k", word)


MUTATIONS = (
    Mutation(
        "plugin: a pattern matches every event of its kind",
        "cxl/testing/events.py",
        "if not (wanted(known[name]) if callable(wanted) else known[name] == wanted):",
        "if False:",
        TESTING,
    ),
    Mutation(
        "plugin: patterns may come in any order",
        "cxl/testing/events.py",
        "if rest and rest[0].matches(e):\n                rest.pop(0)",
        "rest = [p for p in rest if not p.matches(e)]",
        TESTING,
    ),
    Mutation(
        "plugin: registers are not compared",
        "cxl/testing/expect.py",
        "elif ran.registers[name] != wanted:",
        "elif False:",
        TESTING,
    ),
    Mutation(
        "plugin: any end of a run will do",
        "cxl/testing/expect.py",
        "if self.outcomes and ran.outcome not in self.outcomes:",
        "if False:",
        TESTING,
    ),
    Mutation(
        "plugin: exceptions are not compared",
        "cxl/testing/expect.py",
        "for n, v in self.members.items() if n not in known or known[n] != v",
        "for n, v in self.members.items() if n not in known",
        TESTING,
    ),
    Mutation(
        "plugin: walks write although the flags are set",
        "cxl/testing/guest.py",
        'FLAGS = ("A", "D", "AF")',
        'FLAGS = ("A", "AF")',
        TESTING,
    ),
    Mutation(
        "plugin: RAM is in the trace",
        "cxl/testing/ran.py",
        "        if found is not None and isinstance(found.region, Ram)",
        "        if found is None and isinstance(found.region, Ram)",
        TESTING,
    ),
    Mutation(
        "plugin: a test with a bug is run without it twice",
        "cxl/testing/bugs.py",
        "return bug.emulator(Mode(mode))",
        "return bug.emulator(Mode.FIXED)",
        plugin("both_ways"),
    ),
    Mutation(
        "plugin: a comparison that failed is not explained",
        "cxl/pytest_plugin.py",
        'if op != "==" or "cxl.testing" not in sys.modules:',
        "if True:",
        plugin("says_what_differs"),
    ),
    Mutation(
        "plugin: machines stay open",
        "cxl/pytest_plugin.py",
        "        guest.close()",
        "        pass",
        plugin("closed"),
    ),
    Mutation(
        "walk: the table is where its entry is",
        "cxl/cli/walk.py",
        "self.table = step.address - self.index * level.width",
        "self.table = step.address",
        ("tests/cli/test_walk.py",),
    ),
)  # fmt: skip
