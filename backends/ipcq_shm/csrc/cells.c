#include "cells.h"

#include "attention.h"
#include "heap.h"
#include "holder.h"
#include "rebuild.h"
#include "side.h"

bool cells_enter(struct queue *queue, int64_t patience)
{
    struct cells cells = cells_of(queue);
    enum lock_result result = lock_take(&queue->segment->put.lock, patience);

    if (result == LOCK_BUSY) {
        if (patience > 0)
            holder_note(queue, &queue->segment->put);
        return false;
    }
    if (result == LOCK_INHERITED) {
        atomic_fetch_add_explicit(&queue->segment->figures.recoveries, 1, memory_order_relaxed);
        set32(&cells.index->built, 0);
    }
    if (get32(&cells.index->built) == 0)
        rebuild(queue, &cells);
    return true;
}

/* Messages */

static void raise_mark(struct queue *queue, uint64_t depth)
{
    _Atomic uint64_t *mark = &queue->segment->figures.high_water_mark;

    if (depth > word_peek(mark))
        word_note(mark, depth);
}

/* Returns whether a batch fits as a whole; `spare` cells are free and `depth` messages are there. */
static bool all_fit(const struct queue *queue, const struct queue_piece *pieces, size_t count, uint64_t spare,
                    uint64_t depth)
{
    for (size_t piece = 0; piece < count; piece++) {
        uint64_t needed = cells_for(pieces[piece].size, queue->flags);

        if (pieces[piece].size > queue->max_message_size || needed > spare)
            return false;
        spare -= needed;
    }
    return queue->max_messages == 0 || count <= queue->max_messages - depth;
}

/* Writes the rest of the head of a message, which cannot have been leased yet. */
static void write_lease_head(struct cell *cell, int64_t due)
{
    cell->as.leased.due = due;
    cell->as.leased.owner = 0;
    cell->as.leased.serial = 0;
    cell->as.leased.deliveries = 0;
    cell->as.leased.settled = 0;
}

enum queue_result cells_put_locked(struct queue *queue, const struct queue_piece *pieces, size_t count, bool whole,
                                   size_t *stored, int64_t due)
{
    struct cells cells = cells_of(queue);
    uint32_t state = due != 0 ? CELL_DELAYED : CELL_READY;
    struct side *put = &queue->segment->put;
    uint64_t number = word_peek(&put->position);
    uint64_t depth = number - word_peek(&queue->segment->get.position);
    uint64_t spare = get32(&cells.index->free_cells);
    uint32_t cell = get32(&cells.index->first_free);
    uint32_t begin = cell;
    uint64_t bytes = 0;

    if (spare > cells.count || depth > cells.count)
        return QUEUE_CORRUPT;
    if (whole && !all_fit(queue, pieces, count, spare, depth))
        return QUEUE_FULL;
    for (*stored = 0; *stored < count; ++*stored) {
        const struct queue_piece *piece = &pieces[*stored];
        uint64_t needed = cells_for(piece->size, queue->flags);
        uint64_t last;

        if (piece->size > queue->max_message_size || needed > spare ||
            (queue->max_messages != 0 && depth + *stored >= queue->max_messages))
            break;
        if (cell >= cells.count)
            return QUEUE_CORRUPT;
        if (*stored == 0 && due == 0 && attention_of(queue) & ATTEND_LISTENERS &&
            attention_before_put(queue, attention_of(queue) & ATTEND_LISTENERS, 0) != QUEUE_OK)
            return QUEUE_SYSTEM;
        cells.cell[cell].as.first.key =
            (uint64_t)(HIGHEST - piece->priority) << NUMBER_BITS | ((number + *stored) & NUMBERS);
        cells.cell[cell].as.first.size = (uint32_t)piece->size;
        if (cells.leases != NULL)
            write_lease_head(&cells.cell[cell], due);
        last = chain_copy(&cells, cell, NULL, piece->data, piece->size);
        if (last != cells.count && cells.leases != NULL)
            last = chain_last(&cells, cell, needed);
        if (last == cells.count)
            return QUEUE_CORRUPT;
        /* Release: key, size and message are written before the head, also if this thread is killed in between. With a
         * stale key below the committed position, `rebuild` would revive what an earlier message left in the cell. */
        atomic_store_explicit(&cells.heads[cell], state, memory_order_release);
        cell = get32(&cells.next[last]);
        spare -= needed;
        bytes += piece->size;
    }
    if (*stored == 0)
        return QUEUE_FULL;
    raise_mark(queue, depth + *stored);
    side_commit(put, number + *stored, *stored, bytes);
    set32(&cells.index->first_free, cell);
    set32(&cells.index->free_cells, (uint32_t)spare);
    for (size_t piece = 0; piece < *stored; piece++) {
        uint64_t length = cells_for(pieces[piece].size, queue->flags);

        heap_push(&cells, due != 0 ? HEAP_DELAYED : HEAP_READY, begin);
        while (length-- != 0 && begin < cells.count)
            begin = get32(&cells.next[begin]);
    }
    return QUEUE_OK;
}

