#include "wait.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Bounds of what a wake-up is taken to cost, in nanoseconds: bare metal takes 5 microseconds, a virtual machine 60. */
#define CHEAPEST 5000
#define DEAREST 80000
#define SUPPOSED 40000
/* A spin lasts as long as two wake-ups: whoever is to answer may have to be woken first, by a call that takes time too. */
#define SPIN(cost) (2 * (cost))
/* How long a sleeper that was woken may take to answer before another is woken, in nanoseconds. */
#define ON_ITS_WAY 1000000
/* Pauses between two looks: a spinner that looks all the time takes the line away from who works on it. */
#define PAUSES 8

int64_t wait_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

bool wait_on(_Atomic uint32_t *word, uint32_t seen, int64_t longest)
{
    struct timespec span = {.tv_sec = longest / 1000000000, .tv_nsec = longest % 1000000000};

    return syscall(SYS_futex, (void *)word, FUTEX_WAIT, seen, &span, NULL, 0) == 0;
}

void wait_wake(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, (void *)word, FUTEX_WAKE, count, NULL, NULL, 0);
}

void wait_learn(struct habit *habit)
{
    cpu_set_t cpus;
    bool alone = sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) == 1;

    atomic_store_explicit(&habit->cost, alone ? 0 : SUPPOSED, memory_order_relaxed);
    atomic_store_explicit(&habit->budget, alone ? 0 : SPIN(SUPPOSED), memory_order_relaxed);
}

bool wait_spin(_Atomic int64_t *spinner, struct habit *habit, int64_t since, int64_t until, wait_question *work,
               void *whom)
{
    int64_t cost = atomic_load_explicit(&habit->cost, memory_order_relaxed);
    int64_t budget = atomic_load_explicit(&habit->budget, memory_order_relaxed);
    int64_t now = wait_now();
    int64_t other = atomic_load_explicit(spinner, memory_order_relaxed);
    int64_t mine = since + budget < until ? since + budget : until;

    if (mine <= now || (other > now && other < now + SPIN(DEAREST)))
        return work(whom);
    /* Two that come at once may both spin; that costs processor time once and nothing else. */
    atomic_store_explicit(spinner, mine, memory_order_relaxed);
    do {
        if (work(whom)) {
            atomic_store_explicit(spinner, 0, memory_order_relaxed);
            atomic_store_explicit(&habit->budget, SPIN(cost), memory_order_relaxed);
            return true;
        }
        for (int pauses = 0; pauses < PAUSES; pauses++)
            wait_pause();
    } while (wait_now() < mine);
    if (mine < until) /* else it was cut short and says nothing */
        atomic_store_explicit(&habit->budget, budget / 2 < cost / 8 ? SPIN(cost) : budget / 2, memory_order_relaxed);
    return work(whom);
}

bool wait_anybody(struct bell *bell, _Atomic int64_t *spinner)
{
    return atomic_load_explicit(&bell->asleep, memory_order_seq_cst) != 0 ||
           atomic_load_explicit(spinner, memory_order_relaxed) > wait_now();
}

static void leave(struct bell *bell)
{
    uint32_t asleep = atomic_load_explicit(&bell->asleep, memory_order_relaxed);

    while (asleep != 0 && !atomic_compare_exchange_weak_explicit(&bell->asleep, &asleep, asleep - 1,
                                                                 memory_order_relaxed, memory_order_relaxed))
        continue;
}

static void compare(struct bell *bell, struct habit *habit)
{
    /* Without signs, since what is in the segment may be any number. */
    int64_t took = (int64_t)((uint64_t)wait_now() - (uint64_t)atomic_load_explicit(&bell->woken, memory_order_relaxed));
    int64_t cost = atomic_load_explicit(&habit->cost, memory_order_relaxed);

    if (cost == 0 || took < 0 || took > 10 * DEAREST) /* a single CPU, a foreign clock, or a stopped process */
        return;
    took = took < CHEAPEST ? CHEAPEST : took > DEAREST ? DEAREST : took;
    atomic_store_explicit(&habit->cost, cost + (took - cost) / 8, memory_order_relaxed);
}

static void answer(struct bell *bell, _Atomic uint32_t *answered)
{
    atomic_store_explicit(answered, atomic_load_explicit(&bell->turns, memory_order_relaxed), memory_order_relaxed);
}

bool wait_sleep(struct bell *bell, _Atomic uint32_t *answered, struct habit *habit, int64_t until,
                wait_question *work, void *whom)
{
    uint32_t seen = atomic_load_explicit(&bell->turns, memory_order_acquire);
    uint32_t others = atomic_fetch_add_explicit(&bell->asleep, 1, memory_order_seq_cst);
    int64_t longest;

    if (work(whom)) {
        leave(bell);
        return false;
    }
    longest = until - wait_now();
    if (longest <= 0) {
        leave(bell);
    } else if (wait_on(&bell->turns, seen, longest < WAIT_SLICE ? longest : WAIT_SLICE)) {
        answer(bell, answered);
        compare(bell, habit);
    } else if (errno == EAGAIN) { /* a waker came in between and took this one off */
        answer(bell, answered);
    } else {
        leave(bell);
    }
    return others != 0;
}

void wait_ring(struct bell *bell, uint32_t count)
{
    uint32_t asleep = atomic_load_explicit(&bell->asleep, memory_order_relaxed);
    uint32_t rest;

    do {
        rest = asleep > count ? asleep - count : 0;
    } while (!atomic_compare_exchange_weak_explicit(&bell->asleep, &asleep, rest, memory_order_relaxed,
                                                    memory_order_relaxed));
    atomic_store_explicit(&bell->woken, wait_now(), memory_order_relaxed);
    atomic_fetch_add_explicit(&bell->turns, 1, memory_order_release);
    wait_wake(&bell->turns, count > INT_MAX ? INT_MAX : (int)count);
}

void wait_call(struct bell *bell, const _Atomic uint32_t *answered)
{
    /* Without signs, since what is in the segment may be any number. */
    if (atomic_load_explicit(answered, memory_order_relaxed) ==
            atomic_load_explicit(&bell->turns, memory_order_relaxed) ||
        (uint64_t)wait_now() - (uint64_t)atomic_load_explicit(&bell->woken, memory_order_relaxed) > ON_ITS_WAY)
        wait_ring(bell, 1);
}
