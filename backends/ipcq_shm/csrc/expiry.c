#include "expiry.h"

#include "cells.h"
#include "clock.h"
#include "heap.h"
#include "lock.h"
#include "participant.h"
#include "transition.h"

/* How often the holders of leases are checked, by all participants together, in nanoseconds. */
#define CHECK_EVERY 20000000

static const unsigned char holder_died[] = LEASE_HOLDER_DIED;
static const unsigned char hold_ended[] = LEASE_HOLD_ENDED;

/* Returns whether the first message of a heap is due. */
static bool is_due(const struct cells *cells, enum heap which, int64_t now)
{
    uint64_t cell = heap_top(cells, which);

    return cell < cells->count && *(volatile int64_t *)&cells->cell[cell].as.leased.due <= now;
}

bool expiry_end_hold(struct work *work, uint32_t cell)
{
    return transition_fail(work, cell, 0, hold_ended, sizeof hold_ended - 1);
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
        return expiry_end_hold(work, cell);
    if (!work_announce(work))
        return false;
    transition_to(work, cell, CELL_READY);
    return true;
}

/* Does up to EXPIRY_STEP of what is due, and returns whether more may be. */
static bool tend_some(struct work *work)
{
    int64_t now;
    int step = 0;

    if (!clock_has_come(atomic_load_explicit(&work->cells.leases->next, memory_order_relaxed)))
        return false;
    now = clock_now();
    while (step < EXPIRY_STEP && tend_one(work, now))
        step++;
    heap_note_next(&work->cells);
    return step == EXPIRY_STEP;
}

bool expiry_enter(struct work *work, struct queue *queue, int64_t patience)
{
    for (uint32_t rounds = 0;; rounds++) {
        if (!work_enter(work, queue, patience))
            return false;
        /* A bound, because an attacker may keep something due. */
        if (!tend_some(work) || rounds > work->cells.count / EXPIRY_STEP)
            return true;
        work_leave(work);
    }
}

bool expiry_return_all(struct work *work, uint64_t owner, bool failed)
{
    for (uint32_t cell = 0; cell < work->cells.count; cell++)
        if (state_of(&work->cells, cell) == CELL_LEASED &&
            *(volatile uint64_t *)&work_head(work, cell)->as.leased.owner == owner &&
            !(failed ? transition_fail(work, cell, 0, holder_died, sizeof holder_died - 1)
                     : transition_release(work, cell, 0)))
            return false;
    return true;
}

uint64_t expiry_holder(const struct queue *queue, uint32_t slot)
{
    return (uint64_t)get32(&queue->holders[slot].generation) << 32 | (uint64_t)slot << 8;
}

void expiry_check_holders(struct queue *queue, int64_t patience)
{
    struct lease_index *leases = &queue->segment->leases;
    int64_t looked = atomic_load_explicit(&leases->looked, memory_order_relaxed);
    struct cells cells;
    struct work work;
    int64_t now;

    /* The dead owner may have left a lease that is not counted yet. If nothing else is ready, nobody would find it. */
    if (lock_abandoned(&queue->segment->put.lock) && work_enter(&work, queue, patience))
        work_leave(&work);
    if (get32(&leases->leased) == 0)
        return;
    now = clock_now_coarse();
    /* Unsigned, since the segment may hold any number. One of those who come here at the same time goes on. */
    if ((uint64_t)now - (uint64_t)looked < CHECK_EVERY ||
        !atomic_compare_exchange_strong_explicit(&leases->looked, &looked, now, memory_order_relaxed,
                                                 memory_order_relaxed))
        return;
    cells = cells_of(queue);
    for (uint32_t slot = 0; slot < holders_of(&cells); slot++) {
        uint64_t owner;

        if (get32(&queue->holders[slot].leases) == 0)
            continue;
        owner = expiry_holder(queue, slot);
        if (participant_lends(queue, owner))
            continue;
        if (!work_enter(&work, queue, patience)) {
            atomic_store_explicit(&leases->looked, 0, memory_order_relaxed); /* the next one tries again */
            return;
        }
        expiry_return_all(&work, owner, true);
        work_leave(&work);
    }
}
