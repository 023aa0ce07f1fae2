/*
 * The doorbell: a FIFO that event loops poll.
 *
 * The FIFO is in the same directory as the queue's file, and every participant opens it for reading and writing. It
 * holds a byte while the queue is not empty, and also once the queue has ended: shut down, or without its name. Without
 * listeners, a put pays only for reading `state.attention`.
 *
 * The byte changes only under the producers' lock. A producer writes the byte before it commits its message, so its
 * death in between leaves a byte too many and never one too few. A consumer that emptied the queue, or found it empty,
 * takes the byte away if the queue is still empty; that also repairs the state that a dead consumer left. It waits for
 * the producers' lock, and so finds the message of a producer that is committing. Each handle that armed the doorbell
 * holds a kernel lock on a byte of the file; from time to time a producer checks whether any handle does.
 *
 * At the end the byte stays. A shutdown rings before it marks the queue as shut down, under the same lock. A remover of
 * the name rings before and after, and a consumer that took the byte in between puts it back (doorbell.c has the
 * argument). A handle that continues without the name takes the byte away if no listener ends with the name. Removing
 * the file by other means, as `rm` does, rings nothing: the first participant that notices in a call rings.
 *
 * The FIFO is removed with the queue's name. A remover of the name removes the FIFO first, and again afterwards if it
 * was created in between; a creator of the FIFO checks afterwards that the queue still has its name.
 *
 * A queue that never had a name has no path for a FIFO either. Its creator makes a FIFO without a name and passes its
 * descriptor on together with the queue's.
 *
 * What it gives up: with a doorbell, a put into an empty queue costs three system calls. On a queue that lost its name
 * the doorbell works for handles that had opened it before; it cannot be created any more.
 */
#ifndef IPCQ_DOORBELL_H
#define IPCQ_DOORBELL_H

#include <stdbool.h>
#include <stdint.h>

#include "handle.h"

/* Opens the doorbell, for as long as the handle is attached; QUEUE_SYSTEM with errno if that fails, QUEUE_GONE if the
 * queue has no name and no doorbell was created before. */
enum queue_result doorbell_arm(struct queue *queue);
void doorbell_disarm(struct queue *queue);
/* Takes this FIFO as the doorbell of a queue that never had a name; false, with errno, if it is not one. */
bool doorbell_adopt(struct queue *queue, int descriptor);

/* For a producer that holds its lock and is about to commit, if ATTEND_DOORBELL is set. False, with errno, if there is
 * no file descriptor for the doorbell: do not commit then, or pollers would miss the message. */
bool doorbell_before_put(struct queue *queue);
/* For a consumer that may have emptied the queue, without a lock: takes the byte away if the queue is empty.
 * QUEUE_OK: look again, for a message or the end. QUEUE_EMPTY: the byte is gone. QUEUE_BUSY: a producer holds the lock,
 * and the byte stays, so that pollers look again. QUEUE_GONE: the same, because the queue ends or loses its name. */
enum queue_result doorbell_after_get(struct queue *queue, int64_t patience);
/* Rings permanently, because the queue ends; `entered` says that the caller holds the producers' lock. False, with
 * errno, if it could not: do not mark the queue as ended then. */
bool doorbell_ring_for_good(struct queue *queue, bool entered);

#endif
