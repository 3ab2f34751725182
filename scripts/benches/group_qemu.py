"""The loop of loads of the group "guest", on QEMU's own window: never a requirement, and nothing where QEMU is missing.

The guest of qemu.c commits the decoders of a 2-way window of 256 bytes. Its CPU time is that of QEMU's process.
"""

from __future__ import annotations

import os
import select
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.benches.group_guest import LOAD, PER_LOOP, Guest
from scripts.benches.harness import Bench, Row
from scripts.benches.native import compiler

PROGRAM = "qemu-system-x86_64"
HERE = Path(__file__).parent
# Freestanding: no start-up code, no vector registers before they are switched on, no red zone for interrupts.
FLAGS = (
    "-m64", "-O2", "-Wall", "-Wextra", "-ffreestanding", "-fno-pic", "-fno-pie", "-no-pie", "-mno-red-zone",
    "-mgeneral-regs-only", "-fno-stack-protector", "-fcf-protection=none", "-nostdlib", "-static",
    f"-Wl,-T,{HERE / 'qemu.ld'}", "-Wl,--oformat=binary", "-Wl,--build-id=none",
)  # fmt: skip
PATIENCE = 120  # seconds for one answer of the guest
WORD = 0x1122_3344_5566_7700  # the guest stores this to device 0, and one more to device 1
LETTERS = {"b": "no host bridge with decoders", "d": "a device without decoders", "n": "not two devices"}


class Refused(Exception):
    """There is no QEMU that can do it; says why. Never an error: nobody must have one."""


def machine_arguments(folder: Path, devices: str) -> list[str]:
    """The machine; *devices* is how this QEMU calls the memory of a device: memdev, or persistent-memdev."""
    out = ["-M", "q35,cxl=on", "-m", "512M,maxmem=4G,slots=4", "-cpu", "max", "-accel", "tcg", "-nodefaults",
           "-display", "none", "-no-reboot", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
           "-device", "pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.0"]  # fmt: skip
    for n in range(2):
        for name, size in (f"m{n}", "256M"), (f"l{n}", "1M"):
            out += ["-object", f"memory-backend-file,id={name},share=on,mem-path={folder / name},size={size}"]
        out += ["-device", f"cxl-rp,port={n},bus=cxl.0,id=rp{n},chassis=0,slot={n + 2}",
                "-device", f"cxl-type3,bus=rp{n},{devices}=m{n},lsa=l{n},id=mem{n}"]  # fmt: skip
    window = "cxl-fmw.0.targets.0=cxl.0,cxl-fmw.0.size=4G,cxl-fmw.0.interleave-granularity=256"
    return [*out, "-M", window]


def version(program: str) -> str:
    """As in "QEMU 7.2.22". Raises Refused."""
    text = _asked(program, "--version")
    words = text.split()
    if words[:3] != ["QEMU", "emulator", "version"] or len(words) < 4:
        raise Refused(f"{program} says {text[:60]!r}")
    return f"QEMU {words[3]}"


def _asked(program: str, *arguments: str) -> str:
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"{program}: {error}") from None
    return done.stdout


def guest_image(folder: Path, fast: int, slow: int) -> Path:
    """The guest, which makes *fast* rounds of the loop in RAM and *slow* in the window. Raises Refused."""
    loop, image = folder / "loop.bin", folder / "guest.bin"
    loop.write_bytes(LOAD[:-1])  # without the HLT
    command = [*compiler().split(), *FLAGS, f'-DLOOP="{loop}"', f"-DFAST={fast}", f"-DSLOW={slow}",
               str(HERE / "qemu.c"), "-o", str(image)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"{command[0]} does not make guests for x86-64: {done.stderr.splitlines()[:1]}")
    return image


class Running:
    """A QEMU whose guest answers each letter with the same one when it has done what it stands for."""

    def __init__(self, program: str, folder: Path, image: Path) -> None:
        name = "persistent-memdev" if "persistent-memdev" in _asked(program, "-device", "cxl-type3,help") else "memdev"
        self._said = (folder / "errors").open("w+")
        self._process = subprocess.Popen(
            [program, *machine_arguments(folder, name), "-kernel", str(image)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, bufsize=0)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def hear(self) -> str:
        """The next letter. Raises Refused when there is none."""
        out = self._process.stdout
        assert out is not None
        ready, _, _ = select.select([out], [], [], PATIENCE)
        letter = out.read(1).decode("ascii", "replace") if ready else ""
        if letter == "!":
            raise Refused(f"the guest found {LETTERS.get(self.hear(), 'something strange')}")
        if not letter:
            self._said.seek(0)
            raise Refused(f"the guest does not answer: {(self._said.read().splitlines() or ['nothing was said'])[0]}")
        return letter

    def cpu(self) -> int:
        """CPU ns of all threads."""
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks)

    def run(self, letter: str) -> int:
        """CPU ns from the order to the answer."""
        assert self._process.stdin is not None
        start = self.cpu()
        self._process.stdin.write(letter.encode())
        if self.hear() != letter:
            raise Refused(f"the guest does not say {letter!r} when it is done")
        return self.cpu() - start


def rows(bench: Bench) -> Iterator[Row]:
    try:
        name, times = measure(bench, shutil.which(PROGRAM))
    except Refused as reason:
        yield bench.row(f"skipped: {reason}", None)
        return
    fast = bench.items(8_000_000) // PER_LOOP + 1
    slow = bench.items(800_000) // PER_LOOP + 1
    for what, dispatch, where, rounds, theirs in (
        ("RAM", "auto", [], fast, times["r"]), ("window, auto", "auto", ["data"], fast, times["w"]),
        ("window, exact", "exact", ["data"], slow, times["w"]),
    ):  # fmt: skip
        guest = Guest(LOAD, dispatch, *where, rcx=rounds)
        guest.check(2 * rounds * PER_LOOP if dispatch == "exact" else 0)
        ours = bench.times({"ours": guest.run}, rounds * PER_LOOP)["ours"]
        yield bench.row(f"load of 8 bytes, {what}", ours, f"{name}, the same loop in {what.split(',')[0]}", theirs)


def measure(bench: Bench, program: str | None) -> tuple[str, dict[str, float]]:
    """QEMU's name, and its ns for a load: in RAM ("r") and in the window ("w"). Raises Refused."""
    if program is None:
        raise Refused(f"{PROGRAM} is not installed")
    rounds = {"r": bench.items(20_000_000), "w": bench.items(200_000)}
    name = version(program)
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at)
        qemu = Running(program, folder, guest_image(folder, rounds["r"], rounds["w"]))
        try:
            if (letter := qemu.hear()) != "+":
                raise Refused(f"the guest must begin with '+', not {letter!r}")
            _check(folder)
            taken = {letter: [qemu.run(letter) for _ in range(bench.passes)] for letter in rounds}
        finally:
            qemu.close()
    return name, {letter: statistics.median(t) / rounds[letter] / PER_LOOP for letter, t in taken.items()}


def _check(folder: Path) -> None:
    """Raise Refused unless the guest's two words are in the two devices: then the window is what it should be."""
    for n in range(2):
        with (folder / f"m{n}").open("rb", buffering=0) as file:
            found = int.from_bytes(os.pread(file.fileno(), 8, 0), "little")
        if found != WORD + n:
            raise Refused(f"its device {n} must hold {WORD + n:#x} at DPA 0, not {found:#x}")
