"""For each switch of the emulator: the fixed way made the faulty one. The regress test of the bug must notice."""

from tests.mutations import Mutation


def _always(bug: str, file: str, old: str, new: str, test: str) -> Mutation:
    return Mutation(f"switch: {bug} is always faulty", file, old, new, (f"tests/regress/test_{test}.py",))


MUTATIONS = (
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
        "judged = self._window.base if self._switches.alias_path_base else s.base",
        "judged = self._window.base",
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
