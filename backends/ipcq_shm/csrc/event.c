#include "event.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>

#include "clock.h"
#include "futex.h"

/* Bounds of the estimated cost of a wake-up, in nanoseconds: 5 microseconds on bare metal, 60 on a virtual machine. */
#define CHEAPEST 5000
#define DEAREST 80000
#define SUPPOSED 40000
/* A spin lasts as long as two wake-ups, because the other side may have to be woken first. */
#define SPIN(cost) (2 * (cost))
/* How long a sleeper that was woken may take to answer before another is woken, in nanoseconds. */
#define ON_ITS_WAY 1000000
/* The number of pauses between two reads. It doubles every LOOKS reads, up to MOST_PAUSES: each read takes the cache
 * line away from the writer, which needs it for its next commit. So a wait of a microsecond ends without delay, and a
 * longer one takes at most a quarter longer. With a constant 8 pauses, a get beside a spinning producer took 1.4 times
 * as long; now it takes 1.04 times as long (speed.c). */
#define PAUSES 8
#define MOST_PAUSES 64
#define LOOKS 8

void event_learn(struct habit *habit)
{
    cpu_set_t cpus;
    bool alone = sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) == 1;

    atomic_store_explicit(&habit->cost, alone ? 0 : SUPPOSED, memory_order_relaxed);
    atomic_store_explicit(&habit->budget, alone ? 0 : SPIN(SUPPOSED), memory_order_relaxed);
}

bool event_spin(_Atomic int64_t *spinner, struct habit *habit, int64_t since, int64_t until, event_question *work,
               void *whom)
{
    int64_t cost = atomic_load_explicit(&habit->cost, memory_order_relaxed);
    int64_t budget = atomic_load_explicit(&habit->budget, memory_order_relaxed);
    int64_t now = clock_now();
    int64_t other = atomic_load_explicit(spinner, memory_order_relaxed);
    int64_t mine = since + budget < until ? since + budget : until;
    int pauses = PAUSES, looks = 0;

    if (mine <= now || (other > now && other < now + SPIN(DEAREST)))
        return work(whom);
    /* Two that begin at the same time may both spin; that only costs processor time, once. */
    atomic_store_explicit(spinner, mine, memory_order_relaxed);
    do {
        if (work(whom)) {
            atomic_store_explicit(spinner, 0, memory_order_relaxed);
            atomic_store_explicit(&habit->budget, SPIN(cost), memory_order_relaxed);
            return true;
        }
        for (int left = pauses; left > 0; left--)
            futex_pause();
        if (++looks % LOOKS == 0 && pauses < MOST_PAUSES)
            pauses *= 2;
    } while (clock_now() < mine);
    if (mine < until) /* otherwise the spin was cut short and proves nothing */
        atomic_store_explicit(&habit->budget, budget / 2 < cost / 8 ? SPIN(cost) : budget / 2, memory_order_relaxed);
    return work(whom);
}

bool event_awaited(struct event *event, _Atomic int64_t *spinner)
{
    return atomic_load_explicit(&event->asleep, memory_order_seq_cst) != 0 ||
           atomic_load_explicit(spinner, memory_order_relaxed) > clock_now();
}

static void leave(struct event *event)
{
    uint32_t asleep = atomic_load_explicit(&event->asleep, memory_order_relaxed);

    while (asleep != 0 && !atomic_compare_exchange_weak_explicit(&event->asleep, &asleep, asleep - 1,
                                                                 memory_order_relaxed, memory_order_relaxed))
        continue;
}

static void compare(struct event *event, struct habit *habit)
{
    /* Unsigned, since the segment may hold any number. */
    int64_t took = (int64_t)((uint64_t)clock_now() - (uint64_t)atomic_load_explicit(&event->woken, memory_order_relaxed));
    int64_t cost = atomic_load_explicit(&habit->cost, memory_order_relaxed);

    if (cost == 0 || took < 0 || took > 10 * DEAREST) /* a single CPU, a foreign clock, or a stopped process */
        return;
    took = took < CHEAPEST ? CHEAPEST : took > DEAREST ? DEAREST : took;
    atomic_store_explicit(&habit->cost, cost + (took - cost) / 8, memory_order_relaxed);
}

static void answer(struct event *event, _Atomic uint32_t *answered)
{
    atomic_store_explicit(answered, atomic_load_explicit(&event->turns, memory_order_relaxed), memory_order_relaxed);
}

bool event_sleep(struct event *event, _Atomic uint32_t *answered, struct habit *habit, int64_t until,
                event_question *work, void *whom)
{
    uint32_t seen = atomic_load_explicit(&event->turns, memory_order_acquire);
    uint32_t others = atomic_fetch_add_explicit(&event->asleep, 1, memory_order_seq_cst);
    int64_t longest;

    if (work(whom)) {
        leave(event);
        return false;
    }
    longest = until - clock_now();
    if (longest <= 0) {
        leave(event);
    } else if (futex_wait(&event->turns, seen, longest < EVENT_SLICE ? longest : EVENT_SLICE)) {
        answer(event, answered);
        compare(event, habit);
    } else if (errno == EAGAIN) { /* a waker was faster and took this sleeper off the count */
        answer(event, answered);
    } else {
        leave(event);
    }
    return others != 0;
}

void event_wake(struct event *event, uint32_t count)
{
    uint32_t asleep = atomic_load_explicit(&event->asleep, memory_order_relaxed);
    uint32_t rest;

    do {
        rest = asleep > count ? asleep - count : 0;
    } while (!atomic_compare_exchange_weak_explicit(&event->asleep, &asleep, rest, memory_order_relaxed,
                                                    memory_order_relaxed));
    atomic_store_explicit(&event->woken, clock_now(), memory_order_relaxed);
    atomic_fetch_add_explicit(&event->turns, 1, memory_order_release);
    futex_wake(&event->turns, count > INT_MAX ? INT_MAX : (int)count);
}

void event_wake_one(struct event *event, const _Atomic uint32_t *answered)
{
    /* Unsigned, since the segment may hold any number. */
    if (atomic_load_explicit(answered, memory_order_relaxed) ==
            atomic_load_explicit(&event->turns, memory_order_relaxed) ||
        (uint64_t)clock_now() - (uint64_t)atomic_load_explicit(&event->woken, memory_order_relaxed) > ON_ITS_WAY)
        event_wake(event, 1);
}
