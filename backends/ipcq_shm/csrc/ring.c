#include "ring.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "inside.h"
#include "shelf.h"
#include "watch.h"

#define HEADER sizeof(struct ring_record)
/* How old what this handle knows of the file's name may be, in nanoseconds. */
#define LOOK_EVERY 200000000
/* How long a consumer that has copied waits for the lock to give the space back; the next one does it else. */
#define RELEASE_PATIENCE 1000000
/* How long a call that gives way sleeps behind the others at most, in nanoseconds. */
#define LONGEST_BEHIND 20000000
/* How often a record that is being written is looked at before its owner may be dead: a mebibyte takes 50 us. */
#define COPY_LOOKS 200

/* Positions and records */

uint64_t ring_record_size(uint64_t message_size)
{
    return HEADER + ((message_size + 7) & ~UINT64_C(7));
}

uint64_t ring_message_size(uint64_t message_size, uint32_t flags)
{
    return flags & RING_ORDERED ? shelf_message_size(message_size) : ring_record_size(message_size);
}

static inline struct ring_record *record_at(const struct ring *ring, uint64_t position)
{
    uint64_t offset = ring->mask ? position & ring->mask : position % ring->capacity;

    /* Every position is a multiple of 8, unless somebody means harm. */
    return (struct ring_record *)(ring->data + (offset & ~UINT64_C(7)));
}

static inline void *message_of(struct ring_record *record)
{
    return (unsigned char *)record + HEADER;
}

static inline void copy_in(struct ring_record *record, const struct ring_piece *piece)
{
    unsigned char *message = message_of(record);

    if (piece->head_size != 0)
        memcpy(message, piece->head, piece->head_size);
    memcpy(message + piece->head_size, piece->data, piece->size);
}

static inline enum ring_record_state state_of(uint64_t word)
{
    return (enum ring_record_state)(word & 0xff);
}

/* Where space ends for producers. The position first: whoever sees a new one sees what is held behind it. */
static inline uint64_t free_position(struct ring *ring)
{
    uint64_t position = load(&ring->segment->get.position);
    uint64_t held = load(&ring->segment->get.held);

    return held != 0 && held - 1 < position ? held - 1 : position;
}

static bool ordered(const struct ring *ring)
{
    return (ring->flags & RING_ORDERED) != 0;
}

/* Tells whether the queue was shut down and its messages were dropped. */
static inline bool dropped(const struct ring *ring)
{
    return (atomic_load_explicit(&ring->segment->state.down, memory_order_acquire) & RING_DROPPED) != 0;
}

/* Counts */

/* Without the lock. False where the side moved on all the while. */
static bool count_side(struct ring_side *side, struct ring_total *total, uint64_t *position)
{
    for (int tries = 0; tries < 100; tries++) {
        struct ring_mark *mark;

        *position = load(&side->position);
        mark = mark_at(side, *position);
        total->count = load(&mark->count);
        total->bytes = load(&mark->bytes);
        if (load(&side->position) == *position)
            return true;
    }
    return false;
}

void ring_count(struct ring *ring, struct ring_total *put, struct ring_total *got)
{
    for (int tries = 0; tries < 100; tries++) {
        uint64_t before;
        uint64_t position;

        if (count_side(&ring->segment->get, got, &before) && count_side(&ring->segment->put, put, &position) &&
            load(&ring->segment->get.position) == before)
            break;
    }
    if (dropped(ring))
        *got = *put;
}

/* Locks */

/* Not inlined, so that what calls it only behind a dead owner is itself inlined, by clang too. */
__attribute__((noinline)) static void sweep(struct ring *ring, bool ask);

void ring_note_holder(struct ring *ring, struct ring_side *side)
{
    uint32_t owner = lock_owner(&side->lock);
    uint64_t position = peek_at(&side->position);

    atomic_store_explicit(side == &ring->segment->get ? &ring->get_busy : &ring->put_busy, true, memory_order_relaxed);
    if (owner == 0 || (atomic_load_explicit(&side->holder, memory_order_relaxed) == owner &&
                       peek_at(&side->holder_position) == position))
        return;
    note(&side->holder_position, position);
    atomic_store_explicit(&side->holder_since, wait_now(), memory_order_relaxed);
    atomic_store_explicit(&side->holder, owner, memory_order_release);
}

/* The same if the lock is free, but a living producer has not finished the next record. */
static void note_writer(struct ring_side *get)
{
    uint64_t position = peek_at(&get->position);

    if (atomic_load_explicit(&get->holder, memory_order_relaxed) == 0 && peek_at(&get->holder_position) == position &&
        atomic_load_explicit(&get->holder_since, memory_order_relaxed) != 0)
        return;
    note(&get->holder_position, position);
    atomic_store_explicit(&get->holder_since, wait_now(), memory_order_relaxed);
    atomic_store_explicit(&get->holder, 0, memory_order_release);
}

/* Apart, so that the fast path stays short. */
__attribute__((noinline)) static bool enter_otherwise(struct ring *ring, struct ring_side *side,
                                                      enum lock_result result, int64_t patience)
{
    if (result == LOCK_BUSY) {
        if (patience > 0)
            ring_note_holder(ring, side);
        return false;
    }
    atomic_fetch_add_explicit(&ring->segment->figures.recoveries, 1, memory_order_relaxed);
    if (side == &ring->segment->get)
        sweep(ring, true);
    return true;
}

