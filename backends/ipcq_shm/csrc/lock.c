#include "lock.h"

#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "futex.h"

/* How often a held lock is read before it counts as busy. Most owners hold it for a few hundred instructions, but each
 * read takes the cache line away from the owner. So reads become rarer, up to some microseconds apart, in which the
 * owner completes many calls. With four producers, more than twice as many messages pass as with reads
 * without pauses. */
#define LOOKS 20
#define MOST_PAUSES 256
/* A waiter whose WAITERS mark was lost checks again after this time, in nanoseconds. */
#define SLICE 20000000
/* How long a waiter waits before it checks whether the owner is stopped, in nanoseconds. */
#define STOPPED_AFTER 1000000

_Thread_local struct lock_thread lock_thread;

static void forget_thread(void)
{
    lock_thread.id = 0; /* the child's only thread has another id than the one that forked */
}

static void forget_at_fork(void)
{
    pthread_atfork(NULL, NULL, forget_thread);
}

static bool find_list(void)
{
    size_t size;

    return syscall(SYS_get_robust_list, 0, &lock_thread.list, &size) == 0 && lock_thread.list != NULL;
}

/* musl registers a thread's robust list when the thread takes its first robust, process-shared mutex. */
static void have_list_made(void)
{
    pthread_mutex_t mutex;
    pthread_mutexattr_t robust;

    pthread_mutexattr_init(&robust);
    pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&robust, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&mutex, &robust);
    if (pthread_mutex_lock(&mutex) == 0)
        pthread_mutex_unlock(&mutex);
    pthread_mutex_destroy(&mutex);
    pthread_mutexattr_destroy(&robust);
}

static void learn_thread(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, forget_at_fork);
    if (!find_list())
        have_list_made();
    if (find_list())
        lock_thread.id = (uint32_t)syscall(SYS_gettid);
}

static inline bool grab(struct lock *lock, uint32_t marks, enum lock_result *result)
{
    uint32_t found = atomic_load_explicit(&lock->word, memory_order_relaxed);

    if (found & FUTEX_TID_MASK)
        return false;
    *result = found & FUTEX_OWNER_DIED ? LOCK_INHERITED : LOCK_TAKEN;
    marks |= lock_thread.id | (found & FUTEX_WAITERS);
    return atomic_compare_exchange_strong_explicit(&lock->word, &found, marks, memory_order_acquire,
                                                   memory_order_relaxed);
}

/* Returns whether a thread is stopped, by a signal or a debugger (proc(5), stat). A thread in any other state continues
 * by itself. */
static bool is_stopped(uint32_t id)
{
    char path[32], stat[512];
    const char *state;
    ssize_t size;
    int descriptor;

    snprintf(path, sizeof path, "/proc/%u/stat", id);
    descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return false;
    size = read(descriptor, stat, sizeof stat - 1);
    close(descriptor);
    if (size <= 0)
        return false;
    stat[size] = '\0';
    state = strrchr(stat, ')'); /* the name before it may contain anything */
    return state != NULL && state[1] == ' ' && (state[2] == 'T' || state[2] == 't');
}

/* Sleeps until a busy lock is released. `found` is its word. */
static void sleep_for(struct lock *lock, uint32_t found, int64_t longest)
{
    if (!(found & FUTEX_WAITERS) &&
        !atomic_compare_exchange_strong_explicit(&lock->word, &found, found | FUTEX_WAITERS, memory_order_relaxed,
                                                 memory_order_relaxed))
        return;
    futex_wait(&lock->word, found | FUTEX_WAITERS, longest);
}

static int64_t least(int64_t one, int64_t other)
{
    return one < other ? one : other;
}

static enum lock_result take_in_time(struct lock *lock, int64_t patience)
{
    enum lock_result result = LOCK_BUSY;
    int64_t since = 0;

    for (int looks = 0, pauses = 1; looks < LOOKS; looks++) {
        for (int left = pauses; left > 0; left--)
            futex_pause();
        if (grab(lock, 0, &result))
            return result;
        pauses = pauses < MOST_PAUSES ? 2 * pauses : MOST_PAUSES;
    }
    while (patience > 0) {
        int64_t now = clock_now();
        uint32_t found = atomic_load_explicit(&lock->word, memory_order_relaxed);
        uint32_t owner = found & FUTEX_TID_MASK;

        if (since == 0)
            since = now;
        if (now - since >= patience)
            break;
        if (owner == 0) {
            /* Others may sleep too, and the last owner has woken only one. */
            if (grab(lock, FUTEX_WAITERS, &result))
                return result;
            continue;
        }
        if (patience <= LOCK_SHORT && now - since >= STOPPED_AFTER && is_stopped(owner) && lock_owner(lock) == owner)
            break;
        sleep_for(lock, found, least(now - since < STOPPED_AFTER ? STOPPED_AFTER : SLICE, since + patience - now));
    }
    return LOCK_BUSY;
}

enum lock_result lock_take_slowly(struct lock *lock, int64_t patience)
{
    enum lock_result result = LOCK_BUSY;

    if (lock_thread.id == 0) {
        learn_thread();
        if (lock_thread.id == 0)
            return LOCK_BUSY;
    }
    lock_set_pending(lock);
    if (grab(lock, 0, &result))
        return result;
    result = take_in_time(lock, patience);
    if (result == LOCK_BUSY)
        lock_set_pending(NULL);
    return result;
}

uint32_t lock_owner(const struct lock *lock)
{
    return atomic_load_explicit(&lock->word, memory_order_relaxed) & FUTEX_TID_MASK;
}

void lock_await(struct lock *lock, int64_t longest)
{
    uint32_t found = atomic_load_explicit(&lock->word, memory_order_relaxed);

    /* The owner wakes one sleeper, perhaps this thread, which does not take the lock. So it wakes the next sleeper. */
    if (found & FUTEX_TID_MASK && longest > 0) {
        sleep_for(lock, found, least(longest, SLICE));
        if (lock_owner(lock) == 0)
            futex_wake(&lock->word, 1);
    }
}

void lock_wake(struct lock *lock)
{
    futex_wake(&lock->word, 1);
}

enum lock_trial {
    LOCK_UNTRIED, /* no thread could be started */
    LOCK_FAILS,
    LOCK_WORKS,
};

static void *take_and_end(void *lock)
{
    return lock_take(lock, 0) == LOCK_TAKEN ? lock : NULL;
}

static enum lock_trial try_it(void)
{
    struct lock scratch = {0};
    pthread_t owner;
    void *taken = NULL;

    if (pthread_create(&owner, NULL, take_and_end, &scratch) != 0)
        return LOCK_UNTRIED;
    pthread_join(owner, &taken);
    if (taken == NULL || lock_take(&scratch, 0) != LOCK_INHERITED)
        return LOCK_FAILS;
    lock_give(&scratch);
    return LOCK_WORKS;
}

/* Checks whether the kernel has robust lists. Kernels that imitate Linux accept the call without supporting them. */
static enum lock_trial ask(void)
{
    if (lock_thread.id == 0)
        learn_thread();
    return lock_thread.id == 0 ? LOCK_FAILS : LOCK_WORKS;
}

bool lock_works(void)
{
    static _Atomic int known = LOCK_UNTRIED; /* two threads may both run the trial; that does no harm */

    if (known == LOCK_UNTRIED)
        known = (int)try_it();
    /* Other processes may be able to start a thread, so a failure here must not change which backend is chosen. */
    return (known == LOCK_UNTRIED ? ask() : (enum lock_trial)known) == LOCK_WORKS;
}
