"""Mistakes about what is refused, or taken as it is, of what users hand in."""

from tests.mutations import Mutation

MMIO, MISUSE = ("tests/memory/test_mmio.py", "-k", "no_address"), ("tests/test_machine_misuse.py",)

MUTATIONS = (
    Mutation("misuse: addresses in C are cut", "mmu/memory/mmio.py", "if not 0 <= index(address) <= POINTER:",
             "if index(address) and False:", MMIO),
    Mutation("misuse: a context in C is cut", "mmu/memory/mmio.py", '"accepts": accepts, "context": context}',
             '"accepts": accepts}', MMIO),
    Mutation("misuse: sizes of a device may be anything", "mmu/memory/mmio.py",
             "if not isinstance(sizes, tuple | list) or ", "if ", ("tests/memory/test_mmio.py", "-k", "make_no_sense")),
    Mutation("misuse: an array is as long as it has items", "mmu/machine.py", "memoryview(data).tobytes()",
             "data", MISUSE),
    Mutation("misuse: setup() under a guest that runs", "mmu/machine.py", "        with self._alone(\"setup()\"):\n",
             "        if True:\n", MISUSE),
    Mutation("misuse: load() under a guest that runs", "mmu/machine.py", "        with self._alone(\"load()\"):\n",
             "        if True:\n", MISUSE),
    Mutation("misuse: boot() under a guest that runs", "mmu/machine.py", "        with self._alone(\"boot()\"):\n",
             "        if True:\n", MISUSE),
    Mutation("misuse: a guest whose device in C failed has no name", "mmu/guest/cpu.py",
             ', f"the guest at {stop.pc:#x}"', "", ("tests/memory/test_mmio.py", "-k", "fails_under_a_guest")),
    Mutation("misuse: whole may be anything", "mmu/machine.py", '        whole = asked.switch("whole", whole)\n', "",
             MISUSE),
    Mutation("misuse: a machine is restored from anything", "mmu/snapshot.py",
             "    if not isinstance(snapshot, Snapshot):\n", "    if False:\n", MISUSE),
)
