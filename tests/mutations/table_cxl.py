"""Mistakes in decoders, windows and the routes compiled from them."""

from tests.mutations import Mutation

DECODER = ("tests/cxl/test_decoder.py",)
TOPOLOGY = ("tests/cxl/test_topology.py",)
ROUTES = ("tests/cxl/test_routes.py", "-k", "not flattened and not agrees and not granule_lies and not inverse")

MUTATIONS = (
    Mutation(
        "cxl: the window's index counts from its base, not from address 0",
        "cxl/window.py",
        "return (hpa >> self.shift) % self.ways",
        "return (hpa - self.base >> self.shift) % self.ways",
        ROUTES,
    ),
    Mutation(
        "cxl: XOR with 3, 6 and 12 ways forgets the modulo",
        "cxl/window.py",
        "index += (hpa >> self.mod3_shift) % 3 << self.power",
        "index += 0",
        ROUTES,
    ),
    Mutation(
        "cxl: a bridge selects by the offset from its decoder's base",
        "cxl/decoder.py",
        "index = (hpa >> shift) & ((1 << bits) - 1)",
        "index = (hpa - s.base >> shift + 1) & ((1 << bits) - 1)",
        ROUTES,
    ),
    Mutation(
        "cxl: an uncommitted decoder decodes",
        "cxl/decoder.py",
        "return tuple(self._latched[n] for n in sorted(self._latched)) if self.enabled else ()",
        "return self._qemu_ranges() if self.enabled else ()",
        (*DECODER, *TOPOLOGY),
    ),
    Mutation(
        "cxl: decoders decode although the enable bit is clear",
        "cxl/decoder.py",
        "return tuple(self._latched[n] for n in sorted(self._latched)) if self.enabled else ()",
        "return tuple(self._latched[n] for n in sorted(self._latched))",
        (*DECODER, *TOPOLOGY),
    ),
    Mutation(
        "cxl: a locked decoder can be written",
        "cxl/decoder.py",
        "return self.strict and number in self._latched and bool(",
        "return False and bool(",
        DECODER,
    ),
    Mutation(
        "cxl: a skip does not move the DPA",
        "cxl/decoder.py",
        "return sum(s.skip + s.share for s in before) + self.settings(number).skip",
        "return sum(s.share for s in before)",
        DECODER,
    ),
    Mutation(
        "cxl: decoders may commit out of order",
        "cxl/rules.py",
        "RULES = (_order, _range,",
        "RULES = (_range,",
        DECODER,
    ),
    Mutation(
        "cxl: committed ranges may overlap",
        "cxl/rules.py",
        "_multiple, _overlap, _capacity)",
        "_multiple, _capacity)",
        DECODER,
    ),
)
