/*
 * Streams what a tree of page tables maps. The tables describe themselves (mmu/scan.py fills a format from the same
 * levels as the builder has), so there is one loop for every architecture. It reads entries and writes nothing.
 */

enum mmu_scan_limit { MMU_SCAN_LEVELS = 6, MMU_SCAN_RULES = 12, MMU_SCAN_PARTS = 2 };

/* `flags` hold for an entry when (entry & mask) == value. */
struct mmu_scan_rule { uint64_t mask, value, flags; };

/* A piece of the address: (entry & mask) >> lo << low. Unused ones are zero. */
struct mmu_scan_part { uint64_t mask; uint32_t lo, low; };

/* One kind of entry: (entry & mask) == value, and nothing of `reserved` set, or it is invalid. */
struct mmu_scan_entry {
	uint64_t mask, value, reserved;
	struct mmu_scan_part part[2];
	struct mmu_scan_rule rule[12];
	uint32_t parts, rules;		/* parts 0: this level has no such entries */
};

/* A table indexed by `bits` address bits from `shift` up; an entry of `width` bytes (4 or 8) with nothing of
   `present` set maps nothing. The flags of `leaf` are a page's, those of `table` are taken from all below. */
struct mmu_scan_level {
	uint64_t present;
	uint32_t shift, bits, width;
	struct mmu_scan_entry table, leaf;
};

/* `sign` bits of an address count, the highest is copied upwards; 0: none is. `base` is then added to all.
   A page that has all flags of `with` loses those of `without`. `swap`: entries are big-endian. */
struct mmu_scan_format {
	uint64_t base, bus_error, invalid;	/* the last two: flags of records that are no pages */
	uint64_t with, without;
	uint32_t sign, levels, swap, reserved;
	struct mmu_scan_level level[6];
};

/* Bytes va .. va+size-1 are mapped to pa and up. With the flag bus_error or invalid: `pa` is the address of the
   (first) entry that could not be read or that no walker takes, va and size are what it covers. */
struct mmu_mapping { uint64_t va, pa, size, flags; };

struct mmu_scan_frame { uint64_t table, low, denied, index; };

/* Where a scan stands; the caller only fills it by mmu_scan_begin(). */
struct mmu_scan {
	uint64_t first, last;
	uint32_t merge, depth, done, waiting;
	struct mmu_mapping pending;
	struct mmu_scan_frame frame[6];
};

/* Addresses first..last (inclusive, without their sign or base) of the tables at `root`. `merge` nonzero: adjacent
   pages of equal flags become one record. MMU_ERANGE when the format is not one that a scan can follow. */
int mmu_scan_begin(const struct mmu_scan_format *format, uint64_t root, uint64_t first,
		   uint64_t last, uint32_t merge, struct mmu_scan *ret);
/* Writes up to `capacity` (at least 1) records and reads up to about `budget` entries; scan->done says that there are
   no more. MMU_OK, MMU_ERANGE, or MMU_ECALLBACK, and then the scan is over. Any thread that owns the port. */
int mmu_scan_next(mmu_port *port, const struct mmu_scan_format *format, struct mmu_scan *scan,
		  uint64_t budget, struct mmu_mapping *ret, uint64_t capacity, uint64_t *count_ret);
