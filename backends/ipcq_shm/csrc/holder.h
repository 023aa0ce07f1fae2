/* Holders: the participant that blocks a side, because it holds the lock or has not finished the next message. */
#ifndef IPCQ_HOLDER_H
#define IPCQ_HOLDER_H

#include <stdbool.h>
#include <stdint.h>

#include "handle.h"

struct holder {
    uint32_t thread; /* id of the thread that owns the lock, or 0 */
    int64_t since;   /* when it was first seen to block, CLOCK_MONOTONIC, ns; 0 if no participant has waited for it */
    int32_t writer;  /* if the lock is free: the slot of the producer that has not finished the next message, or -1 */
};

struct holder holder_find(struct queue *queue, bool getting);

/* Called after a wait in vain for the side's lock: records its owner in the segment, and since when. */
void holder_note(struct queue *queue, struct side *side);
/* The same if the lock is free, but a live producer has not finished the next message. */
void holder_note_writer(struct side *get);

/* Returns, once, whether the last call of the side waited in vain for its lock. Then a retry is useless until
 * holder_await returns: when the lock is released, at `until`, or after a slice. */
bool holder_found_busy(struct queue *queue, bool getting);
/* Returns the same, but leaves it for the next call of holder_found_busy. */
bool holder_seems_busy(struct queue *queue, bool getting);
void holder_await(struct queue *queue, bool getting, int64_t until);

#endif
