#include "lease.h"

#include "attention.h"
#include "cells.h"
#include "clock.h"
#include "condition.h"
#include "expiry.h"
#include "heap.h"
#include "participant.h"
#include "side.h"
#include "transition.h"

/* The longest sleep of a waiter while messages are leased, and otherwise, in nanoseconds. A holder that dies right after
 * its first lease is noticed after at most the sum: a waiter may have fallen asleep just before the lease, and another
 * participant may have checked the holders just before the death. */
#define LEASED_SLICE 25000000
#define IDLE_SLICE 50000000
/* How long a waiter sleeps at least, in nanoseconds. */
#define SHORTEST_SLICE 1000000

void lease_look(struct queue *queue, int64_t patience)
{
    struct work work;

    if (work_enter(&work, queue, patience))
        work_leave(&work);
}

/* Before the first lease of this participant: locks its byte, and returns the leases of an earlier owner of its slot, so
 * that all leases of a slot have one generation. False if that cannot be done now. */
static bool become_holder(struct work *work)
{
    struct queue *queue = work->queue;
    struct lease_holder *holder = &queue->holders[queue->slot];

    if (!participant_lend(queue) ||
        (get32(&holder->leases) != 0 && !expiry_return_all(work, expiry_holder(queue, queue->slot), true)))
        return false;
    if (get32(&work->cells.leases->slots) <= queue->slot)
        set32(&work->cells.leases->slots, queue->slot + 1);
    set32(&holder->leases, 0);
    set32(&holder->generation, queue->generation);
    queue->holds = true;
    return true;
}

/* Putting */

static enum queue_result put(struct queue *queue, const struct queue_piece *pieces, size_t count, bool whole,
                             size_t *stored, int64_t delay, int64_t patience)
{
    enum queue_result result = QUEUE_DOWN;
    struct work work;

    *stored = 0;
    if (!work_enter(&work, queue, patience))
        return QUEUE_BUSY;
    /* Under the lock, which a shutdown takes, so that nothing is put after it. */
    if (work_down(queue) == 0) {
        result = attention_of(queue) & ATTEND_PUT_CROWD ? attention_before_put(queue, ATTEND_PUT_CROWD, patience)
                                                        : QUEUE_OK;
        if (result == QUEUE_OK)
            result = cells_put_locked(queue, pieces, count, whole, stored,
                                      delay == 0 ? 0 : clock_after(clock_now(), delay));
        if (delay == 0)
            work.readied = *stored;
        else if (*stored != 0)
            work_note_next(&work);
    }
    work_leave(&work);
    return result;
}

static enum queue_result lease_put_many(struct queue *queue, const struct queue_piece *pieces, size_t count, bool whole,
                                        size_t *stored, int64_t patience)
{
    return put(queue, pieces, count, whole, stored, 0, patience);
}

static enum queue_result lease_put(struct queue *queue, const struct queue_piece *piece, int64_t patience)
{
    size_t stored;

    return put(queue, piece, 1, false, &stored, 0, patience);
}

static enum queue_result lease_put_dropping(struct queue *queue, const struct queue_piece *piece, size_t *dropped,
                                            int64_t patience)
{
    enum queue_result result = QUEUE_DOWN;
    struct work work;

    if (!expiry_enter(&work, queue, patience))
        return QUEUE_BUSY;
    if (work_down(queue) == 0) {
        result = cells_make_room(queue, piece, dropped);
        if (result == QUEUE_OK)
            result = cells_put_locked(queue, piece, 1, false, &work.readied, 0);
        work.freed |= *dropped != 0;
    }
    work_leave(&work);
    return result;
}

enum queue_result lease_put_delayed(struct queue *queue, const struct queue_piece *piece, int64_t delay,
                                    int64_t patience)
{
    enum queue_result result = condition_of(queue);
    size_t stored;

    return result == QUEUE_OK ? put(queue, piece, 1, false, &stored, delay, patience) : result;
}

/* Taking */

static enum queue_result before_get(struct queue *queue)
{
    uint32_t down = work_down(queue);

    expiry_check_holders(queue, 0);
    if (down & DOWN_OVER)
        return QUEUE_DOWN;
    /* After a shutdown it is decided with the lock, because a message may change its state meanwhile. */
    if (down != 0 || get32(&queue->segment->cells.ready) != 0 ||
        clock_has_come(atomic_load_explicit(&queue->segment->leases.next, memory_order_relaxed)))
        return QUEUE_OK;
    return QUEUE_EMPTY;
}

static bool is_empty(struct queue *queue)
{
    return atomic_load_explicit(&queue->segment->cells.ready, memory_order_seq_cst) == 0;
}

