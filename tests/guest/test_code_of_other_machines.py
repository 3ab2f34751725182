"""Code that the guest of another machine stores while this one runs it: seen when the architecture says so."""

import struct

import pytest

from mmu import AddressSpace, HostMemory, Machine, Ram, Striped, Target
from tests.guest.assembler import asm
from tests.guest.kernel import GDT, GDTR, KERNEL_CODE, KERNEL_DATA, segment
from tests.guest.machines import ARCHS, MIB, PAGE, SIZE, WINDOW, places, route
from tests.guest.test_shared_memory import MEET, SHARED, run_both

FUNCTION, FLAGS = 0x2800_0000, 44 * MIB  # virtual; physical
VALUE = 0x55
SERVICES = {"ram": 256, "exact": 256, "mirror": 256, "direct": PAGE}  # how the code is reached -> the granularity

# Both have met. The runner calls the function, says so at +256, waits for +320, and calls it again.
RUNS = {
    "x86_64": "call r9; mov r8d, eax; mov dword ptr [r12+256], 1; 8: cmp dword ptr [r12+320], 0; je 8b; {}; call r9",
    "aarch64": "blr x9; mov x8, x0; mov w1, #1; str w1, [x12, #256]; 8: ldr w1, [x12, #320]; cbz w1, 8b; {}; blr x9",
}  # fmt: skip
STORES = {
    "x86_64": "8: cmp dword ptr [r12+256], 0; je 8b; mov byte ptr [r9+1], 0x55; mov dword ptr [r12+320], 1",
    "aarch64": "8: ldr w1, [x12, #256]; cbz w1, 8b; mov w2, #0xaa0; movk w2, #0xd280, lsl #16; str w2, [x9];"
    " dc cvau, x9; dsb ish; ic {}; dsb ish; isb; mov w1, #1; str w1, [x12, #320]",
}  # fmt: skip
POINT = {"x86_64": "mov r9d, 0x28000000;", "aarch64": "mov x9, #0x28000000;"}  # at the function
FUNCTIONS = {"x86_64": "mov eax, 1; ret", "aarch64": "mov x0, #1; ret"}
RESULT = {"x86_64": ("r8", "rax"), "aarch64": ("x8", "x0")}
# Each leaves R9 and R12 alone.
SERIALIZING = (
    "xor eax, eax; cpuid", "mov eax, 1; cpuid", "mov rax, cr3; mov cr3, rax", "mov rax, cr0; mov cr0, rax",
    "mov rax, dr7; mov dr7, rax", "mov ecx, 0xc0000101; rdmsr; wrmsr", "invlpg [r12]",
    "sgdt [rdi]; lgdt [rdi]", "sidt [rdi]; lidt [rdi]", "xor eax, eax; lldt ax", "wbinvd", "invd",
)  # fmt: skip


def space_of(targets, granularity):
    space = AddressSpace()
    space.map(0, Ram(64 * MIB))
    window = Striped(SIZE, WINDOW, targets, "window")
    window.set_route(route(granularity))
    space.map(WINDOW, window)
    return space


