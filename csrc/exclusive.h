/*
 * Who runs instructions now, and how one of them gets to be the only one: for what no instruction of the host does
 * at once, as a locked access to an operand that lies across two words.
 *
 * A participant is inside while it may access the guest's memory: from exclusive_enter() to exclusive_leave().
 * exclusive_begin() asks all others to come out and waits until they have. They look at `attention` between two
 * blocks of instructions; nothing on the way to memory looks at any of this.
 */
#ifndef MMU_EXCLUSIVE_H
#define MMU_EXCLUSIVE_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Between two blocks: 0 for most, so that one look is all it costs. */
enum exclusive_attention {
	EXCLUSIVE_CALLED = 1,		/* this one is to come out, or to look at what else it was asked for */
	EXCLUSIVE_COUNTS = 2,		/* it counts its blocks, by itself: see exclusive_want() */
	EXCLUSIVE_SEARCHES = 4,		/* it searches them, in the same way */
	EXCLUSIVE_RESUMES = 8		/* x86: RFLAGS.RF is to go */
};

struct exclusive {
	_Atomic bool inside;
	_Atomic uint8_t attention;
	_Atomic bool fetch_anew;	/* what it runs may have been stored over; see exclusive_tell_of_code() */
	bool alone;			/* from exclusive_begin() to exclusive_end() */
	struct exclusive *next;		/* of all that are enrolled */
};

/* Not while it is inside. */
void exclusive_enroll(struct exclusive *e);
void exclusive_resign(struct exclusive *e);

/* For one thread at a time. Waits while another is alone. */
void exclusive_enter(struct exclusive *e);
void exclusive_leave(struct exclusive *e);

/* From inside. All others are outside when it returns, and stay there until exclusive_end(). */
void exclusive_begin(struct exclusive *e);
void exclusive_end(struct exclusive *e);

/*
 * Outside between these: a device is asked, which may take long, or wait for what another participant does. One that
 * was alone is so again afterwards, but others may have run: devices know of no locks. False: it was outside anyway.
 */
bool exclusive_pause(struct exclusive *e);
void exclusive_back(struct exclusive *e);

/* Something else that the participant is to look at was noted. */
static inline void exclusive_call(struct exclusive *e)
{
	/* Release: pairs with the acquire in exclusive_called(): what was noted is seen. */
	atomic_fetch_or_explicit(&e->attention, EXCLUSIVE_CALLED, memory_order_release);
}

static inline bool exclusive_is_called(const struct exclusive *e)
{
	return atomic_load_explicit(&e->attention, memory_order_relaxed) & EXCLUSIVE_CALLED;
}

static inline bool exclusive_wants(const struct exclusive *e, enum exclusive_attention what)
{
	return atomic_load_explicit(&e->attention, memory_order_relaxed) & what;
}

/* For the participant itself: whether it wants that before its blocks from now on. */
static inline void exclusive_want(struct exclusive *e, enum exclusive_attention what, bool on)
{
	if (on != exclusive_wants(e, what))
		atomic_fetch_xor_explicit(&e->attention, (uint8_t)what, memory_order_relaxed);
}

/* Calls all that are enrolled. Any thread; nothing is waited for. */
void exclusive_call_all(void);

/* Somebody stored code, and says so to all that are enrolled, itself too: IC of arm64, which is broadcast. */
void exclusive_tell_of_code(void);

/* Whether it was told of code, once. */
static inline bool exclusive_fetches_anew(struct exclusive *e)
{
	return atomic_load_explicit(&e->fetch_anew, memory_order_relaxed) &&
	       atomic_exchange_explicit(&e->fetch_anew, false, memory_order_acquire);
}

/* Whether it was called, once. */
static inline bool exclusive_called(struct exclusive *e)
{
	return exclusive_is_called(e) &&
	       atomic_fetch_and_explicit(&e->attention, (uint8_t)~EXCLUSIVE_CALLED, memory_order_acquire);
}

#endif
