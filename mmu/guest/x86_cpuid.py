"""CPUID: what the CPU has, which is what works here. The engine's answers, but where it would tell of more, or of less.

Source: Intel SDM vol. 2, 'CPUID - CPU Identification'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mmu.guest.context import x86_cpuid

ANY = 0xFFFFFFFF  # subleaf: those that have no row before
Row = tuple[int, int, int, int]  # EAX, EBX, ECX, EDX

PCID, RDRAND, OSXSAVE = 1 << 17, 1 << 30, 1 << 27  # 1, ECX; OSXSAVE follows CR4
APIC = 1 << 9  # 1, EDX
PDPE1GB = 1 << 26  # 0x80000001, EDX
X87_SSE, AREA = 3, 576  # XCR0, and bytes of an XSAVE area


def _features(row: Row) -> Row:
    """PCIDs, which the engine does not mind. No APIC, no random numbers: they would be the host's."""
    eax, ebx, ecx, edx = row
    return eax, ebx, (ecx | PCID) & ~RDRAND & ~OSXSAVE, edx & ~APIC


def _extended_features(row: Row) -> Row:
    eax, ebx, ecx, edx = row
    return eax, ebx, ecx, edx | PDPE1GB


def _nothing(row: Row) -> Row:
    return 0, 0, 0, 0


def rows(phys_bits: int, linear_bits: int) -> Iterator[tuple[int, int, Row]]:
    """(leaf, subleaf, answer) of the leaves that are other than the engine has them."""

    def widths(row: Row) -> Row:
        return linear_bits << 8 | phys_bits, 0, 0, 0

    changes: dict[tuple[int, int], Callable[[Row], Row]] = {
        (0x1, ANY): _features,
        (0x5, ANY): _nothing,  # MONITOR
        (0x6, ANY): _nothing,  # the timer of an APIC
        (0xD, 0): lambda row: (X87_SSE, AREA, AREA, 0),
        (0xD, 1): lambda row: row,  # XSAVEOPT
        (0xD, ANY): _nothing,  # no AVX
        (0x80000001, ANY): _extended_features,
        (0x80000008, ANY): widths,
    }
    for (leaf, subleaf), change in changes.items():
        yield leaf, subleaf, change(x86_cpuid(leaf, 0 if subleaf == ANY else subleaf))
