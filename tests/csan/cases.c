/* One case after another, in one process: bounds, orders, ends, participants, and segments that mean harm. */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "queue.h"
#include "watch.h"

#define LARGEST 40000

static unsigned char bytes[1 << 20];
static struct place place = {bytes, sizeof bytes, 0, 0};

static void exactly_as_many_fit_as_were_asked_for(void)
{
    for (uint64_t messages = 1; messages <= 5; messages++) {
        for (uint64_t size = 0; size <= 70; size += 7) {
            struct ring *ring = queue_open(queue_file(messages * ring_record_size(size), messages, size));

            for (int turn = 0; turn < 100; turn++) {
                for (uint64_t message = 0; message < messages; message++)
                    CHECK(ring_put(ring, bytes, size, 0) == RING_OK);
                CHECK(ring_put(ring, bytes, 0, 0) == RING_FULL);
                for (uint64_t message = 0; message < messages; message++)
                    CHECK(try_get(ring, &place) == RING_OK && place.size == size);
                CHECK(try_get(ring, &place) == RING_EMPTY);
            }
            queue_close(ring);
        }
    }
}

static void every_byte_of_the_ring_is_used(void)
{
    struct ring *ring = queue_open(queue_file(5000, 0, 4984));

    CHECK(ring_has_space(ring, 4984) && !ring_has_space(ring, 4985));
    CHECK(ring_put(ring, bytes, 4984, 0) == RING_OK);
    CHECK(!ring_has_space(ring, 0));
    CHECK(ring_put(ring, bytes, 0, 0) == RING_FULL);
    CHECK(try_get(ring, &place) == RING_OK);
    for (int turn = 0; turn < 5000; turn++) {
        size_t size = (size_t)(turn * 37 % 1200);

        tag_write(bytes, 1208, (struct tag){1, (uint32_t)turn});
        while (ring_put(ring, bytes, size, 0) == RING_OK)
            continue;
        CHECK(try_get(ring, &place) == RING_OK);
    }
    queue_close(ring);
}

static void batches_are_a_prefix(void)
{
    struct ring *ring = queue_open(queue_file(1 << 12, 4, 64));
    struct ring_piece pieces[6] = {PIECE("a", 1), PIECE("b", 1), PIECE("c", 1), PIECE("d", 1), PIECE("e", 1), PIECE("f", 1)};
    struct ring_total put, got;
    size_t count;

    CHECK(ring_put_many(ring, pieces, 6, &count, 0) == RING_OK && count == 4);
    CHECK(ring_put_many(ring, pieces, 6, &count, 0) == RING_FULL && count == 0);
    ring_count(ring, &put, &got);
    CHECK(put.count == 4 && got.count == 0 && put.bytes == 4);
    CHECK(ring_peek(ring, place_for, &place, 0) == RING_OK && bytes[0] == 'a');
    CHECK(ring_get_many(ring, place_for, &place, 3, &count, 0) == RING_OK && count == 3 && bytes[0] == 'c');
    CHECK(ring_clear(ring, &count, 0) == RING_OK && count == 1);
    CHECK(ring_clear(ring, &count, 0) == RING_EMPTY && count == 0);
    CHECK(ring->segment->figures.high_water_mark == 4);
    queue_close(ring);
}

static void a_batch_is_put_whole_or_not_at_all(void)
{
    struct ring *ring = queue_open(queue_file(1 << 12, 4, 64));
    struct ring_piece pieces[5] = {PIECE("a", 1), PIECE("b", 1), PIECE("c", 1), PIECE("d", 1), PIECE("e", 1)};
    size_t count;

    CHECK(ring_put_all(ring, pieces, 5, 0) == RING_FULL && try_get(ring, &place) == RING_EMPTY);
    CHECK(ring_put_all(ring, pieces, 3, 0) == RING_OK && ring_put_all(ring, pieces, 2, 0) == RING_FULL);
    CHECK(ring_get_many(ring, place_for, &place, 5, &count, 0) == RING_OK && count == 3 && bytes[0] == 'c');
    CHECK(ring_shutdown(ring, 0) == RING_OK && ring_put_all(ring, pieces, 1, 0) == RING_DOWN);
    queue_close(ring);
}

static void *place_behind_two(void *context, struct ring_piece *message)
{
    message->data = (const unsigned char *)message->data + 2;
    message->size -= 2;
    return place_for(context, message);
}

