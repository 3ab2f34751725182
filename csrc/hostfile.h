/*
 * Files that back memory, and what happens when they do not any more. A file may lose its end while it is mapped,
 * a disk may be full or broken: the kernel then ends the access with SIGBUS. One handler for the process, in
 * place from the first mapping on, puts a page of zeroes where the file's page was, notes that the page failed,
 * and lets the access go on. Whoever makes an access looks afterwards whether its page failed, with
 * hostfile_failed(): one load of a word that is 0 as long as nothing ever failed.
 *
 * A page that failed stays so until its memory goes: what it held is not known any more.
 */
#ifndef MMU_HOSTFILE_H
#define MMU_HOSTFILE_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A signal's handler belongs to the process, so what it needs does too: these, and a list in hostfile.c. */
#define HOSTFILE_SHARED __attribute__((visibility("hidden")))
extern _Atomic uint32_t hostfile_failures HOSTFILE_SHARED;	/* pages that failed, of memories that are there */
extern _Atomic uint64_t hostfile_events HOSTFILE_SHARED;	/* how often a page failed, ever */
extern _Atomic uint32_t hostfile_mappings HOSTFILE_SHARED;

struct hostfile;

/*
 * start .. start+size-1, whole pages of `page` bytes, are a mapping of a file from now on: MMU_OK, MMU_ENOMEM, or
 * MMU_EHOST when the handler cannot be installed.
 */
int hostfile_create(uint8_t *start, size_t size, size_t page, struct hostfile **ret);
/* After munmap(), and when nobody reads the memory any more. NULL is fine. */
void hostfile_destroy(struct hostfile *file);
/* The first byte of offset .. offset+size-1 in a page that failed; `size` when there is none. */
uint64_t hostfile_first_failed(const struct hostfile *file, uint64_t offset, uint64_t size);

/* Whether a part of host .. host+size-1 lies in a page that failed, of any memory. */
bool hostfile_hit(const void *host, uint64_t size);

static inline bool hostfile_any_failed(void)
{
	/* The handler runs within the access, so the compiler must not look before. */
	atomic_signal_fence(memory_order_seq_cst);
	/* Relaxed: a failure of our own was noted by this thread; one of another's, see fail_page(). */
	return __builtin_expect(atomic_load_explicit(&hostfile_failures, memory_order_relaxed) != 0, 0);
}

/* Whether there is a file at all, so that something can fail. */
static inline bool hostfile_any(void)
{
	return atomic_load_explicit(&hostfile_mappings, memory_order_relaxed) != 0;
}

/* To be asked after an access to host .. host+size-1: it failed, what was read or written means nothing. */
static inline bool hostfile_failed(const void *host, uint64_t size)
{
	return hostfile_any_failed() && hostfile_hit(host, size);
}

#endif
