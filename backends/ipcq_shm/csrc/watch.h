/*
 * Telling those who do not wait in a call: a descriptor for event loops, and a notice for who asked for one.
 *
 * Both are rare, and cost those who put nothing but a look at one word, `state.watch`, that says whether anybody wants to
 * be told.
 *
 * The doorbell is a FIFO beside the queue's file that everybody opens for reading and writing, and that holds a byte
 * while the queue is not empty, and also once it has ended: shut down, or without its name. All changes of the byte happen
 * under the producers' lock. A producer writes the byte before it commits its message, so that its death in between leaves
 * a byte too many and never one too few. A consumer that emptied the queue, or found it empty, takes the byte away if the
 * queue is still empty, which also repairs what a consumer left that died on the way. It waits for the producer's lock, and
 * then finds the producer's message. Each handle that armed the doorbell holds a kernel lock on a byte of the file; from
 * time to time a producer checks whether any handle does.
 *
 * At the end the byte stays. A shutdown rings before it marks the queue as shut down, under the same lock. A remover of the
 * name rings before and after, and a consumer that took the byte in between puts it back (watch.c has the argument). A
 * handle that goes on without the name takes the byte away if no listener ends with the name. Removing the file by other
 * means, as `rm` does, rings nothing: the first participant that notices in a call rings.
 *
 * A notice is given once, when a message comes into an empty queue and nobody waits in a get. The registrant sleeps on
 * the word `state.notices`, which the producer raises before it commits; the same word tells it that the request was
 * taken back. A dead registrant's place can be taken.
 *
 * The FIFO goes with the queue's name: who removes that removes this before and, where it was made in between, after;
 * and who makes it looks afterwards whether the queue has its name still.
 *
 * A queue that never had a name has no place for a FIFO either. It gets one that has no name, from its creator, and who
 * is handed the queue is handed that as well.
 *
 * What it gives up: with a doorbell, a put into an empty queue costs three system calls. On a queue that lost its name
 * the doorbell works for those who had it open before, and cannot be made.
 */
#ifndef IPCQ_WATCH_H
#define IPCQ_WATCH_H

#include "ring.h"

/* For a producer that is about to commit, with its lock. False, with errno, where it has no descriptor to spare for the
 * doorbell: then it must not commit, since who sleeps on the doorbell would sleep on. */
bool watch_before_put(struct ring *ring);
/* For a consumer that may have left the queue empty, without a lock: takes the byte away if it did. RING_OK: look again,
 * for a message or the end. RING_BUSY: there seems to be no message, but a producer or a remover is in the way, and the
 * byte stays, so that pollers look again. With patience 0 it waits for nobody. */
enum ring_result watch_after_get(struct ring *ring, int64_t patience);
/* Rings for good, because the queue ends; `entered` says that the producers' lock is held. False, with errno, if it could
 * not: then the queue must not be marked as ended. */
bool watch_end(struct ring *ring, bool entered);

/* Open the doorbell, for as long as the ring is attached; RING_SYSTEM with errno where that fails, RING_GONE where the
 * queue has no name and none was made before. */
enum ring_result watch_arm(struct ring *ring);
void watch_disarm(struct ring *ring);
/* Take this FIFO as the doorbell of a queue that never had a name; false, with errno, where it is none. */
bool watch_adopt(struct ring *ring, int descriptor);

/* Ask for a notice; RING_FULL if another living participant has asked, RING_BUSY if a stopped process holds the lock.
 * `seen` is for watch_told. */
enum ring_result watch_ask(struct ring *ring, uint32_t *seen);
void watch_cancel(struct ring *ring);
/* Sleeps up to `longest` ns and returns whether the request has ended. */
bool watch_told(struct ring *ring, uint32_t seen, int64_t longest);

#endif
