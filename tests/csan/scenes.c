/* The queues in which a participant is killed, and what it does meanwhile (crash.c). */
#include <sys/stat.h>

#include "crash.h"

#include "cells.h"
#include "doorbell.h"
#include "notice.h"

const struct scene scenes[] = {
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
const size_t scenes_count = sizeof scenes / sizeof *scenes;

const struct scene *scene;
size_t film_size;
uint64_t held;
uint32_t holder;
uint64_t lending;
int bell = -1;
unsigned char bytes[MOST_BYTES];

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

static void put_dropping(struct queue *queue)
{
    struct queue_piece piece = PIECE(bytes, SMALL);
    size_t dropped;

    tag_write(bytes, SMALL, (struct tag){7, 1000});
    piece.priority = 1;
    queue_put_dropping(queue, &piece, &dropped, 0);
}

/* What it has done when it is killed before the put. */
static void make_room(struct queue *queue)
{
    struct queue_piece piece = PIECE(bytes, SMALL);
    size_t dropped;

    piece.priority = 1;
    if (!layout_has_cells(queue->flags)) {
        if (!queue_has_space(queue, SMALL))
            get_one(queue);
    } else if (cells_enter(queue, 0)) {
        dropped = 0;
        cells_make_room(queue, &piece, &dropped);
        side_leave(&queue->segment->put);
    }
}

static void get_latest(struct queue *queue)
{
    struct place place = {bytes, sizeof bytes, 0, 0};
    struct queue_copy copy;

    if (queue_get_latest(queue, place_for, &place, &copy, 0) == QUEUE_COPYING) {
        memcpy(copy.target, copy.source, copy.size);
        queue_release(queue, &copy);
    }
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

static void lend_and_end(struct queue *queue, size_t count, int64_t hold, enum lease_verdict verdict, int64_t delay)
{
    lend(queue, count, hold);
    end_leases(queue, verdict, delay);
}

static void acknowledge(struct queue *queue)
{
    lend_and_end(queue, 1, HOUR, LEASE_ACK, 0);
}

static void acknowledge_two(struct queue *queue)
{
    lend_and_end(queue, 2, 0, LEASE_ACK, 0);
}

static void release(struct queue *queue)
{
    lend_and_end(queue, 1, 0, LEASE_RELEASE, 0);
}

static void release_late(struct queue *queue)
{
    lend_and_end(queue, 1, HOUR, LEASE_RELEASE, HOUR);
}

static void fail_late(struct queue *queue)
{
    lend_and_end(queue, 1, 0, LEASE_FAIL, HOUR);
}

static void fail_once(struct queue *queue)
{
    lend_and_end(queue, 1, 0, LEASE_FAIL, 0);
}

static void fail_twice(struct queue *queue)
{
    fail_once(queue);
    fail_once(queue);
}

static void reject(struct queue *queue)
{
    lend_and_end(queue, 1, 0, LEASE_REJECT, 0);
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

const struct operation operations[] = {
    {.name = "put", .act = put_small, .puts = true, .second = true},
    {.name = "put of a large message", .act = put_large, .puts = true, .second = true},
    {.name = "put_many", .act = put_batch, .puts = true},
    {.name = "put that drops", .act = put_dropping, .puts = true, .part = make_room},
    {.name = "get", .act = get_one, .second = true},
    {.name = "get of the latest", .act = get_latest, .singly = true},
    {.name = "get_many", .act = get_batch, .singly = true},
    {.name = "clear", .act = clear_all, .singly = true},
    {.name = "peek", .act = peek_one},
    {.name = "settle", .act = settle},
    {.name = "arm, ask and cancel", .act = tell, .second = true},
    {.name = "attach and detach", .act = attach, .maps = true},
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
    {.name = "lease and leave",
     .act = lease_and_leave,
     .maps = true,
     .leases = true,
     .part = lease_two,
     .singly = true},
};
const size_t operations_count = sizeof operations / sizeof *operations;

/* Setting up */

/* What leases change is tried in each scene with leases, and what they do not change in the first ones. */
bool belongs(const struct operation *operation, bool only_leases)
{
    if (!(scene->flags & FLAG_LEASES))
        return !operation->leases && !only_leases;
    return operation->leases || scene->with == NOTHING || scene->with == ARMED || operation->act == get_one ||
           operation->act == clear_all;
}

static int scene_file(void)
{
    if (scene->flags & FLAG_LEASES)
        return queue_file_with_leases(scene->flags, scene->limit, scene->messages, MOST_BYTES, FAILURES);
    return queue_file_of(scene->flags, scene->limit, scene->messages, MOST_BYTES);
}

unsigned capacity_of(void)
{
    int file = scene_file();
    struct queue *queue = queue_open(file);
    unsigned capacity = fill(queue, scene->size);

    queue_close(queue);
    close(file);
    return capacity;
}

struct state set_up(void)
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
