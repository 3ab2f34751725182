"""The regions that Linux finds already programmed (auto-assembly): from committed device decoders, no software state.

Source: Linux 7.2, drivers/cxl/core/region.c, cxl_add_to_region() and cxl_calc_interleave_pos().
"""

from __future__ import annotations

import errno as codes
from collections.abc import Iterator, Sequence

from cxl.device.type3 import Type3
from cxl.linux import Candidate, Problem
from cxl.region import Wiring
from cxl.settings import Settings
from cxl.window import Window


def assembled(windows: Sequence[Window], devices: Sequence[Type3], wiring: Wiring) -> Iterator[Candidate | Problem]:
    """The regions that Linux would assemble from committed device decoders, or why it would not."""
    for window in windows:
        if window.normalized:
            continue  # Linux leaves these to the platform
        sets: dict[tuple[int, int], list[tuple[Type3, Settings]]] = {}
        for device in devices:
            if (path := wiring.path(device)) and path[0].parent in window.targets:
                for s in device.registers.committed.values():
                    if window.first <= s.base <= window.last:
                        sets.setdefault((s.base, s.size), []).append((device, s))
        for (base, size), members in sorted(sets.items(), key=lambda item: item[0]):
            yield _assemble(window, base, size, members, wiring)


def _assemble(
    window: Window, base: int, size: int, members: list[tuple[Type3, Settings]], wiring: Wiring
) -> Candidate | Problem:
    name = f"region at {base:#x}"
    ways, grain = members[0][1].ways or 1, members[0][1].granularity
    for device, s in members:
        if (s.ways, s.granularity) != (ways, grain):
            return Problem(codes.ENXIO, f"{name}: all devices must have {ways} ways at {grain} bytes, but "
                                        f"{device.name} has {s.ways} at {s.granularity}")
    if len(members) != ways:
        return Problem(codes.ENXIO, f"{name}: its decoders say {ways} ways, but {len(members)} devices decode it")
    placed = {_position(window, base, d, wiring): (d, s) for d, s in members}
    if set(placed) != set(range(ways)):
        positions = sorted(p for p in placed if p is not None)
        return Problem(codes.ENXIO, f"{name}: the target lists above must give positions 0..{ways - 1}, "
                                    f"not {positions}")
    ordered = [placed[p] for p in range(ways)]
    mode = ordered[0][0].partition(ordered[0][1].dpa)
    return Candidate(name, window, base - window.cache, size + window.cache, grain, mode,
                     tuple(d for d, _ in ordered), tuple(s for _, s in ordered))


def _position(window: Window, base: int, device: Type3, wiring: Wiring) -> int | None:
    """cxl_calc_interleave_pos(): folded from the device up to the window; None when a level does not list it."""
    position = 0
    for port in reversed(wiring.path(device)):
        block = port.parent.registers
        if block is not None:
            s = next((s for s in block.committed.values() if s.base <= base < s.end), None)
            if s is None or port.number not in s.targets[: s.ways or 0]:
                return None
            position = position * (s.ways or 1) + s.targets.index(port.number)
    bridge = wiring.path(device)[0].parent
    return position * window.ways + next(i for i, t in enumerate(window.targets) if t is bridge)
