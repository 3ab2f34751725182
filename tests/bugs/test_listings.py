"""The machine code of the scenarios is what its listings say."""

import importlib

import pytest

from cxl.bugs import NAMES
from cxl.bugs.rig import CODE, PAGE, listing

MODULES = [f"cxl.bugs.{name.replace('-', '_')}" for name in NAMES] + ["cxl.bugs.kernel"]


def listings():
    for name in MODULES:
        for variable, text in vars(importlib.import_module(name)).items():
            if isinstance(text, str) and text.startswith("\n") and variable.isupper():
                yield pytest.param(name, text, id=f"{name.rpartition('.')[2]}-{variable}")


def disassembled(arch, code, address):
    import capstone

    kinds = {"x86": (capstone.CS_ARCH_X86, capstone.CS_MODE_64), "arm64": (capstone.CS_ARCH_ARM64, 0)}
    return [f"{i.mnemonic} {i.op_str}".strip() for i in capstone.Cs(*kinds[arch]).disasm(code, address)]


@pytest.mark.parametrize("module, text", list(listings()))
def test_the_bytes_are_those_of_the_instructions(module, text):
    said = [line.strip().partition("   ")[2].strip() for line in text.strip().splitlines()]
    straddling = "straddle" in module or "second_page" in module
    address = CODE + PAGE - 1 if straddling else CODE
    assert said in [disassembled(arch, listing(text), address) for arch in ("x86", "arm64")]


def test_there_are_listings():
    assert len(list(listings())) > 10


def test_a_wrong_listing_would_be_noticed():
    assert disassembled("x86", listing("\n 90   nop\n f4   hlt\n"), CODE) == ["nop", "hlt"]
