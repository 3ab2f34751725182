/* The table of places: marks, pins, and the host's own accesses. The moves are in mirror.c. */
#include "places.h"
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include "bus.h"
#include "hostfile.h"

/* ---- life ---- */

struct mmu_places *places_create(uint8_t *home, uint64_t size)
{
	uint64_t leaves = (size - 1) / (PLACE_BLOCK * LEAF_BLOCKS) + 1;
	struct mmu_places *places = calloc(1, sizeof(*places) + leaves * sizeof(places->leaf[0]));

	if (!places)
		return NULL;
	pthread_mutex_init(&places->lock, NULL);
	atomic_init(&places->holders, 1);
	places->home = home;
	places->size = size;
	places->leaf_count = leaves;
	return places;
}

void places_release(struct mmu_places *places)
{
	/* Release and acquire: the last holder sees what all others did. */
	if (!places || atomic_fetch_sub_explicit(&places->holders, 1, memory_order_acq_rel) != 1)
		return;
	for (uint64_t i = 0; i < places->leaf_count; i++)
		free(atomic_load_explicit(&places->leaf[i], memory_order_relaxed));
	pthread_mutex_destroy(&places->lock);
	free(places);
}

int places_attach(struct mmu_places *places, struct mmu_bus *bus, struct places_bus **ret)
{
	struct places_bus *known;
	int rc = MMU_OK;

	*ret = NULL;
	pthread_mutex_lock(&places->lock);
	for (known = places->buses; known && known->bus != bus; known = known->next)
		;
	if (!known) {
		*ret = malloc(sizeof(**ret));
		rc = *ret ? MMU_OK : MMU_ENOMEM;
	}
	if (*ret) {
		**ret = (struct places_bus){ .next = places->buses, .places = places, .bus = bus };
		if (places->moved)
			atomic_fetch_add_explicit(&bus->state, 1, memory_order_relaxed);
		places->buses = *ret;
		atomic_fetch_add_explicit(&places->holders, 1, memory_order_relaxed);
	}
	pthread_mutex_unlock(&places->lock);
	return rc;
}

void places_detach(struct places_bus *shown)
{
	struct mmu_places *places = shown->places;
	struct places_bus **link;

	pthread_mutex_lock(&places->lock);
	for (link = &places->buses; *link != shown; link = &(*link)->next)
		;
	*link = shown->next;
	pthread_mutex_unlock(&places->lock);
	free(shown);
	places_release(places);
}

/* ---- moves ---- */

/* The entry of a block, its leaf made when it is the first there; NULL: out of memory. Under the lock. */
static _Atomic uintptr_t *entry_of(struct mmu_places *places, uint64_t dpa)
{
	struct places_leaf *leaf;

	if (!places_entry(places, dpa)) {
		leaf = calloc(1, sizeof(*leaf));
		if (!leaf)
			return NULL;
		/* Release: pairs with the acquire in places_entry(). */
		atomic_store_explicit(&places->leaf[dpa / PLACE_BLOCK / LEAF_BLOCKS], leaf,
				      memory_order_release);
	}
	return places_entry(places, dpa);
}

/* One block more or less is away; the buses must know of the first and the last. Under the lock. */
static void count_moved(struct mmu_places *places, int change)
{
	bool before = places->moved;

	places->moved += (uint64_t)change;
	if (before == (places->moved != 0))
		return;
	/* Release: pairs with the acquires in window_any_away() and guest_bus.c: the last block's copy is seen. */
	for (struct places_bus *shown = places->buses; shown; shown = shown->next)
		atomic_fetch_add_explicit(&shown->bus->state, (uint64_t)(int64_t)change, memory_order_release);
}

int places_mark(struct mmu_places *places, uint64_t dpa)
{
	_Atomic uintptr_t *entry;
	int rc = MMU_FAULTED;

	pthread_mutex_lock(&places->lock);
	entry = places->fixed ? NULL : entry_of(places, dpa);
	if (!entry && !places->fixed) {
		rc = MMU_ENOMEM;
	} else if (entry && atomic_load_explicit(entry, memory_order_relaxed) == PLACE_HOME) {
		/* Relaxed: bus_settle() orders both before the copy, for every port. */
		count_moved(places, 1);
		atomic_store_explicit(entry, PLACE_MOVING, memory_order_relaxed);
		rc = MMU_OK;
	}
	pthread_mutex_unlock(&places->lock);
	return rc;
}

void places_mark_return(struct mmu_places *places, uint64_t dpa)
{
	pthread_mutex_lock(&places->lock);
	atomic_store_explicit(places_entry(places, dpa), PLACE_MOVING, memory_order_relaxed);
	pthread_mutex_unlock(&places->lock);
}