def two_machines(arch, service, function, spaces=1):
    """The first one may run *function*, the second one store to it. Flags for both are at SHARED."""
    targets = [Target(f"mem{n}", HostMemory(SIZE // 2)) for n in range(2)]
    both = [space_of(targets, SERVICES[service]) for _ in range(spaces)]
    pa = 40 * MIB if service == "ram" else WINDOW + 6 * MIB
    both[0].write(pa, function)
    machines = []
    for n in range(2):
        areas = places(**dict.fromkeys(("tables", "code", "data", "stack"), "ram"))
        own = {name: (base + n * 5 * MIB, size, va) for name, (base, size, va) in areas.items()}
        m = Machine(both[n % spaces], arch, dispatch="auto" if service == "ram" else service).setup(**own)
        flags = FLAGS if spaces == 1 else WINDOW + 7 * MIB
        m.tables.map(SHARED, flags, PAGE, page_size=PAGE, executable=False)
        m.tables.map(FUNCTION, pa, PAGE, page_size=PAGE, executable=not n, writable=bool(n))
        machines.append(m)
    return machines


def run(machines, arch, *sources):
    """What the two calls of the function returned."""
    results = run_both(machines, arch, *(f"{MEET[arch]} {POINT[arch]} {source}" for source in sources), timeout=20)
    return tuple(results[0].registers[name] for name in RESULT[arch])


def seen(machines, arch, between, stores):
    return run(machines, arch, RUNS[arch].format(between), stores)


WHERE = [("ram", instruction) for instruction in SERIALIZING] + [(service, SERIALIZING[0]) for service in SERVICES]


@pytest.mark.parametrize("service, instruction", WHERE)
def test_code_that_another_machine_stored_is_seen_behind_what_serializes(service, instruction):
    one, two = two_machines("x86_64", service, asm("x86_64", FUNCTIONS["x86_64"]))
    with one, two:
        assert seen((one, two), "x86_64", instruction, STORES["x86_64"]) == (1, VALUE)


def test_code_that_another_machine_stored_is_seen_behind_an_iret():
    one, two = two_machines("x86_64", "ram", asm("x86_64", FUNCTIONS["x86_64"]))
    gdt = bytes(8) + segment(0x9A, 0xA) + segment(0x92, 0xC)
    iret = (f"mov rdx, rsp; push {KERNEL_DATA}; push rdx; pushfq; push {KERNEL_CODE}; lea rax, [rip+7f]; push rax;"
            " iretq; 7: nop")  # fmt: skip
    with one, two:
        one.write(GDT, gdt)
        one.write(GDTR, struct.pack("<HQ", len(gdt) - 1, GDT))
        runs = f"lgdt [rdi+{GDTR - GDT}]; {RUNS['x86_64'].format(iret)}"
        assert run((one, two), "x86_64", runs, STORES["x86_64"]) == (1, VALUE)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("operation", ["ivau, x9", "ialluis"])
def test_code_that_another_machine_invalidated_is_seen_behind_an_isb(service, operation):
    one, two = two_machines("aarch64", service, asm("aarch64", FUNCTIONS["aarch64"]))
    with one, two:
        assert seen((one, two), "aarch64", "isb", STORES["aarch64"].format(operation)) == (1, VALUE)


@pytest.mark.parametrize("service", ["exact", "mirror", "direct"])
@pytest.mark.parametrize("arch", ARCHS)
def test_code_that_another_host_stores_to_a_device_of_both(arch, service):
    one, two = two_machines(arch, service, asm(arch, FUNCTIONS[arch]), spaces=2)
    with one, two:
        between = {"x86_64": "cpuid", "aarch64": "isb"}[arch]
        assert seen((one, two), arch, between, STORES[arch].format("ivau, x9")) == (1, VALUE)


def test_code_in_the_block_of_what_serializes():
    function = asm("x86_64", "8: cmp dword ptr [r12+320], 0; je 8b; cpuid; mov eax, 1; ret")
    at = function.index(b"\xb8\x01\0\0\0") + 1
    runs = ("mov dword ptr [r12+320], 1; call r9; mov r8d, eax; mov dword ptr [r12+320], 0;"
            " mov dword ptr [r12+256], 1; call r9")  # fmt: skip
    stores = STORES["x86_64"].replace("r9+1", f"r9+{at}")
    one, two = two_machines("x86_64", "ram", function)
    with one, two:
        assert run((one, two), "x86_64", runs, stores) == (1, VALUE)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("arch", ARCHS)
def test_a_loop_ends_that_another_machine_stores_over(arch, service):
    """It does nothing that serializes, no TLB miss, and asks no device."""
    loop = {"x86_64": "1: jmp 1b; ret", "aarch64": "1: b 1b; ret"}[arch]
    runs = {
        "x86_64": "mov dword ptr [r12+256], 1; call r9",
        "aarch64": "mov w1, #1; str w1, [x12, #256]; blr x9",
    }[arch]
    stores = {
        "x86_64": "8: cmp dword ptr [r12+256], 0; je 8b; mov byte ptr [r9+1], 0",
        "aarch64": "8: ldr w1, [x12, #256]; cbz w1, 8b; mov w2, #1; movk w2, #0x1400, lsl #16; str w2, [x9]",
    }[arch]
    one, two = two_machines(arch, service, asm(arch, loop))
    with one, two:
        run((one, two), arch, runs, stores)
