#include "ring.h"

#include <string.h>
#include <time.h>

#include "attention.h"
#include "clock.h"
#include "ending.h"
#include "futex.h"
#include "holder.h"
#include "participant.h"
#include "record.h"
#include "side.h"

/* How long a consumer waits for the lock to free space after a copy, in ns; otherwise the next consumer frees it. */
#define RELEASE_PATIENCE 1000000
/* How often a record that is being written is read before its producer is checked: a mebibyte takes 50 us. */
#define COPY_LOOKS 200

/* For helpers with several callers: inlined, a put or a get of one message keeps their arguments in registers. */
#define INLINED __attribute__((always_inline)) static inline

/* Space */

/* Where the space of producers ends. The position first: a reader that sees a new one also sees `held` of that time. */
static inline uint64_t free_position(struct queue *queue)
{
    uint64_t position = word_load(&queue->segment->get.position);
    uint64_t held = word_load(&queue->segment->get.held);

    return held != 0 && held - 1 < position ? held - 1 : position;
}

/* Advances `held` to the oldest record that is still being copied; with `ask` also past records of dead participants.
 * Not inlined, so that the callers that need it only after a death are inlined themselves, by clang too. */
__attribute__((noinline)) static void sweep(struct queue *queue, bool ask)
{
    struct side *get = &queue->segment->get;
    uint64_t held = word_peek(&get->held);
    uint64_t end = word_peek(&get->position);
    uint64_t position = held - 1;

    if (held == 0)
        return;
    while (end - position - 1 < queue->limit) { /* while it is before the end, within what the ring can hold */
        struct ring_record *record = record_at(queue, position);
        uint64_t word = atomic_load_explicit(&record->word, memory_order_acquire);
        uint64_t size = ring_record_size(*(volatile uint32_t *)&record->size);

        if (record_is_copied(word) && (!ask || participant_lives(queue, word)))
            break;
        if (size > end - position) { /* damaged; a get will report it */
            position = end;
            break;
        }
        position += size;
    }
    /* Sequentially consistent, because the caller next checks whether a producer sleeps: either it sees the sleeper, or
     * the sleeper sees the space (event.h). */
    atomic_store_explicit(&get->held, end - position - 1 < queue->limit ? position + 1 : 0, memory_order_seq_cst);
}

static bool ring_much_is_free(struct queue *queue)
{
    uint64_t used = word_load(&queue->segment->put.position) - free_position(queue);
    struct queue_total put;
    struct queue_total got;

    if (used > queue->limit - queue->limit / 4)
        return false;
    if (queue->max_messages == 0)
        return true;
    side_totals(queue, &put, &got);
    return put.count - got.count <= queue->max_messages - (queue->max_messages + 3) / 4;
}

static bool ring_has_space(struct queue *queue, uint64_t message_size)
{
    uint64_t got = atomic_load_explicit(&queue->segment->get.position, memory_order_seq_cst);
    uint64_t held = word_load(&queue->segment->get.held);
    uint64_t used = word_load(&queue->segment->put.position) - (held != 0 && held - 1 < got ? held - 1 : got);
    struct queue_total put;
    struct queue_total taken;

    if (used <= queue->limit && ring_record_size(message_size) > queue->limit - used)
        return false;
    if (queue->max_messages == 0)
        return true;
    side_totals(queue, &put, &taken);
    return put.count - taken.count < queue->max_messages;
}

/* Locks */

/* Separate, so that the fast path stays short. */
__attribute__((noinline)) static bool enter_otherwise(struct queue *queue, struct side *side,
                                                      enum lock_result result, int64_t patience)
{
    if (result == LOCK_BUSY) {
        if (patience > 0)
            holder_note(queue, side);
        return false;
    }
    atomic_fetch_add_explicit(&queue->segment->figures.recoveries, 1, memory_order_relaxed);
    if (side == &queue->segment->get)
        sweep(queue, true);
    return true;
}

static inline bool enter(struct queue *queue, struct side *side, int64_t patience)
{
    enum lock_result result = lock_take(&side->lock, patience);

    return result == LOCK_TAKEN || enter_otherwise(queue, side, result, patience);
}

