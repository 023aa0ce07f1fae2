#include "transition.h"

#include "heap.h"
#include "participant.h"
#include "side.h"

/* Takes a message whose state has changed out of what was derived from its last state; `word` was its word there. A
 * message that was not LEASED was at the top of its heap. */
static void unlist(struct work *work, uint32_t cell, uint32_t word)
{
    const struct cells *cells = &work->cells;
    uint32_t slot = participant_slot(*(volatile uint64_t *)&work_head(work, cell)->as.leased.owner);
    uint32_t place = *(volatile uint32_t *)&work_head(work, cell)->as.leased.place;
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

/* First out of the one heap, then into the other: they share their words. */
void transition_to(struct work *work, uint32_t cell, uint32_t state)
{
    uint32_t word = get32(&work->cells.heads[cell]);

    work_set_state(work, cell, state);
    unlist(work, cell, word);
    list(work, cell, state);
    if (word & CELL_HELD || state & CELL_HELD || (state & CELL_STATE) == CELL_DELAYED)
        work_note_next(work);
}

void transition_to_dead(struct work *work, uint32_t cell, const unsigned char *reason, size_t reason_size)
{
    if (!chain_copy_reason(&work->cells, cell, size_of(&work->cells, cell), NULL, reason, reason_size))
        reason_size = 0;
    work_head(work, cell)->as.leased.reason_size = (uint32_t)reason_size;
    transition_to(work, cell, CELL_DEAD);
}

void transition_to_delayed(struct work *work, uint32_t cell, int64_t due)
{
    work_head(work, cell)->as.leased.due = due;
    transition_to(work, cell, CELL_DELAYED);
}

static void count_return(const struct work *work)
{
    atomic_fetch_add_explicit(&work->cells.leases->returned, 1, memory_order_relaxed);
}

bool transition_fail(struct work *work, uint32_t cell, int64_t due, const unsigned char *reason, size_t reason_size)
{
    if (lease_failed_too_often(work->queue->max_deliveries, work_head(work, cell)))
        transition_to_dead(work, cell, reason, reason_size);
    else if (due != 0)
        transition_to_delayed(work, cell, due);
    else if (work_announce(work))
        transition_to(work, cell, CELL_READY);
    else
        return false;
    count_return(work);
    return true;
}

bool transition_release(struct work *work, uint32_t cell, int64_t due)
{
    if (due == 0 && !work_announce(work))
        return false;
    work_head(work, cell)->as.leased.settled++;
    if (due != 0)
        transition_to_delayed(work, cell, due);
    else
        transition_to(work, cell, CELL_READY);
    count_return(work);
    return true;
}

void transition_drop(struct work *work, uint32_t cell)
{
    struct side *get = &work->queue->segment->get;
    size_t size = size_of(&work->cells, cell);

    if (size > work->queue->max_message_size) {
        set32(&work->cells.index->built, 0); /* damaged */
        size = 0;
    }
    transition_to(work, cell, CELL_NONE);
    chain_free(&work->cells, cell, size);
    side_commit(get, word_peek(&get->position) + 1, 1, size);
    work->freed = true;
}
