/*
 * A queue of messages in shared memory, for any number of producers and consumers in any processes.
 *
 * Problem. Each participant may be killed or stopped between any two instructions, also while it holds a lock. The
 * others must continue, must not lose or duplicate a message of another participant, and must never see half a message.
 * And an attacker may have written anything into the segment: it can damage the queue, but not the private memory of a
 * participant.
 *
 * This file is what the binding and the tests use. A queue comes in two flavours behind one interface (flavour.h): the
 * ring (ring.h), or with priorities or leases the cells (cells.h). queue.c chooses one when it attaches, and does what
 * both have in common. The files, lowest first:
 *
 *     layout                    the bytes that processes share
 *     clock futex               the clock, and the system calls that sleep and wake
 *     lock event                a lock that survives its owner; a futex event, to sleep on
 *     handle flavour            the private state of a participant; the operations of a ring and of cells
 *     participant ending        the participants and which of them are alive; whether the queue has ended
 *     segment side holder       the file; producers and consumers; what blocks them
 *     doorbell notice           notification of participants that do not wait in a call
 *     condition attention       the condition that a call finds, and what it does for others
 *     record ring               the ring
 *     chain heap rebuild cells  the cells
 *     work transition expiry    a change to messages that are leased, delayed or dead; what is due by itself
 *     dead lease                dead letters; leases, above the cells
 *     waiting queue             spinning and sleeping until a call may succeed; this interface
 *     binding                   what the next four share
 *     leasing                   the methods of a queue with leases
 *     channel table module      the extension for CPython
 *
 * Each file includes only files before it in this list, which tests/csan/test_includes.py checks.
 *
 * Locks. Producers have a lock, and consumers another one, or the same (cells). The kernel releases it if the owner
 * dies (lock.h). One store commits: the only step that creates or takes a message. Both flavours explain why a kill at
 * any instruction leaves the queue as before or as after it.
 *
 * A hostile segment. Sizes and limits are those of the private copy, which is checked once. Each number that is read
 * from the segment is read once, and checked before it is used. No wait is longer than its patience.
 *
 * What it gives up. Producers exclude each other, and so do consumers; no order among them is guaranteed. A participant
 * that is stopped while it holds a lock stops its side until it continues; calls of others end in time. A message
 * behind a large one that is still being copied cannot be taken before it, so a stopped producer can make a queue look
 * empty. Bytes are counted with their record's header. A process with write access can always destroy the queue, and
 * kill its users by truncating the file (SIGBUS). Thread ids bind a queue to one PID namespace.
 */
#ifndef IPCQ_QUEUE_H
#define IPCQ_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "handle.h"

/* Becomes a participant. The handle owns the descriptor then, unless it fails. */
enum queue_result queue_attach(struct queue *queue, int descriptor);
/* The same, also if the queue has the version before this one: to drain it. */
enum queue_result queue_attach_old(struct queue *queue, int descriptor);
/* In a forked child: makes the inherited handle a separate participant. If that fails, only queue_detach may follow. */
enum queue_result queue_reattach(struct queue *queue);
void queue_detach(struct queue *queue);
/* Releases, in a forked child, its copy of the parent's handle, without any effect on others. */
void queue_abandon(struct queue *queue);

/*
 * Messages. `patience` is in nanoseconds; with 0 the calls make no system call unless they wake a sleeper, and take no
 * longer than a copy.
 */
enum queue_result queue_put_piece(struct queue *queue, const struct queue_piece *piece, int64_t patience);
enum queue_result queue_put(struct queue *queue, const void *data, size_t size, int64_t patience);
/* Stores as many as there is space for, in one step; `stored` is their number. */
enum queue_result queue_put_many(struct queue *queue, const struct queue_piece *pieces, size_t count, size_t *stored,
                                 int64_t patience);
/* Stores all of them in one step, or none. */
enum queue_result queue_put_all(struct queue *queue, const struct queue_piece *pieces, size_t count, int64_t patience);
/* Stores a message, and drops the oldest ones if it does not fit otherwise; `dropped` is their number. With a ring the two
 * are two steps, so it may be QUEUE_BUSY or QUEUE_DOWN after the first one. */
enum queue_result queue_put_dropping(struct queue *queue, const struct queue_piece *piece, size_t *dropped,
                                     int64_t patience);
/* Takes the next message. QUEUE_COPYING: it is taken, and the caller copies it and calls queue_release. */
enum queue_result queue_get(struct queue *queue, queue_room *room, void *context, struct queue_copy *copy,
                            int64_t patience);
/* The same with the newest message of the highest priority; drops the older ones of that priority in the same step. */
enum queue_result queue_get_latest(struct queue *queue, queue_room *room, void *context, struct queue_copy *copy,
                                   int64_t patience);
void queue_release(struct queue *queue, const struct queue_copy *copy);
/* Takes up to `limit` messages in one step, as long as they are small. QUEUE_COPYING: the next one is large. */
enum queue_result queue_get_many(struct queue *queue, queue_room *room, void *context, size_t limit, size_t *taken,
                                 int64_t patience);
/* Takes up to `limit` messages on loan, with the serial numbers from `serial` on, for `hold` nanoseconds; 0: until this
 * participant leaves. Only of a queue with leases (lease.h). */
enum queue_result queue_lease(struct queue *queue, queue_room *room, void *context, uint64_t serial, int64_t hold,
                              struct queue_lease *leases, size_t limit, size_t *taken, int64_t patience);
enum queue_result queue_peek(struct queue *queue, queue_room *room, void *context, int64_t patience);
/* Drops all messages in one step, and counts them, including those that are still being written. A dead producer's
 * unfinished record is dropped without being counted. QUEUE_BUSY: nothing was dropped. */
enum queue_result queue_clear(struct queue *queue, size_t *count, int64_t patience);
/* Returns whether a message of that size would fit now. */
bool queue_has_space(struct queue *queue, size_t size);
/* Waits until a call of that side with patience 0 would not be busy; false if a lock could not be taken. */
bool queue_settle(struct queue *queue, bool getting, int64_t patience);

enum queue_result queue_shutdown(struct queue *queue, int64_t patience);
/* After a shutdown: drops the messages in the queue, and those of puts that began before. */
void queue_drop(struct queue *queue, int64_t patience);

#endif
