"""Mistakes in the bus, the windows and their plain-integer reference."""

from tests.mutations import Mutation

SPACE = ("tests/memory/test_space.py",)
MMIO = ("tests/memory/test_mmio.py",)
STRIPED = ("tests/memory/test_striped.py",)
# The property tests of that file cost seconds, so they are named where only they fail.
EDGES = ("tests/memory/test_space.py::test_an_access_over_region_edges_gives_each_region_its_bytes",)
LOCATE = ("tests/memory/test_striped.py::test_compiled_route_agrees_with_plain_integers",)
BLOCKS = ("tests/memory/test_striped.py::test_blocks_and_single_accesses_see_the_same_bytes",)

MUTATIONS = (
    Mutation(
        "bus: an access is not cut into aligned pieces",
        "csrc/piece.h",
        "uint64_t n = (address | 8) & -(address | 8);",
        "uint64_t n = 8 + 0 * address;",
        SPACE,
    ),
    Mutation(
        "bus: an access over two regions is not cut",
        "csrc/piece.c",
        "if (r->last - pa < size - 1 ||\n",
        "if (false && r->last - pa < size - 1 ||\n",
        EDGES,
    ),
    Mutation(
        "bus: ROM accepts writes",
        "csrc/piece.c",
        "\tcase MMU_RANGE_ROM:\n\t\treturn r->io ?",
        "\tcase MMU_RANGE_ROM:\n\t\tmemory_store((uint8_t *)r->host + offset, size, value);\n\t\treturn r->io ?",
        SPACE,
    ),
    Mutation(
        "bus: nothing there reads as zero without an error",
        "csrc/piece.c",
        "\tif (!r)\n\t\treturn MMU_MEMTX_DECODE_ERROR;\n\toffset = r->offset + (pa - r->first);\n"
        "\tswitch ((enum mmu_range_kind)r->kind) {\n\tcase MMU_RANGE_RAM:\n\tcase MMU_RANGE_ROM:\n\t\t*ret =",
        "\tif (!r)\n\t\treturn MMU_MEMTX_OK;\n\toffset = r->offset + (pa - r->first);\n"
        "\tswitch ((enum mmu_range_kind)r->kind) {\n\tcase MMU_RANGE_RAM:\n\tcase MMU_RANGE_ROM:\n\t\t*ret =",
        SPACE,
    ),
    Mutation(
        "bus: a device's refusal of a piece is forgotten",
        "csrc/io.c",
        "\t\tresult |= rc;\n\t\tvalue |=",
        "\t\tvalue |=",
        SPACE,
    ),
    Mutation(
        "bus: the trace misses exchanges",
        "csrc/exchange.c",
        "if (port->trace)\n\t\tport_record(port, (struct mmu_trace_entry){ .address = address, .value = *old,",
        "if (!port)\n\t\tport_record(port, (struct mmu_trace_entry){ .address = address, .value = *old,",
        SPACE,
    ),
    Mutation(
        "bus: an exchange stores without comparing",
        "csrc/memory.h",
        "__atomic_compare_exchange_n((uint64_t *)(void *)p, &expected, desired, false,\n"
        "\t\t\t\t    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);",
        "expected = __atomic_exchange_n((uint64_t *)(void *)p, desired, __ATOMIC_SEQ_CST);",
        STRIPED,
    ),
    Mutation(
        "bus: a device with 4-byte registers gets 8 bytes",
        "csrc/io.c",
        "return size > io->impl_max ? io->impl_max : size;",
        "return size;",
        SPACE,
    ),
    Mutation(
        "bus: bytes of a block that nobody answers keep what was there",
        "csrc/block.c",
        "\tif (!b->write)\n\t\tmemset(b->data, 0, size);\n\treturn result;",
        "\treturn b->write && !size ? 0 : result;",
        SPACE,
    ),
    Mutation(
        "mmio: the bytes of a big-endian device are not turned round",
        "csrc/io.c",
        "return io->big_endian ? __builtin_bswap64(value) >> (64 - 8 * size) : value;",
        "return size ? value : io->big_endian;",
        MMIO,
    ),
    Mutation(
        "mmio: the parts of a big-endian value come low first",
        "csrc/io.c",
        "io->big_endian ? (int)size - (int)chunk - (int)i : (int)i",
        "(int)size > 8 ? (int)chunk : (int)i",
        MMIO,
    ),
    Mutation(
        "mmio: a device may be entered from within itself",
        "csrc/io.c",
        "if (io->guard && entered(outer, io->guard))",
        "if (io->guard && entered(outer, io))",
        MMIO,
    ),
    Mutation(
        "mmio: only the innermost device is guarded",
        "csrc/io.c",
        "for (; f; f = f->outer)",
        "for (; f; f = NULL)",
        MMIO,
    ),
    Mutation(
        "mmio: the guard of one thread keeps others out",
        "csrc/io.c",
        "static _Thread_local const struct io_frame *active;",
        "static const struct io_frame *active;",
        MMIO,
    ),
    Mutation(
        "mmio: a device is asked about reads only",
        "csrc/io.c",
        "if (io->accepts) {",
        "if (io->accepts && !write) {",
        MMIO,
    ),
    Mutation(
        "mmio: the guard comes before the size",
        "csrc/io.c",
        "\tint yes;\n\n",
        "\tint yes;\n\n\tif (io->guard && entered(outer, io->guard))\n\t\treturn MMU_MEMTX_ACCESS_ERROR;\n",
        MMIO,
    ),
    Mutation(
        "mmio: a ROM device does not see writes",
        "csrc/piece.c",
        "return r->io ? io_store(r->io, offset, size, value) : MMU_MEMTX_OK;",
        "return MMU_MEMTX_OK;",
        MMIO,
    ),
    Mutation(
        "mmio: a block is wider than the device takes",
        "csrc/block.c",
        "piece_size(offset, least(size, io->valid_max))",
        "piece_size(offset, size)",
        MMIO,
    ),
    Mutation(
        "bus: lower priority is seen",
        "mmu/memory/region.py",
        "self.children.sort(key=lambda child: -child[2])",
        "self.children.sort(key=lambda child: child[2])",
        SPACE,
    ),
    Mutation(
        "bus: an alias forgets its offset",
        "mmu/memory/flatview.py",
        "self._render(region.target, base - region.offset, first, last)",
        "self._render(region.target, base, first, last)",
        SPACE,
    ),
    Mutation(
        "window: mapped askew, an 8-byte access across a granule goes to one device",
        "csrc/piece.c",
        "(r->kind == MMU_RANGE_STRIPED && size > 1 &&",
        "(false &&",
        STRIPED,
    ),
    Mutation(
        "window: the 3-way index counts from the base of the window",
        "csrc/stripes.h",
        "index += ((hpa >> span->mod3_shift) % 3) << width;",
        "index += (((hpa - span->first) >> span->mod3_shift) % 3) << width;",
        LOCATE,
    ),
    Mutation(
        "window: the DPA of 3 ways is not divided by 3",
        "csrc/stripes.h",
        "chunk /= 3;",
        "chunk /= 4;",
        LOCATE,
    ),
    Mutation(
        "window: XOR maps are ignored",
        "csrc/stripes.h",
        "index |= (uint64_t)__builtin_parityll(hpa & span->maps[i]) << width++;",
        "index |= (hpa >> span->shift >> i & 1) << width++;",
        LOCATE,
    ),
    Mutation(
        "window: an undecoded read is answered OK",
        "csrc/window.h",
        "\t\tif (span && *run > span->first - hpa)\n\t\t\t*run = span->first - hpa;\n"
        "\t\treturn write ? MMU_MEMTX_OK : MMU_MEMTX_ERROR;",
        "\t\tif (span && *run > span->first - hpa)\n\t\t\t*run = span->first - hpa;\n\t\treturn MMU_MEMTX_OK;",
        STRIPED,
    ),
    Mutation(
        "window: a write that a device refuses is dropped in silence",
        "csrc/window.h",
        "\tif (slot->kind == MMU_SLOT_REFUSED)\n\t\treturn MMU_MEMTX_ERROR;",
        "\tif (slot->kind == MMU_SLOT_REFUSED)\n\t\treturn write ? MMU_MEMTX_OK : MMU_MEMTX_ERROR;",
        STRIPED,
    ),
    Mutation(
        "window: device memory wraps at its end",
        "csrc/window.h",
        "\tif (dpa >= target->size)\n\t\treturn MMU_MEMTX_ERROR;",
        "\tdpa %= target->size;",
        STRIPED,
    ),
    Mutation(
        "window: a block runs on past the granule",
        "csrc/block.c",
        "least(size, span->granule - (hpa & (span->granule - 1)))",
        "least(size, span->granule)",
        BLOCKS,
    ),
    Mutation(
        "window: a port does not check where the window is that it used last",
        "csrc/window.h",
        "address - w->first <= w->span ? w : NULL",
        "true ? w : NULL",
        STRIPED,
    ),
    Mutation(
        "window: a port does not check that the map still has the window that it used last",
        "csrc/window.h",
        "return port->window < map->window_count && ",
        "return map->window_count && ",
        STRIPED,
    ),
    Mutation(
        "window: the short way forgets the division by 3",
        "csrc/stripes.c",
        "s->kind != MMU_SLOT_DEVICE || s->mod3 ||",
        "s->kind != MMU_SLOT_DEVICE ||",
        STRIPED,
    ),
    Mutation(
        "window: the short way reads past the device's memory",
        "csrc/port.c",
        "if (at >= slot->room)\n\t\treturn load_striped",
        "if (at >= slot->room + 8192)\n\t\treturn load_striped",
        STRIPED,
    ),
    Mutation(
        "window: the short way ignores XOR maps",
        "csrc/map.c",
        "if (!span->map_count && !span->mod3_shift && ",
        "if (!span->mod3_shift && ",
        STRIPED,
    ),
    Mutation(
        "window: the short way is taken across granules where the window is mapped askew",
        "csrc/map.c",
        " && !((w.first | w.hpa | (w.span + 1)) & 7)) {",
        ") {",
        STRIPED,
    ),
    Mutation(
        "window: 8-byte accesses are counted as 4 bytes",
        "csrc/window.h",
        "single[write][size / 2]++",
        "single[write][size / 4]++",
        STRIPED,
    ),
    Mutation(
        "window: an exchange is not counted as a write",
        "csrc/exchange.c",
        "if (target && *old == expected)",
        "if (false)",
        STRIPED,
    ),
    Mutation(
        "window: the reference puts the bytes of a granule in another order",
        "mmu/stripes.py",
        "return chunk // ways * granularity + within",
        "return chunk // ways * granularity + (within ^ 1)",
        LOCATE,
    ),
)
