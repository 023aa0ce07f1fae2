/*
 * Kills a participant at every instruction of every operation.
 *
 *     crash [ONE | leases]
 *
 * A debugger runs the victim instruction by instruction and copies the segment whenever it has changed. Each copy, with
 * its locks marked as the kernel marks them, is the state that the others would find if the victim had been killed
 * there. A survivor that opens the copy must find the queue as it was before the operation or as it is after it, and
 * must be able to fill it to the last byte. Then, from each of these states, a second victim continues; it must repair
 * the state that the first one left, and is killed in the same way. Equal states are judged once, and a second victim
 * does not start twice from states that differ only in the bytes of an unfinished message. Nothing else is left out.
 *
 * Also checked at each instruction: no sleeper is woken before there is a reason; the doorbell rings while there is a
 * message; and when a message has been committed, the notice has been given.
 *
 * QUEUE_LARGE is small here, so that copying a large message takes few steps.
 *
 * This proves more than kills at random instants, except about reordering by processors: here the stores of a killed
 * process are seen in program order. With a number, only that pair of a scene and an operation is tried; with "leases",
 * only those of queues with leases.
 */
#include <linux/futex.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "harness.h"

#include "chain.h"
#include "doorbell.h"
#include "notice.h"

#define LARGEST (QUEUE_LARGE + 8)
#define SMALL 40
#define MOST_BYTES (SMALL * 4 > LARGEST ? SMALL * 4 : LARGEST)
#define MOST 64 /* messages in a queue here */

enum circumstance {
    NOTHING,
    CLAIMED,  /* a live participant copies the first message out */
    RESERVED, /* a live participant copies the last message in */
    ASLEEP,   /* a participant sleeps on each side */
    ARMED,    /* a participant has armed the doorbell */
    ASKED,    /* a participant has requested a notice */
    /* Only with leases: */
    LENT,     /* a live participant has leased the first message */
    OVER,     /* the same, and its hold is over */
    ORPHANED, /* the same, and it is dead; the next participant has its slot */
    RETURNED, /* a live participant has leased the first message and given it back */
    REJECTED, /* the first message is a dead letter */
    DOWN,     /* the queue is shut down */
};

struct scene {
    const char *name;
    uint64_t limit;
    uint64_t messages;
    unsigned turns;  /* messages that passed before, so that the ring begins at another offset */
    unsigned filled; /* messages in the queue */
    size_t size;     /* of each */
    uint32_t flags;
    enum circumstance with;
};

static const struct scene scenes[] = {
    {"empty", 4096, 0, 0, 0, SMALL, 0, NOTHING},
    {"one message", 4096, 0, 0, 1, SMALL, 0, NOTHING},
    {"at its end", 4096, 0, 72, 2, SMALL, 0, NOTHING},
    {"full", 560, 0, 3, 10, SMALL, 0, NOTHING},
    {"full by count", 4096, 4, 5, 4, SMALL, 0, NOTHING},
    {"empty, with sleepers", 4096, 0, 0, 0, SMALL, 0, ASLEEP},
    {"full, with sleepers", 4096, 4, 5, 4, SMALL, 0, ASLEEP},
    {"empty, with a doorbell", 4096, 0, 0, 0, SMALL, 0, ARMED},
    {"one message, with a doorbell", 4096, 0, 0, 1, SMALL, 0, ARMED},
    {"empty, with a notice asked for", 4096, 0, 0, 0, SMALL, 0, ASKED},
    {"large messages", 3 * (LARGEST + 16), 0, 2, 2, LARGEST, 0, NOTHING},
    {"full of large messages", 2 * (LARGEST + 16), 0, 1, 2, LARGEST, 0, NOTHING},
    {"a large message being taken", 3 * (LARGEST + 16), 0, 2, 2, LARGEST, 0, CLAIMED},
    {"a large message being put", 3 * (LARGEST + 16), 0, 2, 2, LARGEST, 0, RESERVED},
    {"in order, empty", 400, 0, 0, 0, SMALL, FLAG_ORDERED, NOTHING},
    {"in order, some", 500, 0, 7, 4, SMALL, FLAG_ORDERED, NOTHING},
    {"in order, long messages", 800, 0, 2, 2, SMALL * 4, FLAG_ORDERED, NOTHING},
    {"in order, full", 400, 0, 3, 5, SMALL, FLAG_ORDERED, NOTHING},
    {"in order, full by count", 500, 3, 4, 3, SMALL, FLAG_ORDERED, NOTHING},
    {"in order, with sleepers", 400, 0, 0, 2, SMALL, FLAG_ORDERED, ASLEEP},
    {"in order, with a doorbell", 400, 0, 0, 1, SMALL, FLAG_ORDERED, ARMED},
    {"in order, with a notice asked for", 400, 0, 0, 0, SMALL, FLAG_ORDERED, ASKED},
    {"with leases, empty", 700, 0, 0, 0, SMALL, FLAG_LEASES, NOTHING},
    {"with leases, full", 700, 0, 2, 3, SMALL, FLAG_LEASES | FLAG_ORDERED, NOTHING},
    {"with leases, one of them lent", 700, 0, 0, 2, SMALL, FLAG_LEASES, LENT},
    {"with leases, one of them over", 700, 0, 0, 2, SMALL, FLAG_LEASES, OVER},
    {"with leases, one of them of the dead", 700, 0, 0, 2, SMALL, FLAG_LEASES, ORPHANED},
    {"with leases, one of them returned", 700, 0, 0, 2, SMALL, FLAG_LEASES, RETURNED},
    {"with leases and a dead letter", 700, 0, 0, 2, SMALL, FLAG_LEASES, REJECTED},
    {"with leases, shut down", 700, 0, 0, 1, SMALL, FLAG_LEASES, DOWN},
    {"with leases and a doorbell", 700, 0, 0, 1, SMALL, FLAG_LEASES, ARMED},
};