static enum queue_result cells_put_many(struct queue *queue, const struct queue_piece *pieces, size_t count, bool whole,
                                        size_t *stored, int64_t patience)
{
    struct side *put = &queue->segment->put;
    enum queue_result result = QUEUE_DOWN;
    uint32_t asleep;

    *stored = 0;
    if (!cells_enter(queue, patience))
        return QUEUE_BUSY;
    /* Under the lock, which a shutdown takes, so that nothing is put after it. */
    if (!atomic_load_explicit(&queue->segment->state.down, memory_order_relaxed)) {
        result = attention_of(queue) & ATTEND_PUT_CROWD ? attention_before_put(queue, ATTEND_PUT_CROWD, patience)
                                                        : QUEUE_OK;
        if (result == QUEUE_OK)
            result = cells_put_locked(queue, pieces, count, whole, stored, 0);
    }
    asleep = event_asleep(&put->event);
    side_leave(put);
    if (result == QUEUE_OK)
        attention_wake_consumers(queue, asleep, *stored);
    return result;
}

/* Sums up what a message may drop: messages, and their cells. */
static void count_victims(const struct cells *cells, unsigned priority, uint64_t *messages, uint64_t *freed)
{
    uint32_t ready = heap_count(cells, HEAP_READY);

    for (uint32_t place = 0; place < ready; place++) {
        uint32_t cell = get32(heap_word(cells, HEAP_READY, place));

        if (cell < cells->count && key_of(cells, cell) >> NUMBER_BITS >= HIGHEST - priority) {
            ++*messages;
            *freed += cells_for(size_of(cells, cell), cells->flags);
        }
    }
}

static bool has_room(const struct queue *queue, uint64_t needed, uint64_t spare, uint64_t depth)
{
    return needed <= spare && (queue->max_messages == 0 || depth < queue->max_messages);
}

enum queue_result cells_make_room(struct queue *queue, const struct queue_piece *piece, size_t *dropped)
{
    struct cells cells = cells_of(queue);
    struct cells_index *index = cells.index;
    struct side *get = &queue->segment->get;
    uint64_t needed = cells_for(piece->size, queue->flags);
    uint64_t depth = word_peek(&queue->segment->put.position) - word_peek(&get->position);
    uint64_t messages = 0;
    uint64_t freed = 0;
    uint32_t attention = attention_of(queue) & ATTEND_LISTENERS;

    if (piece->size > queue->max_message_size)
        return QUEUE_FULL;
    if (has_room(queue, needed, get32(&index->free_cells), depth))
        return QUEUE_OK;
    count_victims(&cells, piece->priority, &messages, &freed);
    if (!has_room(queue, needed, get32(&index->free_cells) + freed, depth - messages))
        return QUEUE_FULL;
    /* Before anything is dropped, because it may fail. */
    if (attention != 0 && attention_before_put(queue, attention, 0) != QUEUE_OK)
        return QUEUE_SYSTEM;
    /* If this process is killed from here on, the heap is out of order. The next owner of the lock rebuilds it. */
    heap_build(&cells, HEAP_VICTIMS, heap_count(&cells, HEAP_READY));
    while (messages-- != 0 && !has_room(queue, needed, get32(&index->free_cells), depth)) {
        uint64_t cell = heap_top(&cells, HEAP_VICTIMS);
        size_t size;

        if (cell == cells.count)
            break;
        size = size_of(&cells, (uint32_t)cell);
        atomic_store_explicit(&cells.heads[cell], CELL_NONE, memory_order_seq_cst);
        heap_remove(&cells, HEAP_VICTIMS, 0);
        chain_free(&cells, (uint32_t)cell, size);
        side_commit(get, word_peek(&get->position) + 1, 1, size);
        depth--;
        ++*dropped;
    }
    heap_build(&cells, HEAP_READY, heap_count(&cells, HEAP_READY));
    side_count_dropped(queue, *dropped);
    return QUEUE_OK;
}