static bool ring_enter_put(struct queue *queue, int64_t patience)
{
    return enter(queue, &queue->segment->put, patience);
}

/* Frees the space of finished copies, also of those whose consumers could not wait for the lock. */
static bool sweep_frees(struct queue *queue)
{
    uint64_t before = free_position(queue);

    sweep(queue, false);
    return free_position(queue) != before;
}

/* Releases the consumers' lock, and wakes a producer if space was freed; `freed`: the caller freed some. */
static inline void leave_get(struct queue *queue, bool freed)
{
    struct side *get = &queue->segment->get;
    uint32_t asleep = 0;

    if (word_peek(&get->held) != 0 && sweep_frees(queue))
        freed = true;
    /* The stores that free space, to `position` and `held`, come before the check for sleepers (event.h). */
    if (freed)
        asleep = event_asleep(&get->event);
    side_leave(get);
    attention_wake_producers(queue, asleep);
}

/* Putting */

/* The state of a put while it holds the lock: where the next record begins, and how much was ever put until then. */
struct room {
    uint64_t position;
    uint64_t count;
    uint64_t bytes;
    const struct side_mark *mark; /* of the last commit */
};

static inline struct room room_of(struct side *put)
{
    uint64_t position = word_peek(&put->position);
    const struct side_mark *mark = side_mark_at(put, position);

    return (struct room){position, word_peek(&mark->count), word_peek(&mark->bytes), mark};
}

static inline enum queue_result has_room(struct queue *queue, const struct room *room, uint64_t needed)
{
    struct side *put = &queue->segment->put;
    uint64_t used = room->position - word_peek(&put->seen_position);

    if (used > queue->limit || needed > queue->limit - used) {
        uint64_t seen = free_position(queue);

        word_note(&put->seen_position, seen);
        used = room->position - seen;
        if (used > queue->limit)
            return QUEUE_CORRUPT;
        if (needed > queue->limit - used)
            return QUEUE_FULL;
    }
    if (queue->max_messages != 0 && room->count - word_peek(&put->seen_count) >= queue->max_messages) {
        struct queue_total got;
        uint64_t position;

        if (!side_total(&queue->segment->get, &got, &position))
            return QUEUE_FULL;
        word_note(&put->seen_count, got.count);
        if (room->count - got.count > queue->max_messages)
            return QUEUE_CORRUPT;
        if (room->count - got.count == queue->max_messages)
            return QUEUE_FULL;
    }
    return QUEUE_OK;
}

static void raise_high_water_mark(struct queue *queue, uint64_t count)
{
    struct side *put = &queue->segment->put;
    _Atomic uint64_t *mark = &queue->segment->figures.high_water_mark;
    struct queue_total got;
    uint64_t position;

    if (count - word_peek(&put->seen_count) <= word_peek(mark) || !side_total(&queue->segment->get, &got, &position))
        return;
    word_note(&put->seen_count, got.count);
    if (count - got.count > word_peek(mark))
        word_note(mark, count - got.count);
}

static bool ring_reclaim(struct queue *queue)
{
    struct side *get = &queue->segment->get;
    uint64_t before = free_position(queue);

    if (word_load(&get->held) == 0 || !enter(queue, get, 0))
        return false;
    sweep(queue, true);
    side_leave(get);
    return free_position(queue) != before;
}

/* Takes the lock and reads the state. The lock is held afterwards only with QUEUE_OK. */
static inline enum queue_result begin_put(struct queue *queue, struct room *room, int64_t patience)
{
    struct side *put = &queue->segment->put;

    if (!enter(queue, put, patience))
        return QUEUE_BUSY;
    /* Under the lock, which a shutdown takes, so that nothing is put after it. */
    if (atomic_load_explicit(&queue->segment->state.down, memory_order_relaxed)) {
        side_leave(put);
        return QUEUE_DOWN;
    }
    *room = room_of(put);
    return QUEUE_OK;
}

