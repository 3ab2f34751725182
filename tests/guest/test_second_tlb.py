"""The TLB behind the engine's: it saves walks, and forgets when the architecture says so."""

import pytest

from mmu import arm64, x86
from mmu.types import Access
from tests.guest.machines import CODE, DATA, MIB, PAGE, WINDOW, asm, code, machine

TABLES, PLACE, CALLED = 0x2800_0000, 0x2000_0000, 0x2C00_0000
OLD, NEW = WINDOW + 8 * MIB, WINDOW + 9 * MIB
XD = 1 << 63
RIGHTS = {"x86_64": {"dirty": 1}, "aarch64": {}}


def leaf(m, va):
    """Physical address and value of the entry that maps *va*."""
    walk = {"x86_64": x86.walk, "aarch64": arm64.walk}[m.arch]
    found = walk(m.space, m.walk_registers(), va, Access.READ, update=False)
    return found.steps[-1].address, found.steps[-1].value


def prepared(m, pages=1):
    """PLACE shows OLD; the guest may write its tables. (virtual address of its entry, value that shows NEW)."""
    m.tables.map(TABLES, m.tables.root, 256 << 10, executable=False)
    m.tables.map(PLACE, OLD, pages * PAGE, page_size=PAGE, executable=False, **RIGHTS[m.arch])
    for n in range(pages):
        m.space.write(OLD + n * PAGE, (111 + n).to_bytes(8, "little"))
    m.space.write(NEW, (222).to_bytes(8, "little"))
    address, value = leaf(m, PLACE)
    return TABLES + address - m.tables.root, value + NEW - OLD


# -- what it saves --------------------------------------------------------------------------------


def test_pages_that_the_engine_forgot_are_not_walked_again(dispatch):
    with machine() as m:
        prepared(m, 600)
        touch = "mov r8d, 3; 2: mov rbx, 0x20000000; mov ecx, 600; 1: mov al, [rbx]; add rbx, 4096; dec ecx; jnz 1b;"
        counters = m.load(code("x86_64", f"{touch} dec r8d; jnz 2b")).run().counters
        assert counters.fills > 900  # the engine has 256 entries
        claimed = 601 if dispatch == "auto" else 0  # a page that moves to the mirror ends what is known of all
        assert 601 + claimed == counters.walks


def test_the_trace_holds_the_walks_that_were():
    with machine(code="ram") as m:
        prepared(m, 600)
        m.load(code("x86_64", "mov r8d, 2; 2: mov rbx, 0x20000000; mov ecx, 600; 1: mov al, [rbx]; add rbx, 4096;"
                    " dec ecx; jnz 1b; dec r8d; jnz 2b"))  # fmt: skip
        m.run()
        result = m.run(start=CODE, trace=20000)
        root, last = m.tables.root, m.tables.root + (256 << 10) - 1
        tables = [e for e in result.trace if root <= e.address <= last]
        assert len(tables) == 4 * result.counters.walks


def test_the_first_store_walks_to_set_the_dirty_flag():
    with machine() as m:
        prepared(m)
        m.tables.protect(PLACE, PAGE, dirty=0)
        m.load(code("x86_64", "mov al, [rbx]; mov [rbx+8], rcx; mov [rbx+16], rcx")).set(rbx=PLACE)
        counters = m.run().counters
        assert leaf(m, PLACE)[1] & 0x60 == 0x60
        assert counters.walks == 3  # code, load, store


def test_what_was_not_there_is_looked_for_again():
    """No INVLPG is needed where an entry becomes present."""
    with machine() as m:
        entry, value = prepared(m)
        m.tables.map(PLACE + PAGE, OLD, PAGE, page_size=PAGE)
        m.load(code("x86_64", "mov rax, [rbx]")).set(rbx=PLACE + 2 * PAGE)
        assert m.run().stop.reason == "fault"
        m.load(code("x86_64", "mov [rsi], rdx; mov rax, [rbx]")).set(rbx=PLACE + 2 * PAGE, rsi=entry + 16, rdx=value)
        assert m.run().registers["rax"] == 222


