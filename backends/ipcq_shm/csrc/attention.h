/*
 * Attention: what a put or a get does for other participants. It wakes sleepers of the other side, gives way to
 * sleepers of its own side, and notifies listeners, which do not wait in a call.
 *
 * The word `state.attention` is 0 if the last two are not necessary. Then a call pays for one load.
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
/* Returns whether a get gives way to sleepers. Call it only after the crowd was noted. */
bool attention_get_gives_way(struct queue *queue, int64_t patience);

/* What a put does before it commits, with the producers' lock, if these bits of the attention word are set: it gives
 * way (QUEUE_CROWDED), or notifies the listeners (QUEUE_SYSTEM if it cannot). */
enum queue_result attention_before_put(struct queue *queue, uint32_t attention, int64_t patience);
/* What a get does afterwards, without a lock, if a listener must learn that the queue is empty. QUEUE_OK: look again.
 * QUEUE_BUSY: there seems to be no message, but a producer or a remover is not finished. With patience 0 it does not
 * wait. */
enum queue_result attention_after_get(struct queue *queue, int64_t patience);

/* Wakes, after a commit, as many consumers as there are messages for. */
void attention_call_consumers(struct queue *queue, size_t messages);
/* Wakes, after a commit, a producer if there is enough space for it to continue. */
void attention_call_producers(struct queue *queue);

/* Inlined, so that a commit without sleepers pays for no call. */
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
