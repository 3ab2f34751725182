/* Many addresses at once, both ways, over all windows of a machine. */
typedef struct mmu_locator mmu_locator;

/* A window: HPAs first..last (inclusive) and the route that decides them. */
struct mmu_window { uint64_t first, last; const mmu_route *route; };

enum mmu_place_status {
	MMU_PLACE_DEVICE = 0,
	MMU_PLACE_OUTSIDE = 1,		/* in no window */
	MMU_PLACE_NO_DEVICE = 2,	/* reads err, writes are dropped */
	MMU_PLACE_REFUSED = 3		/* a device was reached and refused */
};

/* Where an HPA ends: byte `dpa` of device memory `target`; both 0 unless MMU_PLACE_DEVICE. */
struct mmu_place { uint64_t dpa; uint32_t target, status; };

/* HPAs that reach one byte of a device: how many, and the lowest (0 when none). */
struct mmu_found { uint64_t hpa; uint32_t count, zero; };

/* Windows are sorted and apart, MMU_ERANGE otherwise; their routes name targets by one numbering
   below `target_count`, whose sizes are `capacity`. What the routes hold is copied. */
int mmu_locator_create(const struct mmu_window *windows, uint32_t window_count,
		       const uint64_t *capacity, uint32_t target_count, mmu_locator **ret);
void mmu_locator_destroy(mmu_locator *locator);
/* One answer per question, in order; any number of threads. */
void mmu_locate_many(const mmu_locator *locator, const uint64_t *hpas, uint64_t count,
		     struct mmu_place *ret);
void mmu_find_many(const mmu_locator *locator, const uint32_t *targets, const uint64_t *dpas,
		   uint64_t count, struct mmu_found *ret);
