"""Runs guest instructions. The only room that imports unicorn.

The engine executes; every translation is a walk of ours, every access that is not plain RAM goes through a port of the
bus, and exceptions are delivered here. Where that differs from a CPU:

- Devices see the accesses that a CPU makes: up to 8 bytes, what is not aligned in aligned parts. Those that leave their
  page come in more parts, and where they begin on a page of memory with bytes around them. Windows that are served
  access by access see pieces of at most 4 bytes: 8 bytes are two, an unaligned load is the aligned blocks around it,
  an unaligned store single bytes. With run(whole=True) they are as devices are, and cost twice as much.
- A read-modify-write walks twice, for the read and for the write.
- Atomic instructions are atomic for all machines that show the same memory. They are then run one by one, which costs
  microseconds: up to 8 aligned bytes are replaced by a compare-and-exchange of the host's; for CMPXCHG16B, CASP, STXP
  and split locks all other machines of the process stand still. What the host itself, or a model of an emulator, stores
  to such an operand in between is lost.
- Code is taken by pages. A page outside of RAM is copied before it runs, so all of it must be readable. What the guest
  stores to code runs next, also when it stores through a second window onto the same device memory. What the host or a
  device stores there is seen after the access that made it act; what another thread of the host stores, some 100000
  blocks of instructions later at the latest, so that a patched loop ends; what another machine's guest stores, on x86
  behind an instruction that serializes (IRET: IRETQ), on arm64 behind its IC and an ISB, and without those as late as
  what the host stores. It is found by comparing: what ran for the first time between two stores of others, the second
  of which put back what the first one stored over, runs on.
- RAM that is mapped while the guest runs is served access by access until the next run.
- The engine's TLB is small. What it forgets is answered from a second one, which follows INVLPG, MOV to control
  registers and TLBI as a CPU's would: a guest that changes its tables and flushes nothing sees the old pages for long.
- A run that is ended from outside, by a clock or an exit device, ends between two blocks of instructions, at a jump at
  the latest. Where a device raises, the guest stands at that instruction, with the registers of before it; what was
  stored by it before stays stored. A trap of a single step is lost when a device raises on its way to the handler.
- Nothing is the host's, so the same program has the same trace. Clocks are one clock, which moves on by 1000 at each
  look at it: the time stamp counter of x86, the counter and the cycle counter of arm64. There are no random numbers:
  RDRAND, RDSEED and RNDR are undefined, and CPUID and ID_AA64ISAR0_EL1 say so. arm64's timers stay at 0.
  Only without a trace does the clock say how often tables are walked: pages whose addresses are alike but for multiples
  of 16 MiB push each other out of the second TLB when the engine asks, whose own TLB shrinks with time.

x86:

- A store of 16 bytes that leaves a page for one that faults has written its first 8 bytes when these are in the first
  page, which the manual permits (SDM vol. 3A, 'Guaranteed Atomic Operations'); a load has loaded them. Smaller ones
  have done nothing.
- What reads and writes an operand that is not aligned, and that begins before the block of instructions that it is in
  and ends in it, does so twice with the bytes before, where code is RAM for the engine and nothing is counted.
- Far JMP and CALL to an address that is not canonical raise #GP there and not where they are. A near CALL to one has
  pushed: what was below RSP is lost.
- No #AC; operands of SSE in memory need not be aligned: MOVAPS, ADDPS and the like raise no #GP. LOCK counts for
  nothing before an instruction that takes none, unless that is one of the system, in 64-bit code. CLFLUSH in code of
  32 bits never faults. ENTER does not ask whether it may write at the new RSP.
- SSE raises no floating-point exception (no #XM, nor #UD without CR4.OSXMMEXCPT). MXCSR shows all that it met but
  denormal operands (DE), and of RCPPS and RSQRTPS what a division meets. Results of the x87 that are denormal become 0
  under MXCSR.FZ as well. In code of 32 bits, and from a device, LDMXCSR takes reserved bits, and FZ as it was.
- Some rare instructions are the engine's own: LOCK NEG leaves the flags of its operand; of two NaNs the one with the
  larger fraction is the result; PHADD and PHSUB of a register with itself have a wrong upper half; CMPXCHG of 32-bit
  registers that differ clears the upper half of its operand, and one of 32 bits in memory the upper half of RAX where
  it stores; CMPPS with an immediate above 7, TEST by its second encoding (F7 /1) and MOV by C7 with REX.R are
  invalid; LAHF and SAHF with a REX prefix work on SPL; RET n with an n above 0x7fff takes it for a negative one; with
  the prefix 66 and without REX.W, a near branch is one of 16 bits, as AMD's are.
- No AVX (an invalid instruction; build with -mno-avx), no protection keys, no 5-level paging, no APIC, no performance
  counters: CPUID tells of none, nor of other things that are not here. There are the MSRs of mmu.guest.format.MSRS.
- IRET and far RET take code that is marked L and D, and no stack segment for code of 32 bits in rings 0 to 2. LTR takes
  a TSS of 16 bits in long mode. A TR that was never loaded has no I/O permission bit map, and OUTS without a prefix
  loads before that denies it. PAE pointers with reserved bits are refused when they are loaded, but each walk reads
  them anew.
- Breakpoints on data and ports never trap. After a handler that resumes with RF, those on the instructions up to the
  next jump are passed over as well.

arm64:

- EL1 and EL0 in AArch64 only, no SVE, and no check of branch targets (BTI); ID_AA64PFR0_EL1 and ID_AA64PFR1_EL1 say
  so. A walk uses 48 bits.
- An unaligned access faults where SCTLR_EL1.A is set or the instruction is an atomic one, and neither because it is
  ordered (LDAR, STLR) nor because memory is a device's; a store-exclusive only behind a load-exclusive. With
  SCTLR_EL1.A every load and store costs tens of ns more, and so does FP while CPACR_EL1.FPEN traps it for anybody.
- WFE waits for nothing and is not trapped; there is no single step (MDSCR_EL1.SS); PSTATE.IL that a legal return takes
  from SPSR_EL1 has no effect.
"""
