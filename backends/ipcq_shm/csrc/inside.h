/* What the files around the ring share: how words of a segment are read and written, and how a side commits. */
#ifndef IPCQ_INSIDE_H
#define IPCQ_INSIDE_H

#include "ring.h"

static inline uint64_t load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

static inline uint64_t peek_at(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline void note(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static inline size_t message_size(const struct ring_piece *piece)
{
    return piece->head_size + piece->size;
}

static inline uint32_t asleep_on(struct bell *bell)
{
    return atomic_load_explicit(&bell->asleep, memory_order_seq_cst);
}

static inline uint32_t watch_of(const struct ring *ring)
{
    return atomic_load_explicit(&ring->segment->state.watch, memory_order_relaxed);
}

/* What stands for this participant in the segment, with the state of a record or 0. */
static inline uint64_t own_word(const struct ring *ring, uint64_t state)
{
    return (uint64_t)ring->generation << 32 | (uint64_t)ring->slot << 8 | state;
}

/* Called by who waited in vain for the lock of a side: notes for others who holds it, and since when. */
void ring_note_holder(struct ring *ring, struct ring_side *side);

/* Takes the producers' lock, and sees to what its last owner left if that one died. leave_put gives it back. */
bool ring_enter_put(struct ring *ring, int64_t patience);

static inline void leave_put(struct ring *ring)
{
    lock_give(&ring->segment->put.lock);
}

static inline struct ring_mark *mark_at(struct ring_side *side, uint64_t position)
{
    return &side->marks[load(&side->marks[0].position) == position ? 0 : 1];
}

/* The store that makes it so. The lock of the side is held. */
static inline void commit_totals(struct ring_side *side, uint64_t position, uint64_t count, uint64_t bytes)
{
    struct ring_mark *now = mark_at(side, peek_at(&side->position));
    struct ring_mark *next = &side->marks[now == side->marks];

    /* Release, because a reader that meets a part of it must see that the position is no longer what it was. The mark's
     * own position is last, so that the mark counts from one store on. */
    atomic_store_explicit(&next->count, count, memory_order_release);
    atomic_store_explicit(&next->bytes, bytes, memory_order_release);
    atomic_store_explicit(&next->position, position, memory_order_release);
    atomic_store_explicit(&side->position, position, memory_order_seq_cst);
}

static inline void commit(struct ring_side *side, uint64_t position, uint64_t count, uint64_t bytes)
{
    const struct ring_mark *now = mark_at(side, peek_at(&side->position));

    commit_totals(side, position, peek_at(&now->count) + count, peek_at(&now->bytes) + bytes);
}

#endif
