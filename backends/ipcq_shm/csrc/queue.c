#include "queue.h"

#include <errno.h>
#include <unistd.h>

#include "attention.h"
#include "cells.h"
#include "clock.h"
#include "condition.h"
#include "doorbell.h"
#include "ending.h"
#include "lease.h"
#include "participant.h"
#include "ring.h"
#include "segment.h"
#include "side.h"

/* How long a participant that leaves waits for the lock to release its leases, in nanoseconds; otherwise they come back
 * as those of a dead one do. */
#define LEAVE_PATIENCE 50000000

/* Opening */

static enum queue_result attach(struct queue *queue, int descriptor, uint32_t oldest)
{
    enum queue_result result = segment_open(queue, descriptor, oldest);

    if (result != QUEUE_OK)
        return result;
    queue->flavour = queue->flags & FLAG_LEASES ? &lease_flavour
                     : layout_has_cells(queue->flags) ? &cells_flavour
                                                      : &ring_flavour;
    event_learn(&queue->reading);
    event_learn(&queue->writing);
    result = participant_join(queue);
    if (result != QUEUE_OK) {
        int reason = errno;

        segment_unmap(queue);
        errno = reason;
        return result;
    }
    condition_look(queue);
    return QUEUE_OK;
}

enum queue_result queue_attach(struct queue *queue, int descriptor)
{
    return attach(queue, descriptor, LAYOUT_VERSION);
}

enum queue_result queue_attach_old(struct queue *queue, int descriptor)
{
    return attach(queue, descriptor, LAYOUT_OLDEST);
}

enum queue_result queue_reattach(struct queue *queue)
{
    enum queue_result result;

    queue->armed = false; /* the parent armed it, not this handle; also if this fails */
    queue->holds = false; /* likewise */
    result = segment_reopen(queue);
    return result == QUEUE_OK ? participant_join(queue) : result;
}

void queue_abandon(struct queue *queue)
{
    if (queue->doorbell >= 0)
        close(queue->doorbell);
    segment_close(queue);
}

void queue_detach(struct queue *queue)
{
    if (queue->flags & FLAG_LEASES)
        lease_release_all(queue, LEAVE_PATIENCE);
    doorbell_disarm(queue);
    segment_close(queue);
}

/* Putting */

static bool reclaim(struct queue *queue)
{
    return queue->flavour->reclaim != NULL && queue->flavour->reclaim(queue);
}

enum queue_result queue_put_piece(struct queue *queue, const struct queue_piece *piece, int64_t patience)
{
    enum queue_result result = condition_of(queue);

    if (result == QUEUE_OK)
        result = queue->flavour->put(queue, piece, patience);
    if (result == QUEUE_FULL && reclaim(queue))
        result = queue->flavour->put(queue, piece, patience);
    return result;
}

enum queue_result queue_put(struct queue *queue, const void *data, size_t size, int64_t patience)
{
    return queue_put_piece(queue, &(struct queue_piece){.data = data, .size = size}, patience);
}

static enum queue_result put_batch(struct queue *queue, const struct queue_piece *pieces, size_t count, bool whole,
                                   size_t *stored, int64_t patience)
{
    enum queue_result result;

    *stored = 0;
    if (count == 1) {
        result = queue_put_piece(queue, pieces, patience);
        *stored = result == QUEUE_OK;
        return result;
    }
    result = condition_of(queue);
    if (result == QUEUE_OK)
        result = queue->flavour->put_many(queue, pieces, count, whole, stored, patience);
    if (result == QUEUE_FULL && reclaim(queue))
        result = queue->flavour->put_many(queue, pieces, count, whole, stored, patience);
    return result;
}

enum queue_result queue_put_many(struct queue *queue, const struct queue_piece *pieces, size_t count, size_t *stored,
                                 int64_t patience)
{
    return put_batch(queue, pieces, count, false, stored, patience);
}

enum queue_result queue_put_all(struct queue *queue, const struct queue_piece *pieces, size_t count, int64_t patience)
{
    size_t stored;

