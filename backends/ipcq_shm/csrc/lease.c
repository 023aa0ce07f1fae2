#include "lease.h"

#include <string.h>

#include "attention.h"
#include "cells.h"
#include "clock.h"
#include "condition.h"
#include "doorbell.h"
#include "heap.h"
#include "participant.h"
#include "rebuild.h"
#include "side.h"

/* How often the holders of leases are checked, by all participants together, in nanoseconds. */
#define LOOK_EVERY 20000000
/* The longest sleep of a waiter while messages are leased, and otherwise, in nanoseconds. A holder that dies right after
 * its first lease is noticed after at most the sum: a waiter may have fallen asleep just before the lease, and another
 * participant may have checked the holders just before the death. */
#define LEASED_SLICE 25000000
#define IDLE_SLICE 50000000
/* How long a waiter sleeps at least, in nanoseconds. */
#define SHORTEST_SLICE 1000000
/* How much older the coarse clock may be, in nanoseconds: a tick is at most 10 ms. */
#define COARSE 20000000

static const unsigned char holder_died[] = LEASE_HOLDER_DIED;
static const unsigned char hold_ended[] = LEASE_HOLD_ENDED;

/* What an operation does with the lock held, and whom it has to wake. */
struct work {
    struct queue *queue;
    struct cells cells;
    size_t readied; /* messages that became ready */
    bool announced; /* to the listeners */
    bool freed;     /* space */
    bool sooner;    /* something is due earlier than waiters know */
};

static int64_t after(int64_t now, int64_t time)
{
    return time < INT64_MAX - 1 - now ? now + time : INT64_MAX - 1;
}

/* Whether a time has come. The coarse clock, which is read faster, decides unless it is close. */
static bool has_come(int64_t due)
{
    int64_t now;

    if (due == INT64_MAX)
        return false;
    now = clock_now_coarse();
    return due <= now || (due < after(now, COARSE) && due <= clock_now());
}

static struct cell *head_of(const struct work *work, uint32_t cell)
{
    return &work->cells.cell[cell];
}

/* Commits: the only step that changes the state of a message. */
static void set_state(const struct work *work, uint32_t cell, uint32_t state)
{
    uint32_t kept = get32(&work->cells.heads[cell]) & CELL_PARCEL;

    atomic_store_explicit(&work->cells.heads[cell], state | (state == CELL_NONE ? 0 : kept), memory_order_seq_cst);
}

/* Rings and gives notice before a message becomes ready; false if that cannot be done now. */
static bool announce(struct work *work)
{
    uint32_t attention = attention_of(work->queue) & ATTEND_LISTENERS;

    /* Once is enough: the doorbell stays rung while this participant has the lock. */
    if (!work->announced)
        work->announced = attention == 0 || attention_before_put(work->queue, attention, 0) == QUEUE_OK;
    return work->announced;
}

static bool something_lives(const struct cells *cells)
{
    return get32(&cells->index->ready) != 0 || get32(&cells->leases->delayed) != 0 ||
           get32(&cells->leases->leased) != 0;
}

static uint32_t down_of(const struct queue *queue)
{
    return atomic_load_explicit(&queue->segment->state.down, memory_order_seq_cst);
}

/* The end */

static void drop_all(struct work *work)
{
    for (uint32_t cell = 0; cell < work->cells.count; cell++) {
        uint32_t state = state_of(&work->cells, cell);

        if (state != CELL_NONE && state != CELL_DEAD)
            set_state(work, cell, CELL_NONE);
    }
    set32(&work->cells.index->built, 0); /* a kill from here on leaves no other trace */
    rebuild(work->queue, &work->cells);
    work->freed = true;
}

/* After a shutdown: completes what it asked for, if that can be done by now. */
static void end(struct work *work, uint32_t down)
{
    if (down & DOWN_DROPPED && something_lives(&work->cells))
        drop_all(work);
    if (down & DOWN_OVER || something_lives(&work->cells))
        return;
    /* Without a descriptor for the doorbell it cannot ring; the next operation tries again. */
    if (!doorbell_ring_for_good(work->queue, true))
        return;
    atomic_fetch_or_explicit(&work->queue->segment->state.down, DOWN_OVER, memory_order_seq_cst);
    event_wake(&work->queue->segment->put.event, UINT32_MAX);
}

