"""Topologies by a few numbers."""

from __future__ import annotations

from cxl.topology import Topology

MACHINE = "-M q35,cxl=on -m 512M,maxmem=64G,slots=8"


def interleaved(
    ways: int = 2, granularity: int = 256, size: str = "256M", bridges: int = 1, strict: bool = True
) -> Topology:
    """*ways* devices of *size* bytes each, named mem0 and up, evenly behind root ports of *bridges* host bridges.

    One window over all of them that takes exactly one region, interleaved at *granularity*. Raises TopologyError for
    numbers that no machine has, ValueError when the devices do not spread evenly.
    """
    if bridges < 1 or ways < 1 or ways % bridges:
        raise ValueError(f"{ways} devices do not spread evenly over {bridges} host bridges")
    words, each = [MACHINE], ways // bridges
    for b in range(bridges):
        words.append(f"-device pxb-cxl,bus_nr={12 + 32 * b},bus=pcie.0,id=cxl.{b}")
        for p in range(each):
            # Position i of the region is below bridge i % bridges.
            i = p * bridges + b
            words.append(
                f"-object memory-backend-ram,id=m{i},size={size} -device cxl-rp,port={p},bus=cxl.{b},id=rp{i},"
                f"chassis=0,slot={i + 2} -device cxl-type3,bus=rp{i},volatile-memdev=m{i},id=mem{i}")
    targets = ",".join(f"cxl-fmw.0.targets.{b}=cxl.{b}" for b in range(bridges))
    total = ways * _bytes(size)
    words.append(f"-M {targets},cxl-fmw.0.size={total},cxl-fmw.0.interleave-granularity={granularity}")
    return Topology.from_qemu(" ".join(words), strict)


def _bytes(size: str) -> int:
    from cxl.exchange.options import size as parse

    return parse(size, "size")
