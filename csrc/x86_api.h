/* x86 walker. The specification is mmu/x86/walk.py; this gives the same answers and the same bus accesses. */

enum mmu_x86_stage2 { MMU_X86_STAGE2_NONE = 0, MMU_X86_STAGE2_NPT = 1, MMU_X86_STAGE2_EPT = 2 };

/* A table read that the bus answers with an error. */
enum mmu_x86_bus_error { MMU_X86_BUS_ZERO = 0, MMU_X86_BUS_MACHINE_CHECK = 1 };

/* Registers as the architecture has them; bits that do not matter to a walk are ignored, none is trusted. */
struct mmu_x86_regs {
	uint64_t cr0, cr3, cr4, efer;
	uint64_t stage2_root;			/* NPT: nCR3, EPT: the EPTP */
	uint64_t stage2_cr4, stage2_efer;	/* NPT: the host's */
	uint32_t pkru, pkrs;
	uint8_t cpl, ac;			/* 0..3; EFLAGS.AC */
	uint8_t phys_bits, stage2_phys_bits;	/* MAXPHYADDR of the guest and of the host */
	uint8_t stage2, bus_error;		/* enum mmu_x86_stage2, enum mmu_x86_bus_error */
	uint8_t reserved[2];
};

/* Granted rights are those of the tables over all levels and stages, whatever the access was. `allowed` holds the
   MMU_ACCESS_READ, WRITE and FETCH that the same registers, CPL, AC and kind of access (implicit, shadow stack) may use
   without another walk: WRITE is withheld while a dirty flag is still clear. */
struct mmu_x86_translation {
	uint64_t pa, page_size;			/* bytes; page_size: translation is linear in it */
	uint32_t allowed;
	uint8_t writable, user, executable;
	uint8_t global_page;			/* G of the stage-1 leaf */
};

/* See mmu.types.Fault. Level and entry are meaningful when level is not 0. */
struct mmu_x86_fault {
	uint64_t va, entry_address, entry, gpa;
	uint32_t kind, access;			/* MMU_FAULT_*, MMU_ACCESS_* */
	int32_t level;
	uint8_t stage, on_table;
	uint8_t protection_key;			/* 1 + key when the key forbids the access, maybe among other reasons */
	uint8_t wanted;				/* stage 2: MMU_ACCESS_* bits asked of it */
	uint8_t granted;			/* EPT: MMU_ACCESS_* bits over the entries used */
	uint8_t reserved[3];
};

/* options of mmu_x86_walk */
enum mmu_x86_option { MMU_X86_UPDATE = 1 };

/* MMU_OK (*ret), MMU_FAULTED (*fault_ret), MMU_ECALLBACK, or MMU_ERANGE when `access` is not one that
   x86 makes. Any thread that owns the port. steps may be NULL. */
int mmu_x86_walk(mmu_port *port, const struct mmu_x86_regs *regs, uint64_t va, uint32_t access,
		 uint32_t options, struct mmu_x86_translation *ret,
		 struct mmu_x86_fault *fault_ret, struct mmu_steps *steps);

/* One answer of a batch: status is 0 or MMU_FAULT_*; error_code is the code of mmu_x86_exception(). */
struct mmu_x86_result {
	uint64_t pa;				/* 0 on a fault, as is page_size */
	uint32_t page_size, status;
	uint64_t error_code;
};

/* mmu_x86_walk() of vas[0..count-1] into ret[0..count-1], many in flight at a time. MMU_OK, or the first
   negative status; ret is then filled up to some address. */
int mmu_x86_walk_many(mmu_port *port, const struct mmu_x86_regs *regs, const uint64_t *vas, uint64_t count,
		      uint32_t access, uint32_t options, struct mmu_x86_result *ret);

enum mmu_x86_event_kind {
	MMU_X86_EXCEPTION = 0,
	MMU_X86_EXIT_NPF = 1,
	MMU_X86_EXIT_EPT_VIOLATION = 2,
	MMU_X86_EXIT_EPT_MISCONFIGURATION = 3
};

/* What a fault looks like to software: an exception (vector, error code, CR2) or a VM exit
   (EXITINFO1 or exit qualification, guest-physical address). */
struct mmu_x86_event {
	uint64_t code, address;
	uint32_t kind, vector;
};

void mmu_x86_exception(const struct mmu_x86_regs *regs, const struct mmu_x86_fault *fault,
		       struct mmu_x86_event *ret);
