#include "dead.h"

#include "cells.h"
#include "condition.h"
#include "expiry.h"
#include "heap.h"
#include "transition.h"

static void describe(const struct work *work, uint32_t cell, struct lease_dead *letter)
{
    const struct cell *head = work_head(work, cell);
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
    if (!expiry_enter(&work, queue, patience))
        return QUEUE_BUSY;
    result = oldest_dead(&work, &cell);
    if (result == QUEUE_OK && number_of(&work.cells, cell) + 1 != number) {
        result = QUEUE_EMPTY;
        if (is_dead(&work, number)) /* the order is damaged, so a caller that peeks again would find it again */
            set32(&work.cells.index->built, 0);
    }
    if (result == QUEUE_OK)
        transition_drop(&work, cell);
    work_leave(&work);
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
    expiry_check_holders(queue, patience);
    if (!expiry_enter(&work, queue, patience))
        return QUEUE_BUSY;
    there = oldest_above(&work, after, letters, limit);
    while (*found < there && result == QUEUE_OK) {
        result = copy_dead(&work, letters[*found].deliveries, room, context, &letters[*found]);
        *found += result == QUEUE_OK;
    }
    work_leave(&work);
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
    if (!expiry_enter(&work, queue, patience))
        return QUEUE_BUSY;
    result = work_down(queue) != 0 ? QUEUE_DOWN : QUEUE_OK;
    there = heap_count(&work.cells, HEAP_DEAD); /* one pass, even if what is made ready dies again */
    while (result == QUEUE_OK && *count < limit && *count < there) {
        uint32_t cell;

        result = oldest_dead(&work, &cell);
        if (result == QUEUE_OK && !work_announce(&work))
            result = QUEUE_SYSTEM;
        if (result != QUEUE_OK)
            break;
        work_head(&work, cell)->as.leased.settled = work_head(&work, cell)->as.leased.deliveries;
        transition_to(&work, cell, CELL_READY);
        ++*count;
    }
    work_leave(&work);
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
    if (!expiry_enter(&work, queue, patience))
        return QUEUE_BUSY;
    for (; *count < work.cells.count && (result = oldest_dead(&work, &cell)) == QUEUE_OK; ++*count)
        transition_drop(&work, cell);
    work_leave(&work);
    return result == QUEUE_EMPTY ? QUEUE_OK : result;
}
