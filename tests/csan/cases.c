/* Test cases in one process: limits, orders, ends, participants, and hostile segments. */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "harness.h"

#include "condition.h"
#include "doorbell.h"
#include "futex.h"
#include "notice.h"

#define LARGEST 40000

static unsigned char bytes[1 << 20];
static struct place place = {bytes, sizeof bytes, 0, 0};

static void exactly_as_many_fit_as_were_asked_for(void)
{
    for (uint64_t messages = 1; messages <= 5; messages++) {
        for (uint64_t size = 0; size <= 70; size += 7) {
            struct queue *queue = queue_open(queue_file(messages * ring_record_size(size), messages, size));

            for (int turn = 0; turn < 100; turn++) {
                for (uint64_t message = 0; message < messages; message++)
                    CHECK(queue_put(queue, bytes, size, 0) == QUEUE_OK);
                CHECK(queue_put(queue, bytes, 0, 0) == QUEUE_FULL);
                for (uint64_t message = 0; message < messages; message++)
                    CHECK(try_get(queue, &place) == QUEUE_OK && place.size == size);
                CHECK(try_get(queue, &place) == QUEUE_EMPTY);
            }
            queue_close(queue);
        }
    }
}

static void every_byte_of_the_ring_is_used(void)
{
    struct queue *queue = queue_open(queue_file(5000, 0, 4984));

    CHECK(queue_has_space(queue, 4984) && !queue_has_space(queue, 4985));
    CHECK(queue_put(queue, bytes, 4984, 0) == QUEUE_OK);
    CHECK(!queue_has_space(queue, 0));
    CHECK(queue_put(queue, bytes, 0, 0) == QUEUE_FULL);
    CHECK(try_get(queue, &place) == QUEUE_OK);
    for (int turn = 0; turn < 5000; turn++) {
        size_t size = (size_t)(turn * 37 % 1200);

        tag_write(bytes, 1208, (struct tag){1, (uint32_t)turn});
        while (queue_put(queue, bytes, size, 0) == QUEUE_OK)
            continue;
        CHECK(try_get(queue, &place) == QUEUE_OK);
    }
    queue_close(queue);
}

static void batches_are_a_prefix(void)
{
    struct queue *queue = queue_open(queue_file(1 << 12, 4, 64));
    struct queue_piece pieces[6] = {PIECE("a", 1), PIECE("b", 1), PIECE("c", 1), PIECE("d", 1), PIECE("e", 1), PIECE("f", 1)};
    struct queue_total put, got;
    size_t count;

    CHECK(queue_put_many(queue, pieces, 6, &count, 0) == QUEUE_OK && count == 4);
    CHECK(queue_put_many(queue, pieces, 6, &count, 0) == QUEUE_FULL && count == 0);
    side_totals(queue, &put, &got);
    CHECK(put.count == 4 && got.count == 0 && put.bytes == 4);
    CHECK(queue_peek(queue, place_for, &place, 0) == QUEUE_OK && bytes[0] == 'a');
    CHECK(queue_get_many(queue, place_for, &place, 3, &count, 0) == QUEUE_OK && count == 3 && bytes[0] == 'c');
    CHECK(queue_clear(queue, &count, 0) == QUEUE_OK && count == 1);
    CHECK(queue_clear(queue, &count, 0) == QUEUE_EMPTY && count == 0);
    CHECK(queue->segment->figures.high_water_mark == 4);
    queue_close(queue);
}

static void a_batch_is_put_whole_or_not_at_all(void)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        struct queue *queue = queue_open(queue_file_of(ordered ? FLAG_ORDERED : 0, 1 << 12, 4, 2000));
        struct queue_piece pieces[5] = {PIECE("a", 1), PIECE("b", 1), PIECE("c", 1), PIECE("d", 1), PIECE("e", 1)};
        struct queue_piece large[3] = {PIECE(bytes, 1500), PIECE(bytes, 1500), PIECE(bytes, 1500)};
        size_t count;

        CHECK(queue_put_all(queue, pieces, 5, 0) == QUEUE_FULL && try_get(queue, &place) == QUEUE_EMPTY);
        CHECK(queue_put_all(queue, large, 3, 0) == QUEUE_FULL && try_get(queue, &place) == QUEUE_EMPTY);
        CHECK(queue_put_all(queue, pieces, 3, 0) == QUEUE_OK && queue_put_all(queue, pieces, 2, 0) == QUEUE_FULL);
        CHECK(queue_get_many(queue, place_for, &place, 5, &count, 0) == QUEUE_OK && count == 3 && bytes[0] == 'c');
        CHECK(queue_shutdown(queue, 0) == QUEUE_OK && queue_put_all(queue, pieces, 1, 0) == QUEUE_DOWN);
        queue_close(queue);
    }
}

static void *place_behind_two(void *context, struct queue_piece *message)
{
    message->data = (const unsigned char *)message->data + 2;
    message->size -= 2;
    return place_for(context, message);
}

static void a_head_stands_in_front(void)
{
    struct queue *queue = queue_open(queue_file(1 << 18, 0, LARGEST));
    struct queue_piece piece = {.data = "data", .size = 4, .head_size = 2, .head = "ab"};
    struct queue_piece large = {.data = bytes, .size = LARGEST - 2, .head_size = 2, .head = "ab"};
    struct queue_copy copy;
    size_t count;

    CHECK(queue_put_many(queue, &piece, 1, &count, 0) == QUEUE_OK && queue_put_many(queue, &piece, 1, &count, 0) == QUEUE_OK);
    CHECK(queue_get(queue, place_for, &place, &copy, 0) == QUEUE_OK && place.size == 6 && memcmp(bytes, "abdata", 6) == 0);
    CHECK(queue_get(queue, place_behind_two, &place, &copy, 0) == QUEUE_OK);
    CHECK(place.size == 4 && memcmp(bytes, "data", 4) == 0);
    large.size++;
    CHECK(queue_put_many(queue, &large, 1, &count, 0) == QUEUE_FULL);
    large.size--;
    memset(bytes, 'x', LARGEST);
    CHECK(queue_put_many(queue, &large, 1, &count, 0) == QUEUE_OK);
    CHECK(queue_get(queue, place_behind_two, &place, &copy, 0) == QUEUE_COPYING);
    CHECK(copy.size == LARGEST - 2 && *(const char *)copy.source == 'x');
    queue_release(queue, &copy);
    queue_close(queue);
}

