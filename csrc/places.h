/*
 * Inside of the places of a memory: a table of two levels, by blocks of 256 bytes.
 *
 * Accesses through ports read the table without a lock. Who wants to move blocks marks them, waits with
 * bus_settle() until no port can hold the place they were at, copies, and then writes where they are now.
 * A port that meets the mark steps aside until it is gone. Accesses of the host to the memory itself take
 * the lock, so they meet either the block or the mark.
 */
#ifndef MMU_PLACES_H
#define MMU_PLACES_H
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include "mmu.h"

#define PLACE_BLOCK UINT64_C(256)
#define PLACE_BLOCK_MASK (~(PLACE_BLOCK - 1))
#define PLACE_PAGE UINT64_C(4096)
#define LEAF_BLOCKS (UINT64_C(1) << 16)

/*
 * What the table says of a block: 0, it is at home; PLACE_MOVING; an odd number, it is at home and an
 * engine has it mapped there so many times (the number / 2); else its host address.
 */
enum { PLACE_HOME = 0, PLACE_MOVING = 2, PLACE_PIN = 2, PLACE_PINNED = 1 };

struct places_leaf { _Atomic uintptr_t block[LEAF_BLOCKS]; };

/* That ports of a bus may reach a memory: in the memory's list, and in the bus's. */
struct places_bus {
	struct places_bus *next, *next_of_bus;
	struct mmu_places *places;
	struct mmu_bus *bus;
};

struct mmu_places {
	_Atomic uint32_t holders;	/* the memory and the buses that show it */
	pthread_mutex_t lock;		/* of all that follows, and of changes of the table */
	uint64_t moved;			/* blocks that are not at home, or marked */
	bool fixed;			/* the memory is also plain RAM of some bus: nothing may move */
	struct places_bus *buses;
	uint8_t *home;
	uint64_t size, leaf_count;
	_Atomic(struct places_leaf *) leaf[];
};

/* The entry of the block of `dpa`, which is inside of the memory; NULL: none of its leaf ever moved. */
static inline _Atomic uintptr_t *places_entry(struct mmu_places *places, uint64_t dpa)
{
	/* Acquire: pairs with the release in entry_of(): a leaf is found zeroed. */
	struct places_leaf *leaf = atomic_load_explicit(&places->leaf[dpa / PLACE_BLOCK / LEAF_BLOCKS],
							memory_order_acquire);

	return leaf ? &leaf->block[dpa / PLACE_BLOCK % LEAF_BLOCKS] : NULL;
}

/* Where the byte at home at `host` is, NULL while its block is on the move. It holds to the end of the block. */
static inline uint8_t *places_find(struct mmu_places *places, uint8_t *host)
{
	uint64_t dpa = (uint64_t)(host - places->home);
	_Atomic uintptr_t *entry = places_entry(places, dpa);
	/* Acquire: pairs with the release in places_settle(), which ends a move: the copy is seen. */
	uintptr_t place = entry ? atomic_load_explicit(entry, memory_order_acquire) : PLACE_HOME;

	if (place == PLACE_HOME || place & PLACE_PINNED)
		return host;
	if (place == PLACE_MOVING)
		return NULL;
	/* The table holds addresses of blocks. */
	return (uint8_t *)place + dpa % PLACE_BLOCK;	/* NOLINT: an address kept as a number */
}

/* Ports of `bus` may reach the memory from now on. MMU_OK or MMU_ENOMEM; *ret is NULL when that was known. */
int places_attach(struct mmu_places *places, struct mmu_bus *bus, struct places_bus **ret);
void places_detach(struct places_bus *shown);
struct mmu_places *places_create(uint8_t *home, uint64_t size);
void places_release(struct mmu_places *places);

/* Marks the block at `dpa` so that it can leave home: MMU_OK, MMU_FAULTED when it must stay, MMU_ENOMEM. */
int places_mark(struct mmu_places *places, uint64_t dpa);
/* Marks a block that is away so that it can come home. */
void places_mark_return(struct mmu_places *places, uint64_t dpa);
/* Ends the move: the block is at `host` from now on; NULL: at home. */
void places_settle(struct mmu_places *places, uint64_t dpa, uint8_t *host);

/* Keeps the 4 KiB at `dpa` at home, until as many calls of places_unpin(). False when a part is away. */
bool places_pin(struct mmu_places *places, uint64_t dpa);
void places_unpin(struct mmu_places *places, uint64_t dpa);

/* Waits, for a port whose byte at home at `host` is on the move, and says where it is then. */
uint8_t *port_wait(struct mmu_port *port, struct mmu_places *places, uint8_t *host);

/* Accesses of the host: any thread, any range inside of the memory. MMU_FAULTED when a page of a file failed. */
int places_read(struct mmu_places *places, uint64_t dpa, uint8_t *data, uint64_t size);
int places_write(struct mmu_places *places, uint64_t dpa, const uint8_t *data, uint64_t size);
/* Brings home what is away up to date, where it is away it stays. */
void places_refresh_home(struct mmu_places *places);
/* From now on nothing may move; false when something is away. */
bool places_fix(struct mmu_places *places);

#endif