static int64_t wake_at(struct queue *queue)
{
    struct lease_index *leases = &queue->segment->leases;
    int64_t next = atomic_load_explicit(&leases->next, memory_order_relaxed);
    int64_t now = clock_now();
    int64_t slice = now + (get32(&leases->leased) == 0 ? IDLE_SLICE : LEASED_SLICE);

    /* What is due and stays so, because the doorbell cannot be rung, must not keep waiters awake. */
    if (next <= now)
        next = now + SHORTEST_SLICE;
    return next < slice ? next : slice;
}

/* Finds the next message; QUEUE_DOWN if there will be none any more. */
static enum queue_result top(struct work *work, uint32_t *cell, size_t *size)
{
    enum queue_result result = cells_top(work->queue, &work->cells, cell, size);

    if (result == QUEUE_EMPTY && work_down(work->queue) & DOWN_OVER)
        return QUEUE_DOWN;
    if (result == QUEUE_OK && state_of(&work->cells, *cell) != CELL_READY)
        return QUEUE_CORRUPT;
    return result;
}

static enum queue_result take(struct queue *queue, const struct taking *taking, size_t limit, size_t *taken,
                              int64_t patience)
{
    enum queue_result result = QUEUE_OK;
    struct work work;

    if (!expiry_enter(&work, queue, patience))
        return QUEUE_BUSY;
    for (*taken = 0; *taken < limit; ++*taken) {
        uint32_t cell;
        size_t size;

        result = top(&work, &cell, &size);
        if (result == QUEUE_OK)
            result = cells_copy_out(&work.cells, cell, size, taking);
        if (result != QUEUE_OK)
            break;
        transition_drop(&work, cell);
    }
    work_leave(&work);
    return *taken != 0 ? QUEUE_OK : result;
}

static enum queue_result lease_get_latest(struct queue *queue, const struct taking *taking, int64_t patience)
{
    enum queue_result result;
    size_t size;
    size_t older = 0;
    struct work work;
    uint32_t cell;

    if (!expiry_enter(&work, queue, patience))
        return QUEUE_BUSY;
    result = top(&work, &cell, &size);
    if (result == QUEUE_OK)
        result = cells_latest(queue, &work.cells, &cell, &size, &older);
    if (result == QUEUE_OK)
        result = cells_copy_out(&work.cells, cell, size, taking);
    if (result == QUEUE_OK)
        side_count_dropped(queue, older);
    for (size_t left = older + 1; result == QUEUE_OK && left != 0; left--) {
        result = top(&work, &cell, &size);
        if (result == QUEUE_OK)
            transition_drop(&work, cell);
    }
    work_leave(&work);
    return result;
}

static enum queue_result lease_get(struct queue *queue, const struct taking *taking, int64_t patience)
{
    size_t taken;

    return take(queue, taking, 1, &taken, patience);
}

static enum queue_result lease_get_many(struct queue *queue, const struct taking *taking, int64_t patience)
{
    return take(queue, taking, taking->limit, taking->taken, patience);
}

static enum queue_result lease_peek(struct queue *queue, const struct taking *taking, int64_t patience)
{
    enum queue_result result;
    struct work work;
    uint32_t cell;
    size_t size;

    if (!expiry_enter(&work, queue, patience))
        return QUEUE_BUSY;
    result = top(&work, &cell, &size);
    if (result == QUEUE_OK)
        result = cells_copy_out(&work.cells, cell, size, taking);
    work_leave(&work);
    return result;
}

/* Lends the message at the top. */
static void lend(struct work *work, uint32_t cell, uint64_t serial, int64_t due)
{
    struct cell *head = work_head(work, cell);

    head->as.leased.owner = participant_word(work->queue, 0);
    head->as.leased.serial = serial;
    head->as.leased.due = due;
    head->as.leased.since = (uint32_t)(clock_now_coarse() / 1000000000);
    head->as.leased.deliveries++;
    transition_to(work, cell, due == 0 ? CELL_LEASED : CELL_LEASED | CELL_HELD);
}

static enum queue_result lease_take(struct queue *queue, const struct taking *taking, int64_t patience)
{
    enum queue_result result = QUEUE_OK;
    int64_t due = 0;
    struct work work;

    if (!expiry_enter(&work, queue, patience))
        return QUEUE_BUSY;
    if (!queue->holds && !become_holder(&work))
        result = QUEUE_SYSTEM;
    if (taking->hold != 0)
        due = clock_after(clock_now(), taking->hold);
    for (*taking->taken = 0; result == QUEUE_OK && *taking->taken < taking->limit; ++*taking->taken) {
        struct queue_lease *lease = &taking->leases[*taking->taken];
        uint32_t cell;
        size_t size;

        result = top(&work, &cell, &size);
        if (result != QUEUE_OK)
            break;
        /* First, for `room`: then nothing can fail after the commit. */
        lease->cell = cell;
        lease->serial = taking->serial + *taking->taken;
        lease->failures = lease_failures(work_head(&work, cell));
        lease->deliveries = *(volatile uint32_t *)&work_head(&work, cell)->as.leased.deliveries + 1;
        result = cells_copy_out(&work.cells, cell, size, taking);
        if (result != QUEUE_OK)
            break;
        lend(&work, cell, lease->serial, due);
    }
    work_leave(&work);
    return *taking->taken != 0 ? QUEUE_OK : result;
}