/* The numbers of the messages; with leases also their states, deliveries and failures. */
struct contents {
    size_t count;
    uint32_t numbers[MOST];
};

/* State for one pair of a scene and an operation; workers are processes, so that each has one. */
static const struct scene *scene;
static uint64_t held; /* position of the record that is being copied, and the slot of its owner */
static uint32_t holder;
static uint64_t lending; /* the lock byte of that participant if it has leases */
static int bell = -1;

static unsigned char bytes[MOST_BYTES];

/* Operations */

static void put_number(struct queue *queue, uint32_t number, size_t size)
{
    struct queue_piece piece = {.data = bytes, .size = size, .priority = number * 7 % 3};
    size_t stored;

    tag_write(bytes, size, (struct tag){7, number});
    queue_put_many(queue, &piece, 1, &stored, 0);
}

static void put_small(struct queue *queue)
{
    put_number(queue, 1000, SMALL);
}

static void put_large(struct queue *queue)
{
    put_number(queue, 1000, LARGEST);
}

static void put_batch(struct queue *queue)
{
    static unsigned char each[3][SMALL];
    struct queue_piece pieces[3];
    size_t stored;

    for (uint32_t which = 0; which < 3; which++) {
        tag_write(each[which], SMALL, (struct tag){7, 1000 + which});
        pieces[which] = (struct queue_piece)PIECE(each[which], SMALL);
        pieces[which].priority = which % 2;
    }
    queue_put_many(queue, pieces, 3, &stored, 0);
}

static void get_one(struct queue *queue)
{
    struct place place = {bytes, sizeof bytes, 0, 0};
    struct queue_copy copy;

    if (queue_get(queue, place_for, &place, &copy, 0) == QUEUE_COPYING) {
        memcpy(copy.target, copy.source, copy.size);
        queue_release(queue, &copy);
    }
}

static void get_batch(struct queue *queue)
{
    struct place place = {bytes, sizeof bytes, 0, 0};
    size_t taken;

    queue_get_many(queue, place_for, &place, 3, &taken, 0);
}

static void clear_all(struct queue *queue)
{
    size_t dropped;

    queue_clear(queue, &dropped, 0);
}

static void peek_one(struct queue *queue)
{
    struct place place = {bytes, sizeof bytes, 0, 0};

    queue_peek(queue, place_for, &place, 0);
}

static void settle(struct queue *queue)
{
    queue_settle(queue, true, 100000);
    queue_settle(queue, false, 0);
}

static void tell(struct queue *queue)
{
    uint32_t seen;

    if (scene->with == ARMED)
        doorbell_arm(queue);
    notice_ask(queue, &seen);
    notice_cancel(queue);
}

static void attach(struct queue *queue)
{
    queue_close(queue_open(queue->descriptor));
}

/* Operations of leases */

#define HOUR (3600 * SECOND)
#define FAILURES 2 /* that make a dead letter */

static struct queue_lease leases[2];
static size_t lent;

static void lend(struct queue *queue, size_t count, int64_t hold)
{
    struct place place = {bytes, sizeof bytes, 0, 0};

    queue_lease(queue, place_for, &place, 1, hold, leases, count, &lent, 0);
}

static void end_leases(struct queue *queue, enum lease_verdict verdict, int64_t delay)
{
    struct lease_order order = {.verdict = verdict, .delay = delay, .reason = "why", .reason_size = 3};
    struct lease_token tokens[2];
    bool lost[2];

    for (size_t which = 0; which < lent; which++)
        tokens[which] = (struct lease_token){leases[which].cell, leases[which].serial};
    lease_settle(queue, tokens, lent, &order, lost, 0);
}

static void lease_one(struct queue *queue)
{
    lend(queue, 1, 0);
}

static void lease_for_an_hour(struct queue *queue)
{
    lend(queue, 1, HOUR);
}

static void lease_two(struct queue *queue)
{
    lend(queue, 2, 0);
}

