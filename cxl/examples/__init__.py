"""Guest programs that are shipped: sources (.s) and their assembled bytes (.bin), for each architecture.

How a program begins, these or your own:

- Code runs from its first byte, or from `_start`, at the highest privilege of the kernel (x86-64: CPL 0 in long mode;
  arm64: EL1 with SP_EL1), with paging on and interrupts off. It is position-independent, or linked to its address;
  its pages are writable, for the examples that change themselves.
- x86-64: RDI is the address of the data area and RSI its size in bytes, RSP the end of the stack. There is no GDT, IDT
  or TSS yet: an exception ends the run until the program loads its own. All other registers are 0.
- arm64: X0 is the address of the data area and X1 its size, SP the end of the stack. VBAR_EL1 is 0: an exception ends
  the run until the program sets it. All other registers are 0.
- It ends with HLT or WFI. What it found out is in RAX or X0.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
ARCHS = ("x86_64", "aarch64")
NAMES = {
    "checksum": "fills and sums up a buffer, with unaligned accesses across every granule",
    "fault": "writes where nothing is mapped, and has no handler",
    "handler": "handles its own page faults",
    "selfmod": "rewrites the code that it runs",
}


def path(name: str, arch: str, suffix: str = "bin") -> Path:
    """The file of an example. ValueError when there is no such example or architecture."""
    if name not in NAMES:
        raise ValueError(f"there is no example {name!r}; there are {', '.join(NAMES)}")
    if arch not in ARCHS:
        raise ValueError(f"the examples are for {', '.join(ARCHS)}, not for {arch!r}")
    return HERE / f"{name}.{arch}.{suffix}"


def find(program: str, arch: str) -> Path:
    """The file that *program* names: an example by its name, else a path.

    ValueError when it is neither.
    """
    if program in NAMES:
        return path(program, arch)
    found = Path(program)
    if not found.is_file():
        raise ValueError(f"{program!r} is neither a file nor an example; examples are {', '.join(NAMES)}")
    return found