static inline bool enter(struct ring *ring, struct ring_side *side, int64_t patience)
{
    enum lock_result result = lock_take(&side->lock, patience);

    return result == LOCK_TAKEN || enter_otherwise(ring, side, result, patience);
}

static void leave(struct ring_side *side)
{
    lock_give(&side->lock);
}

bool ring_enter_put(struct ring *ring, int64_t patience)
{
    return ordered(ring) ? shelf_enter(ring, patience) : enter(ring, &ring->segment->put, patience);
}

/* The queue's condition */

static int64_t coarse_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A name may also go without a word, by rm or by the system. */
static void look_at_name(struct ring *ring, int64_t now)
{
    struct stat found;

    atomic_store_explicit(&ring->looked, now, memory_order_relaxed);
    if (fstat(ring->descriptor, &found) != 0)
        return;
    if (found.st_nlink > 0)
        atomic_store_explicit(&ring->named, true, memory_order_relaxed);
    else if (atomic_load_explicit(&ring->named, memory_order_relaxed) &&
             !atomic_exchange_explicit(&ring->segment->state.unlinked, 1, memory_order_seq_cst))
        watch_end(ring, false); /* nobody has done so before */
}

void ring_look(struct ring *ring)
{
    look_at_name(ring, coarse_now());
}

enum ring_result ring_condition(struct ring *ring)
{
    struct ring_state *state = &ring->segment->state;
    int64_t now = coarse_now();

    if (now - atomic_load_explicit(&ring->looked, memory_order_relaxed) > LOOK_EVERY)
        look_at_name(ring, now);
    if (!ring->stays && atomic_load_explicit(&state->unlinked, memory_order_acquire))
        return RING_GONE;
    return atomic_load_explicit(&state->down, memory_order_acquire) ? RING_DOWN : RING_OK;
}

/* Putting */

static inline void write_record(struct ring *ring, uint64_t position, size_t size, uint64_t word)
{
    struct ring_record *record = record_at(ring, position);

    record->size = (uint32_t)size;
    record->priority = 0;
    record->deliveries = 0;
    atomic_store_explicit(&record->word, word, memory_order_relaxed);
}

/* What a put that holds the lock has found out. */
struct room {
    uint64_t position;
    uint64_t count; /* messages ever put */
};

static inline struct room room_of(struct ring_side *put)
{
    uint64_t position = peek_at(&put->position);

    return (struct room){.position = position, .count = peek_at(&mark_at(put, position)->count)};
}

static enum ring_result has_room(struct ring *ring, const struct room *room, uint64_t needed)
{
    struct ring_side *put = &ring->segment->put;
    uint64_t used = room->position - peek_at(&put->seen_position);

    if (used > ring->limit || needed > ring->limit - used) {
        uint64_t seen = free_position(ring);

        note(&put->seen_position, seen);
        used = room->position - seen;
        if (used > ring->limit)
            return RING_CORRUPT;
        if (needed > ring->limit - used)
            return RING_FULL;
    }
    if (ring->max_messages != 0 && room->count - peek_at(&put->seen_count) >= ring->max_messages) {
        struct ring_total got;
        uint64_t position;

        if (!count_side(&ring->segment->get, &got, &position))
            return RING_FULL;
        note(&put->seen_count, got.count);
        if (room->count - got.count > ring->max_messages)
            return RING_CORRUPT;
        if (room->count - got.count == ring->max_messages)
            return RING_FULL;
    }
    return RING_OK;
}

static void raise_high_water_mark(struct ring *ring, uint64_t count)
{
    struct ring_side *put = &ring->segment->put;
    _Atomic uint64_t *mark = &ring->segment->figures.high_water_mark;
    struct ring_total got;
    uint64_t position;

    if (count - peek_at(&put->seen_count) <= peek_at(mark) || !count_side(&ring->segment->get, &got, &position))
        return;
    note(&put->seen_count, got.count);
    if (count - got.count > peek_at(mark))
        note(mark, count - got.count);
}

static void wake_consumers(struct ring *ring, uint32_t asleep, size_t messages)
{
    struct ring_side *put = &ring->segment->put;

    if (asleep == 0)
        return;
    if (messages == 1)
        wait_call(&put->bell, &put->answered);
    else
        wait_ring(&put->bell, messages > UINT32_MAX ? UINT32_MAX : (uint32_t)messages);
}

/* Tells whether a call gives way to those who sleep on a bell. Called only after a crowd was seen. */
static bool turn_is_over(struct ring *ring, struct bell *bell, _Atomic uint32_t *turn, uint32_t crowd, int64_t patience)
{
    if (asleep_on(bell) == 0) {
        atomic_fetch_and_explicit(&ring->segment->state.watch, ~crowd, memory_order_relaxed);
        return false;
    }
    if (patience != RING_POLITE || atomic_fetch_add_explicit(turn, 1, memory_order_relaxed) < TURN)
        return false;
    atomic_store_explicit(turn, 0, memory_order_relaxed);
    return true;
}