static void a_head_stands_in_front(void)
{
    struct ring *ring = queue_open(queue_file(1 << 18, 0, LARGEST));
    struct ring_piece piece = {.data = "data", .size = 4, .head_size = 2, .head = "ab"};
    struct ring_piece large = {.data = bytes, .size = LARGEST - 2, .head_size = 2, .head = "ab"};
    struct ring_copy copy;
    size_t count;

    CHECK(ring_put_many(ring, &piece, 1, &count, 0) == RING_OK && ring_put_many(ring, &piece, 1, &count, 0) == RING_OK);
    CHECK(ring_get(ring, place_for, &place, &copy, 0) == RING_OK && place.size == 6 && memcmp(bytes, "abdata", 6) == 0);
    CHECK(ring_get(ring, place_behind_two, &place, &copy, 0) == RING_OK);
    CHECK(place.size == 4 && memcmp(bytes, "data", 4) == 0);
    large.size++;
    CHECK(ring_put_many(ring, &large, 1, &count, 0) == RING_FULL);
    large.size--;
    memset(bytes, 'x', LARGEST);
    CHECK(ring_put_many(ring, &large, 1, &count, 0) == RING_OK);
    CHECK(ring_get(ring, place_behind_two, &place, &copy, 0) == RING_COPYING);
    CHECK(copy.size == LARGEST - 2 && *(const char *)copy.source == 'x');
    ring_release(ring, &copy);
    queue_close(ring);
}

static void priorities_order(void)
{
    struct ring *ring = queue_open(queue_file_of(RING_ORDERED, 7 * ring_message_size(300, RING_ORDERED), 0, 300));
    static const unsigned priorities[] = {0, 32767, 5, 5, 0, 6, 32767};
    static const unsigned char expected[] = {1, 6, 5, 2, 3, 0, 4};
    struct ring_total put, got;
    size_t count;

    for (int turn = 0; turn < 50; turn++) {
        for (unsigned char message = 0; message < 7; message++) {
            static unsigned char data[300];
            struct ring_piece piece = {.data = data, .size = 300, .priority = priorities[message]};

            memset(data, message, sizeof data);
            CHECK(ring_put_many(ring, &piece, 1, &count, 0) == RING_OK);
        }
        CHECK(ring_put(ring, bytes, 0, 0) == RING_FULL && !ring_has_space(ring, 0));
        CHECK(ring_peek(ring, place_for, &place, 0) == RING_OK && bytes[299] == 1 && place.priority == 32767);
        for (unsigned char message = 0; message < 7; message++) {
            CHECK(try_get(ring, &place) == RING_OK && place.size == 300);
            CHECK(bytes[0] == expected[message] && bytes[299] == expected[message]);
            CHECK(place.priority == priorities[expected[message]]);
        }
        CHECK(try_get(ring, &place) == RING_EMPTY);
    }
    CHECK(ring_put(ring, "x", 1, 0) == RING_OK && ring_put(ring, "y", 1, 0) == RING_OK);
    CHECK(ring_clear(ring, &count, 0) == RING_OK && count == 2);
    ring_count(ring, &put, &got);
    CHECK(put.count == 352 && got.count == 352 && put.bytes == got.bytes);
    queue_close(ring);
}

static void no_memory_takes_nothing(void)
{
    struct ring *ring = queue_open(queue_file(1 << 18, 0, 1 << 16));
    struct place none = {bytes, 0, 0, 0};
    size_t count;

    CHECK(ring_put(ring, "kept", 4, 0) == RING_OK);
    CHECK(try_get(ring, &none) == RING_NO_MEMORY);
    CHECK(ring_peek(ring, place_for, &none, 0) == RING_NO_MEMORY);
    CHECK(ring_get_many(ring, place_for, &none, 2, &count, 0) == RING_NO_MEMORY && count == 0);
    CHECK(try_get(ring, &place) == RING_OK && memcmp(bytes, "kept", 4) == 0);
    CHECK(ring_put(ring, bytes, LARGEST, 0) == RING_OK);
    CHECK(ring_get_many(ring, place_for, &place, 2, &count, 0) == RING_COPYING && count == 0);
    CHECK(ring_clear(ring, &count, 0) == RING_OK && count == 1);
    CHECK(ring_put(ring, "small", 5, 0) == RING_OK && ring_put(ring, bytes, LARGEST, 0) == RING_OK);
    CHECK(ring_get_many(ring, place_for, &place, 2, &count, 0) == RING_COPYING && count == 1);
    CHECK(try_get(ring, &none) == RING_NO_MEMORY);
    CHECK(try_get(ring, &place) == RING_OK && place.size == LARGEST);
    queue_close(ring);
}

