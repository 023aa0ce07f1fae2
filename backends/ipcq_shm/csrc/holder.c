#include "holder.h"

#include "clock.h"
#include "flavour.h"
#include "lock.h"
#include "side.h"

static struct side *side_of(struct queue *queue, bool getting)
{
    return getting && !queue->flavour->one_lock ? &queue->segment->get : &queue->segment->put;
}

static _Atomic bool *busy_of(struct queue *queue, const struct side *side)
{
    return side == &queue->segment->get ? &queue->get_busy : &queue->put_busy;
}

void holder_note(struct queue *queue, struct side *side)
{
    uint32_t owner = lock_owner(&side->lock);
    uint64_t position = word_peek(&side->position);

    atomic_store_explicit(busy_of(queue, side), true, memory_order_relaxed);
    if (owner == 0 || (atomic_load_explicit(&side->holder, memory_order_relaxed) == owner &&
                       word_peek(&side->holder_position) == position))
        return;
    word_note(&side->holder_position, position);
    atomic_store_explicit(&side->holder_since, clock_now(), memory_order_relaxed);
    atomic_store_explicit(&side->holder, owner, memory_order_release);
}

void holder_note_writer(struct side *get)
{
    uint64_t position = word_peek(&get->position);

    if (atomic_load_explicit(&get->holder, memory_order_relaxed) == 0 && word_peek(&get->holder_position) == position &&
        atomic_load_explicit(&get->holder_since, memory_order_relaxed) != 0)
        return;
    word_note(&get->holder_position, position);
    atomic_store_explicit(&get->holder_since, clock_now(), memory_order_relaxed);
    atomic_store_explicit(&get->holder, 0, memory_order_release);
}

bool holder_found_busy(struct queue *queue, bool getting)
{
    _Atomic bool *busy = busy_of(queue, side_of(queue, getting));

    if (!atomic_load_explicit(busy, memory_order_relaxed))
        return false;
    atomic_store_explicit(busy, false, memory_order_relaxed);
    return true;
}

bool holder_seems_busy(struct queue *queue, bool getting)
{
    return atomic_load_explicit(busy_of(queue, side_of(queue, getting)), memory_order_relaxed);
}

void holder_await(struct queue *queue, bool getting, int64_t until)
{
    lock_await(&side_of(queue, getting)->lock, until - clock_now());
}

struct holder holder_find(struct queue *queue, bool getting)
{
    struct side *side = side_of(queue, getting);
    struct holder found = {.thread = lock_owner(&side->lock), .writer = -1};
    uint64_t position;

    if (found.thread != 0) {
        if (atomic_load_explicit(&side->holder, memory_order_acquire) == found.thread &&
            word_peek(&side->holder_position) == word_peek(&side->position))
            found.since = atomic_load_explicit(&side->holder_since, memory_order_relaxed);
        return found;
    }
    if (getting && queue->flavour->writer != NULL) {
        position = word_load(&side->position);
        found.writer = queue->flavour->writer(queue, position);
        if (found.writer >= 0 && atomic_load_explicit(&side->holder, memory_order_acquire) == 0 &&
            word_peek(&side->holder_position) == position)
            found.since = atomic_load_explicit(&side->holder_since, memory_order_relaxed);
    }
    return found;
}
