"""For each switch of the emulator: the fixed way made the faulty one. The regress test of the bug must notice."""

from tests.mutations import Mutation


def _always(bug: str, file: str, old: str, new: str, test: str) -> Mutation:
    return Mutation(f"switch: {bug} is always faulty", file, old, new, (f"tests/regress/test_{test}.py",))


MUTATIONS = (
    _always(
        "ptw-retaddr",
        "mmu/tcg/walk_x86.py",
        "self._ra = None if accesses.switches.ptw_retaddr else ra",
        "self._ra = None",
        "walk_of_mmio_tables_aborts_without_a_tb",
    ),
    _always(
        "lookup-tb-can-do-io",
        "mmu/tcg/cpu.py",
        "if not self.switches.lookup_tb_can_do_io:",
        "if False:",
        "indirect_jump_to_a_page_with_mmio_tables_aborts",
    ),
    _always(
        "double-lock",
        "mmu/tcg/locks.py",
        "return self._hold if self.switches.double_lock or not self.depth else self._pass",
        "return self._hold  # always",
        "interrupt_through_mmio_tables_takes_the_lock_twice",
    ),
    _always(
        "setl-exclusive-hang",
        "mmu/tcg/locks.py",
        "pauses = not self.switches.setl_exclusive_hang and",
        "pauses = False and",
        "setting_a_flag_in_mmio_tables_hangs",
    ),
    _always(
        "plugin-walk",
        "mmu/tcg/walk_x86.py",
        "hidden = self._accesses.switches.plugin_walk and self._accesses.switches.plugins",
        "hidden = self._accesses.switches.plugins",
        "memory_plugin_hangs_walks_of_ram",
    ),
    _always(
        "arm-hafdbs-mmio",
        "mmu/tcg/walk_arm64.py",
        "self.refuses_updates = accesses.switches.arm_hafdbs_mmio",
        "self.refuses_updates = True",
        "arm64_access_flag_in_mmio_tables_faults",
    ),
    _always(
        "second-page-mmio",
        "mmu/tcg/translator.py",
        "if accesses.switches.second_page_mmio:",
        "if True:",
        "instruction_from_ram_into_mmio_aborts",
    ),
    _always(
        "straddle-final-insn",
        "mmu/tcg/translator.py",
        "self.final = not accesses.switches.straddle_final_insn",
        "self.final = False",
        "code_after_a_straddling_instruction_is_stale",
    ),
    _always(
        "straddle-jump-cache",
        "mmu/tcg/execution.py",
        "Blocks(switches.straddle_jump_cache)",
        "Blocks(True)",
        "rewritten_straddling_instruction_runs_as_before",
    ),
    _always(
        "atomic-flags",
        "mmu/tcg/access.py",
        "if self.switches.atomic_flags:",
        "if True:",
        "atomic_on_mmio_segfaults_at_its_page_offset",
    ),
    _always(
        "atomic-step-livelock",
        "mmu/tcg/execution.py",
        "livelock = switches.atomic_step_livelock and block.flags.no_links",
        "livelock = block.flags.no_links",
        "atomic_on_mmio_never_ends",
    ),
    _always(
        "oneshot-unregistered",
        "mmu/tcg/translator.py",
        "registered = not (oneshot and self.accesses.switches.oneshot_unregistered)",
        "registered = not oneshot",
        "counted_instruction_in_mmio_that_does_io_aborts",
    ),
    _always(
        "io-must-be-last",
        "mmu/tcg/switches.py",
        'return "P0" if self.io_must_be_last else self.can_do_io',
        'return "P0"',
        "memory_taken_away_can_still_be_read",
    ),
    _always(
        "stage2-ro-update",
        "mmu/tcg/walk_arm64.py",
        "unasked = self._accesses.switches.stage2_ro_update or self._tables.refuses_updates",
        "unasked = True",
        "arm64_walk_writes_a_table_that_stage_2_protects",
    ),
    _always(
        "rsvd-error-code",
        "mmu/tcg/x86.py",
        "isinstance(event, PageFault) and self.switches.rsvd_error_code:",
        "isinstance(event, PageFault):",
        "reserved_bit_faults_as_not_present",
    ),
    _always(
        "step-atomic-setl",
        "mmu/tcg/locks.py",
        "(not self.exclusive or self.switches.step_atomic_setl)",
        "True",
        "atomic_across_pages_hangs_setting_a_flag",
    ),
    _always(
        "excl-bql-deadlock",
        "mmu/tcg/locks.py",
        "and not self.switches.excl_bql_deadlock",
        "and False",
        "two_cpus_wait_for_each_other",
    ),
    _always(
        "alias-path",
        "cxl/emulator.py",
        "*(() if self._switches.alias_path else self._aliases())",
        "*()",
        "memory_that_nothing_interleaves_is_served_as_a_device",
    ),
    _always(
        "hdm-target-list",
        "cxl/decoder.py",
        "if not self.strict and self.switches is not None and self.switches.hdm_target_list:",
        "if not self.strict:",
        "upper_targets_of_eight_go_to_the_lower_four",
    ),
    _always(
        "hdm-decoder-count",
        "cxl/decoder.py",
        "if self.switches is not None and self.switches.hdm_decoder_count:",
        "if self.switches is not None:",
        "second_region_is_sent_to_the_first",
    ),
    _always(
        "reserved-iw",
        "cxl/decoder.py",
        "if self.strict or self.switches is None or not self.switches.reserved_iw or not self.device:",
        "if self.strict or self.switches is None or not self.device:",
        "reserved_encoding_ends_the_process",
    ),
    _always(
        "alias-path-base",
        "cxl/emulator.py",
        "by_window = self._switches.alias_path_base",
        "by_window = True",
        "interleaved_range_is_shown_as_plain_ram",
    ),
    _always(
        "sections-limit",
        "cxl/emulator.py",
        "if switches.sections_limit and sections > SECTIONS:",
        "if sections > SECTIONS:",
        "four_thousand_sections_abort",
    ),
)