# -- what it must forget --------------------------------------------------------------------------

FLUSHES = (
    "invlpg [rbx]", "invlpg [rbx+0x7f]", "invlpg [r12+r13*4-0x100]", "invlpg [r13*8+0x1fff0000]",
    "invlpg [rip+0x1fc00000]", "invlpg gs:[rbx]", "invlpg [ebx]", "mov r8, cr3; mov cr3, r8",
    "mov r8, cr4; btc r8, 7; mov cr4, r8", "mov r8, cr0; btc r8, 16; mov cr0, r8",
)  # fmt: skip


@pytest.mark.parametrize("flush", FLUSHES)
def test_x86_instructions_that_flush(flush):
    with machine() as m:
        entry, value = prepared(m)
        m.load(code("x86_64", f"mov rax, [rbx]; mov [rsi], rdx; {flush}; mov rcx, [rbx]"))
        m.set(rbx=PLACE, rsi=entry, rdx=value, r12=PLACE + 0x100 - 4 * 0x2000, r13=0x2000)
        r = m.run().registers
        assert (r["rax"], r["rcx"]) == (111, 222)


@pytest.mark.parametrize("operand, seen", [
    ("[rbx+0x1000]", 111), ("fs:[rbx]", 111), ("fs:[rbx-0x1000]", 222), ("gs:[rbx+0x1000]", 111), ("[ebx+0x1000]", 111),
    ("[rip+0x1fc01000]", 111), ("gs:[ebx+r8d]", 222), ("fs:[rip+0x1fbff000]", 222),
])  # fmt: skip
def test_invlpg_of_another_page_leaves_this_one(operand, seen):
    """That is what a CPU does; a guest that forgets to flush sees the old page."""
    with machine() as m:
        entry, value = prepared(m)
        m.load(code("x86_64", f"mov rax, [rbx]; mov [rsi], rdx; invlpg {operand}; mov rcx, [rbx]"))
        m.set(fs_base=0x1000, rbx=PLACE, rsi=entry, rdx=value, r8=1 << 40)
        assert m.run().registers["rcx"] == seen


@pytest.mark.parametrize("where", range(1, 6))
def test_a_flush_across_two_pages_of_code(where):
    """INVLPG with prefixes, *where* bytes of it on the first page."""
    with machine() as m:
        entry, value = prepared(m)
        flush = bytes.fromhex("64410f01bc24") + (0).to_bytes(4, "little")  # invlpg fs:[r12+0]
        at = CODE + 2 * PAGE - where
        m.load(code("x86_64", "mov rax, [rbx]; mov [rsi], rdx; call rdi; mov rcx, [rbx]"))
        m.write(at, flush + b"\xc3")
        assert m.set(rbx=PLACE, r12=PLACE, rsi=entry, rdx=value, rdi=at).run().registers["rcx"] == 222


def test_a_flush_at_a_second_address():
    with machine() as m:
        entry, value = prepared(m)
        m.tables.map(CALLED, WINDOW + MIB + 3 * PAGE, PAGE)
        m.load(code("x86_64", "call rdi; mov rax, [rbx]; mov [rsi], rdx; call rbp; mov rcx, [rbx]"))
        m.write(CODE + 3 * PAGE, asm("x86_64", "invlpg [rbx]; ret"))
        m.set(rbx=PLACE, rsi=entry, rdx=value, rdi=CODE + 3 * PAGE, rbp=CALLED)
        assert m.run().registers["rcx"] == 222


@pytest.mark.parametrize("where", ["window", "ram"])
def test_a_flush_that_the_guest_writes_itself(where):
    """Over NOPs of the page that it runs from, which was searched before."""
    with machine(code=where) as m:
        entry, value = prepared(m)
        m.load(code("x86_64", "call 1f; mov rax, [rbx]; mov [rsi], rdx; mov ecx, 0x90c33b01; mov dword ptr [rip+1f], "
                    "0xc33b010f; call 1f; mov rcx, [rbx]; hlt; 1: nop; nop; nop; ret"))  # fmt: skip
        r = m.set(rbx=PLACE, rsi=entry, rdx=value).run().registers
        assert (r["rax"], r["rcx"]) == (111, 222)


