"""Mistakes about where a guest stands when a device raises."""

from tests.mutations import Mutation

RAISE, DECODE = "csrc/guest_raise.c", "csrc/decode_x86.c"
FILE = "tests/guest/test_raising_devices.py"
STANDS, TWO = (FILE, "-k", "stands_at"), (FILE, "-k", "of_two")
RETURNS = (FILE, "-k", "returns_from")

MUTATIONS = (
    Mutation("raise: no instruction goes on", RAISE, "g->devices |= map->ranges[i].io != NULL;", ";", STANDS),
    Mutation("raise: code that was translated before the first device is left", "csrc/guest_fill.c",
             "\tif (!place.plain && guest_meets_device(g, page))\n\t\treturn refuse(g, GUEST_MAP_CHANGED, type);\n",
             "\tif (!place.plain)\n\t\tguest_meets_device(g, page);\n", STANDS),
    Mutation("raise: nothing stands behind what goes on", RAISE, "pc, pc + length, (void *)",
             "pc, pc, (void *)", TWO),
    Mutation("raise: nothing stands behind STXP", "csrc/guest_strict.c",
             "guest_hook_going_on(g, page + at, sizeof(word))", "guest_hook_going_on(g, page + at, 0)",
             (FILE, "-k", "store_of_a_pair")),
    Mutation("raise: what goes on has no hook", RAISE, "pc, pc + length, (void *)",
             "pc + length, pc + length, (void *)", STANDS),
    Mutation("raise: what goes on is under way in the next block", "csrc/guest_hook.c",
             "\tg->block = (struct guest_block){ .pc = address, .size = size };\n",
             "\tg->block.pc = address;\n\tg->block.size = size;\n\tg->block.hooks = 0;\n",
             (FILE, "-k", "been_made")),
    Mutation("raise: registers stay as they are", RAISE, "\tif (goes_on || g->arch->aborts) {\n", "\tif (0) {\n",
             STANDS),
    Mutation("raise: loads of arm64 have been done", RAISE, "goes_on || g->arch->aborts", "goes_on", STANDS),
    Mutation("raise: the PC of arm64 is that of the block", RAISE, "goes_on ? UNDO_ALL : UNDO_REGISTERS", "UNDO_ALL",
             STANDS),
    Mutation("raise: MXCSR is looked at in the device", "csrc/guest_x86.c", "guest_is_device(g, t.pa.v) || mmu",
             "mmu", STANDS),
    Mutation("raise: MASKMOVDQU is a plain store", DECODE, "\tcase MAP_0F | 0xf7:\t\t\t/* MASKMOVQ, MASKMOVDQU */\n",
             "", STANDS),
    Mutation("raise: FXSAVE is a plain store", DECODE, "return 0x73;", "return 0x72;", STANDS),
    Mutation("raise: FLD of 80 bits is a plain load", DECODE, "return 1 << 5 | 1 << 7;", "return 1 << 7;", STANDS),
    Mutation("raise: FNSAVE is a plain store", DECODE, "\tcase 0xdd: case 0xdf:\n", "\tcase 0xdf:\n", STANDS),
    Mutation("raise: far returns are plain loads", DECODE, "\tcase OP_RETF: case OP_RETF_N: case OP_IRET:\n"
             "\tcase MAP_0F | 0xa1:", "\tcase MAP_0F | 0xa1:", RETURNS),
)
