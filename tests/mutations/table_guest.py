"""Mistakes in the guest: TLB fills, copies of code, bus errors, exact addresses, exception delivery."""

from tests.mutations import Mutation

MACHINE = ("tests/test_machine.py",)
CODE = ("tests/guest/test_code.py",)
BUS = ("tests/guest/test_bus_errors.py",)
KINDS = ("tests/guest/test_memory_kinds.py",)
FAULTS = ("tests/guest/test_x86_faults.py",)
DELIVERY = ("tests/guest/test_x86_delivery.py",)
ARM64 = ("tests/guest/test_arm64_faults.py",)
LOADER = ("tests/guest/test_loader.py",)
OTHERS = ("tests/guest/test_code_of_others.py",)
LIMIT = ("tests/guest/test_limit.py",)
REMEMBERED = ("tests/guest/test_remembered_blocks.py",)

MUTATIONS = (
    Mutation(
        "guest: a page may be written as soon as it may be read",
        "csrc/guest_fill.c",
        "\tif (t->allowed & MMU_ACCESS_WRITE)\n",
        "\tif (t->allowed & MMU_ACCESS_READ)\n",
        FAULTS,
    ),
    Mutation(
        "guest: a page of code stays writable when it is read",
        "csrc/guest_fill.c",
        "\t\t\tpermissions &= ~ENGINE_MAY_WRITE;\n",
        "\t\t\tpermissions &= ~0;\n",
        CODE,
    ),
    Mutation(
        "guest: a page keeps the right to be written when it becomes code",
        "csrc/guest_fill.c",
        "\t\treturn;\n\t}\n\tguest_flush_tlb(g);\n",
        "\t\treturn;\n\t}\n",
        CODE,
    ),
    Mutation(
        "guest: a store to code leaves the copy as it is",
        "csrc/guest_fill.c",
        "\t\tif (type == ENGINE_WRITE && g->phase == GUEST_RUNNING)\n",
        "\t\tif (false && g->phase == GUEST_RUNNING)\n",
        CODE,
    ),
    Mutation(
        "guest: stores to code in RAM are left to the engine",
        "csrc/guest_fill.c",
        "\treturn !g->limit && !code->shadowed && !code->many &&",
        "\treturn g || !code->shadowed ||",
        CODE,
    ),
    Mutation(
        "guest: code is known by its address alone",
        "csrc/guest_memory.c",
        "\tif (i < read.map->count && page.v >= r->first && r->last - page.v >= GUEST_PAGE - 1) {\n",
        "\tif (i > read.map->count) {\n",
        KINDS,
    ),
    Mutation(
        "guest: the search for an address writes to memory",
        "csrc/guest_fill.c",
        "\t\treturn answer(ret, GUEST_SCRATCH_BASE, permission);\n",
        "\t\treturn answer(ret, guest_place(g, page, false).engine, permission);\n",
        FAULTS,
    ),
    Mutation(
        "guest: the search for an address asks devices",
        "csrc/guest_bus.c",
        "\t\tif (!guest_is_device(g, hpa))\n",
        "\t\tif (guest_is_device(g, hpa) || hpa)\n",
        BUS,
    ),
    Mutation(
        "guest: a fault is reported by its page",
        "csrc/guest_fill.c",
        "\t\tg->probe.va = g->probe.page | (address & (GUEST_PAGE - 1));\n",
        "\t\tg->probe.va = g->probe.page;\n",
        FAULTS,
    ),
    Mutation(
        "guest: what is written by HPA is no code",
        "csrc/bus.h",
        "memory_order_relaxed) && !port->exclusive)",
        "memory_order_relaxed) && false)",
        OTHERS,
    ),
    Mutation(
        "guest: what is written by DPA is no code",
        "csrc/places.c",
        "\t\tif (atomic_load_explicit(&shown->bus->watchers, memory_order_relaxed))\n",
        "\t\tif (false)\n",
        OTHERS,
    ),
    Mutation(
        "guest: a device writes no code",
        "csrc/guest_bus.c",
        "\tguest_code_drop(g);\n",
        "",
        OTHERS,
    ),
    Mutation(
        "guest: code is not compared after a stop",
        "csrc/guest_run.c",
        "guest_map_changed(g) || guest_code_changed(g)",
        "guest_map_changed(g)",
        OTHERS,
    ),
    Mutation(
        "guest: a copy is brought up to date, the engine's code is not",
        "csrc/guest_code.c",
        "\t\tg->dropping = code->engine;\n",
        "\t\tg->dropping = GUEST_SCRATCH_BASE;\n",
        OTHERS,
    ),
    Mutation(
        "guest: plain pages are never compared",
        "csrc/guest_code.c",
        "\tcode->host = host;\n",
        "",
        OTHERS,
    ),
    Mutation(
        "guest: flags at a fault are those that counting left",
        "csrc/guest_flags.c",
        "\tif (are_lost(g, pc, invalid))\n",
        "\tif (false)\n",
        LIMIT,
    ),
    Mutation(
        "guest: what came after a port that failed stays done",
        "csrc/guest_run.c",
        "\tif (g->undo) {\n",
        "\tif (false) {\n",
        ("tests/regress/test_guest_runs_on_after_a_port_that_failed.py",),
    ),
    Mutation(
        "guest: flags are kept of the hooks that count, and of no others",
        "csrc/guest_site.c",
        "\tguest_flags_note(g, address, size);\n",
        "",
        LIMIT,
    ),
    Mutation(
        "guest: the engine carries out stores to code while it counts",
        "csrc/guest_fill.c",
        "\treturn !g->limit && !code->shadowed",
        "\treturn g && !code->shadowed",
        LIMIT,
    ),
    Mutation(
        "guest: a block that was accessed stays where it was when the map changes",
        "csrc/guest_bus.c",
        "(near->state ^ atomic_load_explicit(&port->bus->state, memory_order_acquire))",
        "(near->state ^ atomic_load_explicit(&port->bus->state, memory_order_acquire)) << (64 - AWAY_BITS)",
        REMEMBERED,
    ),
    Mutation(
        "guest: a block that was accessed is at home",
        "csrc/guest_bus.c",
        "(near->state ^ atomic_load_explicit(&port->bus->state, memory_order_acquire))",
        "(near->state ^ atomic_load_explicit(&port->bus->state, memory_order_acquire)) >> AWAY_BITS",
        REMEMBERED,
    ),
    Mutation(
        "guest: accesses to blocks that are remembered go untraced",
        "csrc/guest_bus.c",
        "return busy | (uintptr_t)g->c.data->trace;",
        "return busy;",
        REMEMBERED,
    ),
    Mutation(
        "guest: a block is remembered by its slot alone",
        "csrc/guest_bus.c",
        "(near->hpa ^ hpa) & (~(NEAR_BLOCK - 1) | (size - 1))",
        "hpa & (size - 1)",
        REMEMBERED,
    ),
    Mutation(
        "guest: a load that aborted leaves its mark",
        "csrc/guest_run.c",
        "\t\t\tg->c.engine.context_restore(g->c.engine.uc, g->c.bus_context);\n",
        "\t\t\t;\n",
        BUS,
    ),
    Mutation(
        "guest: the end of the engine is a fault of the guest",
        "csrc/guest_fill.c",
        "\tif (type == ENGINE_FETCH && is_end(g, va))\n",
        "\tif (type == ENGINE_FETCH && !g->arch && is_end(g, va))\n",
        FAULTS,
    ),
    Mutation(
        "guest: one instruction more than the limit",
        "csrc/guest_hook.c",
        "g->counters.instructions >= g->limit)",
        "g->counters.instructions > g->limit)",
        MACHINE,
    ),
    Mutation(
        "guest: frames pushed over code go unseen",
        "csrc/guest_memory.c",
        "\t\t\tg->code_stale = true;\n\t\trc = mmu_port_store",
        "\t\t\tg->code_stale |= false;\n\t\trc = mmu_port_store",
        DELIVERY,
    ),
    Mutation(
        "guest: descriptors are read with the rights of the program",
        "csrc/guest_x86.c",
        "\treturn descriptor_instruction(g) && !operand_on_page(g, va) ? MMU_ACCESS_IMPLICIT : 0;\n",
        "\treturn descriptor_instruction(g) ? 0 : 0;\n",
        DELIVERY,
    ),
    Mutation(
        "guest: any access to a page with descriptors has the rights of the CPU",
        "csrc/guest_x86.c",
        "\treturn descriptor_instruction(g) && !operand_on_page(g, va) ? MMU_ACCESS_IMPLICIT : 0;\n",
        "\treturn descriptor_instruction(g) ? MMU_ACCESS_IMPLICIT : MMU_ACCESS_IMPLICIT;\n",
        DELIVERY,
    ),
    Mutation(
        "guest: LDTR has the rights of EL1",
        "csrc/guest_arm64.c",
        "\treturn is_unprivileged(word) ? MMU_ACCESS_UNPRIVILEGED : 0;\n",
        "\treturn is_unprivileged(word) ? 0 : 0;\n",
        ARM64,
    ),
    Mutation(
        "guest: a read-modify-write faults as a read",
        "mmu/guest/x86_decode.py",
        "bool(access & Access.READ) and writes_back(instruction)",
        "bool(access & Access.READ) and not instruction",
        FAULTS,
    ),
    Mutation(
        "guest: a store-exclusive faults as a read",
        "mmu/guest/arm64.py",
        "        if not any(word & mask == value for mask, value in STORE_EXCLUSIVE):\n",
        "        if STORE_EXCLUSIVE:\n",
        ARM64,
    ),
    Mutation(
        "guest: a second fault is a double fault",
        "mmu/guest/x86.py",
        "        put(blob, places.previous, 4, -1)\n",
        "",
        DELIVERY,
    ),
    Mutation(
        "guest: any program may use any gate",
        "mmu/guest/x86_delivery.py",
        "    if software and GateLow.DPL.get(low) < cpu.cpl:\n",
        "    if software and GateLow.DPL.get(low) < 0:\n",
        DELIVERY,
    ),
    Mutation(
        "guest: a frame is not aligned",
        "mmu/guest/x86_delivery.py",
        "    stack &= ~15\n",
        "    stack &= ~7\n",
        DELIVERY,
    ),
    Mutation(
        "guest: whatever comes while an exception is delivered is a double fault",
        "mmu/guest/x86_delivery.py",
        "    return Interrupt(DF, 0) if double else second\n",
        "    return Interrupt(DF, 0) if first else second\n",
        DELIVERY,
    ),
    Mutation(
        "guest: exceptions of EL0 go to the vectors of EL1",
        "mmu/guest/arm64.py",
        "VECTOR_LOWER if el == 0 else VECTOR_SPX if spx",
        "VECTOR_SPX if el == 0 else VECTOR_SPX if spx",
        ARM64,
    ),
    Mutation(
        "guest: data in sections beside .text are left out",
        "mmu/guest/loader.py",
        " and section.name != \".text\":\n",
        " and not section.name:\n",
        LOADER,
    ),
)