/* Writes a record if there is space. Without `copied`, its message is copied later. */
static inline enum queue_result write_record(struct queue *queue, struct room *room, const struct queue_piece *piece,
                                             bool copied)
{
    size_t size = piece_size(piece);
    uint64_t needed = ring_record_size(size);
    struct ring_record *record = record_at(queue, room->position);
    enum queue_result result = size > queue->max_message_size ? QUEUE_FULL : has_room(queue, room, needed);

    if (result != QUEUE_OK)
        return result;
    record_write(record, size, copied ? RECORD_READY : participant_word(queue, RECORD_RESERVED));
    if (copied)
        record_copy_in(record, piece);
    room->position += needed;
    room->count++;
    room->bytes += size;
    /* The next put writes there, and another processor read it last: fetch the line now. */
    __builtin_prefetch(record_at(queue, room->position), 1);
    return QUEUE_OK;
}

/* Commits the written records. Sets `asleep` to the number of consumers to wake after the unlock. */
INLINED enum queue_result commit_put(struct queue *queue, const struct room *room, uint32_t *asleep, int64_t patience)
{
    struct side *put = &queue->segment->put;
    uint32_t attention = attention_of(queue);

    if (attention != 0) {
        enum queue_result result = attention_before_put(queue, attention, patience);

        if (result != QUEUE_OK)
            return result;
    }
    side_commit_totals(put, room->mark, room->position, room->count, room->bytes);
    *asleep = event_asleep(&put->event);
    raise_high_water_mark(queue, room->count); /* after the commit, because it reads the consumers' lines */
    return QUEUE_OK;
}

static enum queue_result ring_put(struct queue *queue, const struct queue_piece *piece, int64_t patience)
{
    struct side *put = &queue->segment->put;
    bool large = piece_size(piece) >= QUEUE_LARGE;
    uint32_t asleep = 0;
    struct room room;
    enum queue_result result = begin_put(queue, &room, patience);
    struct ring_record *record;

    if (result != QUEUE_OK)
        return result;
    record = record_at(queue, room.position);
    result = write_record(queue, &room, piece, !large);
    if (result == QUEUE_OK)
        result = commit_put(queue, &room, &asleep, patience);
    side_leave(put);
    if (large && result == QUEUE_OK) {
        record_copy_in(record, piece);
        atomic_store_explicit(&record->word, RECORD_READY, memory_order_seq_cst);
        asleep = event_asleep(&put->event);
    }
    attention_wake_consumers(queue, asleep, 1);
    return result;
}

static enum queue_result ring_put_many(struct queue *queue, const struct queue_piece *pieces, size_t count, bool whole,
                                       size_t *stored, int64_t patience)
{
    uint32_t asleep = 0;
    size_t written = 0;
    struct room room;
    enum queue_result result = begin_put(queue, &room, patience);

    if (result != QUEUE_OK)
        return result;
    while (written < count && result == QUEUE_OK) {
        result = write_record(queue, &room, &pieces[written], true);
        written += result == QUEUE_OK;
    }
    if (written != 0 && (!whole || written == count))
        result = commit_put(queue, &room, &asleep, patience);
    *stored = result == QUEUE_OK ? written : 0;
    side_leave(&queue->segment->put);
    attention_wake_consumers(queue, asleep, *stored);
    return result;
}

/* Getting */

/* A record as it was found; the segment may change meanwhile. */
struct found {
    struct ring_record *record;
    size_t size;
    uint64_t word;
    bool passed_over; /* whether records of dead producers were skipped, which frees their space */
};

static inline struct queue_piece piece_of(const struct found *found)
{
    return (struct queue_piece){.data = record_message(found->record), .size = found->size};
}