/* The lock */

static bool enter(struct work *work, struct queue *queue, int64_t patience)
{
    uint32_t down;

    *work = (struct work){.queue = queue, .cells = cells_of(queue)};
    if (!cells_enter(queue, patience))
        return false;
    down = down_of(queue);
    if (down != 0)
        end(work, down);
    return true;
}

/* Releases the lock and wakes whom the work concerns. */
static void leave(struct work *work)
{
    struct segment *segment = work->queue->segment;
    uint32_t consumers = 0;
    uint32_t producers = 0;
    uint32_t down = down_of(work->queue);

    if (down != 0)
        end(work, down);
    if (work->readied != 0 || work->sooner) {
        /* Again, and sequentially consistent: either this sees a sleeper, or the sleeper sees the message (event.h). */
        atomic_store_explicit(&work->cells.index->ready, get32(&work->cells.index->ready), memory_order_seq_cst);
        consumers = event_asleep(&segment->put.event);
    }
    if (work->freed)
        producers = event_asleep(&segment->get.event);
    side_leave(&segment->put);
    attention_wake_consumers(work->queue, consumers, work->readied == 0 ? 1 : work->readied);
    attention_wake_producers(work->queue, producers);
}

void lease_look(struct queue *queue, int64_t patience)
{
    struct work work;

    if (enter(&work, queue, patience))
        leave(&work);
}

/* Transitions. The caller holds the lock, and has checked the cell and its state. */

static void note_next(struct work *work)
{
    int64_t before = atomic_load_explicit(&work->cells.leases->next, memory_order_relaxed);
    int64_t next;

    heap_note_next(&work->cells);
    next = atomic_load_explicit(&work->cells.leases->next, memory_order_relaxed);
    /* Waiters look by themselves at the end of a slice. */
    work->sooner |= next < before && next < after(clock_now_coarse(), EVENT_SLICE);
}

/* Takes a message, which has got another state, out of what is derived from its last one, and `word` was its word. A
 * message that is not LEASED was at the top of its heap. */
static void unlist(struct work *work, uint32_t cell, uint32_t word)
{
    const struct cells *cells = &work->cells;
    uint32_t slot = participant_slot(*(volatile uint64_t *)&head_of(work, cell)->as.leased.owner);
    uint32_t place = *(volatile uint32_t *)&head_of(work, cell)->as.leased.place;
    uint32_t leased = get32(&cells->leases->leased);

    switch (word & CELL_STATE) {
    case CELL_READY:
        heap_remove(cells, HEAP_READY, 0);
        return;
    case CELL_DELAYED:
        heap_remove(cells, HEAP_DELAYED, 0);
        return;
    case CELL_DEAD:
        heap_remove(cells, HEAP_DEAD, 0);
        return;
    default:
        /* The numbers may be an attacker's. */
        set32(&cells->leases->leased, leased - (leased != 0));
        if (slot < LAYOUT_SLOTS)
            set32(&work->queue->holders[slot].leases,
                  get32(&work->queue->holders[slot].leases) - (get32(&work->queue->holders[slot].leases) != 0));
        if (!(word & CELL_HELD))
            return;
        if (place < heap_count(cells, HEAP_HOLDS) && get32(heap_word(cells, HEAP_HOLDS, place)) == cell)
            heap_remove(cells, HEAP_HOLDS, place);
        else
            set32(&cells->index->built, 0);
    }
}

/* Enters a message into what is derived from its new state. */
static void list(struct work *work, uint32_t cell, uint32_t state)
{
    const struct cells *cells = &work->cells;
    struct lease_holder *holder = &work->queue->holders[work->queue->slot];

    switch (state & CELL_STATE) {
    case CELL_READY:
        heap_push(cells, HEAP_READY, cell);
        work->readied++;
        return;
    case CELL_DELAYED:
        heap_push(cells, HEAP_DELAYED, cell);
        return;
    case CELL_DEAD:
        heap_push(cells, HEAP_DEAD, cell);
        return;
    case CELL_LEASED:
        set32(&cells->leases->leased, get32(&cells->leases->leased) + 1);
        set32(&holder->leases, get32(&holder->leases) + 1);
        if (state & CELL_HELD)
            heap_push(cells, HEAP_HOLDS, cell);
        return;
    default:
        return;
    }
}