static enum queue_result lease_clear(struct queue *queue, size_t *count, int64_t patience)
{
    static const enum heap heaps[] = {HEAP_READY, HEAP_DELAYED};
    struct work work;

    *count = 0;
    if (!expiry_enter(&work, queue, patience))
        return QUEUE_BUSY;
    for (size_t which = 0; which < 2; which++) {
        for (uint32_t left = heap_count(&work.cells, heaps[which]); left > 0; left--) {
            uint64_t cell = heap_top(&work.cells, heaps[which]);

            if (cell == work.cells.count)
                break;
            transition_drop(&work, (uint32_t)cell);
            ++*count;
        }
    }
    heap_note_next(&work.cells);
    work_leave(&work);
    return QUEUE_OK;
}

/* Settling */

/* Returns whether a token is a lease of this participant. The caller holds the lock. */
static bool is_mine(const struct work *work, const struct lease_token *token)
{
    const struct cell *head;

    if (token->cell >= work->cells.count || state_of(&work->cells, token->cell) != CELL_LEASED)
        return false;
    head = work_head(work, token->cell);
    return *(volatile uint64_t *)&head->as.leased.owner == participant_word(work->queue, 0) &&
           *(volatile uint64_t *)&head->as.leased.serial == token->serial;
}

/* The same, and ends a hold that is over, which counts as a failure. */
static bool is_valid(struct work *work, const struct lease_token *token)
{
    if (!is_mine(work, token))
        return false;
    if (!(get32(&work->cells.heads[token->cell]) & CELL_HELD) ||
        *(volatile int64_t *)&work_head(work, token->cell)->as.leased.due > clock_now())
        return true;
    expiry_end_hold(work, token->cell);
    return false;
}

/* After `announce`, unless the message does not become ready. */
static void settle_one(struct work *work, uint32_t cell, const struct lease_order *order, int64_t due)
{
    switch (order->verdict) {
    case LEASE_ACK:
        transition_drop(work, cell);
        return;
    case LEASE_REJECT:
        transition_to_dead(work, cell, order->reason, order->reason_size);
        return;
    case LEASE_FAIL:
        transition_fail(work, cell, due, order->reason, order->reason_size);
        return;
    default:
        transition_release(work, cell, due);
    }
}

/* Begins a call that needs no more than the name: a lease can be settled after a shutdown. */
static enum queue_result begin(struct work *work, struct queue *queue, int64_t patience)
{
    if (condition_of(queue) == QUEUE_GONE)
        return QUEUE_GONE;
    return work_enter(work, queue, patience) ? QUEUE_OK : QUEUE_BUSY;
}

enum queue_result lease_settle(struct queue *queue, const struct lease_token *tokens, size_t count,
                               const struct lease_order *order, bool *lost, int64_t patience)
{
    struct work work;
    enum queue_result result = begin(&work, queue, patience);
    int64_t due = order->delay == 0 ? 0 : clock_after(clock_now(), order->delay);

    if (result != QUEUE_OK)
        return result;
    /* Before anything is settled, because it may fail. */
    if (due == 0 && (order->verdict == LEASE_RELEASE || order->verdict == LEASE_FAIL) && !work_announce(&work))
        result = QUEUE_SYSTEM;
    for (size_t which = 0; which < count && result == QUEUE_OK; which++) {
        lost[which] = !is_valid(&work, &tokens[which]);
        if (!lost[which])
            settle_one(&work, tokens[which].cell, order, due);
    }
    work_leave(&work);
    return result;
}

enum queue_result lease_extend(struct queue *queue, const struct lease_token *tokens, size_t count, int64_t hold,
                               bool *lost, int64_t patience)
{
    struct work work;
    enum queue_result result = begin(&work, queue, patience);
    int64_t due = clock_after(clock_now(), hold);

    if (result != QUEUE_OK)
        return result;
    for (size_t which = 0; which < count; which++) {
        lost[which] = !is_valid(&work, &tokens[which]);
        if (lost[which])
            continue;
        work_head(&work, tokens[which].cell)->as.leased.due = due;
        transition_to(&work, tokens[which].cell, CELL_LEASED | CELL_HELD);
    }
    work_leave(&work);
    return QUEUE_OK;
}