static void a_head_stays_in_its_record(void)
{
    struct queue *queue = queue_open(queue_file(1 << 12, 0, 64));
    struct queue_piece pieces[2] = {
        {.data = "", .head = "1234567"},
        {.data = "", .head_size = 1, .head = "1234567"},
    };

    for (int brief = 0; brief < 2; brief++) {
        unsigned count = 1;

        /* To the last byte, so that the first record follows the last one. */
        CHECK(queue_put_piece(queue, &pieces[0], 0) == QUEUE_OK);
        while (queue_put_piece(queue, &pieces[brief], 0) == QUEUE_OK)
            count++;
        CHECK(count == (brief ? 1 + 170 : 256) && try_get(queue, &place) == QUEUE_OK && place.size == 0);
        while (--count != 0)
            CHECK(try_get(queue, &place) == QUEUE_OK && place.size == pieces[brief].head_size);
    }
    queue_close(queue);
}

static void priorities_order(void)
{
    struct queue *queue = queue_open(queue_file_of(FLAG_ORDERED, 7 * layout_message_size(300, FLAG_ORDERED), 0, 300));
    static const unsigned priorities[] = {0, 32767, 5, 5, 0, 6, 32767};
    static const unsigned char expected[] = {1, 6, 5, 2, 3, 0, 4};
    struct queue_total put, got;
    size_t count;

    for (int turn = 0; turn < 50; turn++) {
        for (unsigned char message = 0; message < 7; message++) {
            static unsigned char data[300];
            struct queue_piece piece = {.data = data, .size = 300, .priority = priorities[message]};

            memset(data, message, sizeof data);
            CHECK(queue_put_many(queue, &piece, 1, &count, 0) == QUEUE_OK);
        }
        CHECK(queue_put(queue, bytes, 0, 0) == QUEUE_FULL && !queue_has_space(queue, 0));
        CHECK(queue_peek(queue, place_for, &place, 0) == QUEUE_OK && bytes[299] == 1 && place.priority == 32767);
        for (unsigned char message = 0; message < 7; message++) {
            CHECK(try_get(queue, &place) == QUEUE_OK && place.size == 300);
            CHECK(bytes[0] == expected[message] && bytes[299] == expected[message]);
            CHECK(place.priority == priorities[expected[message]]);
        }
        CHECK(try_get(queue, &place) == QUEUE_EMPTY);
    }
    CHECK(queue_put(queue, "x", 1, 0) == QUEUE_OK && queue_put(queue, "y", 1, 0) == QUEUE_OK);
    CHECK(queue_clear(queue, &count, 0) == QUEUE_OK && count == 2);
    side_totals(queue, &put, &got);
    CHECK(put.count == 352 && got.count == 352 && put.bytes == got.bytes);
    queue_close(queue);
}

static void no_memory_takes_nothing(void)
{
    struct queue *queue = queue_open(queue_file(1 << 18, 0, 1 << 16));
    struct place none = {bytes, 0, 0, 0};
    size_t count;

    CHECK(queue_put(queue, "kept", 4, 0) == QUEUE_OK);
    CHECK(try_get(queue, &none) == QUEUE_NO_MEMORY);
    CHECK(queue_peek(queue, place_for, &none, 0) == QUEUE_NO_MEMORY);
    CHECK(queue_get_many(queue, place_for, &none, 2, &count, 0) == QUEUE_NO_MEMORY && count == 0);
    CHECK(try_get(queue, &place) == QUEUE_OK && memcmp(bytes, "kept", 4) == 0);
    CHECK(queue_put(queue, bytes, LARGEST, 0) == QUEUE_OK);
    CHECK(queue_get_many(queue, place_for, &place, 2, &count, 0) == QUEUE_COPYING && count == 0);
    CHECK(queue_clear(queue, &count, 0) == QUEUE_OK && count == 1);
    CHECK(queue_put(queue, "small", 5, 0) == QUEUE_OK && queue_put(queue, bytes, LARGEST, 0) == QUEUE_OK);
    CHECK(queue_get_many(queue, place_for, &place, 2, &count, 0) == QUEUE_COPYING && count == 1);
    CHECK(try_get(queue, &none) == QUEUE_NO_MEMORY);
    CHECK(try_get(queue, &place) == QUEUE_OK && place.size == LARGEST);
    queue_close(queue);
}

static void a_shutdown_lets_drain(void)
{
    struct queue *queue = queue_open(queue_file(1 << 12, 0, 64));

    CHECK(queue_put(queue, "left", 4, 0) == QUEUE_OK);
    CHECK(queue_shutdown(queue, SECOND) == QUEUE_OK);
    CHECK(queue_put(queue, "late", 4, 0) == QUEUE_DOWN);
    CHECK(try_get(queue, &place) == QUEUE_OK);
    CHECK(try_get(queue, &place) == QUEUE_DOWN);
    CHECK(get_waiting(queue, &place, 10 * SECOND) == QUEUE_DOWN);
    CHECK(put_waiting(queue, "late", 4, 10 * SECOND) == QUEUE_DOWN);
    queue_close(queue);
}

static struct ring_record *record_of(const struct queue *queue, uint64_t position)
{
    return (struct ring_record *)(queue->data + position % queue->capacity);
}

/* Two messages and, between them, a record that a producer is writing or left unfinished. */
static struct queue *ring_with_a_gap(uint64_t word)
{
    struct queue *queue = queue_open(queue_file(3 * ring_record_size(64), 0, 64));

    for (int message = 0; message < 3; message++)
        CHECK(queue_put(queue, bytes, 64, 0) == QUEUE_OK);
    record_of(queue, ring_record_size(64))->word = word;
    return queue;
}

static void clear_goes_past_what_the_dead_left(void)
{
    static const uint64_t words[] = {RECORD_DONE, RECORD_RESERVED | 4000 << 8 | UINT64_C(7) << 32};

    for (size_t which = 0; which < sizeof words / sizeof *words; which++) {
        struct queue *queue = ring_with_a_gap(words[which]);
        struct queue_total put, got;
        size_t count;

        CHECK(queue_clear(queue, &count, 0) == QUEUE_OK && count == 2);
        CHECK(try_get(queue, &place) == QUEUE_EMPTY && queue->segment->figures.aborted == 1);
        side_totals(queue, &put, &got);
        CHECK(put.count == got.count && put.bytes == got.bytes && queue->segment->get.held == 0);
        for (int message = 0; message < 3; message++)
            CHECK(queue_put(queue, bytes, 64, 0) == QUEUE_OK);
        queue_close(queue);
    }
}

