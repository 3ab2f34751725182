"""Hypothesis strategies that several rooms share."""

from hypothesis import strategies as st

from mmu.stripes import GRANULARITIES, WAYS, Miss, Route, Slot, Span

WINDOW = 1 << 32
PART = 1 << 28  # a decoder covers multiples of 256 MiB

ways = st.sampled_from(sorted(WAYS.values()))
granularities = st.sampled_from(GRANULARITIES)


@st.composite
def spans(draw, first, last, targets):
    """A span whose slots interleave over *targets*, a hole here and there."""
    count, granularity = draw(ways), draw(granularities)
    shift = granularity.bit_length() - 1
    power = count & -count
    bits = power.bit_length() - 1
    maps = ()
    if bits and draw(st.booleans()):
        maps = tuple((1 << (shift + i)) | (draw(st.integers(0, 7)) << (shift + bits + 8)) for i in range(bits))
        bits = 0
    mod3 = shift + power.bit_length() - 1 if count % 3 == 0 else None
    hole = st.sampled_from([None] * 7 + [Miss("hole"), Miss("refused", at_device=True)])
    slots = tuple(
        draw(hole) or Slot(draw(st.integers(0, targets - 1)), first, draw(st.integers(0, 3)) << 28, count, granularity)
        for _ in range(count)
    )
    return Span(first, last, shift, bits, granularity, slots, maps, mod3)


@st.composite
def routes(draw, targets=4, parts=4):
    """A route over *parts* pieces of 256 MiB from WINDOW on, some of them undecoded."""
    edges = sorted(draw(st.sets(st.integers(0, parts), min_size=2)))
    out = []
    for a, b in zip(edges, edges[1:]):
        if draw(st.integers(0, 4)):
            out.append(draw(spans(WINDOW + a * PART, WINDOW + b * PART - 1, targets)))
    return Route(tuple(out))
