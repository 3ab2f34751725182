/* The immutable map: built once, then only read. */
#ifndef MMU_MAP_H
#define MMU_MAP_H
#include "bus.h"

/*
 * A copy of sorted, disjoint ranges, indexed, or NULL when memory is out. Shares the index of `like` (may
 * be NULL) when that serves. Both functions under the bus's lock, which guards the counts of users.
 */
struct mmu_map *map_create(const struct mmu_range *ranges, uint32_t count, const struct mmu_map *like);
void map_destroy(struct mmu_map *map);

#endif