/* Reads and checks the record at a position. The lock of the side is held. */
INLINED enum queue_result inspect(struct queue *queue, uint64_t position, struct found *found)
{
    struct side *get = &queue->segment->get;
    uint64_t there = word_peek(&get->seen_position) - position;

    if (there == 0 || there > queue->limit) {
        uint64_t seen = word_load(&queue->segment->put.position);

        word_note(&get->seen_position, seen);
        there = seen - position;
        if (there == 0)
            return QUEUE_EMPTY;
        if (there > queue->limit)
            return QUEUE_CORRUPT;
    }
    found->record = record_at(queue, position);
    found->word = atomic_load_explicit(&found->record->word, memory_order_acquire);
    found->size = *(volatile uint32_t *)&found->record->size;
    if (there < sizeof(struct ring_record) || found->size > queue->max_message_size ||
        ring_record_size(found->size) > there)
        return QUEUE_CORRUPT;
    switch (record_state_of(found->word)) {
    case RECORD_CLAIMED: /* by a consumer that died before it took it */
        atomic_store_explicit(&found->record->word, RECORD_READY, memory_order_relaxed);
        return QUEUE_OK;
    case RECORD_READY:
    case RECORD_DONE:
        return QUEUE_OK;
    case RECORD_RESERVED:
        return QUEUE_BUSY;
    }
    return QUEUE_CORRUPT;
}

/* Finds the next message, and skips records that producers gave up. The lock is held. */
INLINED enum queue_result next_message(struct queue *queue, uint64_t *position, struct found *found)
{
    struct side *get = &queue->segment->get;

    found->passed_over = false;
    for (;;) {
        enum queue_result result;

        *position = word_peek(&get->position);
        result = inspect(queue, *position, found);
        if (result != QUEUE_OK || record_state_of(found->word) != RECORD_DONE)
            return result;
        side_commit(get, *position + ring_record_size(found->size), 1, found->size);
        atomic_fetch_add_explicit(&queue->segment->figures.aborted, 1, memory_order_relaxed);
        found->passed_over = true;
    }
}

static enum queue_result ring_get(struct queue *queue, const struct taking *taking, int64_t patience)
{
    struct side *get = &queue->segment->get;
    struct found found;
    uint64_t position;
    struct queue_piece message;
    void *target;
    enum queue_result result;

    if (!enter(queue, get, patience))
        return QUEUE_BUSY;
    result = next_message(queue, &position, &found);
    if (result == QUEUE_OK) {
        message = piece_of(&found);
        target = taking->room(taking->context, &message);
        if (target == NULL) {
            result = QUEUE_NO_MEMORY;
        } else if (found.size < QUEUE_LARGE) {
            /* Another processor wrote the next record: fetch it while this one is copied. */
            __builtin_prefetch(record_at(queue, position + ring_record_size(found.size)));
            memcpy(target, message.data, message.size);
            side_commit(get, position + ring_record_size(found.size), 1, found.size);
        } else {
            *taking->copy = (struct queue_copy){position, message.data, target, message.size};
            atomic_store_explicit(&found.record->word, participant_word(queue, RECORD_CLAIMED), memory_order_relaxed);
            if (word_peek(&get->held) == 0)
                atomic_store_explicit(&get->held, position + 1, memory_order_release);
            side_commit(get, position + ring_record_size(found.size), 1, found.size);
            result = QUEUE_COPYING;
        }
    }
    leave_get(queue, result == QUEUE_OK || found.passed_over);
    return result;
}

static void ring_release(struct queue *queue, const struct queue_copy *copy)
{
    struct side *get = &queue->segment->get;

    atomic_store_explicit(&record_at(queue, copy->position)->word, RECORD_DONE, memory_order_release);
    if (!enter(queue, get, RELEASE_PATIENCE)) {
        /* The next owner of the lock frees the space before it leaves. If none comes, a producer that needs the space
         * frees it (ring_reclaim), so one is woken to check. The fence pairs with the sleeper's (event.h). */
        atomic_thread_fence(memory_order_seq_cst);
        if (event_asleep(&get->event) != 0)
            event_wake_one(&get->event, &get->answered);
        return;
    }
    leave_get(queue, false);
}

static enum queue_result ring_get_many(struct queue *queue, const struct taking *taking, int64_t patience)
{
    struct side *get = &queue->segment->get;
    struct found found;
    uint64_t position;
    uint64_t bytes = 0;
    size_t taken = 0;
    enum queue_result result;

