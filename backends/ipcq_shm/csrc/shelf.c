#include "shelf.h"

#include <string.h>

#include "inside.h"
#include "watch.h"

#define CELL 64
#define FIRST 48 /* bytes of a message in its first cell */
#define ALL (CELL + 3 * sizeof(uint32_t))
#define NUMBER_BITS 48
#define HIGHEST 32767u
#define NUMBERS ((UINT64_C(1) << NUMBER_BITS) - 1)

struct cell {
    union {
        struct {
            uint64_t key;
            uint32_t size;
            uint32_t unused;
            unsigned char message[FIRST];
        } first;
        unsigned char more[CELL];
    } as;
};

_Static_assert(sizeof(struct cell) == CELL, "layout of version 1");
_Static_assert(SHELF_LARGEST / ALL < UINT32_MAX, "a cell's number is 32 bits wide");

/* The arrays of one queue. */
struct shelf {
    uint64_t cells;
    struct cell *cell;
    _Atomic uint32_t *next;
    _Atomic uint32_t *heads;
    _Atomic uint32_t *heap;
    struct ring_shelf *words;
};

static struct shelf shelf_of(struct ring *ring)
{
    struct shelf shelf = {.cells = ring->limit / ALL, .cell = (struct cell *)ring->data};

    shelf.next = (_Atomic uint32_t *)(ring->data + shelf.cells * CELL);
    shelf.heads = shelf.next + shelf.cells;
    shelf.heap = shelf.heads + shelf.cells;
    shelf.words = &ring->segment->shelf;
    return shelf;
}

