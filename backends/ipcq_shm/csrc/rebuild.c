#include "rebuild.h"

#include "heap.h"
#include "participant.h"
#include "side.h"

static const char died[] = LEASE_HOLDER_DIED;

/* Marks the cells of a message in the heap's array, which is unused meanwhile; false if they are not a message's. */
static bool mark_chain(const struct cells *cells, uint32_t cell, uint64_t length)
{
    for (; length != 0; length--) {
        if (cell >= cells->count || get32(&cells->heap[cell]) != 0)
            return false;
        set32(&cells->heap[cell], 1);
        cell = get32(&cells->next[cell]);
    }
    return true;
}

/* A state that a message of this queue can have. */
static bool is_message(const struct cells *cells, uint32_t cell)
{
    uint32_t state = atomic_load_explicit(&cells->heads[cell], memory_order_acquire) & CELL_STATE;

    return state == CELL_READY || (cells->leases != NULL && state != CELL_NONE && state <= CELL_DEAD);
}

/* Counts the lease for its holder; false if there cannot be such a holder. */
static bool count_lease(const struct queue *queue, const struct cells *cells, uint32_t cell)
{
    uint64_t owner = *(volatile uint64_t *)&cells->cell[cell].as.leased.owner;
    uint32_t slot = participant_slot(owner);
    struct lease_holder *holder = &queue->holders[slot < LAYOUT_SLOTS ? slot : 0];

    if (slot >= LAYOUT_SLOTS || (get32(&holder->leases) != 0 && get32(&holder->generation) != (uint32_t)(owner >> 32)))
        return false;
    if (get32(&cells->leases->slots) <= slot)
        set32(&cells->leases->slots, slot + 1);
    set32(&holder->generation, (uint32_t)(owner >> 32));
    set32(&holder->leases, get32(&holder->leases) + 1);
    return true;
}

/* Ends what a kill has left between two states, and puts the message into the heap of its state. */
static void sort_in(const struct queue *queue, const struct cells *cells, uint32_t cell, uint32_t counts[])
{
    uint32_t word = get32(&cells->heads[cell]);
    uint32_t state = word & CELL_STATE;
    enum heap which = HEAP_READY;

    if (cells->leases != NULL) {
        if (state == CELL_LEASED && !count_lease(queue, cells, cell))
            state = CELL_READY;
        if (state == CELL_READY && lease_failed_too_often(queue->max_deliveries, &cells->cell[cell])) {
            if (chain_copy_reason(cells, cell, size_of(cells, cell), NULL, (const unsigned char *)died,
                                  sizeof died - 1))
                cells->cell[cell].as.leased.reason_size = sizeof died - 1;
            state = CELL_DEAD;
        }
        if (state != (word & CELL_STATE))
            atomic_store_explicit(&cells->heads[cell], (word & CELL_PARCEL) | state, memory_order_seq_cst);
    }
    if (state == CELL_LEASED) {
        set32(&cells->leases->leased, get32(&cells->leases->leased) + 1);
        if (!(word & CELL_HELD))
            return;
        which = HEAP_HOLDS;
    } else if (state == CELL_DELAYED) {
        which = HEAP_DELAYED;
    } else if (state == CELL_DEAD) {
        which = HEAP_DEAD;
    }
    heap_set(cells, which, counts[which]++, cell);
}

static void forget_leases(struct queue *queue, const struct cells *cells)
{
    set32(&cells->leases->leased, 0);
    atomic_store_explicit(&cells->leases->looked, 0, memory_order_relaxed);
    for (uint32_t slot = 0; slot < holders_of(cells); slot++)
        set32(&queue->holders[slot].leases, 0);
}

void rebuild(struct queue *queue, const struct cells *cells)
{
    struct side *put = &queue->segment->put;
    struct side *get = &queue->segment->get;
    uint64_t committed = word_peek(&put->position);
    uint64_t got = word_peek(&get->position);
    const struct side_mark *totals = side_mark_at(put, committed);
    uint32_t counts[4] = {0};
    uint64_t bytes = 0;
    uint32_t kept = 0;
    uint32_t spare = 0;
    uint32_t first = 0;

    for (uint32_t cell = 0; cell < cells->count; cell++)
        set32(&cells->heap[cell], 0);
    for (uint32_t cell = 0; cell < cells->count; cell++) {
        uint32_t size;

        if (!is_message(cells, cell)) {
            if (get32(&cells->heads[cell]) != CELL_NONE)
                set32(&cells->heads[cell], CELL_NONE);
            continue;
        }
        size = size_of(cells, cell);
        if (number_of(cells, cell) < (committed & NUMBERS) && size <= queue->max_message_size &&
            mark_chain(cells, cell, cells_for(size, cells->flags))) {
            bytes += size;
            kept++;
        } else {
            set32(&cells->heads[cell], CELL_NONE);
        }
    }
    for (uint32_t cell = (uint32_t)cells->count; cell-- > 0;) {
        if (get32(&cells->heap[cell]) == 0) {
            set32(&cells->next[cell], first);
            first = cell;
            spare++;
        }
    }
    if (cells->leases != NULL)
        forget_leases(queue, cells);
    for (uint32_t cell = 0; cell < cells->count; cell++)
        if (get32(&cells->heads[cell]) != CELL_NONE)
            sort_in(queue, cells, cell, counts);
    heap_build(cells, HEAP_READY, counts[HEAP_READY]);
    if (cells->leases != NULL) {
        heap_build(cells, HEAP_DELAYED, counts[HEAP_DELAYED]);
        heap_build(cells, HEAP_HOLDS, counts[HEAP_HOLDS]);
        heap_build(cells, HEAP_DEAD, counts[HEAP_DEAD]);
        heap_note_next(cells);
    }
    set32(&cells->index->first_free, first);
    set32(&cells->index->free_cells, spare);
    if (got != committed - kept)
        side_commit_totals(get, side_mark_at(get, got), committed - kept, word_peek(&totals->count) - kept,
                           word_peek(&totals->bytes) - bytes);
    set32(&cells->index->built, 1);
}