    if (!enter(queue, get, patience))
        return QUEUE_BUSY;
    result = next_message(queue, &position, &found);
    while (result == QUEUE_OK && taken < taking->limit && record_state_of(found.word) != RECORD_DONE) {
        struct queue_piece message = piece_of(&found);
        void *target;

        if (found.size >= QUEUE_LARGE) {
            result = QUEUE_COPYING;
            break;
        }
        target = taking->room(taking->context, &message);
        if (target == NULL) {
            result = QUEUE_NO_MEMORY;
            break;
        }
        memcpy(target, message.data, message.size);
        position += ring_record_size(found.size);
        bytes += found.size;
        taken++;
        if (taken < taking->limit)
            result = inspect(queue, position, &found);
    }
    if (taken != 0) {
        if (result != QUEUE_COPYING)
            result = QUEUE_OK;
        side_commit(get, position, taken, bytes);
    }
    *taking->taken = taken;
    leave_get(queue, taken != 0 || found.passed_over);
    return result;
}

static enum queue_result ring_peek(struct queue *queue, const struct taking *taking, int64_t patience)
{
    struct found found;
    uint64_t position;
    enum queue_result result;

    if (!enter(queue, &queue->segment->get, patience))
        return QUEUE_BUSY;
    result = next_message(queue, &position, &found);
    if (result == QUEUE_OK) {
        struct queue_piece message = piece_of(&found);
        void *target = taking->room(taking->context, &message);

        if (target == NULL)
            result = QUEUE_NO_MEMORY;
        else
            memcpy(target, message.data, message.size);
    }
    leave_get(queue, found.passed_over);
    return result;
}

/* Dropping */

/* The newest message that a get could take now, and the records before it. */
struct latest {
    struct found found;
    uint64_t position;
    uint64_t before; /* records */
    uint64_t aborted; /* those of them without a message */
    uint64_t bytes;
};

/* The lock is held. */
static enum queue_result find_latest(struct queue *queue, struct latest *latest)
{
    struct latest next = {.before = 0};
    enum queue_result result = next_message(queue, &next.position, &next.found);
    bool passed_over = next.found.passed_over;
    uint64_t begin = next.position;

    *latest = next;
    if (result != QUEUE_OK)
        return result;
    while (result == QUEUE_OK && next.position - begin <= queue->limit) {
        if (record_state_of(next.found.word) == RECORD_DONE)
            next.aborted++;
        else
            *latest = next;
        next.before++;
        next.bytes += next.found.size;
        next.position += ring_record_size(next.found.size);
        result = inspect(queue, next.position, &next.found);
    }
    latest->found.passed_over = passed_over;
    return result == QUEUE_CORRUPT ? result : QUEUE_OK;
}

static enum queue_result ring_get_latest(struct queue *queue, const struct taking *taking, int64_t patience)
{
    struct side *get = &queue->segment->get;
    struct latest latest;
    struct queue_piece message;
    void *target = NULL;
    enum queue_result result;

    if (!enter(queue, get, patience))
        return QUEUE_BUSY;
    result = find_latest(queue, &latest);
    if (result == QUEUE_OK) {
        message = piece_of(&latest.found);
        target = taking->room(taking->context, &message);
        result = target == NULL ? QUEUE_NO_MEMORY : QUEUE_OK;
    }
    if (target != NULL) {
        if (latest.found.size < QUEUE_LARGE) {
            memcpy(target, message.data, message.size);
        } else {
            *taking->copy = (struct queue_copy){latest.position, message.data, target, message.size};
            atomic_store_explicit(&latest.found.record->word, participant_word(queue, RECORD_CLAIMED),
                                  memory_order_relaxed);
            /* Before the commit it lies beyond get.position, where it means nothing. */
            if (word_peek(&get->held) == 0)
                atomic_store_explicit(&get->held, latest.position + 1, memory_order_release);
            result = QUEUE_COPYING;
        }
        side_commit(get, latest.position + ring_record_size(latest.found.size), latest.before + 1,
                    latest.bytes + latest.found.size);
        atomic_fetch_add_explicit(&queue->segment->figures.aborted, latest.aborted, memory_order_relaxed);
        side_count_dropped(queue, latest.before - latest.aborted);
    }
    leave_get(queue, target != NULL || latest.found.passed_over);
    return result;
}