static void clear_goes_past_what_is_being_written(void)
{
    struct queue *queue = ring_with_a_gap(0);
    struct ring_record *written = record_of(queue, ring_record_size(64));
    size_t count;

    written->word = participant_word(queue, 0) | RECORD_RESERVED;
    CHECK(queue_clear(queue, &count, 0) == QUEUE_OK && count == 3);
    CHECK(try_get(queue, &place) == QUEUE_EMPTY);
    /* Its space and the space after it are not free before its producer has finished. */
    CHECK(queue_put(queue, bytes, 64, 0) == QUEUE_OK && queue_put(queue, bytes, 0, 0) == QUEUE_FULL);
    CHECK(written->word == (participant_word(queue, 0) | RECORD_RESERVED));
    written->word = RECORD_READY;
    CHECK(queue_put(queue, bytes, 64, 0) == QUEUE_OK && queue_put(queue, bytes, 64, 0) == QUEUE_OK);
    CHECK(queue_clear(queue, &count, 0) == QUEUE_OK && count == 3);
    queue_close(queue);
}

static enum queue_result get_latest(struct queue *queue)
{
    struct queue_copy copy;
    enum queue_result result = queue_get_latest(queue, place_for, &place, &copy, 0);

    if (result != QUEUE_COPYING)
        return result;
    memcpy(copy.target, copy.source, copy.size);
    queue_release(queue, &copy);
    return QUEUE_OK;
}

static void put_dropping(struct queue *queue, const char *text, unsigned priority, enum queue_result right, size_t number)
{
    struct queue_piece piece = {.data = text, .size = 1, .priority = priority};
    size_t dropped;

    CHECK(queue_put_dropping(queue, &piece, &dropped, 0) == right && dropped == number);
}

/* In the ring, in cells, and with leases. */
static void the_oldest_are_dropped(void)
{
    static const uint32_t flags[] = {0, FLAG_ORDERED, FLAG_LEASES, FLAG_ORDERED | FLAG_LEASES};

    for (size_t which = 0; which < sizeof flags / sizeof *flags; which++) {
        struct queue *queue = queue_open(flags[which] & FLAG_LEASES ? queue_file_with_leases(flags[which], 1 << 12, 3, 64, 0)
                                                                    : queue_file_of(flags[which], 1 << 12, 3, 64));
        struct queue_total put, got;

        for (const char *text = "abc"; *text != 0; text++)
            put_dropping(queue, text, 0, QUEUE_OK, 0);
        put_dropping(queue, "d", 0, QUEUE_OK, 1);
        CHECK(try_get(queue, &place) == QUEUE_OK && bytes[0] == 'b');
        put_dropping(queue, "e", 0, QUEUE_OK, 0);
        CHECK(get_latest(queue) == QUEUE_OK && bytes[0] == 'e' && get_latest(queue) == QUEUE_EMPTY);
        CHECK(queue->segment->figures.dropped == 3);
        side_totals(queue, &put, &got);
        CHECK(put.count == 5 && got.count == 5 && put.bytes == got.bytes);
        if (flags[which] & FLAG_ORDERED) {
            put_dropping(queue, "f", 1, QUEUE_OK, 0);
            put_dropping(queue, "g", 5, QUEUE_OK, 0);
            put_dropping(queue, "h", 5, QUEUE_OK, 0);
            put_dropping(queue, "i", 0, QUEUE_FULL, 0);
            put_dropping(queue, "j", 2, QUEUE_OK, 1);
            CHECK(get_latest(queue) == QUEUE_OK && bytes[0] == 'h' && get_latest(queue) == QUEUE_OK && bytes[0] == 'j');
        }
        put_dropping(queue, "k", 0, QUEUE_OK, 0);
        CHECK(queue_shutdown(queue, SECOND) == QUEUE_OK);
        put_dropping(queue, "l", 0, QUEUE_DOWN, 0);
        CHECK(get_latest(queue) == QUEUE_OK && get_latest(queue) == QUEUE_DOWN);
        queue_close(queue);
    }
}

static void as_many_are_dropped_as_are_in_the_way(void)
{
    for (uint32_t flags = 0; flags <= FLAG_ORDERED; flags += FLAG_ORDERED) {
        struct queue *queue = queue_open(queue_file_of(flags, 8 * layout_message_size(64, flags), 0, 512));
        struct queue_piece piece = PIECE(bytes, 257);
        size_t dropped, count = 0;

        while (queue_put(queue, bytes, 64, 0) == QUEUE_OK)
            count++;
        CHECK(queue_put_dropping(queue, &piece, &dropped, 0) == QUEUE_OK && dropped > 1 && dropped < count);
        CHECK(queue->segment->put.position != 0 && get_latest(queue) == QUEUE_OK && place.size == 257);
        CHECK(queue->segment->figures.dropped == count);
        queue_close(queue);
    }
}

/* A record in the middle that is being written keeps the ones behind it; one of a dead producer does not. */
static void dropping_stops_at_what_is_being_written(void)
{
    struct queue *queue = ring_with_a_gap(RECORD_RESERVED | 4000 << 8 | UINT64_C(7) << 32);
    struct queue_piece piece = PIECE(bytes, 100);
    struct queue_total put, got;
    size_t dropped;

    record_of(queue, ring_record_size(64))->word = participant_word(queue, 0) | RECORD_RESERVED;
    piece.size = 64;
    CHECK(queue_put_dropping(queue, &piece, &dropped, 0) == QUEUE_OK && dropped == 1);
    CHECK(queue_put_dropping(queue, &piece, &dropped, 0) == QUEUE_BUSY && dropped == 0);
    CHECK(get_latest(queue) == QUEUE_BUSY);
    record_of(queue, ring_record_size(64))->word = RECORD_RESERVED | 4000 << 8 | UINT64_C(7) << 32;
    CHECK(queue_put_dropping(queue, &piece, &dropped, 0) == QUEUE_OK && dropped == 0);
    CHECK(queue->segment->figures.aborted == 1);
    record_of(queue, queue->segment->get.position + ring_record_size(64))->word = RECORD_DONE;
    CHECK(get_latest(queue) == QUEUE_OK && queue->segment->figures.aborted == 2 && get_latest(queue) == QUEUE_EMPTY);
    side_totals(queue, &put, &got);
    CHECK(put.count == got.count && put.bytes == got.bytes);
    queue_close(queue);
}

