/*
 * Feeds the codec messages from a hostile producer, some of which a neighbour with write access to the queue overwrites
 * during decoding.
 *
 * An input is two bytes that say how to test it, followed by a message. One message in eight is decoded while a thread
 * keeps writing into it. The decoded item may be anything, but these conditions must hold:
 *
 *     no byte outside the message and the sink is accessed                  ASan; both are allocated at exact size
 *     there is no undefined behaviour                                       UBSan
 *     no more memory is allocated than the message justifies                libFuzzer's -malloc_limit_mb
 *     a decoded item can be encoded, and decodes to the same item           `round_trip`
 *     a sink that is too small is reported, and no other sink is            `squeeze`
 *     no exception is left set                                              `check_quiet`
 *     a cached key is the one whose bytes find it                           `check_keys`
 *
 * Python is embedded and allocates with malloc, so that ASan also sees its objects.
 */
#include "codec.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CHECK(condition)                                                                                             \
    do {                                                                                                             \
        if (!(condition)) {                                                                                          \
            fprintf(stderr, "%s:%d: %s is false\n", __FILE__, __LINE__, #condition);                                 \
            abort();                                                                                                 \
        }                                                                                                            \
    } while (0)

#define TURNS 200 /* how often a message is decoded while the neighbour writes */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static struct codec_keys keys;

/* The neighbour, a thread */

static struct {
    _Atomic(unsigned char *) bytes; /* what it changes; NULL: nothing */
    _Atomic bool resting;
    size_t size;
    unsigned char value;
} neighbour;

static void *be_a_neighbour(void *nothing)
{
    for (size_t turn = 0;; turn++) {
        unsigned char *bytes = atomic_load(&neighbour.bytes);

        atomic_store(&neighbour.resting, bytes == NULL);
        if (bytes == NULL)
            nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
        else
            /* Changes each byte and then restores it, so that decoding sees both values. */
            *(volatile unsigned char *)(bytes + turn / 2 % neighbour.size) ^= neighbour.value;
    }
    return nothing;
}

static void disturb(unsigned char *bytes, size_t size, unsigned char value)
{
    neighbour.size = size;
    neighbour.value = value;
    atomic_store(&neighbour.bytes, bytes);
    while (atomic_load(&neighbour.resting))
        nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
}

static void leave_alone(void)
{
    atomic_store(&neighbour.bytes, NULL);
    while (!atomic_load(&neighbour.resting))
        nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
}

/* Sinks */

struct heap_sink {
    struct codec_sink sink;
    unsigned char *begin;
};

/* Allocates exactly what was asked for, so that ASan detects every byte beyond it. */
static bool grow_heap(struct codec_sink *sink, size_t more)
{
    struct heap_sink *self = (struct heap_sink *)sink;
    size_t used = (size_t)(sink->next - self->begin);

    self->begin = realloc(self->begin, used + more);
    CHECK(self->begin != NULL);
    sink->next = self->begin + used;
    sink->end = self->begin + used + more;
    return true;
}

struct encoding {
    unsigned char *bytes;
    size_t size;
};

/* Encodes an item; the sink has `room` bytes at first. */
static struct encoding encoded(PyObject *item, size_t room)
{
    unsigned char *begin = malloc(room);
    struct heap_sink to = {{begin, begin + room, grow_heap}, begin};

    CHECK(codec_encode(item, &to.sink) == CODEC_DONE);
    return (struct encoding){to.begin, (size_t)(to.sink.next - to.begin)};
}

/* The conditions */

static void check_quiet(void)
{
    CHECK(PyErr_Occurred() == NULL);
}

static void check_keys(void)
{
    for (size_t place = 0; place < CODEC_KEYS; place++) {
        const struct codec_key *each = &keys.each[place];
        unsigned char numbers[2 * sizeof each->first] = {0};
        size_t bytes;

        if (each->key == NULL)
            continue;
        bytes = (size_t)PyUnicode_GET_LENGTH(each->key);
        memcpy(numbers, &each->first, sizeof each->first);
        if (bytes >= sizeof each->last)
            memcpy(numbers + bytes - sizeof each->last, &each->last, sizeof each->last);
        CHECK(memcmp(numbers, PyUnicode_1BYTE_DATA(each->key), bytes) == 0);
    }
}

/* Compares the bytes, because NaN does not equal itself. */
static void round_trip(struct encoding whole)
{
    PyObject *back = codec_decode(whole.bytes, whole.size, &keys);
    struct encoding again;

    CHECK(back != NULL);
    again = encoded(back, whole.size + 9);
    CHECK(whole.size == again.size && memcmp(whole.bytes, again.bytes, whole.size) == 0);
    Py_DECREF(back);
    free(again.bytes);
}

static void squeeze(PyObject *item, struct encoding whole, size_t room)
{
    unsigned char *begin = malloc(room > 0 ? room : 1);
    struct codec_sink to = {begin, begin + room, NULL};
    enum codec_result result = codec_encode(item, &to);

    CHECK(result == CODEC_DONE ? whole.size <= room : result == CODEC_NO_ROOM && room < whole.size + 9);
    if (result == CODEC_DONE)
        CHECK(memcmp(begin, whole.bytes, whole.size) == 0);
    free(begin);
}

static void try_message(const unsigned char *message, size_t size, size_t room)
{
    PyObject *item = codec_decode(message, size, &keys);
    struct encoding whole;

    check_quiet();
    if (item == NULL)
        return;
    whole = encoded(item, 1);
    round_trip(whole);
    squeeze(item, whole, room);
    check_quiet();
    free(whole.bytes);
    Py_DECREF(item);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    PyPreConfig before;
    PyConfig config;
    pthread_t thread;

    (void)argc;
    (void)argv;
    PyPreConfig_InitIsolatedConfig(&before);
    before.allocator = PYMEM_ALLOCATOR_MALLOC;
    CHECK(!PyStatus_Exception(Py_PreInitialize(&before)));
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.install_signal_handlers = 0;
    config.use_hash_seed = 1; /* so that an input always has the same effect */
    CHECK(!PyStatus_Exception(PyConfig_SetBytesString(&config, &config.program_name, PYTHON_PROGRAM)));
    CHECK(!PyStatus_Exception(Py_InitializeFromConfig(&config)));
    PyConfig_Clear(&config);
    CHECK(pthread_create(&thread, NULL, be_a_neighbour, NULL) == 0);
    return 0;
}

/* Waking the neighbour takes longer than decoding, so the message is decoded many times while it is awake. */
static void try_beside_neighbour(unsigned char *message, size_t size, unsigned char value)
{
    disturb(message, size, value);
    for (int turn = 0; turn < TURNS; turn++) {
        PyObject *item = codec_decode(message, size, &keys);

        check_quiet();
        if (item != NULL && turn % 8 == 0) {
            struct encoding whole = encoded(item, 4 * size);

            round_trip(whole);
            free(whole.bytes);
        }
        Py_XDECREF(item);
        check_keys();
        codec_forget(&keys); /* otherwise every key would soon be in the cache */
    }
    leave_alone();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    unsigned char *message;

    if (size < 3)
        return 0;
    message = malloc(size - 2);
    memcpy(message, bytes + 2, size - 2);
    if (bytes[0] % 8 == 0)
        try_beside_neighbour(message, size - 2, bytes[1] | 1);
    else
        try_message(message, size - 2, bytes[1]);
    check_keys();
    free(message);
    return 0;
}