enum queue_result lease_find_lost(struct queue *queue, const struct lease_token *tokens, size_t count, bool *lost,
                                  int64_t patience)
{
    struct work work;
    enum queue_result result = begin(&work, queue, patience);

    if (result != QUEUE_OK)
        return result;
    for (size_t which = 0; which < count; which++)
        lost[which] = !is_valid(&work, &tokens[which]);
    work_leave(&work);
    return QUEUE_OK;
}

enum queue_result lease_recall(struct queue *queue, uint64_t serial, uint64_t count, int64_t patience)
{
    struct work work;
    enum queue_result result = begin(&work, queue, patience);

    if (result != QUEUE_OK)
        return result;
    for (uint32_t cell = 0; cell < work.cells.count && result == QUEUE_OK; cell++) {
        struct lease_token token;

        if (state_of(&work.cells, cell) != CELL_LEASED)
            continue;
        token = (struct lease_token){cell, *(volatile uint64_t *)&work_head(&work, cell)->as.leased.serial};
        if (token.serial - serial < count && is_valid(&work, &token) && !transition_release(&work, cell, 0))
            result = QUEUE_SYSTEM;
    }
    work_leave(&work);
    return result;
}

void lease_release_all(struct queue *queue, int64_t patience)
{
    struct work work;

    if (!queue->holds || get32(&queue->holders[queue->slot].leases) == 0 || !expiry_enter(&work, queue, patience))
        return;
    expiry_return_all(&work, participant_word(queue, 0), false);
    work_leave(&work);
}

/* Looking */

enum queue_result lease_tend(struct queue *queue, int64_t *wait, int64_t patience)
{
    struct work work;
    enum queue_result result;
    int64_t next, now;

    if (condition_of(queue) == QUEUE_GONE)
        return QUEUE_GONE;
    expiry_check_holders(queue, patience);
    result = expiry_enter(&work, queue, patience) ? QUEUE_OK : QUEUE_BUSY;
    if (result != QUEUE_OK)
        return result;
    next = atomic_load_explicit(&work.cells.leases->next, memory_order_relaxed);
    now = clock_now();
    *wait = next == INT64_MAX ? 0 : next <= now ? 1 : next - now;
    if (get32(&work.cells.leases->leased) != 0 && (*wait == 0 || *wait > LEASED_SLICE))
        *wait = LEASED_SLICE;
    work_leave(&work);
    return QUEUE_OK;
}

enum queue_result lease_count(struct queue *queue, struct lease_counts *counts, int64_t patience)
{
    struct cells cells = cells_of(queue);
    struct work work;
    bool entered;

    if (condition_of(queue) == QUEUE_GONE)
        return QUEUE_GONE;
    expiry_check_holders(queue, patience);
    entered = expiry_enter(&work, queue, patience);
    counts->ready = heap_count(&cells, HEAP_READY);
    counts->delayed = heap_count(&cells, HEAP_DELAYED);
    counts->leased = get32(&cells.leases->leased);
    counts->dead = heap_count(&cells, HEAP_DEAD);
    counts->returned = word_peek(&cells.leases->returned);
    side_totals(queue, &counts->put, &counts->got);
    if (entered)
        work_leave(&work);
    return entered ? QUEUE_OK : QUEUE_BUSY;
}

enum queue_result lease_held(struct queue *queue, struct lease_held *held, size_t limit, size_t *found,
                             int64_t patience)
{
    struct work work;
    enum queue_result result = begin(&work, queue, patience);

    *found = 0;
    if (result != QUEUE_OK)
        return result;
    for (uint32_t cell = 0; cell < work.cells.count; cell++) {
        const struct cell *head = work_head(&work, cell);
        struct lease_held one;
        size_t at;

        if (state_of(&work.cells, cell) != CELL_LEASED)
            continue;
        one = (struct lease_held){participant_slot(*(volatile uint64_t *)&head->as.leased.owner),
                                  *(volatile uint32_t *)&head->as.leased.since,
                                  *(volatile uint32_t *)&head->as.leased.deliveries};
        for (at = *found; at > 0 && held[at - 1].since > one.since; at--)
            if (at < limit)
                held[at] = held[at - 1];
        if (at < limit)
            held[at] = one;
        if (*found < limit)
            ++*found;
    }
    work_leave(&work);
    return QUEUE_OK;
}

static bool lease_enter(struct queue *queue, int64_t patience)
{
    struct work work;

    return work_enter(&work, queue, patience);
}

const struct flavour lease_flavour = {
    .enter_put = lease_enter,
    .put = lease_put,
    .put_many = lease_put_many,
    .put_dropping = lease_put_dropping,
    .get = lease_get,
    .get_latest = lease_get_latest,
    .get_many = lease_get_many,
    .peek = lease_peek,
    .lease = lease_take,
    .before_get = before_get,
    .is_empty = is_empty,
    .wake_at = wake_at,
    .clear = lease_clear,
    .has_space = cells_has_space,
    .much_is_free = cells_much_is_free,
    .one_lock = true,
};