/* What is behind it cannot be taken yet, so the latest is the one before it. */
static void the_latest_is_before_what_is_being_written(void)
{
    struct queue *queue = ring_with_a_gap(0);

    record_of(queue, ring_record_size(64))->word = participant_word(queue, 0) | RECORD_RESERVED;
    CHECK(get_latest(queue) == QUEUE_OK && queue->segment->get.position == ring_record_size(64));
    CHECK(get_latest(queue) == QUEUE_BUSY);
    queue_close(queue);
}

/* The space of messages that others still copy is not free, whatever is dropped behind them. */
static void dropping_waits_for_what_is_being_copied(void)
{
    struct queue *queue = queue_open(queue_file(3 * ring_record_size(LARGEST), 0, LARGEST));
    struct queue_piece piece = PIECE(bytes, LARGEST);
    struct place none = {bytes, 0, 0, 0};
    struct queue_copy copy;
    size_t dropped;

    for (int message = 0; message < 3; message++)
        CHECK(queue_put(queue, bytes, LARGEST, 0) == QUEUE_OK);
    CHECK(queue_get(queue, place_for, &place, &copy, 0) == QUEUE_COPYING);
    CHECK(queue_put_dropping(queue, &piece, &dropped, 0) == QUEUE_BUSY && dropped == 0);
    queue_release(queue, &copy);
    CHECK(queue_put_dropping(queue, &piece, &dropped, 0) == QUEUE_OK && dropped == 0);
    CHECK(queue_get_latest(queue, place_for, &none, &copy, 0) == QUEUE_NO_MEMORY);
    CHECK(queue_get_latest(queue, place_for, &place, &copy, 0) == QUEUE_COPYING);
    CHECK(queue_put(queue, bytes, LARGEST, 0) == QUEUE_OK && queue_put(queue, bytes, LARGEST, 0) == QUEUE_OK);
    CHECK(queue_put(queue, bytes, LARGEST, 0) == QUEUE_FULL);
    queue_release(queue, &copy);
    CHECK(queue_put(queue, bytes, LARGEST, 0) == QUEUE_OK);
    queue_close(queue);
}

static void what_a_shutdown_dropped_cannot_be_taken(void)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        struct queue *queue = queue_open(queue_file_of(ordered ? FLAG_ORDERED : 0, 1 << 12, 0, 64));
        struct queue_total put, got;
        size_t count;

        CHECK(queue_put(queue, "x", 1, 0) == QUEUE_OK && queue_put(queue, "y", 1, 0) == QUEUE_OK);
        queue->segment->put.lock.word = queue->segment->get.lock.word = 1; /* as if a stopped process held it */
        CHECK(queue_shutdown(queue, SECOND / 100) == QUEUE_OK);
        queue_drop(queue, SECOND / 100);
        queue->segment->put.lock.word = queue->segment->get.lock.word = 0;
        CHECK(queue_shutdown(queue, 0) == QUEUE_OK); /* a later shutdown without a drop revives nothing */
        CHECK(try_get(queue, &place) == QUEUE_DOWN && queue_peek(queue, place_for, &place, 0) == QUEUE_DOWN);
        CHECK(queue_get_many(queue, place_for, &place, 2, &count, 0) == QUEUE_DOWN);
        side_totals(queue, &put, &got);
        CHECK(put.count == got.count && put.bytes == got.bytes);
        queue_close(queue);
    }
}

static void space_that_is_copied_from_is_not_free(void)
{
    struct queue *queue = queue_open(queue_file(3 * ring_record_size(LARGEST), 0, LARGEST));
    struct queue_copy first, second;

    for (int message = 0; message < 3; message++)
        CHECK(queue_put(queue, bytes, LARGEST, 0) == QUEUE_OK);
    CHECK(queue_get(queue, place_for, &place, &first, 0) == QUEUE_COPYING);
    CHECK(queue_get(queue, place_for, &place, &second, 0) == QUEUE_COPYING);
    CHECK(queue_put(queue, bytes, 0, 0) == QUEUE_FULL);
    queue_release(queue, &second);
    CHECK(queue_put(queue, bytes, 0, 0) == QUEUE_FULL);
    queue_release(queue, &first);
    CHECK(queue->segment->get.held == 0);
    CHECK(queue_put(queue, bytes, LARGEST, 0) == QUEUE_OK);
    CHECK(queue_put(queue, bytes, LARGEST, 0) == QUEUE_OK);
    CHECK(queue_put(queue, bytes, 0, 0) == QUEUE_FULL);
    queue_close(queue);
}

static void the_dead_hold_nothing(void)
{
    int file = queue_file(2 * ring_record_size(LARGEST), 0, LARGEST);
    struct queue *queue = queue_open(file);
    struct queue_copy copy;
    pid_t child;

    CHECK(queue_put(queue, bytes, LARGEST, 0) == QUEUE_OK);
    CHECK(queue_put(queue, bytes, LARGEST, 0) == QUEUE_OK);
    child = fork_child();
    if (child == 0) {
        queue_get(queue_open(file), place_for, &place, &copy, 0);
        raise(SIGKILL);
    }
    /* Also while its process id still exists, because the parent has not waited for it. */
    CHECK(waitid(P_PID, (id_t)child, &(siginfo_t){0}, WEXITED | WNOWAIT) == 0);
    CHECK(queue_put(queue, bytes, LARGEST, 0) == QUEUE_OK);
    CHECK(queue_put(queue, bytes, LARGEST, 0) == QUEUE_FULL);
    CHECK(waitpid(child, NULL, 0) == child);
    queue_close(queue);
    close(file);
}

