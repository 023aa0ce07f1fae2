/*
 * A futex event: one side of a queue sleeps on it, and the other side wakes the sleepers. Also the spin before a sleep.
 *
 * A participant that finds nothing to do spins for about as long as a wake-up costs, so that it never pays more than
 * twice the best choice in hindsight, and then sleeps in the kernel. The other side makes no system call unless there
 * is a sleeper.
 *
 * Sleeping and waking.
 *
 *     sleeper:  seen = turns;  asleep += 1;  is there work? -- no: FUTEX_WAIT(turns, seen)
 *     waker:    make work;     asleep > 0?  -- yes: asleep -= 1, turns += 1, FUTEX_WAKE(turns)
 *
 * "make work", `asleep` and "is there work?" are sequentially consistent, so either the waker sees the sleeper or the
 * sleeper sees the work. The waker takes the sleeper off the count, because the sleeper runs only 50 microseconds later
 * and every message in between would cost a useless system call. A sleeper that ends by itself takes itself off.
 *
 * One wake-up at a time. A waker wakes one sleeper, and no other before that one has answered: it may take all the
 * work, and then the others would wake in vain. The woken sleeper answers as soon as it runs. When it has made progress
 * and there is more to do, it wakes the next. If it does not answer within a millisecond, because it died or was
 * stopped, the next waker wakes another; and a sleeper looks by itself at the end of its slice.
 *
 * Turns. The kernel wakes sleepers in the order in which they fell asleep. But a running participant is faster than one
 * that was just woken, so with many of them some would starve. So a participant that made EVENT_TURN calls while two or
 * more slept gives way: it wakes one and goes to sleep behind all others. Calls that must not wait never give way.
 *
 * Nothing depends on an exact count. If it is too high, because a sleeper died or two wakers took off the same one, a
 * waker makes one useless call and the count is right again. If it is too low, or a waker died before its call, a
 * sleeper sleeps until the end of its slice of at most 100 ms, and looks.
 *
 * Spinning. `budget` starts at the cost of a wake-up on this host, which sleepers learn: a waker writes the time when
 * it wakes, and the woken one compares. The budget is halved by each spin that found nothing and restored by one that
 * did; it is 0 on a single CPU. A side has at most one spinner: `spinner` holds the time at which its spin ends, so the
 * mark of a dead spinner expires by itself. It is among the words that its own side writes, and not in the event,
 * because otherwise the other side would have to fetch the event's cache line back for every message.
 */
#ifndef IPCQ_EVENT_H
#define IPCQ_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

/* Longest sleep without looking, in nanoseconds. */
#define EVENT_SLICE 100000000

/* Calls that a participant makes before it gives way to sleepers. A turn must last longer than the two system calls
 * that end it, and 64 turns must last less than the 100 ms in which every participant makes progress. */
#define EVENT_TURN 256

/* What one handle has measured. */
struct habit {
    _Atomic int64_t cost;   /* of a wake-up, ns */
    _Atomic int64_t budget; /* of the next spin, ns */
};

typedef bool event_question(void *whom);

void event_learn(struct habit *habit);

/* Spins until there is work or the budget, counted from `since`, is used up. Returns whether there is work. */
bool event_spin(_Atomic int64_t *spinner, struct habit *habit, int64_t since, int64_t until, event_question *work,
                void *whom);

/* Sleeps until there may be work, a signal came, or `until`. Returns whether others were sleeping before. */
bool event_sleep(struct event *event, _Atomic uint32_t *answered, struct habit *habit, int64_t until,
                 event_question *work, void *whom);

/* Returns the number of sleepers. Call it after making work. */
static inline uint32_t event_asleep(struct event *event)
{
    return atomic_load_explicit(&event->asleep, memory_order_seq_cst);
}

/* Returns whether any participant spins or sleeps, according to the marks. */
bool event_awaited(struct event *event, _Atomic int64_t *spinner);

/* Wakes up to `count` sleepers. Call it after making work, if `asleep` was not 0. */
void event_wake(struct event *event, uint32_t count);
/* Wakes one sleeper, unless the last one that was woken has not answered yet: that one will wake the next. */
void event_wake_one(struct event *event, const _Atomic uint32_t *answered);

#endif