static void acknowledge(struct queue *queue)
{
    lend(queue, 1, HOUR);
    end_leases(queue, LEASE_ACK, 0);
}

static void acknowledge_two(struct queue *queue)
{
    lend(queue, 2, 0);
    end_leases(queue, LEASE_ACK, 0);
}

static void release(struct queue *queue)
{
    lend(queue, 1, 0);
    end_leases(queue, LEASE_RELEASE, 0);
}

static void release_late(struct queue *queue)
{
    lend(queue, 1, HOUR);
    end_leases(queue, LEASE_RELEASE, HOUR);
}

static void fail_late(struct queue *queue)
{
    lend(queue, 1, 0);
    end_leases(queue, LEASE_FAIL, HOUR);
}

static void fail_twice(struct queue *queue)
{
    lend(queue, 1, 0);
    end_leases(queue, LEASE_FAIL, 0);
    lend(queue, 1, 0);
    end_leases(queue, LEASE_FAIL, 0);
}

static void fail_once(struct queue *queue)
{
    lend(queue, 1, 0);
    end_leases(queue, LEASE_FAIL, 0);
}

static void reject(struct queue *queue)
{
    lend(queue, 1, 0);
    end_leases(queue, LEASE_REJECT, 0);
}

static void extend(struct queue *queue)
{
    bool lost;

    lend(queue, 1, 0);
    if (lent != 0)
        lease_extend(queue, &(struct lease_token){leases[0].cell, leases[0].serial}, 1, HOUR, &lost, 0);
}

static void put_late(struct queue *queue)
{
    struct queue_piece piece = {.data = bytes, .size = SMALL};

    tag_write(bytes, SMALL, (struct tag){7, 1000});
    lease_put_delayed(queue, &piece, HOUR, 0);
}

static void tend(struct queue *queue)
{
    int64_t wait;

    queue->segment->leases.looked = 0;
    lease_tend(queue, &wait, 0);
}

static void take_dead(struct queue *queue)
{
    struct place place = {bytes, sizeof bytes, 0, 0};
    struct lease_dead letter;

    get_dead(queue, &place, &letter, 0);
}

static void requeue(struct queue *queue)
{
    size_t count;

    lease_requeue(queue, 10, &count, 0);
}

static void end_it(struct queue *queue)
{
    queue_shutdown(queue, 0);
    queue_drop(queue, 0);
}

static void lease_and_leave(struct queue *queue)
{
    struct queue *own = queue_open(queue->descriptor);

    lend(own, 2, 0);
    queue_close(own);
}

static const struct operation {
    const char *name;
    void (*act)(struct queue *queue);
    bool second; /* also as the second victim, in scenes with leases if it needs them, else in the others */
    /* Only with leases: what else may have been done when it is killed, and whether that holds for each message alone. */
    bool leases;
    void (*part)(struct queue *queue);
    void (*other)(struct queue *queue);
    bool singly;
} operations[] = {
    {.name = "put", .act = put_small, .second = true},
    {.name = "put of a large message", .act = put_large, .second = true},
    {.name = "put_many", .act = put_batch},
    {.name = "get", .act = get_one, .second = true},
    {.name = "get_many", .act = get_batch, .singly = true},
    {.name = "clear", .act = clear_all, .singly = true},
    {.name = "peek", .act = peek_one},
    {.name = "settle", .act = settle},
    {.name = "arm, ask and cancel", .act = tell, .second = true},
    {.name = "attach and detach", .act = attach},
    {.name = "lease", .act = lease_one, .leases = true},
    {.name = "lease with a hold", .act = lease_for_an_hour, .leases = true},
    {.name = "lease of two", .act = lease_two, .leases = true, .singly = true},
    {.name = "acknowledge", .act = acknowledge, .leases = true, .part = lease_one, .second = true},
    {.name = "acknowledge two", .act = acknowledge_two, .leases = true, .part = lease_two, .singly = true},
    {.name = "release", .act = release, .leases = true, .part = lease_one},
    {.name = "release with a delay", .act = release_late, .leases = true, .part = lease_one, .other = release},
    {.name = "fail with a delay", .act = fail_late, .leases = true, .part = lease_one},
    {.name = "fail twice", .act = fail_twice, .leases = true, .part = fail_once},
    {.name = "reject", .act = reject, .leases = true, .part = lease_one},
    {.name = "extend", .act = extend, .leases = true},
    {.name = "put with a delay", .act = put_late, .leases = true},
    {.name = "tend", .act = tend, .leases = true, .second = true},
    {.name = "get of a dead letter", .act = take_dead, .leases = true},
    {.name = "requeue", .act = requeue, .leases = true},
    {.name = "shutdown and drop", .act = end_it, .leases = true},
    {.name = "lease and leave", .act = lease_and_leave, .leases = true, .part = lease_two, .singly = true},
};

/* States */

struct state {
    unsigned char *bytes;
    bool rung;
};