/* What a put does before it commits if `watch` is not 0: it gives way, or it rings. */
static enum ring_result attend_put(struct ring *ring, uint32_t watch, int64_t patience)
{
    if (watch & RING_PUT_CROWD &&
        turn_is_over(ring, &ring->segment->get.bell, &ring->put_turn, RING_PUT_CROWD, patience))
        return RING_CROWDED;
    return watch & RING_TOLD && !watch_before_put(ring) ? RING_SYSTEM : RING_OK;
}

/* Space that a dead consumer holds comes back when somebody needs it. */
static bool reclaim(struct ring *ring)
{
    struct ring_side *get = &ring->segment->get;
    uint64_t before = free_position(ring);

    if (load(&get->held) == 0 || !enter(ring, get, 0))
        return false;
    sweep(ring, true);
    leave(get);
    return free_position(ring) != before;
}

static enum ring_result put_once(struct ring *ring, const struct ring_piece *pieces, size_t count, bool whole,
                                 size_t *stored, int64_t patience)
{
    struct ring_side *put = &ring->segment->put;
    enum ring_result result = RING_OK;
    bool large = count == 1 && message_size(&pieces[0]) >= RING_LARGE;
    uint64_t bytes = 0;
    uint32_t asleep = 0;
    uint32_t watch;
    struct room room;
    struct ring_record *record;

    *stored = 0;
    if (!enter(ring, put, patience))
        return RING_BUSY;
    /* Under the lock, which a shutdown takes, so that nothing is put behind its back. */
    if (atomic_load_explicit(&ring->segment->state.down, memory_order_relaxed)) {
        leave(put);
        return RING_DOWN;
    }
    room = room_of(put);
    record = record_at(ring, room.position);
    while (*stored < count) {
        size_t size = message_size(&pieces[*stored]);
        uint64_t needed = ring_record_size(size);

        result = size > ring->max_message_size ? RING_FULL : has_room(ring, &room, needed);
        if (result != RING_OK)
            break;
        write_record(ring, room.position, size, large ? own_word(ring, RING_RESERVED) : RING_READY);
        if (!large)
            copy_in(record_at(ring, room.position), &pieces[*stored]);
        room.position += needed;
        /* What was there was read on another processor, and is fetched from it before the next put writes there. */
        __builtin_prefetch(record_at(ring, room.position), 1);
        room.count++;
        bytes += size;
        ++*stored;
    }
    if (whole && *stored < count)
        *stored = 0; /* nobody has seen them */
    watch = watch_of(ring);
    if (*stored != 0 && watch != 0) {
        result = attend_put(ring, watch, patience);
        if (result != RING_OK)
            *stored = 0; /* nobody has seen them */
    }
    if (*stored != 0) {
        result = RING_OK;
        commit(put, room.position, *stored, bytes);
        asleep = asleep_on(&put->bell);
        raise_high_water_mark(ring, room.count); /* behind the commit, because it looks at the consumers' lines */
    }
    leave(put);
    if (large && *stored != 0) {
        copy_in(record, &pieces[0]);
        atomic_store_explicit(&record->word, RING_READY, memory_order_seq_cst);
        asleep = asleep_on(&put->bell);
    }
    wake_consumers(ring, asleep, *stored);
    return result;
}

static enum ring_result put_in_order(struct ring *ring, const struct ring_piece *pieces, size_t count, size_t *stored,
                                     int64_t patience)
{
    enum ring_result result = RING_DOWN;
    uint32_t asleep;

    if (!ring_enter_put(ring, patience))
        return RING_BUSY;
    if (!atomic_load_explicit(&ring->segment->state.down, memory_order_relaxed)) {
        result = watch_of(ring) & RING_PUT_CROWD ? attend_put(ring, RING_PUT_CROWD, patience) : RING_OK;
        if (result == RING_OK)
            result = shelf_put(ring, pieces, count, stored);
    }
    asleep = asleep_on(&ring->segment->put.bell);
    leave_put(ring);
    if (result == RING_OK)
        wake_consumers(ring, asleep, *stored);
    return result;
}

enum ring_result ring_put_many(struct ring *ring, const struct ring_piece *pieces, size_t count, size_t *stored,
                               int64_t patience)
{
    enum ring_result result = ring_condition(ring);

    *stored = 0;
    if (result == RING_OK && ordered(ring))
        return put_in_order(ring, pieces, count, stored, patience);
    if (result == RING_OK)
        result = put_once(ring, pieces, count, false, stored, patience);
    if (result == RING_FULL && reclaim(ring))
        result = put_once(ring, pieces, count, false, stored, patience);
    return result;
}

enum ring_result ring_put_all(struct ring *ring, const struct ring_piece *pieces, size_t count, int64_t patience)
{
    enum ring_result result = ring_condition(ring);
    size_t stored;

    if (result == RING_OK)
        result = put_once(ring, pieces, count, true, &stored, patience);
    if (result == RING_FULL && reclaim(ring))
        result = put_once(ring, pieces, count, true, &stored, patience);
    return result;
}

