"""QEMU command lines as blueprints. Options that have nothing to do with CXL are skipped.

Devices may stand in any order; windows may be in any -M/-machine. Names are the ids; a device without one is called
after its driver and its place among its kind. Source: QEMU docs/system/devices/cxl.rst and `-device X,help` of 11.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cxl.blueprint import Backing, Blueprint, BridgePlan, DevicePlan, PortPlan, SwitchPlan, WindowPlan
from cxl.errors import TopologyError
from cxl.exchange.options import Options, boolean, comma_list, device_options, identifier, integer, size
from cxl.exchange.options import words as split_words
from cxl.exchange.qemu_machine import Machine, machine, machine_options, place, ram_ranges
from cxl.format import COMPONENT_BLOCK_SIZE

DEFAULT_QEMU_ARGS = (
    "-M q35,cxl=on -m 512M,maxmem=4G,slots=4 "
    "-object memory-backend-ram,id=m0,share=on,size=256M -object memory-backend-ram,id=m1,share=on,size=256M "
    "-device pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.0 "
    "-device cxl-rp,port=0,bus=cxl.0,id=rp0,chassis=0,slot=2 -device cxl-rp,port=1,bus=cxl.0,id=rp1,chassis=0,slot=3 "
    "-device cxl-type3,bus=rp0,volatile-memdev=m0,id=mem0 -device cxl-type3,bus=rp1,volatile-memdev=m1,id=mem1 "
    "-M cxl-fmw.0.targets.0=cxl.0,cxl-fmw.0.size=4G,cxl-fmw.0.interleave-granularity=256"
)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# What every PCI(e) device takes; none of it changes where addresses go.
_PCI = _set(
    "driver id bus addr multifunction romfile romsize rombar acpi-index failover_pair_id command_serr_enable "
    "x-pcie-lnksta-dllla x-pcie-extcap-init x-pcie-err-unc-mask x-pcie-ari-nextfn-1 x-max-bounce-buffer-size "
    "busnr sriov-pf x-pcie-ext-tag"
)
_PORT = _PCI | _set(
    "port chassis slot power_controller_present hotplug aer_log_max msi x-speed x-width x-native-hotplug "
    "x-do-not-expose-native-hotplug-cap disable-acs bus-reserve io-reserve mem-reserve pref32-reserve pref64-reserve "
    "x-256b-flit"
)
DRIVERS: dict[str, frozenset[str]] = {
    "pxb-cxl": _PCI | _set("bus_nr numa_node bypass_iommu hdm_for_passthrough"),
    "cxl-rp": _PORT,
    "cxl-upstream": _PCI | _set("port sn cdat x-speed x-width x-256b-flit"),
    "cxl-downstream": _PORT,
    "cxl-type3": _PCI | _set(
        "volatile-memdev persistent-memdev memdev lsa sn cdat volatile-dc-memdev num-dc-regions hdm-db x-speed x-width "
        "x-256b-flit"),
    "cxl-switch-mailbox-cci": _PCI | _set("target"),
}  # fmt: skip
_BACKENDS = ("memory-backend-ram", "memory-backend-file", "memory-backend-memfd")


@dataclass(slots=True)
class Device:
    """One -device of CXL's: its driver, its name, its options."""

    driver: str
    name: str
    options: Options

    def __str__(self) -> str:
        return f"{self.driver} {self.name}"

    def need(self, key: str) -> str:
        if not self.options.get(key):
            raise TopologyError(f"{self}: {key}= is missing")
        return self.options[key]

    def number(self, key: str, bits: int, default: int = 0) -> int:
        return integer(self.options[key], f"{self} {key}", bits) if key in self.options else default

    def flag(self, key: str) -> bool:
        return boolean(self.options.get(key, "off"), f"{self} {key}")


@dataclass(slots=True)
class CommandLine:
    """The words, sorted by what they are about. `others` are devices that are not CXL's."""

    devices: list[Device] = field(default_factory=list)
    others: list[Options] = field(default_factory=list)
    backends: dict[str, Options] = field(default_factory=dict)
    machine_texts: list[str] = field(default_factory=list)
    memory_texts: list[str] = field(default_factory=list)
    used: dict[str, str] = field(default_factory=dict)  # backend -> who has it, devices of CXL's left out

    def of(self, driver: str) -> list[Device]:
        return [d for d in self.devices if d.driver == driver]


