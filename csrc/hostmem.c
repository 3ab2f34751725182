/* Reserved address ranges: a terabyte costs what is touched. */
#define _DEFAULT_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "mmu.h"
#include "places.h"

struct file_part {
	struct file_part *next;
	uint8_t *start;
	size_t size;
};

struct mmu_hostmem {
	uint8_t *start;
	size_t size;			/* rounded up to host pages */
	size_t page;
	struct file_part *files;
	struct mmu_places *places;
	bool fixed;			/* see mmu_hostmem_fix() */
};

int mmu_hostmem_create(uint64_t size, mmu_hostmem **ret)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	mmu_hostmem *mem;
	void *start;

	if (size == 0 || size > SIZE_MAX / 2)
		return MMU_ERANGE;
	size = (size + page - 1) & ~(uint64_t)(page - 1);
	mem = calloc(1, sizeof(*mem));
	if (!mem)
		return MMU_ENOMEM;
	start = mmap(NULL, size, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (start == MAP_FAILED) {
		free(mem);
		return MMU_EHOST;
	}
	mem->start = start;
	mem->size = size;
	mem->page = page;
	*ret = mem;
	return MMU_OK;
}

int mmu_hostmem_map_file(mmu_hostmem *mem, uint64_t offset, uint64_t size, int fd)
{
	struct file_part *part;

	if (size == 0 || (offset | size) & (mem->page - 1) || offset > mem->size ||
	    size > mem->size - offset)
		return MMU_ERANGE;
	part = malloc(sizeof(*part));
	if (!part)
		return MMU_ENOMEM;
	*part = (struct file_part){ mem->files, mem->start + offset, size };
	if (mmap(part->start, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
	    MAP_FAILED) {
		free(part);
		return MMU_EHOST;
	}
	mem->files = part;
	return MMU_OK;
}

int mmu_hostmem_sync(mmu_hostmem *mem)
{
	if (mem->files && mem->places)
		places_refresh_home(mem->places);
	for (struct file_part *part = mem->files; part; part = part->next)
		if (msync(part->start, part->size, MS_SYNC))
			return MMU_EHOST;
	return MMU_OK;
}

uint8_t *mmu_hostmem_address(const mmu_hostmem *mem)
{
	return mem->start;
}

int mmu_hostmem_places(mmu_hostmem *mem, mmu_places **ret)
{
	if (!mem->places)
		mem->places = places_create(mem->start, mem->size);
	if (!mem->places)
		return MMU_ENOMEM;
	if (mem->fixed)
		places_fix(mem->places);
	*ret = mem->places;
	return MMU_OK;
}

bool mmu_hostmem_fix(mmu_hostmem *mem)
{
	if (mem->places && !places_fix(mem->places))
		return false;
	mem->fixed = true;
	return true;
}

int mmu_hostmem_read(const mmu_hostmem *mem, uint64_t offset, void *data, uint64_t size)
{
	if (offset > mem->size || size > mem->size - offset)
		return MMU_ERANGE;
	if (mem->places)
		places_read(mem->places, offset, data, size);
	else if (size)
		memcpy(data, mem->start + offset, size);
	return MMU_OK;
}

int mmu_hostmem_write(mmu_hostmem *mem, uint64_t offset, const void *data, uint64_t size)
{
	if (offset > mem->size || size > mem->size - offset)
		return MMU_ERANGE;
	if (mem->places)
		places_write(mem->places, offset, data, size);
	else if (size)
		memcpy(mem->start + offset, data, size);
	return MMU_OK;
}

void mmu_hostmem_destroy(mmu_hostmem *mem)
{
	if (!mem)
		return;
	places_release(mem->places);
	munmap(mem->start, mem->size);
	for (struct file_part *part = mem->files, *next; part; part = next) {
		next = part->next;
		free(part);
	}
	free(mem);
}
