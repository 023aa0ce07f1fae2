/*
 * Many threads on both ends of one queue, for ThreadSanitizer.
 *
 *     threads [SECONDS]
 *
 * There are two participants, and both use one mapping: the sanitizer identifies memory by its address, so it would not
 * see an ordering through a word that is mapped at two addresses.
 */
#include <pthread.h>

#include "harness.h"

#define PRODUCERS 4
#define CONSUMERS 4
#define LARGEST 60000
#define BATCH 5

struct worker {
    pthread_t thread;
    struct queue *queue;
    uint32_t who;
    uint64_t count;
};

static _Atomic bool over;

static void *produce(void *context)
{
    struct worker *worker = context;
    static _Thread_local unsigned char bytes[BATCH][LARGEST];
    uint64_t seed = worker->who;
    uint32_t number = 0;

    while (!over) {
        if (random_next(&seed) % 4 == 0) {
            struct queue_piece pieces[BATCH];
            size_t stored;
            enum queue_result result;

            for (uint32_t piece = 0; piece < BATCH; piece++) {
                pieces[piece] = (struct queue_piece)PIECE(bytes[piece], 8 + random_next(&seed) % 200);
                tag_write(bytes[piece], pieces[piece].size, (struct tag){worker->who, number + piece});
            }
            result = queue_put_many(worker->queue, pieces, BATCH, &stored, PATIENCE);
            CHECK(result == QUEUE_OK || ((result == QUEUE_FULL || result == QUEUE_BUSY) && stored == 0));
            number += (uint32_t)stored;
        } else {
            size_t size = 8 + (random_next(&seed) % 50 ? random_next(&seed) % 500 : random_next(&seed) % (LARGEST - 8));
            enum queue_result result;

            tag_write(bytes[0], size, (struct tag){worker->who, number});
            result = put_waiting(worker->queue, bytes[0], size, SECOND / 10);
            CHECK(result == QUEUE_OK || result == QUEUE_FULL || result == QUEUE_BUSY);
            number += result == QUEUE_OK;
        }
    }
    worker->count = number;
    return NULL;
}

/* The buffers of a batch, one after the other. */
struct places {
    unsigned char bytes[BATCH][LARGEST];
    size_t sizes[BATCH];
    size_t used;
};

static void *next_place(void *context, struct queue_piece *message)
{
    struct places *places = context;

    CHECK(message->priority == 0);
    places->sizes[places->used] = message->size;
    return places->bytes[places->used++];
}

static void saw(struct worker *worker, uint32_t *next, const unsigned char *bytes, size_t size)
{
    struct tag tag;

    CHECK(tag_read(bytes, size, &tag));
    CHECK(tag.who < PRODUCERS && tag.number >= next[tag.who]);
    next[tag.who] = tag.number + 1;
    worker->count++;
}

static void *consume(void *context)
{
    struct worker *worker = context;
    static _Thread_local unsigned char bytes[LARGEST];
    static _Thread_local struct places places;
    struct place place = {bytes, sizeof bytes, 0, 0};
    uint32_t next[PRODUCERS] = {0};
    uint64_t seed = worker->who;

    for (;;) {
        enum queue_result result;
        struct tag tag;

        switch (random_next(&seed) % 8) {
        case 0: {
            size_t taken;

            places.used = 0;
            result = queue_get_many(worker->queue, next_place, &places, BATCH, &taken, PATIENCE);
            for (size_t which = 0; which < taken; which++)
                saw(worker, next, places.bytes[which], places.sizes[which]);
            break;
        }
        case 1:
            if (queue_peek(worker->queue, place_for, &place, PATIENCE) == QUEUE_OK)
                CHECK(tag_read(bytes, place.size, &tag));
            continue;
        default:
            result = get_waiting(worker->queue, &place, SECOND / 10);
            if (result == QUEUE_OK)
                saw(worker, next, bytes, place.size);
        }
        if (result == QUEUE_DOWN)
            return NULL;
        CHECK(result == QUEUE_OK || result == QUEUE_EMPTY || result == QUEUE_BUSY || result == QUEUE_COPYING);
    }
}

static void try_queue(double seconds, uint32_t flags, uint64_t limit, uint64_t messages)
{
    int file = queue_file_of(flags, limit, messages, LARGEST);
    struct queue *first = queue_open(file);
    struct queue second = *first;
    struct queue *rings[2] = {first, &second};
    struct worker workers[PRODUCERS + CONSUMERS];
    struct timespec span = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    struct queue_total put, got;
    uint64_t sent = 0, taken = 0;

    second.descriptor = dup(first->descriptor);
    CHECK(queue_reattach(&second) == QUEUE_OK && second.slot != first->slot);
    over = false;
    for (uint32_t which = 0; which < PRODUCERS + CONSUMERS; which++) {
        workers[which] = (struct worker){.queue = rings[which % 2], .who = which};
        CHECK(pthread_create(&workers[which].thread, NULL, which < PRODUCERS ? produce : consume, &workers[which]) == 0);
    }
    nanosleep(&span, NULL);
    over = true;
    for (uint32_t which = 0; which < PRODUCERS; which++)
        pthread_join(workers[which].thread, NULL);
    CHECK(queue_shutdown(rings[0], SECOND) == QUEUE_OK);
    for (uint32_t which = 0; which < PRODUCERS + CONSUMERS; which++) {
        if (which >= PRODUCERS)
            pthread_join(workers[which].thread, NULL);
        *(which < PRODUCERS ? &sent : &taken) += workers[which].count;
    }
    side_totals(rings[0], &put, &got);
    CHECK(sent == taken && put.count == sent && got.count == taken && put.bytes == got.bytes);
    printf("threads: %llu messages through %llu bytes, %llu messages at most%s\n", (unsigned long long)sent,
           (unsigned long long)limit, (unsigned long long)messages, flags & FLAG_ORDERED ? ", in order" : "");
    close(second.descriptor);
    queue_close(first);
    close(file);
}

int main(int count, char **words)
{
    double seconds = count > 1 ? atof(words[1]) : 2;

    CHECK(lock_works());
    try_queue(seconds / 4, 0, 1 << 18, 0);
    try_queue(seconds / 4, 0, 100000, 0);
    try_queue(seconds / 4, 0, 1 << 20, 4);
    try_queue(seconds / 4, FLAG_ORDERED, 1 << 18, 0);
    return 0;
}