static void a_shutdown_lets_drain(void)
{
    struct ring *ring = queue_open(queue_file(1 << 12, 0, 64));

    CHECK(ring_put(ring, "left", 4, 0) == RING_OK);
    CHECK(ring_shutdown(ring, SECOND) == RING_OK);
    CHECK(ring_put(ring, "late", 4, 0) == RING_DOWN);
    CHECK(try_get(ring, &place) == RING_OK);
    CHECK(try_get(ring, &place) == RING_DOWN);
    CHECK(get_waiting(ring, &place, 10 * SECOND) == RING_DOWN);
    CHECK(put_waiting(ring, "late", 4, 10 * SECOND) == RING_DOWN);
    queue_close(ring);
}

static struct ring_record *record_of(const struct ring *ring, uint64_t position)
{
    return (struct ring_record *)(ring->data + position % ring->capacity);
}

/* Two messages and, between them, a record that somebody is still writing or left unfinished. */
static struct ring *ring_with_a_gap(uint64_t word)
{
    struct ring *ring = queue_open(queue_file(3 * ring_record_size(64), 0, 64));

    for (int message = 0; message < 3; message++)
        CHECK(ring_put(ring, bytes, 64, 0) == RING_OK);
    record_of(ring, ring_record_size(64))->word = word;
    return ring;
}

static void clear_goes_past_what_the_dead_left(void)
{
    static const uint64_t words[] = {RING_DONE, RING_RESERVED | 4000 << 8 | UINT64_C(7) << 32};

    for (size_t which = 0; which < sizeof words / sizeof *words; which++) {
        struct ring *ring = ring_with_a_gap(words[which]);
        struct ring_total put, got;
        size_t count;

        CHECK(ring_clear(ring, &count, 0) == RING_OK && count == 2);
        CHECK(try_get(ring, &place) == RING_EMPTY && ring->segment->figures.aborted == 1);
        ring_count(ring, &put, &got);
        CHECK(put.count == got.count && put.bytes == got.bytes && ring->segment->get.held == 0);
        for (int message = 0; message < 3; message++)
            CHECK(ring_put(ring, bytes, 64, 0) == RING_OK);
        queue_close(ring);
    }
}

static void clear_goes_past_what_is_being_written(void)
{
    struct ring *ring = ring_with_a_gap(0);
    struct ring_record *written = record_of(ring, ring_record_size(64));
    size_t count;

    written->word = ring_identity(ring) | RING_RESERVED;
    CHECK(ring_clear(ring, &count, 0) == RING_OK && count == 3);
    CHECK(try_get(ring, &place) == RING_EMPTY);
    /* Its space and the space behind it are not free before its producer has finished. */
    CHECK(ring_put(ring, bytes, 64, 0) == RING_OK && ring_put(ring, bytes, 0, 0) == RING_FULL);
    CHECK(written->word == (ring_identity(ring) | RING_RESERVED));
    written->word = RING_READY;
    CHECK(ring_put(ring, bytes, 64, 0) == RING_OK && ring_put(ring, bytes, 64, 0) == RING_OK);
    CHECK(ring_clear(ring, &count, 0) == RING_OK && count == 3);
    queue_close(ring);
}

static void what_a_shutdown_dropped_cannot_be_taken(void)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        struct ring *ring = queue_open(queue_file_of(ordered ? RING_ORDERED : 0, 1 << 12, 0, 64));
        struct ring_total put, got;
        size_t count;

        CHECK(ring_put(ring, "x", 1, 0) == RING_OK && ring_put(ring, "y", 1, 0) == RING_OK);
        ring->segment->put.lock.word = ring->segment->get.lock.word = 1; /* of a process that is stopped inside */
        CHECK(ring_shutdown(ring, SECOND / 100) == RING_OK);
        ring_drop(ring, SECOND / 100);
        ring->segment->put.lock.word = ring->segment->get.lock.word = 0;
        CHECK(ring_shutdown(ring, 0) == RING_OK); /* a later one that lets drain revives nothing */
        CHECK(try_get(ring, &place) == RING_DOWN && ring_peek(ring, place_for, &place, 0) == RING_DOWN);
        CHECK(ring_get_many(ring, place_for, &place, 2, &count, 0) == RING_DOWN);
        ring_count(ring, &put, &got);
        CHECK(put.count == got.count && put.bytes == got.bytes);
        queue_close(ring);
    }
}