static size_t film_size; /* bytes of a segment */

/* The states seen so far, by a 64-bit hash. */
struct seen {
    size_t room, count;
    uint64_t *hashes;
};

static bool is_new(struct seen *seen, uint64_t hash)
{
    size_t place;

    if (seen->count * 2 >= seen->room) {
        struct seen old = *seen;

        seen->room = old.room ? old.room * 2 : 1024;
        seen->hashes = calloc(seen->room, sizeof *seen->hashes);
        seen->count = 0;
        for (size_t index = 0; index < old.room; index++)
            if (old.hashes[index] != 0)
                is_new(seen, old.hashes[index]);
        free(old.hashes);
    }
    for (place = hash % seen->room; seen->hashes[place] != 0; place = (place + 1) % seen->room)
        if (seen->hashes[place] == hash)
            return false;
    seen->hashes[place] = hash;
    seen->count++;
    return true;
}

static uint64_t hash_of(const void *data, size_t size, uint64_t hash)
{
    const unsigned char *byte = data;
    uint64_t word;

    for (; size >= 8; size -= 8, byte += 8) {
        memcpy(&word, byte, 8);
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    for (; size > 0; size--, byte++)
        hash = (hash ^ *byte) * UINT64_C(0x9e3779b97f4a7c15);
    return hash | 1;
}

static struct ring_record *record_in(unsigned char *segment, uint64_t position)
{
    const struct segment_header *header = (const struct segment_header *)segment;

    return (struct ring_record *)(segment + header->data_offset + position % header->capacity);
}

/* Clears bytes that are never read: those of the unfinished message. */
static void blank_unfinished(unsigned char *segment)
{
    const struct segment *there = (const struct segment *)segment;
    uint64_t position = there->get.position;
    uint64_t capacity = there->header.capacity;

    if (layout_has_cells(scene->flags))
        return;
    while (position < there->put.position) {
        const struct ring_record *record = record_in(segment, position);

        if ((record->word & 0xff) == RECORD_RESERVED)
            for (uint64_t at = position + sizeof *record; at < position + ring_record_size(record->size); at++)
                segment[there->header.data_offset + at % capacity] = 0;
        position += ring_record_size(record->size);
    }
}

static int file_of(const unsigned char *state)
{
    int file = memfd_create("state", MFD_CLOEXEC);

    CHECK(file >= 0 && write(file, state, film_size) == (ssize_t)film_size);
    return file;
}

static bool lock_byte(int file, uint64_t at)
{
    struct flock byte = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)at, .l_len = 1};

    return fcntl(file, F_OFD_SETLK, &byte) == 0;
}

/* Makes this slot belong to a live participant. */
static int occupy(int file)
{
    char path[32];
    int other;

    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    other = open(path, O_RDWR | O_CLOEXEC);
    CHECK(other >= 0 && lock_byte(other, LAYOUT_LOCKS + holder) && lock_byte(other, lending));
    return other;
}

static void set_bell(bool rung)
{
    char taken[64];

    while (read(bell, taken, sizeof taken) > 0)
        continue;
    CHECK(!rung || write(bell, "", 1) == 1);
}

static bool is_rung(void)
{
    int count = 0;

    return bell >= 0 && ioctl(bell, FIONREAD, &count) == 0 && count > 0;
}

/* Judging */

static struct contents drain(struct queue *queue)
{
    struct place place = {bytes, sizeof bytes, 0, 0};
    struct contents contents = {0};
    struct queue_total put, got;
    enum queue_result result;
    struct queue_copy copy;
    struct tag tag;

    while ((result = queue_get(queue, place_for, &place, &copy, SECOND)) == QUEUE_OK || result == QUEUE_COPYING) {
        if (result == QUEUE_COPYING) {
            memcpy(copy.target, copy.source, copy.size);
            queue_release(queue, &copy);
        }
        CHECK(tag_read(bytes, place.size, &tag) && tag.who == 7 && contents.count < MOST);
        contents.numbers[contents.count++] = tag.number;
    }
    CHECK(result == QUEUE_EMPTY);
    side_totals(queue, &put, &got);
    CHECK(put.count == got.count && put.bytes == got.bytes);
    return contents;
}

static unsigned fill(struct queue *queue, size_t size)
{
    unsigned count = 0;

    memset(bytes, 0, size);
    while (queue_put(queue, bytes, size, PATIENCE) == QUEUE_OK)
        count++;
    return count;
}

/* Whether a live participant other than the victim has something. */
static bool has_other(void)
{
    return scene->with == CLAIMED || scene->with == RESERVED || scene->with == LENT || scene->with == OVER ||
           scene->with == RETURNED;
}

static void come_home(struct queue *queue)
{
    int64_t wait;

    queue->segment->leases.looked = 0;
    CHECK(lease_tend(queue, &wait, SECOND) == QUEUE_OK);
}