    return put_batch(queue, pieces, count, true, &stored, patience);
}

enum queue_result queue_put_dropping(struct queue *queue, const struct queue_piece *piece, size_t *dropped,
                                     int64_t patience)
{
    enum queue_result result = condition_of(queue);

    *dropped = 0;
    return result == QUEUE_OK ? queue->flavour->put_dropping(queue, piece, dropped, patience) : result;
}

/* Getting */

/* Checks what a get can know before it takes the lock: QUEUE_OK, or the result of the get. */
static inline enum queue_result before_get(struct queue *queue)
{
    enum queue_result result = condition_of(queue);
    uint64_t position;

    if (result == QUEUE_GONE || (result == QUEUE_DOWN && ending_dropped(queue)))
        return result;
    /* After the condition: a consumer that sees a shutdown also sees the messages that were put before it. Producers
     * write their position all the time, so reading it is expensive, and done only if the cached one does not
     * suffice. */
    if (queue->flavour->before_get != NULL)
        return queue->flavour->before_get(queue);
    position = word_load(&queue->segment->get.position);
    if ((!queue->flavour->one_lock && word_peek(&queue->segment->get.seen_position) != position) ||
        word_load(&queue->segment->put.position) != position)
        return QUEUE_OK;
    return result == QUEUE_DOWN ? QUEUE_DOWN : QUEUE_EMPTY;
}

/* Retries while the queue is busy and patience is left. */
static enum queue_result take_slowly(struct queue *queue, flavour_take *act, const struct taking *taking,
                                     int64_t patience)
{
    int64_t until = patience > 0 ? clock_now() + patience : 0;
    bool again = false;

    for (;;) {
        uint32_t attention = attention_of(queue);
        enum queue_result result = before_get(queue);

        if (attention & ATTEND_GET_CROWD && result == QUEUE_OK && attention_get_gives_way(queue, patience))
            return QUEUE_CROWDED;
        if (result == QUEUE_OK)
            result = act(queue, taking, patience);
        if (attention & ATTEND_LISTENERS) {
            enum queue_result there = attention_after_get(queue, patience);

            /* The doorbell rings before the commit: a consumer that it woke waits for the producer and looks again. */
            if (result == QUEUE_EMPTY && there == QUEUE_OK && !again) {
                again = true;
                continue;
            }
            /* Without patience the caller waits for the producer, and does so without the GIL. */
            if (result == QUEUE_EMPTY && there == QUEUE_BUSY && patience <= 0)
                return QUEUE_BUSY;
        }
        if (result != QUEUE_BUSY || patience <= 0 || clock_now() >= until)
            return result;
        if (queue->flavour->settle != NULL)
            queue->flavour->settle(queue, until);
    }
}

/* The fast path: without patience there is no retry, and attention is rarely needed. */
static inline enum queue_result take(struct queue *queue, flavour_take *act, const struct taking *taking,
                                     int64_t patience)
{
    enum queue_result result;

    if (patience > 0 || attention_of(queue) != 0)
        return take_slowly(queue, act, taking, patience);
    result = before_get(queue);
    return result == QUEUE_OK ? act(queue, taking, patience) : result;
}

enum queue_result queue_get(struct queue *queue, queue_room *room, void *context, struct queue_copy *copy,
                            int64_t patience)
{
    return take(queue, queue->flavour->get, &(struct taking){.room = room, .context = context, .copy = copy}, patience);
}

enum queue_result queue_get_latest(struct queue *queue, queue_room *room, void *context, struct queue_copy *copy,
                                   int64_t patience)
{
    return take(queue, queue->flavour->get_latest,
                &(struct taking){.room = room, .context = context, .copy = copy}, patience);
}

enum queue_result queue_get_many(struct queue *queue, queue_room *room, void *context, size_t limit, size_t *taken,
                                 int64_t patience)
{
    struct taking taking = {.room = room, .context = context, .limit = limit, .taken = taken};

    *taken = 0;
    return take(queue, queue->flavour->get_many, &taking, patience);
}