static void space_that_is_copied_from_is_not_free(void)
{
    struct ring *ring = queue_open(queue_file(3 * ring_record_size(LARGEST), 0, LARGEST));
    struct ring_copy first, second;

    for (int message = 0; message < 3; message++)
        CHECK(ring_put(ring, bytes, LARGEST, 0) == RING_OK);
    CHECK(ring_get(ring, place_for, &place, &first, 0) == RING_COPYING);
    CHECK(ring_get(ring, place_for, &place, &second, 0) == RING_COPYING);
    CHECK(ring_put(ring, bytes, 0, 0) == RING_FULL);
    ring_release(ring, &second);
    CHECK(ring_put(ring, bytes, 0, 0) == RING_FULL);
    ring_release(ring, &first);
    CHECK(ring->segment->get.held == 0);
    CHECK(ring_put(ring, bytes, LARGEST, 0) == RING_OK);
    CHECK(ring_put(ring, bytes, LARGEST, 0) == RING_OK);
    CHECK(ring_put(ring, bytes, 0, 0) == RING_FULL);
    queue_close(ring);
}

static void the_dead_hold_nothing(void)
{
    int file = queue_file(2 * ring_record_size(LARGEST), 0, LARGEST);
    struct ring *ring = queue_open(file);
    struct ring_copy copy;
    pid_t child;

    CHECK(ring_put(ring, bytes, LARGEST, 0) == RING_OK);
    CHECK(ring_put(ring, bytes, LARGEST, 0) == RING_OK);
    child = fork_child();
    if (child == 0) {
        ring_get(queue_open(file), place_for, &place, &copy, 0);
        raise(SIGKILL);
    }
    /* Also while its number still is one, as nobody has waited for it. */
    CHECK(waitid(P_PID, (id_t)child, &(siginfo_t){0}, WEXITED | WNOWAIT) == 0);
    CHECK(ring_put(ring, bytes, LARGEST, 0) == RING_OK);
    CHECK(ring_put(ring, bytes, LARGEST, 0) == RING_FULL);
    CHECK(waitpid(child, NULL, 0) == child);
    queue_close(ring);
    close(file);
}

static void a_later_one_is_not_taken_for_a_dead_one(void)
{
    int file = queue_file(1 << 12, 0, 64);
    struct ring *ring = queue_open(file);
    struct ring *dead = queue_open(file);
    uint64_t word = ring_identity(dead);
    uint32_t slot = dead->slot;
    struct ring *later;

    CHECK(ring_participates(ring, word));
    queue_close(dead);
    CHECK(!ring_participates(ring, word));
    ring->segment->state.hint = slot;
    later = queue_open(file);
    CHECK(later->slot == slot && !ring_participates(ring, word) && ring_participates(ring, ring_identity(later)));
    queue_close(later);
    queue_close(ring);
    close(file);
}

static void participants_come_and_go(void)
{
    int file = queue_file(1 << 12, 0, 64);
    struct ring *one = queue_open(file);
    struct ring *other;
    pid_t child;
    int status;

    CHECK(!ring_shared(one));
    other = queue_open(file);
    CHECK(ring_shared(one) && ring_shared(other) && one->slot != other->slot);
    queue_close(other);
    CHECK(!ring_shared(one));
    child = fork_child();
    if (child == 0) {
        uint32_t slot = one->slot;

        CHECK(ring_reattach(one) == RING_OK && one->slot != slot && ring_shared(one));
        raise(SIGSTOP);
        CHECK(!ring_shared(one)); /* the parent's slot went with the parent's handle, though this is its child */
        raise(SIGKILL);
    }
    CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
    CHECK(ring_shared(one));
    other = queue_open(file);
    CHECK(ring_participates(other, ring_identity(one))); /* its slot is its own after the child's birth */
    queue_close(other);
    queue_close(one);
    kill(child, SIGCONT);
    CHECK(waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGKILL);
    close(file);
}