def test_more_flushes_than_there_are_hooks():
    """Four pages of MOV CR3, jumped over, and then the one INVLPG that counts."""
    with machine() as m:
        entry, value = prepared(m)
        m.load(code("x86_64", "nop"))
        for n in range(4):
            jump = b"\xe9" + (PAGE - 5).to_bytes(4, "little")
            m.write(CODE + n * PAGE, jump + bytes.fromhex("0f22d8") * 1363)
        m.write(CODE + 4 * PAGE, code("x86_64", "mov rax, [rbx]; mov [rsi], rdx; invlpg [rbx]; mov rcx, [rbx]"))
        r = m.set(rbx=PLACE, rsi=entry, rdx=value).run().registers
        assert (r["rax"], r["rcx"]) == (111, 222)


def test_nxe_counts_as_soon_as_it_is_written():
    """The engine keeps its entries when EFER changes."""
    with machine() as m:
        prepared(m)
        m.tables.protect(PLACE, PAGE, executable=False)
        assert leaf(m, PLACE)[1] & XD
        m.load(code("x86_64", "mov al, [rbx]; mov ecx, 0xc0000080; rdmsr; btc eax, 11; wrmsr; mov al, [rbx+8]"))
        stop = m.set(rbx=PLACE, cr4=m.registers["cr4"]).run().stop
        # Data, stack and the rest of the tables hold XD as well, so the first access is the one that faults.
        assert (stop.exception.error_code & 8, stop.exception.cr2) == (8, PLACE + 8)


ARM_FLUSHES = (
    "tlbi vae1, x4", "tlbi vaae1is, x4", "tlbi vale1, x4", "tlbi vmalle1", "tlbi vmalle1is", "tlbi aside1, xzr",
    "mrs x5, ttbr0_el1; movk x5, #1, lsl #48; msr ttbr0_el1, x5",
)  # fmt: skip


@pytest.mark.parametrize("flush", ARM_FLUSHES)
def test_arm64_instructions_that_flush(flush):
    with machine("aarch64") as m:
        entry, value = prepared(m)
        m.tables.protect(PLACE, PAGE, not_global=1)
        value |= 1 << 11  # nG
        m.load(code("aarch64", f"ldr x9, [x8]; str x3, [x2]; dsb ish; {flush}; dsb ish; isb; ldr x10, [x8]"))
        r = m.set(x8=PLACE, x2=entry, x3=value, x4=PLACE >> 12).run().registers
        assert (r["x9"], r["x10"]) == (111, 222)


def test_arm64_tlbi_of_another_page_leaves_this_one():
    with machine("aarch64") as m:
        entry, value = prepared(m)
        m.load(code("aarch64", "ldr x9, [x8]; str x3, [x2]; dsb ish; tlbi vae1, x4; dsb ish; isb; ldr x10, [x8]"))
        r = m.set(x8=PLACE, x2=entry, x3=value, x4=(PLACE >> 12) + 1).run().registers
        assert r["x10"] == 111


def test_an_upper_half_address_is_flushed_by_its_56_bits():
    """TLBI takes VA[55:12]; the entry is kept under all 64."""
    upper = 0xFFFF_0000_2000_0000
    with machine("aarch64") as m:
        m.tables.map(TABLES, m.tables.root, 256 << 10, executable=False)
        m.tables.map(PLACE, OLD, PAGE, page_size=PAGE, executable=False)
        m.space.write(OLD, (111).to_bytes(8, "little"))
        m.space.write(NEW, (222).to_bytes(8, "little"))
        address, value = leaf(m, PLACE)
        tcr = m.registers["tcr_el1"] & ~(1 << 23) | 16 << 16 | 2 << 30
        m.set(ttbr1_el1=m.tables.root, tcr_el1=tcr)
        m.load(code("aarch64", "ldr x9, [x8]; str x3, [x2]; dsb ish; tlbi vae1, x4; dsb ish; isb; ldr x10, [x8]"))
        m.set(x8=upper, x2=TABLES + address - m.tables.root, x3=value + NEW - OLD, x4=(upper >> 12) & (1 << 44) - 1)
        r = m.run().registers
        assert (r["x9"], r["x10"]) == (111, 222)