static void a_later_one_is_not_taken_for_a_dead_one(void)
{
    int file = queue_file(1 << 12, 0, 64);
    struct queue *queue = queue_open(file);
    struct queue *dead = queue_open(file);
    uint64_t word = participant_word(dead, 0);
    uint32_t slot = dead->slot;
    struct queue *later;

    CHECK(participant_lives(queue, word));
    queue_close(dead);
    CHECK(!participant_lives(queue, word));
    queue->segment->state.hint = slot;
    later = queue_open(file);
    CHECK(later->slot == slot && !participant_lives(queue, word) && participant_lives(queue, participant_word(later, 0)));
    queue_close(later);
    queue_close(queue);
    close(file);
}

static void participants_come_and_go(void)
{
    int file = queue_file(1 << 12, 0, 64);
    struct queue *one = queue_open(file);
    struct queue *other;
    pid_t child;
    int status;

    CHECK(!participant_shared(one));
    other = queue_open(file);
    CHECK(participant_shared(one) && participant_shared(other) && one->slot != other->slot);
    queue_close(other);
    CHECK(!participant_shared(one));
    child = fork_child();
    if (child == 0) {
        uint32_t slot = one->slot;

        CHECK(queue_reattach(one) == QUEUE_OK && one->slot != slot && participant_shared(one));
        raise(SIGSTOP);
        CHECK(!participant_shared(one)); /* the parent's slot was released with its handle */
        raise(SIGKILL);
    }
    CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
    CHECK(participant_shared(one));
    other = queue_open(file);
    CHECK(participant_lives(other, participant_word(one, 0))); /* the child has its own slot */
    queue_close(other);
    queue_close(one);
    kill(child, SIGCONT);
    CHECK(waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGKILL);
    close(file);
}

static void a_child_in_another_namespace_is_no_participant(void)
{
    int file = queue_file(1 << 12, 0, 64);
    struct queue *queue = queue_open(file);
    pid_t child = fork_child();
    int status;

    if (child == 0) {
        pid_t grandchild;

        /* An ordinary user may do so as root of another user namespace, unless the system forbids that. */
        if (unshare(CLONE_NEWPID) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) {
            printf("cases: cannot create a PID namespace here\n");
            _exit(getenv("CI") != NULL);
        }
        grandchild = fork_child();
        if (grandchild == 0)
            _exit(queue_reattach(queue) == QUEUE_FOREIGN ? 0 : 1);
        CHECK(waitpid(grandchild, &status, 0) == grandchild);
        _exit(status != 0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    queue_close(queue);
    close(file);
}

static void *take_and_end(void *lock)
{
    CHECK(lock_take(lock, 0) == LOCK_TAKEN);
    return NULL;
}

static void a_lock_outlives_its_owner(void)
{
    struct lock lock = {0};
    pthread_t thread;
    int64_t since;

    CHECK(lock_take(&lock, 0) == LOCK_TAKEN);
    lock_give(&lock);
    CHECK(pthread_create(&thread, NULL, take_and_end, &lock) == 0);
    pthread_join(thread, NULL);
    CHECK(lock_take(&lock, 0) == LOCK_INHERITED);
    lock_give(&lock);
    lock.word = 1; /* the id of a process that holds it forever */
    since = clock_now();
    CHECK(lock_take(&lock, SECOND / 20) == LOCK_BUSY);
    CHECK(clock_now() - since >= SECOND / 20);
}

static void who_is_in_keeps_others_out(void)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        struct queue *queue = queue_open(queue_file_of(ordered ? FLAG_ORDERED : 0, 1 << 12, 0, 64));
        size_t count;

        CHECK(queue_put(queue, "x", 1, 0) == QUEUE_OK);
        queue->segment->put.lock.word = queue->segment->get.lock.word = 1; /* as if a stopped process held it */
        CHECK(queue_put(queue, "x", 1, 0) == QUEUE_BUSY);
        CHECK(queue_put(queue, "x", 1, SECOND / 100) == QUEUE_BUSY);
        CHECK(queue_get_many(queue, place_for, &place, 2, &count, 0) == QUEUE_BUSY && count == 0);
        CHECK(queue_peek(queue, place_for, &place, SECOND / 100) == QUEUE_BUSY);
        CHECK(queue_clear(queue, &count, SECOND / 100) == QUEUE_BUSY && count == 0);
        queue->segment->put.lock.word = queue->segment->get.lock.word = 0;
        CHECK(try_get(queue, &place) == QUEUE_OK);
        queue_close(queue);
    }
}

/* Notification */

static char queue_path[64], bell_path[64];

/* A queue in a file with a name: only such a queue can create a doorbell. */
static int named_file(uint32_t flags)
{
    struct segment_header asked = {.limit = 1 << 12, .max_message_size = 64, .flags = flags};
    int file = open(queue_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    CHECK(file >= 0 && posix_fallocate(file, 0, (off_t)segment_size(&asked)) == 0);
    CHECK(segment_format(file, &asked) == QUEUE_OK);
    return file;
}

static struct queue *with_bell(int file)
{
    struct queue *queue = queue_open(file);

    CHECK(snprintf(queue->doorbell_path, sizeof queue->doorbell_path, "%s", bell_path) > 0);
    return queue;
}

static void remove_names(int number)
{
    (void)number;
    unlink(bell_path);
    unlink(queue_path);
}

static void end_with_bell(struct queue *queue, int file)
{
    queue_close(queue);
    close(file);
    CHECK(unlink(bell_path) == 0 && unlink(queue_path) == 0);
}

static bool rings(const struct queue *queue)
{
    return poll(&(struct pollfd){queue->doorbell, POLLIN, 0}, 1, 0) == 1;
}

static void the_doorbell_tells_whether_there_is_a_message(void)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        int file = named_file(ordered ? FLAG_ORDERED : 0);
        struct queue *listener = with_bell(file);
        struct queue *other = with_bell(file);
        struct rlimit none = {0, 0}, before;
        size_t count;

        CHECK(queue_put(listener, "x", 1, 0) == QUEUE_OK);
        CHECK(doorbell_arm(listener) == QUEUE_OK && rings(listener));
        CHECK(try_get(listener, &place) == QUEUE_OK && !rings(listener));
        /* A producer that cannot ring must not put. */
        CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
        none.rlim_max = before.rlim_max;
        CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
        CHECK(queue_put(other, "x", 1, 0) == QUEUE_SYSTEM && errno == EMFILE);
        CHECK(doorbell_arm(other) == QUEUE_SYSTEM && errno == EMFILE);
        CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
        CHECK(try_get(other, &place) == QUEUE_EMPTY);
        for (int turn = 0; turn < 600; turn++) { /* from time to time it checks whether any handle listens */
            CHECK(queue_put(other, "x", 1, 0) == QUEUE_OK && rings(listener));
            CHECK(queue_put(other, "y", 1, 0) == QUEUE_OK && rings(listener));
            CHECK(queue_get_many(other, place_for, &place, 2, &count, 0) == QUEUE_OK && count == 2 && !rings(listener));
        }
        queue_close(listener);
        CHECK(other->segment->state.attention == 0);
        end_with_bell(other, file);
    }
}