static void a_child_in_another_namespace_is_no_participant(void)
{
    int file = queue_file(1 << 12, 0, 64);
    struct ring *ring = queue_open(file);
    pid_t child = fork_child();
    int status;

    if (child == 0) {
        pid_t grandchild;

        /* Who is not root may do so as root of another user namespace, unless the system forbids that. */
        if (unshare(CLONE_NEWPID) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) {
            printf("cases: there can be no other PID namespace here\n");
            _exit(getenv("CI") != NULL);
        }
        grandchild = fork_child();
        if (grandchild == 0)
            _exit(ring_reattach(ring) == RING_FOREIGN ? 0 : 1);
        CHECK(waitpid(grandchild, &status, 0) == grandchild);
        _exit(status != 0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    queue_close(ring);
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
    lock.word = 1; /* that of a process which holds it for ever */
    since = wait_now();
    CHECK(lock_take(&lock, SECOND / 20) == LOCK_BUSY);
    CHECK(wait_now() - since >= SECOND / 20);
}

static void who_is_in_keeps_others_out(void)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        struct ring *ring = queue_open(queue_file_of(ordered ? RING_ORDERED : 0, 1 << 12, 0, 64));
        size_t count;

        CHECK(ring_put(ring, "x", 1, 0) == RING_OK);
        ring->segment->put.lock.word = ring->segment->get.lock.word = 1; /* of a process that is stopped inside */
        CHECK(ring_put(ring, "x", 1, 0) == RING_BUSY);
        CHECK(ring_put(ring, "x", 1, SECOND / 100) == RING_BUSY);
        CHECK(ring_get_many(ring, place_for, &place, 2, &count, 0) == RING_BUSY && count == 0);
        CHECK(ring_peek(ring, place_for, &place, SECOND / 100) == RING_BUSY);
        CHECK(ring_clear(ring, &count, SECOND / 100) == RING_BUSY && count == 0);
        ring->segment->put.lock.word = ring->segment->get.lock.word = 0;
        CHECK(try_get(ring, &place) == RING_OK);
        queue_close(ring);
    }
}

/* Being told */

static char queue_path[64], bell_path[64];

/* A queue in a file with a name, as those have that a doorbell can belong to. */
static int named_file(uint32_t flags)
{
    struct ring_header asked = {.limit = 1 << 12, .max_message_size = 64, .flags = flags};
    int file = open(queue_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    CHECK(file >= 0 && posix_fallocate(file, 0, (off_t)ring_segment_size(&asked)) == 0);
    CHECK(ring_format(file, &asked) == RING_OK);
    return file;
}

static struct ring *with_bell(int file)
{
    struct ring *ring = queue_open(file);

    CHECK(snprintf(ring->bell_path, sizeof ring->bell_path, "%s", bell_path) > 0);
    return ring;
}

static void remove_names(int number)
{
    (void)number;
    unlink(bell_path);
    unlink(queue_path);
}

static void end_with_bell(struct ring *ring, int file)
{
    queue_close(ring);
    close(file);
    CHECK(unlink(bell_path) == 0 && unlink(queue_path) == 0);
}

static bool rings(const struct ring *ring)
{
    return poll(&(struct pollfd){ring->bell, POLLIN, 0}, 1, 0) == 1;
}

static void the_doorbell_tells_whether_there_is_a_message(void)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        int file = named_file(ordered ? RING_ORDERED : 0);
        struct ring *listener = with_bell(file);
        struct ring *other = with_bell(file);
        struct rlimit none = {0, 0}, before;
        size_t count;

        CHECK(ring_put(listener, "x", 1, 0) == RING_OK);
        CHECK(watch_arm(listener) == RING_OK && rings(listener));
        CHECK(try_get(listener, &place) == RING_OK && !rings(listener));
        /* Whoever cannot ring must not put. */
        CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
        none.rlim_max = before.rlim_max;
        CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
        CHECK(ring_put(other, "x", 1, 0) == RING_SYSTEM && errno == EMFILE);
        CHECK(watch_arm(other) == RING_SYSTEM && errno == EMFILE);
        CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
        CHECK(try_get(other, &place) == RING_EMPTY);
        for (int turn = 0; turn < 600; turn++) { /* now and then it looks whether anybody listens */
            CHECK(ring_put(other, "x", 1, 0) == RING_OK && rings(listener));
            CHECK(ring_put(other, "y", 1, 0) == RING_OK && rings(listener));
            CHECK(ring_get_many(other, place_for, &place, 2, &count, 0) == RING_OK && count == 2 && !rings(listener));
        }
        queue_close(listener);
        CHECK(other->segment->state.watch == 0);
        end_with_bell(other, file);
    }
}

static void the_doorbell_rings_for_good_at_a_shutdown(void)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        int file = named_file(ordered ? RING_ORDERED : 0);
        struct ring *listener = with_bell(file);
        struct ring *other = with_bell(file);
        struct ring *late = with_bell(file);

        CHECK(watch_arm(listener) == RING_OK && ring_put(other, "x", 1, 0) == RING_OK);
        CHECK(ring_shutdown(other, 0) == RING_OK && rings(listener));
        CHECK(try_get(listener, &place) == RING_OK && rings(listener));
        CHECK(try_get(listener, &place) == RING_DOWN && rings(listener));
        watch_disarm(listener);
        listener->bell = -1;
        listener->armed = false;
        CHECK(watch_arm(late) == RING_OK && rings(late));
        queue_close(listener);
        queue_close(other);
        end_with_bell(late, file);
    }
}