static enum queue_result cells_put_dropping(struct queue *queue, const struct queue_piece *piece, size_t *dropped,
                                            int64_t patience)
{
    struct side *put = &queue->segment->put;
    enum queue_result result = QUEUE_DOWN;
    uint32_t consumers, producers;
    size_t stored;

    if (!cells_enter(queue, patience))
        return QUEUE_BUSY;
    if (!atomic_load_explicit(&queue->segment->state.down, memory_order_relaxed)) {
        result = cells_make_room(queue, piece, dropped);
        if (result == QUEUE_OK)
            result = cells_put_locked(queue, piece, 1, false, &stored, 0);
    }
    consumers = event_asleep(&put->event);
    producers = *dropped == 0 ? 0 : event_asleep(&queue->segment->get.event);
    side_leave(put);
    if (result == QUEUE_OK)
        attention_wake_consumers(queue, consumers, 1);
    attention_wake_producers(queue, producers);
    return result;
}

static enum queue_result cells_put(struct queue *queue, const struct queue_piece *piece, int64_t patience)
{
    size_t stored;

    return cells_put_many(queue, piece, 1, false, &stored, patience);
}

enum queue_result cells_top(struct queue *queue, const struct cells *cells, uint32_t *cell, size_t *size)
{
    uint32_t ready = get32(&cells->index->ready);

    if (ready == 0) {
        bool none = cells->leases != NULL ||
                    word_peek(&queue->segment->put.position) == word_peek(&queue->segment->get.position);

        return none ? QUEUE_EMPTY : QUEUE_CORRUPT;
    }
    *cell = get32(&cells->heap[0]);
    if (ready > cells->count || *cell >= cells->count)
        return QUEUE_CORRUPT;
    *size = size_of(cells, *cell);
    return *size <= queue->max_message_size ? QUEUE_OK : QUEUE_CORRUPT;
}

enum queue_result cells_latest(struct queue *queue, const struct cells *cells, uint32_t *cell, size_t *size,
                               size_t *older)
{
    enum queue_result result = cells_top(queue, cells, cell, size);
    uint32_t ready = heap_count(cells, HEAP_READY);
    uint64_t key = result == QUEUE_OK ? key_of(cells, *cell) : 0;
    uint64_t first = key >> NUMBER_BITS;

    *older = 0;
    for (uint32_t place = 1; result == QUEUE_OK && place < ready; place++) {
        uint32_t other = get32(heap_word(cells, HEAP_READY, place));

        if (other >= cells->count)
            return QUEUE_CORRUPT;
        if (key_of(cells, other) >> NUMBER_BITS != first)
            continue;
        ++*older;
        if (key_of(cells, other) > key) {
            key = key_of(cells, other);
            *cell = other;
        }
    }
    if (result == QUEUE_OK)
        *size = size_of(cells, *cell);
    return result == QUEUE_OK && *size > queue->max_message_size ? QUEUE_CORRUPT : result;
}

enum queue_result cells_copy_out(const struct cells *cells, uint32_t cell, size_t size, const struct taking *taking)
{
    uint64_t behind = key_of(cells, cell) >> NUMBER_BITS;
    void *target;

    if (behind > HIGHEST)
        return QUEUE_CORRUPT;
    target = taking->room(taking->context,
                          &(struct queue_piece){.size = size, .priority = HIGHEST - (unsigned)behind});
    if (target == NULL)
        return QUEUE_NO_MEMORY;
    return chain_copy(cells, cell, target, NULL, size) == cells->count ? QUEUE_CORRUPT : QUEUE_OK;
}

void cells_drop(struct queue *queue, const struct cells *cells, uint32_t cell, size_t size)
{
    struct side *get = &queue->segment->get;

    if (heap_top(cells, HEAP_READY) != cell) /* not what `cells_top` has just seen */
        return;
    atomic_store_explicit(&cells->heads[cell], CELL_NONE, memory_order_seq_cst);
    heap_remove(cells, HEAP_READY, 0);
    chain_free(cells, cell, size);
    side_commit(get, word_peek(&get->position) + 1, 1, size);
}

/* Gives a consumer's lock back, and wakes a producer if it has space. */
static void leave_get(struct queue *queue)
{
    uint32_t asleep = event_asleep(&queue->segment->get.event);

    side_leave(&queue->segment->put);
    attention_wake_producers(queue, asleep);
}

