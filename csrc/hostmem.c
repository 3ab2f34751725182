/* Reserved address ranges: a terabyte costs what is touched. */
#define _DEFAULT_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "hostfile.h"
#include "mmu.h"
#include "places.h"

#define HUGETLBFS_MAGIC 0x958458f6	/* linux/magic.h */

struct file_part {
	struct file_part *next;
	uint8_t *start;
	size_t size;
	struct hostfile *file;
};

struct mmu_hostmem {
	uint8_t *start;
	size_t size;			/* rounded up to host pages */
	size_t page;
	pthread_mutex_t lock;		/* of all that follows */
	struct file_part *files;	/* newest first; none goes before the memory does */
	struct mmu_places *places;	/* once there, for good */
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
	pthread_mutex_init(&mem->lock, NULL);
	*ret = mem;
	return MMU_OK;
}

void mmu_hostmem_advise_huge(mmu_hostmem *mem)
{
	madvise(mem->start, mem->size, MADV_HUGEPAGE);
}

/* Bytes of the pages in which an open file is mapped, 0 on an error. */
static size_t page_of_file(const mmu_hostmem *mem, int fd)
{
	struct statfs info;

	if (fstatfs(fd, &info))
		return 0;
	return (unsigned long)info.f_type == HUGETLBFS_MAGIC ? (size_t)info.f_bsize : mem->page;
}

static struct file_part *files_of(mmu_hostmem *mem)
{
	struct file_part *files;

	pthread_mutex_lock(&mem->lock);
	files = mem->files;
	pthread_mutex_unlock(&mem->lock);
	return files;
}

/* Under the lock. */
static int map_file(mmu_hostmem *mem, uint64_t offset, uint64_t size, int fd)
{
	size_t page = page_of_file(mem, fd);
	struct file_part *part;
	int rc;

	if (size == 0 || (offset | size) & ((page ? page : mem->page) - 1) || offset > mem->size ||
	    size > mem->size - offset)
		return MMU_ERANGE;
	for (part = mem->files; part; part = part->next)
		if (offset < (uint64_t)(part->start - mem->start) + part->size &&
		    (uint64_t)(part->start - mem->start) < offset + size)
			return MMU_EOVERLAP;
	if (!page)
		return MMU_EHOST;
	part = malloc(sizeof(*part));
	if (!part)
		return MMU_ENOMEM;
	*part = (struct file_part){ .next = mem->files, .start = mem->start + offset, .size = size };
	/* Before the first byte can be touched. */
	rc = hostfile_create(part->start, size, page, &part->file);
	if (rc == MMU_OK && mmap(part->start, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
			    MAP_FAILED) {
		hostfile_destroy(part->file);
		rc = MMU_EHOST;
	}
	if (rc != MMU_OK) {
		free(part);
		return rc;
	}
	mem->files = part;
	return MMU_OK;
}

int mmu_hostmem_map_file(mmu_hostmem *mem, uint64_t offset, uint64_t size, int fd)
{
	int rc;

	pthread_mutex_lock(&mem->lock);
	rc = map_file(mem, offset, size, fd);
	pthread_mutex_unlock(&mem->lock);
	return rc;
}

bool mmu_hostmem_failed(mmu_hostmem *mem, uint64_t offset, uint64_t size, uint64_t *ret)
{
	for (const struct file_part *part = files_of(mem); part; part = part->next) {
		uint64_t start = (uint64_t)(part->start - mem->start), first = offset, run, at;

		if (first < start)
			first = start;
		if (first - start >= part->size || first - offset >= size)
			continue;
		run = size - (first - offset);
		if (run > part->size - (first - start))
			run = part->size - (first - start);
		at = hostfile_first_failed(part->file, first - start, run);
		if (at < run) {
			*ret = first + at;
			return true;
		}
	}
	return false;
}

/* NULL: none yet. */
static struct mmu_places *places_of(mmu_hostmem *mem)
{
	struct mmu_places *places;

	pthread_mutex_lock(&mem->lock);
	places = mem->places;
	pthread_mutex_unlock(&mem->lock);
	return places;
}

int mmu_hostmem_sync(mmu_hostmem *mem)
{
	struct mmu_places *places = places_of(mem);
	struct file_part *files = files_of(mem);

	if (files && places)
		places_refresh_home(places);
	for (struct file_part *part = files; part; part = part->next)
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
	int rc = MMU_ENOMEM;

	pthread_mutex_lock(&mem->lock);
	if (!mem->places)
		mem->places = places_create(mem->start, mem->size);
	if (mem->places) {
		if (mem->fixed)
			places_fix(mem->places);
		*ret = mem->places;
		rc = MMU_OK;
	}
	pthread_mutex_unlock(&mem->lock);
	return rc;
}

bool mmu_hostmem_fix(mmu_hostmem *mem)
{
	bool fixed;

	pthread_mutex_lock(&mem->lock);
	fixed = !mem->places || places_fix(mem->places);
	mem->fixed = mem->fixed || fixed;
	pthread_mutex_unlock(&mem->lock);
	return fixed;
}

/* Where nothing has a place yet: under the lock, so that nothing gets one, and moves, meanwhile. */
static int copy_at_home(mmu_hostmem *mem, uint8_t *host, uint8_t *data, uint64_t size, bool write, bool *moves_ret)
{
	pthread_mutex_lock(&mem->lock);
	*moves_ret = mem->places;
	if (!mem->places && size)
		memcpy(write ? host : data, write ? data : host, size);
	pthread_mutex_unlock(&mem->lock);
	return hostfile_failed(host, size) ? MMU_FAULTED : MMU_OK;
}

int mmu_hostmem_read(mmu_hostmem *mem, uint64_t offset, void *data, uint64_t size)
{
	bool moves;
	int rc;

	if (offset > mem->size || size > mem->size - offset)
		return MMU_ERANGE;
	rc = copy_at_home(mem, mem->start + offset, data, size, false, &moves);
	return moves ? places_read(mem->places, offset, data, size) : rc;
}

int mmu_hostmem_write(mmu_hostmem *mem, uint64_t offset, const void *data, uint64_t size)
{
	bool moves;
	int rc;

	if (offset > mem->size || size > mem->size - offset)
		return MMU_ERANGE;
	/* Written through only in the other direction. */
	rc = copy_at_home(mem, mem->start + offset, (uint8_t *)(uintptr_t)data, size, true, &moves);
	return moves ? places_write(mem->places, offset, data, size) : rc;
}

void mmu_hostmem_destroy(mmu_hostmem *mem)
{
	if (!mem)
		return;
	places_release(mem->places);
	munmap(mem->start, mem->size);
	for (struct file_part *part = mem->files, *next; part; part = next) {
		next = part->next;
		hostfile_destroy(part->file);
		free(part);
	}
	pthread_mutex_destroy(&mem->lock);
	free(mem);
}