enum ring_result ring_put(struct ring *ring, const void *data, size_t size, int64_t patience)
{
    struct ring_piece piece = {.data = data, .size = size};
    size_t stored;

    return ring_put_many(ring, &piece, 1, &stored, patience);
}

/* Getting */

/* A record as it was found; what is in the segment may change meanwhile. */
struct found {
    struct ring_record *record;
    size_t size;
    uint64_t word;
    bool passed_over; /* whether records of dead producers were skipped, which frees their space */
};

static inline struct ring_piece piece_of(const struct found *found)
{
    return (struct ring_piece){.data = message_of(found->record), .size = found->size};
}

/* Looks at the record at a position at which one should be. The lock of the side is held. */
static enum ring_result inspect(struct ring *ring, uint64_t position, struct found *found)
{
    struct ring_side *get = &ring->segment->get;
    uint64_t there = peek_at(&get->seen_position) - position;

    if (there == 0 || there > ring->limit) {
        uint64_t seen = load(&ring->segment->put.position);

        note(&get->seen_position, seen);
        there = seen - position;
        if (there == 0)
            return RING_EMPTY;
        if (there > ring->limit)
            return RING_CORRUPT;
    }
    found->record = record_at(ring, position);
    found->word = atomic_load_explicit(&found->record->word, memory_order_acquire);
    found->size = *(volatile uint32_t *)&found->record->size;
    if (there < HEADER || found->size > ring->max_message_size || ring_record_size(found->size) > there)
        return RING_CORRUPT;
    switch (state_of(found->word)) {
    case RING_CLAIMED: /* by a consumer that died before it took it */
        atomic_store_explicit(&found->record->word, RING_READY, memory_order_relaxed);
        return RING_OK;
    case RING_READY:
    case RING_DONE:
        return RING_OK;
    case RING_RESERVED:
        return RING_BUSY;
    }
    return RING_CORRUPT;
}

/* The next message; what producers gave up before it is passed over. The lock is held. */
static enum ring_result next_message(struct ring *ring, uint64_t *position, struct found *found)
{
    struct ring_side *get = &ring->segment->get;

    found->passed_over = false;
    for (;;) {
        enum ring_result result;

        *position = peek_at(&get->position);
        result = inspect(ring, *position, found);
        if (result != RING_OK || state_of(found->word) != RING_DONE)
            return result;
        commit(get, *position + ring_record_size(found->size), 1, found->size);
        atomic_fetch_add_explicit(&ring->segment->figures.aborted, 1, memory_order_relaxed);
        found->passed_over = true;
    }
}

/* Whether a record before get.position is still copied: by a consumer, or by its producer if `clear` dropped it. */
static inline bool is_copied(uint64_t word)
{
    return state_of(word) == RING_CLAIMED || state_of(word) == RING_RESERVED;
}

/* Moves `held` on to the oldest record that a living participant copies, with `ask` also past those of dead ones. */
static void sweep(struct ring *ring, bool ask)
{
    struct ring_side *get = &ring->segment->get;
    uint64_t held = peek_at(&get->held);
    uint64_t end = peek_at(&get->position);
    uint64_t position = held - 1;

    if (held == 0)
        return;
    while (end - position - 1 < ring->limit) { /* so while it is before the end, and not further than can be */
        struct ring_record *record = record_at(ring, position);
        uint64_t word = atomic_load_explicit(&record->word, memory_order_acquire);
        uint64_t size = ring_record_size(*(volatile uint32_t *)&record->size);

        if (is_copied(word) && (!ask || ring_participates(ring, word)))
            break;
        if (size > end - position) { /* damaged; get sees to that */
            position = end;
            break;
        }
        position += size;
    }
    /* Sequentially consistent, because the caller next checks whether a producer sleeps: either it sees the sleeper, or
     * the sleeper sees the space (wait.h). */
    atomic_store_explicit(&get->held, end - position - 1 < ring->limit ? position + 1 : 0, memory_order_seq_cst);
}

/* Producers sleep until a quarter of the queue is free, so that they do not wake for each message. Behind a slow consumer
 * one is woken for any space, if none was woken for so many nanoseconds: longer than a fast consumer takes for a quarter,
 * and too short for a user to notice. */
#define LONGEST_SLEEP 5000000

static bool much_is_free(struct ring *ring)
{
    uint64_t used;
    struct ring_total put;
    struct ring_total got;

    if (ordered(ring))
        return shelf_much_is_free(ring);
    used = load(&ring->segment->put.position) - free_position(ring);
    if (used > ring->limit - ring->limit / 4)
        return false;
    if (ring->max_messages == 0)
        return true;
    ring_count(ring, &put, &got);
    return put.count - got.count <= ring->max_messages - (ring->max_messages + 3) / 4;
}

static void wake_producers(struct ring *ring, uint32_t asleep)
{
    struct ring_side *get = &ring->segment->get;

    /* Without signs, since what is in the segment may be any number. */
    if (asleep != 0 &&
        (much_is_free(ring) ||
         (uint64_t)wait_now() - (uint64_t)atomic_load_explicit(&get->bell.woken, memory_order_relaxed) > LONGEST_SLEEP))
        wait_call(&get->bell, &get->answered);
}

