/*
 * Kills a participant at every instruction of every operation.
 *
 *     crash [ONE]
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
 * process are seen in program order. With a number, only that pair of a scene and an operation is tried.
 */
#include <linux/futex.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "harness.h"

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
};

struct contents {
    size_t count;
    uint32_t numbers[MOST];
};

/* State for one pair of a scene and an operation; workers are processes, so that each has one. */
static const struct scene *scene;
static uint64_t held; /* position of the record that is being copied, and the slot of its owner */
static uint32_t holder;
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

static const struct operation {
    const char *name;
    void (*act)(struct queue *queue);
    bool second; /* also as the second victim */
} operations[] = {
    {"put", put_small, true},      {"put of a large message", put_large, true},
    {"put_many", put_batch, false}, {"get", get_one, true},
    {"get_many", get_batch, false}, {"clear", clear_all, false},
    {"peek", peek_one, false},      {"settle", settle, false},
    {"arm, ask and cancel", tell, true}, {"attach and detach", attach, false},
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

    if (scene->flags & FLAG_ORDERED)
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

/* Makes this slot belong to a live participant. */
static int occupy(int file)
{
    struct flock byte = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)(LAYOUT_LOCKS + holder), .l_len = 1};
    char path[32];
    int other;

    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    other = open(path, O_RDWR | O_CLOEXEC);
    CHECK(other >= 0 && fcntl(other, F_OFD_SETLK, &byte) == 0);
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

/* Lets a survivor read all messages, and check that all space is usable. Copies in progress are finished. */
static struct contents survive(const unsigned char *state, unsigned capacity)
{
    int file = file_of(state);
    int other = scene->with == CLAIMED || scene->with == RESERVED ? occupy(file) : -1;
    struct queue *queue = queue_open(file);
    struct contents contents;

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
    bool singly; /* with priorities, messages of a batch are taken one by one */
    unsigned capacity;
};

static void judge(const unsigned char *state, const struct bounds *bounds)
{
    struct contents found = survive(state, bounds->capacity);

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
    if (scene->with == ARMED)
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
    int other = scene->with == CLAIMED || scene->with == RESERVED ? occupy(file) : -1;
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

/* Runs an operation step by step from a state, judges the state after each step, and calls `visit` with it. */
static void shoot(const struct state *from, const struct operation *operation, const struct bounds *bounds,
                  struct seen *judged, void (*visit)(const struct state *state, void *context), void *context)
{
    int file = file_of(from->bytes);
    int other = scene->with == CLAIMED || scene->with == RESERVED ? occupy(file) : -1;
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
        if (memcmp(last, now, film_size) != 0) {
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
    bounds.singly = scene->flags & FLAG_ORDERED && bounds.before.count > bounds.after.count;
    bounds.capacity = capacity;
    return bounds;
}

static unsigned capacity_of(void)
{
    int file = queue_file_of(scene->flags, scene->limit, scene->messages, MOST_BYTES);
    struct queue *queue = queue_open(file);
    unsigned capacity = fill(queue, scene->size);

    queue_close(queue);
    close(file);
    return capacity;
}

/* Creates the queue of the scene, and returns its state. */
static struct state set_up(void)
{
    struct segment_header asked = {.limit = scene->limit};
    int file = queue_file_of(scene->flags, scene->limit, scene->messages, MOST_BYTES);
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
            if (!operations[next].second)
                continue;
            bounds = bounds_of(film.states[index].bytes, &operations[next], capacity);
            shoot(&film.states[index], &operations[next], &bounds, &judged, NULL, NULL);
            tally->twice++;
        }
    }
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