static inline uint32_t get32(const _Atomic uint32_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline void set32(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static uint64_t cells_for(uint64_t size)
{
    return size <= FIRST ? 1 : 1 + (size - FIRST + CELL - 1) / CELL;
}

uint64_t shelf_message_size(uint64_t message_size)
{
    return cells_for(message_size) * ALL;
}

static inline uint64_t key_of(const struct shelf *shelf, uint32_t cell)
{
    return *(volatile uint64_t *)&shelf->cell[cell].as.first.key;
}

/* The heap. Its entries may be anything below the number of cells. */

static uint64_t entry_key(const struct shelf *shelf, uint32_t place)
{
    uint32_t cell = get32(&shelf->heap[place]);

    return cell < shelf->cells ? key_of(shelf, cell) : UINT64_MAX;
}

static void exchange(const struct shelf *shelf, uint32_t one, uint32_t other)
{
    uint32_t cell = get32(&shelf->heap[one]);

    set32(&shelf->heap[one], get32(&shelf->heap[other]));
    set32(&shelf->heap[other], cell);
}

static void sink(const struct shelf *shelf, uint32_t place, uint32_t count)
{
    for (;;) {
        uint64_t least = place;

        for (uint64_t child = 2 * (uint64_t)place + 1; child <= 2 * (uint64_t)place + 2 && child < count; child++)
            if (entry_key(shelf, (uint32_t)child) < entry_key(shelf, (uint32_t)least))
                least = child;
        if (least == place)
            return;
        exchange(shelf, place, (uint32_t)least);
        place = (uint32_t)least;
    }
}

static void rise(const struct shelf *shelf, uint32_t place)
{
    while (place != 0 && entry_key(shelf, place) < entry_key(shelf, (place - 1) / 2)) {
        exchange(shelf, place, (place - 1) / 2);
        place = (place - 1) / 2;
    }
}

/* Rebuilding */

/* Marks the cells of a message in the heap's array, which is free for that; false where they are not a message's. */
static bool mark_chain(const struct shelf *shelf, uint32_t cell, uint64_t length)
{
    for (; length != 0; length--) {
        if (cell >= shelf->cells || get32(&shelf->heap[cell]) != 0)
            return false;
        set32(&shelf->heap[cell], 1);
        cell = get32(&shelf->next[cell]);
    }
    return true;
}

static void rebuild(struct ring *ring, const struct shelf *shelf)
{
    struct ring_side *put = &ring->segment->put;
    uint64_t committed = peek_at(&put->position);
    const struct ring_mark *totals = mark_at(put, committed);
    uint64_t bytes = 0;
    uint32_t ready = 0;
    uint32_t spare = 0;
    uint32_t first = 0;

    for (uint32_t cell = 0; cell < shelf->cells; cell++)
        set32(&shelf->heap[cell], 0);
    for (uint32_t cell = 0; cell < shelf->cells; cell++) {
        uint32_t size;

        if (atomic_load_explicit(&shelf->heads[cell], memory_order_acquire) != RING_READY)
            continue;
        size = *(volatile uint32_t *)&shelf->cell[cell].as.first.size;
        if ((key_of(shelf, cell) & NUMBERS) < (committed & NUMBERS) && size <= ring->max_message_size &&
            mark_chain(shelf, cell, cells_for(size))) {
            bytes += size;
            ready++;
        } else {
            set32(&shelf->heads[cell], 0);
        }
    }
    for (uint32_t cell = (uint32_t)shelf->cells; cell-- > 0;) {
        if (get32(&shelf->heap[cell]) == 0) {
            set32(&shelf->next[cell], first);
            first = cell;
            spare++;
        }
    }
    ready = 0;
    for (uint32_t cell = 0; cell < shelf->cells; cell++)
        if (get32(&shelf->heads[cell]) == RING_READY)
            set32(&shelf->heap[ready++], cell);
    for (uint32_t place = ready / 2; place-- > 0;)
        sink(shelf, place, ready);
    set32(&shelf->words->first_free, first);
    set32(&shelf->words->free_cells, spare);
    set32(&shelf->words->ready, ready);
    if (peek_at(&ring->segment->get.position) != committed - ready)
        commit_totals(&ring->segment->get, committed - ready, peek_at(&totals->count) - ready,
                      peek_at(&totals->bytes) - bytes);
    set32(&shelf->words->built, 1);
}

bool shelf_enter(struct ring *ring, int64_t patience)
{
    struct shelf shelf = shelf_of(ring);
    enum lock_result result = lock_take(&ring->segment->put.lock, patience);

    if (result == LOCK_BUSY) {
        if (patience > 0)
            ring_note_holder(ring, &ring->segment->put);
        return false;
    }
    if (result == LOCK_INHERITED) {
        atomic_fetch_add_explicit(&ring->segment->figures.recoveries, 1, memory_order_relaxed);
        set32(&shelf.words->built, 0);
    }
    if (get32(&shelf.words->built) == 0)
        rebuild(ring, &shelf);
    return true;
}

/* Messages */

/* Copies between a message and its chain; returns the last cell, or `cells` where the chain leads astray. */
static uint64_t walk(const struct shelf *shelf, uint64_t cell, unsigned char *out, const unsigned char *in, size_t size)
{
    size_t part = size < FIRST ? size : FIRST;
    unsigned char *place = shelf->cell[cell].as.first.message;

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
        cell = get32(&shelf->next[cell]);
        if (cell >= shelf->cells)
            return shelf->cells;
        part = size < CELL ? size : CELL;
        place = shelf->cell[cell].as.more;
    }
}

static void push(const struct shelf *shelf, uint32_t cell)
{
    uint32_t ready = get32(&shelf->words->ready);

    if (ready < shelf->cells) {
        set32(&shelf->heap[ready], cell);
        set32(&shelf->words->ready, ready + 1);
        rise(shelf, ready);
    }
}

static void raise_mark(struct ring *ring, uint64_t depth)
{
    _Atomic uint64_t *mark = &ring->segment->figures.high_water_mark;

    if (depth > peek_at(mark))
        note(mark, depth);
}

enum ring_result shelf_put(struct ring *ring, const struct ring_piece *pieces, size_t count, size_t *stored)
{
    struct shelf shelf = shelf_of(ring);
    struct ring_side *put = &ring->segment->put;
    uint64_t number = peek_at(&put->position);
    uint64_t depth = number - peek_at(&ring->segment->get.position);
    uint64_t spare = get32(&shelf.words->free_cells);
    uint32_t cell = get32(&shelf.words->first_free);
    uint32_t begin = cell;
    uint64_t bytes = 0;

    if (spare > shelf.cells || depth > shelf.cells)
        return RING_CORRUPT;
    for (*stored = 0; *stored < count; ++*stored) {
        const struct ring_piece *piece = &pieces[*stored];
        uint64_t needed = cells_for(piece->size);
        uint64_t last;

        if (piece->size > ring->max_message_size || needed > spare ||
            (ring->max_messages != 0 && depth + *stored >= ring->max_messages))
            break;
        if (cell >= shelf.cells)
            return RING_CORRUPT;
        if (*stored == 0 && watch_of(ring) & RING_TOLD && !watch_before_put(ring))
            return RING_SYSTEM;
        shelf.cell[cell].as.first.key =
            (uint64_t)(HIGHEST - piece->priority) << NUMBER_BITS | ((number + *stored) & NUMBERS);
        shelf.cell[cell].as.first.size = (uint32_t)piece->size;
        last = walk(&shelf, cell, NULL, piece->data, piece->size);
        if (last == shelf.cells)
            return RING_CORRUPT;
        /* Release: key, size and message are written before the head, also if this thread is killed in between. With a
         * stale key below the committed position, `rebuild` would revive what an earlier message left in the cell. */
        atomic_store_explicit(&shelf.heads[cell], RING_READY, memory_order_release);
        cell = get32(&shelf.next[last]);
        spare -= needed;
        bytes += piece->size;
    }
    if (*stored == 0)
        return RING_FULL;
    raise_mark(ring, depth + *stored);
    commit(put, number + *stored, *stored, bytes);
    set32(&shelf.words->first_free, cell);
    set32(&shelf.words->free_cells, (uint32_t)spare);
    for (size_t piece = 0; piece < *stored; piece++) {
        uint64_t length = cells_for(pieces[piece].size);

        push(&shelf, begin);
        while (length-- != 0 && begin < shelf.cells)
            begin = get32(&shelf.next[begin]);
    }
    return RING_OK;
}

/* Finds the message at the top. */
static enum ring_result top(struct ring *ring, const struct shelf *shelf, uint32_t *cell, size_t *size)
{
    uint32_t ready = get32(&shelf->words->ready);

    if (ready == 0) {
        bool none = peek_at(&ring->segment->put.position) == peek_at(&ring->segment->get.position);

        return none ? RING_EMPTY : RING_CORRUPT;
    }
    *cell = get32(&shelf->heap[0]);
    if (ready > shelf->cells || *cell >= shelf->cells)
        return RING_CORRUPT;
    *size = *(volatile uint32_t *)&shelf->cell[*cell].as.first.size;
    return *size <= ring->max_message_size ? RING_OK : RING_CORRUPT;
}

static enum ring_result copy_out(const struct shelf *shelf, uint32_t cell, size_t size, ring_room *room, void *context)
{
    uint64_t behind = key_of(shelf, cell) >> NUMBER_BITS;
    void *target;

    if (behind > HIGHEST)
        return RING_CORRUPT;
    target = room(context, &(struct ring_piece){.size = size, .priority = HIGHEST - (unsigned)behind});
    if (target == NULL)
        return RING_NO_MEMORY;
    return walk(shelf, cell, target, NULL, size) == shelf->cells ? RING_CORRUPT : RING_OK;
}

static void drop(struct ring *ring, const struct shelf *shelf, uint32_t cell, size_t size)
{
    struct ring_side *get = &ring->segment->get;
    uint32_t ready = get32(&shelf->words->ready);
    uint64_t last;

    if (ready == 0 || ready > shelf->cells) /* not what `top` has just seen */
        return;
    atomic_store_explicit(&shelf->heads[cell], 0, memory_order_seq_cst);
    set32(&shelf->heap[0], get32(&shelf->heap[ready - 1]));
    set32(&shelf->words->ready, ready - 1);
    sink(shelf, 0, ready - 1);
    last = walk(shelf, cell, NULL, NULL, size);
    if (last < shelf->cells) {
        set32(&shelf->next[last], get32(&shelf->words->first_free));
        set32(&shelf->words->first_free, cell);
        set32(&shelf->words->free_cells, get32(&shelf->words->free_cells) + (uint32_t)cells_for(size));
    }
    commit(get, peek_at(&get->position) + 1, 1, size);
}

enum ring_result shelf_look(struct ring *ring, ring_room *room, void *context)
{
    struct shelf shelf = shelf_of(ring);
    uint32_t cell;
    size_t size;
    enum ring_result result = top(ring, &shelf, &cell, &size);

    return result == RING_OK ? copy_out(&shelf, cell, size, room, context) : result;
}

enum ring_result shelf_take(struct ring *ring, ring_room *room, void *context, size_t limit, size_t *taken)
{
    struct shelf shelf = shelf_of(ring);
    enum ring_result result = RING_OK;

    for (*taken = 0; *taken < limit; ++*taken) {
        uint32_t cell;
        size_t size;

        result = top(ring, &shelf, &cell, &size);
        if (result == RING_OK)
            result = copy_out(&shelf, cell, size, room, context);
        if (result != RING_OK)
            break;
        drop(ring, &shelf, cell, size);
    }
    return *taken != 0 ? RING_OK : result;
}

enum ring_result shelf_clear(struct ring *ring, size_t *dropped)
{
    struct shelf shelf = shelf_of(ring);
    enum ring_result result = RING_OK;
    uint32_t cell;
    size_t size;

    for (*dropped = 0; *dropped < shelf.cells && (result = top(ring, &shelf, &cell, &size)) == RING_OK; ++*dropped)
        drop(ring, &shelf, cell, size);
    return result == RING_EMPTY ? RING_OK : result;
}

bool shelf_has_space(struct ring *ring, uint64_t message_size)
{
    const struct ring_shelf *words = &ring->segment->shelf;

    if (get32(&words->built) == 0)
        return true;
    return cells_for(message_size) <= get32(&words->free_cells) &&
           (ring->max_messages == 0 ||
            load(&ring->segment->put.position) - load(&ring->segment->get.position) < ring->max_messages);
}

bool shelf_much_is_free(struct ring *ring)
{
    uint64_t depth = load(&ring->segment->put.position) - load(&ring->segment->get.position);

    return get32(&ring->segment->shelf.free_cells) >= ring->limit / ALL / 4 &&
           (ring->max_messages == 0 || depth <= ring->max_messages - (ring->max_messages + 3) / 4);
}