/* All messages when the leases of the victim have come back, in the order of putting. */
static struct contents all_of(struct queue *queue)
{
    struct cells cells = cells_of(queue);
    struct contents contents = {0};
    struct lease_counts counts;
    uint32_t states[CELL_DEAD + 1] = {0};
    uint64_t keys[MOST];

    for (uint32_t cell = 0; cell < cells.count; cell++) {
        uint32_t state = state_of(&cells, cell);
        uint32_t size = size_of(&cells, cell);
        uint32_t failures = cells.cell[cell].as.leased.deliveries - cells.cell[cell].as.leased.settled;
        size_t at = contents.count;
        struct tag tag;

        if (state == CELL_NONE)
            continue;
        CHECK(state <= CELL_DEAD && contents.count < MOST && size <= sizeof bytes);
        CHECK(chain_copy(&cells, cell, bytes, NULL, size) < cells.count && tag_read(bytes, size, &tag) && tag.who == 7);
        states[state]++;
        for (; at > 0 && keys[at - 1] > number_of(&cells, cell); at--) {
            keys[at] = keys[at - 1];
            contents.numbers[at] = contents.numbers[at - 1];
        }
        keys[at] = number_of(&cells, cell);
        /* Of a dead letter the failures mean nothing, and of a leased message they are not known yet. */
        contents.numbers[at] = tag.number << 16 | state << 12 | cells.cell[cell].as.leased.deliveries << 6 |
                               (state == CELL_DEAD || state == CELL_LEASED ? 0 : failures);
        contents.count++;
    }
    CHECK(lease_count(queue, &counts, SECOND) == QUEUE_OK);
    CHECK(counts.ready == states[CELL_READY] && counts.leased == states[CELL_LEASED]);
    CHECK(counts.delayed == states[CELL_DELAYED] && counts.dead == states[CELL_DEAD]);
    return contents;
}

static struct contents survive_with_leases(const unsigned char *state, unsigned capacity)
{
    int file = file_of(state);
    int other = has_other() ? occupy(file) : -1;
    struct queue *queue = queue_open(file);
    struct place place = {bytes, sizeof bytes, 0, 0};
    struct queue_total put, got;
    struct contents contents;
    enum queue_result result;
    bool down;
    size_t count;

    come_home(queue);
    contents = all_of(queue);
    if (other >= 0)
        close(other);
    come_home(queue);
    down = queue->segment->state.down != 0;
    while ((result = try_get(queue, &place)) == QUEUE_OK)
        continue;
    CHECK(result == QUEUE_EMPTY || down);
    queue_clear(queue, &count, SECOND);
    CHECK(try_get(queue, &place) == (down ? QUEUE_DOWN : QUEUE_EMPTY));
    CHECK(lease_clear_dead(queue, &count, SECOND) == QUEUE_OK);
    side_totals(queue, &put, &got);
    CHECK(put.count == got.count && put.bytes == got.bytes);
    if (capacity != 0 && !down)
        CHECK(fill(queue, scene->size) == capacity);
    queue_close(queue);
    close(file);
    return contents;
}

/* Lets a survivor read all messages, and check that all space is usable. Copies in progress are finished. */
static struct contents survive(const unsigned char *state, unsigned capacity)
{
    int file, other;
    struct queue *queue;
    struct contents contents;

    if (scene->flags & FLAG_LEASES)
        return survive_with_leases(state, capacity);
    file = file_of(state);
    other = has_other() ? occupy(file) : -1;
    queue = queue_open(file);
    if (scene->with == RESERVED) {
        struct ring_record *record = record_in((unsigned char *)queue->segment, held);
        size_t size = record->size;

        CHECK((record->word & 0xff) == RECORD_RESERVED && size == scene->size);
        record->word = RECORD_READY;
    }
    contents = drain(queue);
    if (other >= 0)
        close(other);
    if (capacity != 0)
        CHECK(fill(queue, scene->size) == capacity);
    queue_close(queue);
    close(file);
    return contents;
}

static bool same(const struct contents *one, const struct contents *other)
{
    return one->count == other->count && memcmp(one->numbers, other->numbers, one->count * sizeof(uint32_t)) == 0;
}

/* Returns whether a prefix of the messages is gone, and not more than after the whole operation. */
static bool between(const struct contents *found, const struct contents *before, const struct contents *after)
{
    return found->count <= before->count && found->count >= after->count &&
           memcmp(found->numbers, before->numbers + before->count - found->count, found->count * sizeof(uint32_t)) == 0;
}

struct bounds {
    struct contents before, after;
    struct contents part, other; /* with leases, else as before */
    bool singly; /* with priorities, messages of a batch are taken one by one */
    unsigned capacity;
};

/* Returns a message, which is named by its number; 0 if it is not there. */
static uint32_t message_of(const struct contents *contents, uint32_t number)
{
    for (size_t index = 0; index < contents->count; index++)
        if (contents->numbers[index] >> 16 == number)
            return contents->numbers[index];
    return 0;
}

