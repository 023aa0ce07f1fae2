/* Shared by the test programs: queues without a name, tagged messages, and blocking calls. */
#ifndef HARNESS_H
#define HARNESS_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "dead.h"
#include "lease.h"
#include "lock.h"
#include "participant.h"
#include "queue.h"
#include "segment.h"
#include "side.h"
#include "waiting.h"

#define CHECK(condition)                                                                                             \
    do {                                                                                                             \
        if (!(condition)) {                                                                                          \
            fprintf(stderr, "%s:%d: %s is false\n", __FILE__, __LINE__, #condition);                                 \
            abort();                                                                                                 \
        }                                                                                                            \
    } while (0)

#define SECOND INT64_C(1000000000)
#define PATIENCE QUEUE_PATIENCE

/* Forks a child that dies with this process, however that ends. */
static inline pid_t fork_child(void)
{
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0)
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    return child;
}

/* Creates a file in shared memory with a new queue. */
static inline int queue_file_of(uint32_t flags, uint64_t limit, uint64_t messages, uint64_t largest)
{
    struct segment_header asked = {.limit = limit, .max_messages = messages, .max_message_size = largest, .flags = flags};
    int descriptor = memfd_create("queue", MFD_CLOEXEC);

    CHECK(descriptor >= 0);
    CHECK(posix_fallocate(descriptor, 0, (off_t)segment_size(&asked)) == 0);
    CHECK(segment_format(descriptor, &asked) == QUEUE_OK);
    return descriptor;
}

/* Creates a queue with leases; `flags` beside that. */
static inline int queue_file_with_leases(uint32_t flags, uint64_t limit, uint64_t messages, uint64_t largest,
                                         uint32_t max_deliveries)
{
    struct segment_header asked = {.limit = limit,
                                   .max_messages = messages,
                                   .max_message_size = largest,
                                   .flags = flags | FLAG_LEASES,
                                   .max_deliveries = max_deliveries};
    int descriptor = memfd_create("queue", MFD_CLOEXEC);

    CHECK(descriptor >= 0);
    CHECK(posix_fallocate(descriptor, 0, (off_t)segment_size(&asked)) == 0);
    CHECK(segment_format(descriptor, &asked) == QUEUE_OK);
    return descriptor;
}

static inline int queue_file(uint64_t limit, uint64_t messages, uint64_t largest)
{
    return queue_file_of(0, limit, messages, largest);
}

/* Attaches one more participant. */
static inline struct queue *queue_open(int file)
{
    struct queue *queue = malloc(sizeof *queue);
    char path[32];
    int descriptor;

    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    descriptor = open(path, O_RDWR | O_CLOEXEC);
    CHECK(descriptor >= 0);
    CHECK(queue_attach(queue, descriptor) == QUEUE_OK);
    return queue;
}

static inline void queue_close(struct queue *queue)
{
    queue_detach(queue);
    free(queue);
}

/* A message without a head. */
#define PIECE(bytes, length) {.data = (bytes), .size = (length)}

/* The buffer for a taken message. */
struct place {
    unsigned char *bytes;
    size_t space;
    size_t size;
    unsigned priority;
};

static inline void *place_for(void *context, struct queue_piece *message)
{
    struct place *place = context;

    if (message->size > place->space)
        return NULL;
    place->size = message->size;
    place->priority = message->priority;
    return place->bytes;
}

/* Takes the oldest dead letter. */
static inline enum queue_result get_dead(struct queue *queue, struct place *place, struct lease_dead *letter,
                                         int64_t patience)
{
    size_t found;
    enum queue_result result = lease_peek_dead(queue, 0, place_for, place, letter, 1, &found, patience);

    if (result == QUEUE_OK)
        result = found == 0 ? QUEUE_EMPTY : lease_take_dead(queue, letter->number, patience);
    return result;
}

static inline enum queue_result try_get(struct queue *queue, struct place *place)
{
    struct queue_copy copy;
    enum queue_result result = queue_get(queue, place_for, place, &copy, PATIENCE);

    if (result != QUEUE_COPYING)
        return result;
    memcpy(copy.target, copy.source, copy.size);
    queue_release(queue, &copy);
    return QUEUE_OK;
}

/* Like the extension: try, spin, sleep, try again. */
static inline enum queue_result put_waiting(struct queue *queue, const void *data, size_t size, int64_t longest)
{
    int64_t since = clock_now();
    int64_t until = since + longest;

    for (;;) {
        enum queue_result result = queue_put(queue, data, size, PATIENCE);

        if ((result != QUEUE_FULL && result != QUEUE_BUSY) || clock_now() >= until)
            return result;
        if (!wait_spin_writable(queue, size, since, until))
            wait_sleep_writable(queue, size, until);
        since = 0; /* spin once in a wait */
    }
}

static inline enum queue_result get_waiting(struct queue *queue, struct place *place, int64_t longest)
{
    int64_t since = clock_now();
    int64_t until = since + longest;

    for (;;) {
        enum queue_result result = try_get(queue, place);

        if ((result != QUEUE_EMPTY && result != QUEUE_BUSY) || clock_now() >= until)
            return result;
        if (!wait_spin_readable(queue, since, until))
            wait_sleep_readable(queue, until);
        since = 0;
    }
}

/* A message of at least 8 bytes that records its producer and its number, and shows whether it is complete. */
struct tag {
    uint32_t who;
    uint32_t number;
};

static inline void tag_write(unsigned char *bytes, size_t size, struct tag tag)
{
    memcpy(bytes, &tag, sizeof tag);
    memset(bytes + sizeof tag, (int)((tag.who * 31 + tag.number + size) & 0xff), size - sizeof tag);
}

static inline bool tag_read(const unsigned char *bytes, size_t size, struct tag *tag)
{
    unsigned char expected;

    if (size < sizeof *tag)
        return false;
    memcpy(tag, bytes, sizeof *tag);
    expected = (unsigned char)((tag->who * 31 + tag->number + size) & 0xff);
    for (size_t index = sizeof *tag; index < size; index++)
        if (bytes[index] != expected)
            return false;
    return true;
}

static inline uint32_t random_next(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

#endif