/* Frees the space of finished copies, also of those whose consumers could not wait for the lock. */
static bool sweep_frees(struct ring *ring)
{
    uint64_t before = free_position(ring);

    sweep(ring, false);
    return free_position(ring) != before;
}

/* For a consumer that gives the lock back; `freed` says whether it has freed space. Wakes a producer if space came free. */
static inline void leave_get(struct ring *ring, bool freed)
{
    struct ring_side *get = &ring->segment->get;
    uint32_t asleep = 0;

    if (peek_at(&get->held) != 0 && sweep_frees(ring))
        freed = true;
    /* The stores that free space, to `position` and `held`, come before the check for sleepers (wait.h). */
    if (freed)
        asleep = asleep_on(&get->bell);
    leave(get);
    wake_producers(ring, asleep);
}

/* Says what there is to say of a queue before its lock is taken. */
static enum ring_result before_get(struct ring *ring)
{
    enum ring_result result = ring_condition(ring);
    uint64_t position;

    if (result == RING_GONE || (result == RING_DOWN && dropped(ring)))
        return result;
    /* After the condition: what was put before a shutdown is seen by whoever sees the shutdown. Producers write their
     * position all the time, so that looking at it is dear, and only done where the last look does not suffice. */
    position = load(&ring->segment->get.position);
    if ((!ordered(ring) && peek_at(&ring->segment->get.seen_position) != position) ||
        load(&ring->segment->put.position) != position)
        return RING_OK;
    return result == RING_DOWN ? RING_DOWN : RING_EMPTY;
}

/* Waits until the next record is not one that is being written, or gives it up if its producer is dead. Returns whether
 * the lock could be taken for that. */
static bool settle_front(struct ring *ring, int64_t until)
{
    const struct timespec nap = {.tv_nsec = 50000};
    struct ring_side *get = &ring->segment->get;
    bool busy = false;

    for (unsigned looks = 0; wait_now() < until; looks++) {
        struct found found;
        uint64_t position;
        enum ring_result result;

        /* With the lock, since the record may be taken and written over otherwise. */
        if (!enter(ring, get, until - wait_now()))
            return false;
        result = next_message(ring, &position, &found);
        if (result == RING_BUSY && looks >= COPY_LOOKS && !ring_participates(ring, found.word))
            atomic_compare_exchange_strong_explicit(&found.record->word, &found.word, RING_DONE, memory_order_acq_rel,
                                                    memory_order_relaxed);
        leave_get(ring, found.passed_over);
        if (result != RING_BUSY)
            return true;
        busy = true;
        if (looks < COPY_LOOKS)
            for (int pauses = 0; pauses < 20; pauses++)
                wait_pause();
        else
            nanosleep(&nap, NULL);
    }
    if (busy)
        note_writer(get);
    return true;
}

bool ring_settle(struct ring *ring, bool getting, int64_t patience)
{
    int64_t until = wait_now() + patience;
    bool empty = load(&ring->segment->put.position) == load(&ring->segment->get.position);

    if (getting && empty && watch_of(ring) & RING_TOLD)
        return watch_after_get(ring, patience) != RING_BUSY;
    if (getting && !empty && !ordered(ring))
        return settle_front(ring, until);
    if (!ring_enter_put(ring, patience))
        return false;
    leave_put(ring);
    return true;
}

static bool enter_to_get(struct ring *ring, int64_t patience)
{
    return ordered(ring) ? ring_enter_put(ring, patience) : enter(ring, &ring->segment->get, patience);
}

/* What a getter does with the lock, which it gives back. */
typedef enum ring_result step(struct ring *ring, void *arguments);

/* Takes the lock and runs a step, again and again while it is busy and there is patience. */
static enum ring_result with_messages(struct ring *ring, int64_t patience, step *act, void *arguments)
{
    int64_t until = patience > 0 ? wait_now() + patience : 0;
    bool again = false;

    for (;;) {
        uint32_t watch = watch_of(ring);
        enum ring_result result = before_get(ring);

        if (watch & RING_GET_CROWD && result == RING_OK &&
            turn_is_over(ring, &ring->segment->put.bell, &ring->get_turn, RING_GET_CROWD, patience))
            return RING_CROWDED;
        if (result == RING_OK)
            result = enter_to_get(ring, patience) ? act(ring, arguments) : RING_BUSY;
        if (watch & RING_TOLD) {
            enum ring_result there = watch_after_get(ring, patience);

            /* The doorbell rings before the message is there: a consumer that it woke waits for the producer and looks
             * again. */
            if (result == RING_EMPTY && there == RING_OK && !again) {
                again = true;
                continue;
            }
            /* Without patience the caller waits for the producer, and does so without the GIL. */
            if (result == RING_EMPTY && there == RING_BUSY && patience <= 0)
                return RING_BUSY;
        }
        if (result != RING_BUSY || patience <= 0 || wait_now() >= until)
            return result;
        if (!ordered(ring))
            settle_front(ring, until);
    }
}

struct get {
    ring_room *room;
    void *context;
    struct ring_copy *copy;
};