/* Returns whether each message alone is as in one of the bounds. */
static bool each_within(const struct contents *found, const struct bounds *bounds)
{
    const struct contents *all[] = {&bounds->before, &bounds->after, &bounds->part, &bounds->other};
    bool within = true;

    for (size_t which = 0; which < 4; which++) {
        for (size_t index = 0; index < all[which]->count; index++) {
            uint32_t number = all[which]->numbers[index] >> 16;
            uint32_t message = message_of(found, number);

            within = within && (message == message_of(all[0], number) || message == message_of(all[1], number) ||
                                message == message_of(all[2], number) || message == message_of(all[3], number));
        }
    }
    return within;
}

static void judge(const unsigned char *state, const struct bounds *bounds)
{
    struct contents found = survive(state, bounds->capacity);

    if (scene->flags & FLAG_LEASES) {
        CHECK(same(&found, &bounds->before) || same(&found, &bounds->after) || same(&found, &bounds->part) ||
              same(&found, &bounds->other) || (bounds->singly && each_within(&found, bounds)));
        return;
    }
    CHECK(same(&found, &bounds->before) || same(&found, &bounds->after) ||
          (bounds->singly && between(&found, &bounds->before, &bounds->after)));
}

/* The invariants at every instruction. */
static void check_now(const unsigned char *first, const unsigned char *now, bool putting)
{
    const struct segment *before = (const struct segment *)first;
    const struct segment *there = (const struct segment *)now;

    if (putting && there->put.event.turns != before->put.event.turns)
        CHECK(there->put.position != before->put.position);
    if (!putting && there->get.event.turns != before->get.event.turns && scene->flags == 0)
        CHECK(there->get.position != before->get.position);
    if (scene->with == ARMED && scene->flags & FLAG_LEASES)
        CHECK(is_rung() || there->cells.ready == 0);
    else if (scene->with == ARMED)
        CHECK(is_rung() || there->put.position == there->get.position);
    if (scene->with == ASKED && before->state.attention == ATTEND_NOTICE && there->put.position != before->put.position)
        CHECK(there->state.notices != before->state.notices);
}

/* Running */

static struct queue *open_as_victim(int file)
{
    struct queue *queue = queue_open(file);

    if (bell >= 0) {
        queue->doorbell = dup(bell);
        queue->doorbell_inode = queue->segment->state.doorbell;
    }
    CHECK(lock_take(&(struct lock){0}, 0) == LOCK_TAKEN); /* learn the thread's id before */
    return queue;
}

/* The messages in the queue after the operation without a kill. */
static struct contents after_all(const unsigned char *state, void (*act)(struct queue *queue))
{
    int file = file_of(state);
    int other = has_other() ? occupy(file) : -1;
    unsigned char *now = mmap(NULL, film_size, PROT_READ, MAP_SHARED, file, 0);
    struct contents contents;
    pid_t child = fork_child();
    int status;

    if (child == 0) {
        struct queue *queue = open_as_victim(file);

        act(queue);
        _exit(0);
    }
    CHECK(now != MAP_FAILED && waitpid(child, &status, 0) == child && status == 0);
    contents = survive(now, 0);
    munmap(now, film_size);
    if (other >= 0)
        close(other);
    close(file);
    return contents;
}

