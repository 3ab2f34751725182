"""Mistakes in the places of device memory, in the mirror, and in how guests use both."""

from tests.mutations import Mutation

MIRROR = ("tests/guest/test_mirror.py",)
# The property test costs seconds, so it is named where only it fails.
SERVICES = ("tests/guest/test_services.py",)

BLOCKS = ("tests/guest/test_mirror.py", "-k", "two_pages or in_place")
MUTATIONS = (
    Mutation(
        "mirror: a page in the mirror is no RAM for the softmmu TLB",
        "csrc/tlb.c",
        "\t\tif (mirrored) {",
        "\t\tif (mirrored && !e->page) {",
        ("tests/guest/test_tlb_mirror.py",),
    ),
    Mutation(
        "mirror: the softmmu TLB takes a page for mirrored whose blocks are apart",
        "csrc/tlb_window.c",
        "(page && now != page + at)",
        "(page && now == page)",
        ("tests/guest/test_tlb_mirror.py",),
    ),
    Mutation(
        "mirror: accesses by HPA go to the device's own memory",
        "csrc/window.h",
        "return places && window_any_away(port) ? places_find(places, host) : host;",
        "return places && window_any_away(port) && !host ? places_find(places, host) : host;",
        MIRROR,
    ),
    Mutation(
        "mirror: blocks are read as if they lay next to each other",
        "csrc/block_window.c",
        "\tif (!places || !g->away) {",
        "\tif (!places || !g->away || size > 1) {",
        MIRROR,
    ),
    Mutation(
        "mirror: an exchange goes to the device's own memory",
        "csrc/exchange.c",
        "\t\thost = window_wait(port, target->places, host);\n",
        "",
        MIRROR,
    ),
    Mutation(
        "mirror: accesses by DPA go to the device's own memory",
        "csrc/places.c",
        "\t\tif (host)\n\t\t\treturn host;",
        "\t\tif (host)\n\t\t\treturn places->home + dpa;",
        MIRROR,
    ),
    Mutation(
        "mirror: a sync leaves the file as it was",
        "csrc/places.c",
        "\t\t\tif (host != places->home + dpa)\n",
        "\t\t\tif (host == NULL)\n",
        MIRROR,
    ),
    Mutation(
        "mirror: a page is not written back",
        "csrc/mirror.c",
        "\t\t\tmemcpy(home, host + i * PLACE_BLOCK, PLACE_BLOCK);\n",
        "",
        MIRROR,
    ),
    Mutation(
        "mirror: a page that two addresses show is given back twice",
        "csrc/mirror.c",
        "\tm->page[page].users = NO_PAGE;	/* `pages` may name it again */\n",
        "",
        MIRROR,
    ),
    Mutation(
        "mirror: a page is known by its first block",
        "csrc/mirror.c",
        "\tfor (uint32_t i = 1; i < MIRROR_BLOCKS; i++)\n\t\tif (now",
        "\tfor (uint32_t i = MIRROR_BLOCKS; i < MIRROR_BLOCKS; i++)\n\t\tif (now",
        BLOCKS,
    ),
    Mutation(
        "mirror: a block that an engine has in place is taken away",
        "csrc/places.c",
        "memory_order_relaxed) == PLACE_HOME) {",
        "memory_order_relaxed) != PLACE_MOVING) {",
        BLOCKS,
    ),
    Mutation(
        "mirror: a page is had in place although a part of it is away",
        "csrc/places.c",
        "\t\tif (place != PLACE_HOME && !(place & PLACE_PINNED))\n",
        "\t\tif (place == PLACE_MOVING)\n",
        ("tests/guest/test_mirror.py", "-k", "is_not_had_in_place"),
    ),
    Mutation(
        "mirror: memory that is RAM as well moves",
        "csrc/places.c",
        "\tentry = places->fixed ? NULL : entry_of(places, dpa);\n",
        "\tentry = entry_of(places, dpa);\n",
        MIRROR,
    ),
    Mutation(
        "mirror: each of two threads makes a memory a table of places",
        "csrc/hostmem.c",
        "\tint rc = MMU_ENOMEM;\n\n\tpthread_mutex_lock(&mem->lock);\n\tif (!mem->places)\n"
        "\t\tmem->places = places_create(mem->start, mem->size);\n",
        "\tint rc = MMU_ENOMEM;\n\n\tif (!mem->places)\n"
        "\t\tmem->places = places_create(mem->start, mem->size);\n\tpthread_mutex_lock(&mem->lock);\n",
        ("tests/memory/test_striped.py::test_threads_that_attach_one_memory_at_once_agree_on_where_its_bytes_live",),
    ),
    Mutation(
        "mirror: memory that is away may become RAM",
        "csrc/hostmem.c",
        "fixed = !mem->places || places_fix(mem->places);",
        "fixed = !mem->places || places_fix(mem->places) || mem;",
        MIRROR,
    ),
    Mutation(
        "mirror: a page that is no device's as a whole is taken",
        "csrc/guest_window.c",
        "\t\tif (!host || !target->places || run < PLACE_BLOCK)\n\t\t\treturn false;\n",
        "\t\tif (!host || !target->places || run < PLACE_BLOCK) {\n\t\t\tif (!i)\n\t\t\t\treturn false;\n"
        "\t\t\tret->block[i] = ret->block[i - 1];\n\t\t\tret->block[i].dpa += PLACE_BLOCK;\n\t\t\tcontinue;\n\t\t}\n",
        MIRROR,
    ),
    Mutation(
        "mirror: decoders that change are not noticed",
        "csrc/guest.h",
        "guest_map_serial(g) != g->serial || guest_sharing_changed",
        "guest_sharing_changed",
        MIRROR,
    ),
    Mutation(
        "mirror: the guest goes on with pages that it had in its TLB",
        "csrc/guest_bus.c",
        "\tif (guest_map_changed(g))\n\t\tguest_flush_tlb(g);\n",
        "",
        MIRROR,
    ),
    Mutation(
        "mirror: pages are kept after the run",
        "csrc/guest.c",
        "\tguest_windows_give(g);	/* the engine forgets them before it runs again */\n",
        "",
        MIRROR,
    ),
    Mutation(
        "mirror: what a guest has is lost with it",
        "csrc/guest.c",
        "\tguest_code_unwatch(g);\n\tguest_windows_give(g);\n\town_ports(g, NULL);\n",
        "\tguest_code_unwatch(g);\n\town_ports(g, NULL);\n",
        MIRROR,
    ),
    Mutation(
        "mirror: being full is not said",
        "csrc/guest_window.c",
        "\t\tg->counters.mirror_full += rc == MMU_ENOMEM;\n",
        "",
        MIRROR,
    ),
    Mutation(
        "mirror: a run is not exact when it is traced",
        "mmu/machine.py",
        '"exact" if trace and self.dispatch == "auto" else self.dispatch',
        "self.dispatch",
        MIRROR,
    ),
)