LARGE, LARGE_OLD, LARGE_NEW = 0x4000_0000, 32 * MIB, 36 * MIB
LARGE_FLUSHES = {
    "x86_64": "mov rax, [rbx+0x5000]; mov rax, [rbx]; mov [rsi], rdx; invlpg [rbx+0x3000]; mov rcx, [rbx+0x5000]",
    "aarch64": "add x8, x8, #0x5000; ldr x9, [x8]; str x3, [x2]; dsb ish; tlbi vae1, x4; dsb ish; isb; ldr x10, [x8]",
}  # fmt: skip


@pytest.mark.parametrize("arch", LARGE_FLUSHES)
def test_the_flush_of_one_address_of_a_large_page_flushes_all_of_it(arch):
    """The engine keeps the page in pieces of 4 KiB, and forgets one piece."""
    with machine(arch) as m:
        m.tables.map(TABLES, m.tables.root, 256 << 10, executable=False)
        m.tables.map(LARGE, LARGE_OLD, 2 * MIB, page_size=2 * MIB, **RIGHTS[arch])
        m.space.write(LARGE_OLD + 0x5000, (111).to_bytes(8, "little"))
        m.space.write(LARGE_NEW + 0x5000, (222).to_bytes(8, "little"))
        address, value = leaf(m, LARGE)
        entry, value = TABLES + address - m.tables.root, value + LARGE_NEW - LARGE_OLD
        m.load(code(arch, LARGE_FLUSHES[arch]))
        if arch == "x86_64":
            r = m.set(rbx=LARGE, rsi=entry, rdx=value).run().registers
        else:
            r = m.set(x8=LARGE, x2=entry, x3=value, x4=LARGE >> 12).run().registers
        assert r["rcx" if arch == "x86_64" else "x10"] == 222


def test_the_wish_to_keep_entries_is_not_kept_in_cr3():
    """The engine stores bit 63 of what MOV CR3 is given."""
    with machine() as m:
        m.load(code("x86_64", "mov rax, cr4; bts rax, 17; mov cr4, rax; mov rax, cr3; mov rcx, rax; bts rax, 63;"
                    " mov cr3, rax; mov rbx, cr3; mov rdx, [rdi]"))  # fmt: skip
        r = m.run().registers
        assert r["rbx"] == r["cr3"] == r["rcx"]


# -- what else ends an entry ------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_host_changes_tables_between_runs(arch):
    with machine(arch) as m:
        prepared(m)
        source = {"x86_64": "mov rax, [rbx]", "aarch64": "ldr x9, [x8]"}[arch]
        name, base = {"x86_64": ("rax", "rbx"), "aarch64": ("x9", "x8")}[arch]
        m.load(code(arch, source)).set(**{base: PLACE})
        assert m.run().registers[name] == 111
        m.tables.unmap(PLACE, PAGE)
        m.tables.map(PLACE, NEW, PAGE, page_size=PAGE)
        assert m.run(start=CODE).registers[name] == 222


def test_a_user_has_no_entry_of_the_kernel():
    """The privilege is part of the context that an entry belongs to."""
    from tests.guest.kernel import USER, Kernel

    with Kernel() as kernel:
        kernel.handle(14, "mov r14, cr2; hlt")
        result = kernel.run("mov rax, [rdi]", user="mov rax, [rdi]")
        assert (result.stop.reason, result.registers["r14"]) == ("halt", DATA)
        assert result.delivered[0].pc == USER
