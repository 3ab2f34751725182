"""The grammar of QEMU command lines: words, comma lists, sizes. No knowledge of CXL."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence

from cxl.errors import TopologyError

Options = dict[str, str]

# Options that take no value; every other one is taken to have one, unless the next word begins with a dash.
_FLAGS = (
    "nodefaults nographic no-reboot no-shutdown enable-kvm S s snapshot daemonize no-user-config preconfig "
    "h help version usb full-screen win2k-hack singlestep only-migratable"
)
FLAGS = frozenset(_FLAGS.split())
# Options whose value may itself begin with a dash.
FREE_TEXT = frozenset({"append", "name"})
SIZE = re.compile(r"(0x[0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?)([kKmMgGtTpPeEbB]?)")
UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50, "e": 1 << 60}
BOOLEANS = {w: v for v, words in ((True, "on yes true y"), (False, "off no false n")) for w in words.split()}
IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")


def words(args: str | Sequence[str]) -> list[tuple[str, str]]:
    """(option without its dashes, value) in order. The program's name and other words without an option are dropped."""
    if isinstance(args, str):
        try:
            args = shlex.split(args.replace("\\\n", " "), comments=False)
        except ValueError as error:
            raise TopologyError(f"the command line cannot be split into words: {error}") from None
    out, i = [], 0
    while i < len(args):
        word, i = args[i], i + 1
        if not word.startswith("-") or word == "-":
            continue
        name = word.lstrip("-")
        if name in FLAGS:
            out.append((name, ""))
        elif i < len(args) and (not args[i].startswith("-") or name in FREE_TEXT):
            out.append((name, args[i]))
            i += 1
        else:
            out.append((name, ""))
    return out


def comma_list(text: str, implied: str, what: str, short_booleans: bool = True) -> Options:
    """``a,k=v,...`` as a mapping; the first word without '=' belongs to *implied*; ',,' is a comma in a value.

    *short_booleans*: another word alone means ``word=on`` (``noword``: off), as QEMU still takes it for devices.
    """
    out: Options = {}
    for n, part in enumerate(p.replace("\0", ",") for p in text.replace(",,", "\0").split(",")):
        key, equals, value = part.partition("=")
        if not part and n:
            continue
        if not equals and n == 0:
            key, value = implied, part
        elif not equals and short_booleans:
            key, value = (key[2:], "off") if key.startswith("no") else (key, "on")
        elif not equals:
            raise TopologyError(f"{what}: expected '=' after {key!r} in {text!r}")
        if not key:
            raise TopologyError(f"{what}: a key is missing before '=' in {text!r}")
        out[key] = value
    return out


def device_options(text: str, implied: str, what: str) -> Options:
    """A comma list or a JSON object, as -device and -object take them; every value as text."""
    if not text.startswith("{"):
        return comma_list(text, implied, what)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise TopologyError(f"{what}: bad JSON at character {error.pos}, {error.msg}: {text!r}") from None
    return {key: _as_text(item) for key, item in value.items()}


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return value if isinstance(value, str) else json.dumps(value)


def size(text: str, what: str, unit: str = "") -> int:
    """Bytes of ``4G``, ``0x100M``, ``1.5k``; *unit* is the suffix when there is none."""
    found = SIZE.fullmatch(text)
    if found is None:
        raise TopologyError(f"{what}: must be a size such as 256M or 4G, not {text!r}")
    number, suffix = found.groups()
    scale = UNITS[(suffix or unit).lower()]
    if number.startswith("0x"):
        return int(number, 16) * scale
    whole, _, fraction = number.partition(".")
    return int(whole) * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)


def integer(text: str, what: str, bits: int) -> int:
    """A number of at most *bits* bits: decimal, 0x hexadecimal or 0 octal, as C reads it."""
    try:
        value = int(text, 8) if re.fullmatch(r"0[0-7]+", text) else int(text, 0)
    except ValueError:
        raise TopologyError(f"{what}: must be a number, not {text!r}") from None
    if not 0 <= value < 1 << bits:
        raise TopologyError(f"{what}: must be in 0..{(1 << bits) - 1}, not {text}")
    return value


def boolean(text: str, what: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise TopologyError(f"{what}: must be on or off, not {text!r}")
    return BOOLEANS[text.lower()]


def identifier(text: str, what: str) -> str:
    if IDENTIFIER.fullmatch(text) is None:
        raise TopologyError(f"{what}: an id must begin with a letter and hold letters, digits, '-', '.', '_', "
                            f"not {text!r}")
    return text
