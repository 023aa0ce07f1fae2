/*
 * Heaps of first cells, for the orders of messages: the smallest is at place 0.
 *
 * All lie in one array with a word for each cell. With priorities alone there is one heap. In a queue with leases each
 * message takes two cells or more, so the words suffice for two heaps from the ends of each half:
 *
 *     ready ->    <- delayed | holds ->    <- dead
 *
 * The words may hold any number. A cell's number that is too large ranks last.
 */
#ifndef IPCQ_HEAP_H
#define IPCQ_HEAP_H

#include "chain.h"

enum heap {
    HEAP_READY,   /* by key: highest priority, then oldest */
    HEAP_DELAYED, /* by the end of the delay, then oldest */
    HEAP_HOLDS,   /* leases that have an end: by that end */
    HEAP_DEAD,    /* dead letters: oldest */
};

struct heap_rank {
    uint64_t first, second;
};

static inline _Atomic uint32_t *heap_word(const struct cells *cells, enum heap which, uint64_t place)
{
    switch (which) {
    case HEAP_READY:
        return &cells->heap[place];
    case HEAP_DELAYED:
        return &cells->heap[cells->count / 2 - 1 - place];
    case HEAP_HOLDS:
        return &cells->heap[cells->count / 2 + place];
    default:
        return &cells->heap[cells->count - 1 - place];
    }
}

static inline _Atomic uint32_t *heap_size(const struct cells *cells, enum heap which)
{
    switch (which) {
    case HEAP_READY:
        return &cells->index->ready;
    case HEAP_DELAYED:
        return &cells->leases->delayed;
    case HEAP_HOLDS:
        return &cells->leases->holds;
    default:
        return &cells->leases->dead;
    }
}

/* The number of its messages; at most as many as it has words. */
static inline uint32_t heap_count(const struct cells *cells, enum heap which)
{
    uint64_t most = cells->leases == NULL ? cells->count : cells->count / 2;
    uint32_t count = get32(heap_size(cells, which));

    return count <= most ? count : (uint32_t)most;
}

static inline struct heap_rank heap_rank(const struct cells *cells, enum heap which, uint64_t place)
{
    uint32_t cell = get32(heap_word(cells, which, place));

    if (cell >= cells->count)
        return (struct heap_rank){UINT64_MAX, UINT64_MAX};
    if (which == HEAP_READY)
        return (struct heap_rank){key_of(cells, cell), 0};
    if (which == HEAP_DEAD)
        return (struct heap_rank){number_of(cells, cell), 0};
    /* Signed times in the order of unsigned numbers. */
    return (struct heap_rank){(uint64_t)*(volatile int64_t *)&cells->cell[cell].as.leased.due ^ UINT64_C(1) << 63,
                              number_of(cells, cell)};
}

static inline bool heap_less(const struct cells *cells, enum heap which, uint64_t one, uint64_t other)
{
    struct heap_rank left = heap_rank(cells, which, one);
    struct heap_rank right = heap_rank(cells, which, other);

    return left.first < right.first || (left.first == right.first && left.second < right.second);
}

static inline void heap_set(const struct cells *cells, enum heap which, uint64_t place, uint32_t cell)
{
    set32(heap_word(cells, which, place), cell);
    if (which == HEAP_HOLDS && cell < cells->count)
        cells->cell[cell].as.leased.place = (uint32_t)place;
}

static inline void heap_exchange(const struct cells *cells, enum heap which, uint64_t one, uint64_t other)
{
    uint32_t cell = get32(heap_word(cells, which, one));

    heap_set(cells, which, one, get32(heap_word(cells, which, other)));
    heap_set(cells, which, other, cell);
}

static inline void heap_sink(const struct cells *cells, enum heap which, uint64_t place, uint64_t count)
{
    for (;;) {
        uint64_t least = place;

        for (uint64_t child = 2 * place + 1; child <= 2 * place + 2 && child < count; child++)
            if (heap_less(cells, which, child, least))
                least = child;
        if (least == place)
            return;
        heap_exchange(cells, which, place, least);
        place = least;
    }
}

static inline void heap_rise(const struct cells *cells, enum heap which, uint64_t place)
{
    while (place != 0 && heap_less(cells, which, place, (place - 1) / 2)) {
        heap_exchange(cells, which, place, (place - 1) / 2);
        place = (place - 1) / 2;
    }
}

/* Adds a message, unless the heap is full, which only an attacker makes it. */
static inline void heap_push(const struct cells *cells, enum heap which, uint32_t cell)
{
    uint64_t most = cells->leases == NULL ? cells->count : cells->count / 2;
    uint32_t count = get32(heap_size(cells, which));

    if (count < most) {
        heap_set(cells, which, count, cell);
        set32(heap_size(cells, which), count + 1);
        heap_rise(cells, which, count);
    }
}

/* Removes the message at a place; does nothing if the heap has no such place. */
static inline void heap_remove(const struct cells *cells, enum heap which, uint64_t place)
{
    uint32_t count = heap_count(cells, which);
    uint32_t last = count - 1;

    if (place >= count)
        return;
    heap_set(cells, which, place, get32(heap_word(cells, which, last)));
    set32(heap_size(cells, which), last);
    if (place < last) {
        heap_sink(cells, which, place, last);
        heap_rise(cells, which, place);
    }
}

/* Returns the first message; the number of cells if there is none, or its number is invalid. */
static inline uint64_t heap_top(const struct cells *cells, enum heap which)
{
    uint32_t cell = heap_count(cells, which) == 0 ? UINT32_MAX : get32(heap_word(cells, which, 0));

    return cell < cells->count ? cell : cells->count;
}

/* Notes when the first delay or hold ends. */
static inline void heap_note_next(const struct cells *cells)
{
    int64_t next = INT64_MAX;

    for (int which = HEAP_DELAYED; which <= HEAP_HOLDS; which++) {
        uint64_t cell = heap_top(cells, (enum heap)which);

        if (cell < cells->count) {
            int64_t due = *(volatile int64_t *)&cells->cell[cell].as.leased.due;

            next = due < next ? due : next;
        }
    }
    atomic_store_explicit(&cells->leases->next, next, memory_order_relaxed);
}

/* Orders so many words that were written in any order. */
static inline void heap_build(const struct cells *cells, enum heap which, uint32_t count)
{
    set32(heap_size(cells, which), count);
    for (uint32_t place = count / 2; place-- > 0;)
        heap_sink(cells, which, place, count);
}

#endif
