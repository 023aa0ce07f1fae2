/*
 * The end of a queue: it was shut down, or its name was removed. This file only reads the end from the segment and the
 * file; condition.h detects it in a call, and queue_shutdown causes it.
 */
#ifndef IPCQ_ENDING_H
#define IPCQ_ENDING_H

#include <stdbool.h>
#include <stdint.h>

#include "handle.h"

/* Returns whether the queue was shut down and its messages were dropped; never with leases, where dead letters stay. */
static inline bool ending_dropped(const struct queue *queue)
{
    return (atomic_load_explicit(&queue->segment->state.down, memory_order_acquire) & DOWN_DROPPED) != 0 &&
           !(queue->flags & FLAG_LEASES);
}

/* Returns whether the segment says that the queue has ended for this handle. */
static inline bool ending_for_handle(const struct queue *queue)
{
    const struct segment_state *state = &queue->segment->state;

    return atomic_load_explicit(&state->down, memory_order_seq_cst) & queue->over ||
           (!queue->stays && atomic_load_explicit(&state->unlinked, memory_order_relaxed));
}

/* Returns whether the segment says that this handle's puts are refused: with leases earlier than gets. */
static inline bool ending_for_puts(const struct queue *queue)
{
    return atomic_load_explicit(&queue->segment->state.down, memory_order_seq_cst) != 0 || ending_for_handle(queue);
}

/* Returns whether the segment says that the queue has ended for any handle that listens to the doorbell. */
bool ending_for_listeners(const struct queue *queue);
/* The same, and also whether the name is removed or being removed, which the segment may not say yet. */
bool ending_soon_for_listeners(const struct queue *queue);
/* Returns whether the file has no name. */
bool ending_nameless(const struct queue *queue);

#endif