struct stopped {
    struct ring *ring;
    pthread_barrier_t step;
};

/* Holds the producers' lock until it is told to give it back. */
static void *stand_inside(void *context)
{
    struct stopped *stopped = context;

    CHECK(lock_take(&stopped->ring->segment->put.lock, SECOND) == LOCK_TAKEN);
    pthread_barrier_wait(&stopped->step);
    pthread_barrier_wait(&stopped->step);
    lock_give(&stopped->ring->segment->put.lock);
    return NULL;
}

static void a_shutdown_rings_past_who_is_stopped_inside(void)
{
    int file = named_file(0);
    struct ring *listener = with_bell(file);
    struct ring *other = with_bell(file);
    struct stopped stopped = {.ring = listener};
    struct rlimit none = {0, 0}, before;
    pthread_t thread;

    CHECK(watch_arm(listener) == RING_OK && !rings(listener));
    CHECK(pthread_barrier_init(&stopped.step, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, stand_inside, &stopped) == 0);
    pthread_barrier_wait(&stopped.step);
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none.rlim_max = before.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    CHECK(ring_shutdown(other, SECOND / 100) == RING_SYSTEM && errno == EMFILE);
    CHECK(ring_condition(other) == RING_OK && !rings(listener)); /* a shutdown that cannot ring does not happen */
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(ring_shutdown(other, SECOND / 100) == RING_OK && rings(listener));
    pthread_barrier_wait(&stopped.step);
    CHECK(pthread_join(thread, NULL) == 0 && pthread_barrier_destroy(&stopped.step) == 0);
    CHECK(try_get(listener, &place) == RING_DOWN && rings(listener));
    queue_close(listener);
    end_with_bell(other, file);
}

static void a_flooded_doorbell_holds_nobody(void)
{
    static const char zeros[4096];
    int file = named_file(0);
    struct ring *ring = with_bell(file);
    int gets = 0;

    CHECK(watch_arm(ring) == RING_OK && fcntl(ring->bell, F_SETPIPE_SZ, 1 << 20) == 1 << 20);
    while (write(ring->bell, zeros, sizeof zeros) > 0)
        continue;
    for (; rings(ring); gets++)
        CHECK(try_get(ring, &place) == RING_EMPTY);
    CHECK(gets > 1); /* so each takes a part of it, and who goes on writing keeps none of them busy */
    end_with_bell(ring, file);
}

static void a_doorbell_goes_with_the_name(void)
{
    int file = named_file(0);
    struct ring *ring = with_bell(file);

    CHECK(unlink(queue_path) == 0);
    CHECK(watch_arm(ring) == RING_GONE && access(bell_path, F_OK) != 0);
    queue_close(ring);
    close(file);
}

/* A pipe that is opened again, as those who are handed it have it. */
static int nameless_bell(int *ends)
{
    char path[32];

    snprintf(path, sizeof path, "/proc/self/fd/%d", ends[0]);
    return open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

static void a_queue_that_never_had_a_name_has_a_doorbell(void)
{
    int file = queue_file(1 << 12, 4, 64);
    struct ring *listener = queue_open(file);
    struct ring *other = queue_open(file);
    int ends[2];

    CHECK(watch_arm(listener) == RING_GONE);
    CHECK(pipe(ends) == 0);
    CHECK(!watch_adopt(listener, -1) && errno == EBADF);
    CHECK(!watch_adopt(listener, file) && errno == EINVAL);
    CHECK(watch_adopt(listener, nameless_bell(ends)) && watch_adopt(other, nameless_bell(ends)));
    CHECK(!watch_adopt(other, ends[0]) && errno == EINVAL);
    CHECK(watch_arm(listener) == RING_OK && !rings(listener));
    CHECK(ring_put(other, "x", 1, 0) == RING_OK && rings(listener));
    CHECK(watch_arm(other) == RING_OK && rings(other));
    CHECK(try_get(other, &place) == RING_OK && !rings(listener));
    queue_close(listener);
    queue_close(other);
    close(ends[0]);
    close(ends[1]);
    close(file);
}

static void a_failed_fork_leaves_the_parents_doorbell(void)
{
    int file = named_file(0);
    struct ring *ring = with_bell(file);
    struct rlimit none = {0, 0}, before;
    pid_t child;
    int status;

    CHECK(watch_arm(ring) == RING_OK);
    child = fork_child();
    if (child == 0) {
        CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0 && setrlimit(RLIMIT_NOFILE, &none) == 0);
        CHECK(ring_reattach(ring) == RING_SYSTEM);
        ring_detach(ring);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(ring->segment->state.watch == RING_DOORBELL);
    end_with_bell(ring, file);
}

static void a_notice_is_given_once(void)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        int file = queue_file_of(ordered ? RING_ORDERED : 0, 1 << 12, 0, 64);
        struct ring *ring = queue_open(file);
        struct ring *other = queue_open(file);
        uint32_t seen, unseen;

        CHECK(watch_ask(ring, &seen) == RING_OK && watch_ask(other, &unseen) == RING_FULL);
        CHECK(!watch_told(ring, seen, SECOND / 100));
        CHECK(ring_put(other, "x", 1, 0) == RING_OK && watch_told(ring, seen, 0));
        CHECK(watch_ask(ring, &seen) == RING_OK);
        CHECK(ring_put(other, "x", 1, 0) == RING_OK && !watch_told(ring, seen, 0)); /* it was not empty */
        queue_close(ring);
        CHECK(watch_ask(other, &seen) == RING_OK); /* in the place of one that has gone */
        watch_cancel(other);
        CHECK(watch_told(other, seen, 0) && other->segment->state.watch == 0);
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
    int64_t since = wait_now();

    CHECK(get_waiting(context, &mine, 4 * SECOND) == RING_OK);
    *took = wait_now() - since;
    return took;
}

