/*
 * Where the bytes of a device's memory live. At home, in that memory, unless a block of them has moved to
 * a mirror (mirror_api.h): each byte is in exactly one place at any time, and whoever wants it asks here.
 */
typedef struct mmu_places mmu_places;
