/* What both architectures' walkers share. */

/* One table entry read. `format` is the architecture's number of the entry's layout. */
struct mmu_step {
	uint64_t address, value;
	int32_t level;
	uint8_t stage, format, size, reserved;
};

/* Steps are written while count < capacity; count goes on. Pass NULL for none. */
struct mmu_steps { uint32_t count, capacity; struct mmu_step *step; };
