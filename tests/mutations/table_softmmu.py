"""Mistakes in the softmmu TLB in C, in its batches, and in its reference."""

from tests.mutations import Mutation

TLB, FLUSH, ACCESS = "csrc/tlb.c", "csrc/tlb_flush.c", "csrc/tlb_access.c"
CPU, MANY, HEADER, WINDOW = "csrc/tlb_cpu.c", "csrc/tlb_many.c", "csrc/tlb.h", "csrc/tlb_window.c"
TABLE, REFERENCE, PYCPU = "mmu/tlb/table.py", "mmu/tlb/softmmu.py", "mmu/tlb/cpu.py"


def single(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/softmmu/test_softmmu.py::{name}" for name in names)


def many(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/softmmu/test_many.py::{name}" for name in names)


ROUTES = ("tests/softmmu/test_twin.py::test_every_kind_of_route",)
CROWDED = ("tests/softmmu/test_twin.py::test_a_crowded_slot",)
CONTEXTS = ("tests/softmmu/test_twin.py::test_more_contexts_than_indexes",)

MUTATIONS = (
    Mutation(
        "softmmu C: an entry outlives the memory map",
        HEADER,
        "return e->stamp >> TLB_STAMP_SHIFT == generation;",
        "return e->stamp != 0 || generation == 0;",
        single("test_a_change_of_the_memory_map_is_seen_at_once"),
    ),
    Mutation(
        "softmmu C: a space's entries answer for every space",
        HEADER,
        "(tag == space || tag == TLB_GLOBAL)",
        "(tag == space || tag <= TLB_GLOBAL)",
        single("test_arm64_registers_remove_nothing_and_asids_keep_entries_apart"),
    ),
    Mutation(
        "softmmu C: a complete flush knows 128 slots",
        "csrc/tlb_flush.c",
        "\tbool few = t->filled_count <= TLB_FILLED;\n",
        "\tbool few = t->filled_count <= TLB_FILLED + 1;\n",
        single("test_a_complete_flush_finds_all_however_many"),
    ),
    Mutation(
        "softmmu C: a complete flush forgets which slots were filled too early",
        "csrc/tlb.c",
        "\tif (t->filled_count <= TLB_FILLED)\n\t\tt->filled_count++;\n",
        "\tif (t->filled_count < TLB_FILLED)\n\t\tt->filled_count++;\n",
        single("test_a_complete_flush_finds_all_however_many"),
    ),
    Mutation(
        "softmmu C: a victim is found whatever its flags",
        TLB,
        "v->comparator[kind] != page)",
        "(v->comparator[kind] & TLB_PAGE_MASK) != page)",
        single("test_flags_keep_an_entry_from_being_found_among_the_victims"),
    ),
    Mutation(
        "softmmu C: a victim of the page that is filled stays",
        TLB,
        "\t\t\tt->victims[i].stamp = 0;",
        "\t\t\tt->victims[i].pa = t->victims[i].pa;",
        single("test_a_fill_takes_the_place_of_a_victim_of_the_same_page"),
    ),
    Mutation(
        "softmmu C: victims are replaced in another order",
        TLB,
        "t->turn = (t->turn + 1) % MMU_TLB_VICTIMS;",
        "t->turn = (t->turn + 3) % MMU_TLB_VICTIMS;",
        CROWDED,
    ),
    Mutation(
        "softmmu C: a store to a clean page makes no walk",
        TLB,
        "if (e && (e->comparator[kind] & MMU_TLB_NOTDIRTY)) {",
        "if (e && (e->comparator[kind] & MMU_TLB_NOTDIRTY & MMU_TLB_INVALID)) {",
        single("test_the_first_store_walks_and_sets_the_dirty_flag"),
    ),
    Mutation(
        "softmmu C: a walk is kept although a flush came in between",
        TLB,
        "if (generation == now && changes == tlb->changes) {",
        "if (generation == now && changes <= tlb->changes) {",
        single("test_a_walk_during_which_something_changes_is_answered_and_not_kept"),
    ),
    Mutation(
        "softmmu C: a walk is kept although the memory map changed in between",
        TLB,
        "if (generation == now && changes == tlb->changes) {",
        "if (generation <= now && changes == tlb->changes) {",
        single("test_a_walk_during_which_something_changes_is_answered_and_not_kept"),
    ),
    Mutation(
        "softmmu C: a page fault leaves the page",
        TLB,
        "\t\tif (cpu.faults_invalidate)\n",
        "\t\tif (cpu.faults_invalidate && !address)\n",
        single("test_a_page_fault_removes_the_page"),
    ),
    Mutation(
        "softmmu C: large pages are not remembered",
        TLB,
        "\tif (size != TLB_PAGE)\n\t\tadd_large",
        "\tif (size == 1)\n\t\tadd_large",
        single("test_a_page_flush_near_a_large_page_empties_the_index"),
    ),
    Mutation(
        "softmmu C: the range of large pages does not widen",
        TLB,
        "while ((address ^ page) & mask)\n\t\t\tmask <<= 1;",
        "if ((address ^ page) & mask)\n\t\t\taddress = page;",
        single("test_large_pages_far_apart_widen_the_range"),
    ),
    Mutation(
        "softmmu C: RAM in a part of a page is taken for all of it",
        TLB,
        " || r->last - e->pa < TLB_PAGE - 1)",
        ")",
        single("test_a_page_that_ram_covers_in_part_goes_over_the_bus"),
    ),
    Mutation(
        "softmmu C: stores to ROM go to its memory",
        TLB,
        "flags[TLB_WRITE] = MMU_TLB_DISCARD_WRITE;",
        "flags[TLB_WRITE] = 0;",
        single("test_stores_to_rom_are_dropped_and_still_consumed"),
    ),
    Mutation(
        "softmmu C: a flash chip does not see stores",
        TLB,
        "else if (!r->io)",
        "else",
        single("test_a_flash_chip_is_memory_to_loads_and_sees_stores"),
    ),
    Mutation(
        "softmmu C: watchpoints hold for all of the page",
        TLB,
        "tlb_is_watched(tlb, address, address + size - 1, UINT32_C(1) << kind))",
        "tlb_is_watched(tlb, address / TLB_PAGE * TLB_PAGE, address | (TLB_PAGE - 1), UINT32_C(1) << kind))",
        single("test_accesses_to_a_watched_byte_are_noted"),
    ),
    Mutation(
        "softmmu C: memory that went away in the middle is read",
        ACCESS,
        "!port->trace && part->generation == tlb_generation(port) && ",
        "!port->trace && ",
        single("test_a_device_may_take_the_memory_of_an_access_away"),
    ),
    Mutation(
        "softmmu C: bytes are dropped although there is memory by now",
        ACCESS,
        "(part->flags & MMU_TLB_DISCARD_WRITE) && part->generation == tlb_generation(port)",
        "part->flags & MMU_TLB_DISCARD_WRITE",
        single("test_a_device_may_put_memory_where_stores_were_dropped"),
    ),
    Mutation(
        "softmmu C: pieces are not aligned",
        ACCESS,
        "uint64_t n = (address | 8) & -(address | 8);",
        "uint64_t n = 8 + 0 * address;",
        single("test_a_device_sees_naturally_aligned_pieces"),
    ),
    Mutation(
        "softmmu C: x86 notices bus errors",
        ACCESS,
        "if (!tlb->cpu.bus_error_faults)",
        "if (!tlb->cpu.bus_error_faults && !tlb->stats.hits)",
        single("test_a_page_that_ram_covers_in_part_goes_over_the_bus"),
    ),
    Mutation(
        "softmmu C: CR3 with bit 63 removes entries",
        FLUSH,
        "if (was->cr3 != now->cr3 && !keeps) {",
        "if (was->cr3 != now->cr3 || keeps) {",
        single("test_a_change_of_registers_removes_what_the_manual_says"),
    ),
    Mutation(
        "softmmu C: a change of PGE removes nothing",
        FLUSH,
        "((cleared | set) & X86_CR4_PGE)",
        "((cleared & set) & X86_CR4_PGE)",
        single("test_a_change_of_registers_removes_what_the_manual_says"),
    ),
    Mutation(
        "softmmu C: a flush of one space removes global pages",
        FLUSH,
        "\tif (tag == TLB_GLOBAL)\n\t\treturn s->global_too;\n",
        "",
        single("test_a_flush_removes_what_it_names"),
    ),
    Mutation(
        "softmmu C: the last page of a range stays",
        FLUSH,
        "for (uint64_t i = 0; i <= more; i++)",
        "for (uint64_t i = 0; i < more + !more; i++)",
        single("test_a_flush_removes_what_it_names"),
    ),
    Mutation(
        "softmmu C: the index that is taken is not the oldest",
        FLUSH,
        "tlb->tables[i].selected < tlb->tables[oldest].selected",
        "tlb->tables[i].selected > tlb->tables[oldest].selected",
        CONTEXTS,
    ),
    Mutation(
        "softmmu C: an index keeps the entries of the context before",
        FLUSH,
        "\t\ttlb->stats.flushed += tlb_table_flush(tlb, t, &all, tlb_generation(port));\n",
        "\t\t(void)all;\n\t\t(void)port;\n",
        CONTEXTS,
    ),
    Mutation(
        "softmmu C: CPL is no part of a context",
        CPU,
        "key->x86.cpl = r->cpl == X86_USER ? X86_USER : 0;",
        "key->x86.cpl = 0;",
        single("test_privilege_selects_an_index_and_keeps_the_others"),
    ),
    Mutation(
        "softmmu C: the VMID is no part of a context",
        CPU,
        "key_of_arm64(&key->arm64, regs, q.regime_el == 1);",
        "key_of_arm64(&key->arm64, regs, false);",
        single("test_vmids_keep_entries_apart"),
    ),
    Mutation(
        "softmmu C: the ASID is always TTBR0's",
        CPU,
        "if (tcr & ARM64_TCR_A1)",
        "if (tcr & ARM64_TCR_A1 & ~ARM64_TCR_A1)",
        single("test_the_current_asid_is_where_tcr_says_and_as_wide"),
    ),
    Mutation(
        "softmmu C: fetches ignore the top byte where data do",
        CPU,
        "fetch ? MMU_ACCESS_FETCH : MMU_ACCESS_READ, 0);",
        "MMU_ACCESS_READ, 0);",
        single("test_the_top_byte_of_arm64_finds_the_same_entry"),
    ),
    Mutation(
        "softmmu batch: an unaligned access is made in one piece",
        MANY,
        "uint64_t compared = address & (TLB_PAGE_MASK | (size - 1));",
        "uint64_t compared = address & (TLB_PAGE_MASK | (size & 0));",
        many("test_unaligned_loads_and_those_over_two_pages"),
    ),
    Mutation(
        "softmmu batch: entries of other spaces and maps are hits",
        MANY,
        "return stamp == l->global ? stamp : l->stamp;",
        "return stamp;",
        many("test_entries_of_another_address_space_are_no_hits"),
    ),
    Mutation(
        "softmmu batch: accesses pass by a trace",
        MANY,
        ".fast = !b->port->trace && !t->odd && ",
        ".fast = !t->odd && ",
        ROUTES,
    ),
    Mutation(
        "softmmu batch: what a device changed is not looked at",
        MANY,
        "\t\tmost = 1;\t/* misses come in swarms */\n\t\tl = look(b);\n",
        "\t\tmost = 1;\t/* misses come in swarms */\n",
        many("test_a_batch_sees_a_map_that_a_device_changes_in_it", "test_hits_make_no_walk"),
    ),
    Mutation(
        "softmmu batch: counts of a window are lost before a miss",
        MANY,
        "\t\ttlb_window_count(&w, b->port, kind == TLB_WRITE, size);\n\t\tw.route = NULL;\n",
        "\t\tw.route = NULL;\n",
        ROUTES,
    ),
    Mutation(
        "softmmu batch: a group runs over the end of a span",
        MANY,
        " | (to - w->first > w->length);",
        ";",
        ROUTES,
    ),
    Mutation(
        "softmmu batch: a fault leaves what was loaded so far",
        MANY,
        "\tif (kind == TLB_READ)\n\t\tmemset(value, 0, size);\n\treturn MMU_OK;",
        "\treturn MMU_OK;",
        many("test_a_load_that_the_bus_refuses_in_its_second_page_gives_zero"),
    ),
    Mutation(
        "softmmu window: one whose device is too small is made ready",
        WINDOW,
        "return s->dpa < t->size && top < t->size - s->dpa && ",
        "return top + 1 && ",
        ROUTES,
    ),
    Mutation(
        "softmmu window: XOR is overlooked",
        WINDOW,
        "span->map_count ||\n\t    span->mod3_shift)",
        "span->mod3_shift)",
        ROUTES,
    ),
    Mutation(
        "softmmu reference: a victim is found whatever its flags",
        TABLE,
        "victim.comparators[kind] == page:",
        "victim.comparators[kind] & PAGE_MASK == page:",
        single("test_flags_keep_an_entry_from_being_found_among_the_victims"),
    ),
    Mutation(
        "softmmu reference: an entry outlives the memory map",
        TABLE,
        "return entry is not None and entry.view is view and entry.serves(page, space)",
        "return entry is not None and entry.serves(page, space)",
        single("test_a_change_of_the_memory_map_is_seen_at_once"),
    ),
    Mutation(
        "softmmu reference: bytes of the first page are read before the second is translated",
        REFERENCE,
        "            if isinstance(part, Fault):\n                return part\n            parts.append(part)",
        "            if isinstance(part, Fault):\n"
        "                for p in parts:\n"
        "                    self.space.load(p.pa, 1)\n"
        "                return part\n"
        "            parts.append(part)",
        single("test_both_pages_are_translated_before_any_byte_is_touched"),
    ),
    Mutation(
        "softmmu reference: EFLAGS.AC is no part of a context",
        PYCPU,
        "ac = bool(r.ac and not user and r.cr4 & Cr4.SMAP.mask)",
        "ac = False",
        single("test_rights_that_registers_take_away_are_gone_at_once"),
    ),
)
