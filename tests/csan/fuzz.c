/*
 * Feeds the core anything that an attacker with write access could leave in a segment, or write there during a call.
 *
 * An input is a program: the kind of the queue, and steps that either overwrite words of the segment or call the core.
 * Two thirds of the inputs run beside a thread that keeps writing into the segment. Results may be arbitrary, but
 *
 *     no byte outside the mapping and the caller's own memory is touched     guard pages around the mapping, ASan
 *     no arithmetic has undefined behaviour                                  UBSan
 *     no message is larger than the queue's maximum                          `room_for`
 *     no call takes longer than its patience and a scan of the queue         libFuzzer's -timeout
 *     an attached segment matches its header, also in size                   `attach_to`
 *
 * The file is not truncated while it is mapped: an attacker can do that, and participants need not survive it.
 */
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "harness.h"

#include "dead.h"
#include "doorbell.h"
#include "lease.h"
#include "notice.h"

#define BRIEF 50000 /* patience of one call, ns */
#define STEPS 48
#define SPOILS 8
#define MOST (UINT64_C(1) << 18) /* bytes of a file */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* The input; beyond its end it reads as zeros. */
struct input {
    const uint8_t *bytes;
    size_t size;
};

static uint64_t take(struct input *input, size_t width)
{
    uint64_t value = 0;
    size_t there = input->size < width ? input->size : width;

    memcpy(&value, input->bytes, there);
    input->bytes += there;
    input->size -= there;
    return value;
}

/* Queues */

struct scene {
    uint32_t flags;
    uint64_t limit;
    uint64_t messages;
    uint64_t largest;
    struct queue *queue;
    size_t size;             /* of the file */
    unsigned char *bytes;    /* the segment */
    unsigned char *pristine; /* its initial bytes */
};

static struct scene scenes[] = {
    {.flags = 0, .limit = 4096, .messages = 20, .largest = 600},
    {.flags = FLAG_ORDERED, .limit = 8000, .messages = 20, .largest = 600},
    {.flags = FLAG_BYTES, .limit = 3000, .messages = 0, .largest = 200},
    {.flags = 0, .limit = 100000, .messages = 0, .largest = QUEUE_LARGE + 100}, /* copied without the lock */
    {.flags = FLAG_LEASES, .limit = 12000, .messages = 20, .largest = 600},
    {.flags = FLAG_LEASES | FLAG_ORDERED, .limit = 8000, .messages = 0, .largest = 300},
};
#define SCENES (sizeof scenes / sizeof *scenes)
static uint64_t largest; /* maximum message size of the current queue */

