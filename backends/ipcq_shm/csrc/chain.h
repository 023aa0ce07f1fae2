/* Chains: the cells of a queue, and how a message is stored in a chain of them (cells.h explains the layout). */
#ifndef IPCQ_CHAIN_H
#define IPCQ_CHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "handle.h"
#include "layout.h"

#define NUMBER_BITS 48
#define NUMBERS ((UINT64_C(1) << NUMBER_BITS) - 1)
#define HIGHEST 32767u

/* The arrays of one queue. */
struct cells {
    uint64_t count;
    struct cell *cell;
    _Atomic uint32_t *next;
    _Atomic uint32_t *heads;
    _Atomic uint32_t *heap;
    struct cells_index *index;
    struct lease_index *leases; /* NULL without leases */
    uint32_t flags;
    uint32_t first; /* bytes of a message in its first cell */
};

static inline struct cells cells_of(struct queue *queue)
{
    struct cells cells = {.count = queue->limit / CELL_COST, .cell = (struct cell *)queue->data};

    cells.next = (_Atomic uint32_t *)(queue->data + cells.count * CELL_SIZE);
    cells.heads = cells.next + cells.count;
    cells.heap = cells.heads + cells.count;
    cells.index = &queue->segment->cells;
    cells.leases = queue->flags & FLAG_LEASES ? &queue->segment->leases : NULL;
    cells.flags = queue->flags;
    cells.first = queue->flags & FLAG_LEASES ? CELL_FIRST_LEASED : CELL_FIRST;
    return cells;
}

static inline uint32_t get32(const _Atomic uint32_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline void set32(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static inline uint64_t key_of(const struct cells *cells, uint32_t cell)
{
    return *(volatile uint64_t *)&cells->cell[cell].as.first.key;
}

static inline uint64_t number_of(const struct cells *cells, uint32_t cell)
{
    return key_of(cells, cell) & NUMBERS;
}

static inline uint32_t size_of(const struct cells *cells, uint32_t cell)
{
    return *(volatile uint32_t *)&cells->cell[cell].as.first.size;
}

static inline uint32_t state_of(const struct cells *cells, uint32_t cell)
{
    return get32(&cells->heads[cell]) & CELL_STATE;
}

/* How many slots have to be looked at for holders of leases. */
static inline uint32_t holders_of(const struct cells *cells)
{
    uint32_t slots = get32(&cells->leases->slots);

    return slots <= LAYOUT_SLOTS ? slots : LAYOUT_SLOTS;
}

/* Copies between a message and its chain; returns the last cell, or the number of cells if a link is invalid. */
static inline uint64_t chain_copy(const struct cells *cells, uint64_t cell, unsigned char *out, const unsigned char *in,
                                  size_t size)
{
    size_t part = size < cells->first ? size : cells->first;
    unsigned char *place = cells->cell[cell].as.more + CELL_SIZE - cells->first;

    for (;;) {
        if (out != NULL)
            memcpy(out, place, part);
        if (in != NULL)
            memcpy(place, in, part);
        size -= part;
        if (size == 0)
            return cell;
        out = out == NULL ? NULL : out + part;
        in = in == NULL ? NULL : in + part;
        cell = get32(&cells->next[cell]);
        if (cell >= cells->count)
            return cells->count;
        part = size < CELL_SIZE ? size : CELL_SIZE;
        place = cells->cell[cell].as.more;
    }
}

/* Returns the last cell of a chain of so many cells, or the number of cells if a link is invalid. */
static inline uint64_t chain_last(const struct cells *cells, uint64_t cell, uint64_t length)
{
    while (--length != 0 && cell < cells->count)
        cell = get32(&cells->next[cell]);
    return cell < cells->count ? cell : cells->count;
}

/* Adds the chain of a message of this size to the free cells. */
static inline void chain_free(const struct cells *cells, uint32_t cell, size_t size)
{
    uint64_t length = cells_for(size, cells->flags);
    uint64_t last = chain_last(cells, cell, length);

    if (last < cells->count) {
        set32(&cells->next[last], get32(&cells->index->first_free));
        set32(&cells->index->first_free, cell);
        set32(&cells->index->free_cells, get32(&cells->index->free_cells) + (uint32_t)length);
    }
}

/* The reason of a failure that the holder did not give. */
#define LEASE_HOLDER_DIED "its holder died"
#define LEASE_HOLD_ENDED "its hold ended"

/* Returns how often a message that is not leased has failed. */
static inline uint32_t lease_failures(const struct cell *cell)
{
    return *(volatile uint32_t *)&cell->as.leased.deliveries - *(volatile uint32_t *)&cell->as.leased.settled;
}

/* Returns whether a message that is not leased has failed so often that it is a dead letter; 0: there is no bound. */
static inline bool lease_failed_too_often(uint32_t most, const struct cell *cell)
{
    return most != 0 && lease_failures(cell) >= most;
}

/* Copies between the room for a reason behind a message of this size and up to CELL_REASON bytes; false if a link is
 * invalid. */
bool chain_copy_reason(const struct cells *cells, uint32_t cell, size_t size, unsigned char *out,
                       const unsigned char *in, size_t count);

#endif