def parse(args: str | Sequence[str]) -> Blueprint:
    """The blueprint of a command line. Raises TopologyError; opens nothing."""
    line = _read(args)
    options = machine_options(line.machine_texts)
    ram_backend = options.get("memory-backend")
    if ram_backend is not None:
        line.used[ram_backend] = "the machine's RAM"
    m = machine(options, line.memory_texts, _size_of(line, ram_backend))
    if (line.devices or m.windows) and (not m.kind or not m.cxl):
        have = f"{m.options.get('type', 'none')}, cxl={'on' if m.cxl else 'off'}"
        raise TopologyError(f"CXL needs -machine q35,cxl=on or virt,cxl=on, not {have}")
    _slots(line)
    _mailboxes(line)
    plan = Blueprint(ram=ram_ranges(m) if m.kind else [], machine=m.kind)
    registers, base = place(m) if m.kind else (0, 0)
    _bridges(line, plan, registers)
    plan.ports += [
        PortPlan(d.name, d.need("bus"), d.number("port", 8)) for d in line.devices
        if d.driver in ("cxl-rp", "cxl-downstream")
    ]  # fmt: skip
    plan.switches += [SwitchPlan(d.name, d.need("bus")) for d in line.of("cxl-upstream")]
    plan.devices += [_type3(d, line) for d in line.of("cxl-type3")]
    _kinds_of_bus(line)
    plan.windows += _windows(m, base)
    return plan


def _read(args: str | Sequence[str]) -> CommandLine:
    line = CommandLine()
    ids: dict[str, str] = {}
    for option, value in split_words(args):
        if option in ("M", "machine"):
            line.machine_texts.append(_valued(option, value))
        elif option == "m":
            line.memory_texts.append(_valued(option, value))
        elif option == "device":
            _device(line, device_options(_valued(option, value), "driver", "-device"), ids)
        elif option == "object":
            _object(line, device_options(_valued(option, value), "qom-type", "-object"))
        elif option == "numa":
            memdev = comma_list(value, "type", "-numa").get("memdev")
            if memdev:
                line.used[memdev] = "a NUMA node"
    return line


def _valued(option: str, value: str) -> str:
    if not value:
        raise TopologyError(f"-{option} requires an argument")
    return value


def _device(line: CommandLine, options: Options, ids: dict[str, str]) -> None:
    driver = options.get("driver", "")
    name = identifier(options["id"], f"-device {driver} id") if "id" in options else ""
    if name in ids and name:
        raise TopologyError(f"-device {driver}: id {name} is already that of a {ids[name]}")
    ids[name] = driver
    if not driver.startswith(("cxl-", "pxb-cxl")):
        line.others.append(options)
        if "memdev" in options:
            line.used[options["memdev"]] = f"{driver} {name}".strip()
        return
    if driver not in DRIVERS:
        raise TopologyError(f"-device {driver}: no such CXL device, only {', '.join(sorted(DRIVERS))}")
    for key in options:
        if key not in DRIVERS[driver]:
            raise TopologyError(f"-device {driver} {name}: no option {key}, only {', '.join(sorted(DRIVERS[driver]))}")
    line.devices.append(Device(driver, name or f"{driver}.{len(line.of(driver))}", options))


def _object(line: CommandLine, options: Options) -> None:
    kind = options.get("qom-type", "")
    if kind not in _BACKENDS:
        return
    name = identifier(options.get("id", ""), f"-object {kind} id")
    if name in line.backends:
        raise TopologyError(f"-object {kind}: id {name} is already that of a {line.backends[name]['qom-type']}")
    line.backends[name] = options


def _size_of(line: CommandLine, backend: str | None) -> int | None:
    options = line.backends.get(backend or "")
    return size(options["size"], f"-object {backend} size") if options and "size" in options else None


def _slots(line: CommandLine) -> None:
    """(chassis, slot) must be unique among ports, as QEMU demands."""
    seen: dict[tuple[int, int], str] = {}
    for d in line.devices:
        if d.driver in ("cxl-rp", "cxl-downstream"):
            pair = d.number("chassis", 8), d.number("slot", 16)
            if pair in seen:
                raise TopologyError(f"{seen[pair]} and {d} both have chassis={pair[0]},slot={pair[1]}")
            seen[pair] = str(d)


def _mailboxes(line: CommandLine) -> None:
    upstream = {d.name for d in line.of("cxl-upstream")}
    for d in line.of("cxl-switch-mailbox-cci"):
        if d.need("target") not in upstream:
            raise TopologyError(f"{d}: target {d.options['target']} is no cxl-upstream; there is "
                                f"{', '.join(sorted(upstream)) or 'none'}")


