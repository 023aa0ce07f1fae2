/*
 * Kills a participant at every instruction of every operation.
 *
 * A debugger runs the victim instruction by instruction and copies the segment whenever it has changed. Each copy is what
 * the others would meet had the victim been killed there, once its locks are marked as the kernel marks them. Whoever
 * opens the copy must find the queue as it was before the operation or as it is after it, and must be able to fill it to
 * the last byte. Then the same again with a second victim that is killed while it goes on from
 * what the first one left.
 *
 * This proves more than killing at random, except for what processors reorder: a killed process's stores are seen in
 * the order of its program.
 */
#include <linux/futex.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "queue.h"

#define LARGEST 40000
#define SMALL 40
#define MOST 64 /* messages in a queue here, and distinct states of one operation */
#define STATES 4096

struct contents {
    size_t count;
    uint32_t numbers[MOST];
};

struct scene {
    const char *name;
    uint64_t limit;
    uint64_t messages;
    unsigned turns;  /* messages that went through before, so that the ring begins elsewhere */
    unsigned filled; /* messages that are in it */
    size_t size;     /* of each */
    uint32_t flags;
};

static const struct scene scenes[] = {
    {"an empty queue", 4096, 0, 0, 0, SMALL, 0},
    {"a queue with one message", 4096, 0, 0, 1, SMALL, 0},
    {"a queue at its end", 4096, 0, 72, 2, SMALL, 0},
    {"a full queue", 560, 0, 3, 10, SMALL, 0},
    {"a queue full by count", 4096, 4, 5, 4, SMALL, 0},
    {"a queue of large messages", 3 * (LARGEST + 16), 0, 2, 2, LARGEST, 0},
    {"an empty queue with priorities", 1000, 0, 0, 0, SMALL, RING_ORDERED},
    {"a queue with priorities", 1000, 0, 7, 5, SMALL, RING_ORDERED},
    {"a queue with priorities and long messages", 3000, 0, 2, 3, SMALL * 5, RING_ORDERED},
    {"a full queue with priorities", 500, 0, 3, 6, SMALL, RING_ORDERED},
};

static unsigned char bytes[LARGEST];

static void put_number(struct ring *ring, uint32_t number, size_t size)
{
    struct ring_piece piece = {.data = bytes, .size = size, .priority = number * 7 % 3};
    size_t stored;

    tag_write(bytes, size, (struct tag){7, number});
    ring_put_many(ring, &piece, 1, &stored, PATIENCE);
}

static void put_small(struct ring *ring)
{
    put_number(ring, 1000, SMALL);
}

static void put_large(struct ring *ring)
{
    put_number(ring, 1000, LARGEST);
}

static void put_batch(struct ring *ring)
{
    static unsigned char each[3][SMALL];
    struct ring_piece pieces[3];
    size_t stored;

    for (uint32_t which = 0; which < 3; which++) {
        tag_write(each[which], SMALL, (struct tag){7, 1000 + which});
        pieces[which] = (struct ring_piece)PIECE(each[which], SMALL);
    }
    ring_put_many(ring, pieces, 3, &stored, PATIENCE);
}

static void get_one(struct ring *ring)
{
    struct place place = {bytes, sizeof bytes, 0, 0};

    try_get(ring, &place);
}

static void get_batch(struct ring *ring)
{
    struct place place = {bytes, sizeof bytes, 0, 0};
    size_t taken;

    ring_get_many(ring, place_for, &place, 3, &taken, PATIENCE);
}

static void clear_all(struct ring *ring)
{
    size_t dropped;

    ring_clear(ring, &dropped, PATIENCE);
}

static void peek_one(struct ring *ring)
{
    struct place place = {bytes, sizeof bytes, 0, 0};

    ring_peek(ring, place_for, &place, PATIENCE);
}

struct operation {
    const char *name;
    void (*act)(struct ring *ring);
};

static const struct operation operations[] = {
    {"put", put_small},     {"put of a large message", put_large}, {"put_many", put_batch}, {"get", get_one},
    {"get_many", get_batch}, {"clear", clear_all},                  {"peek", peek_one},
};

