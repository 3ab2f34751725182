"""Mistakes in the guest loop in C: delivery of exceptions, and the TLB behind that of the engine."""

from tests.mutations import Mutation

SITES, SCAN, KINDS = "csrc/guest_site_x86.c", "csrc/guest_scan_x86.c", "csrc/site_x86.h"
X86, ARM64, RUN = "csrc/deliver_x86.c", "csrc/deliver_arm64.c", "csrc/guest_run.c"
ENTER, STATE = "csrc/enter_x86.c", "csrc/state_x86.c"
TLB, SITE, FILL = "csrc/guest_tlb.c", "csrc/guest_site.c", "csrc/guest_fill.c"
HOST, PORT, HOOK = "csrc/guest_host.c", "csrc/guest_port.c", "csrc/guest_hook.c"


def delivery(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/guest/test_x86_delivery.py::{name}" for name in names)


def second(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/guest/test_second_tlb.py::{name}" for name in names)


def device(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/guest/test_devices.py::{name}" for name in names)


def trap(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/guest/test_traps.py::{name}" for name in names)


def boot(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/guest/test_multiboot.py::{name}" for name in names)


def ports(word: str) -> tuple[str, ...]:
    return ("tests/guest/test_io_rights.py", "-k", word)


def same(word: str) -> tuple[str, ...]:
    return ("tests/guest/test_determinism.py", "-k", word)


TWINS = ("tests/guest/test_delivery_twins.py::test_x86_delivery_in_c_is_that_of_the_reference",)
ARM_TWINS = ("tests/guest/test_delivery_twins.py::test_arm64_delivery_in_c_is_that_of_the_reference",)
DECODE = ("tests/guest/test_decode.py",)
ARM = ("tests/guest/test_arm64_faults.py",)
FLUSHES = second("test_x86_instructions_that_flush")

RESUMED = delivery("test_an_interrupt_behind_what_was_resumed_has_no_resume_flag")

MUTATIONS = (
    Mutation("loop: the engine remembers an exception", STATE,
             "\tblob_put(blob, at->previous, UINT32_MAX);\n", "",
             delivery("test_a_hundred_faults_are_a_hundred_faults")),
    Mutation("loop: any program may use any gate", ENTER,
             "(d->event.software && get(gate[0], GUEST_GATELOW_DPL) < (d->cs & 3))",
             "(d->event.software && get(gate[0], GUEST_GATELOW_DPL) > 3)",
             delivery("test_int_n_needs_a_gate_for_users")),
    Mutation("loop: a frame is not aligned", ENTER,
             "\t*ret &= ~UINT64_C(15);\n", "\t*ret &= ~UINT64_C(7);\n",
             delivery("test_the_frame_of_a_fault_at_the_same_privilege")),
    Mutation("loop: a handler keeps the privilege of the program", STATE,
             "mode | to->cpl);", "mode | to->cpl | 3);",
             delivery("test_a_user_loads_a_segment_from_a_table_it_cannot_read")),
    Mutation("loop: the interrupt stacks are counted from 0", ENTER,
             "TSS_IST1 + 8 * (ist - 1)", "TSS_IST1 + 8 * ist", delivery(
                 "test_an_interrupt_stack_is_used_whatever_the_privilege")),
    Mutation("loop: an error code is pushed for every vector", ENTER,
             "\tbool with_code = in_set(WITH_CODE, d->event.vector) && !d->event.software;\n",
             "\tbool with_code = d->event.vector < 32;\n",
             delivery("test_an_interrupt_gate_masks_interrupts_and_a_trap_gate_does_not")),
    Mutation("loop: two exceptions are always a double fault", X86,
             "(first->vector == PF && (second->vector == PF || contributes))", "first->vector < 32",
             delivery("test_a_benign_exception_before_a_page_fault_is_no_double_fault")),
    Mutation("loop: frames are pushed with the rights of the program", ENTER,
             "push_frame(d, cpl != before ? MMU_ACCESS_IMPLICIT : 0, &stack)", "push_frame(d, 0, &stack)",
             delivery("test_a_fault_of_a_user_program_switches_stacks_and_back")),
    Mutation("loop: SYSCALL keeps the flags", X86,
             "(flags & ~mask.value & ~GUEST_RFLAGS_RF)", "(flags & ~GUEST_RFLAGS_RF)",
             TWINS),
    Mutation("loop: a read-modify-write faults as a read", X86,
             "x86_writes_back(&i);", "false;",
             delivery("test_a_fault_of_a_user_program_switches_stacks_and_back")),
    Mutation("loop: RF is for all that comes", "csrc/enter_x86.c", "(d->flags & ~GUEST_RFLAGS_RF) |", "d->flags |",
             RESUMED),
    Mutation("loop: the twin's RF is for all that comes", "mmu/guest/x86_delivery.py",
             " & ~Rflags.RF.mask  # the engine", "  # the engine", RESUMED),
    Mutation("loop: a fault through the stack is a general protection fault", X86,
             "\tif (non_canonical && x86_through_stack(&i, again.access))\n", "\tif (non_canonical && false)\n", TWINS),
    Mutation("loop: INT n that fails is reported behind itself", X86,
             "\t\t\td.pc -= interrupt_length(&d);\n", "\t\t\t;\n", TWINS),
    Mutation("loop: a selector error loses its table", ENTER,
             "(selector & (GUEST_SELECTORCODE_TI | GUEST_SELECTORCODE_INDEX)) | more",
             "(selector & GUEST_SELECTORCODE_INDEX) | more", TWINS),
    Mutation("loop: an address behind a REX prefix counts from the stack", "csrc/decode_x86.c",
             "\ti->base = (int8_t)(base | (p->rex & 1) << 3);\n", "\ti->base = (int8_t)base;\n", DECODE),
    Mutation("loop: CMP writes what it reads", "csrc/decode_x86.c",
             "\t\treturn 0x7f;\t\t\t/* all but CMP */\n", "\t\treturn 0xff;\n", DECODE),
    Mutation("loop: exceptions of EL0 go to the vectors of EL1", ARM64,
             "\t\thandler += VECTOR_LOWER;\n", "\t\thandler += VECTOR_SPX;\n", ARM),
    Mutation("loop: a handler runs on the stack of the program", ARM64,
             "\tif (!el1 || !(pstate & GUEST_PSTATE_SP))\n\t\tuse_own_stack(g);\n", "", ARM_TWINS),
    Mutation("loop: PAN is not set on entry", ARM64,
             " || !(sctlr.value & ARM64_SCTLR_SPAN);", ";", ARM_TWINS),
    Mutation("loop: a store-exclusive faults as a read", ARM64,
             "\t    !is_store_exclusive(word))\n", "\t    word)\n", ARM),
    Mutation("loop: one exception more than allowed", RUN,
             "g->counters.exceptions >= g->exception_limit;", "g->counters.exceptions > g->exception_limit;",
             delivery("test_a_run_ends_after_as_many_exceptions_as_allowed")),
    Mutation("loop: INVLPG leaves what the second TLB holds", SITES,
             "\t\tflush_page(g, address, &i);\n", "\t\t;\n", FLUSHES),
    Mutation("loop: INVLPG is about the base alone", "csrc/guest_x86.c",
             " + (general(g, i->index) << i->scale)", "", FLUSHES),
    Mutation("loop: MOV to a control register leaves the second TLB as it is", SITES,
             "i.opcode == OP_MOV_CR || ", "", FLUSHES),
    Mutation("loop: EFER counts from the next flush on", SITES, "\t\tguest_flush_tlb(g);\t/*", "\t\t/*",
             second("test_nxe_counts_as_soon_as_it_is_written")),
    Mutation("loop: an instruction across two pages is not searched for", SCAN,
             "\tif (x86_is_prefix(code[GUEST_PAGE - 1]))\n", "\tif (!code)\n",
             second("test_a_flush_across_two_pages_of_code")),
    Mutation("loop: too many flushes go unseen", SITE, "\t\tfirst = 1;\n\t\tlast = 0;\n", "",
             second("test_more_flushes_than_there_are_hooks")),
    Mutation("loop: TLBI leaves what the second TLB holds", "csrc/guest_arm64_system.c",
             "\tcase CRN_TLBI:\n", "\tcase ~CRN_TLBI:\n", second("test_arm64_instructions_that_flush")),
    Mutation("loop: TLBI takes its operand for an address", TLB, "op->value << TLB_PAGE_SHIFT", "op->value",
             second("test_arm64_instructions_that_flush")),
    Mutation("loop: TLBI knows no upper half", TLB,
             "mmu_tlb_flush_address(g->tlb.tlb, va)", "va & UINT64_C(0xffffffffffffff)",
             second("test_an_upper_half_address_is_flushed_by_its_56_bits")),
    Mutation("loop: a new run begins with old translations", "csrc/guest.c",
             "\tguest_tlb_flush(g);\t/* the host", "\t/* the host",
             second("test_the_host_changes_tables_between_runs")),
    Mutation("loop: the second TLB gives every right", TLB, ".allowed = page.allowed,", ".allowed = 3,",
             second("test_the_first_store_walks_to_set_the_dirty_flag")),
    Mutation("loop: a flush of one address leaves the rest of a large page", TLB,
             "\tif (!g->tlb.large)\n\t\treturn;\n", "\treturn;\n",
             second("test_the_flush_of_one_address_of_a_large_page_flushes_all_of_it")),
    Mutation("loop: the size of code stays that of the program", STATE,
             "\t\tmode |= MODE_64;\n", "\t\tmode |= MODE_32;\n",
             ("tests/guest/test_rare_delivery.py::test_handlers_of_a_32_bit_program_run_as_64_bit_code",)),
    Mutation("loop: a PC may be anything", "csrc/guest_arm64.c",
             "\tif (!(block->pc & g->arch->pc_mask))\n", "\tif (block)\n", ("tests/guest/test_arm64_faults.py",)),
    Mutation("loop: the second TLB does not know who asks", "csrc/guest_x86.c",
             "if (!g->tlb.set || memcmp(&regs, &g->tlb.x86, sizeof(regs))) {", "if (!g->tlb.set) {",
             second("test_a_user_has_no_entry_of_the_kernel")),
    Mutation("loop: a port that refuses gives its value", "csrc/guest_hook.c",
             "return rc == MMU_MEMTX_OK ? (uint32_t)value : nothing;", "return (uint32_t)value;",
             device("test_a_port_that_refuses_reads_ones")),
    Mutation("loop: an exit is a halt", RUN, "\tif (!atomic_load_explicit(&g->exited, memory_order_acquire))\n",
             "\tif (!g->closed)\n", device("test_a_guest_reports_its_result_and_goes_on")),
    Mutation("loop: a serial port writes behind its room", "csrc/uart.c",
             "\tif (at < u->capacity)\n", "\tif (at <= u->capacity)\n",
             device("test_what_there_is_no_room_for_is_lost_and_said")),
    Mutation("loop: the divisor of a serial port is its data", "csrc/uart.c",
             "\tcase DATA: *value = divisor ? u->divisor[0] : receive(u); break;\n",
             "\tcase DATA: *value = receive(u); break;\n", device("test_the_registers_of_a_16550")),
    Mutation("loop: a PL011 always has input", "csrc/uart.c",
             "(has_input(u) ? 0 : DEVICE_FR_RXFE)", "(has_input(u) ? 0 : 0)",
             device("test_an_arm64_guest_talks_to_its_pl011")),
    Mutation("loop: a lock that is an immediate moves the next instruction", "csrc/decode_x86.c",
             "word = i->short_operand && !i->wide ? 2 : 4;", "word = 4;", DECODE),
    Mutation("loop: AVX is SSE", KINDS, "\treturn i->vex;\n", "\treturn i->vex && !i->opcode;\n",
             trap("test_avx_is_an_invalid_instruction")),
    Mutation("loop: BMI is AVX", KINDS, "\tcase 0x2f2: case 0x2f3:", "\tcase 0x2f2:",
             trap("test_vex_instructions_on_general_registers_are_valid")),
    Mutation("loop: a segment set by the host changes no privilege", "mmu/guest/x86.py",
             "        cpl = selector & 3 if name == \"cs\" else self.cpl\n", "        cpl = self.cpl\n",
             trap("test_a_code_segment_set_by_the_host_says_the_privilege")),
    Mutation("loop: exceptions go through an IDT that is not of long mode", X86,
             " && (guest_x86_registers(g).efer & X86_EFER_LMA);", ";",
             boot("test_an_exception_before_long_mode_ends_the_run")),
    Mutation("loop: a kernel is entered where it is linked", "mmu/guest/multiboot.py",
             "            entry = entry - h[\"p_vaddr\"] + h[\"p_paddr\"]\n", "            entry = entry + 0\n",
             boot("test_an_elf_kernel")),
    Mutation("loop: a multiboot header needs no checksum", "mmu/guest/multiboot.py",
             "and (magic + flags + checksum) & 0xFFFF_FFFF == 0:", "and checksum:",
             boot("test_images_that_cannot_be_booted")),
    Mutation("loop: time is the host's", HOST,
             "\tguest_set_register(g, g->c.ids.general[RDX], time >> 32);\n\treturn 1;\n",
             "\tguest_set_register(g, g->c.ids.general[RDX], time >> 32);\n\treturn 0;\n",
             same("test_time_passes_alike_in_every_run")),
    Mutation("loop: any system register is the counter", HOST, "op->op2 == r->op2)", "op->op2 <= r->op2)",
             same("test_time_passes_alike_on_arm64")),
    Mutation("loop: users read every clock", HOST, "return r->what == RANDOM || (",
             "return r->what == RANDOM || r || (", same("test_a_user_reads_a_clock")),
    Mutation("loop: RDSEED is a number", SITES, "!i->memory && i->reg >= REG_RDRAND;",
             "!i->memory && i->reg == REG_RDRAND;", same("test_random_numbers_are_an_invalid_instruction")),
    Mutation("loop: RNDR ends nothing", HOST, "INVALID);\n\t\tguest_undo(g);\n", "INVALID);\n",
             same("test_random_numbers_are_undefined")),
    Mutation("loop: CPUID knows RDRAND", "mmu/guest/x86_cpuid.py", " & ~RDRAND & ~OSXSAVE", " & ~OSXSAVE",
             same("test_cpuid_knows")),
    Mutation("ports: IOPL permits nothing", PORT, "(cs & 3) <= (flags & GUEST_RFLAGS_IOPL) >> IOPL_SHIFT",
             "!(cs & 3)", ports("test_a_user_with_the_right_reaches_the_device")),
    Mutation("ports: the first port speaks for all", PORT, "((1u << size) - 1)", "1u",
             ports("test_every_port_of_an_access_must_be_permitted")),
    Mutation("ports: one byte of the map is enough", PORT, "\tif (at + 1 > tss.limit)", "\tif (at > tss.limit)",
             ports("test_the_map_ends_with_the_tss")),
    Mutation("ports: a TSS needs no offset of a map", PORT, " || tss.limit < TSS_MAP_BASE + 1)", ")",
             ports("test_the_map_ends_with_the_tss")),
    Mutation("ports: the map is read as the user", PORT, "MMU_ACCESS_READ | MMU_ACCESS_IMPLICIT", "MMU_ACCESS_READ",
             ports("test_the_map_is_read_as_the_supervisor")),
    Mutation("ports: any TSS has a map", PORT, "(type != TSS_FREE && type != TSS_BUSY) || ", "",
             ports("test_a_tss_of_16_bits")),
    Mutation("ports: string input of nothing is input", PORT,
             "\tif (!(i->short_address ? (uint32_t)count : count))\n", "\tif (!i->opcode)\n",
             ports("test_string_input_of_nothing")),
    Mutation("ports: string input is found in no program", SCAN,
             "\tcase OP_INSB: case OP_INSB + 1: case", "\tcase", ports("test_a_user_without_the_right")),
    Mutation("ports: the engine goes on behind an IN that is denied", HOOK,
             "\t\tguest_undo(g);\n\t\treturn nothing;\n", "\t\treturn nothing;\n",
             ports("test_a_user_without_the_right")),
    Mutation("ports: a page that a kernel ran is known to users", "csrc/guest_fill.c",
             " && code->index == index && !code->many)", " && !code->many)",
             ports("test_the_page_of_a_kernel")),
    Mutation("ports: the model asks nobody", "mmu/tcg/x86.py", "        elif not permitted(",
             "        elif 0 and not permitted(", ports("test_a_user_without_the_right")),
    Mutation("ports: the model stores before it asks", "mmu/tcg/decode_x86.py",
             "{PORT_STRINGS[name]}\" if name in PORT_STRINGS", "{PORT_STRINGS[name]}\" if not name",
             ports("test_a_user_without_the_right")),
    Mutation("ports: the reference reads one byte of the map", "mmu/guest/x86_ports.py", "    if at + 1 > limit:",
             "    if at > limit:", ports("test_the_map_ends_with_the_tss")),
)