/* Makes a record DONE if its producer died while writing it, and returns whether it did. */
static bool give_up(struct queue *queue, struct found *found)
{
    return !participant_lives(queue, found->word) &&
           atomic_compare_exchange_strong_explicit(&found->record->word, &found->word, RECORD_DONE, memory_order_acq_rel,
                                                   memory_order_acquire);
}

/* Drops all messages in one step. A message that is still being written is dropped too: its space stays held until its
 * producer has finished, as if a consumer were copying it. */
static enum queue_result clear_locked(struct queue *queue, size_t *count)
{
    struct side *get = &queue->segment->get;
    uint64_t begin = word_peek(&get->position);
    uint64_t position = begin;
    uint64_t held = word_peek(&get->held);
    uint64_t aborted = 0;
    uint64_t bytes = 0;
    struct found found;
    enum queue_result result;

    while ((result = inspect(queue, position, &found)) == QUEUE_OK || result == QUEUE_BUSY) {
        if (position - begin > queue->limit) /* more than the ring can hold */
            return QUEUE_CORRUPT;
        if (result == QUEUE_BUSY && !give_up(queue, &found)) {
            if (record_state_of(found.word) == RECORD_RESERVED && held == 0)
                held = position + 1;
            ++*count;
        } else if (result == QUEUE_BUSY || record_state_of(found.word) == RECORD_DONE) {
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
        side_commit(get, position, *count + aborted, bytes);
        atomic_fetch_add_explicit(&queue->segment->figures.aborted, aborted, memory_order_relaxed);
    }
    return result == QUEUE_EMPTY ? QUEUE_OK : result;
}

static enum queue_result ring_clear(struct queue *queue, size_t *count, int64_t patience)
{
    enum queue_result result;

    if (!enter(queue, &queue->segment->get, patience))
        return QUEUE_BUSY;
    result = clear_locked(queue, count);
    leave_get(queue, true);
    return result;
}

/* Whether a record fits behind what is left if the first records are dropped. */
static bool would_fit(const struct queue *queue, uint64_t needed, uint64_t used, uint64_t messages)
{
    return used <= queue->limit && needed <= queue->limit - used &&
           (queue->max_messages == 0 || messages < queue->max_messages);
}

/* Drops the oldest messages until there is space for a record, or none if that does not suffice. QUEUE_OK: there was
 * space when this looked. */
static enum queue_result make_room(struct queue *queue, uint64_t needed, size_t *dropped, int64_t patience)
{
    struct side *get = &queue->segment->get;
    uint64_t position, held, end;
    uint64_t records = 0;
    uint64_t messages = 0;
    uint64_t bytes = 0;
    struct queue_total put, got;
    enum queue_result result = QUEUE_OK;
    struct found found;

    if (!enter(queue, get, patience))
        return QUEUE_BUSY;
    sweep(queue, true);
    held = word_peek(&get->held);
    if (!side_total(get, &got, &position) || !side_total(&queue->segment->put, &put, &end))
        result = QUEUE_BUSY;
    while (result == QUEUE_OK &&
           !would_fit(queue, needed, end - (held != 0 ? held - 1 : position), put.count - got.count - records)) {
        /* A consumer that still copies a message keeps the space behind it. */
        result = position == end ? held != 0 ? QUEUE_BUSY : QUEUE_FULL : inspect(queue, position, &found);
        if (result == QUEUE_BUSY && position != end && give_up(queue, &found))
            result = QUEUE_OK;
        else if (result == QUEUE_OK && record_state_of(found.word) != RECORD_DONE)
            messages++;
        if (result == QUEUE_OK) {
            records++;
            bytes += found.size;
            position += ring_record_size(found.size);
        }
        if (records > queue->limit / sizeof(struct ring_record)) /* more than the ring can hold */
            result = QUEUE_CORRUPT;
    }
    if (result == QUEUE_OK && records != 0) {
        side_commit(get, position, records, bytes);
        atomic_fetch_add_explicit(&queue->segment->figures.aborted, records - messages, memory_order_relaxed);
        side_count_dropped(queue, messages);
        *dropped += messages;
    }
    leave_get(queue, false); /* this producer comes first */
    return result;
}

/* Does before the first drop what may fail after it. */
static enum queue_result announce(struct queue *queue, int64_t patience)
{
    struct side *put = &queue->segment->put;
    uint32_t attention = attention_of(queue) & ATTEND_LISTENERS;
    enum queue_result result;