static void a_wake_up_that_never_comes_is_made_good(void)
{
    struct ring *ring = queue_open(queue_file(1 << 12, 0, 64));
    struct bell *bell = &ring->segment->put.bell;
    pthread_t thread;
    void *took;

    CHECK(pthread_create(&thread, NULL, get_late, ring) == 0);
    while (bell->asleep == 0)
        sched_yield();
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    bell->asleep = 0; /* as after a waker that was killed before its call */
    CHECK(ring_put(ring, "x", 1, 0) == RING_OK);
    pthread_join(thread, &took);
    CHECK(*(int64_t *)took < 5 * SECOND / 2); /* ten times what the contract has */
    free(took);
    queue_close(ring);
}

static void any_time_of_waking_may_stand_there(void)
{
    struct ring *ring = queue_open(queue_file(1 << 12, 0, 64));
    pthread_t thread;
    void *took;

    ring->segment->put.bell.woken = INT64_MIN;
    CHECK(pthread_create(&thread, NULL, get_late, ring) == 0);
    while (ring->segment->put.bell.asleep == 0)
        sched_yield();
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    wait_wake(&ring->segment->put.bell.turns, 1); /* without a time */
    while (ring->segment->put.bell.asleep < 2) /* as nobody has taken it off */
        sched_yield();
    CHECK(ring_put(ring, "x", 1, 0) == RING_OK);
    pthread_join(thread, &took);
    free(took);
    queue_close(ring);
}

static void waiting_ends_in_time(void)
{
    struct ring *ring = queue_open(queue_file(1 << 12, 1, 64));
    int64_t since = wait_now();

    CHECK(get_waiting(ring, &place, SECOND / 10) == RING_EMPTY);
    CHECK(wait_now() - since >= SECOND / 10);
    CHECK(ring_put(ring, "x", 1, 0) == RING_OK);
    since = wait_now();
    CHECK(put_waiting(ring, "x", 1, SECOND / 10) == RING_FULL);
    CHECK(wait_now() - since >= SECOND / 10);
    CHECK(ring->segment->put.bell.asleep == 0 && ring->segment->get.bell.asleep == 0);
    queue_close(ring);
}

/* Opening */

static enum ring_result opened(int file)
{
    struct ring ring;
    enum ring_result result = ring_attach(&ring, file);

    if (result == RING_OK)
        ring_detach(&ring);
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

    CHECK(opened(file) == RING_ALIEN);
    file = memfd_create("no queue", MFD_CLOEXEC);
    CHECK(ftruncate(file, 100000) == 0 && opened(file) == RING_ALIEN);
    file = queue_file(4096, 0, 64);
    change_header(file, offsetof(struct ring_header, version), 2, 4);
    CHECK(opened(file) == RING_VERSIONED);
    file = queue_file(4096, 0, 64);
    change_header(file, offsetof(struct ring_header, word_size), 4, 4);
    CHECK(opened(file) == RING_VERSIONED);
    file = queue_file(4096, 0, 64);
    CHECK(ftruncate(file, 8192) == 0 && opened(file) == RING_CORRUPT);
    for (size_t offset = offsetof(struct ring_header, segment_size); offset < sizeof(struct ring_header); offset += 4) {
        file = queue_file(4096, 0, 64);
        change_header(file, offset, 0x55555555, 4);
        CHECK(opened(file) == RING_CORRUPT);
    }
    CHECK(opened(queue_file(4096, 0, 64)) == RING_OK);
}

