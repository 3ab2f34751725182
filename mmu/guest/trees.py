"""The page tables that a CPU uses now, whoever made them, and the register that refers to each tree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmu import arm64, x86
from mmu.arm64.mappings import trees as arm64_trees
from mmu.arm64.regime import regime_of, stage1_of
from mmu.radix.relocate import Tree
from mmu.scan import Form, collect
from mmu.x86.mappings import tree as x86_tree

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmu.guest.cpu import Cpu


@dataclass(frozen=True)
class GuestTree(Tree):
    """`register` holds the root; `form` is how a scan reads the tables."""

    register: str = ""
    form: Form | None = None

    def mappings(self) -> NDArray[np.void]:
        """Every page, as `mmu.scan` records (va, pa, size, flags). BusError when an entry cannot be read."""
        assert self.form is not None
        return collect(self.space, self.form, self.root)


def trees(cpu: Cpu) -> list[GuestTree]:
    """Lower addresses first; none when paging is off."""
    regs: Any = cpu.walk_registers()
    found: list[tuple[str, Form, int]] = []
    if isinstance(regs, x86.Registers):
        if regs.paging:
            found.append(("cr3", *x86_tree(regs)))
    elif stage1_of(regs, regime_of(regs, regs.el), False).enabled:
        for upper, name in enumerate(("ttbr0_el1", "ttbr1_el1")):
            found += [(name, form, root) for form, root in arm64_trees(regs, 1, bool(upper))]
    return [
        GuestTree(cpu.space, form.levels, root, form.big_endian, name, form) for name, form, root in found
        if cpu.read(name)  # a range that was never set up
    ]  # fmt: skip


def point(cpu: Cpu, tree: GuestTree, root: int) -> None:
    """Let the register of *tree* refer to *root*; what else is in it stays."""
    cpu.write(tree.register, cpu.read(tree.register) - tree.root + root)


def builder(cpu: Cpu, frames: Callable[[], int]) -> Any:
    """A builder (mmu.x86.PageTables, mmu.arm64.PageTables) that goes on with the first tree.

    None without one, and when *frames* are too small for its tables: the guest has changed to another granule.
    """
    regs: Any = cpu.walk_registers()
    tree = next(iter(trees(cpu)), None)
    if tree is None or getattr(frames, "size", tree.levels[-1].size) < tree.levels[-1].size:
        return None
    if isinstance(regs, x86.Registers):
        return x86.PageTables(cpu.space, frames, len(tree.levels), root=tree.root)
    tables = stage1_of(regs, regime_of(regs, regs.el), tree.register == "ttbr1_el1").tables
    return arm64.PageTables(
        cpu.space, frames, 1 << tables.granule.page_shift, tables.input_bits, pa_bits=tables.output_bits,
        upper=tree.register == "ttbr1_el1", root=tree.root)