static void the_doorbell_rings_for_good_at_a_shutdown(void)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        int file = named_file(ordered ? FLAG_ORDERED : 0);
        struct queue *listener = with_bell(file);
        struct queue *other = with_bell(file);
        struct queue *late = with_bell(file);

        CHECK(doorbell_arm(listener) == QUEUE_OK && queue_put(other, "x", 1, 0) == QUEUE_OK);
        CHECK(queue_shutdown(other, 0) == QUEUE_OK && rings(listener));
        CHECK(try_get(listener, &place) == QUEUE_OK && rings(listener));
        CHECK(try_get(listener, &place) == QUEUE_DOWN && rings(listener));
        doorbell_disarm(listener);
        listener->doorbell = -1;
        listener->armed = false;
        CHECK(doorbell_arm(late) == QUEUE_OK && rings(late));
        queue_close(listener);
        queue_close(other);
        end_with_bell(late, file);
    }
}

struct stopped {
    struct queue *queue;
    pthread_barrier_t step;
};

/* Holds the producers' lock until it is told to release it. */
static void *stand_inside(void *context)
{
    struct stopped *stopped = context;

    CHECK(lock_take(&stopped->queue->segment->put.lock, SECOND) == LOCK_TAKEN);
    pthread_barrier_wait(&stopped->step);
    pthread_barrier_wait(&stopped->step);
    lock_give(&stopped->queue->segment->put.lock);
    return NULL;
}

static void a_shutdown_rings_past_who_is_stopped_inside(void)
{
    int file = named_file(0);
    struct queue *listener = with_bell(file);
    struct queue *other = with_bell(file);
    struct stopped stopped = {.queue = listener};
    struct rlimit none = {0, 0}, before;
    pthread_t thread;

    CHECK(doorbell_arm(listener) == QUEUE_OK && !rings(listener));
    CHECK(pthread_barrier_init(&stopped.step, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, stand_inside, &stopped) == 0);
    pthread_barrier_wait(&stopped.step);
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none.rlim_max = before.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    CHECK(queue_shutdown(other, SECOND / 100) == QUEUE_SYSTEM && errno == EMFILE);
    CHECK(condition_of(other) == QUEUE_OK && !rings(listener)); /* a shutdown that cannot ring does not happen */
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(queue_shutdown(other, SECOND / 100) == QUEUE_OK && rings(listener));
    pthread_barrier_wait(&stopped.step);
    CHECK(pthread_join(thread, NULL) == 0 && pthread_barrier_destroy(&stopped.step) == 0);
    CHECK(try_get(listener, &place) == QUEUE_DOWN && rings(listener));
    queue_close(listener);
    end_with_bell(other, file);
}

static void a_flooded_doorbell_holds_nobody(void)
{
    static const char zeros[4096];
    int file = named_file(0);
    struct queue *queue = with_bell(file);
    int gets = 0;

    CHECK(doorbell_arm(queue) == QUEUE_OK && fcntl(queue->doorbell, F_SETPIPE_SZ, 1 << 20) == 1 << 20);
    while (write(queue->doorbell, zeros, sizeof zeros) > 0)
        continue;
    for (; rings(queue); gets++)
        CHECK(try_get(queue, &place) == QUEUE_EMPTY);
    CHECK(gets > 1); /* each get takes only a part, so a process that keeps writing blocks none of them */
    end_with_bell(queue, file);
}

static void a_doorbell_goes_with_the_name(void)
{
    int file = named_file(0);
    struct queue *queue = with_bell(file);

    CHECK(unlink(queue_path) == 0);
    CHECK(doorbell_arm(queue) == QUEUE_GONE && access(bell_path, F_OK) != 0);
    queue_close(queue);
    close(file);
}

/* A pipe that is opened again, as by a process that receives the descriptor. */
static int nameless_bell(int *ends)
{
    char path[32];

    snprintf(path, sizeof path, "/proc/self/fd/%d", ends[0]);
    return open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

static void a_queue_that_never_had_a_name_has_a_doorbell(void)
{
    int file = queue_file(1 << 12, 4, 64);
    struct queue *listener = queue_open(file);
    struct queue *other = queue_open(file);
    int ends[2];

    CHECK(doorbell_arm(listener) == QUEUE_GONE);
    CHECK(pipe(ends) == 0);
    CHECK(!doorbell_adopt(listener, -1) && errno == EBADF);
    CHECK(!doorbell_adopt(listener, file) && errno == EINVAL);
    CHECK(doorbell_adopt(listener, nameless_bell(ends)) && doorbell_adopt(other, nameless_bell(ends)));
    CHECK(!doorbell_adopt(other, ends[0]) && errno == EINVAL);
    CHECK(doorbell_arm(listener) == QUEUE_OK && !rings(listener));
    CHECK(queue_put(other, "x", 1, 0) == QUEUE_OK && rings(listener));
    CHECK(doorbell_arm(other) == QUEUE_OK && rings(other));
    CHECK(try_get(other, &place) == QUEUE_OK && !rings(listener));
    queue_close(listener);
    queue_close(other);
    close(ends[0]);
    close(ends[1]);
    close(file);
}

static void a_failed_fork_leaves_the_parents_doorbell(void)
{
    int file = named_file(0);
    struct queue *queue = with_bell(file);
    struct rlimit none = {0, 0}, before;
    pid_t child;
    int status;

    CHECK(doorbell_arm(queue) == QUEUE_OK);
    child = fork_child();
    if (child == 0) {
        CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0 && setrlimit(RLIMIT_NOFILE, &none) == 0);
        CHECK(queue_reattach(queue) == QUEUE_SYSTEM);
        queue_detach(queue);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(queue->segment->state.attention == ATTEND_DOORBELL);
    end_with_bell(queue, file);
}

static void a_notice_is_given_once(void)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        int file = queue_file_of(ordered ? FLAG_ORDERED : 0, 1 << 12, 0, 64);
        struct queue *queue = queue_open(file);
        struct queue *other = queue_open(file);
        uint32_t seen, unseen;

        CHECK(notice_ask(queue, &seen) == QUEUE_OK && notice_ask(other, &unseen) == QUEUE_FULL);
        CHECK(!notice_given(queue, seen, SECOND / 100));
        CHECK(queue_put(other, "x", 1, 0) == QUEUE_OK && notice_given(queue, seen, 0));
        CHECK(notice_ask(queue, &seen) == QUEUE_OK);
        CHECK(queue_put(other, "x", 1, 0) == QUEUE_OK && !notice_given(queue, seen, 0)); /* it was not empty */
        queue_close(queue);
        CHECK(notice_ask(other, &seen) == QUEUE_OK); /* the last registrant is gone */
        notice_cancel(other);
        CHECK(notice_given(other, seen, 0) && other->segment->state.attention == 0);
        queue_close(other);
        close(file);
    }
}

