"""Small machines for the tests, as blueprints."""

from cxl import Backing, Blueprint, BridgePlan, DevicePlan, PortPlan, SwitchPlan, Topology, WindowPlan

MIB = 1 << 20
BASE = 0x10_0000_0000


def blueprint(bridges=1, ports=1, below=0, *, granularity=256, size=None, capacity=256 * MIB, persistent=0, base=BASE,
              maps=None, decoders=4, passthrough=False):
    """*bridges* host bridges of *ports* root ports; *below*: 0 devices in the root ports, else switches of that many.

    One window over all bridges, as large as all devices unless *size* is given. Devices m0, m1, ... in wiring order.
    """
    plan = Blueprint()
    for b in range(bridges):
        plan.bridges.append(BridgePlan(f"hb{b}", uid=b, decoders=None if passthrough else decoders))
        for p in range(ports):
            plan.ports.append(PortPlan(f"rp{b}.{p}", f"hb{b}", p))
            if not below:
                add_device(plan, f"rp{b}.{p}", capacity, persistent, decoders)
                continue
            plan.switches.append(SwitchPlan(f"sw{b}.{p}", f"rp{b}.{p}", decoders))
            for d in range(below):
                plan.ports.append(PortPlan(f"dp{b}.{p}.{d}", f"sw{b}.{p}", d))
                add_device(plan, f"dp{b}.{p}.{d}", capacity, persistent, decoders)
    targets = tuple(f"hb{b}" for b in range(bridges))
    size = size or len(plan.devices) * (capacity + persistent)
    plan.windows.append(WindowPlan("window0", base, size, granularity, targets, maps))
    return plan


def add_device(plan, port, capacity=256 * MIB, persistent=0, decoders=4):
    n = len(plan.devices)
    plan.devices.append(DevicePlan(
        f"m{n}", port, Backing(f"ram{n}", capacity) if capacity else None,
        Backing(f"pmem{n}", persistent) if persistent else None, decoders=decoders))


def machine(*args, strict=True, **kwargs):
    return Topology(blueprint(*args, **kwargs), strict)
