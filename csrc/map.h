/* The immutable map: built once, then only read. */
#ifndef MMU_MAP_H
#define MMU_MAP_H
#include "bus.h"

/* A copy of sorted, disjoint ranges with its tables, or NULL when memory is out. */
struct mmu_map *map_create(const struct mmu_range *ranges, uint32_t count);
void map_destroy(struct mmu_map *map);

#endif