/* A whole transition, when all that belongs to the new state has been written. First out of the one heap, then into the
 * other: they share their words. */
static void change(struct work *work, uint32_t cell, uint32_t state)
{
    uint32_t word = get32(&work->cells.heads[cell]);

    set_state(work, cell, state);
    unlist(work, cell, word);
    list(work, cell, state);
    if (word & CELL_HELD || state & CELL_HELD || (state & CELL_STATE) == CELL_DELAYED)
        note_next(work);
}

static void make_dead(struct work *work, uint32_t cell, const unsigned char *reason, size_t reason_size)
{
    if (!chain_copy_reason(&work->cells, cell, size_of(&work->cells, cell), NULL, reason, reason_size))
        reason_size = 0;
    head_of(work, cell)->as.leased.reason_size = (uint32_t)reason_size;
    change(work, cell, CELL_DEAD);
}

static void make_delayed(struct work *work, uint32_t cell, int64_t due)
{
    head_of(work, cell)->as.leased.due = due;
    change(work, cell, CELL_DELAYED);
}

static void count_return(const struct work *work)
{
    atomic_fetch_add_explicit(&work->cells.leases->returned, 1, memory_order_relaxed);
}

/* Ends a lease as a failure: the message dies, or is delayed until `due`, or with 0 is ready. False: not now. */
static bool fail(struct work *work, uint32_t cell, int64_t due, const unsigned char *reason, size_t reason_size)
{
    if (lease_failed_too_often(work->queue->max_deliveries, head_of(work, cell)))
        make_dead(work, cell, reason, reason_size);
    else if (due != 0)
        make_delayed(work, cell, due);
    else if (announce(work))
        change(work, cell, CELL_READY);
    else
        return false;
    count_return(work);
    return true;
}

/* Ends a lease without a failure; likewise. */
static bool release(struct work *work, uint32_t cell, int64_t due)
{
    if (due == 0 && !announce(work))
        return false;
    head_of(work, cell)->as.leased.settled++;
    if (due != 0)
        make_delayed(work, cell, due);
    else
        change(work, cell, CELL_READY);
    count_return(work);
    return true;
}

/* Takes a message out of the queue. */
static void drop(struct work *work, uint32_t cell)
{
    struct side *get = &work->queue->segment->get;
    size_t size = size_of(&work->cells, cell);

    if (size > work->queue->max_message_size) {
        set32(&work->cells.index->built, 0); /* damaged */
        size = 0;
    }
    change(work, cell, CELL_NONE);
    chain_free(&work->cells, cell, size);
    side_commit(get, word_peek(&get->position) + 1, 1, size);
    work->freed = true;
}

/* What is over */

/* Returns whether the first message of a heap is due. */
static bool is_due(const struct cells *cells, enum heap which, int64_t now)
{
    uint64_t cell = heap_top(cells, which);

    return cell < cells->count && *(volatile int64_t *)&cells->cell[cell].as.leased.due <= now;
}

/* Does the next thing that is due; false if there is none, or it cannot be done now. */
static bool tend_one(struct work *work, int64_t now)
{
    const struct cells *cells = &work->cells;
    enum heap which = is_due(cells, HEAP_DELAYED, now) ? HEAP_DELAYED : HEAP_HOLDS;
    uint32_t cell;

    if (which == HEAP_HOLDS && !is_due(cells, HEAP_HOLDS, now))
        return false;
    cell = (uint32_t)heap_top(cells, which);
    if (cell >= cells->count || state_of(cells, cell) != (which == HEAP_DELAYED ? CELL_DELAYED : CELL_LEASED)) {
        set32(&cells->index->built, 0); /* damaged */
        return false;
    }
    if (which == HEAP_HOLDS)
        return fail(work, cell, 0, hold_ended, sizeof hold_ended - 1);
    if (!announce(work))
        return false;
    change(work, cell, CELL_READY);
    return true;
}