    if (attention == 0)
        return QUEUE_OK;
    if (!enter(queue, put, patience))
        return QUEUE_BUSY;
    result = attention_before_put(queue, attention, patience);
    side_leave(put);
    return result;
}

/* How often a put may lose to other producers the space that it has made, before it is busy. */
#define DROPPING_TRIES 100

/* A thread has one lock at a time (lock.h), so this drops and puts in turns: another producer may take the space. */
static enum queue_result ring_put_dropping(struct queue *queue, const struct queue_piece *piece, size_t *dropped,
                                           int64_t patience)
{
    uint64_t needed = ring_record_size(piece_size(piece));
    enum queue_result result;
    int tries = 0;

    while ((result = ring_put(queue, piece, patience)) == QUEUE_FULL && piece_size(piece) <= queue->max_message_size) {
        if (tries++ == DROPPING_TRIES)
            return QUEUE_BUSY;
        if (*dropped == 0)
            result = announce(queue, patience);
        if (result == QUEUE_FULL || result == QUEUE_OK)
            result = make_room(queue, needed, dropped, patience);
        if (result != QUEUE_OK)
            return result;
    }
    if (*dropped != 0)
        attention_wake_producers(queue, event_asleep(&queue->segment->get.event));
    return result;
}

/* A record that is being written */

/* Waits until the next record is complete, or gives it up if its producer is dead. */
static bool ring_settle(struct queue *queue, int64_t until)
{
    const struct timespec nap = {.tv_nsec = 50000};
    struct side *get = &queue->segment->get;
    bool busy = false;

    for (unsigned looks = 0; clock_now() < until; looks++) {
        struct found found;
        uint64_t position;
        enum queue_result result;

        /* With the lock, because otherwise the record could be taken and overwritten. */
        if (!enter(queue, get, until - clock_now()))
            return false;
        result = next_message(queue, &position, &found);
        if (result == QUEUE_BUSY && looks >= COPY_LOOKS && !participant_lives(queue, found.word))
            atomic_compare_exchange_strong_explicit(&found.record->word, &found.word, RECORD_DONE, memory_order_acq_rel,
                                                    memory_order_relaxed);
        leave_get(queue, found.passed_over);
        if (result != QUEUE_BUSY)
            return true;
        busy = true;
        if (looks < COPY_LOOKS)
            for (int pauses = 0; pauses < 20; pauses++)
                futex_pause();
        else
            nanosleep(&nap, NULL);
    }
    if (busy)
        holder_note_writer(get);
    return true;
}

static int32_t ring_writer(struct queue *queue, uint64_t position)
{
    struct queue_total put, got;
    uint64_t word;

    side_totals(queue, &put, &got);
    word = atomic_load_explicit(&record_at(queue, position)->word, memory_order_acquire);
    return put.count != got.count && record_state_of(word) == RECORD_RESERVED ? (int32_t)participant_slot(word) : -1;
}

const struct flavour ring_flavour = {
    .enter_put = ring_enter_put,
    .put = ring_put,
    .put_many = ring_put_many,
    .put_dropping = ring_put_dropping,
    .reclaim = ring_reclaim,
    .get = ring_get,
    .get_latest = ring_get_latest,
    .get_many = ring_get_many,
    .peek = ring_peek,
    .release = ring_release,
    .clear = ring_clear,
    .has_space = ring_has_space,
    .much_is_free = ring_much_is_free,
    .settle = ring_settle,
    .writer = ring_writer,
};
