"""QEMU beside our guest: measured where it is, a line where it is not, an error never."""

import platform
import shutil

import pytest

from scripts.benches import group_qemu
from scripts.benches.harness import Bench

BENCH = Bench("qemu", share=0.001)


def program(tmp_path, monkeypatch, script):
    path = tmp_path / group_qemu.PROGRAM
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def rows():
    return [(r.name, r.ok, r.ours_ns) for r in group_qemu.rows(BENCH)]


def test_without_qemu_there_is_a_line_that_says_so(monkeypatch):
    monkeypatch.setattr(group_qemu.shutil, "which", lambda name: None)
    assert rows() == [("skipped: qemu-system-x86_64 is not installed", True, None)]


def test_a_program_that_is_no_qemu_is_skipped(tmp_path, monkeypatch):
    program(tmp_path, monkeypatch, "echo I am a teapot")
    ((name, ok, _),) = rows()
    assert ok
    assert name.startswith("skipped: ")
    assert name.endswith("says 'I am a teapot\\n'")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the guest is one for x86-64")
@pytest.mark.parametrize(
    "says, reason",
    [("", "the guest does not answer: no such machine"), ("printf x", "the guest must begin with '+', not 'x'"),
     ("printf '!b'", "the guest found no host bridge with decoders"),
     ("printf '+'; truncate -s 8 /dev/null", "its device 0 must hold")],
)  # fmt: skip
def test_a_qemu_that_does_not_run_the_guest_is_skipped(tmp_path, monkeypatch, says, reason):
    script = f"""
case "$1" in --version) echo QEMU emulator version 99.9; exit;; -device) exit;; esac
echo no such machine >&2
for word in "$@"; do case "$word" in *mem-path=*) f=${{word#*mem-path=}}; : > "${{f%%,*}}";; esac; done
{says}
"""
    program(tmp_path, monkeypatch, script)
    ((name, ok, _),) = rows()
    assert ok
    assert f"skipped: {reason}" in name


@pytest.mark.skipif(shutil.which(group_qemu.PROGRAM) is None, reason=f"{group_qemu.PROGRAM} is not installed")
def test_a_qemu_with_cxl_is_measured():
    found = rows()
    assert [name for name, _, _ in found] == [f"load of 8 bytes, {w}" for w in ("RAM", "window, auto", "window, exact")]
