/*
 * A side of a queue, producers or consumers: its words, how it commits, and how much went through it.
 *
 * Counts. The number of messages and bytes that have been put must be right for every position, but cannot be stored in
 * one step with it. So each side has two marks {position, count, bytes}: the one whose position is the side's current
 * position counts, and a commit fills the other one first.
 */
#ifndef IPCQ_SIDE_H
#define IPCQ_SIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "flavour.h"
#include "handle.h"
#include "layout.h"
#include "lock.h"

static inline uint64_t word_load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

static inline uint64_t word_peek(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline void word_note(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static inline void side_leave(struct side *side)
{
    lock_give(&side->lock);
}

static inline struct side_mark *side_mark_at(struct side *side, uint64_t position)
{
    return &side->marks[word_load(&side->marks[0].position) == position ? 0 : 1];
}

/* Commits: one store changes the position. The caller holds the side's lock; `now` is the mark that is valid so far. */
static inline void side_commit_totals(struct side *side, const struct side_mark *now, uint64_t position, uint64_t count,
                                      uint64_t bytes)
{
    struct side_mark *next = &side->marks[now == side->marks];

    /* Release, because a reader that sees part of it must also see that the position has changed. The mark's own
     * position comes last, so that one store makes the mark count. */
    atomic_store_explicit(&next->count, count, memory_order_release);
    atomic_store_explicit(&next->bytes, bytes, memory_order_release);
    atomic_store_explicit(&next->position, position, memory_order_release);
    atomic_store_explicit(&side->position, position, memory_order_seq_cst);
}

/* The same with so much more than before. */
static inline void side_commit(struct side *side, uint64_t position, uint64_t count, uint64_t bytes)
{
    const struct side_mark *now = side_mark_at(side, word_peek(&side->position));

    side_commit_totals(side, now, position, word_peek(&now->count) + count, word_peek(&now->bytes) + bytes);
}

static inline void side_count_dropped(struct queue *queue, uint64_t messages)
{
    atomic_fetch_add_explicit(&queue->segment->figures.dropped, messages, memory_order_relaxed);
}

/* How much went through the side, read without the lock. False if the side kept moving. */
static inline bool side_total(struct side *side, struct queue_total *total, uint64_t *position)
{
    for (int tries = 0; tries < 100; tries++) {
        struct side_mark *mark;

        *position = word_load(&side->position);
        mark = side_mark_at(side, *position);
        total->count = word_load(&mark->count);
        total->bytes = word_load(&mark->bytes);
        if (word_load(&side->position) == *position)
            return true;
    }
    return false;
}

/* How much was ever put and got, at one instant. */
void side_totals(struct queue *queue, struct queue_total *put, struct queue_total *got);

/* Returns whether the two sides are at the same position. */
static inline bool side_both_equal(struct queue *queue)
{
    return atomic_load_explicit(&queue->segment->put.position, memory_order_seq_cst) ==
           atomic_load_explicit(&queue->segment->get.position, memory_order_seq_cst);
}

/* Returns whether a get would find no message. */
static inline bool side_is_empty(struct queue *queue)
{
    return queue->flavour->is_empty == NULL ? side_both_equal(queue) : queue->flavour->is_empty(queue);
}

#endif