/* Does up to LEASE_STEP of what is due, and returns whether more may be. */
static bool tend_some(struct work *work)
{
    int64_t now;
    int step = 0;

    if (!has_come(atomic_load_explicit(&work->cells.leases->next, memory_order_relaxed)))
        return false;
    now = clock_now();
    while (step < LEASE_STEP && tend_one(work, now))
        step++;
    heap_note_next(&work->cells);
    return step == LEASE_STEP;
}

/* Takes the lock, and returns what is due to the queue first. */
static bool enter_tended(struct work *work, struct queue *queue, int64_t patience)
{
    for (uint32_t rounds = 0;; rounds++) {
        if (!enter(work, queue, patience))
            return false;
        /* A bound, because an attacker may keep something due. */
        if (!tend_some(work) || rounds > work->cells.count / LEASE_STEP)
            return true;
        leave(work);
    }
}

/* Returns the leases of a participant, as failures or not; false if not all can be returned now. The caller holds the
 * lock. */
static bool return_all(struct work *work, uint64_t owner, bool failed)
{
    for (uint32_t cell = 0; cell < work->cells.count; cell++)
        if (state_of(&work->cells, cell) == CELL_LEASED &&
            *(volatile uint64_t *)&head_of(work, cell)->as.leased.owner == owner &&
            !(failed ? fail(work, cell, 0, holder_died, sizeof holder_died - 1) : release(work, cell, 0)))
            return false;
    return true;
}

static uint64_t holder_word(const struct queue *queue, uint32_t slot)
{
    return (uint64_t)get32(&queue->holders[slot].generation) << 32 | (uint64_t)slot << 8;
}

/* Looks for dead holders, unless somebody has just done so, and returns their leases. Without the lock. */
static void look_at_holders(struct queue *queue, int64_t patience)
{
    struct lease_index *leases = &queue->segment->leases;
    int64_t looked = atomic_load_explicit(&leases->looked, memory_order_relaxed);
    struct cells cells;
    int64_t now;

    /* The dead owner may have left a lease that is not counted yet. If nothing else is ready, nobody would find it. */
    if (lock_abandoned(&queue->segment->put.lock))
        lease_look(queue, patience);
    if (get32(&leases->leased) == 0)
        return;
    now = clock_now_coarse();
    /* Unsigned, since the segment may hold any number. One of those who come here at the same time goes on. */
    if ((uint64_t)now - (uint64_t)looked < LOOK_EVERY ||
        !atomic_compare_exchange_strong_explicit(&leases->looked, &looked, now, memory_order_relaxed,
                                                 memory_order_relaxed))
        return;
    cells = cells_of(queue);
    for (uint32_t slot = 0; slot < holders_of(&cells); slot++) {
        struct work work;
        uint64_t owner;

        if (get32(&queue->holders[slot].leases) == 0)
            continue;
        owner = holder_word(queue, slot);
        if (participant_lends(queue, owner))
            continue;
        if (!enter(&work, queue, patience)) {
            atomic_store_explicit(&leases->looked, 0, memory_order_relaxed); /* the next one tries again */
            return;
        }
        return_all(&work, owner, true);
        leave(&work);
    }
}

/* Before the first lease of this participant: locks its byte, and returns the leases of an earlier owner of its slot, so
 * that all leases of a slot have one generation. False if that cannot be done now. */
