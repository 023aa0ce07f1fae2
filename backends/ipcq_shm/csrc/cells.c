#include "cells.h"

#include <string.h>

#include "attention.h"
#include "holder.h"
#include "side.h"

#define NUMBER_BITS 48
#define HIGHEST 32767u
#define NUMBERS ((UINT64_C(1) << NUMBER_BITS) - 1)

/* The arrays of one queue. */
struct cells {
    uint64_t count;
    struct cell *cell;
    _Atomic uint32_t *next;
    _Atomic uint32_t *heads;
    _Atomic uint32_t *heap;
    struct cells_index *index;
};

static struct cells cells_of(struct queue *queue)
{
    struct cells cells = {.count = queue->limit / CELL_COST, .cell = (struct cell *)queue->data};

    cells.next = (_Atomic uint32_t *)(queue->data + cells.count * CELL_SIZE);
    cells.heads = cells.next + cells.count;
    cells.heap = cells.heads + cells.count;
    cells.index = &queue->segment->cells;
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

/* The heap. Its entries may be any number. */

static uint64_t entry_key(const struct cells *cells, uint32_t place)
{
    uint32_t cell = get32(&cells->heap[place]);

    return cell < cells->count ? key_of(cells, cell) : UINT64_MAX;
}

static void exchange(const struct cells *cells, uint32_t one, uint32_t other)
{
    uint32_t cell = get32(&cells->heap[one]);

    set32(&cells->heap[one], get32(&cells->heap[other]));
    set32(&cells->heap[other], cell);
}

static void sink(const struct cells *cells, uint32_t place, uint32_t count)
{
    for (;;) {
        uint64_t least = place;

        for (uint64_t child = 2 * (uint64_t)place + 1; child <= 2 * (uint64_t)place + 2 && child < count; child++)
            if (entry_key(cells, (uint32_t)child) < entry_key(cells, (uint32_t)least))
                least = child;
        if (least == place)
            return;
        exchange(cells, place, (uint32_t)least);
        place = (uint32_t)least;
    }
}

static void rise(const struct cells *cells, uint32_t place)
{
    while (place != 0 && entry_key(cells, place) < entry_key(cells, (place - 1) / 2)) {
        exchange(cells, place, (place - 1) / 2);
        place = (place - 1) / 2;
    }
}

/* Rebuilding */

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

static void rebuild(struct queue *queue, const struct cells *cells)
{
    struct side *put = &queue->segment->put;
    struct side *get = &queue->segment->get;
    uint64_t committed = word_peek(&put->position);
    uint64_t got = word_peek(&get->position);
    const struct side_mark *totals = side_mark_at(put, committed);
    uint64_t bytes = 0;
    uint32_t ready = 0;
    uint32_t spare = 0;
    uint32_t first = 0;

    for (uint32_t cell = 0; cell < cells->count; cell++)
        set32(&cells->heap[cell], 0);
    for (uint32_t cell = 0; cell < cells->count; cell++) {
        uint32_t size;

        if (atomic_load_explicit(&cells->heads[cell], memory_order_acquire) != RECORD_READY)
            continue;
        size = *(volatile uint32_t *)&cells->cell[cell].as.first.size;
        if ((key_of(cells, cell) & NUMBERS) < (committed & NUMBERS) && size <= queue->max_message_size &&
            mark_chain(cells, cell, cells_for(size))) {
            bytes += size;
            ready++;
        } else {
            set32(&cells->heads[cell], 0);
        }
    }
    for (uint32_t cell = (uint32_t)cells->count; cell-- > 0;) {
        if (get32(&cells->heap[cell]) == 0) {
            set32(&cells->next[cell], first);
            first = cell;
            spare++;
        }
    }
    ready = 0;
    for (uint32_t cell = 0; cell < cells->count; cell++)
        if (get32(&cells->heads[cell]) == RECORD_READY)
            set32(&cells->heap[ready++], cell);
    for (uint32_t place = ready / 2; place-- > 0;)
        sink(cells, place, ready);
    set32(&cells->index->first_free, first);
    set32(&cells->index->free_cells, spare);
    set32(&cells->index->ready, ready);
    if (got != committed - ready)
        side_commit_totals(get, side_mark_at(get, got), committed - ready, word_peek(&totals->count) - ready,
                           word_peek(&totals->bytes) - bytes);
    set32(&cells->index->built, 1);
}

static bool cells_enter(struct queue *queue, int64_t patience)
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

/* Copies between a message and its chain; returns the last cell, or the number of cells if a link is invalid. */
static uint64_t walk(const struct cells *cells, uint64_t cell, unsigned char *out, const unsigned char *in, size_t size)
{
    size_t part = size < CELL_FIRST ? size : CELL_FIRST;
    unsigned char *place = cells->cell[cell].as.first.message;

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

static void push(const struct cells *cells, uint32_t cell)
{
    uint32_t ready = get32(&cells->index->ready);

    if (ready < cells->count) {
        set32(&cells->heap[ready], cell);
        set32(&cells->index->ready, ready + 1);
        rise(cells, ready);
    }
}

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
        uint64_t needed = cells_for(pieces[piece].size);

        if (pieces[piece].size > queue->max_message_size || needed > spare)
            return false;
        spare -= needed;
    }
    return queue->max_messages == 0 || count <= queue->max_messages - depth;
}

