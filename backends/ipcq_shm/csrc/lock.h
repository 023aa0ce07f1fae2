/*
 * A lock in shared memory that the kernel releases when its owner dies.
 *
 * Problem. A participant may be killed between any two instructions, also while it holds the lock. The kernel helps:
 * each thread has a robust list (Documentation/locking/robust-futex-ABI.rst), and when a thread ends the kernel looks
 * through it and marks every lock word that holds this thread's id with OWNER_DIED. POSIX offers that as the robust
 * mutex. A robust mutex links itself into the list by two pointers that lie inside the mutex, so in the shared segment,
 * and unlocking writes through them: whoever can write to the segment can make each of its users write anywhere. A
 * queue must not trust its segment that far.
 *
 * Layout. One 32-bit word: the owner's thread id, WAITERS if somebody may sleep on it, OWNER_DIED if the kernel
 * released it. The list is not used, only its field `list_op_pending`, which the ABI has for the instants at which a
 * lock is taken or given back. It names one lock, and it lies in the thread's private memory.
 *
 *     lock:    pending = word;  word: 0 -> id, or OWNER_DIED -> id
 *     unlock:  word: id -> 0;   wake one if WAITERS was set;  pending = nothing
 *
 * Why it is correct. The word holds this thread's id only while `pending` names it, so that a death at any instruction
 * meets one of three cases (handle_futex_death in kernel/futex/core.c). The word holds the id: the kernel sets OWNER_DIED
 * and wakes one waiter. The word holds 0, after the unlock and perhaps before the wake: the kernel wakes one waiter. The
 * word holds somebody else's id: nothing has to be done. A waiter that was woken and dies wakes the next one by the
 * second case. If a third thread takes the free word in between, the waiters sleep without their mark until the end
 * of a slice, and then set it again.
 *
 * What it gives up. A thread holds one such lock at a time. Thread ids are those of a PID namespace, so a lock works
 * within one. Threads are not served in turn. The OOM killer of a kernel before 5.18 may unmap a
 * process's memory before the kernel reads `pending`, and then the lock stays taken. And each process has to call
 * `lock_works` once, because some kernels that imitate Linux do not release the lock.
 */
#ifndef IPCQ_LOCK_H
#define IPCQ_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

enum lock_result {
    LOCK_TAKEN,
    LOCK_INHERITED, /* taken, and its last owner died with it */
    LOCK_BUSY,      /* not taken in time */
};

/* Tells whether this kernel releases the lock of a thread that ends. It is tried once per process; if no thread can be
 * started for that, the kernel is only asked whether it supports robust lists. */
bool lock_works(void);

/* Up to this patience, in nanoseconds, calls do not wait for a stopped owner, which may stay stopped for hours. */
#define LOCK_SHORT 100000000

/* Takes the lock, or tells after `patience` nanoseconds that it is busy. If the patience is short and the owner is stopped
 * it tells so after one millisecond. With 0 it looks for some tens of microseconds and makes no system call. */
enum lock_result lock_take(struct lock *lock, int64_t patience);

/* The id of the thread that owns it, or 0. */
uint32_t lock_owner(const struct lock *lock);
/* Sleeps until it is given back, for `longest` nanoseconds at most; returns at once if nobody owns it. */
void lock_await(struct lock *lock, int64_t longest);

void lock_give(struct lock *lock);

#endif