static bool become_holder(struct work *work)
{
    struct queue *queue = work->queue;
    struct lease_holder *holder = &queue->holders[queue->slot];

    if (!participant_lend(queue) ||
        (get32(&holder->leases) != 0 && !return_all(work, holder_word(queue, queue->slot), true)))
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
    if (!enter(&work, queue, patience))
        return QUEUE_BUSY;
    /* Under the lock, which a shutdown takes, so that nothing is put after it. */
    if (down_of(queue) == 0) {
        result = attention_of(queue) & ATTEND_PUT_CROWD ? attention_before_put(queue, ATTEND_PUT_CROWD, patience)
                                                        : QUEUE_OK;
        if (result == QUEUE_OK)
            result = cells_put_locked(queue, pieces, count, whole, stored,
                                      delay == 0 ? 0 : after(clock_now(), delay));
        if (delay == 0)
            work.readied = *stored;
        else if (*stored != 0)
            note_next(&work);
    }
    leave(&work);
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
    uint32_t down = down_of(queue);

    look_at_holders(queue, 0);
    if (down & DOWN_OVER)
        return QUEUE_DOWN;
    /* After a shutdown it is decided with the lock, because a message may change its state meanwhile. */
    if (down != 0 || get32(&queue->segment->cells.ready) != 0 ||
        has_come(atomic_load_explicit(&queue->segment->leases.next, memory_order_relaxed)))
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

    if (result == QUEUE_EMPTY && down_of(work->queue) & DOWN_OVER)
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

    if (!enter_tended(&work, queue, patience))
        return QUEUE_BUSY;
    for (*taken = 0; *taken < limit; ++*taken) {
        uint32_t cell;
        size_t size;

        result = top(&work, &cell, &size);
        if (result == QUEUE_OK)
            result = cells_copy_out(&work.cells, cell, size, taking);
        if (result != QUEUE_OK)
            break;
        drop(&work, cell);
    }
    leave(&work);
    return *taken != 0 ? QUEUE_OK : result;
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

    if (!enter_tended(&work, queue, patience))
        return QUEUE_BUSY;
    result = top(&work, &cell, &size);
    if (result == QUEUE_OK)
        result = cells_copy_out(&work.cells, cell, size, taking);
    leave(&work);
    return result;
}

/* Lends the message at the top. */
static void lend(struct work *work, uint32_t cell, uint64_t serial, int64_t due)
{
    struct cell *head = head_of(work, cell);

    head->as.leased.owner = participant_word(work->queue, 0);
    head->as.leased.serial = serial;
    head->as.leased.due = due;
    head->as.leased.since = (uint32_t)(clock_now_coarse() / 1000000000);
    head->as.leased.deliveries++;
    change(work, cell, due == 0 ? CELL_LEASED : CELL_LEASED | CELL_HELD);
}

static enum queue_result lease_take(struct queue *queue, const struct taking *taking, int64_t patience)
{
    enum queue_result result = QUEUE_OK;
    int64_t due = 0;
    struct work work;

    if (!enter_tended(&work, queue, patience))
        return QUEUE_BUSY;
    if (!queue->holds && !become_holder(&work))
        result = QUEUE_SYSTEM;
    if (taking->hold != 0)
        due = after(clock_now(), taking->hold);
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
        lease->failures = lease_failures(head_of(&work, cell));
        lease->deliveries = *(volatile uint32_t *)&head_of(&work, cell)->as.leased.deliveries + 1;
        result = cells_copy_out(&work.cells, cell, size, taking);
        if (result != QUEUE_OK)
            break;
        lend(&work, cell, lease->serial, due);
    }
    leave(&work);
    return *taking->taken != 0 ? QUEUE_OK : result;
}

static enum queue_result lease_clear(struct queue *queue, size_t *count, int64_t patience)
{
    static const enum heap heaps[] = {HEAP_READY, HEAP_DELAYED};
    struct work work;

    *count = 0;
    if (!enter_tended(&work, queue, patience))
        return QUEUE_BUSY;
    for (size_t which = 0; which < 2; which++) {
        for (uint32_t left = heap_count(&work.cells, heaps[which]); left > 0; left--) {
            uint64_t cell = heap_top(&work.cells, heaps[which]);

            if (cell == work.cells.count)
                break;
            drop(&work, (uint32_t)cell);
            ++*count;
        }
    }
    heap_note_next(&work.cells);
    leave(&work);
    return QUEUE_OK;
}

/* Settling */