static void guard(void *page)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);

    /* If memory is mapped there already, that serves as well: ASan checks accesses to it. */
    mmap(page, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

static void set_up(struct scene *scene)
{
    int file = scene->flags & FLAG_LEASES
                   ? queue_file_with_leases(scene->flags, scene->limit, scene->messages, scene->largest, 2)
                   : queue_file_of(scene->flags, scene->limit, scene->messages, scene->largest);
    struct segment_header asked = {.limit = scene->limit, .flags = scene->flags};
    unsigned char *message = calloc(1, scene->largest);

    scene->size = segment_size(&asked);
    scene->queue = queue_open(file);
    scene->bytes = (unsigned char *)scene->queue->segment;
    guard(scene->bytes - sysconf(_SC_PAGESIZE));
    guard(scene->bytes + scene->queue->mapped);
    /* Begin in the middle, with messages on both sides of the ring's end. */
    for (unsigned turn = 0; turn < 60; turn++) {
        struct queue_piece piece = {.data = message, .size = turn * 631 % scene->largest, .priority = turn % 3};
        struct place place = {message, scene->largest, 0, 0};
        size_t stored;

        if (queue_put_many(scene->queue, &piece, 1, &stored, PATIENCE) != QUEUE_OK || turn % 4 != 0)
            CHECK(try_get(scene->queue, &place) == QUEUE_OK);
    }
    scene->pristine = malloc(scene->size);
    memcpy(scene->pristine, scene->bytes, scene->size);
    free(message);
    close(file);
}

/* The attacker */

struct spoil {
    _Atomic size_t offset; /* of a 32-bit word; 0: of none */
    _Atomic uint32_t value;
};

static struct {
    _Atomic(unsigned char *) bytes; /* NULL: rest */
    _Atomic bool resting;
    struct spoils {
        struct spoil each[SPOILS];
    } spoils;
} neighbour;

static void spoil(unsigned char *bytes, size_t offset, uint32_t value)
{
    atomic_store_explicit((_Atomic uint32_t *)(void *)(bytes + offset), value, memory_order_relaxed);
}

static void *be_a_neighbour(void *nothing)
{
    for (unsigned turn = 0;; turn++) {
        unsigned char *bytes = atomic_load(&neighbour.bytes);
        struct spoil *one = &neighbour.spoils.each[turn % SPOILS];
        size_t offset = atomic_load(&one->offset);

        atomic_store(&neighbour.resting, bytes == NULL);
        if (bytes == NULL)
            nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
        else if (offset != 0)
            /* From time to time the original value, so that a call sees both. */
            spoil(bytes, offset, atomic_load(&one->value) + (turn / SPOILS & 1));
    }
    return nothing;
}

static void disturb(unsigned char *bytes)
{
    atomic_store(&neighbour.resting, false);
    atomic_store(&neighbour.bytes, bytes);
}

static void leave_alone(void)
{
    atomic_store(&neighbour.bytes, NULL);
    while (!atomic_load(&neighbour.resting))
        continue;
    for (size_t which = 0; which < SPOILS; which++)
        atomic_store(&neighbour.spoils.each[which].offset, 0);
}

/* The words from `first` to `end`, and the `which`th of them. */
static size_t word_of(size_t first, size_t end, uint64_t which)
{
    return first + which * 4 % (end - first);
}

/* A word of the segment, chosen by its part: only few words influence decisions. */
static size_t somewhere(const struct scene *scene, struct input *input)
{
    const struct segment *was = (const struct segment *)(const void *)scene->pristine;
    size_t data = (size_t)(scene->queue->data - scene->bytes);
    uint64_t where = take(input, 2);
    uint64_t which = where >> 3;

    switch (where & 7) {
    case 0:
        return word_of(offsetof(struct segment, state), offsetof(struct segment, put), which);
    case 1:
        return word_of(offsetof(struct segment, put), offsetof(struct segment, get), which);
    case 2:
        return word_of(offsetof(struct segment, get), offsetof(struct segment, cells), which);
    case 3:
        if (scene->queue->holders != NULL && which & 1)
            return word_of(offsetof(struct segment, leases), offsetof(struct segment, parcels), which >> 1);
        if (scene->queue->holders != NULL && which & 2)
            return word_of(data - LAYOUT_HOLDERS, data, which >> 2);
        return word_of(offsetof(struct segment, cells), offsetof(struct segment, name), which);
    case 4:
    case 5: /* the next records, with the first bytes of their messages */
        return data + (was->get.position / 8 * 8 + which % 40 * 4) % scene->queue->capacity;
    default:
        return word_of(data, scene->size, which);
    }
}

/* Calls */

static void *room_for(void *context, struct queue_piece *message)
{
    void **room = context;

    CHECK(message->size <= largest && message->priority <= 32767);
    free(*room);
    *room = malloc(message->size + 1);
    return *room;
}

static void get(struct queue *queue, bool latest)
{
    struct queue_copy copy;
    void *room = NULL;

    if ((latest ? queue_get_latest : queue_get)(queue, room_for, &room, &copy, BRIEF) == QUEUE_COPYING) {
        CHECK(copy.size <= largest);
        memcpy(copy.target, copy.source, copy.size);
        queue_release(queue, &copy);
    }
    free(room);
}

static void put(struct queue *queue, size_t size, size_t count, unsigned priority)
{
    struct queue_piece pieces[3];
    unsigned char *message = calloc(1, size + 1);
    size_t stored;

    for (size_t which = 0; which < count; which++)
        pieces[which] = (struct queue_piece){.data = message, .size = size, .priority = priority};
    queue_put_many(queue, pieces, count, &stored, BRIEF);
    CHECK(stored <= count);
    free(message);
}

static void put_dropping(struct queue *queue, size_t size, unsigned priority)
{
    unsigned char *message = calloc(1, size + 1);
    struct queue_piece piece = {.data = message, .size = size, .priority = priority};
    size_t dropped;

    queue_put_dropping(queue, &piece, &dropped, BRIEF);
    CHECK(dropped <= queue->limit);
    free(message);
}

static void get_many(struct queue *queue, size_t limit)
{
    size_t taken;
    void *room = NULL;

    queue_get_many(queue, room_for, &room, limit, &taken, BRIEF);
    CHECK(taken <= limit);
    free(room);
}

static void look(struct queue *queue)
{
    struct queue_total made, got;
    void *room = NULL;

    queue_peek(queue, room_for, &room, BRIEF);
    free(room);
    side_totals(queue, &made, &got);
    queue_has_space(queue, largest);
    participant_shared(queue);
}

static void await(struct queue *queue)
{
    int64_t now = clock_now();

    if (!wait_spin_readable(queue, now, now + 20000))
        wait_sleep_readable(queue, clock_now() + 20000);
    if (!wait_spin_writable(queue, largest, now, now + 20000))
        wait_sleep_writable(queue, largest, clock_now() + 20000);
}

static void listen_to(struct queue *queue)
{
    uint32_t seen = 0;

    /* Otherwise it correctly waits half a second for a lock that is never released. */
    if (atomic_load(&neighbour.bytes) != NULL)
        return;
    queue->segment->put.lock.word = 0;

    if (notice_ask(queue, &seen) == QUEUE_OK)
        notice_given(queue, seen, 1000);
    notice_cancel(queue);
}

static void clear(struct queue *queue)
{
    size_t dropped;

    queue_clear(queue, &dropped, BRIEF);
}

/* Leases: tokens are what was leased, or made up. */

static struct lease_token tokens[8];
static size_t token;

static int64_t time_of(unsigned how)
{
    return how % 3 == 0 ? 0 : how % 3 == 1 ? 1 : INT64_C(1) << (how % 62);
}

static void lease(struct queue *queue, unsigned how)
{
    static uint64_t serial;
    struct queue_lease taken[4];
    void *room = NULL;
    size_t count;

    queue_lease(queue, room_for, &room, serial, time_of(how), taken, 1 + how % 4, &count, BRIEF);
    CHECK(count <= 4);
    serial += 4;
    for (size_t which = 0; which < count; which++)
        tokens[token++ % 8] = (struct lease_token){taken[which].cell, taken[which].serial};
    free(room);
}

static void end_leases(struct queue *queue, unsigned how)
{
    struct lease_order order = {
        .verdict = (enum lease_verdict)(how % 4), .delay = time_of(how >> 2), .reason = tokens, .reason_size = how % 65};
    bool lost[8];

    if (how & 64)
        tokens[how % 8].cell = how;
    lease_settle(queue, &tokens[how % 4], 1 + how % 4, &order, lost, BRIEF);
    lease_find_lost(queue, tokens, 8, lost, BRIEF);
    lease_extend(queue, &tokens[how % 8], 1, time_of(how) + 1, lost, BRIEF);
}

static void read_dead(struct queue *queue, unsigned how)
{
    struct lease_dead letters[3];
    struct lease_held held[3];
    void *room = NULL;
    size_t count;

    lease_peek_dead(queue, how % 20, room_for, &room, letters, 3, &count, BRIEF);
    CHECK(count <= 3);
    for (size_t which = 0; which < count; which++)
        CHECK(letters[which].reason_size <= CELL_REASON);
    lease_take_dead(queue, count == 0 || how & 32 ? how : letters[0].number, BRIEF);
    lease_held(queue, held, 3, &count, BRIEF);
    CHECK(count <= 3);
    free(room);
}

static void call_lease(struct queue *queue, uint64_t which, unsigned how)
{
    unsigned char message[300] = {0};
    struct queue_piece piece = {.data = message, .size = how % 301};
    int64_t wait;
    size_t count;

    switch (which % 8) {
    case 0:
    case 1:
        lease(queue, how);
        break;
    case 2:
    case 3:
        end_leases(queue, how);
        break;
    case 4:
        lease_put_delayed(queue, &piece, time_of(how) + 1, BRIEF);
        break;
    case 5:
        if (how & 1)
            queue->segment->leases.looked = 0;
        lease_tend(queue, &wait, BRIEF);
        break;
    case 6:
        read_dead(queue, how);
        break;
    default:
        lease_requeue(queue, how % 3, &count, BRIEF);
        lease_recall(queue, how, how, BRIEF);
        if (how % 8 == 0)
            lease_clear_dead(queue, &count, BRIEF);
        if (how % 8 == 1)
            lease_release_all(queue, BRIEF);
    }
}

/* Marks the locks as the kernel does after a kill, so that the next participant repairs. */
static void kill_owners(struct queue *queue)
{
    queue->segment->put.lock.word = FUTEX_OWNER_DIED;
    queue->segment->get.lock.word = FUTEX_OWNER_DIED;
    queue_settle(queue, true, BRIEF);
    queue_settle(queue, false, BRIEF);
}

static void call(struct queue *queue, struct input *input)
{
    uint64_t which = take(input, 1);
    unsigned how = (unsigned)take(input, 2);

    if (queue->holders != NULL && which & 16) {
        call_lease(queue, which >> 5, how);
        return;
    }
    switch (which % 10) {
    case 0:
        put(queue, how % (largest + 50), 1, how >> 10);
        break;
    case 1:
        put(queue, how % (largest / 2 + 1), 1 + how % 3, how >> 8);
        break;
    case 2:
        get_many(queue, 1 + how % 30);
        break;
    case 3:
        look(queue);
        break;
    case 4:
        if (how & 1)
            put_dropping(queue, how % (largest + 50), how >> 10);
        else
            clear(queue);
        break;
    case 5:
        kill_owners(queue);
        break;
    case 6:
        await(queue);
        break;
    case 7:
        listen_to(queue);
        break;
    default:
        get(queue, how & 1);
    }
}

/* Steps on a segment that was a queue once. */
static void use(struct scene *scene, struct input *input, bool disturbed)
{
    struct queue *queue = scene->queue;

    largest = scene->largest;
    memcpy(scene->bytes, scene->pristine, scene->size);
    queue->doorbell_inode = 0;
    atomic_store(&queue->named, false);
    if (disturbed) {
        for (size_t which = 0; which < SPOILS; which++) {
            size_t where = somewhere(scene, input);

            atomic_store(&neighbour.spoils.each[which].value, (uint32_t)take(input, 4));
            atomic_store(&neighbour.spoils.each[which].offset, where);
        }
        disturb(scene->bytes);
    }
    for (int steps = 0; steps < STEPS && input->size != 0; steps++) {
        uint64_t kind = take(input, 1);
        uint32_t *word;

        if (kind & 1) {
            call(queue, input);
            continue;
        }
        word = (uint32_t *)(void *)(scene->bytes + somewhere(scene, input));
        /* Another value, or the old one with a small offset. */
        *word = kind & 2 ? (uint32_t)take(input, 4) : *word + (uint32_t)(int8_t)take(input, 1);
    }
    if (disturbed)
        leave_alone();
}

static uint32_t checksum_of(const unsigned char *header)
{
    uint32_t sum = 2166136261u; /* as in segment.c */

    for (size_t index = 0; index < sizeof(struct segment_header); index++)
        if (index < offsetof(struct segment_header, checksum) || index >= offsetof(struct segment_header, incarnation))
            sum = (sum ^ header[index]) * 16777619u;
    return sum;
}

/* A file whose header comes from the input; mostly with a valid checksum. */
static void attach_to(const struct scene *scene, struct input *input)
{
    int file = memfd_create("hostile", MFD_CLOEXEC);
    unsigned char *content = malloc(scene->size);
    struct segment_header header;
    struct queue *queue = malloc(sizeof *queue);
    uint64_t how = take(input, 1);
    uint64_t length;

    memcpy(content, scene->pristine, scene->size);
    for (uint64_t changes = how >> 2 & 7; changes > 0; changes--)
        content[take(input, 1) % sizeof header] = (unsigned char)take(input, 1);
    memcpy(&header, content, sizeof header);
    if (how & 1)
        header.capacity = header.limit = take(input, 2);
    if (how & 2) {
        header.segment_size = segment_size(&header);
        header.capacity = (header.limit + 4095) / 4096 * 4096;
    }
    if (how & 0xe0)
        header.checksum = checksum_of((unsigned char *)&header);
    memcpy(content, &header, sizeof header);
    CHECK(file >= 0 && write(file, content, scene->size) == (ssize_t)scene->size);
    length = take(input, 3) % MOST;
    if (how & 0x20 && ftruncate(file, (off_t)length) != 0)
        abort();
    if (queue_attach(queue, file) == QUEUE_OK) {
        struct stat found;

        CHECK(fstat(file, &found) == 0 && (uint64_t)found.st_size >= queue->capacity && queue->limit <= queue->capacity);
        largest = queue->max_message_size;
        for (int steps = 0; steps < 6; steps++)
            call(queue, input);
        queue_detach(queue);
    } else {
        close(file);
    }
    free(queue);
    free(content);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    pthread_t thread;

    (void)argc;
    (void)argv;
    CHECK(lock_works());
    for (size_t which = 0; which < SCENES; which++)
        set_up(&scenes[which]);
    CHECK(pthread_create(&thread, NULL, be_a_neighbour, NULL) == 0);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct input input = {bytes, size};
    uint64_t how = take(&input, 1);
    struct scene *scene = &scenes[how % SCENES];

    if (how / SCENES % 4 == 0)
        attach_to(scene, &input);
    else
        use(scene, &input, how / SCENES % 4 != 1);
    return 0;
}
