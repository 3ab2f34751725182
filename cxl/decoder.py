"""A component-register block: HDM decoders that software programs through 4-byte registers.

Two ways to answer. *strict* follows the specification: a commit that breaks a rule (`cxl.rules`) sets
ERROR-NOT-COMMITTED and changes nothing, a committed decoder works with what it was committed with, lock-on-commit
and the global enable bit are obeyed. *permissive* follows QEMU, which checks nothing and looks at the registers anew
for each access: order, overlap, lock and the enable bit have no effect, and a range whose decoder is not committed
hides the ones after it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import TYPE_CHECKING

from cxl import format as fmt
from cxl import rules
from cxl.settings import Capability, Settings
from mmu.errors import AddressRangeError, AlignmentError
from mmu.stripes import ENCODED_GRANULARITY, ENCODED_WAYS

if TYPE_CHECKING:
    from mmu.tcg import Switches

QEMU_CONTROL_WRITABLE = 0x13FF


class DecoderBlock:
    """The registers of one host bridge, switch (*device* False) or device (*device* True).

    *capability* is the HDM capability register, *capacity* the device's bytes. *changed* is called after every
    write that may change where addresses go.
    """

    def __init__(
        self, name: str, capability: int, *, device: bool = False, capacity: int = 0, strict: bool = True,
        changed: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.name, self.device, self.capacity, self.strict = name, device, capacity, strict
        self.capability = Capability.of(capability)
        self.changed = changed
        self.switches: Switches | None = None  # mistakes of an emulator's releases; looked at where not strict
        self.refusals: dict[int, str] = {}  # decoder -> why its last commit was refused
        self._words: dict[int, int] = {}
        self._latched: dict[int, Settings] = {}
        self._current: tuple[Settings, ...] | None = None
        self._reset_words(capability)

    # -- registers ------------------------------------------------------------------------------------

    def read32(self, offset: int) -> int:
        """The register at *offset* of the 64 KiB block; 0 where there is none."""
        self._check(offset)
        return self._words.get(offset, 0)

    def write32(self, offset: int, value: int) -> None:
        """Store to the register at *offset* of the 64 KiB block; what is not writable stays."""
        self._check(offset)
        if not 0 <= value <= fmt.WORD_MASK:
            raise AddressRangeError(f"{self.name}: a register takes 0..{fmt.WORD_MASK:#x}, not {value:#x}")
        at = offset - fmt.HDM_OFFSET
        if at == fmt.HDM_GLOBAL_CONTROL:
            self._write_global(value)
            return
        number, field = divmod(at - fmt.DECODER_FIRST, fmt.DECODER_STRIDE)
        if not 0 <= number < self.capability.decoders or field > fmt.TARGETS_HIGH or self.is_locked(number):
            return
        if field == fmt.CONTROL:
            self._write_control(number, offset, value)
        else:
            low = field in (fmt.BASE_LOW, fmt.SIZE_LOW) or (self.device and field == fmt.SKIP_LOW)
            self._words[offset] = value & fmt.DecoderLow.VALUE.mask if low else value
            if not self.strict:
                self._touch()

    def reset(self) -> None:
        """A conventional reset: every decoder uncommitted, unlocked and zero."""
        self._reset_words(self._words[fmt.HDM_OFFSET])
        self._touch()

    def offset(self, number: int, field: int = 0) -> int:
        """Offset in the block of *field* (`cxl.format.BASE_LOW`, ...) of decoder *number*."""
        return fmt.HDM_OFFSET + fmt.DECODER_FIRST + number * fmt.DECODER_STRIDE + field

    def _check(self, offset: int) -> None:
        if offset % 4:
            raise AlignmentError(f"{self.name}: registers are 4 bytes wide, {offset:#x} is not a multiple of 4")
        if not 0 <= offset < fmt.COMPONENT_BLOCK_SIZE:
            raise AddressRangeError(f"{self.name}: registers end at {fmt.COMPONENT_BLOCK_SIZE:#x}, not {offset:#x}")

    def _reset_words(self, capability: int) -> None:
        header = fmt.CapabilityHeader.make(ID=1, VERSION=1, CACHE_MEM_VERSION=1, ARRAY_SIZE=1)
        entry = fmt.CapabilityEntry.make(ID=fmt.HDM_CAPABILITY_ID, VERSION=1, POINTER=fmt.HDM_POINTER)
        self._words = {
            fmt.CACHE_MEM_OFFSET: header, fmt.CACHE_MEM_OFFSET + 4: entry, fmt.HDM_OFFSET: capability,
        }  # fmt: skip
        self._latched = {}
        self.refusals = {}

    def is_locked(self, number: int) -> bool:
        """Committed with lock-on-commit: its registers are read only until reset."""
        control = self._words.get(self.offset(number, fmt.CONTROL), 0)
        return self.strict and number in self._latched and bool(fmt.DecoderControl.LOCK_ON_COMMIT.get(control))

    def _write_global(self, value: int) -> None:
        keep = fmt.HdmGlobalControl.ENABLE.mask
        if self.capability.poison or not self.strict:
            keep |= fmt.HdmGlobalControl.POISON_ON_ERROR.mask
        self._words[fmt.HDM_OFFSET + fmt.HDM_GLOBAL_CONTROL] = value & keep
        self._touch()

    def _write_control(self, number: int, offset: int, value: int) -> None:
        c = fmt.DecoderControl
        status = c.COMMITTED.mask | c.ERROR_NOT_COMMITTED.mask
        word = value & (fmt.CONTROL_WRITABLE if self.strict else QEMU_CONTROL_WRITABLE)
        self._words[offset] = word | (self._words.get(offset, 0) & status)
        if not c.COMMIT.get(word):
            self._latched.pop(number, None)
            self._words[offset] = word
        elif number not in self._latched:
            self._commit(number, offset, word)
        self._touch()

    def _commit(self, number: int, offset: int, word: int) -> None:
        wanted = self.settings(number)._replace(committed=True, dpa=self.next_dpa(number))
        reason = rules.refusal(self, wanted) if self.strict else ""
        if reason:
            self.refusals[number] = reason
            self._words[offset] = word | fmt.DecoderControl.ERROR_NOT_COMMITTED.mask
        else:
            self.refusals.pop(number, None)
            self._latched[number] = wanted
            self._words[offset] = word | fmt.DecoderControl.COMMITTED.mask

    def _touch(self) -> None:
        self._current = None
        self.changed()

    # -- what they mean -------------------------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        return bool(fmt.HdmGlobalControl.ENABLE.get(self._words.get(fmt.HDM_OFFSET + fmt.HDM_GLOBAL_CONTROL, 0)))

    @property
    def poison(self) -> bool:
        """A read that no decoder answers returns poison."""
        word = self._words.get(fmt.HDM_OFFSET + fmt.HDM_GLOBAL_CONTROL, 0)
        return bool(fmt.HdmGlobalControl.POISON_ON_ERROR.get(word))

    @property
    def committed(self) -> dict[int, Settings]:
        """Decoder number -> what it was committed with."""
        return self._latched

    def settings(self, number: int) -> Settings:
        """What the registers of decoder *number* hold now; `dpa` is not filled in."""
        w = [self._words.get(self.offset(number, field), 0) for field in range(0, fmt.TARGETS_HIGH + 4, 4)]
        control, pair = w[fmt.CONTROL // 4], w[fmt.TARGETS_LOW // 4] | w[fmt.TARGETS_HIGH // 4] << 32
        return Settings(
            number, w[0] | w[1] << 32, w[2] | w[3] << 32,
            fmt.DecoderControl.IG.get(control), fmt.DecoderControl.IW.get(control),
            () if self.device else self._targets(pair), pair if self.device else 0,
            bool(fmt.DecoderControl.COMMITTED.get(control)),
        )  # fmt: skip

    def _targets(self, pair: int) -> tuple[int, ...]:
        """The target list. QEMU once shifted its lower word for each index, by a count that x86 takes modulo 32."""
        if not self.strict and self.switches is not None and self.switches.hdm_target_list:
            return tuple((pair & fmt.WORD_MASK).to_bytes(4, "little")) * 2
        return tuple(pair.to_bytes(8, "little"))

    def next_dpa(self, number: int) -> int:
        """Where the share of decoder *number* begins: the sum of shares and skips up to it (bytes)."""
        if not self.device:
            return 0
        before = (self._latched.get(n) or self.settings(n) for n in range(number))
        return sum(s.skip + s.share for s in before) + self.settings(number).skip

    def ranges(self) -> tuple[Settings, ...]:
        """The decoders that take part in decoding, in the order in which they are asked."""
        if self._current is None:
            self._current = self._strict_ranges() if self.strict else self._qemu_ranges()
        return self._current

    def _strict_ranges(self) -> tuple[Settings, ...]:
        return tuple(self._latched[n] for n in sorted(self._latched)) if self.enabled else ()

    def _qemu_ranges(self) -> tuple[Settings, ...]:
        out, dpa = [], 0
        for n in range(self.capability.decoders):
            s = self.settings(n)
            out.append(s._replace(dpa=dpa + s.skip))
            dpa += s.skip + s.share
        if self.switches is not None and self.switches.hdm_decoder_count:
            return (self._only(out[0]),)
        return tuple(out)

    def _only(self, s: Settings) -> Settings:
        """Decoder 0 when no other counts: a bridge does not look at its range, a device not at its COMMITTED."""
        return s._replace(committed=True) if self.device else s._replace(base=0, size=1 << 64)

    def exits(self, hpa: int) -> bool:
        """A device's decoder below the one of *hpa* has reserved ways, and the emulator cannot go on from that."""
        if self.strict or self.switches is None or not self.switches.reserved_iw or not self.device:
            return False
        passed = takewhile(lambda s: s.committed and not s.base <= hpa < s.end, self.ranges())
        return any(s.ways is None for s in passed)

    def match(self, hpa: int) -> Settings | str:
        """The decoder that takes *hpa*, or one sentence why there is none."""
        for s in self.ranges():
            if not self.strict and not s.committed and (self.device or s.base <= hpa < s.end):
                return f"decoder {s.number} is asked first and is not committed"
            if s.base <= hpa < s.end:
                return s if s.ways or not self.device else f"decoder {s.number} has the reserved ways encoding {s.iw}"
            if not self.strict and self.device and s.ways is None:
                return f"decoder {s.number} has the reserved ways encoding {s.iw}"
        if self.strict and not self.enabled:
            return "HDM decoding is off (global control, bit 1)"
        return "no committed decoder covers the address"

    def target(self, s: Settings, hpa: int) -> tuple[int, int | None]:
        """(index, port number) that decoder *s* of a bridge or switch gives for *hpa*; None: no such list entry."""
        shift, bits = s.selector()
        index = (hpa >> shift) & ((1 << bits) - 1)
        return index, s.targets[index] if index < len(s.targets) else None

    def emulate(self, switches: Switches) -> None:
        """Answer as QEMU with *switches* does from now on, with what is programmed."""
        self.strict, self.switches = False, switches
        self._touch()

    # -- programming ----------------------------------------------------------------------------------

    def free_decoder(self) -> int | None:
        """The lowest decoder above every committed one; None when all are used."""
        n = max(self._latched, default=-1) + 1
        return n if n < self.capability.decoders else None

    def program(
        self, number: int, base: int, size: int, ways: int, granularity: int,
        targets: tuple[int, ...] = (), skip: int = 0, lock: bool = False,
    ) -> str:  # fmt: skip
        """Write the registers of decoder *number* and commit it. Returns "" or why the hardware refused."""
        pair = skip if self.device else int.from_bytes(bytes(targets), "little")
        for field, value in ((fmt.BASE_LOW, base), (fmt.SIZE_LOW, size), (fmt.TARGETS_LOW, pair)):
            self.write32(self.offset(number, field), value & fmt.WORD_MASK)
            self.write32(self.offset(number, field + 4), value >> 32)
        control = fmt.DecoderControl.make(
            IG=ENCODED_GRANULARITY[granularity], IW=ENCODED_WAYS[ways], LOCK_ON_COMMIT=lock, COMMIT=1, HOST_ONLY=1)
        enable = fmt.HDM_OFFSET + fmt.HDM_GLOBAL_CONTROL
        self.write32(enable, self.read32(enable) | fmt.HdmGlobalControl.ENABLE.mask)
        self.write32(self.offset(number, fmt.CONTROL), control)
        if fmt.DecoderControl.COMMITTED.get(self.read32(self.offset(number, fmt.CONTROL))):
            return ""
        self.uncommit(number)
        return self.refusals.get(number, "the decoder did not commit")

    def uncommit(self, number: int) -> bool:
        """Clear COMMIT of decoder *number*. False when it is locked."""
        at = self.offset(number, fmt.CONTROL)
        self.write32(at, self.read32(at) & ~fmt.DecoderControl.COMMIT.mask & fmt.WORD_MASK)
        return not fmt.DecoderControl.COMMITTED.get(self.read32(at))