def _bridges(line: CommandLine, plan: Blueprint, registers: int) -> None:
    bridges = line.of("pxb-cxl")
    for n, d in enumerate(bridges):
        if d.options.get("bus", "pcie.0") != "pcie.0":
            raise TopologyError(f"{d}: bus must be pcie.0, not {d.options['bus']}")
        ports = [p for p in line.of("cxl-rp") if p.options.get("bus") == d.name]
        passthrough = len(ports) == 1 and not d.flag("hdm_for_passthrough")
        # QEMU hooks the registers up newest bridge first.
        at = registers + (len(bridges) - 1 - n) * COMPONENT_BLOCK_SIZE
        plan.bridges.append(BridgePlan(d.name, d.number("bus_nr", 8), None if passthrough else 4, at))


def _kinds_of_bus(line: CommandLine) -> None:
    """A root port is on a host bridge, an upstream port in a root port, a downstream port on an upstream port.

    One level of switches is all that QEMU has. Says so before the general checks say less.
    """
    rules = {
        "cxl-rp": ("pxb-cxl",), "cxl-upstream": ("cxl-rp",), "cxl-downstream": ("cxl-upstream",),
        "cxl-type3": ("cxl-rp", "cxl-downstream"), "cxl-switch-mailbox-cci": ("cxl-rp",),
    }  # fmt: skip
    drivers = {d.name: d.driver for d in line.devices}
    for d in line.devices:
        if d.driver in rules:
            bus = d.need("bus")
            if drivers.get(bus) not in rules[d.driver]:
                names = [n for n, k in drivers.items() if k in rules[d.driver]]
                raise TopologyError(
                    f"{d}: bus {bus} is no {' or '.join(rules[d.driver])}; there is {', '.join(names) or 'none'}")
    taken = {d.options["bus"]: str(d) for d in line.devices if d.driver in ("cxl-upstream", "cxl-type3")}
    for options in line.others:
        bus = options.get("bus", "")
        if bus in taken:
            raise TopologyError(f"port {bus} cannot hold both {taken[bus]} and {options['driver']}")


def _type3(d: Device, line: CommandLine) -> DevicePlan:
    persistent = d.options.get("persistent-memdev")
    if "memdev" in d.options:
        if persistent is not None:
            raise TopologyError(
                f"{d}: memdev={d.options['memdev']} and persistent-memdev={persistent} exclude each other")
        persistent = d.options["memdev"]
    volatile, label, dynamic = (d.options.get(k) for k in ("volatile-memdev", "lsa", "volatile-dc-memdev"))
    if volatile is None and persistent is None and dynamic is None:
        raise TopologyError(f"{d}: one of volatile-memdev, persistent-memdev, volatile-dc-memdev is needed")
    if persistent is not None and label is None:
        raise TopologyError(f"{d}: persistent-memdev={persistent} needs lsa=")
    return DevicePlan(
        d.name, d.need("bus"), _backing(d, "volatile-memdev", volatile, line),
        _backing(d, "persistent-memdev", persistent, line), _backing(d, "lsa", label, line), d.number("sn", 64),
        dynamic=_backing(d, "volatile-dc-memdev", dynamic, line), dynamic_regions=d.number("num-dc-regions", 8),
    )  # fmt: skip


def _backing(d: Device, key: str, name: str | None, line: CommandLine) -> Backing | None:
    if name is None:
        return None
    options = line.backends.get(name)
    if options is None:
        raise TopologyError(f"{d}: {key}={name} is no memory-backend; there is {', '.join(line.backends) or 'none'}")
    if name in line.used:
        raise TopologyError(f"{d}: {key}={name} is already used by {line.used[name]}")
    line.used[name] = str(d)
    what = f"-object {name}"
    if "size" not in options:
        raise TopologyError(f"{what}: size= is missing")
    bytes_ = size(options["size"], f"{what} size")
    if options["qom-type"] != "memory-backend-file":
        return Backing(name, bytes_)
    if not options.get("mem-path"):
        raise TopologyError(f"{what}: mem-path= is missing")
    for key, plain in (("readonly", "off"), ("rom", "auto"), ("offset", "0")):
        if options.get(key, plain) not in (plain, "off"):
            raise TopologyError(f"{what}: {key}={options[key]} is not supported, only {key}={plain}")
    return Backing(name, bytes_, options["mem-path"], boolean(options.get("share", "off"), f"{what} share"))


def _windows(m: Machine, base: int) -> list[WindowPlan]:
    """Back to back, in index order."""
    out = []
    for n, window in enumerate(m.windows):
        assert window.size is not None
        targets = tuple(window.targets[i] for i in range(len(window.targets)))
        out.append(WindowPlan(f"window{n}", base, window.size, window.granularity, targets))
        base += window.size
    return out