static struct contents drain(struct ring *ring)
{
    struct place place = {bytes, sizeof bytes, 0, 0};
    struct contents contents = {0};
    struct ring_total put, got;
    struct tag tag;

    while (try_get(ring, &place) == RING_OK) {
        CHECK(tag_read(bytes, place.size, &tag) && tag.who == 7 && contents.count < MOST);
        contents.numbers[contents.count++] = tag.number;
    }
    ring_count(ring, &put, &got);
    CHECK(put.count == got.count && put.bytes == got.bytes);
    return contents;
}

static unsigned fill(struct ring *ring, size_t size)
{
    unsigned count = 0;

    memset(bytes, 0, size);
    while (ring_put(ring, bytes, size, PATIENCE) == RING_OK)
        count++;
    return count;
}

static bool same(const struct contents *one, const struct contents *other)
{
    return one->count == other->count && memcmp(one->numbers, other->numbers, one->count * sizeof(uint32_t)) == 0;
}

/* The distinct states of a segment in the course of an operation. */
struct film {
    size_t size;
    size_t count;
    unsigned char *states[STATES];
};

static void mark_dead(struct lock *lock, pid_t victim)
{
    uint32_t word = lock->word;

    if ((word & FUTEX_TID_MASK) == (uint32_t)victim)
        lock->word = (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
}

static void keep(struct film *film, const unsigned char *now, pid_t victim)
{
    struct ring_segment *segment;

    CHECK(film->count < STATES);
    film->states[film->count] = malloc(film->size);
    memcpy(film->states[film->count], now, film->size);
    segment = (struct ring_segment *)film->states[film->count++];
    mark_dead(&segment->put.lock, victim);
    mark_dead(&segment->get.lock, victim);
}

static int file_of(const unsigned char *state, size_t size)
{
    int file = memfd_create("state", MFD_CLOEXEC);

    CHECK(file >= 0 && write(file, state, size) == (ssize_t)size);
    return file;
}

static void act_as_victim(int file, void (*act)(struct ring *ring))
{
    struct ring *ring = queue_open(file);

    CHECK(lock_take(&(struct lock){0}, 0) == LOCK_TAKEN); /* learn the thread's id before */
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
    act(ring);
    raise(SIGSTOP);
    _exit(0);
}

/* Runs an operation step by step. The first state is the one before it, the last one the one after it. */
static unsigned long shoot(struct film *film, int file, void (*act)(struct ring *ring))
{
    unsigned char *now = mmap(NULL, film->size, PROT_READ, MAP_SHARED, file, 0);
    unsigned char *last = malloc(film->size);
    unsigned long steps = 0, copied = 0;
    pid_t victim = fork();
    int status;

    CHECK(now != MAP_FAILED && victim >= 0);
    if (victim == 0)
        act_as_victim(file, act);
    CHECK(waitpid(victim, &status, 0) == victim && WIFSTOPPED(status));
    memcpy(last, now, film->size);
    film->count = 0;
    keep(film, now, victim);
    for (;;) {
        CHECK(ptrace(PTRACE_SINGLESTEP, victim, NULL, NULL) == 0);
        CHECK(waitpid(victim, &status, 0) == victim && WIFSTOPPED(status));
        if (WSTOPSIG(status) == SIGSTOP)
            break;
        CHECK(WSTOPSIG(status) == SIGTRAP);
        steps++;
        if (memcmp(last, now, film->size) == 0)
            continue;
        /* Of the bytes of a large message, some states are enough. */
        if (memcmp(last, now, sizeof(struct ring_segment)) != 0 || film->size < LARGEST || ++copied % 100 == 0)
            keep(film, now, victim);
        memcpy(last, now, film->size);
    }
    kill(victim, SIGKILL);
    CHECK(waitpid(victim, &status, 0) == victim);
    munmap(now, film->size);
    free(last);
    return steps;
}

static void forget(struct film *film)
{
    while (film->count > 0)
        free(film->states[--film->count]);
}

static struct contents contents_of(const unsigned char *state, size_t size)
{
    int file = file_of(state, size);
    struct ring *ring = queue_open(file);
    struct contents contents = drain(ring);

    queue_close(ring);
    close(file);
    return contents;
}

/* Tells whether the first ones of what was there are gone, and not more than in the end. */
static bool between(const struct contents *found, const struct contents *before, const struct contents *after)
{
    return found->count <= before->count && found->count >= after->count &&
           memcmp(found->numbers, before->numbers + before->count - found->count, found->count * sizeof(uint32_t)) == 0;
}

/* Each state has to be one of the two, or between them where messages are taken `singly`, and have all its space. */
static void judge(const struct film *film, const struct contents *before, const struct contents *after, bool singly,
                  size_t size, unsigned capacity)
{
    for (size_t index = 0; index < film->count; index++) {
        int file = file_of(film->states[index], film->size);
        struct ring *ring = queue_open(file);
        struct contents found = drain(ring);

        CHECK(same(&found, before) || same(&found, after) || (singly && between(&found, before, after)));
        CHECK(fill(ring, size) == capacity);
        queue_close(ring);
        close(file);
    }
}

static void set_up(const struct scene *scene, struct film *film, int *file, unsigned *capacity)
{
    struct ring_header asked = {.limit = scene->limit};
    uint64_t largest = LARGEST < scene->limit ? LARGEST : scene->size;
    int other = queue_file_of(scene->flags, scene->limit, scene->messages, largest);
    struct ring *ring = queue_open(other);

    *capacity = fill(ring, scene->size);
    queue_close(ring);
    close(other);
    *file = queue_file_of(scene->flags, scene->limit, scene->messages, largest);
    film->size = ring_segment_size(&asked);
    ring = queue_open(*file);
    for (unsigned turn = 0; turn < scene->turns; turn++) {
        put_number(ring, turn, scene->size);
        get_one(ring);
    }
    for (uint32_t number = 0; number < scene->filled; number++)
        put_number(ring, number, scene->size);
    queue_close(ring);
}

static bool fits(const struct scene *scene, const struct operation *operation)
{
    return LARGEST < scene->limit || operation->act != put_large;
}

int main(void)
{
    unsigned long states = 0, twice = 0, instructions = 0;

    CHECK(lock_works());
    for (size_t which = 0; which < sizeof scenes / sizeof *scenes; which++) {
        const struct scene *scene = &scenes[which];

        for (size_t what = 0; what < sizeof operations / sizeof *operations; what++) {
            struct film film, second;
            struct contents before, after;
            unsigned capacity;
            int file;

            if (!fits(scene, &operations[what]))
                continue;
            set_up(scene, &film, &file, &capacity);
            second.size = film.size;
            instructions += shoot(&film, file, operations[what].act);
            before = contents_of(film.states[0], film.size);
            after = contents_of(film.states[film.count - 1], film.size);
            /* In order, a batch is taken message by message. */
            judge(&film, &before, &after, scene->flags & RING_ORDERED && before.count > after.count, scene->size,
                  capacity);
            states += film.count;
            /* One who goes on from what was left, and is killed too; in order that is thousands of steps for each. */
            for (size_t index = 1; index < film.count && scene->limit < LARGEST; index += scene->flags ? 12 : 1) {
                static void (*const next[])(struct ring *) = {put_small, get_one};

                for (size_t act = 0; act < sizeof next / sizeof *next; act++) {
                    int left = file_of(film.states[index], film.size);

                    instructions += shoot(&second, left, next[act]);
                    before = contents_of(second.states[0], second.size);
                    after = contents_of(second.states[second.count - 1], second.size);
                    judge(&second, &before, &after, false, scene->size, capacity);
                    twice += second.count;
                    forget(&second);
                    close(left);
                }
            }
            forget(&film);
            close(file);
        }
    }
    printf("crash: %lu instructions, %lu states of a killed one, %lu of a second one: all as before or after\n",
           instructions, states, twice);
    return 0;
}
