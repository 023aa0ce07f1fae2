/*
 * Attention: what a put or a get owes to others besides its message. It wakes sleepers of the other side, gives way to
 * sleepers of its own, and tells those who listen without waiting in a call.
 *
 * The word `state.attention` says whether any of the last two is necessary. While it is 0, a call pays for one load.
 */
#ifndef IPCQ_ATTENTION_H
#define IPCQ_ATTENTION_H

#include <stdbool.h>
#include <stdint.h>

#include "handle.h"

static inline uint32_t attention_of(const struct queue *queue)
{
    return atomic_load_explicit(&queue->segment->state.attention, memory_order_relaxed);
}

/* Notes that several participants of a side sleep; `crowd` is ATTEND_PUT_CROWD or ATTEND_GET_CROWD. */
void attention_note_crowd(struct queue *queue, uint32_t crowd);
/* Tells whether a get, after the crowd was noted, gives way to those who sleep. */
bool attention_get_gives_way(struct queue *queue, int64_t patience);

/* What a put does before it commits, with the producers' lock, if these bits of the attention word are set: it gives way
 * (QUEUE_CROWDED), or tells the listeners (QUEUE_SYSTEM if it cannot). */
enum queue_result attention_before_put(struct queue *queue, uint32_t attention, int64_t patience);
/* What a get does afterwards, without a lock, if a listener is to be told that the queue is empty. QUEUE_OK: look again.
 * QUEUE_BUSY: there seems to be no message, but a producer or a remover is in the way. With patience 0 it waits for
 * nobody. */
enum queue_result attention_after_get(struct queue *queue, int64_t patience);

/* Wakes, after a commit, as many consumers as there are messages for. */
void attention_call_consumers(struct queue *queue, size_t messages);
/* Wakes, after a commit, a producer if there is enough space for it to go on. */
void attention_call_producers(struct queue *queue);

/* Inlined, so that a commit that nobody sleeps for pays for no call. */
static inline void attention_wake_consumers(struct queue *queue, uint32_t asleep, size_t messages)
{
    if (asleep != 0)
        attention_call_consumers(queue, messages);
}

static inline void attention_wake_producers(struct queue *queue, uint32_t asleep)
{
    if (asleep != 0)
        attention_call_producers(queue);
}

#endif
