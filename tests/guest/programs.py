"""Random guest programs in machine code, made here byte by byte so that no assembler is needed."""

from tests.guest.machines import DATA, asm

MASK = (1 << 64) - 1
DEVICE, ALIAS, FUNCTION = 0x2000_0000, 0x3000_0000, 0x40_3000  # virtual addresses


class X86:
    """Accumulates what it loads in r8. rdi: data, rsi: the alias, rbx: the device."""

    REGISTERS = {"rdi": DATA, "rsi": ALIAS, "rbx": DEVICE, "r8": 0, "r9": FUNCTION}
    RESULT = "r8"
    HALT = b"\xf4"
    FUNCTION = asm("x86_64", "mov eax, 1; ret")
    SIZES = {1: b"\x88", 2: b"\x66\x89", 4: b"\x89", 8: b"\x48\x89"}
    LOADS = {1: b"\x48\x0f\xb6", 2: b"\x48\x0f\xb7", 4: b"\x8b", 8: b"\x48\x8b"}
    MIX = bytes.fromhex("49c1c007" "4931c0")  # rol r8, 7; xor r8, rax

    @staticmethod
    def _address(opcode, base, offset):
        return opcode + bytes([0x87 if base == "data" else 0x86]) + offset.to_bytes(4, "little")  # [rdi/rsi + disp32]

    def load(self, base, size, offset):
        return self._address(self.LOADS[size], base, offset) + self.MIX

    def store(self, base, size, offset, value):
        return b"\x48\xb8" + value.to_bytes(8, "little") + self._address(self.SIZES[size], base, offset)

    def add(self, base, offset, value):
        """lock xadd [m], rax."""
        return b"\x48\xb8" + value.to_bytes(8, "little") + self._address(b"\xf0\x48\x0f\xc1", base, offset) + self.MIX

    def device(self, number):
        """mov dword [rbx], number."""
        return b"\xc7\x03" + number.to_bytes(4, "little")

    def patch(self, value):
        """mov dword [r9+1], value; call r9: the function returns its immediate."""
        return b"\x41\xc7\x41\x01" + value.to_bytes(4, "little") + self.call()

    def call(self):
        return b"\x41\xff\xd1" + self.MIX

    def wild(self, address):
        """mov rax, [address]."""
        return b"\x48\xb8" + address.to_bytes(8, "little") + b"\x48\x8b\x00" + self.MIX


class Arm64:
    """Accumulates in x8. x0: data, x1: the alias, x3: the device, x9: the function."""

    REGISTERS = {"x0": DATA, "x1": ALIAS, "x3": DEVICE, "x8": 0, "x9": FUNCTION}
    RESULT = "x8"
    HALT = bytes.fromhex("7f2003d5")
    FUNCTION = asm("aarch64", "mov x0, #1; ret")
    LOG = {1: 0, 2: 1, 4: 2, 8: 3}

    @staticmethod
    def _words(*words):
        return b"".join(w.to_bytes(4, "little") for w in words)

    def _constant(self, register, value):
        """movz, then movk for each further 16 bits."""
        return self._words(*(
            (0xF2800000 if part else 0xD2800000) | part << 21 | (value >> 16 * part & 0xFFFF) << 5 | register
            for part in range(4)))

    def _access(self, word, base, size, offset):
        """Register 5, at [base + x4]."""
        return self._constant(4, offset) + self._words(
            word | self.LOG[size] << 30 | 4 << 16 | (0 if base == "data" else 1) << 5 | 5)

    def _mix(self):
        return self._words(0x93C80000 | 57 << 10 | 8 << 5 | 8, 0xCA050108)  # ror x8, x8, #57; eor x8, x8, x5

    def load(self, base, size, offset):
        return self._access(0x38606800, base, size, offset) + self._mix()

    def store(self, base, size, offset, value):
        return self._constant(5, value) + self._access(0x38206800, base, size, offset)

    def add(self, base, offset, value):
        """ldaddal x6, x5, [x4], aligned."""
        at = self._constant(4, offset & ~7) + self._words(0x8B040004 | (0 if base == "data" else 1) << 5)
        return self._constant(6, value) + at + self._words(0xF8E60085) + self._mix()

    def device(self, number):
        return self._constant(5, number) + self._words(0xB9000065)  # str w5, [x3]

    def patch(self, value):
        """str w5, [x9]; ic ivau, x9; dsb ish; isb; blr x9."""
        return self._constant(5, 0xD2800000 | (value & 0xFFFF) << 5) + self._words(
            0xB9000125, 0xD50B7529, 0xD5033B9F, 0xD5033FDF) + self.call()

    def call(self):
        """The function returns in x0, which holds the data's address: it is put back."""
        return self._words(0xD63F0120, 0xAA0003E5) + self._constant(0, DATA) + self._mix()

    def wild(self, address):
        return self._constant(4, address) + self._words(0xF9400085) + self._mix()


ISAS = {"x86_64": X86(), "aarch64": Arm64()}
