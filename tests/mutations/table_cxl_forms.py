"""Mistakes in batches of addresses, in the forms of topologies, and in what Linux refuses."""

from tests.mutations import Mutation

MANY, CEDT = ("tests/cxl/test_many.py",), ("tests/cxl/test_cedt.py",)
LINUX, LIST = ("tests/cxl/test_linux.py",), ("tests/cxl/test_cxl_list.py",)
QEMU, KINDS = ("tests/cxl/test_qemu.py",), ("tests/cxl/test_kinds.py",)

MUTATIONS = (
    Mutation(
        "cxl batch: the thirds of a table do not turn with the base",
        "csrc/locate.c",
        "uint64_t phase = (flat->base >> flat->mod3_shift) % 3, third",
        "uint64_t phase = 0, third",
        MANY,
    ),
    Mutation(
        "cxl batch: a span cut from a region counts from the region's base",
        "csrc/locate.c",
        "leaves[i].dpa += (flat->first - flat->base) >> flat->ways_shift;",
        "leaves[i].dpa += 0;",
        (*MANY, "-k", "begins_inside"),
    ),
    Mutation(
        "cxl batch: DPAs beyond a device are given out",
        "csrc/locate.c",
        "if (dpa < l->capacity[slot->target])",
        "if (dpa < UINT64_MAX)",
        (*MANY, "-k", "ends_within"),
    ),
    Mutation(
        "cxl batch: an inverse is not checked against the route",
        "csrc/locate.c",
        "if (there->kind != MMU_SLOT_DEVICE || there->target != s->target ||",
        "if (there->kind != MMU_SLOT_DEVICE ||",
        MANY,
    ),
    Mutation(
        "CEDT: XOR maps of another granularity are taken",
        "cxl/exchange/cedt.py",
        "found = maps.get(record.granularity, ())",
        "found = next(iter(maps.values()), ())",
        (*CEDT, "tests/cxl/test_mock.py"),
    ),
    Mutation(
        "CEDT: a checksum is not looked at",
        "cxl/exchange/cedt.py",
        "if data[_CHECKSUM] and (total := sum(data) & 0xFF):",
        "if data[_CHECKSUM] and (total := 0):",
        CEDT,
    ),
    Mutation(
        "CEDT: the long RDPAS is read as the short one",
        "cxl/exchange/cedt.py",
        "fmt.RDPAS_ACPICA if len(data) >= fmt.RDPAS_ACPICA_SIZE else fmt.RDPAS",
        "fmt.RDPAS",
        CEDT,
    ),
    Mutation(
        "cxl list: targets are taken in the order of the listing",
        "cxl/exchange/cxl_list.py",
        'targets = sorted(decoder.objects("targets"), key=lambda t: number(t.get("position", 0), decoder.name))',
        'targets = list(decoder.objects("targets"))',
        LIST,
    ),
    Mutation(
        "cxl list: a skip before a decoder is forgotten",
        "cxl/exchange/cxl_list_apply.py",
        "skip = s.dpa - before",
        "skip = 0",
        LIST,
    ),
    Mutation(
        "cxl list: a region that is not committed is programmed",
        "cxl/exchange/cxl_list.py",
        'or decoder.text("region") in off:',
        "or False:",
        LIST,
    ),
    Mutation(
        "Linux: the granularity below a window is not multiplied",
        "cxl/linux.py",
        "grains[id(node)] = grain * len({n for _, n in members})",
        "grains[id(node)] = grain",
        LINUX,
    ),
    Mutation(
        "Linux: peers may share a port in any order",
        "cxl/linux.py",
        "if number != numbers[index % ways]:",
        "if False:",
        LINUX,
    ),
    Mutation(
        "QEMU: windows follow RAM without room for hot-plug",
        "cxl/exchange/qemu_machine.py",
        "registers = _up(registers, GIB) + (m.max_ram - m.ram) + m.slots * GIB",
        "registers = _up(registers, GIB) + (m.max_ram - m.ram)",
        QEMU,
    ),
    Mutation(
        "QEMU: a bridge of one port keeps its decoders",
        "cxl/exchange/qemu.py",
        'passthrough = len(ports) == 1 and not d.flag("hdm_for_passthrough")',
        "passthrough = False",
        QEMU,
    ),
    Mutation(
        "cxl: dynamic capacity answers without an extent",
        "cxl/device/type3.py",
        'return 0 <= dpa < self.start("dc") or any(a <= dpa < b for a, b in self.extents)',
        "return 0 <= dpa < self.capacity",
        KINDS,
    ),
    Mutation(
        "cxl: edges of devices below a normalizing bridge are not multiplied by its ways",
        "cxl/compile.py",
        "yield from _outside(window, edge) if window.normalized else (edge,)",
        "yield edge",
        KINDS,
    ),
)
