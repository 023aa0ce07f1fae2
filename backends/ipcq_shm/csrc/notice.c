#include "notice.h"

#include <limits.h>

#include "flavour.h"
#include "futex.h"
#include "participant.h"
#include "side.h"

/* How long a registrant waits for a stopped producer, in nanoseconds: an event loop may be blocked meanwhile. */
#define ASK_PATIENCE 50000000

/* The caller holds the producers' lock. */
static void end_request(struct queue *queue)
{
    struct segment_state *state = &queue->segment->state;

    atomic_store_explicit(&state->registrant, 0, memory_order_relaxed);
    atomic_fetch_and_explicit(&state->attention, ~(uint32_t)ATTEND_NOTICE, memory_order_relaxed);
    atomic_fetch_add_explicit(&state->notices, 1, memory_order_release);
    futex_wake(&state->notices, INT_MAX);
}

void notice_before_put(struct queue *queue)
{
    if (side_is_empty(queue) && !event_awaited(&queue->segment->put.event, &queue->segment->get.spinner))
        end_request(queue);
}

enum queue_result notice_ask(struct queue *queue, uint32_t *seen)
{
    struct segment_state *state = &queue->segment->state;
    uint64_t other;
    enum queue_result result = QUEUE_FULL;

    if (!queue->flavour->enter_put(queue, ASK_PATIENCE))
        return QUEUE_BUSY;
    other = atomic_load_explicit(&state->registrant, memory_order_relaxed);
    if (other == 0 || !participant_lives(queue, other)) {
        *seen = atomic_load_explicit(&state->notices, memory_order_acquire);
        atomic_store_explicit(&state->registrant, participant_word(queue, 0), memory_order_relaxed);
        atomic_fetch_or_explicit(&state->attention, ATTEND_NOTICE, memory_order_relaxed);
        result = QUEUE_OK;
    }
    side_leave(&queue->segment->put);
    return result;
}

void notice_cancel(struct queue *queue)
{
    uint64_t own = participant_word(queue, 0);

    if (!queue->flavour->enter_put(queue, ASK_PATIENCE)) {
        /* A stopped process holds the lock: withdraw the registration without it. ATTEND_NOTICE stays set until the
         * next put into the empty queue. */
        atomic_compare_exchange_strong_explicit(&queue->segment->state.registrant, &own, 0, memory_order_relaxed,
                                                memory_order_relaxed);
        return;
    }
    if (atomic_load_explicit(&queue->segment->state.registrant, memory_order_relaxed) == own)
        end_request(queue);
    side_leave(&queue->segment->put);
}

bool notice_given(struct queue *queue, uint32_t seen, int64_t longest)
{
    _Atomic uint32_t *notices = &queue->segment->state.notices;

    if (atomic_load_explicit(notices, memory_order_acquire) == seen)
        futex_wait(notices, seen, longest);
    return atomic_load_explicit(notices, memory_order_acquire) != seen;
}
