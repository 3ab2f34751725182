"""The publication protocol of csrc/bus.c, every interleaving and every reordering that the orderings allow.

Each thread is a list of operations. An operation may run before an earlier one of its thread unless something keeps
them in order: an acquire load comes before all later ones, a release store after all earlier ones, a fence both, the
same location and a dependency always. What runs is visible to all at once (both x86 and Armv8 are multi-copy atomic).
The kernel's membarrier is an operation of the writer that may only run when no reordering of a reader spans it.
"""

from dataclasses import dataclass, field

import pytest

OLD, NEW = 0, 1  # the two maps
FREED, BLANK, READY = "freed", "blank", "ready"


@dataclass(frozen=True)
class Op:
    """*kind* is load, store, fence or membarrier; a store's value may be a function of the thread's registers."""

    kind: str
    location: str = ""
    value: object = None
    into: str = ""
    order: str = "relaxed"
    needs: tuple[str, ...] = field(default=())  # registers it depends on


def before(a, b):
    """Whether *a*, earlier in its thread, must run before *b*."""
    return (
        a.order == "acquire"
        or b.order == "release"
        or "fence" in (a.kind, b.kind)
        or "membarrier" in (a.kind, b.kind)
        or (a.location and a.location == b.location)
        or bool(a.into and a.into in b.needs)
    )


def writer(publish="release", epoch="release", barrier="membarrier", observe="acquire", state=None):
    """mmu_bus_publish(): fill the new map, store the pointer, move the epoch on, look at the note, free.

    *state*: where the number of the map is stored, "before" the epoch or "behind" it; left out: it does not matter.
    """
    number = Op("store", "state", NEW, order="release")
    return (
        Op("store", "new map", READY),
        Op("store", "map", NEW, order=publish),
        *([number] if state == "before" else []),
        Op("store", "epoch", 2, order=epoch),
        *([number] if state == "behind" else []),
        *([Op(barrier)] if barrier else []),
        Op("load", "note", into="seen", order=observe),
        Op("store", "old map", lambda r: FREED if r["seen"] in (0, 2) else None, needs=("seen",)),
    )


def reader(epoch="acquire", fence=None, follow="acquire", leave="release"):
    """port_enter(), one access, port_leave()."""
    return (
        Op("load", "epoch", into="epoch", order=epoch),
        Op("store", "note", lambda r: r["epoch"], needs=("epoch",)),
        *([Op(fence)] if fence else []),
        Op("load", "map", into="map", order=follow),
        Op("load", lambda r: ("old map", "new map")[r["map"]], into="content", needs=("map",)),
        Op("store", "note", 0, order=leave),
    )


def rememberer(follow="acquire"):
    """port_note(), one access to what is remembered of the old map if the number says so, port_leave()."""
    return (
        Op("load", "epoch", into="epoch", order="acquire"),
        Op("store", "note", lambda r: r["epoch"], needs=("epoch",)),
        Op("load", "state", into="state", order=follow),
        Op("load", lambda r: ("old map", "state")[r["state"]], into="content", needs=("state",)),
        Op("store", "note", 0, order="release"),
    )


START = {"state": OLD, "map": OLD, "epoch": 1, "note": 0, "old map": READY, "new map": BLANK}


def run(op, memory, registers):
    location = op.location(registers) if callable(op.location) else op.location
    if op.kind == "load":
        registers[op.into] = memory[location]
    elif op.kind == "store":
        value = op.value(registers) if callable(op.value) else op.value
        if value is not None:
            memory[location] = value


def outcomes(*threads):
    """Every final content that a reader can have seen (None for the writer), over all executions."""
    seen, found = set(), set()
    todo = [(tuple(frozenset() for _ in threads), tuple(sorted(START.items())), tuple(() for _ in threads))]
    while todo:
        state = todo.pop()
        if state in seen:
            continue
        seen.add(state)
        done, memory, registers = state
        for t, ops in enumerate(threads):
            for i, op in enumerate(ops):
                if i in done[t] or any(j not in done[t] and before(ops[j], op) for j in range(i)):
                    continue
                if op.kind == "membarrier" and any(
                    set(d) != set(range(len(d))) for u, d in enumerate(done) if u != t
                ):
                    continue
                m, r = dict(memory), dict(registers[t])
                run(op, m, r)
                todo.append((
                    (*done[:t], done[t] | {i}, *done[t + 1 :]),
                    tuple(sorted(m.items())),
                    (*registers[:t], tuple(sorted(r.items())), *registers[t + 1 :]),
                ))  # fmt: skip
        if all(len(d) == len(ops) for d, ops in zip(done, threads)):
            found.add(tuple(dict(r).get("content") for r in registers))
    return found


def wrong(*threads):
    return {c for result in outcomes(*threads) for c in result if c in (FREED, BLANK)}


def test_with_membarrier_a_reader_never_sees_a_freed_or_unfinished_map():
    assert outcomes(writer(), reader()) == {(None, READY)}


def test_with_fences_on_both_sides_as_well():
    assert outcomes(writer(barrier="fence"), reader(fence="fence")) == {(None, READY)}


# What goes wrong when one ordering is weakened; nothing, where a dependency keeps the order anyway.
WEAKENED = {
    "no barrier": ((writer(barrier=None), reader()), {FREED}),
    "fence on one side": ((writer(barrier="fence"), reader()), {FREED}),
    "publish": ((writer(publish="relaxed"), reader()), {BLANK}),
    "epoch": ((writer(epoch="relaxed"), reader()), {FREED}),
    "publish and epoch": ((writer(publish="relaxed", epoch="relaxed"), reader()), {FREED, BLANK}),
    "enter": ((writer(), reader(epoch="relaxed")), {FREED}),
    "follow: the content's address depends on the map": ((writer(), reader(follow="relaxed")), set()),
    "leave": ((writer(), reader(leave="relaxed")), {FREED}),
    "observe: the free depends on the note": ((writer(observe="relaxed"), reader()), set()),
}


def test_what_is_remembered_of_a_map_is_used_while_that_is_there():
    assert wrong(writer(state="before"), rememberer()) == set()
    assert wrong(writer(state="behind"), rememberer()) == {FREED}
    assert wrong(writer(state="before", barrier=None), rememberer()) == {FREED}


@pytest.mark.parametrize("weakened", WEAKENED)
def test_what_each_ordering_is_for(weakened):
    threads, symptoms = WEAKENED[weakened]
    assert wrong(*threads) == symptoms
