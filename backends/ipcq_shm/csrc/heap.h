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
    HEAP_VICTIMS, /* the ready ones, ordered for a moment as they are dropped: lowest priority, then oldest */
};

struct heap_rank {
    uint64_t first, second;
};

static inline _Atomic uint32_t *heap_word(const struct cells *cells, enum heap which, uint64_t place)
{
    switch (which) {
    case HEAP_READY:
    case HEAP_VICTIMS:
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
    case HEAP_VICTIMS:
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

static inline struct heap_rank heap_rank(const struct cells *cells, enum heap which, uint32_t cell)
{
    if (cell >= cells->count)
        return (struct heap_rank){UINT64_MAX, UINT64_MAX};
    if (which == HEAP_READY)
        return (struct heap_rank){key_of(cells, cell), 0};
    if (which == HEAP_VICTIMS)
        return (struct heap_rank){HIGHEST - (key_of(cells, cell) >> NUMBER_BITS), number_of(cells, cell)};
    if (which == HEAP_DEAD)
        return (struct heap_rank){number_of(cells, cell), 0};
    /* Signed times in the order of unsigned numbers. */
    return (struct heap_rank){(uint64_t)*(volatile int64_t *)&cells->cell[cell].as.leased.due ^ UINT64_C(1) << 63,
                              number_of(cells, cell)};
}

static inline bool heap_less(struct heap_rank left, struct heap_rank right)
{
    return left.first < right.first || (left.first == right.first && left.second < right.second);
}

static inline void heap_set(const struct cells *cells, enum heap which, uint64_t place, uint32_t cell)
{
    set32(heap_word(cells, which, place), cell);
    if (which == HEAP_HOLDS && cell < cells->count)
        cells->cell[cell].as.leased.place = (uint32_t)place;
}

/* A message that moves is written at its last place only, and each rank is read once: the cells of a large heap are far
 * apart in memory. */

/* Moves a message down from a place whose word is free, until none below ranks before it. */
static inline void heap_sink(const struct cells *cells, enum heap which, uint64_t place, uint64_t count, uint32_t cell)
{
    struct heap_rank rank = heap_rank(cells, which, cell);
    uint64_t child;

    while ((child = 2 * place + 1) < count) {
        uint32_t least = get32(heap_word(cells, which, child));
        struct heap_rank least_rank = heap_rank(cells, which, least);

        if (child + 1 < count) {
            uint32_t right = get32(heap_word(cells, which, child + 1));
            struct heap_rank right_rank = heap_rank(cells, which, right);

            if (heap_less(right_rank, least_rank)) {
                child++;
                least = right;
                least_rank = right_rank;
            }
        }
        if (!heap_less(least_rank, rank))
            break;
        heap_set(cells, which, place, least);
        place = child;
    }
    heap_set(cells, which, place, cell);
}

/* Moves a message up from a place whose word is free, until none above ranks behind it. Returns its place. */
static inline uint64_t heap_rise(const struct cells *cells, enum heap which, uint64_t place, uint32_t cell)
{
    struct heap_rank rank = heap_rank(cells, which, cell);

    while (place != 0) {
        uint64_t parent = (place - 1) / 2;
        uint32_t above = get32(heap_word(cells, which, parent));

        if (!heap_less(rank, heap_rank(cells, which, above)))
            break;
        heap_set(cells, which, place, above);
        place = parent;
    }
    heap_set(cells, which, place, cell);
    return place;
}

/* Adds a message, unless the heap is full, which only an attacker makes it. */
static inline void heap_push(const struct cells *cells, enum heap which, uint32_t cell)
{
    uint64_t most = cells->leases == NULL ? cells->count : cells->count / 2;
    uint32_t count = get32(heap_size(cells, which));

    if (count < most) {
        set32(heap_size(cells, which), count + 1);
        heap_rise(cells, which, count, cell);
    }
}

/* Removes the message at a place; does nothing if the heap has no such place. */
static inline void heap_remove(const struct cells *cells, enum heap which, uint64_t place)
{
    uint32_t count = heap_count(cells, which);
    uint32_t last = count - 1;
    uint32_t cell;

    if (place >= count)
        return;
    cell = get32(heap_word(cells, which, last));
    set32(heap_size(cells, which), last);
    if (place < last && heap_rise(cells, which, place, cell) == place)
        heap_sink(cells, which, place, last, cell);
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
        heap_sink(cells, which, place, count, get32(heap_word(cells, which, place)));
}

#endif