/* Waiting */

static void *get_late(void *context)
{
    static unsigned char byte;
    struct place mine = {&byte, 1, 0, 0};
    int64_t *took = malloc(sizeof *took);
    int64_t since = clock_now();

    CHECK(get_waiting(context, &mine, 4 * SECOND) == QUEUE_OK);
    *took = clock_now() - since;
    return took;
}

static void a_wake_up_that_never_comes_is_made_good(void)
{
    struct queue *queue = queue_open(queue_file(1 << 12, 0, 64));
    struct event *event = &queue->segment->put.event;
    pthread_t thread;
    void *took;

    CHECK(pthread_create(&thread, NULL, get_late, queue) == 0);
    while (event->asleep == 0)
        sched_yield();
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    event->asleep = 0; /* as after a waker that was killed before its call */
    CHECK(queue_put(queue, "x", 1, 0) == QUEUE_OK);
    pthread_join(thread, &took);
    CHECK(*(int64_t *)took < 5 * SECOND / 2); /* ten times the limit of the contract */
    free(took);
    queue_close(queue);
}

static void any_time_of_waking_may_stand_there(void)
{
    struct queue *queue = queue_open(queue_file(1 << 12, 0, 64));
    pthread_t thread;
    void *took;

    queue->segment->put.event.woken = INT64_MIN;
    CHECK(pthread_create(&thread, NULL, get_late, queue) == 0);
    while (queue->segment->put.event.asleep == 0)
        sched_yield();
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    futex_wake(&queue->segment->put.event.turns, 1); /* without writing `woken` */
    while (queue->segment->put.event.asleep < 2) /* because no waker has taken it off the count */
        sched_yield();
    CHECK(queue_put(queue, "x", 1, 0) == QUEUE_OK);
    pthread_join(thread, &took);
    free(took);
    queue_close(queue);
}

static void waiting_ends_in_time(void)
{
    struct queue *queue = queue_open(queue_file(1 << 12, 1, 64));
    int64_t since = clock_now();

    CHECK(get_waiting(queue, &place, SECOND / 10) == QUEUE_EMPTY);
    CHECK(clock_now() - since >= SECOND / 10);
    CHECK(queue_put(queue, "x", 1, 0) == QUEUE_OK);
    since = clock_now();
    CHECK(put_waiting(queue, "x", 1, SECOND / 10) == QUEUE_FULL);
    CHECK(clock_now() - since >= SECOND / 10);
    CHECK(queue->segment->put.event.asleep == 0 && queue->segment->get.event.asleep == 0);
    queue_close(queue);
}

/* Opening */

static enum queue_result opened(int file)
{
    struct queue queue;
    enum queue_result result = queue_attach(&queue, file);

    if (result == QUEUE_OK)
        queue_detach(&queue);
    else
        close(file);
    return result;
}

static void change_header(int file, size_t offset, uint64_t value, size_t size)
{
    CHECK(pwrite(file, &value, size, (off_t)offset) == (ssize_t)size);
}

static void what_is_no_queue_is_not_opened(void)
{
    int file = memfd_create("no queue", MFD_CLOEXEC);

    CHECK(opened(file) == QUEUE_ALIEN);
    file = memfd_create("no queue", MFD_CLOEXEC);
    CHECK(ftruncate(file, 100000) == 0 && opened(file) == QUEUE_ALIEN);
    for (uint32_t version = 0; version <= 4; version++) {
        if (version == LAYOUT_VERSION)
            continue;
        file = queue_file(4096, 0, 64);
        change_header(file, offsetof(struct segment_header, version), version, 4);
        CHECK(opened(file) == (version == LAYOUT_OLDEST ? QUEUE_OLD : QUEUE_VERSIONED));
    }
    file = queue_file(4096, 0, 64);
    change_header(file, offsetof(struct segment_header, word_size), 4, 4);
    CHECK(opened(file) == QUEUE_VERSIONED);
    file = queue_file(4096, 0, 64);
    CHECK(ftruncate(file, 8192) == 0 && opened(file) == QUEUE_CORRUPT);
    for (size_t offset = offsetof(struct segment_header, segment_size); offset < sizeof(struct segment_header); offset += 4) {
        file = queue_file(4096, 0, 64);
        change_header(file, offset, 0x55555555, 4);
        CHECK(opened(file) == QUEUE_CORRUPT);
    }
    CHECK(opened(queue_file(4096, 0, 64)) == QUEUE_OK);
}

static void all_slots_can_be_taken(void)
{
    int file = queue_file(4096, 0, 64);
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)LAYOUT_LOCKS, .l_len = LAYOUT_SLOTS};
    char path[32];
    int other;

    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    other = open(path, O_RDWR | O_CLOEXEC);
    CHECK(other >= 0 && fcntl(other, F_OFD_SETLK, &all) == 0);
    CHECK(opened(file) == QUEUE_SLOTLESS);
    close(other);
}

