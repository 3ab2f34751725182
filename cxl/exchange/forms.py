"""The forms in which a machine comes and goes: QEMU command lines, CEDT, `cxl list`, TOML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from cxl.blueprint import Blueprint
from cxl.errors import TopologyError

if TYPE_CHECKING:
    from cxl.topology import Topology


class Forms:
    """What `Topology` inherits. Each importer is loaded when it is used. *plan* is what the machine was built from."""

    def __init__(self, plan: Blueprint, strict: bool = True) -> None:
        self.plan = plan

    @property
    def _topology(self) -> Topology:
        return cast("Topology", self)

    @classmethod
    def from_qemu(cls, args: str | Sequence[str], strict: bool = True) -> Self:
        """The machine that QEMU would make of this command line (one string, as a shell reads it, or its words)."""
        from cxl.exchange.qemu import parse

        return cls(parse(args), strict)

    def to_qemu(self) -> str:
        """A command line that `from_qemu` reads as the same machine, one option a line.

        Raises TopologyError with what QEMU has no words for. Host bridge registers are where QEMU puts them.
        """
        from cxl.exchange.qemu_write import command_line

        return command_line(self.plan)

    @classmethod
    def from_cedt(cls, data: bytes, strict: bool = True) -> Self:
        """The host bridges and windows of an ACPI CEDT. Raises TopologyError with the offset of what is wrong."""
        from cxl.exchange.cedt import blueprint

        return cls(blueprint(data), strict)

    def to_cedt(self) -> bytes:
        """The machine's CEDT. Raises TopologyError when it has none (a bridge whose registers have no address)."""
        from cxl.exchange.cedt import table

        return table(self.plan).to_bytes()

    @classmethod
    def from_cxl_list(cls, text: str | bytes, cedt: bytes | None = None, strict: bool = True) -> Self:
        """The machine that `cxl list -v` (or -vv, -vvv, -u) printed, programmed as it was; *cedt* adds what that lacks.

        Raises TopologyError naming the object, or the line and column, that is wrong.
        """
        from cxl.exchange.cxl_list import machine
        from cxl.exchange.cxl_list_apply import apply

        found = machine(text, cedt)
        topo = cls(found.plan, strict)
        this = topo._topology
        this.regions.update(apply(this, found.settings, found.regions))
        return topo

    def to_cxl_list(self) -> str:
        """JSON as `cxl list -v` prints it: the machine and what is committed."""
        from cxl.exchange.cxl_list_write import listing

        return listing(self._topology)

    @classmethod
    def from_toml(cls, text: str, strict: bool = True) -> Self:
        """A machine written by hand, and its regions created; `cxl.exchange.toml` says how, and prints a schema."""
        from cxl.exchange.toml import read

        plan, regions = read(text)
        topo = cls(plan, strict)
        for r in regions:
            topo._topology.create_region(
                r.window, r.devices, granularity=r.granularity, size=r.size, mode=r.mode, name=r.name)
        return topo

    def to_toml(self) -> str:
        """TOML that `from_toml` reads as the same machine with the same regions."""
        from cxl.exchange.toml import write

        return write(self.plan, self._topology)

    @classmethod
    def from_file(cls, path: str | Path, strict: bool = True) -> Self:
        """A QEMU command line, a CEDT, the JSON of `cxl list` or TOML: told apart by content.

        Raises TopologyError with the path, OSError when it cannot be read.
        """
        from cxl.exchange.file import form

        data = Path(path).read_bytes()
        try:
            kind = form(data)
            if kind == "cedt":
                return cls.from_cedt(data, strict)
            if kind == "cxl-list":
                return cls.from_cxl_list(data, strict=strict)
            lines = data.decode().splitlines(keepends=True)
            if kind == "toml":
                return cls.from_toml("".join(lines), strict)
            return cls.from_qemu("".join(x for x in lines if not x.lstrip().startswith("#")), strict)
        except TopologyError as error:
            raise type(error)(f"{path}: {error}") from error

    @classmethod
    def default(cls) -> Self:
        """Two 256 MiB devices behind one host bridge, a 4 GiB window, 256 bytes: `cxl.DEFAULT_QEMU_ARGS`."""
        from cxl.exchange.qemu import DEFAULT_QEMU_ARGS

        return cls.from_qemu(DEFAULT_QEMU_ARGS)