/* Returns whether a token is a lease of this participant. The caller holds the lock. */
static bool is_mine(const struct work *work, const struct lease_token *token)
{
    const struct cell *head;

    if (token->cell >= work->cells.count || state_of(&work->cells, token->cell) != CELL_LEASED)
        return false;
    head = head_of(work, token->cell);
    return *(volatile uint64_t *)&head->as.leased.owner == participant_word(work->queue, 0) &&
           *(volatile uint64_t *)&head->as.leased.serial == token->serial;
}

/* The same, and ends a hold that is over, which counts as a failure. */
static bool is_valid(struct work *work, const struct lease_token *token)
{
    if (!is_mine(work, token))
        return false;
    if (!(get32(&work->cells.heads[token->cell]) & CELL_HELD) ||
        *(volatile int64_t *)&head_of(work, token->cell)->as.leased.due > clock_now())
        return true;
    fail(work, token->cell, 0, hold_ended, sizeof hold_ended - 1);
    return false;
}

/* After `announce`, unless the message does not become ready. */
static void settle_one(struct work *work, uint32_t cell, const struct lease_order *order, int64_t due)
{
    switch (order->verdict) {
    case LEASE_ACK:
        drop(work, cell);
        return;
    case LEASE_REJECT:
        make_dead(work, cell, order->reason, order->reason_size);
        return;
    case LEASE_FAIL:
        fail(work, cell, due, order->reason, order->reason_size);
        return;
    default:
        release(work, cell, due);
    }
}

/* Begins a call that needs no more than the name: a lease can be settled after a shutdown. */
static enum queue_result begin(struct work *work, struct queue *queue, int64_t patience)
{
    if (condition_of(queue) == QUEUE_GONE)
        return QUEUE_GONE;
    return enter(work, queue, patience) ? QUEUE_OK : QUEUE_BUSY;
}

enum queue_result lease_settle(struct queue *queue, const struct lease_token *tokens, size_t count,
                               const struct lease_order *order, bool *lost, int64_t patience)
{
    struct work work;
    enum queue_result result = begin(&work, queue, patience);
    int64_t due = order->delay == 0 ? 0 : after(clock_now(), order->delay);

    if (result != QUEUE_OK)
        return result;
    /* Before anything is settled, because it may fail. */
    if (due == 0 && (order->verdict == LEASE_RELEASE || order->verdict == LEASE_FAIL) && !announce(&work))
        result = QUEUE_SYSTEM;
    for (size_t which = 0; which < count && result == QUEUE_OK; which++) {
        lost[which] = !is_valid(&work, &tokens[which]);
        if (!lost[which])
            settle_one(&work, tokens[which].cell, order, due);
    }
    leave(&work);
    return result;
}

enum queue_result lease_extend(struct queue *queue, const struct lease_token *tokens, size_t count, int64_t hold,
                               bool *lost, int64_t patience)
{
    struct work work;
    enum queue_result result = begin(&work, queue, patience);
    int64_t due = after(clock_now(), hold);

    if (result != QUEUE_OK)
        return result;
    for (size_t which = 0; which < count; which++) {
        lost[which] = !is_valid(&work, &tokens[which]);
        if (lost[which])
            continue;
        head_of(&work, tokens[which].cell)->as.leased.due = due;
        change(&work, tokens[which].cell, CELL_LEASED | CELL_HELD);
    }
    leave(&work);
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
    leave(&work);
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
        token = (struct lease_token){cell, *(volatile uint64_t *)&head_of(&work, cell)->as.leased.serial};
        if (token.serial - serial < count && is_valid(&work, &token) && !release(&work, cell, 0))
            result = QUEUE_SYSTEM;
    }
    leave(&work);
    return result;
}

void lease_release_all(struct queue *queue, int64_t patience)
{
    struct work work;

    if (!queue->holds || get32(&queue->holders[queue->slot].leases) == 0 || !enter_tended(&work, queue, patience))
        return;
    return_all(&work, participant_word(queue, 0), false);
    leave(&work);
}

/* Looking */

enum queue_result lease_tend(struct queue *queue, int64_t *wait, int64_t patience)
{
    struct work work;
    enum queue_result result;
    int64_t next, now;

