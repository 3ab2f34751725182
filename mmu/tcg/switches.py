"""What an emulator does wrong, one field per bug, and how it is built and run.

A field that is True is the faulty behaviour; without arguments everything is fixed. Each is consulted in one place.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

CanDoIo = Literal["P0", "P1", "P2"]
POLICIES: tuple[CanDoIo, ...] = ("P0", "P1", "P2")


@dataclass(frozen=True, slots=True)
class Switches:
    """Bugs by their names in the atlas, with underscores; then policies, which are no bugs by themselves.

    Raises ValueError for a policy or a size that does not exist.
    """

    ptw_retaddr: bool = False
    """The x86 walker reads entries as if nobody in generated code had asked: no instruction to go back to."""
    lookup_tb_can_do_io: bool = False
    """The helper that looks for the next block leaves `can_do_io` as the last block did."""
    double_lock: bool = False
    """A device access takes the big lock although its thread holds it."""
    setl_exclusive_hang: bool = False
    """The x86 walker waits for all CPUs to pause before it sets a flag in a device's memory, itself among them."""
    plugin_walk: bool = False
    """Memory hooks of plugins make the walker's own accesses leave the fast path."""
    arm_hafdbs_mmio: bool = False
    """arm64 hardware updates of descriptors in device memory are refused."""
    second_page_mmio: bool = False
    """An instruction that begins in RAM and ends in device memory is not expected."""
    straddle_final_insn: bool = False
    """Such an instruction does not end its block."""
    straddle_jump_cache: bool = False
    """Its block is kept, and found again by address or by chaining, whatever the device says by then."""
    atomic_flags: bool = False
    """Atomics look for the flags of device memory where they are no longer kept."""
    atomic_step_livelock: bool = False
    """The block of one instruction that carries out an atomic alone may not do I/O."""
    oneshot_unregistered: bool = False
    """Blocks of one instruction from device memory are not registered, nor may they do I/O."""
    io_must_be_last: bool = False
    """I/O may happen in mid-block, and what it does to the memory map is seen from the next block on."""
    stage2_ro_update: bool = False
    """An update of an arm64 descriptor in device memory does not ask whether stage 2 lets it be written."""
    rsvd_error_code: bool = False
    """The error code of a page fault for a reserved bit says that the page is not present."""
    step_atomic_setl: bool = False
    """A walk that sets a flag in device memory while its CPU runs alone waits for that to end."""
    excl_bql_deadlock: bool = False
    """The walker waits for all CPUs to pause while it holds the big lock, for which one of them waits."""
    hdm_target_list: bool = False
    """The upper half of a decoder's target list is taken from the lower one. (This and the next: `cxl.decoder`.)"""
    hdm_decoder_count: bool = False
    """Only decoder 0 counts: in a bridge whatever its range, in a device whether it is committed or not."""
    reserved_iw: bool = False
    """A reserved ways encoding in a device's decoder ends the process when an access passes over it."""
    alias_path: bool = False
    """Windows that no decoder interleaves are served access by access. (This and the rest: `cxl.emulator`.)"""
    alias_path_base: bool = False
    """Whether a decoder's path interleaves is asked of the window's first address."""
    sections_limit: bool = False
    """A memory map may have 4096 sections and no more."""

    can_do_io: CanDoIo = "P2"
    """When I/O is allowed inside a block. P0: always, unless instructions are counted; then as P1. P1: after an
    explicit mark and in the last instruction that the block may have. P2: in the block's last instruction."""
    setl_asserts: bool = False
    """The wait of setl_exclusive_hang is noticed by an assertion."""
    io_around: bool = False
    """An unaligned load from a device is two aligned ones around it, and an unaligned store one of each byte. Otherwise
    both come in aligned pieces."""
    io_halves: bool = False
    """Accesses of 16 bytes, and pairs of registers, are made by halves, each under the lock by itself."""
    icount: bool = False
    """Instructions are counted (-icount)."""
    parallel: bool = True
    """Blocks are translated for more than one CPU (-smp 2, thread=multi); not under icount."""
    plugins: bool = False
    """A plugin has hooks on memory accesses."""
    peer_waits_for_lock: bool = False
    """There is a second CPU, and it waits for the big lock inside a block."""
    tlb_entries: int = 256
    """Slots of the softmmu TLB of each index at first; a power of two."""
    tlb_window: int = 0
    """Instructions after which a TLB may shrink; 0: its size never changes. (In QEMU it is 100 ms.)"""

    def __post_init__(self) -> None:
        if self.can_do_io not in POLICIES:
            raise ValueError(f"can_do_io must be one of {', '.join(POLICIES)}, not {self.can_do_io!r}")
        n = self.tlb_entries
        if not 64 <= n <= 1 << 20 or n & (n - 1):
            raise ValueError(f"tlb_entries must be a power of two in 64..{1 << 20}, not {n}")
        if self.tlb_window < 0:
            raise ValueError(f"tlb_window must be at least 0, not {self.tlb_window}")

    def named(self, bug: str) -> bool:
        """Whether the bug of that name ("ptw-retaddr") is there. Raises ValueError for a name that is none."""
        value: bool = getattr(self, field_of(bug))
        return value

    def with_bug(self, bug: str, faulty: bool = True) -> Switches:
        """These switches, but for the bug of that name."""
        return self.replace(**{field_of(bug): faulty})

    def replace(self, **changes: Any) -> Switches:
        return replace(self, **changes)

    @property
    def policy(self) -> CanDoIo:
        """can_do_io; under io_must_be_last, I/O is allowed anywhere in a block."""
        return "P0" if self.io_must_be_last else self.can_do_io

    @property
    def bugs(self) -> tuple[str, ...]:
        """The names of the bugs that are there."""
        return tuple(name for name in BUGS if self.named(name))


NOT_BUGS = ("setl_asserts", "io_around", "io_halves", "icount", "parallel", "plugins", "peer_waits_for_lock")
BUGS = tuple(
    f.name.replace("_", "-") for f in fields(Switches) if f.type in ("bool", bool) and f.name not in NOT_BUGS)


def field_of(bug: str) -> str:
    """The field of a bug's name."""
    if bug not in BUGS:
        raise ValueError(f"bug must be one of {', '.join(BUGS)}, not {bug!r}")
    return bug.replace("-", "_")
