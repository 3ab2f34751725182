#include "exclusive.h"
#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct exclusive *enrolled;	/* under the lock */
static _Atomic bool taken;		/* somebody is alone, or waits for the others; set under the lock */

void exclusive_enroll(struct exclusive *e)
{
	pthread_mutex_lock(&lock);
	e->next = enrolled;
	enrolled = e;
	pthread_mutex_unlock(&lock);
}

void exclusive_resign(struct exclusive *e)
{
	pthread_mutex_lock(&lock);
	for (struct exclusive **p = &enrolled; *p; p = &(*p)->next)
		if (*p == e) {
			*p = e->next;
			break;
		}
	pthread_mutex_unlock(&lock);
}

static void call_all(bool code)
{
	pthread_mutex_lock(&lock);
	for (struct exclusive *e = enrolled; e; e = e->next) {
		if (code)
			/* Release: pairs with the acquire in exclusive_fetches_anew(): the code is seen. */
			atomic_store_explicit(&e->fetch_anew, true, memory_order_release);
		exclusive_call(e);
	}
	pthread_mutex_unlock(&lock);
}

void exclusive_call_all(void)
{
	call_all(false);
}

void exclusive_tell_of_code(void)
{
	call_all(true);
}

void exclusive_enter(struct exclusive *e)
{
	/* Sequentially consistent here, in exclusive_leave() and in exclusive_begin(): of who comes in and who wants
	   to be alone, at least one sees the other. */
	atomic_store(&e->inside, true);
	if (!atomic_load(&taken))
		return;
	pthread_mutex_lock(&lock);
	atomic_store(&e->inside, false);
	pthread_cond_broadcast(&changed);
	while (atomic_load(&taken))
		pthread_cond_wait(&changed, &lock);
	atomic_store(&e->inside, true);
	pthread_mutex_unlock(&lock);
}

void exclusive_leave(struct exclusive *e)
{
	atomic_store(&e->inside, false);
	if (!atomic_load(&taken))
		return;
	pthread_mutex_lock(&lock);
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

/* Whether all others are. Those that are not are called. */
static bool others_outside(const struct exclusive *e)
{
	bool outside = true;

	for (struct exclusive *other = enrolled; other; other = other->next)
		if (other != e && atomic_load(&other->inside)) {
			exclusive_call(other);
			outside = false;
		}
	return outside;
}

void exclusive_begin(struct exclusive *e)
{
	pthread_mutex_lock(&lock);
	atomic_store(&e->inside, false);	/* for another who waits to be alone */
	pthread_cond_broadcast(&changed);
	while (atomic_load(&taken))
		pthread_cond_wait(&changed, &lock);
	atomic_store(&taken, true);
	while (!others_outside(e))
		pthread_cond_wait(&changed, &lock);
	atomic_store(&e->inside, true);
	e->alone = true;
	pthread_mutex_unlock(&lock);
}

void exclusive_end(struct exclusive *e)
{
	pthread_mutex_lock(&lock);
	e->alone = false;
	atomic_store(&taken, false);
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

bool exclusive_pause(struct exclusive *e)
{
	bool alone = e->alone;

	if (!atomic_load_explicit(&e->inside, memory_order_relaxed))
		return false;
	if (alone)
		exclusive_end(e);
	exclusive_leave(e);
	e->alone = alone;	/* for exclusive_back() */
	return true;
}

void exclusive_back(struct exclusive *e)
{
	exclusive_enter(e);
	if (e->alone)
		exclusive_begin(e);
}
