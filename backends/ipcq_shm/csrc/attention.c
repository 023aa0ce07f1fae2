#include "attention.h"

#include "clock.h"
#include "condition.h"
#include "doorbell.h"
#include "flavour.h"
#include "notice.h"

/* Producers sleep until a quarter of the queue is free, so that they do not wake for each message. If no producer was
 * woken for so many nanoseconds, one is woken for any free space. This is longer than a fast consumer takes to free a
 * quarter, and too short for a user to notice. */
#define LONGEST_SLEEP 5000000

void attention_note_crowd(struct queue *queue, uint32_t crowd)
{
    if (!(attention_of(queue) & crowd))
        atomic_fetch_or_explicit(&queue->segment->state.attention, crowd, memory_order_relaxed);
}

/* Returns whether a call gives way to the sleepers of an event. Called only after a crowd was noted. */
static bool turn_is_over(struct queue *queue, struct event *event, _Atomic uint32_t *turn, uint32_t crowd,
                         int64_t patience)
{
    if (event_asleep(event) == 0) {
        atomic_fetch_and_explicit(&queue->segment->state.attention, ~crowd, memory_order_relaxed);
        return false;
    }
    if (patience != QUEUE_POLITE || atomic_fetch_add_explicit(turn, 1, memory_order_relaxed) < EVENT_TURN)
        return false;
    atomic_store_explicit(turn, 0, memory_order_relaxed);
    return true;
}

bool attention_get_gives_way(struct queue *queue, int64_t patience)
{
    return turn_is_over(queue, &queue->segment->put.event, &queue->get_turn, ATTEND_GET_CROWD, patience);
}

enum queue_result attention_before_put(struct queue *queue, uint32_t attention, int64_t patience)
{
    if (attention & ATTEND_PUT_CROWD &&
        turn_is_over(queue, &queue->segment->get.event, &queue->put_turn, ATTEND_PUT_CROWD, patience))
        return QUEUE_CROWDED;
    if (attention & ATTEND_DOORBELL && !doorbell_before_put(queue))
        return QUEUE_SYSTEM;
    if (attention & ATTEND_NOTICE)
        notice_before_put(queue);
    return QUEUE_OK;
}

enum queue_result attention_after_get(struct queue *queue, int64_t patience)
{
    enum queue_result there = doorbell_after_get(queue, patience);

    if (there != QUEUE_GONE)
        return there;
    if (patience <= 0)
        return QUEUE_BUSY;
    condition_meet_remover(queue);
    return QUEUE_OK;
}

void attention_call_consumers(struct queue *queue, size_t messages)
{
    struct side *put = &queue->segment->put;

    if (messages == 1)
        event_wake_one(&put->event, &put->answered);
    else
        event_wake(&put->event, messages > UINT32_MAX ? UINT32_MAX : (uint32_t)messages);
}

void attention_call_producers(struct queue *queue)
{
    struct side *get = &queue->segment->get;

    /* Unsigned, since the segment may hold any number. */
    if (queue->flavour->much_is_free(queue) ||
        (uint64_t)clock_now() - (uint64_t)atomic_load_explicit(&get->event.woken, memory_order_relaxed) > LONGEST_SLEEP)
        event_wake_one(&get->event, &get->answered);
}
