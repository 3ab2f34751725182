/*
 * Threads that run side by side, and now and then one of them alone. What is alone changes plain numbers that the
 * others only read while they are inside: a thread that is not kept out sees them differ, and ThreadSanitizer sees
 * the race. Some step outside in the middle, as for a device that waits for a third, or tell the others of code.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "exclusive.h"

enum { THREADS = 4, ROUNDS = 200000, NUMBERS = 4 };

static struct exclusive participants[THREADS];
static unsigned long numbers[NUMBERS];
static _Atomic bool code;	/* was stored, from the first exclusive_tell_of_code() on */
static _Atomic unsigned bad, changes, calls;

static void look(void)
{
	for (unsigned i = 1; i < NUMBERS; i++)
		bad += numbers[i] != numbers[0];
}

static void *work(void *arg)
{
	struct exclusive *e = arg;
	unsigned seed = (unsigned)(e - participants);

	exclusive_enter(e);
	for (unsigned i = 0; i < ROUNDS; i++) {
		look();
		if (exclusive_called(e)) {
			calls++;
			if (exclusive_fetches_anew(e))
				bad += !atomic_load_explicit(&code, memory_order_relaxed);
			exclusive_leave(e);
			exclusive_enter(e);
		}
		seed = seed * 1664525 + 1013904223;
		if (seed >> 28 == 0) {
			exclusive_begin(e);
			for (unsigned n = 0; n < NUMBERS; n++)
				numbers[n]++;
			changes++;
			if (seed >> 27 & 1 && exclusive_pause(e))
				exclusive_back(e);
			look();
			exclusive_end(e);
		}
		if (seed >> 28 == 1 && exclusive_pause(e))
			exclusive_back(e);
		if (seed >> 28 == 2) {
			atomic_store_explicit(&code, true, memory_order_relaxed);
			exclusive_tell_of_code();
		}
	}
	exclusive_leave(e);
	return NULL;
}

int main(void)
{
	pthread_t threads[THREADS];

	for (unsigned i = 0; i < THREADS; i++)
		exclusive_enroll(&participants[i]);
	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, work, &participants[i]))
			abort();
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < THREADS; i++)
		exclusive_resign(&participants[i]);
	if (bad || numbers[0] != changes || !changes || !calls) {
		printf("stress_exclusive: %u torn, %lu of %u changes, %u calls\n", bad, numbers[0], changes, calls);
		return 1;
	}
	return 0;
}
