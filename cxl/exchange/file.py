"""Which of the forms a file has."""

from __future__ import annotations

from cxl.errors import TopologyError


def form(data: bytes) -> str:
    """ "cedt", "cxl-list", "toml" or "qemu". Raises TopologyError when it is none of them."""
    if data[:4] == b"CEDT":
        return "cedt"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise TopologyError(f"neither text nor a CEDT, which begins with b'CEDT', not {data[:4]!r}") from None
    start = text.lstrip()
    if start.startswith("[["):
        return "toml"
    if start.startswith(("[", "{")):
        return "cxl-list"
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if any(line.startswith("[[") for line in lines):
        return "toml"
    if lines and ("-device " in text or "-M " in text or "-machine " in text):
        return "qemu"
    raise TopologyError("neither a CEDT, nor the JSON of cxl list, nor TOML with [[bridge]] tables, "
                        "nor a QEMU command line")
