"""The protocol of csrc/exclusive.c in every interleaving: who is alone is, and nobody waits for ever.

A thread is a list of steps, each of which happens at once. Those of the code that are sequentially consistent keep
their order; a weakened protocol has them in another one, or leaves one out.
"""

import pytest


def enter(me, weak=""):
    said = [("set", f"inside {me}", 1)]
    looked = [("if not", "taken", "in")]
    begins = said + looked if weak != "looks before it says so" else [("if not", "taken", "say")]
    if weak == "comes in anyway":
        begins = [*said, ("go", "in")]
    return [
        *begins, ("lock",), ("set", f"inside {me}", 0), ("broadcast",),
        ("label", "again"), ("if not", "taken", "say"), ("wait",), ("go", "again"),
        ("label", "say"), ("set", f"inside {me}", 1), ("unlock",), ("label", "in"),
    ]  # fmt: skip


def leave(me, weak=""):
    wakes = [("broadcast",)] if weak != "wakes nobody" else []
    return [
        ("set", f"inside {me}", 0), ("if not", "taken", "out"), ("lock",), *wakes, ("unlock",), ("label", "out"),
    ]  # fmt: skip


def begin(me, others, weak=""):
    waits = [
        step for other in others
        for step in (("label", f"wait {other}"), ("if not", f"inside {other}", f"past {other}"), ("wait",),
                     ("go", f"wait {others[0]}"), ("label", f"past {other}"))
    ]  # fmt: skip
    out = [("set", f"inside {me}", 0), ("broadcast",)]
    return [
        ("lock",), *(out if weak != "stays inside" else []),
        ("label", "taken"), ("if not", "taken", "free"), ("wait",), ("go", "taken"), ("label", "free"),
        ("set", "taken", 1), *(waits if weak != "waits for nobody" else []),
        ("set", f"inside {me}", 1), ("unlock",),
    ]  # fmt: skip


def end(weak=""):
    wakes = [("broadcast",)] if weak != "wakes nobody at the end" else []
    return [("lock",), ("set", "taken", 0), *wakes, ("unlock",)]


def work(me, kind):
    return [("set", f"{kind} {me}", 1), ("set", f"{kind} {me}", 0)]


def program(*parts):
    """Steps with the labels of each part resolved, and taken out."""
    steps = []
    for part in parts:
        at, places = len(steps), {}
        for step in part:
            if step[0] == "label":
                places[step[1]] = at
            else:
                at += 1
        steps += [(*s[:-1], places[s[-1]]) if s[0] in ("if not", "go") else s for s in part if s[0] != "label"]
    return steps


def runner(me, weak=""):
    """Runs, comes out when it is called, and runs on."""
    return program(*[part for _ in range(2) for part in (enter(me, weak), work(me, "runs"), leave(me, weak))])


def locker(me, others, weak=""):
    """In the middle of its run it is alone."""
    alone = (begin(me, others, weak), work(me, "alone"), end(weak))
    return program(enter(me, weak), *alone, work(me, "runs"), leave(me, weak))


def step(op, me, memory):
    """(what memory becomes, where this thread goes on: None, the next step), or None: it must wait."""
    if op[0] == "set":
        return memory | {op[1]: op[2]}, None
    if op[0] == "if not":
        return memory, None if memory.get(op[1]) else op[2]
    if op[0] == "go":
        return memory, op[1]
    if op[0] == "lock":
        return (memory | {"lock": me}, None) if memory.get("lock") is None else None
    if op[0] == "unlock":
        return memory | {"lock": None}, None
    if op[0] == "broadcast":
        return memory | {"asleep": frozenset()}, None
    return memory | {"asleep": memory.get("asleep", frozenset()) | {me}, "lock": None}, None  # wait


def wrong(*threads):
    """What can go wrong: "together", "stuck"."""
    found, seen, todo = set(), set(), [(tuple(0 for _ in threads), {})]
    while todo:
        at, memory = todo.pop()
        key = at, frozenset(memory.items())
        if key in seen:
            continue
        seen.add(key)
        alone = [n for n in range(len(threads)) if memory.get(f"alone {n}")]
        running = [n for n in range(len(threads)) if memory.get(f"runs {n}") or memory.get(f"alone {n}")]
        if alone and len(running) > 1:
            found.add("together")
        moves = 0
        for n, steps in enumerate(threads):
            if at[n] == len(steps) or n in memory.get("asleep", ()):
                continue
            awake = at[n] and steps[at[n] - 1][0] == "wait"  # it must have the lock again first
            if awake and memory.get("lock") not in (None, n):
                continue
            result = step(steps[at[n]], n, memory | {"lock": n} if awake else memory)
            if result is None:
                continue
            moves += 1
            after, target = result
            todo.append(((*at[:n], at[n] + 1 if target is None else target, *at[n + 1 :]), after))
        if not moves and any(a < len(steps) for a, steps in zip(at, threads)):
            found.add("stuck")
    return found


def all_of(weak=""):
    """One that is alone beside two that run, and two that want to be alone at once beside one that runs."""
    two = (runner(0, weak), runner(1, weak), locker(2, (0, 1), weak))
    return wrong(*two) | wrong(runner(0, weak), locker(1, (0, 2), weak), locker(2, (0, 1), weak))


def test_who_is_alone_is_and_nobody_waits_for_ever():
    assert all_of() == set()


@pytest.mark.parametrize("weak, symptom", [
    ("looks before it says so", "together"), ("comes in anyway", "together"), ("waits for nobody", "together"),
    ("stays inside", "stuck"), ("wakes nobody", "stuck"), ("wakes nobody at the end", "stuck"),
])  # fmt: skip
def test_what_each_step_is_for(weak, symptom):
    assert symptom in all_of(weak)
