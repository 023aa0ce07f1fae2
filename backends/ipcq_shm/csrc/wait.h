/*
 * Waiting for another process: the futex calls, the clock, and the bell that one side of a queue rings for the other.
 *
 * A side that finds nothing to do spins for about as long as a wake-up costs, so that it never pays more than twice
 * what was best in hindsight, and then sleeps in the kernel. The other side makes no system call unless somebody
 * sleeps.
 *
 * Sleeping and waking.
 *
 *     sleeper:  seen = turns;  asleep += 1;  is there work? -- no: FUTEX_WAIT(turns, seen)
 *     waker:    make work;     asleep > 0?  -- yes: asleep -= 1, turns += 1, FUTEX_WAKE(turns)
 *
 * "make work", `asleep` and "is there work?" are sequentially consistent, so either the waker sees the sleeper or the
 * sleeper sees the work. The waker takes the sleeper off the count, because the sleeper runs again only 50 microseconds
 * later and every message in between would cost a futile system call. A sleeper that ends by itself takes itself off.
 *
 * One wake-up at a time. A waker wakes one sleeper, and no other before that one has answered: it may take all the work,
 * and the others would wake for nothing. The woken sleeper answers as soon as it runs. When it has got on and there is more
 * to do, it wakes the next. If it does not answer within a millisecond, because it died or was stopped, the next waker
 * wakes another, and a sleeper looks by itself at the end of its slice.
 *
 * Turns. The kernel wakes sleepers in the order in which they fell asleep. But a running participant gets on before one
 * that was just woken, so among many some would never get on. So a participant that got on TURN times while two or more
 * slept gives way: it wakes one and goes to sleep behind all others. Calls that must not wait do not give way.
 *
 * Nothing rests on the count. If it is too high, because a sleeper died or because two took off the same one, a waker
 * makes one call for nothing and it is right again. If it is too low, or a waker died before its call, a sleeper sleeps
 * on until the end of its slice of at most 100 ms, and looks.
 *
 * Spinning. `budget` is what a wake-up costs on this host, which sleepers learn: a waker writes down when it wakes, and
 * the woken one compares. It is halved for each spin that found nothing and restored by one that did; it is nothing
 * on a single CPU. One side of a queue has at most one spinner: `spinner` holds the instant at which its time is
 * over, so the mark of a spinner that died is void by itself. It stands among the words that its own side writes, and not
 * in the bell, because the other side would have to fetch the bell's line back for every message.
 */
#ifndef IPCQ_WAIT_H
#define IPCQ_WAIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Longest sleep without looking around, in nanoseconds. */
#define WAIT_SLICE 100000000

/* In shared memory, beside the word that the side at work publishes. */
struct bell {
    _Atomic uint32_t asleep;
    _Atomic uint32_t turns;
    _Atomic int64_t woken;   /* CLOCK_MONOTONIC, ns */
};

/* How often a participant gets on before it gives way to those who sleep. A turn has to last longer than the two system
 * calls that end it, and 64 turns less than the 100 ms in which everybody is to get on. */
#define TURN 256

/* What one handle has learned. */
struct habit {
    _Atomic int64_t cost;   /* of a wake-up, ns */
    _Atomic int64_t budget; /* of the next spin, ns */
};

typedef bool wait_question(void *whom);

int64_t wait_now(void);

static inline void wait_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory"); /* yield takes one cycle; isb takes as long as x86's pause */
#elif defined(__riscv)
    __asm__ volatile(".4byte 0x0100000f" ::: "memory"); /* pause (Zihintpause), a fence that does nothing elsewhere */
#elif defined(__powerpc__)
    __asm__ volatile("or 27,27,27" ::: "memory"); /* yield (Power ISA, book II, 3.2) */
#else
    __asm__ volatile("" ::: "memory"); /* s390x and others have no such hint; the loop must stay a loop */
#endif
}

/* FUTEX_WAIT and FUTEX_WAKE; the first returns false if it ended without being woken. */
bool wait_on(_Atomic uint32_t *word, uint32_t seen, int64_t longest);
void wait_wake(_Atomic uint32_t *word, int count);

void wait_learn(struct habit *habit);

/* Spins until there is work or the budget, counted from `since`, is used up. Returns whether there is work. */
bool wait_spin(_Atomic int64_t *spinner, struct habit *habit, int64_t since, int64_t until, wait_question *work,
               void *whom);

/* Sleeps until there may be work, a signal came, or `until`. Returns whether others slept already. */
bool wait_sleep(struct bell *bell, _Atomic uint32_t *answered, struct habit *habit, int64_t until,
                wait_question *work, void *whom);

/* Tells whether anybody spins or sleeps, as far as the marks know. */
bool wait_anybody(struct bell *bell, _Atomic int64_t *spinner);

/* Wakes up to `count` sleepers. To be called after making work where `asleep` was not 0. */
void wait_ring(struct bell *bell, uint32_t count);
/* Wakes one sleeper, unless the last one that was woken has not answered yet: that one will wake the next. */
void wait_call(struct bell *bell, const _Atomic uint32_t *answered);

#endif
