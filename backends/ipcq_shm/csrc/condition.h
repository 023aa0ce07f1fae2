/* The condition of a queue, as a call finds it: open, shut down, or gone with its name. */
#ifndef IPCQ_CONDITION_H
#define IPCQ_CONDITION_H

#include "clock.h"
#include "handle.h"

/* How long a handle goes without checking that its file has a name, in nanoseconds. */
#define CONDITION_LOOK_EVERY 200000000

/* Checks whether the file has its name. A file that never had one is not gone. */
void condition_look(struct queue *queue);

/* QUEUE_OK, QUEUE_DOWN or QUEUE_GONE. */
static inline enum queue_result condition_of(struct queue *queue)
{
    struct segment_state *state = &queue->segment->state;

    if (clock_now_coarse() - atomic_load_explicit(&queue->looked, memory_order_relaxed) > CONDITION_LOOK_EVERY)
        condition_look(queue);
    if (!queue->stays && atomic_load_explicit(&state->unlinked, memory_order_acquire))
        return QUEUE_GONE;
    return atomic_load_explicit(&state->down, memory_order_acquire) ? QUEUE_DOWN : QUEUE_OK;
}

/* Waits for a remover that has rung the doorbell but not yet noted the removal, and checks what it did. */
void condition_meet_remover(struct queue *queue);

#endif
