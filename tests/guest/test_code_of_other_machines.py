"""Code that the guest of another machine stores while this one runs it: seen when the architecture says so."""

import struct

import pytest

from mmu import AddressSpace, HostMemory, Machine, Ram, Striped, Target
from tests.guest.assembler import asm
from tests.guest.kernel import GDT, GDTR, KERNEL_CODE, KERNEL_DATA, segment
from tests.guest.machines import ARCHS, MIB, PAGE, SIZE, WINDOW, code, places, route
from tests.guest.test_shared_memory import MEET, SHARED, run_both, with_device

FUNCTION, FLAGS = 0x2800_0000, 44 * MIB  # virtual; physical
VALUE = 0x55
SERVICES = {"ram": 256, "exact": 256, "mirror": 256, "direct": PAGE}  # how the code is reached -> the granularity

# The function at R9 / X9 is called, then a device is asked, which has the other machine store there; and again.
RUNS = {
    "x86_64": "call r9; mov r8d, eax; mov eax, [r12+0x4000]; {}; call r9",
    "aarch64": "blr x9; mov x8, x0; add x1, x12, #0x4000; ldr w1, [x1]; {}; blr x9",
}  # fmt: skip
STORES = {
    "x86_64": "mov byte ptr [r9+1], 0x55",
    "aarch64": "mov w2, #0xaa0; movk w2, #0xd280, lsl #16; str w2, [x9]; dc cvau, x9; dsb ish; ic {}; dsb ish; isb",
}  # fmt: skip
# The same on two threads, by flags at +256 and +320.
WAITS = {
    "x86_64": "mov dword ptr [r12+256], 1; 8: cmp dword ptr [r12+320], 0; je 8b",
    "aarch64": "mov w1, #1; str w1, [x12, #256]; 8: ldr w1, [x12, #320]; cbz w1, 8b",
}
WAITS_FIRST = {
    "x86_64": "8: cmp dword ptr [r12+256], 0; je 8b; {}; mov dword ptr [r12+320], 1",
    "aarch64": "8: ldr w1, [x12, #256]; cbz w1, 8b; {}; mov w1, #1; str w1, [x12, #320]",
}
POINT = {"x86_64": "mov r9d, 0x28000000;", "aarch64": "mov x9, #0x28000000;"}  # at the function
BASE = {"x86_64": "r12", "aarch64": "x12"}
FUNCTIONS = {"x86_64": "mov eax, 1; ret", "aarch64": "mov x0, #1; ret"}
SEES = {"x86_64": "cpuid", "aarch64": "isb"}
RESULT = {"x86_64": ("r8", "rax"), "aarch64": ("x8", "x0")}
# Each leaves R8, R9 and R12 alone.
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


def returned(arch, result):
    """What the two calls returned."""
    return tuple(result.registers[name] for name in RESULT[arch])


def run(machines, arch, runs, stores, device=lambda store: store()):
    """The first one runs; what it asks is a device that has the other one store, in the middle of its run."""
    one, two = machines

    def store():
        assert two.run(timeout=None).stop.reason == "halt"
        return 0

    with_device(one, lambda *_: device(store))
    two.load(code(arch, f"{POINT[arch]} {stores}")).set(**{BASE[arch]: SHARED})
    one.load(code(arch, f"{POINT[arch]} {runs}")).set(**{BASE[arch]: SHARED})
    result = one.run(timeout=None)
    assert result.stop.reason == "halt"
    return returned(arch, result)


WHERE = [("ram", instruction) for instruction in SERIALIZING] + [(service, SERIALIZING[0]) for service in SERVICES]


@pytest.mark.parametrize("service, instruction", WHERE)
def test_code_that_another_machine_stored_is_seen_behind_what_serializes(service, instruction):
    one, two = two_machines("x86_64", service, asm("x86_64", FUNCTIONS["x86_64"]))
    with one, two:
        assert run((one, two), "x86_64", RUNS["x86_64"].format(instruction), STORES["x86_64"]) == (1, VALUE)


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
        stores = STORES["aarch64"].format(operation)
        assert run((one, two), "aarch64", RUNS["aarch64"].format("isb"), stores) == (1, VALUE)


@pytest.mark.parametrize("service", ["exact", "mirror", "direct"])
@pytest.mark.parametrize("arch", ARCHS)
def test_code_that_another_host_stores_to_a_device_of_both(arch, service):
    one, two = two_machines(arch, service, asm(arch, FUNCTIONS[arch]), spaces=2)
    with one, two:
        assert run((one, two), arch, RUNS[arch].format(SEES[arch]), STORES[arch].format("ivau, x9")) == (1, VALUE)


@pytest.mark.parametrize("arch", ARCHS)
def test_code_that_another_machine_stored_is_seen_on_another_thread(arch):
    call, again = {"x86_64": ("call r9; mov r8d, eax", "call r9"), "aarch64": ("blr x9; mov x8, x0", "blr x9")}[arch]
    sources = f"{call}; {WAITS[arch]}; {SEES[arch]}; {again}", WAITS_FIRST[arch].format(STORES[arch].format("ivau, x9"))
    one, two = two_machines(arch, "ram", asm(arch, FUNCTIONS[arch]))
    with one, two:
        result = run_both((one, two), arch, *(f"{MEET[arch]} {POINT[arch]} {source}" for source in sources))[0]
        assert returned(arch, result) == (1, VALUE)


def test_code_in_the_block_of_what_serializes():
    function = asm("x86_64", "mov eax, [r12+0x4000]; cpuid; mov eax, 1; ret")
    at, asked = function.index(b"\xb8\x01\0\0\0") + 1, []

    def device(store):
        asked.append(0)
        return store() if len(asked) == 2 else 0

    one, two = two_machines("x86_64", "ram", function)
    with one, two:
        stores = STORES["x86_64"].replace("r9+1", f"r9+{at}")
        assert run((one, two), "x86_64", "call r9; mov r8d, eax; call r9", stores, device) == (1, VALUE)


# A loop of nearly no end, which was run once with 1. So many blocks later that the machine has looked in vain, it runs
# again. The other machine stores to it then.
LOOPS = {
    "x86_64": (
        "1: dec rcx; jnz 1b; ret",
        "mov ecx, 1; call r9; mov ecx, 600000; 2: dec ecx; jnz 2b; mov dword ptr [r12+256], 1; xor ecx, ecx; call r9",
        "8: cmp dword ptr [r12+256], 0; je 8b; mov byte ptr [r9+4], 0"),
    "aarch64": (
        "1: subs x1, x1, #1; b.ne 1b; ret",
        "mov x1, #1; blr x9; mov w1, #0x90000; 2: subs w1, w1, #1; b.ne 2b; mov w2, #1; str w2, [x12, #256];"
        " mov x1, xzr; blr x9",
        "8: ldr w1, [x12, #256]; cbz w1, 8b; mov w2, #0x201f; movk w2, #0xd503, lsl #16; str w2, [x9, #4]"),
}  # fmt: skip


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("arch", ARCHS)
def test_a_loop_ends_that_another_machine_stores_over(arch, service):
    """It does nothing that serializes, has no TLB miss, and asks no device."""
    loop, *sources = LOOPS[arch]
    one, two = two_machines(arch, service, asm(arch, loop))
    with one, two:
        run_both((one, two), arch, *(f"{MEET[arch]} {POINT[arch]} {source}" for source in sources), timeout=20)