static enum queue_result cells_peek(struct queue *queue, const struct taking *taking, int64_t patience)
{
    struct cells cells = cells_of(queue);
    uint32_t cell;
    size_t size;
    enum queue_result result;

    if (!cells_enter(queue, patience))
        return QUEUE_BUSY;
    result = cells_top(queue, &cells, &cell, &size);
    if (result == QUEUE_OK)
        result = cells_copy_out(&cells, cell, size, taking);
    leave_get(queue);
    return result;
}

static enum queue_result take(struct queue *queue, const struct taking *taking, size_t limit, size_t *taken,
                              int64_t patience)
{
    struct cells cells = cells_of(queue);
    enum queue_result result = QUEUE_OK;

    if (!cells_enter(queue, patience))
        return QUEUE_BUSY;
    for (*taken = 0; *taken < limit; ++*taken) {
        uint32_t cell;
        size_t size;

        result = cells_top(queue, &cells, &cell, &size);
        if (result == QUEUE_OK)
            result = cells_copy_out(&cells, cell, size, taking);
        if (result != QUEUE_OK)
            break;
        cells_drop(queue, &cells, cell, size);
    }
    leave_get(queue);
    return *taken != 0 ? QUEUE_OK : result;
}

static enum queue_result cells_get_latest(struct queue *queue, const struct taking *taking, int64_t patience)
{
    struct cells cells = cells_of(queue);
    enum queue_result result;
    size_t size;
    size_t older = 0;
    uint32_t cell;

    if (!cells_enter(queue, patience))
        return QUEUE_BUSY;
    result = cells_latest(queue, &cells, &cell, &size, &older);
    if (result == QUEUE_OK)
        result = cells_copy_out(&cells, cell, size, taking);
    if (result == QUEUE_OK)
        side_count_dropped(queue, older);
    /* From the oldest on, so that a kill in between loses none that is newer. */
    for (size_t left = older + 1; result == QUEUE_OK && left != 0; left--) {
        result = cells_top(queue, &cells, &cell, &size);
        if (result == QUEUE_OK)
            cells_drop(queue, &cells, cell, size);
    }
    leave_get(queue);
    return result;
}

static enum queue_result cells_get(struct queue *queue, const struct taking *taking, int64_t patience)
{
    size_t taken;

    return take(queue, taking, 1, &taken, patience);
}

static enum queue_result cells_get_many(struct queue *queue, const struct taking *taking, int64_t patience)
{
    return take(queue, taking, taking->limit, taking->taken, patience);
}

static enum queue_result cells_clear(struct queue *queue, size_t *count, int64_t patience)
{
    struct cells cells = cells_of(queue);
    enum queue_result result = QUEUE_OK;
    uint32_t cell;
    size_t size;

    if (!cells_enter(queue, patience))
        return QUEUE_BUSY;
    for (*count = 0; *count < cells.count && (result = cells_top(queue, &cells, &cell, &size)) == QUEUE_OK; ++*count)
        cells_drop(queue, &cells, cell, size);
    leave_get(queue);
    return result == QUEUE_EMPTY ? QUEUE_OK : result;
}

bool cells_has_space(struct queue *queue, uint64_t message_size)
{
    const struct cells_index *index = &queue->segment->cells;

    if (get32(&index->built) == 0)
        return true;
    return cells_for(message_size, queue->flags) <= get32(&index->free_cells) &&
           (queue->max_messages == 0 ||
            word_load(&queue->segment->put.position) - word_load(&queue->segment->get.position) < queue->max_messages);
}

bool cells_much_is_free(struct queue *queue)
{
    uint64_t depth = word_load(&queue->segment->put.position) - word_load(&queue->segment->get.position);

    return get32(&queue->segment->cells.free_cells) >= queue->limit / CELL_COST / 4 &&
           (queue->max_messages == 0 || depth <= queue->max_messages - (queue->max_messages + 3) / 4);
}

const struct flavour cells_flavour = {
    .enter_put = cells_enter,
    .put = cells_put,
    .put_many = cells_put_many,
    .put_dropping = cells_put_dropping,
    .get = cells_get,
    .get_latest = cells_get_latest,
    .get_many = cells_get_many,
    .peek = cells_peek,
    .clear = cells_clear,
    .has_space = cells_has_space,
    .much_is_free = cells_much_is_free,
    .one_lock = true,
};
