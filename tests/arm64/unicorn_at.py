"""unicorn's own arm64 MMU, asked by AT instructions: an oracle that shares no line with ours.

The CPU runs a loop under unicorn's virtual TLB, which an identity hook fills, so that it fetches and stores whatever
the tables under test hold; AT uses unicorn's built-in walker (QEMU 5.0's) with TTBR, TCR, MAIR and SCTLR, and no TLB.
"""

import ctypes
import struct

from unicorn import UC_ARCH_ARM64, UC_HOOK_TLB_FILL, UC_MODE_ARM, UC_PROT_ALL, Uc, arm64_const, unicorn_const

OPERATIONS = ("S1E1R", "S1E1W", "S1E0R", "S1E0W", "S1E1RP", "S1E1WP")
AT = (0xD5087800, 0xD5087820, 0xD5087840, 0xD5087860, 0xD5087900, 0xD5087920)  # AT ..., X0
CODE, INPUT, OUTPUT = 1 << 46, 1 << 45, (1 << 45) + (1 << 20)
BATCH = 4096
# op0, op1, CRn, CRm, op2
SYSTEM = {
    "SCTLR_EL1": (3, 0, 1, 0, 0), "TCR_EL1": (3, 0, 2, 0, 2), "TTBR0_EL1": (3, 0, 2, 0, 0),
    "TTBR1_EL1": (3, 0, 2, 0, 1), "MAIR_EL1": (3, 0, 10, 2, 0), "HCR_EL2": (3, 4, 1, 1, 0),
    "SCR_EL3": (3, 6, 1, 1, 0),
}  # fmt: skip


def _program() -> bytes:
    """x1: addresses, x3: results, x4: count. One PAR_EL1 for each address and operation."""
    body = [0xF8408420]  # ldr x0, [x1], #8
    for at in AT:
        body += [at, 0xD5033FDF, 0xD5387402, 0xF8008462]  # at; isb; mrs x2, par_el1; str x2, [x3], #8
    body += [0xF1000484]  # subs x4, x4, #1
    body += [0x54000001 | (-len(body) & 0x7FFFF) << 5, 0xD503207F]  # b.ne body; wfi
    return struct.pack(f"<{len(body) + 1}I", 0xD500419F, *body)  # msr pan, #1 first


class UnicornMmu:
    """*memory* is the physical memory from 0 on; it is never written."""

    def __init__(self, memory: bytes) -> None:
        self.uc = uc = Uc(UC_ARCH_ARM64, UC_MODE_ARM, arm64_const.UC_CPU_ARM64_MAX)
        self._raw = ctypes.create_string_buffer(len(memory) + 4096)
        host = ctypes.addressof(self._raw) + 4095 & ~4095
        ctypes.memmove(host, memory, len(memory))
        uc.mem_map_ptr(0, len(memory), UC_PROT_ALL, host)
        uc.mem_map(CODE, 4096)
        uc.mem_map(INPUT, 1 << 21)
        uc.mem_write(CODE, _program())
        uc.ctl_set_tlb_mode(unicorn_const.UC_TLB_VIRTUAL)
        uc.hook_add(UC_HOOK_TLB_FILL, self._identity)
        # Without these the built-in walker takes EL1 for AArch32.
        self._set("SCR_EL3", 0x431)
        self._set("HCR_EL2", 1 << 31)

    @staticmethod
    def _identity(uc, address, access, entry, data) -> bool:
        entry.paddr, entry.perms = address, UC_PROT_ALL  # masked to a page, whatever its size
        return True

    def _set(self, name: str, value: int) -> None:
        op0, op1, crn, crm, op2 = SYSTEM[name]
        self.uc.reg_write(arm64_const.UC_ARM64_REG_CP_REG, (crn, crm, op0, op1, op2, value))

    def par(self, registers: dict[str, int], addresses: list[int]) -> list[tuple[int, ...]]:
        """PAR_EL1 of each address for each of OPERATIONS, with PSTATE.PAN set."""
        assert len(addresses) <= BATCH
        for name, value in registers.items():
            self._set(name.upper(), value)
        self.uc.mem_write(INPUT, struct.pack(f"<{len(addresses)}Q", *addresses))
        for name, value in (("X1", INPUT), ("X3", OUTPUT), ("X4", len(addresses))):
            self.uc.reg_write(getattr(arm64_const, f"UC_ARM64_REG_{name}"), value)
        self.uc.emu_start(CODE, 0)  # to the wfi
        size = 8 * len(AT) * len(addresses)
        return list(struct.iter_unpack(f"<{len(AT)}Q", self.uc.mem_read(OUTPUT, size)))
