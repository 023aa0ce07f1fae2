/*
 * A lock in shared memory that the kernel releases when its owner dies.
 *
 * Problem. A participant may be killed between any two instructions, also while it holds the lock. The kernel helps:
 * each thread has a robust list (Documentation/locking/robust-futex-ABI.rst), and when a thread ends the kernel walks
 * the list and marks every lock word that holds this thread's id with OWNER_DIED. POSIX offers that as the robust
 * mutex. But a robust mutex links itself into the list with two pointers inside the mutex, and thus in the shared
 * segment, and unlocking writes through them: any process that can write to the segment could make each of its users
 * write to any address. A queue must not trust its segment that far.
 *
 * Layout. One 32-bit word: the owner's thread id, WAITERS if a thread may sleep on it, OWNER_DIED if the kernel
 * released it. The list is not used, only its field `list_op_pending`, which the ABI has for the instants at which a
 * lock is taken or released. It names one lock, and it is in the thread's private memory.
 *
 *     lock:    pending = word;  word: 0 -> id, or OWNER_DIED -> id
 *     unlock:  word: id -> 0;   wake one if WAITERS was set;  pending = nothing
 *
 * Why it is correct. The word holds this thread's id only while `pending` names it, so that a death at any instruction
 * meets one of three cases (handle_futex_death in kernel/futex/core.c). The word holds the id: the kernel sets
 * OWNER_DIED and wakes one waiter. The word holds 0, after the unlock and perhaps before the wake: the kernel wakes one
 * waiter. The word holds the id of another thread: there is nothing to do. If a woken waiter dies, the second case
 * wakes the next one. If a third thread takes the free word in between, the waiters sleep without their mark until the
 * end of a slice, and then set it again.
 *
 * What it gives up. A thread holds one such lock at a time. Thread ids belong to a PID namespace, so a lock works
 * within one. Threads are not served in turn. The OOM killer of a kernel before 5.18 may unmap a
 * process's memory before the kernel reads `pending`, and then the lock stays held. And each process must call
 * `lock_works` once, because some kernels that imitate Linux do not release the lock.
 */
#ifndef IPCQ_LOCK_H
#define IPCQ_LOCK_H

#include <linux/futex.h>
#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

enum lock_result {
    LOCK_TAKEN,
    LOCK_INHERITED, /* taken, after its last owner died while holding it */
    LOCK_BUSY,      /* not taken in time */
};

/* Returns whether this kernel releases the lock of a thread that ends. It is tried once per process; if no thread can
 * be started for that, it only checks whether the kernel supports robust lists. */
bool lock_works(void);

/* Up to this patience, in nanoseconds, calls do not wait for a stopped owner, which may stay stopped for hours. */
#define LOCK_SHORT 100000000

/* The calling thread: its robust list and its id. The id is 0 until both are known. */
struct lock_thread {
    struct robust_list_head *list;
    uint32_t id;
};

/* glibc reserves thread-local space for small variables of libraries that are loaded later. There, an access takes one
 * instruction instead of a call. musl reserves none, and on other processors the default model is as fast. */
#if defined __GLIBC__ && defined __x86_64__
extern _Thread_local struct lock_thread lock_thread __attribute__((tls_model("initial-exec")));
#else
extern _Thread_local struct lock_thread lock_thread;
#endif

/* Compiler fences are enough: the kernel reads this word only when the thread no longer runs. */
static inline void lock_set_pending(struct lock *lock)
{
    struct robust_list_head *list = lock_thread.list;
    uintptr_t entry = lock == NULL ? 0 : (uintptr_t)lock - (uintptr_t)list->futex_offset;

    atomic_signal_fence(memory_order_seq_cst);
    *(struct robust_list *volatile *)&list->list_op_pending = (struct robust_list *)entry;
    atomic_signal_fence(memory_order_seq_cst);
}

/* The slow path of lock_take: the lock is not free, or the thread's id is not known yet. */
enum lock_result lock_take_slowly(struct lock *lock, int64_t patience);

/* Takes the lock, or returns LOCK_BUSY after `patience` nanoseconds; after one millisecond if the patience is short and
 * the owner is stopped. With 0 it retries for some tens of microseconds and makes no system call. */
static inline enum lock_result lock_take(struct lock *lock, int64_t patience)
{
    uint32_t nobody = 0;

    if (lock_thread.id == 0 || atomic_load_explicit(&lock->word, memory_order_relaxed) != nobody)
        return lock_take_slowly(lock, patience);
    lock_set_pending(lock);
    if (atomic_compare_exchange_strong_explicit(&lock->word, &nobody, lock_thread.id, memory_order_acquire,
                                                memory_order_relaxed))
        return LOCK_TAKEN;
    return lock_take_slowly(lock, patience);
}

/* Returns whether its last owner died while holding it, and nobody has taken it since. */
static inline bool lock_abandoned(const struct lock *lock)
{
    return (atomic_load_explicit(&lock->word, memory_order_relaxed) & FUTEX_OWNER_DIED) != 0;
}

/* The id of the thread that owns it, or 0. */
uint32_t lock_owner(const struct lock *lock);
/* Sleeps until it is released, for at most `longest` nanoseconds; returns at once if it is free. */
void lock_await(struct lock *lock, int64_t longest);

/* Wakes a thread that waits for the lock. */
void lock_wake(struct lock *lock);

static inline void lock_give(struct lock *lock)
{
    if (atomic_exchange_explicit(&lock->word, 0, memory_order_release) & FUTEX_WAITERS)
        lock_wake(lock);
    lock_set_pending(NULL);
}

#endif
