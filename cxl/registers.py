"""Component registers on a bus, so that a guest can program decoders itself."""

from __future__ import annotations

from collections.abc import Callable

from cxl.decoder import DecoderBlock
from cxl.format import CACHE_MEM_OFFSET, COMPONENT_BLOCK_SIZE, CapabilityHeader
from mmu import MemTxResult, Mmio


def region(block: DecoderBlock | None, name: str) -> Mmio:
    """The 64 KiB block of *block*; None: a pass-through, which lists no capability.

    Registers are 4 bytes wide; 1 and 2 bytes are refused. 8 bytes are two registers; a permissive block reads 0 and
    drops the write, as QEMU does.
    """
    if block is None:
        header = CapabilityHeader.make(ID=1, VERSION=1, CACHE_MEM_VERSION=1)
        return Mmio(COMPONENT_BLOCK_SIZE, lambda at, size: header if at == CACHE_MEM_OFFSET else 0,
                    name=f"{name} registers", valid=(4, 8), implemented=(4, 4))
    if block.strict:
        return Mmio(COMPONENT_BLOCK_SIZE, lambda at, size: block.read32(at), _writer(block),
                    name=f"{name} registers", valid=(4, 8), implemented=(4, 4))
    return Mmio(COMPONENT_BLOCK_SIZE, lambda at, size: block.read32(at) if size == 4 else 0, _writer(block),
                name=f"{name} registers", valid=(4, 8), implemented=(4, 8))


def _writer(block: DecoderBlock) -> Callable[[int, int, int], MemTxResult]:
    def write(at: int, size: int, value: int) -> MemTxResult:
        if size == 4:
            block.write32(at, value)
        return MemTxResult.OK

    return write