static void all_slots_can_be_taken(void)
{
    int file = queue_file(4096, 0, 64);
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)RING_LOCKS, .l_len = RING_SLOTS};
    char path[32];
    int other;

    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    other = open(path, O_RDWR | O_CLOEXEC);
    CHECK(other >= 0 && fcntl(other, F_OFD_SETLK, &all) == 0);
    CHECK(opened(file) == RING_SLOTLESS);
    close(other);
}

static void what_lies_about_its_size_is_corrupt(void)
{
    static const uint32_t lies[] = {65, 4096, 1u << 20, 0x7fffffff, 0xfffffff0, 0xffffffff};

    for (size_t which = 0; which < sizeof lies / sizeof *lies; which++) {
        for (int ordered = 0; ordered < 2; ordered++) {
            struct ring *ring = queue_open(queue_file_of(ordered ? RING_ORDERED : 0, 1 << 12, 0, 64));
            size_t count;

            CHECK(ring_put(ring, bytes, 64, 0) == RING_OK);
            /* In a record and in a cell, the size follows 8 bytes. */
            memcpy(ring->data + 8, &lies[which], sizeof lies[which]);
            CHECK(try_get(ring, &place) == RING_CORRUPT);
            CHECK(ring_peek(ring, place_for, &place, 0) == RING_CORRUPT);
            CHECK(ring_get_many(ring, place_for, &place, 2, &count, 0) == RING_CORRUPT && count == 0);
            queue_close(ring);
        }
    }
}

/* Numbers that no queue has, in every place, while it is used: no call may touch what is not the queue's or hang. */
static void harm_stays_in_the_segment(uint64_t seed)
{
    static const uint64_t hostile[] = {0, 1, 7, 8, 16, 4095, 4096, 65536, 1ULL << 31, 1ULL << 32, 1ULL << 63, ~0ULL};
    int file = queue_file_of(seed % 2 ? RING_ORDERED : 0, 1 << 17, seed % 3 * 5, LARGEST);
    struct ring *ring = queue_open(file);
    unsigned char *start = (unsigned char *)ring->segment;
    size_t head = sizeof(struct ring_segment);

    for (int turn = 0; turn < 300; turn++) {
        uint32_t kind = random_next(&seed);
        size_t size = kind % 20 ? kind % 500 : kind % LARGEST;
        struct ring_piece pieces[3] = {PIECE(bytes, size % 300), PIECE(bytes, size % 200), PIECE(bytes, 5)};
        size_t offset = 0, count;

        switch (random_next(&seed) % 4) {
        case 0: /* the header, the positions and what is beside them */
            offset = random_next(&seed) % offsetof(struct ring_segment, generations);
            break;
        case 1:
            offset = head + random_next(&seed) % 2048;
            break;
        case 2: /* the record that is next, or the arrays of a shelf */
            offset = (size_t)(ring->data - start) + (seed % 2 ? ring->segment->get.position % ring->capacity
                                                             : random_next(&seed) % ring->capacity);
        }
        offset &= ~(size_t)7;
        if (random_next(&seed) % 3 == 0)
            memcpy(start + offset, &hostile[random_next(&seed) % (sizeof hostile / sizeof *hostile)], 8);
        else if (random_next(&seed) % 3 == 0)
            start[offset + random_next(&seed) % 8] ^= (unsigned char)(1 << random_next(&seed) % 8);
        switch (random_next(&seed) % 8) {
        case 0:
            ring_put_many(ring, pieces, 3, &count, 0);
            break;
        case 1:
            place.size = 0;
            ring_get_many(ring, place_for, &place, 10, &count, 0);
            break;
        case 2:
            ring_peek(ring, place_for, &place, 0);
            break;
        case 3:
            if (random_next(&seed) % 10 == 0)
                ring_clear(ring, &count, 0);
            break;
        case 4:
        case 5: {
            struct ring_copy copy;

            if (ring_get(ring, place_for, &place, &copy, 100000) == RING_COPYING) {
                memcpy(copy.target, copy.source, copy.size);
                ring_release(ring, &copy);
            }
            break;
        }
        default:
            ring_put(ring, bytes, size, 100000);
        }
    }
    queue_close(ring);
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
    priorities_order();
    no_memory_takes_nothing();
    a_shutdown_lets_drain();
    clear_goes_past_what_the_dead_left();
    clear_goes_past_what_is_being_written();
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
    printf("cases: all is well, %d segments that mean harm did none\n", seeds);
    return 0;
}
