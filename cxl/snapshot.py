"""Snapshots of a machine with its topology: what `mmu.snapshot` has, and how the CXL side was programmed.

`extra` of the file: "topology" (TOML, as `Topology.to_toml` writes it, with its memory anonymous), "strict", "decoders"
(component registers that are not zero, [offset, value], by the name of the bridge, switch or device), "latched" (what
committed decoders were committed with, where the registers say something else by now) and "extents" ([DPA, bytes] of
accepted dynamic capacity, by device). A machine that is loaded has anonymous memory, so that nobody's files change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from cxl import format as fmt
from cxl.blueprint import Backing, Blueprint
from cxl.decoder import DecoderBlock
from cxl.errors import TopologyError
from cxl.exchange.toml import read, write
from cxl.job import Job, emulated, space_of
from cxl.settings import Settings
from cxl.topology import Topology
from mmu.errors import SnapshotError

if TYPE_CHECKING:
    from mmu.machine import Machine


def save(path: str | PathLike[str], machine: Machine, topology: Topology) -> None:
    """Write the file. The space of *machine* must be RAM as the topology has it, and its windows. Raises OSError."""
    from mmu.snapshot import take

    take(machine, {
        "topology": write(_anonymous(topology.plan), topology),
        "strict": topology.strict,
        "decoders": {name: sorted(_words(block).items()) for name, block in blocks(topology).items()},
        "latched": {
            name: {number: _record(settings) for number, settings in block.committed.items()}
            for name, block in blocks(topology).items()
        },
        "extents": {d.name: [[a, b - a] for a, b in d.extents] for d in topology.devices.values() if d.extents},
    }).save(path)  # fmt: skip


def load(path: str | PathLike[str], release: str | None = None, dispatch: str = "exact") -> Job:
    """The machine of a file, as it was. Raises OSError, and SnapshotError with what is wrong. Close the job.

    *release*: it goes on as in that release of QEMU (`mmu.tcg`). *dispatch*: see `mmu.Machine`.
    """
    from mmu.guest.devices.saved import build
    from mmu.machine import Machine
    from mmu.snapshot import Snapshot

    snapshot = Snapshot.load(path)
    try:
        topology = _topology(snapshot.extra)
        emulator = None if release is None else emulated(topology, release)
        machine = Machine(space_of(topology), snapshot.arch, dispatch, emulator)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise SnapshotError(f"{path}: the topology is damaged: {error}") from None
    try:
        build(machine, snapshot.devices)
        return Job.around(machine.restore(snapshot), topology, release)
    except SnapshotError as error:
        machine.close()
        raise SnapshotError(f"{path}: {error}") from None


def blocks(topology: Topology) -> dict[str, DecoderBlock]:
    """The component registers of every part that has some, by its name."""
    nodes = [*topology.bridges.values(), *topology.switches.values()]
    found = {n.name: n.registers for n in nodes if n.registers is not None}
    return found | {d.name: d.registers for d in topology.devices.values()}


def _anonymous(plan: Blueprint) -> Blueprint:
    def bare(backing: Backing | None) -> Backing | None:
        return None if backing is None else dataclasses.replace(backing, path=None)

    devices = [
        dataclasses.replace(
            d, volatile=bare(d.volatile), persistent=bare(d.persistent), dynamic=bare(d.dynamic), label=bare(d.label))
        for d in plan.devices
    ]  # fmt: skip
    return dataclasses.replace(plan, devices=devices)


def _words(block: DecoderBlock) -> dict[int, int]:
    """The registers of the decoders, and the global control."""
    first = fmt.HDM_OFFSET + fmt.HDM_GLOBAL_CONTROL
    last = block.offset(block.capability.decoders)
    return {at: value for at in range(first, last, 4) if (value := block.read32(at))}


def _record(settings: Settings) -> list[Any]:
    return [list(value) if isinstance(value, tuple) else value for value in settings]


def _topology(extra: Mapping[str, Any]) -> Topology:
    plan, regions = read(extra["topology"])
    topology = Topology(_anonymous(plan), bool(extra["strict"]))  # whatever files the text names
    for r in regions:
        topology.create_region(r.window, r.devices, granularity=r.granularity, size=r.size, mode=r.mode, name=r.name)
    for name, extents in extra["extents"].items():
        for dpa, size in extents:
            topology.device(name).accept(dpa, size)
    with topology.batch():
        for name, block in blocks(topology).items():
            words = dict(extra["decoders"][name])
            latched = {int(number): record for number, record in extra["latched"][name].items()}
            if _state(block) != (words, latched):
                _program(block, words, latched)
            if _state(block) != (words, latched):
                raise TopologyError(f"the decoders of {name} refuse what they were programmed with")
    return topology


def _state(block: DecoderBlock) -> tuple[dict[int, int], dict[int, list[Any]]]:
    return _words(block), {number: _record(settings) for number, settings in block.committed.items()}


def _program(block: DecoderBlock, words: Mapping[int, int], latched: Mapping[int, list[Any]]) -> None:
    """Write the registers as software did: what was committed first, in order, then what was written since."""
    block.reset()
    control = fmt.HDM_OFFSET + fmt.HDM_GLOBAL_CONTROL
    block.write32(control, words.get(control, 0))
    numbers = range(block.capability.decoders)
    for n in numbers:
        if n in latched:
            _, base, size, ig, iw, targets, skip, *_ = latched[n]
            pair = skip if block.device else int.from_bytes(bytes(targets), "little")
            for field, value in ((fmt.BASE_LOW, base), (fmt.SIZE_LOW, size), (fmt.TARGETS_LOW, pair)):
                block.write32(block.offset(n, field), value & fmt.WORD_MASK)
                block.write32(block.offset(n, field + 4), value >> 32)
            word = words.get(block.offset(n, fmt.CONTROL), 0)
            c = fmt.DecoderControl
            block.write32(
                block.offset(n, fmt.CONTROL), word & ~(c.IG.mask | c.IW.mask) | c.IG.put(ig) | c.IW.put(iw))
    for n in numbers:
        for field in (*range(0, fmt.CONTROL, 4), *range(fmt.CONTROL + 4, fmt.TARGETS_HIGH + 4, 4), fmt.CONTROL):
            at = block.offset(n, field)
            if block.read32(at) != words.get(at, 0):
                block.write32(at, words.get(at, 0))
