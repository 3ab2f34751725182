"""Which release of QEMU behaves how: a table of changes, each with where it is known from.

Where notes and measurement differ, the measurement counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmu.tcg.switches import Switches

RELEASES = ("7.2", "8.2", "9.0", "9.1", "9.2", "10.0", "10.1", "11.1")
FIRST, NEVER = (0, 0, 0), (1 << 30,)


@dataclass(frozen=True, slots=True)
class Change:
    """*field* has *value* in versions since <= v < until (QEMU's numbers as tuples)."""

    field: str
    value: Any
    since: tuple[int, ...]
    until: tuple[int, ...]
    source: str


CHANGES = (
    Change("ptw_retaddr", True, FIRST, (9, 1),
           "until 9dab7bbb01 'target/i386/tcg: Enable page walking from MMIO memory', 2024-07"),
    Change("lookup_tb_can_do_io", True, FIRST, (9, 0),
           "until 'accel/tcg: Set can_do_io at at start of lookup_tb_ptr helper', 2024-02"),
    Change("double_lock", True, (8, 1), (9, 0),
           "until 'tcg: Avoid double lock if page tables happen to be in mmio memory', 2024-02; 7.2.22 measured: it "
           "locks only when the lock is not held"),
    Change("setl_exclusive_hang", True, FIRST, (9, 2),
           "until 7ba055b49b74 'target/i386: fix hang when using slow path for ptw_setl', 2024-10; measured on 7.2.22"),
    Change("plugin_walk", True, (8, 1), (9, 2),
           "since 6d03226b42 'plugins: force slow path when plugins instrument memory ops', 2023-06; until "
           "115ade42d501 'target/i386: Use probe_access_full_mmu in ptw_translate', 2024-10"),
    Change("arm_hafdbs_mmio", True, FIRST, (9, 0),
           "until 'arm/ptw: Handle atomic updates of page tables entries in MMIO during PTW', 2024-02; "
           "measured on 7.2.22 (ESR 0x920000b1) and 10.0.13"),
    Change("second_page_mmio", True, FIRST, (8, 0),
           "until 'accel/tcg: Allow the second page of an instruction to be MMIO', 2023-02; measured on 7.2.22"),
    Change("straddle_final_insn", True, FIRST, (9, 1),
           "until ddfa9f11766c 'accel/tcg: Cap the translation block when we encounter mmio', 2024-04. By reading: the "
           "x86 translator of these releases ends a block at its page's end anyway; the switch shows what it would do"),
    Change("straddle_jump_cache", True, FIRST, NEVER,
           "read in accel/tcg/cpu-exec.c of 2025: the block is stored in the jump cache whatever its first page is"),
    Change("atomic_flags", True, (10, 0, 50), (10, 0, 90),
           "since 24b5e0fdb543 'accel/tcg: Move TLB_MMIO, TLB_DISCARD_WRITE to slow flags', 2025-04; until "
           "319b0c8d0774 'accel/tcg: Fix atomic_mmu_lookup vs TLB_FORCE_SLOW', 2025-05: in no release"),
    Change("atomic_step_livelock", True, (8, 1, 2), (8, 2),
           "since 18a536f1f8d6 'accel/tcg: Always require can_do_io', 2023-09; until CF_LAST_IO went, 2023-10 (1961)"),
    Change("oneshot_unregistered", True, FIRST, (6, 0),
           "until one-shot blocks of MMIO code got CF_LAST_IO, 2021"),
    Change("io_must_be_last", True, (8, 1, 1), (8, 1, 2),
           "since 0d58c660689f 'softmmu: Use async_run_on_cpu in tcg_commit', 2023-08; until 18a536f1f8d6, 2023-09: "
           "issue 1866. Before (tcg_commit of 7.2) the TLB was flushed at once"),
    Change("stage2_ro_update", True, (9, 0), NEVER,
           "read in target/arm/ptw.c of 2025: the MMIO branch comes before the check of stage 2"),
    Change("rsvd_error_code", True, (7, 2), NEVER,
           "read in target/i386/tcg/system/excp_helper.c of 2025; the walker of 2022 sets RSVD without P"),
    Change("step_atomic_setl", True, (9, 2), NEVER,
           "read in 7ba055b49b74: cpu_exec_start inside an exclusive section waits for that section"),
    Change("excl_bql_deadlock", True, (9, 2), NEVER,
           "read in 7ba055b49b74: start_exclusive with the lock held"),
    Change("hdm_target_list", True, FIRST, (7, 1), "read in hw/cxl/cxl-host.c of 2022: fixed while 7.1 was made"),
    Change("hdm_decoder_count", True, FIRST, (8, 2),
           "until 'hw/cxl: Support 4 HDM decoders at all levels of topology', 2023-09; 7.2.22 measured: the device's "
           "COMMITTED is not looked at"),
    Change("reserved_iw", True, (8, 2), NEVER,
           "read in hw/mem/cxl_type3.c of 2025: since devices pass over decoders, with the several of 2023-09"),
    Change("alias_path", True, FIRST, (11, 1), "until the direct path, in the PCI maintainer's tree of 2026-06"),
    Change("alias_path_base", True, (10, 1, 50), (10, 1, 60), "RFC of 2025-10 only: in no release"),
    Change("sections_limit", True, FIRST, (11, 1),
           "until section numbers left the TLB's entries, accel/tcg/cputlb.c of late 2025; proposed with it"),
    Change("io_around", True, FIRST, (8, 1),
           "7.2.22 measured: two aligned 8-byte reads, byte writes; pieces since the MMIO helpers of 2023"),
    Change("io_halves", True, FIRST, (8, 1),
           "until 128-bit loads and stores came to the translators (tcg_gen_qemu_ld_i128), 2023-05"),
    Change("can_do_io", "P0", FIRST, (8, 1, 2), "18a536f1f8d6 came in 8.1.2; measured on 7.2.22"),
    Change("can_do_io", "P1", (8, 1, 2), (9, 1), "18a536f1f8d6 until the series of 2024-04"),
)  # fmt: skip


def parse(text: str) -> tuple[int, ...]:
    """ "qemu-8.2" or "8.2" as numbers. Raises ValueError unless it is one of RELEASES."""
    name = text.removeprefix("qemu-")
    if name not in RELEASES:
        raise ValueError(f"release must be one of {', '.join(RELEASES)} (with or without qemu-), not {text!r}")
    return tuple(map(int, name.split(".")))


def at(version: tuple[int, ...]) -> Switches:
    """The switches of a version, which may lie between releases."""
    return Switches(**{c.field: c.value for c in CHANGES if c.since <= version < c.until})


def release(name: str) -> Switches:
    """The switches of a release: "8.2" or "qemu-8.2". Raises ValueError for one that is not in RELEASES."""
    return at(parse(name))


def switches_of(emulator: object) -> Switches:
    """Those of a release, by name, or as given. Raises ValueError for what is neither."""
    if isinstance(emulator, str):
        return release(emulator)
    if isinstance(emulator, Switches):
        return emulator
    raise ValueError(f"emulator must be a release such as \"qemu-8.2\" or mmu.tcg.Switches, not {emulator!r}")


# Bits of the build that was measured: 10.0.13 with single fixes undone at run time.
REVERTS: dict[int, dict[str, Any]] = {
    1: {"lookup_tb_can_do_io": True},
    2: {"double_lock": True},
    4: {"ptw_retaddr": True},
    8: {"setl_exclusive_hang": True, "setl_asserts": True},
    16: {"can_do_io": "P1"},
}


def reverted(mask: int) -> Switches:
    """10.0 without the fixes of *mask*: 1 can_do_io in the lookup helper, 2 the lock that may be held, 4 the return
    address of the x86 walker, 8 leaving the running state for its exclusive section (whose absence an assertion
    notices there), 16 can_do_io in every last instruction. Raises ValueError for other bits."""
    if not 0 <= mask <= sum(REVERTS):
        raise ValueError(f"mask must be made of the bits {', '.join(map(str, REVERTS))}, not {mask}")
    found = release("10.0")
    for bit, changes in REVERTS.items():
        if mask & bit:
            found = found.replace(**changes)
    return found
