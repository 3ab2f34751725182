"""Where one call of a C walker puts its results, and how a Translation is made of them without its constructor."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from struct import Struct

from mmu.core import ffi
from mmu.types import Translation

# The constructor of a frozen class takes longer than a walk in C: its fields are set one by one.
new_object = object.__new__
(set_pa, set_page_size, set_writable, set_user, set_executable, set_attributes, set_steps) = (
    vars(Translation)[f.name].__set__ for f in fields(Translation)
)


class Answer:
    """The structs of one call for *arch*, kept in a pool by the rooms: making them costs more than a walk.

    `unpack()` gives the first fields of the translation as *layout* lists them; `list` holds *steps* steps.
    """

    __slots__ = ("fault", "list", "steps", "translation", "unpack")

    def __init__(self, arch: str, layout: Struct, steps: int) -> None:
        self.translation = ffi.new(f"struct mmu_{arch}_translation *")
        self.unpack = partial(layout.unpack_from, ffi.buffer(self.translation))
        self.fault = ffi.new(f"struct mmu_{arch}_fault *")
        self.list = ffi.new("struct mmu_step[]", steps)
        self.steps = ffi.new("struct mmu_steps *", {"capacity": steps, "step": self.list})