static enum ring_result get_locked(struct ring *ring, void *arguments)
{
    const struct get *asked = arguments;
    struct ring_side *get = &ring->segment->get;
    struct found found;
    uint64_t position;
    struct ring_piece message;
    void *target;
    enum ring_result result = next_message(ring, &position, &found);

    if (result == RING_OK) {
        message = piece_of(&found);
        target = asked->room(asked->context, &message);
        if (target == NULL) {
            result = RING_NO_MEMORY;
        } else if (found.size < RING_LARGE) {
            /* The next record was written on another processor: it is fetched while this one is copied. */
            __builtin_prefetch(record_at(ring, position + ring_record_size(found.size)));
            memcpy(target, message.data, message.size);
            commit(get, position + ring_record_size(found.size), 1, found.size);
        } else {
            *asked->copy = (struct ring_copy){position, message.data, target, message.size};
            atomic_store_explicit(&found.record->word, own_word(ring, RING_CLAIMED), memory_order_relaxed);
            if (peek_at(&get->held) == 0)
                atomic_store_explicit(&get->held, position + 1, memory_order_release);
            commit(get, position + ring_record_size(found.size), 1, found.size);
            result = RING_COPYING;
        }
    }
    leave_get(ring, result == RING_OK || found.passed_over);
    return result;
}

static enum ring_result leave_shelf(struct ring *ring, enum ring_result result)
{
    uint32_t asleep = asleep_on(&ring->segment->get.bell);

    leave_put(ring);
    wake_producers(ring, asleep);
    return result;
}

static enum ring_result get_in_order(struct ring *ring, void *arguments)
{
    const struct get *asked = arguments;
    size_t taken;

    return leave_shelf(ring, shelf_take(ring, asked->room, asked->context, 1, &taken));
}

enum ring_result ring_get(struct ring *ring, ring_room *room, void *context, struct ring_copy *copy, int64_t patience)
{
    if (ordered(ring))
        return with_messages(ring, patience, get_in_order, &(struct get){room, context, copy});
    return with_messages(ring, patience, get_locked, &(struct get){room, context, copy});
}

void ring_release(struct ring *ring, const struct ring_copy *copy)
{
    struct ring_side *get = &ring->segment->get;

    atomic_store_explicit(&record_at(ring, copy->position)->word, RING_DONE, memory_order_release);
    if (!enter(ring, get, RELEASE_PATIENCE)) {
        /* The next owner of the lock frees the space before it leaves. If none comes, a producer that needs the space
         * frees it (reclaim), so one is woken to check. The fence pairs with the sleeper's (wait.h). */
        atomic_thread_fence(memory_order_seq_cst);
        if (asleep_on(&get->bell) != 0)
            wait_call(&get->bell, &get->answered);
        return;
    }
    leave_get(ring, false);
}

struct get_many {
    ring_room *room;
    void *context;
    size_t limit;
    size_t *taken;
};

static enum ring_result get_many_locked(struct ring *ring, void *arguments)
{
    const struct get_many *asked = arguments;
    struct ring_side *get = &ring->segment->get;
    struct found found;
    uint64_t position;
    uint64_t bytes = 0;
    size_t taken = 0;
    enum ring_result result = next_message(ring, &position, &found);

    while (result == RING_OK && taken < asked->limit && state_of(found.word) != RING_DONE) {
        struct ring_piece message = piece_of(&found);
        void *target;

        if (found.size >= RING_LARGE) {
            result = RING_COPYING;
            break;
        }
        target = asked->room(asked->context, &message);
        if (target == NULL) {
            result = RING_NO_MEMORY;
            break;
        }
        memcpy(target, message.data, message.size);
        position += ring_record_size(found.size);
        bytes += found.size;
        taken++;
        if (taken < asked->limit)
            result = inspect(ring, position, &found);
    }
    if (taken != 0) {
        if (result != RING_COPYING)
            result = RING_OK;
        commit(get, position, taken, bytes);
    }
    *asked->taken = taken;
    leave_get(ring, taken != 0 || found.passed_over);
    return result;
}

static enum ring_result get_many_in_order(struct ring *ring, void *arguments)
{
    const struct get_many *asked = arguments;

    return leave_shelf(ring, shelf_take(ring, asked->room, asked->context, asked->limit, asked->taken));
}

enum ring_result ring_get_many(struct ring *ring, ring_room *room, void *context, size_t limit, size_t *taken,
                               int64_t patience)
{
    struct get_many asked = {room, context, limit, taken};

    *taken = 0;
    return with_messages(ring, patience, ordered(ring) ? get_many_in_order : get_many_locked, &asked);
}

static enum ring_result peek_locked(struct ring *ring, void *arguments)
{
    const struct get *asked = arguments;
    struct found found;
    uint64_t position;
    enum ring_result result = next_message(ring, &position, &found);

    if (result == RING_OK) {
        struct ring_piece message = piece_of(&found);
        void *target = asked->room(asked->context, &message);

        if (target == NULL)
            result = RING_NO_MEMORY;
        else
            memcpy(target, message.data, message.size);
    }
    leave_get(ring, found.passed_over);
    return result;
}

