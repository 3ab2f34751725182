"""Mistakes in grooming."""

from tests.mutations import Mutation

SAME = ("tests/groom/test_moving.py", "-k", "program_that or checksum-window")
FIND = ("tests/groom/test_find.py",)


def moving(word: str) -> tuple[str, ...]:
    return ("tests/groom/test_moving.py", "-k", word)


MUTATIONS = (
    Mutation(
        "groom: the first granule counts whole",
        "cxl/groom/find.py",
        "bytes_[ends - grains] -= (lows % grain).astype(np.int64)",
        "bytes_[ends - grains] -= 0",
        FIND,
    ),
    Mutation(
        "groom: an exchange is a write only",
        "cxl/groom/cost.py",
        'entry.kind != "write"',
        'entry.kind == "read"',
        FIND,
    ),
    Mutation(
        "groom: what was not recorded is not missed",
        "cxl/groom/cost.py",
        "usage.complete = False",
        "usage.complete = True",
        FIND,
    ),
    Mutation(
        "groom: tables in RAM are dispatched",
        "cxl/groom/cost.py",
        "return sum(map(sum, self.of(found).values())) if found.in_window else 0",
        "return sum(map(sum, self.of(found).values()))",
        FIND,
    ),
    Mutation(
        "groom: a large page goes where it is not aligned",
        "cxl/groom/moving.py",
        "            base -= (base - unit.first) % unit.align\n",
        "",
        moving("large_page"),
    ),
    Mutation(
        "groom: RAM that holds something is overwritten",
        "cxl/groom/moving.py",
        "self._blank and not self._is_blank(base, size)",
        "False",
        moving("ram_that_is_zero"),
    ),
    Mutation(
        "groom: a part of a page moves without the rest",
        "cxl/groom/moving.py",
        "if any(u.first < e.end and e.first < u.end for u in units)]",
        "if False]",
        moving("large_page"),
    ),
    Mutation(
        "groom: a page of a contiguous run moves without the run",
        "cxl/groom/moving.py",
        "size = runs[size]",
        "size = size",
        moving("contiguous"),
    ),
    Mutation(
        "groom: the place that is named may be in use",
        "cxl/groom/moving.py",
        "if clash := [u for u in used if u[0] < end and first < u[1]]:",
        "if clash := [u for u in used if False]:",
        moving("cannot_go"),
    ),
    Mutation(
        "groom: the PCID is lost with the root",
        "mmu/guest/trees.py",
        "cpu.read(tree.register) - tree.root + root",
        "root",
        moving("pcid"),
    ),
    Mutation(
        "groom: registers may differ",
        "cxl/groom/compare.py",
        "if name not in roots and b.registers[name] != value:",
        "if False:",
        SAME,
    ),
    Mutation(
        "groom: memory may differ",
        "cxl/groom/compare.py",
        "if before.memory.get(va) != after.memory.get(va)",
        "if False",
        SAME,
    ),
    Mutation(
        "groom: the second run goes on where the first one ended",
        "cxl/groom/job.py",
        "    machine.restore(start)\n",
        "",
        SAME,
    ),
)  # fmt: skip