static enum queue_result put_locked(struct queue *queue, const struct queue_piece *pieces, size_t count, bool whole,
                                    size_t *stored)
{
    struct cells cells = cells_of(queue);
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
        uint64_t needed = cells_for(piece->size);
        uint64_t last;

        if (piece->size > queue->max_message_size || needed > spare ||
            (queue->max_messages != 0 && depth + *stored >= queue->max_messages))
            break;
        if (cell >= cells.count)
            return QUEUE_CORRUPT;
        if (*stored == 0 && attention_of(queue) & ATTEND_LISTENERS &&
            attention_before_put(queue, attention_of(queue) & ATTEND_LISTENERS, 0) != QUEUE_OK)
            return QUEUE_SYSTEM;
        cells.cell[cell].as.first.key =
            (uint64_t)(HIGHEST - piece->priority) << NUMBER_BITS | ((number + *stored) & NUMBERS);
        cells.cell[cell].as.first.size = (uint32_t)piece->size;
        last = walk(&cells, cell, NULL, piece->data, piece->size);
        if (last == cells.count)
            return QUEUE_CORRUPT;
        /* Release: key, size and message are written before the head, also if this thread is killed in between. With a
         * stale key below the committed position, `rebuild` would revive what an earlier message left in the cell. */
        atomic_store_explicit(&cells.heads[cell], RECORD_READY, memory_order_release);
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
        uint64_t length = cells_for(pieces[piece].size);

        push(&cells, begin);
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
            result = put_locked(queue, pieces, count, whole, stored);
    }
    asleep = event_asleep(&put->event);
    side_leave(put);
    if (result == QUEUE_OK)
        attention_wake_consumers(queue, asleep, *stored);
    return result;
}

static enum queue_result cells_put(struct queue *queue, const struct queue_piece *piece, int64_t patience)
{
    size_t stored;

    return cells_put_many(queue, piece, 1, false, &stored, patience);
}

/* Finds the message at the top. */
static enum queue_result top(struct queue *queue, const struct cells *cells, uint32_t *cell, size_t *size)
{
    uint32_t ready = get32(&cells->index->ready);

    if (ready == 0) {
        bool none = word_peek(&queue->segment->put.position) == word_peek(&queue->segment->get.position);

        return none ? QUEUE_EMPTY : QUEUE_CORRUPT;
    }
    *cell = get32(&cells->heap[0]);
    if (ready > cells->count || *cell >= cells->count)
        return QUEUE_CORRUPT;
    *size = *(volatile uint32_t *)&cells->cell[*cell].as.first.size;
    return *size <= queue->max_message_size ? QUEUE_OK : QUEUE_CORRUPT;
}

static enum queue_result copy_out(const struct cells *cells, uint32_t cell, size_t size, const struct taking *taking)
{
    uint64_t behind = key_of(cells, cell) >> NUMBER_BITS;
    void *target;

    if (behind > HIGHEST)
        return QUEUE_CORRUPT;
    target = taking->room(taking->context,
                          &(struct queue_piece){.size = size, .priority = HIGHEST - (unsigned)behind});
    if (target == NULL)
        return QUEUE_NO_MEMORY;
    return walk(cells, cell, target, NULL, size) == cells->count ? QUEUE_CORRUPT : QUEUE_OK;
}

static void drop(struct queue *queue, const struct cells *cells, uint32_t cell, size_t size)
{
    struct side *get = &queue->segment->get;
    uint32_t ready = get32(&cells->index->ready);
    uint64_t last;

    if (ready == 0 || ready > cells->count) /* not what `top` has just seen */
        return;
    atomic_store_explicit(&cells->heads[cell], 0, memory_order_seq_cst);
    set32(&cells->heap[0], get32(&cells->heap[ready - 1]));
    set32(&cells->index->ready, ready - 1);
    sink(cells, 0, ready - 1);
    last = walk(cells, cell, NULL, NULL, size);
    if (last < cells->count) {
        set32(&cells->next[last], get32(&cells->index->first_free));
        set32(&cells->index->first_free, cell);
        set32(&cells->index->free_cells, get32(&cells->index->free_cells) + (uint32_t)cells_for(size));
    }
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
    result = top(queue, &cells, &cell, &size);
    if (result == QUEUE_OK)
        result = copy_out(&cells, cell, size, taking);
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

        result = top(queue, &cells, &cell, &size);
        if (result == QUEUE_OK)
            result = copy_out(&cells, cell, size, taking);
        if (result != QUEUE_OK)
            break;
        drop(queue, &cells, cell, size);
    }
    leave_get(queue);
    return *taken != 0 ? QUEUE_OK : result;
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
    for (*count = 0; *count < cells.count && (result = top(queue, &cells, &cell, &size)) == QUEUE_OK; ++*count)
        drop(queue, &cells, cell, size);
    leave_get(queue);
    return result == QUEUE_EMPTY ? QUEUE_OK : result;
}

static bool cells_has_space(struct queue *queue, uint64_t message_size)
{
    const struct cells_index *index = &queue->segment->cells;

    if (get32(&index->built) == 0)
        return true;
    return cells_for(message_size) <= get32(&index->free_cells) &&
           (queue->max_messages == 0 ||
            word_load(&queue->segment->put.position) - word_load(&queue->segment->get.position) < queue->max_messages);
}

static bool cells_much_is_free(struct queue *queue)
{
    uint64_t depth = word_load(&queue->segment->put.position) - word_load(&queue->segment->get.position);

    return get32(&queue->segment->cells.free_cells) >= queue->limit / CELL_COST / 4 &&
           (queue->max_messages == 0 || depth <= queue->max_messages - (queue->max_messages + 3) / 4);
}

const struct flavour cells_flavour = {
    .enter_put = cells_enter,
    .put = cells_put,
    .put_many = cells_put_many,
    .get = cells_get,
    .get_many = cells_get_many,
    .peek = cells_peek,
    .clear = cells_clear,
    .has_space = cells_has_space,
    .much_is_free = cells_much_is_free,
    .one_lock = true,
};
