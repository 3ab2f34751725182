"""Blueprints as QEMU command lines, or one sentence why QEMU cannot be that machine."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from cxl.blueprint import DEFAULT_RESTRICTIONS, GIB, MIB, Backing, Blueprint, BridgePlan, DevicePlan, WindowPlan
from cxl.errors import TopologyError
from cxl.exchange.options import identifier
from cxl.exchange.qemu_machine import Machine, place
from cxl.format import DECODER_GRAIN

QEMU_DECODERS = 4
LABEL_SIZE = 256 << 10  # bytes of the label area that persistent memory must have, where the plan has none


def command_line(plan: Blueprint) -> str:
    """Options that `cxl.exchange.qemu.parse` reads as the same machine, one a line, each but the last with a backslash.

    Host bridge registers move to where QEMU puts them. Raises TopologyError for what QEMU has no words for.
    """
    _expressible(plan)
    lines = [["-M", f"{plan.machine or 'q35'},cxl=on"], ["-m", _memory(plan)]]
    lines += _backends(plan)
    lines += [["-device", _bridge(b, plan)] for b in plan.bridges]
    lines += [["-device", text] for text in _below(plan)]
    lines += [["-M", _window(n, w)] for n, w in enumerate(_ordered(plan))]
    return " \\\n".join(shlex.join(words) for words in lines)


def _expressible(plan: Blueprint) -> None:
    """Everything that has no option in QEMU 11.1 must be as QEMU has it."""
    for b in plan.bridges:
        _must(not b.restricted, f"host bridge {b.name} is a CXL 1.1 host")
        _must(b.uid < 256, f"host bridge {b.name} has UID {b.uid}, beyond bus_nr 255")
        count = sum(p.parent == b.name for p in plan.ports)
        _must((b.decoders is None) <= (count == 1), f"host bridge {b.name} has {count} ports and no decoders")
    parts: list[BridgePlan | DevicePlan] = [*plan.bridges, *plan.devices]
    for part in parts:
        _must(part.decoders in (None, QEMU_DECODERS), f"{part.name} has {part.decoders} decoders, not {QEMU_DECODERS}")
    ports = {p.name: p for p in plan.ports}
    for s in plan.switches:
        below = ports[s.port].parent
        _must(s.decoders == QEMU_DECODERS, f"switch {s.name} has {s.decoders} decoders, not {QEMU_DECODERS}")
        _must(any(below == b.name for b in plan.bridges), f"switch {s.name} is below a switch, {below}")
    for w in plan.windows:
        _must(w.maps is None, f"window {w.name} uses XOR arithmetic")
        _must(not w.cache and not w.normalized, f"window {w.name} has a cache or normalized addresses")
        _must(w.restrictions == DEFAULT_RESTRICTIONS and w.qtg == 0,
              f"window {w.name} has restrictions {w.restrictions:#x} and QTG {w.qtg}, not 0x2f and 0")


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise TopologyError(f"QEMU has no such machine: {otherwise}")


def _ordered(plan: Blueprint) -> list[WindowPlan]:
    return sorted(plan.windows, key=lambda w: w.base)


def _memory(plan: Blueprint) -> str:
    """RAM as it is (512 MiB where it is not known), and room for hot-plug so that the first window is where it is."""
    ram = sum(size for _, size in plan.ram) or 512 * MIB
    windows = _ordered(plan)
    for a, b in zip(windows, windows[1:]):
        _must(a.base + a.size == b.base, f"window {b.name} at {b.base:#x} does not follow {a.name}, "
                                         f"which ends at {a.base + a.size:#x}")
    if not windows:
        return _size(ram)
    for max_ram, slots in _hotplug(plan, ram, windows[0].base):
        if place(Machine(plan.machine or "q35", {}, [], ram, max_ram, slots))[1] == windows[0].base:
            return _size(ram) + (f",maxmem={_size(max_ram)},slots={slots}" if slots else "")
    raise TopologyError(f"QEMU has no such machine: with {ram:#x} bytes of RAM no window can begin at "
                        f"{windows[0].base:#x}")


def _hotplug(plan: Blueprint, ram: int, base: int) -> Iterator[tuple[int, int]]:
    """(maxmem, slots) that may put the first window at *base*: none, or what is missing up to there."""
    yield ram, 0
    at = place(Machine(plan.machine or "q35", {}, [], ram, ram + DECODER_GRAIN, 1))[1]
    if base >= at and plan.machine != "virt":
        yield ram + DECODER_GRAIN + base - at, 1


def _backends(plan: Blueprint) -> Iterator[list[str]]:
    for device in plan.devices:
        for backing in device.backings:
            yield ["-object", _backing(backing)]
        if device.persistent is not None and device.label is None:
            yield ["-object", _backing(Backing(f"{device.name}-lsa", LABEL_SIZE))]


def _backing(backing: Backing) -> str:
    """Commas in a path are doubled."""
    name, text = identifier(backing.name, f"memory {backing.name}"), f"size={_size(backing.size)}"
    if backing.path is None:
        return f"memory-backend-ram,id={name},{text}"
    path = backing.path.replace(",", ",,")
    return f"memory-backend-file,id={name},{text},mem-path={path},share={'on' if backing.share else 'off'}"


def _bridge(bridge: BridgePlan, plan: Blueprint) -> str:
    text = f"pxb-cxl,id={identifier(bridge.name, 'host bridge')},bus=pcie.0,bus_nr={bridge.uid}"
    single = sum(p.parent == bridge.name for p in plan.ports) == 1
    return text + (",hdm_for_passthrough=on" if single and bridge.decoders is not None else "")


def _below(plan: Blueprint) -> Iterator[str]:
    """Ports, switches and devices, each after what it is plugged into."""
    bridges = {b.name for b in plan.bridges}
    slots = {p.name: n for n, p in enumerate(plan.ports, 1)}
    for p in plan.ports:
        if p.parent in bridges:
            yield (f"cxl-rp,id={identifier(p.name, 'port')},bus={p.parent},port={p.number},chassis=0,"
                   f"slot={slots[p.name]}")
    for s in plan.switches:
        yield f"cxl-upstream,id={identifier(s.name, 'switch')},bus={s.port}"
    for p in plan.ports:
        if p.parent not in bridges:
            yield (f"cxl-downstream,id={identifier(p.name, 'port')},bus={p.parent},port={p.number},chassis=0,"
                   f"slot={slots[p.name]}")
    for d in plan.devices:
        yield _device(d)


def _device(device: DevicePlan) -> str:
    text = f"cxl-type3,id={identifier(device.name, 'device')},bus={device.port}"
    if device.volatile is not None:
        text += f",volatile-memdev={device.volatile.name}"
    if device.persistent is not None:
        text += f",persistent-memdev={device.persistent.name}"
        text += f",lsa={device.label.name if device.label is not None else device.name + '-lsa'}"
    elif device.label is not None:
        text += f",lsa={device.label.name}"
    if device.dynamic is not None:
        text += f",volatile-dc-memdev={device.dynamic.name},num-dc-regions={device.dynamic_regions}"
    return text + (f",sn={device.serial:#x}" if device.serial else "")


def _window(number: int, window: WindowPlan) -> str:
    targets = [f"cxl-fmw.{number}.targets.{i}={t}" for i, t in enumerate(window.targets)]
    return ",".join([*targets, f"cxl-fmw.{number}.size={_size(window.size)}",
                     f"cxl-fmw.{number}.interleave-granularity={window.granularity}"])


def _size(value: int) -> str:
    """The shortest exact form."""
    for unit, letter in ((GIB, "G"), (MIB, "M"), (1024, "k")):
        if value % unit == 0:
            return f"{value // unit}{letter}"
    return f"{value}B"
