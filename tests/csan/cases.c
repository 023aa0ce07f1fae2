/* One case after another, in one process: bounds, orders, ends, participants, and segments that mean harm. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#include "queue.h"

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
    CHECK(ring_get(ring, place_for, &place, NULL, 0) == RING_OK && place.size == 6 && memcmp(bytes, "abdata", 6) == 0);
    CHECK(ring_get(ring, place_behind_two, &place, NULL, 0) == RING_OK);
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

static void a_large_message_stays_where_nobody_would_copy_it(void)
{
    struct ring *ring = queue_open(queue_file(1 << 18, 0, LARGEST));

    CHECK(ring_put(ring, bytes, RING_LARGE, 0) == RING_OK);
    place.size = 0;
    CHECK(ring_get(ring, place_for, &place, NULL, 0) == RING_COPYING && place.size == 0);
    CHECK(try_get(ring, &place) == RING_OK && place.size == RING_LARGE);
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
    child = fork();
    if (child == 0) {
        ring_get(queue_open(file), place_for, &place, &copy, 0);
        raise(SIGKILL);
    }
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(ring_put(ring, bytes, LARGEST, 0) == RING_OK);
    CHECK(ring_put(ring, bytes, LARGEST, 0) == RING_FULL);
    queue_close(ring);
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
    child = fork();
    if (child == 0) {
        uint32_t slot = one->slot;

        CHECK(ring_reattach(one) == RING_OK && one->slot != slot && ring_shared(one));
        raise(SIGSTOP);
        CHECK(!ring_shared(one)); /* the parent's slot went with the parent's handle, though this is its child */
        raise(SIGKILL);
    }
    CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
    CHECK(ring_shared(one));
    queue_close(one);
    kill(child, SIGCONT);
    CHECK(waitpid(child, &status, 0) == child && WTERMSIG(status) == SIGKILL);
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
        size_t offset = sizeof(struct ring_header), count;

        switch (random_next(&seed) % 4) {
        case 0: /* the positions and what is beside them */
            offset += random_next(&seed) % (offsetof(struct ring_segment, generations) - offset);
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
    exactly_as_many_fit_as_were_asked_for();
    every_byte_of_the_ring_is_used();
    batches_are_a_prefix();
    a_head_stands_in_front();
    a_large_message_stays_where_nobody_would_copy_it();
    priorities_order();
    no_memory_takes_nothing();
    a_shutdown_lets_drain();
    space_that_is_copied_from_is_not_free();
    the_dead_hold_nothing();
    participants_come_and_go();
    a_lock_outlives_its_owner();
    waiting_ends_in_time();
    what_is_no_queue_is_not_opened();
    all_slots_can_be_taken();
    for (int seed = 0; seed < seeds; seed++)
        harm_stays_in_the_segment((uint64_t)seed);
    printf("cases: all is well, %d segments that mean harm did none\n", seeds);
    return 0;
}
