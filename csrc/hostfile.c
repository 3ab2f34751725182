/*
 * The handler of SIGBUS and the list of mapped files. All that the handler does are atomic operations and bare
 * system calls: POSIX does not list mmap() as safe in a handler, and race detectors take it for a store.
 */
#define _GNU_SOURCE
#include "hostfile.h"
#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "mmu.h"

struct hostfile {
	_Atomic(struct hostfile *) next;
	uint8_t *start;
	size_t size, page;
	_Atomic uint32_t failures;
	_Atomic uint64_t failed[];	/* a bit for each page */
};

_Atomic uint32_t hostfile_failures;
_Atomic uint64_t hostfile_events;
_Atomic uint32_t hostfile_mappings;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;	/* of changes of the list; the handler takes none */
static _Atomic(struct hostfile *) files;
static _Atomic uint32_t visitors;	/* threads that are going through the list */
static bool installed;
static struct sigaction previous;

/* ---- the list, for readers ---- */

static struct hostfile *enter_list(void)
{
	/* Sequentially consistent, as leave_list() waits: either it sees us, or we do not see what it took out. */
	atomic_fetch_add(&visitors, 1);
	return atomic_load(&files);
}

static void leave_list(void)
{
	/* Release: pairs with the acquire in hostfile_destroy(): we are done with what it frees. */
	atomic_fetch_sub_explicit(&visitors, 1, memory_order_release);
}

static struct hostfile *next_file(const struct hostfile *file)
{
	return atomic_load(&file->next);
}

uint64_t hostfile_first_failed(const struct hostfile *file, uint64_t offset, uint64_t size)
{
	if (!size || !atomic_load_explicit(&file->failures, memory_order_relaxed))
		return size;
	for (uint64_t page = offset / file->page; page <= (offset + size - 1) / file->page; page++) {
		uint64_t word = atomic_load_explicit(&file->failed[page / 64], memory_order_relaxed);

		if (word >> page % 64 & 1)
			return page * file->page > offset ? page * file->page - offset : 0;
		if (!word)
			page |= 63;
	}
	return size;
}

bool hostfile_hit(const void *host, uint64_t size)
{
	bool hit = false;

	for (struct hostfile *f = enter_list(); f && !hit; f = next_file(f)) {
		uint64_t first = (uintptr_t)host, start = (uintptr_t)f->start, run = size;

		if (first < start) {
			if (start - first >= size)
				continue;
			run -= start - first;
			first = start;
		}
		if (first - start >= f->size)
			continue;
		if (run > f->size - (first - start))
			run = f->size - (first - start);
		hit = hostfile_first_failed(f, first - start, run) < run;
	}
	leave_list();
	return hit;
}

/* ---- the handler ---- */

/*
 * Notes the failure first, then lets the access go on: who reads the zeroes finds the note. The count goes before
 * the bit, so that a thread that meets the same page and finds the bit finds the count too.
 */
static bool fail_page(struct hostfile *f, uint64_t page)
{
	uint64_t bit = UINT64_C(1) << page % 64;

	atomic_fetch_add(&hostfile_events, 1);
	atomic_fetch_add(&hostfile_failures, 1);
	if (atomic_fetch_or(&f->failed[page / 64], bit) & bit)
		atomic_fetch_sub(&hostfile_failures, 1);
	else
		atomic_fetch_add(&f->failures, 1);
	/* Other threads look at the count with no fence after their access: all pass one here, between the note and
	   the zeroes. Where the kernel has no such call, only processors that reorder loads could miss it. */
	syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
	return syscall(SYS_mmap, f->start + page * f->page, f->page, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0L) != -1;
}

static bool replace_page(const void *address)
{
	bool replaced = false;

	for (struct hostfile *f = enter_list(); f; f = next_file(f)) {
		uintptr_t offset = (uintptr_t)address - (uintptr_t)f->start;

		if (offset < f->size) {
			replaced = fail_page(f, offset / f->page);
			break;
		}
	}
	leave_list();
	return replaced;
}

/* Not ours: what would have happened without us. */
static void pass_on(int number, siginfo_t *info, void *context)
{
	if (previous.sa_flags & SA_SIGINFO) {
		previous.sa_sigaction(number, info, context);
	} else if (previous.sa_handler == SIG_DFL || (previous.sa_handler == SIG_IGN && info->si_code > 0)) {
		signal(number, SIG_DFL);	/* a fault cannot be ignored */
		raise(number);			/* takes effect when the handler ends */
	} else if (previous.sa_handler != SIG_IGN) {
		previous.sa_handler(number);
	}
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
	int error = errno;
	/* A code above 0 is the kernel's: an access. Others were sent by somebody, and have no address. */
	bool ours = info->si_code > 0 && replace_page(info->si_addr);

	errno = error;
	if (!ours)
		pass_on(number, info, context);
}

/* Under the lock. Who installs a handler later must pass on to ours what is not theirs. */
static int install(void)
{
	struct sigaction action = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	if (installed)
		return MMU_OK;
	syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
	/* Known before the handler is in place. */
	if (sigaction(SIGBUS, NULL, &previous) || sigaction(SIGBUS, &action, NULL))
		return MMU_EHOST;
	installed = true;
	return MMU_OK;
}

/* ---- the list, for writers ---- */

int hostfile_create(uint8_t *start, size_t size, size_t page, struct hostfile **ret)
{
	size_t words = (size / page + 63) / 64;
	struct hostfile *file = calloc(1, sizeof(*file) + words * sizeof(file->failed[0]));
	int rc;

	if (!file)
		return MMU_ENOMEM;
	file->start = start;
	file->size = size;
	file->page = page;
	pthread_mutex_lock(&lock);
	rc = install();
	if (rc == MMU_OK) {
		atomic_store(&file->next, atomic_load(&files));
		atomic_store(&files, file);
		atomic_fetch_add(&hostfile_mappings, 1);
	}
	pthread_mutex_unlock(&lock);
	if (rc != MMU_OK)
		free(file);
	else
		*ret = file;
	return rc;
}

void hostfile_destroy(struct hostfile *file)
{
	_Atomic(struct hostfile *) *link;

	if (!file)
		return;
	pthread_mutex_lock(&lock);
	for (link = &files; atomic_load(link) != file; link = &atomic_load(link)->next)
		;
	atomic_store(link, atomic_load(&file->next));
	atomic_fetch_sub(&hostfile_mappings, 1);
	pthread_mutex_unlock(&lock);
	/* Acquire: pairs with the release in leave_list(). A visit is short, and waits for nothing. */
	while (atomic_load(&visitors))
		sched_yield();
	atomic_fetch_sub(&hostfile_failures, atomic_load(&file->failures));
	free(file);
}