static void mark_dead(struct lock *lock, pid_t victim)
{
    uint32_t word = lock->word;

    if ((word & FUTEX_TID_MASK) == (uint32_t)victim)
        lock->word = (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
}

struct tally {
    _Atomic unsigned long instructions, states, twice;
};

static struct tally *tally;

/* Compares two states, except what belongs to slots that no participant has here: that is most of a segment. */
static bool differ(const unsigned char *one, const unsigned char *other)
{
    const struct segment_header *header = (const struct segment_header *)other;
    size_t slots = offsetof(struct segment, generations) + 16 * sizeof(uint32_t);
    size_t name = offsetof(struct segment, name);
    size_t data = header->data_offset;
    size_t holders = data - LAYOUT_HOLDERS; /* of a queue with leases */

    return memcmp(one, other, slots) != 0 || memcmp(one + name, other + name, sizeof(struct segment) - name) != 0 ||
           (scene->flags & FLAG_LEASES &&
            memcmp(one + holders, other + holders, 16 * sizeof(struct lease_holder)) != 0) ||
           memcmp(one + data, other + data, film_size - data) != 0;
}

/* Runs an operation step by step from a state, judges the state after each step, and calls `visit` with it. */
static void shoot(const struct state *from, const struct operation *operation, const struct bounds *bounds,
                  struct seen *judged, void (*visit)(const struct state *state, void *context), void *context)
{
    int file = file_of(from->bytes);
    int other = has_other() ? occupy(file) : -1;
    unsigned char *now = mmap(NULL, film_size, PROT_READ, MAP_SHARED, file, 0);
    unsigned char *last = malloc(film_size);
    unsigned char *first = malloc(film_size);
    unsigned char *dead = malloc(film_size);
    bool putting = operation->act == put_small || operation->act == put_large || operation->act == put_batch;
    pid_t victim;
    int status;

    if (bell >= 0)
        set_bell(from->rung);
    victim = fork_child();
    CHECK(now != MAP_FAILED);
    if (victim == 0) {
        struct queue *queue = open_as_victim(file);

        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        operation->act(queue);
        raise(SIGSTOP);
        _exit(0);
    }
    CHECK(waitpid(victim, &status, 0) == victim && WIFSTOPPED(status));
    memcpy(first, now, film_size);
    memset(last, 0, film_size); /* so that the first state is judged too */
    for (;;) {
        if (differ(last, now)) {
            memcpy(last, now, film_size);
            check_now(first, last, putting);
            memcpy(dead, last, film_size);
            mark_dead(&((struct segment *)dead)->put.lock, victim);
            mark_dead(&((struct segment *)dead)->get.lock, victim);
            if (is_new(judged, hash_of(dead, film_size, hash_of(bounds, sizeof *bounds, 1)))) {
                judge(dead, bounds);
                tally->states++;
            }
            if (visit != NULL)
                visit(&(struct state){dead, is_rung()}, context);
        }
        CHECK(ptrace(PTRACE_SINGLESTEP, victim, NULL, NULL) == 0);
        CHECK(waitpid(victim, &status, 0) == victim && WIFSTOPPED(status));
        if (WSTOPSIG(status) == SIGSTOP)
            break;
        CHECK(WSTOPSIG(status) == SIGTRAP);
        tally->instructions++;
    }
    kill(victim, SIGKILL);
    CHECK(waitpid(victim, &status, 0) == victim);
    munmap(now, film_size);
    if (other >= 0)
        close(other);
    close(file);
    free(last);
    free(first);
    free(dead);
}

struct film {
    struct seen seen;
    size_t room, count;
    struct state *states;
};

static void keep(const struct state *state, void *context)
{
    struct film *film = context;
    unsigned char *blank = malloc(film_size);

    memcpy(blank, state->bytes, film_size);
    blank_unfinished(blank);
    if (is_new(&film->seen, hash_of(blank, film_size, state->rung))) {
        if (film->count == film->room) {
            film->room = film->room ? film->room * 2 : 64;
            film->states = realloc(film->states, film->room * sizeof *film->states);
        }
        film->states[film->count++] = (struct state){malloc(film_size), state->rung};
        memcpy(film->states[film->count - 1].bytes, state->bytes, film_size);
    }
    free(blank);
}

static struct bounds bounds_of(const unsigned char *state, const struct operation *operation, unsigned capacity)
{
    struct bounds bounds;

    memset(&bounds, 0, sizeof bounds); /* it is hashed */
    bounds.before = survive(state, 0);
    bounds.after = after_all(state, operation->act);
    bounds.part = operation->part == NULL ? bounds.before : after_all(state, operation->part);
    bounds.other = operation->other == NULL ? bounds.before : after_all(state, operation->other);
    bounds.singly = scene->flags & FLAG_LEASES ? operation->singly
                                               : scene->flags & FLAG_ORDERED && bounds.before.count > bounds.after.count;
    bounds.capacity = capacity;
    return bounds;
}

static int scene_file(void)
{
    if (scene->flags & FLAG_LEASES)
        return queue_file_with_leases(scene->flags, scene->limit, scene->messages, MOST_BYTES, FAILURES);
    return queue_file_of(scene->flags, scene->limit, scene->messages, MOST_BYTES);
}

static unsigned capacity_of(void)
{
    int file = scene_file();
    struct queue *queue = queue_open(file);
    unsigned capacity = fill(queue, scene->size);

    queue_close(queue);
    close(file);
    return capacity;
}

/* Creates the queue of the scene, and returns its state. */
static struct state set_up(void)
{
    struct segment_header asked = {.limit = scene->limit, .flags = scene->flags};
    int file = scene_file();
    struct queue *queue = queue_open(file);
    struct state state = {NULL, false};

    film_size = segment_size(&asked);
    for (unsigned turn = 0; turn < scene->turns; turn++) {
        put_number(queue, turn, scene->size);
        get_one(queue);
    }
    for (uint32_t number = 0; number < scene->filled; number++) {
        held = queue->segment->put.position;
        put_number(queue, number, scene->size);
    }
    holder = queue->slot;
    lending = LAYOUT_LENDING + ((uint64_t)queue->slot << 32) + queue->generation;
    if (scene->with == CLAIMED) {
        struct place place = {bytes, sizeof bytes, 0, 0};
        struct queue_copy copy;

        CHECK(queue_get(queue, place_for, &place, &copy, 0) == QUEUE_COPYING);
    } else if (scene->with == RESERVED) {
        record_in((unsigned char *)queue->segment, held)->word = participant_word(queue, 0) | RECORD_RESERVED;
    } else if (scene->with == ASLEEP) {
        queue->segment->put.event.asleep = queue->segment->get.event.asleep = 1;
    } else if (scene->with == ARMED) {
        struct stat found;
        char path[64];

        CHECK(snprintf(path, sizeof path, "/dev/shm/ipcq-crash-%d", (int)getpid()) > 0);
        CHECK(mkfifo(path, 0600) == 0);
        bell = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        CHECK(unlink(path) == 0 && bell >= 0 && fstat(bell, &found) == 0);
        queue->segment->state.doorbell = (uint64_t)found.st_ino;
        queue->segment->state.attention = ATTEND_DOORBELL;
        state.rung = scene->filled != 0;
    } else if (scene->with == LENT) {
        lend(queue, 1, 0);
    } else if (scene->with == OVER) {
        lend(queue, 1, 1);
    } else if (scene->with == ORPHANED) {
        lend(queue, 1, 0);
        queue->segment->state.hint = queue->slot;
    } else if (scene->with == RETURNED) {
        release(queue);
    } else if (scene->with == REJECTED) {
        reject(queue);
    } else if (scene->with == DOWN) {
        CHECK(queue_shutdown(queue, SECOND) == QUEUE_OK);
    } else if (scene->with == ASKED) {
        queue->segment->state.registrant = participant_word(queue, 0);
        queue->segment->state.attention = ATTEND_NOTICE;
    }
    state.bytes = malloc(film_size);
    memcpy(state.bytes, queue->segment, film_size);
    queue_close(queue);
    close(file);
    return state;
}

static void try_pair(const struct operation *operation)
{
    unsigned capacity = capacity_of();
    struct state state = set_up();
    struct film film = {0};
    struct seen judged = {0};
    struct bounds bounds = bounds_of(state.bytes, operation, capacity);

    CHECK(bounds.before.count == scene->filled - (scene->with == CLAIMED));
    shoot(&state, operation, &bounds, &judged, keep, &film);
    for (size_t index = 0; index < film.count; index++) {
        for (size_t next = 0; next < sizeof operations / sizeof *operations; next++) {
            if (!operations[next].second || operations[next].leases != ((scene->flags & FLAG_LEASES) != 0))
                continue;
            bounds = bounds_of(film.states[index].bytes, &operations[next], capacity);
            shoot(&film.states[index], &operations[next], &bounds, &judged, NULL, NULL);
            tally->twice++;
        }
    }
}

/* Returns whether an operation is tried in this scene. What leases change is tried in each scene with leases, and what
 * they do not change in the first ones. */
static bool belongs(const struct operation *operation, bool only_leases)
{
    if (!(scene->flags & FLAG_LEASES))
        return !operation->leases && !only_leases;
    return operation->leases || scene->with == NOTHING || scene->with == ARMED || operation->act == get_one ||
           operation->act == clear_all;
}

static const struct operation *current;

static void name_pair(int number)
{
    (void)number;
    fprintf(stderr, "crash: in a queue that is %s, at %s\n", scene->name, current->name);
}

/* One process for each pair, on one processor with its victims: then a step is a context switch and not a wake-up. */
int main(int count, char **words)
{
    bool only_leases = count > 1 && strcmp(words[1], "leases") == 0;
    size_t only = count > 1 ? (size_t)atol(words[1]) : 0;
    size_t pairs = 0, running = 0, next = 0, cpus;
    cpu_set_t all;
    int status;

    CHECK(lock_works());
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    cpus = (size_t)CPU_COUNT(&all);
    tally = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(tally != MAP_FAILED);
    for (size_t which = 0; which < sizeof scenes / sizeof *scenes; which++) {
        for (size_t what = 0; what < sizeof operations / sizeof *operations; what++) {
            scene = &scenes[which];
            if (!belongs(&operations[what], only_leases))
                continue;
            if (pairs++, only != 0 && pairs != only)
                continue;
            if (running == cpus) {
                CHECK(wait(&status) > 0 && status == 0);
                running--;
            }
            if (fork_child() == 0) {
                cpu_set_t one;

                CPU_ZERO(&one);
                for (size_t cpu = 0, skip = next % cpus; cpu < CPU_SETSIZE; cpu++)
                    if (CPU_ISSET(cpu, &all) && skip-- == 0)
                        CPU_SET(cpu, &one);
                CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
                current = &operations[what];
                signal(SIGABRT, name_pair);
                try_pair(current);
                _exit(0);
            }
            next++;
            running++;
        }
    }
    for (; running > 0; running--)
        CHECK(wait(&status) > 0 && status == 0);
    printf("crash: %zu pairs of a queue's state and an operation, %lu instructions; all %lu distinct states that a kill "
           "leaves are as before or after, also where one of %lu others went on and was killed too\n",
           pairs, tally->instructions, tally->states, tally->twice);
    return 0;
}
