"""What is generated is current, and the generator sees every format."""

from pathlib import Path

import pytest

from cffi_build import build, gen_tables
from mmu.layout import Bits, Layout, reserved

CSRC = Path(__file__).resolve().parent.parent / "csrc"


def test_generated_header_is_current():
    assert gen_tables.render() == (CSRC / "mmu_tables.h").read_text()


def test_every_api_header_is_declared_to_cffi_and_included():
    headers = {p.name for p in CSRC.glob("*_api.h")}
    assert headers == set(build.API)
    assert headers == {line.split('"')[1] for line in (CSRC / "mmu.h").read_text().splitlines() if "_api.h" in line}


def test_a_bit_described_twice_is_refused():
    with pytest.raises(TypeError, match=r"Bad\.B overlaps"):

        class Bad(Layout, bits=8, source="none"):
            A = Bits(3, 0)
            B = Bits(7, 3)


def test_a_bit_left_out_is_refused():
    with pytest.raises(TypeError, match="bits 0x80 are not described"):

        class Bad(Layout, bits=8, source="none"):
            A = Bits(6, 0)


def test_a_bit_outside_the_word_is_refused():
    with pytest.raises(TypeError, match="outside the 8-bit word"):

        class Bad(Layout, bits=8, source="none"):
            A = Bits(8, 0)


def test_reserved_mask_is_derived():
    class Good(Layout, bits=8, source="none"):
        A = Bits(3, 0)
        R = reserved(5, 4)
        C = Bits(7, 6)

    assert Good.reserved_mask == 0x30
    assert Good.make(A=5, C=2) == 0x85
    assert Good.decode(0x85) == {"A": 5, "C": 2}
    with pytest.raises(ValueError, match="A: 0x10 does not fit in 4 bits"):
        Good.make(A=16)