static enum ring_result peek_in_order(struct ring *ring, void *arguments)
{
    const struct get *asked = arguments;

    return leave_shelf(ring, shelf_look(ring, asked->room, asked->context));
}

enum ring_result ring_peek(struct ring *ring, ring_room *room, void *context, int64_t patience)
{
    struct get asked = {room, context, NULL};

    return with_messages(ring, patience, ordered(ring) ? peek_in_order : peek_locked, &asked);
}

/* Makes a record DONE if its producer died while writing it, and tells whether it did. */
static bool give_up(struct ring *ring, struct found *found)
{
    return !ring_participates(ring, found->word) &&
           atomic_compare_exchange_strong_explicit(&found->record->word, &found->word, RING_DONE, memory_order_acq_rel,
                                                   memory_order_acquire);
}

/* Drops all messages in one step. A message that is still being written is dropped too: its space stays held until its
 * producer has finished, as if a consumer were copying it. */
static enum ring_result clear_locked(struct ring *ring, size_t *count)
{
    struct ring_side *get = &ring->segment->get;
    uint64_t begin = peek_at(&get->position);
    uint64_t position = begin;
    uint64_t held = peek_at(&get->held);
    uint64_t aborted = 0;
    uint64_t bytes = 0;
    struct found found;
    enum ring_result result;

    while ((result = inspect(ring, position, &found)) == RING_OK || result == RING_BUSY) {
        if (position - begin > ring->limit) /* more than there can be */
            return RING_CORRUPT;
        if (result == RING_BUSY && !give_up(ring, &found)) {
            if (state_of(found.word) == RING_RESERVED && held == 0)
                held = position + 1;
            ++*count;
        } else if (result == RING_BUSY || state_of(found.word) == RING_DONE) {
            aborted++;
        } else {
            ++*count;
        }
        position += ring_record_size(found.size);
        bytes += found.size;
    }
    if (position != begin) {
        /* Before the commit `held` lies beyond get.position, where it means nothing. */
        atomic_store_explicit(&get->held, held, memory_order_release);
        commit(get, position, *count + aborted, bytes);
        atomic_fetch_add_explicit(&ring->segment->figures.aborted, aborted, memory_order_relaxed);
    }
    return result == RING_EMPTY ? RING_OK : result;
}

/* Like with_messages, but also on a queue whose messages were dropped by a shutdown. */
enum ring_result ring_clear(struct ring *ring, size_t *count, int64_t patience)
{
    struct ring_side *get = &ring->segment->get;
    enum ring_result result = ring_condition(ring);
    uint64_t position = load(&get->position);

    *count = 0;
    if (result == RING_GONE)
        return result;
    if (load(&ring->segment->put.position) == position)
        return RING_EMPTY;
    if (!enter_to_get(ring, patience))
        return RING_BUSY;
    if (ordered(ring)) {
        result = leave_shelf(ring, shelf_clear(ring, count));
    } else {
        result = clear_locked(ring, count);
        leave_get(ring, true);
    }
    if (watch_of(ring) & RING_TOLD)
        watch_after_get(ring, patience);
    return result;
}

void ring_drop(struct ring *ring, int64_t patience)
{
    size_t count;

    atomic_fetch_or_explicit(&ring->segment->state.down, RING_DROPPED, memory_order_seq_cst);
    ring_clear(ring, &count, patience); /* frees the space; even if it cannot, get returns nothing */
}

enum ring_result ring_shutdown(struct ring *ring, int64_t patience)
{
    struct ring_segment *segment = ring->segment;
    enum ring_result result = ring_condition(ring);
    bool entered;

    if (result == RING_GONE)
        return result;
    /* A producer that is stopped inside must not keep the queue open; what it puts when it goes on can be taken. */
    entered = ring_enter_put(ring, patience);
    /* Before the store below, so that a kill in between leaves a byte too many and never one too few. */
    if (!watch_end(ring, entered)) {
        int reason = errno;

        if (entered)
            leave_put(ring);
        errno = reason;
        return RING_SYSTEM;
    }
    atomic_fetch_or_explicit(&segment->state.down, RING_ENDED, memory_order_seq_cst);
    if (entered)
        leave_put(ring);
    else
        watch_end(ring, false); /* again: the stopped owner of the lock may have taken the byte */
    wait_ring(&segment->put.bell, UINT32_MAX);
    wait_ring(&segment->get.bell, UINT32_MAX);
    return RING_OK;
}

/* Waiting */

static bool ended(struct ring *ring)
{
    struct ring_state *state = &ring->segment->state;

    return atomic_load_explicit(&state->down, memory_order_seq_cst) ||
           (!ring->stays && atomic_load_explicit(&state->unlinked, memory_order_relaxed));
}

static bool readable(void *context)
{
    struct ring *ring = context;

    return atomic_load_explicit(&ring->segment->put.position, memory_order_seq_cst) !=
               peek_at(&ring->segment->get.position) ||
           ended(ring);
}

struct wish {
    struct ring *ring;
    uint64_t size;
};