    if (condition_of(queue) == QUEUE_GONE)
        return QUEUE_GONE;
    look_at_holders(queue, patience);
    result = enter_tended(&work, queue, patience) ? QUEUE_OK : QUEUE_BUSY;
    if (result != QUEUE_OK)
        return result;
    next = atomic_load_explicit(&work.cells.leases->next, memory_order_relaxed);
    now = clock_now();
    *wait = next == INT64_MAX ? 0 : next <= now ? 1 : next - now;
    if (get32(&work.cells.leases->leased) != 0 && (*wait == 0 || *wait > LEASED_SLICE))
        *wait = LEASED_SLICE;
    leave(&work);
    return QUEUE_OK;
}

enum queue_result lease_count(struct queue *queue, struct lease_counts *counts, int64_t patience)
{
    struct cells cells = cells_of(queue);
    struct work work;
    bool entered;

    if (condition_of(queue) == QUEUE_GONE)
        return QUEUE_GONE;
    look_at_holders(queue, patience);
    entered = enter_tended(&work, queue, patience);
    counts->ready = heap_count(&cells, HEAP_READY);
    counts->delayed = heap_count(&cells, HEAP_DELAYED);
    counts->leased = get32(&cells.leases->leased);
    counts->dead = heap_count(&cells, HEAP_DEAD);
    counts->returned = word_peek(&cells.leases->returned);
    side_totals(queue, &counts->put, &counts->got);
    if (entered)
        leave(&work);
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
        const struct cell *head = head_of(&work, cell);
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
    leave(&work);
    return QUEUE_OK;
}

/* Dead letters */

static void describe(const struct work *work, uint32_t cell, struct lease_dead *letter)
{
    const struct cell *head = head_of(work, cell);
    uint32_t reason_size = *(volatile uint32_t *)&head->as.leased.reason_size;

    letter->number = number_of(&work->cells, cell) + 1;
    letter->deliveries = *(volatile uint32_t *)&head->as.leased.deliveries;
    letter->reason_size = reason_size <= CELL_REASON ? reason_size : CELL_REASON;
    if (!chain_copy_reason(&work->cells, cell, size_of(&work->cells, cell), letter->reason, NULL, letter->reason_size))
        letter->reason_size = 0;
}

/* Finds the oldest dead letter. */
static enum queue_result oldest_dead(const struct work *work, uint32_t *cell)
{
    uint64_t found = heap_top(&work->cells, HEAP_DEAD);

    if (heap_count(&work->cells, HEAP_DEAD) == 0)
        return QUEUE_EMPTY;
    if (found == work->cells.count || state_of(&work->cells, (uint32_t)found) != CELL_DEAD ||
        size_of(&work->cells, (uint32_t)found) > work->queue->max_message_size)
        return QUEUE_CORRUPT;
    *cell = (uint32_t)found;
    return QUEUE_OK;
}

static enum queue_result copy_dead(const struct work *work, uint32_t cell, queue_room *room, void *context,
                                   struct lease_dead *letter)
{
    size_t size = size_of(&work->cells, cell);

    if (size > work->queue->max_message_size)
        return QUEUE_CORRUPT;
    describe(work, cell, letter);
    return cells_copy_out(&work->cells, cell, size, &(struct taking){.room = room, .context = context});
}

static bool is_dead(const struct work *work, uint64_t number)
{
    for (uint32_t place = 0; place < heap_count(&work->cells, HEAP_DEAD); place++) {
        uint32_t cell = get32(heap_word(&work->cells, HEAP_DEAD, place));

        if (cell < work->cells.count && number_of(&work->cells, cell) + 1 == number)
            return true;
    }
    return false;
}

enum queue_result lease_take_dead(struct queue *queue, uint64_t number, int64_t patience)
{
    struct work work;
    enum queue_result result;
    uint32_t cell;

    if (condition_of(queue) == QUEUE_GONE)
        return QUEUE_GONE;
    if (!enter_tended(&work, queue, patience))
        return QUEUE_BUSY;
    result = oldest_dead(&work, &cell);
    if (result == QUEUE_OK && number_of(&work.cells, cell) + 1 != number) {
        result = QUEUE_EMPTY;
        if (is_dead(&work, number)) /* the order is damaged, so a caller that peeks again would find it again */
            set32(&work.cells.index->built, 0);
    }
    if (result == QUEUE_OK)
        drop(&work, cell);
    leave(&work);
    return result;
}