void places_settle(struct mmu_places *places, uint64_t dpa, uint8_t *host)
{
	pthread_mutex_lock(&places->lock);
	/* Release: pairs with the acquire in places_find(): the copy is seen. */
	atomic_store_explicit(places_entry(places, dpa), (uintptr_t)host, memory_order_release);
	if (!host)
		count_moved(places, -1);
	pthread_mutex_unlock(&places->lock);
}

/* ---- pins ---- */

/* Adds `change` pins to the 4 KiB at `dpa`. False, and nothing changes, when a part is away. Under the lock. */
static bool pin_page(struct mmu_places *places, uint64_t dpa, intptr_t change)
{
	for (uint64_t at = dpa; at < dpa + PLACE_PAGE; at += PLACE_BLOCK) {
		_Atomic uintptr_t *entry = entry_of(places, at);
		uintptr_t place = entry ? atomic_load_explicit(entry, memory_order_relaxed) : PLACE_MOVING;

		if (place != PLACE_HOME && !(place & PLACE_PINNED))
			return false;
	}
	for (uint64_t at = dpa; at < dpa + PLACE_PAGE; at += PLACE_BLOCK) {
		_Atomic uintptr_t *entry = places_entry(places, at);
		uintptr_t place = atomic_load_explicit(entry, memory_order_relaxed) | PLACE_PINNED;

		place += (uintptr_t)change * PLACE_PIN;
		atomic_store_explicit(entry, place == PLACE_PINNED ? PLACE_HOME : place,
				      memory_order_relaxed);
	}
	return true;
}

bool places_pin(struct mmu_places *places, uint64_t dpa)
{
	bool pinned;

	pthread_mutex_lock(&places->lock);
	pinned = pin_page(places, dpa, 1);
	pthread_mutex_unlock(&places->lock);
	return pinned;
}

void places_unpin(struct mmu_places *places, uint64_t dpa)
{
	pthread_mutex_lock(&places->lock);
	pin_page(places, dpa, -1);
	pthread_mutex_unlock(&places->lock);
}

bool places_fix(struct mmu_places *places)
{
	bool home;

	pthread_mutex_lock(&places->lock);
	home = places->moved == 0;
	places->fixed = places->fixed || home;
	pthread_mutex_unlock(&places->lock);
	return home;
}

/* ---- the host's own accesses ---- */

/* Where byte `dpa` is, and how many bytes from there on, at most *run. Under the lock, which it lets go to wait. */
static uint8_t *host_run(struct mmu_places *places, uint64_t dpa, uint64_t *run)
{
	uint8_t *host;

	while (places->moved) {
		if (*run > PLACE_BLOCK - dpa % PLACE_BLOCK)
			*run = PLACE_BLOCK - dpa % PLACE_BLOCK;
		host = places_find(places, places->home + dpa);
		if (host)
			return host;
		pthread_mutex_unlock(&places->lock);
		sched_yield();
		pthread_mutex_lock(&places->lock);
	}
	return places->home + dpa;
}

int places_read(struct mmu_places *places, uint64_t dpa, uint8_t *data, uint64_t size)
{
	int rc = MMU_OK;

	pthread_mutex_lock(&places->lock);
	for (uint64_t run; size; dpa += run, data += run, size -= run) {
		const uint8_t *host;

		run = size;
		host = host_run(places, dpa, &run);
		memcpy(data, host, run);
		if (hostfile_failed(host, run))
			rc = MMU_FAULTED;
	}
	pthread_mutex_unlock(&places->lock);
	return rc;
}

int places_write(struct mmu_places *places, uint64_t dpa, const uint8_t *data, uint64_t size)
{
	int rc = MMU_OK;

	pthread_mutex_lock(&places->lock);
	for (uint64_t run; size; dpa += run, data += run, size -= run) {
		uint8_t *host;

		run = size;
		host = host_run(places, dpa, &run);
		memcpy(host, data, run);
		if (hostfile_failed(host, run))
			rc = MMU_FAULTED;
	}
	for (struct places_bus *shown = places->buses; shown; shown = shown->next)
		if (atomic_load_explicit(&shown->bus->watchers, memory_order_relaxed))
			bus_wrote(shown->bus);
	pthread_mutex_unlock(&places->lock);
	return rc;
}

void places_refresh_home(struct mmu_places *places)
{
	pthread_mutex_lock(&places->lock);
	for (uint64_t i = 0; i < places->leaf_count; i++) {
		uint64_t dpa = i * LEAF_BLOCKS * PLACE_BLOCK;

		if (!places_entry(places, dpa))
			continue;
		for (uint64_t n = 0; n < LEAF_BLOCKS && dpa < places->size; n++, dpa += PLACE_BLOCK) {
			uint64_t run = PLACE_BLOCK;
			const uint8_t *host = host_run(places, dpa, &run);

			if (host != places->home + dpa)
				memcpy(places->home + dpa, host, PLACE_BLOCK);
		}
	}
	pthread_mutex_unlock(&places->lock);
}
