/*
 * arm64 walker (VMSAv8-64): stage 1, stage 2, or both, as the registers say.
 *
 * Any register value is safe: a field that the manual calls out of range takes the behaviour that
 * the manual permits and the reference walker (mmu/arm64) documents.
 */

/* What translation reads. `pa_range` is in bits (32 .. 52), `el` 0 .. 3, `pan` and `uao` PSTATE's. */
struct mmu_arm64_regs {
	uint64_t sctlr_el1, tcr_el1, ttbr0_el1, ttbr1_el1, mair_el1;
	uint64_t sctlr_el2, tcr_el2, ttbr0_el2, ttbr1_el2, mair_el2;
	uint64_t sctlr_el3, tcr_el3, ttbr0_el3, mair_el3;
	uint64_t hcr_el2, vtcr_el2, vttbr_el2, scr_el3;
	uint8_t el, pan, uao, pa_range;
};

/* Options of a walk. */
enum mmu_arm64_option {
	MMU_ARM64_UPDATE = 1,		/* write AF and dirty state back where TCR or VTCR say so */
	MMU_ARM64_STAGE1_ONLY = 2	/* the output is the IPA; stage 1 tables still pass stage 2 */
};

/* Rights that the tables grant, by privilege, with PAN left out. */
enum mmu_arm64_rights {
	MMU_ARM64_PRIV_READ = 1, MMU_ARM64_PRIV_WRITE = 2, MMU_ARM64_PRIV_FETCH = 4,
	MMU_ARM64_USER_READ = 8, MMU_ARM64_USER_WRITE = 16, MMU_ARM64_USER_FETCH = 32
};

/* One stage's result. `descriptor` is the leaf as it stands after the walk; level 4: the stage is off. */
struct mmu_arm64_stage {
	uint64_t descriptor;
	int32_t level;
	uint8_t form;			/* enum mmu_arm64_form */
	uint8_t reserved[3];
};

/* `pa` includes the offset in the page. `allowed`: MMU_ACCESS_READ|WRITE|FETCH that the same
   privilege may use without another walk; WRITE is withheld as long as hardware must still mark
   the page dirty. `page_size` (bytes) is that of the smaller page of the two stages. */
struct mmu_arm64_translation {
	uint64_t pa, ipa, page_size;
	struct mmu_arm64_stage stage1, stage2;
	uint32_t allowed, rights;
	uint8_t writable, user, executable;
	uint8_t reserved[5];
};

/* `ipa` holds with stage 2, `result` (MMU_MEMTX_*) with MMU_FAULT_BUS, `entry_address` and `entry`
   with bits 0 and 1 of has_entry. `level` is -1 .. 3, 0 where no entry was at fault. */
struct mmu_arm64_fault {
	uint64_t va, entry_address, entry, ipa;
	uint32_t kind, access;
	int32_t level;
	uint8_t stage, on_table, has_entry, result;
};
/*
 * Translates va as a CPU without a TLB would; access is one of MMU_ACCESS_READ, WRITE, FETCH and
 * perhaps UNPRIVILEGED or MAINTENANCE data. MMU_OK and *ret, MMU_FAULTED and *fault_ret, MMU_ECALLBACK, or MMU_ERANGE
 * for another access.
 * One 8-byte load of the port per table entry. Any thread that owns the port.
 */
int mmu_arm64_walk(mmu_port *port, const struct mmu_arm64_regs *regs, uint64_t va, uint32_t access,
		   uint32_t options, struct mmu_arm64_translation *ret,
		   struct mmu_arm64_fault *fault_ret, struct mmu_steps *steps);

/* PAR_EL1 after AT of stage 1 for va: of a translation without stage 2, of a fault. */
uint64_t mmu_arm64_par(const struct mmu_arm64_regs *regs, uint64_t va, const struct mmu_arm64_translation *translation);
uint64_t mmu_arm64_par_fault(const struct mmu_arm64_regs *regs, const struct mmu_arm64_fault *fault);

/* ESR_ELx that the fault gives (EC of a lower EL where the exception rises). */
uint32_t mmu_arm64_esr(const struct mmu_arm64_fault *fault, const struct mmu_arm64_regs *regs);

/* One address of a batch. `status` is MMU_FAULT_NONE or the fault's kind, `esr` then its ESR_ELx. */
struct mmu_arm64_result {
	uint64_t pa, page_size;
	uint32_t status, esr;
};

/*
 * Walks vas[0..count-1], many in flight at once; each makes the bus accesses of mmu_arm64_walk, but
 * those of different addresses mix. MMU_OK, or MMU_ECALLBACK with ret filled in part.
 */
int mmu_arm64_walk_many(mmu_port *port, const struct mmu_arm64_regs *regs, const uint64_t *vas,
			uint64_t count, uint32_t access, uint32_t options,
			struct mmu_arm64_result *ret);