/* Collects the numbers of the oldest dead letters above `after`, in order, and their cells. */
static size_t oldest_above(const struct work *work, uint64_t after, struct lease_dead *letters, size_t limit)
{
    uint32_t count = heap_count(&work->cells, HEAP_DEAD);
    size_t found = 0;

    for (uint32_t place = 0; place < count; place++) {
        uint32_t cell = get32(heap_word(&work->cells, HEAP_DEAD, place));
        uint64_t number;
        size_t at;

        if (cell >= work->cells.count || state_of(&work->cells, cell) != CELL_DEAD)
            continue;
        number = number_of(&work->cells, cell) + 1;
        if (number <= after)
            continue;
        for (at = found; at > 0 && letters[at - 1].number > number; at--)
            if (at < limit)
                letters[at] = letters[at - 1];
        if (at < limit) {
            letters[at].number = number;
            letters[at].deliveries = cell; /* until it is described */
        }
        found += found < limit;
    }
    return found;
}

enum queue_result lease_peek_dead(struct queue *queue, uint64_t after, queue_room *room, void *context,
                                  struct lease_dead *letters, size_t limit, size_t *found, int64_t patience)
{
    struct work work;
    enum queue_result result = QUEUE_OK;
    size_t there;

    *found = 0;
    if (condition_of(queue) == QUEUE_GONE)
        return QUEUE_GONE;
    look_at_holders(queue, patience);
    if (!enter_tended(&work, queue, patience))
        return QUEUE_BUSY;
    there = oldest_above(&work, after, letters, limit);
    while (*found < there && result == QUEUE_OK) {
        result = copy_dead(&work, letters[*found].deliveries, room, context, &letters[*found]);
        *found += result == QUEUE_OK;
    }
    leave(&work);
    return *found != 0 ? QUEUE_OK : result;
}

enum queue_result lease_requeue(struct queue *queue, size_t limit, size_t *count, int64_t patience)
{
    struct work work;
    enum queue_result result = condition_of(queue);
    uint32_t there;

    *count = 0;
    if (result != QUEUE_OK)
        return result;
    if (!enter_tended(&work, queue, patience))
        return QUEUE_BUSY;
    result = down_of(queue) != 0 ? QUEUE_DOWN : QUEUE_OK;
    there = heap_count(&work.cells, HEAP_DEAD); /* one pass, even if what is made ready dies again */
    while (result == QUEUE_OK && *count < limit && *count < there) {
        uint32_t cell;

        result = oldest_dead(&work, &cell);
        if (result == QUEUE_OK && !announce(&work))
            result = QUEUE_SYSTEM;
        if (result != QUEUE_OK)
            break;
        head_of(&work, cell)->as.leased.settled = head_of(&work, cell)->as.leased.deliveries;
        change(&work, cell, CELL_READY);
        ++*count;
    }
    leave(&work);
    return *count != 0 || result == QUEUE_EMPTY ? QUEUE_OK : result;
}

enum queue_result lease_clear_dead(struct queue *queue, size_t *count, int64_t patience)
{
    struct work work;
    enum queue_result result = QUEUE_OK;
    uint32_t cell;

    *count = 0;
    if (condition_of(queue) == QUEUE_GONE)
        return QUEUE_GONE;
    if (!enter_tended(&work, queue, patience))
        return QUEUE_BUSY;
    for (; *count < work.cells.count && (result = oldest_dead(&work, &cell)) == QUEUE_OK; ++*count)
        drop(&work, cell);
    leave(&work);
    return result == QUEUE_EMPTY ? QUEUE_OK : result;
}

static bool lease_enter(struct queue *queue, int64_t patience)
{
    struct work work;

    return enter(&work, queue, patience);
}

const struct flavour lease_flavour = {
    .enter_put = lease_enter,
    .put = lease_put,
    .put_many = lease_put_many,
    .get = lease_get,
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