static bool has_space(const struct wish *wish)
{
    struct ring *ring = wish->ring;
    uint64_t got = atomic_load_explicit(&ring->segment->get.position, memory_order_seq_cst);
    uint64_t held = load(&ring->segment->get.held);
    uint64_t used = load(&ring->segment->put.position) - (held != 0 && held - 1 < got ? held - 1 : got);
    struct ring_total put;
    struct ring_total taken;

    if (ordered(ring))
        return shelf_has_space(ring, wish->size);
    if (used <= ring->limit && ring_record_size(wish->size) > ring->limit - used)
        return false;
    if (ring->max_messages == 0)
        return true;
    ring_count(ring, &put, &taken);
    return put.count - taken.count < ring->max_messages;
}

static bool writable(void *context)
{
    const struct wish *wish = context;

    return has_space(wish) || ended(wish->ring);
}

/* What a producer spins for: it goes on when there is space for many messages, since one at a time would have both sides
 * wait for each other's cache lines. */
static bool roomy(void *context)
{
    const struct wish *wish = context;

    return ended(wish->ring) || (much_is_free(wish->ring) && writable(context));
}

bool ring_has_space(struct ring *ring, size_t size)
{
    return has_space(&(struct wish){ring, size});
}

bool ring_spin_readable(struct ring *ring, int64_t since, int64_t until)
{
    return wait_spin(&ring->segment->get.spinner, &ring->reading, since, until, readable, ring);
}

bool ring_spin_writable(struct ring *ring, size_t size, int64_t since, int64_t until)
{
    struct wish wish = {ring, size};

    return wait_spin(&ring->segment->put.spinner, &ring->writing, since, until, roomy, &wish);
}

static void note_crowd(struct ring *ring, uint32_t crowd)
{
    if (!(watch_of(ring) & crowd))
        atomic_fetch_or_explicit(&ring->segment->state.watch, crowd, memory_order_relaxed);
}

void ring_sleep_readable(struct ring *ring, int64_t until)
{
    struct ring_side *put = &ring->segment->put;

    if (wait_sleep(&put->bell, &put->answered, &ring->reading, until, readable, ring))
        note_crowd(ring, RING_GET_CROWD);
}

void ring_rouse(struct ring *ring)
{
    wait_ring(&ring->segment->put.bell, UINT32_MAX);
}

void ring_sleep_writable(struct ring *ring, size_t size, int64_t until)
{
    struct ring_side *get = &ring->segment->get;
    struct wish wish = {ring, size};

    if (wait_sleep(&get->bell, &get->answered, &ring->writing, until, writable, &wish))
        note_crowd(ring, RING_PUT_CROWD);
}

void ring_pass_on(struct ring *ring, bool getting)
{
    struct ring_side *other = getting ? &ring->segment->put : &ring->segment->get;

    if (asleep_on(&other->bell) != 0 && (getting ? readable(ring) : has_space(&(struct wish){ring, 0})))
        wait_call(&other->bell, &other->answered);
}

static bool has_ended(void *context)
{
    return ended(context);
}

void ring_give_way(struct ring *ring, bool getting, int64_t until)
{
    struct ring_side *other = getting ? &ring->segment->put : &ring->segment->get;
    int64_t last = wait_now() + LONGEST_BEHIND;

    wait_call(&other->bell, &other->answered);
    wait_sleep(&other->bell, &other->answered, getting ? &ring->reading : &ring->writing, until < last ? until : last,
               has_ended, ring);
}

static struct ring_side *side_of(struct ring *ring, bool getting)
{
    return getting && !ordered(ring) ? &ring->segment->get : &ring->segment->put;
}

bool ring_found_busy(struct ring *ring, bool getting)
{
    _Atomic bool *busy = side_of(ring, getting) == &ring->segment->get ? &ring->get_busy : &ring->put_busy;

    if (!atomic_load_explicit(busy, memory_order_relaxed))
        return false;
    atomic_store_explicit(busy, false, memory_order_relaxed);
    return true;
}

void ring_await_lock(struct ring *ring, bool getting, int64_t until)
{
    lock_await(&side_of(ring, getting)->lock, until - wait_now());
}

struct ring_holder ring_holder(struct ring *ring, bool getting)
{
    struct ring_side *side = side_of(ring, getting);
    struct ring_holder found = {.thread = lock_owner(&side->lock), .writer = -1};
    struct ring_total put, got;
    uint64_t position, word;

    if (found.thread != 0) {
        if (atomic_load_explicit(&side->holder, memory_order_acquire) == found.thread &&
            peek_at(&side->holder_position) == peek_at(&side->position))
            found.since = atomic_load_explicit(&side->holder_since, memory_order_relaxed);
        return found;
    }
    if (getting && !ordered(ring)) {
        position = load(&ring->segment->get.position);
        ring_count(ring, &put, &got);
        word = atomic_load_explicit(&record_at(ring, position)->word, memory_order_acquire);
        if (put.count != got.count && state_of(word) == RING_RESERVED) {
            found.writer = (int32_t)(word >> 8 & 0xffffff);
            if (atomic_load_explicit(&side->holder, memory_order_acquire) == 0 &&
                peek_at(&side->holder_position) == position)
                found.since = atomic_load_explicit(&side->holder_since, memory_order_relaxed);
        }
    }
    return found;
}