enum queue_result queue_lease(struct queue *queue, queue_room *room, void *context, uint64_t serial, int64_t hold,
                              struct queue_lease *leases, size_t limit, size_t *taken, int64_t patience)
{
    struct taking taking = {.room = room,
                            .context = context,
                            .limit = limit,
                            .taken = taken,
                            .serial = serial,
                            .hold = hold,
                            .leases = leases};

    *taken = 0;
    return take(queue, queue->flavour->lease, &taking, patience);
}

enum queue_result queue_peek(struct queue *queue, queue_room *room, void *context, int64_t patience)
{
    return take(queue, queue->flavour->peek, &(struct taking){.room = room, .context = context}, patience);
}

void queue_release(struct queue *queue, const struct queue_copy *copy)
{
    queue->flavour->release(queue, copy);
}

/* Like `take`, but also on a queue whose messages were dropped by a shutdown. */
enum queue_result queue_clear(struct queue *queue, size_t *count, int64_t patience)
{
    enum queue_result result = condition_of(queue);
    uint64_t position = word_load(&queue->segment->get.position);

    *count = 0;
    if (result == QUEUE_GONE)
        return result;
    if (word_load(&queue->segment->put.position) == position)
        return QUEUE_EMPTY;
    result = queue->flavour->clear(queue, count, patience);
    if (result != QUEUE_BUSY && attention_of(queue) & ATTEND_LISTENERS)
        attention_after_get(queue, patience);
    return result;
}

/* Reading */

bool queue_has_space(struct queue *queue, size_t size)
{
    return queue->flavour->has_space(queue, size);
}

bool queue_settle(struct queue *queue, bool getting, int64_t patience)
{
    int64_t until = clock_now() + patience;
    bool empty = side_is_empty(queue);

    if (getting && empty && attention_of(queue) & ATTEND_LISTENERS)
        return attention_after_get(queue, patience) != QUEUE_BUSY;
    if (getting && !empty && queue->flavour->settle != NULL)
        return queue->flavour->settle(queue, until);
    if (!queue->flavour->enter_put(queue, patience))
        return false;
    side_leave(&queue->segment->put);
    return true;
}

/* The end */

void queue_drop(struct queue *queue, int64_t patience)
{
    size_t count;

    atomic_fetch_or_explicit(&queue->segment->state.down, DOWN_DROPPED, memory_order_seq_cst);
    if (queue->flags & FLAG_LEASES) {
        lease_look(queue, patience);
        return;
    }
    queue_clear(queue, &count, patience); /* frees the space; even if it cannot, get returns nothing */
}

enum queue_result queue_shutdown(struct queue *queue, int64_t patience)
{
    struct segment *segment = queue->segment;
    enum queue_result result = condition_of(queue);
    bool entered;

    if (result == QUEUE_GONE)
        return result;
    /* A producer that is stopped while it holds the lock must not keep the queue open. If it puts a message when it
     * continues, that message can be taken. */
    entered = queue->flavour->enter_put(queue, patience);
    /* Before the store below, so that a kill in between leaves a byte too many and never one too few. With leases the
     * end may come later; the participant that takes the last message rings then. */
    if (!(queue->flags & FLAG_LEASES) && !doorbell_ring_for_good(queue, entered)) {
        int reason = errno;

        if (entered)
            side_leave(&segment->put);
        errno = reason;
        return QUEUE_SYSTEM;
    }
    atomic_fetch_or_explicit(&segment->state.down, DOWN_ENDED, memory_order_seq_cst);
    if (entered)
        side_leave(&segment->put);
    if (queue->flags & FLAG_LEASES)
        lease_look(queue, patience);
    else if (!entered)
        doorbell_ring_for_good(queue, false); /* again: the stopped owner of the lock may have taken the byte */
    event_wake(&segment->put.event, UINT32_MAX);
    event_wake(&segment->get.event, UINT32_MAX);
    return QUEUE_OK;
}