static void what_lies_about_its_size_is_corrupt(void)
{
    static const uint32_t lies[] = {65, 4096, 1u << 20, 0x7fffffff, 0xfffffff0, 0xffffffff};

    for (size_t which = 0; which < sizeof lies / sizeof *lies; which++) {
        for (int ordered = 0; ordered < 2; ordered++) {
            struct queue *queue = queue_open(queue_file_of(ordered ? FLAG_ORDERED : 0, 1 << 12, 0, 64));
            size_t count;

            CHECK(queue_put(queue, bytes, 64, 0) == QUEUE_OK);
            /* In a record and in a cell, the size follows 8 bytes. */
            memcpy(queue->data + 8, &lies[which], sizeof lies[which]);
            CHECK(try_get(queue, &place) == QUEUE_CORRUPT);
            CHECK(queue_peek(queue, place_for, &place, 0) == QUEUE_CORRUPT);
            CHECK(queue_get_many(queue, place_for, &place, 2, &count, 0) == QUEUE_CORRUPT && count == 0);
            queue_close(queue);
        }
    }
}

/* Invalid numbers at every offset while the queue is used: no call may access memory outside the queue, or hang. */
static void harm_stays_in_the_segment(uint64_t seed)
{
    static const uint64_t hostile[] = {0, 1, 7, 8, 16, 4095, 4096, 65536, 1ULL << 31, 1ULL << 32, 1ULL << 63, ~0ULL};
    int file = queue_file_of(seed % 2 ? FLAG_ORDERED : 0, 1 << 17, seed % 3 * 5, LARGEST);
    struct queue *queue = queue_open(file);
    unsigned char *start = (unsigned char *)queue->segment;
    size_t head = sizeof(struct segment);

    for (int turn = 0; turn < 300; turn++) {
        uint32_t kind = random_next(&seed);
        size_t size = kind % 20 ? kind % 500 : kind % LARGEST;
        struct queue_piece pieces[3] = {PIECE(bytes, size % 300), PIECE(bytes, size % 200), PIECE(bytes, 5)};
        size_t offset = 0, count;

        switch (random_next(&seed) % 4) {
        case 0: /* the header, the positions and the words next to them */
            offset = random_next(&seed) % offsetof(struct segment, generations);
            break;
        case 1:
            offset = head + random_next(&seed) % 2048;
            break;
        case 2: /* the next record, or the arrays of cells */
            offset = (size_t)(queue->data - start) + (seed % 2 ? queue->segment->get.position % queue->capacity
                                                             : random_next(&seed) % queue->capacity);
        }
        offset &= ~(size_t)7;
        if (random_next(&seed) % 3 == 0)
            memcpy(start + offset, &hostile[random_next(&seed) % (sizeof hostile / sizeof *hostile)], 8);
        else if (random_next(&seed) % 3 == 0)
            start[offset + random_next(&seed) % 8] ^= (unsigned char)(1 << random_next(&seed) % 8);
        switch (random_next(&seed) % 10) {
        case 0:
            queue_put_many(queue, pieces, 3, &count, 0);
            break;
        case 1:
            place.size = 0;
            queue_get_many(queue, place_for, &place, 10, &count, 0);
            break;
        case 2:
            queue_peek(queue, place_for, &place, 0);
            break;
        case 3:
            if (random_next(&seed) % 10 == 0)
                queue_clear(queue, &count, 0);
            break;
        case 4:
        case 5: {
            struct queue_copy copy;

            if (queue_get(queue, place_for, &place, &copy, 100000) == QUEUE_COPYING) {
                memcpy(copy.target, copy.source, copy.size);
                queue_release(queue, &copy);
            }
            break;
        }
        case 6:
            queue_put_dropping(queue, &pieces[random_next(&seed) % 3], &count, 0);
            break;
        case 7:
            get_latest(queue);
            break;
        default:
            queue_put(queue, bytes, size, 100000);
        }
    }
    queue_close(queue);
    close(file);
}

int main(int count, char **words)
{
    int seeds = count > 1 ? atoi(words[1]) : 2000;

    CHECK(lock_works());
    CHECK(snprintf(queue_path, sizeof queue_path, "/dev/shm/ipcq-cases-%d", (int)getpid()) > 0);
    CHECK(snprintf(bell_path, sizeof bell_path, "%s-bell", queue_path) > 0);
    signal(SIGABRT, remove_names);
    exactly_as_many_fit_as_were_asked_for();
    every_byte_of_the_ring_is_used();
    batches_are_a_prefix();
    a_batch_is_put_whole_or_not_at_all();
    a_head_stands_in_front();
    a_head_stays_in_its_record();
    priorities_order();
    no_memory_takes_nothing();
    a_shutdown_lets_drain();
    clear_goes_past_what_the_dead_left();
    clear_goes_past_what_is_being_written();
    the_oldest_are_dropped();
    as_many_are_dropped_as_are_in_the_way();
    dropping_stops_at_what_is_being_written();
    the_latest_is_before_what_is_being_written();
    dropping_waits_for_what_is_being_copied();
    what_a_shutdown_dropped_cannot_be_taken();
    space_that_is_copied_from_is_not_free();
    the_dead_hold_nothing();
    participants_come_and_go();
    a_later_one_is_not_taken_for_a_dead_one();
    a_child_in_another_namespace_is_no_participant();
    a_lock_outlives_its_owner();
    who_is_in_keeps_others_out();
    the_doorbell_tells_whether_there_is_a_message();
    the_doorbell_rings_for_good_at_a_shutdown();
    a_shutdown_rings_past_who_is_stopped_inside();
    a_flooded_doorbell_holds_nobody();
    a_doorbell_goes_with_the_name();
    a_queue_that_never_had_a_name_has_a_doorbell();
    a_failed_fork_leaves_the_parents_doorbell();
    a_notice_is_given_once();
    a_wake_up_that_never_comes_is_made_good();
    any_time_of_waking_may_stand_there();
    waiting_ends_in_time();
    what_is_no_queue_is_not_opened();
    all_slots_can_be_taken();
    what_lies_about_its_size_is_corrupt();
    for (int seed = 0; seed < seeds; seed++)
        harm_stays_in_the_segment((uint64_t)seed);
    printf("cases: all passed, %d hostile segments did no harm\n", seeds);
    return 0;
}
