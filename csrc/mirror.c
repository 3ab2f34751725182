/* Gathers pages out of device memory and scatters them back. places.h says why nobody misses a byte. */
#define _DEFAULT_SOURCE
#include "mirror.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "bus.h"
#include "hostfile.h"
#include "window.h"

#define NO_PAGE UINT32_MAX
enum { SEEN_BUSES = 8 };

struct mmu_mirror {
	pthread_mutex_t lock;
	uint8_t *start;
	struct mirror_page *page;
	uint32_t pages, fresh, used;	/* pages from `fresh` on were never used */
	uint32_t free;			/* NO_PAGE: none */
};

/* ---- life ---- */

/* The pages, and behind them what is known of each. */
static size_t reserved(const mmu_mirror *m)
{
	return (size_t)m->pages * (MIRROR_PAGE + sizeof(struct mirror_page));
}

int mmu_mirror_create(uint32_t pages, mmu_mirror **ret)
{
	mmu_mirror *m = calloc(1, sizeof(*m));
	void *start;

	if (!pages || pages == NO_PAGE) {
		free(m);
		return MMU_ERANGE;
	}
	if (!m)
		return MMU_ENOMEM;
	m->pages = pages;
	start = mmap(NULL, reserved(m), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (start == MAP_FAILED) {
		free(m);
		return MMU_ENOMEM;
	}
	m->start = start;
	m->page = (struct mirror_page *)(void *)(m->start + pages * MIRROR_PAGE);
	m->free = NO_PAGE;
	pthread_mutex_init(&m->lock, NULL);
	*ret = m;
	return MMU_OK;
}

void mmu_mirror_destroy(mmu_mirror *m)
{
	if (!m)
		return;
	munmap(m->start, reserved(m));
	pthread_mutex_destroy(&m->lock);
	free(m);
}

uint8_t *mmu_mirror_address(const mmu_mirror *m)
{
	return m->start;
}

uint64_t mmu_mirror_size(const mmu_mirror *m)
{
	return m->pages * MIRROR_PAGE;
}

uint32_t mmu_mirror_used(mmu_mirror *m)
{
	uint32_t used;

	pthread_mutex_lock(&m->lock);
	used = m->used;
	pthread_mutex_unlock(&m->lock);
	return used;
}

uint8_t *mirror_host(const mmu_mirror *m, uint32_t page)
{
	return m->start + page * MIRROR_PAGE;
}

/* ---- pages; all of this under the lock ---- */

static const uint8_t *now(const struct mirror_home *home)
{
	return places_find(home->places, home->places->home + home->dpa);
}

/* The page that the blocks are in already, in this order; NO_PAGE when they are not. */
static uint32_t find(const mmu_mirror *m, const struct mirror_home *home)
{
	const uint8_t *first = now(&home[0]);
	uintptr_t offset = (uintptr_t)first - (uintptr_t)m->start;

	if (!first || offset >= m->pages * MIRROR_PAGE || offset % MIRROR_PAGE)
		return NO_PAGE;
	for (uint32_t i = 1; i < MIRROR_BLOCKS; i++)
		if (now(&home[i]) != first + i * PLACE_BLOCK)
			return NO_PAGE;
	return (uint32_t)(offset / MIRROR_PAGE);
}

static uint32_t new_page(mmu_mirror *m)
{
	uint32_t page = m->free;

	if (page != NO_PAGE)
		m->free = m->page[page].next;
	else if (m->fresh < m->pages)
		page = m->fresh++;
	m->used += page != NO_PAGE;
	return page;
}

static void free_page(mmu_mirror *m, uint32_t page)
{
	m->page[page].next = m->free;
	m->free = page;
	m->used--;
}

/* Waits for the ports of every bus that shows one of these memories; a bus may be waited for twice. */
struct settling {
	const struct mmu_bus *seen[SEEN_BUSES];
	uint32_t count;
	const struct mmu_places *last;
	bool patient;
};

static bool settle(struct settling *s, struct mmu_places *places)
{
	bool settled = true;

	if (places == s->last)
		return true;
	s->last = places;
	pthread_mutex_lock(&places->lock);
	for (struct places_bus *shown = places->buses; shown && settled; shown = shown->next) {
		uint32_t i = 0;

		while (i < s->count && s->seen[i] != shown->bus)
			i++;
		if (i < s->count)
			continue;
		settled = bus_settle(shown->bus, s->patient);
		if (s->count < SEEN_BUSES)
			s->seen[s->count++] = shown->bus;
	}
	pthread_mutex_unlock(&places->lock);
	return settled;
}

/* Marks all blocks of the page, or none. */
static int mark(const struct mirror_home *home)
{
	for (uint32_t i = 0; i < MIRROR_BLOCKS; i++) {
		int rc = places_mark(home[i].places, home[i].dpa);

		if (rc == MMU_OK)
			continue;
		while (i--)
			places_settle(home[i].places, home[i].dpa, NULL);
		return rc;
	}
	return MMU_OK;
}

static int gather(mmu_mirror *m, const struct mirror_home *home, uint32_t page)
{
	struct settling s = { .patient = false };
	uint8_t *host = mirror_host(m, page);
	bool settled = true;
	int rc = mark(home);

	if (rc != MMU_OK)
		return rc;
	for (uint32_t i = 0; i < MIRROR_BLOCKS && settled; i++)
		settled = settle(&s, home[i].places);
	for (uint32_t i = 0; i < MIRROR_BLOCKS; i++) {
		const uint8_t *from = home[i].places->home + home[i].dpa;

		if (!settled)
			break;
		memcpy(host + i * PLACE_BLOCK, from, PLACE_BLOCK);
		settled = !hostfile_failed(from, PLACE_BLOCK);
	}
	for (uint32_t i = 0; i < MIRROR_BLOCKS; i++)
		places_settle(home[i].places, home[i].dpa, settled ? host + i * PLACE_BLOCK : NULL);
	return settled ? MMU_OK : MMU_FAULTED;
}

int mirror_take(mmu_mirror *m, const struct mirror_home *home, uint32_t *page_ret, bool *gathered_ret)
{
	uint32_t page;
	int rc = MMU_OK;

	pthread_mutex_lock(&m->lock);
	page = find(m, home);
	*gathered_ret = page == NO_PAGE;
	if (*gathered_ret) {
		page = new_page(m);
		rc = page == NO_PAGE ? MMU_ENOMEM : gather(m, home, page);
		if (rc != MMU_OK && page != NO_PAGE)
			free_page(m, page);
	}
	if (rc == MMU_OK) {
		if (*gathered_ret) {
			memcpy(m->page[page].home, home, sizeof(m->page[page].home));
			m->page[page].users = 0;
		}
		m->page[page].users++;
		*page_ret = page;
	}
	pthread_mutex_unlock(&m->lock);
	return rc;
}

static void scatter(mmu_mirror *m, mmu_port *port, uint32_t page)
{
	const uint8_t *host = mirror_host(m, page);

	for (uint32_t i = 0; i < MIRROR_BLOCKS; i++) {
		const struct mirror_home *h = &m->page[page].home[i];
		uint8_t *home = h->places->home + h->dpa;

		if (memcmp(home, host + i * PLACE_BLOCK, PLACE_BLOCK)) {
			memcpy(home, host + i * PLACE_BLOCK, PLACE_BLOCK);
			window_count_block(port, h->number, true, PLACE_BLOCK);
		}
		places_settle(h->places, h->dpa, NULL);
	}
	m->page[page].users = NO_PAGE;	/* `pages` may name it again */
	free_page(m, page);
}

void mirror_give(mmu_mirror *m, mmu_port *port, const uint32_t *pages, uint32_t count)
{
	struct settling s = { .patient = true };

	pthread_mutex_lock(&m->lock);
	for (uint32_t i = 0; i < count; i++) {
		const struct mirror_page *page = &m->page[pages[i]];

		if (--m->page[pages[i]].users)
			continue;
		for (uint32_t k = 0; k < MIRROR_BLOCKS; k++)
			places_mark_return(page->home[k].places, page->home[k].dpa);
	}
	/* One wait for all pages: marks come first, then the settling, then the copies. */
	for (uint32_t i = 0; i < count; i++)
		for (uint32_t k = 0; !m->page[pages[i]].users && k < MIRROR_BLOCKS; k++)
			settle(&s, m->page[pages[i]].home[k].places);
	for (uint32_t i = 0; i < count; i++)
		if (!m->page[pages[i]].users)
			scatter(m, port, pages[i]);
	pthread_mutex_unlock(&m->lock);
}
