/*
 * Kills a participant at every instruction of every operation.
 *
 *     crash [ONE | leases] [steps]
 *
 * A debugger stops the victim after each instruction that stores to the segment, and copies the segment whenever it has
 * changed. Each copy, with its locks marked as the kernel marks them, is the state that the others would find if the
 * victim had been killed there, or at any instruction before the next store. A survivor that opens the copy must find
 * the queue as it was before the operation or as it is after it, and must be able to fill it to the last byte. Then,
 * from each of these states, a second victim continues; it must repair the state that the first one left, and is killed
 * in the same way. Equal states are judged once, and a second victim does not start twice from states that differ only
 * in the bytes of an unfinished message. Nothing else is left out.
 *
 * To stop at the stores, the debugger protects the segment from writing (userfaultfd), and lifts the protection for one
 * instruction. Before each store the segment must still be what it was after the one before, so no store is missed. An
 * operation that maps the segment once more runs instruction by instruction instead. So does each one with "steps", or
 * where the kernel refuses a userfaultfd: that takes eight times as long, and finds the same states.
 *
 * Also checked after each store: no sleeper is woken before there is a reason; the doorbell rings while there is a
 * message; and when a message has been committed, the notice has been given.
 *
 * QUEUE_LARGE is small here, so that copying a large message takes few steps.
 *
 * scenes.c has the queues and the operations, and survivors.c what the others find.
 *
 * This proves more than kills at random instants, except about reordering by processors: here the stores of a killed
 * process are seen in program order. With a number, only that pair of a scene and an operation is tried; with "leases",
 * only those of queues with leases.
 */
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "crash.h"

/* States */

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

/* Clears bytes that are never read: those of the unfinished message. */
static void blank_unfinished(unsigned char *segment)
{
    const struct segment *there = (const struct segment *)segment;
    uint64_t position = there->get.position;
    uint64_t capacity = there->header.capacity;

    if (layout_has_cells(scene->flags))
        return;
    while (position < there->put.position) {
        const struct ring_record *record = record_in(segment, position);

        if ((record->word & 0xff) == RECORD_RESERVED)
            for (uint64_t at = position + sizeof *record; at < position + ring_record_size(record->size); at++)
                segment[there->header.data_offset + at % capacity] = 0;
        position += ring_record_size(record->size);
    }
}

static void set_bell(bool rung)
{
    char taken[64];

    while (read(bell, taken, sizeof taken) > 0)
        continue;
    CHECK(!rung || write(bell, "", 1) == 1);
}

/* Running */

static struct queue *open_as_victim(int file)
{
    struct queue *queue = queue_open(file);

    if (scene->flags & FLAG_LEASES)
        queue->segment->leases.looked = 0; /* or it would depend on the time whether the victim looks for the dead */
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
    int other = has_other() ? occupy(file) : -1;
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

/* What a debugger needs to protect the segment of its victim from writing. */
struct guard {
    int file; /* a userfaultfd, first as the victim's descriptor, then as one of the debugger; -1 without one */
    struct uffdio_range range;
};

static bool steps; /* also where the segment could be protected */

/* Lets the debugger protect the segment: where that is protected, a store to it stops this process with SIGBUS. */
static struct guard guard_of(const struct queue *queue)
{
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_WP_HUGETLBFS_SHMEM};
    struct uffdio_register wanted = {.range = {(uintptr_t)queue->segment, queue->mapped},
                                     .mode = UFFDIO_REGISTER_MODE_WP};
    int file = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

    if (file >= 0 && (ioctl(file, UFFDIO_API, &api) != 0 || ioctl(file, UFFDIO_REGISTER, &wanted) != 0)) {
        close(file);
        file = -1;
    }
    return (struct guard){file, wanted.range};
}

static void take_over(struct guard *guard, pid_t victim)
{
    int process = (int)syscall(SYS_pidfd_open, victim, 0);

    if (guard->file >= 0)
        guard->file = (int)syscall(SYS_pidfd_getfd, process, guard->file, 0);
    close(process);
}

static void protect(const struct guard *guard, bool protected)
{
    struct uffdio_writeprotect wanted = {.range = guard->range, .mode = protected ? UFFDIO_WRITEPROTECT_MODE_WP : 0};

    CHECK(ioctl(guard->file, UFFDIO_WRITEPROTECT, &wanted) == 0);
}

static int stop_of(pid_t victim, int request)
{
    int status;

    CHECK(ptrace(request, victim, NULL, NULL) == 0);
    CHECK(waitpid(victim, &status, 0) == victim && WIFSTOPPED(status));
    return WSTOPSIG(status);
}

static void mark_dead(struct lock *lock, pid_t victim)
{
    uint32_t word = lock->word;

    if ((word & FUTEX_TID_MASK) == (uint32_t)victim)
        lock->word = (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
}

struct tally {
    _Atomic unsigned long stops, states, twice;
};

static struct tally *tally;

/* Compares two states, except what belongs to slots that no participant has here: that is most of a segment. */
static bool differ(const unsigned char *one, const unsigned char *other)
{
    const struct segment_header *header = (const struct segment_header *)other;
    size_t slots = offsetof(struct segment, generations) + 16 * sizeof(uint32_t);
    size_t name = offsetof(struct segment, name);
    size_t data = header->data_offset;
    size_t holders = data - LAYOUT_HOLDERS; /* of a queue with leases */

    return memcmp(one, other, slots) != 0 || memcmp(one + name, other + name, sizeof(struct segment) - name) != 0 ||
           (scene->flags & FLAG_LEASES &&
            memcmp(one + holders, other + holders, 16 * sizeof(struct lease_holder)) != 0) ||
           memcmp(one + data, other + data, film_size - data) != 0;
}

/* Runs the victim until it has stored to its segment, or for one instruction. Returns false at the operation's end. */
static bool advance(pid_t victim, const struct guard *guard, const unsigned char *last, const unsigned char *now)
{
    int signal;

    if (guard->file < 0) {
        signal = stop_of(victim, PTRACE_SINGLESTEP);
    } else {
        protect(guard, true);
        signal = stop_of(victim, PTRACE_CONT);
        CHECK(memcmp(last, now, film_size) == 0); /* nothing is written unseen */
        if (signal == SIGBUS) {
            protect(guard, false);
            signal = stop_of(victim, PTRACE_SINGLESTEP);
        }
    }
    CHECK(signal == SIGTRAP || signal == SIGSTOP);
    tally->stops++;
    return signal == SIGTRAP;
}

/* Runs an operation store by store from a state, judges the state after each, and calls `visit` with it. */
static void shoot(const struct state *from, const struct operation *operation, const struct bounds *bounds,
                  struct seen *judged, void (*visit)(const struct state *state, void *context), void *context)
{
    int file = file_of(from->bytes);
    int other = has_other() ? occupy(file) : -1;
    unsigned char *now = mmap(NULL, film_size, PROT_READ, MAP_SHARED, file, 0);
    unsigned char *last = malloc(film_size);
    unsigned char *first = malloc(film_size);
    unsigned char *dead = malloc(film_size);
    struct guard *guard = mmap(NULL, sizeof *guard, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t victim;
    int status;

    if (bell >= 0)
        set_bell(from->rung);
    victim = fork_child();
    CHECK(now != MAP_FAILED && guard != MAP_FAILED);
    if (victim == 0) {
        struct queue *queue = open_as_victim(file);

        *guard = steps || operation->maps ? (struct guard){.file = -1} : guard_of(queue);
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        operation->act(queue);
        raise(SIGSTOP);
        _exit(0);
    }
    CHECK(waitpid(victim, &status, 0) == victim && WIFSTOPPED(status));
    take_over(guard, victim);
    memcpy(first, now, film_size);
    memset(last, 0, film_size); /* so that the first state is judged too */
    do {
        if (differ(last, now)) {
            memcpy(last, now, film_size);
            check_now(first, last, operation->puts);
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
    } while (advance(victim, guard, last, now));
    kill(victim, SIGKILL);
    CHECK(waitpid(victim, &status, 0) == victim);
    if (guard->file >= 0)
        close(guard->file);
    munmap(guard, sizeof *guard);
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
    bounds.part = operation->part == NULL ? bounds.before : after_all(state, operation->part);
    bounds.other = operation->other == NULL ? bounds.before : after_all(state, operation->other);
    bounds.singly = scene->flags & FLAG_LEASES ? operation->singly
                                               : scene->flags & FLAG_ORDERED && bounds.before.count > bounds.after.count;
    bounds.capacity = capacity;
    return bounds;
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
        for (size_t next = 0; next < operations_count; next++) {
            if (!operations[next].second || operations[next].leases != ((scene->flags & FLAG_LEASES) != 0))
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
    bool only_leases = count > 1 && strcmp(words[1], "leases") == 0;
    size_t only = count > 1 ? (size_t)atol(words[1]) : 0;
    size_t pairs = 0, running = 0, next = 0, cpus;
    cpu_set_t all;
    int status;

    steps = count > 1 && strcmp(words[count - 1], "steps") == 0;
    CHECK(lock_works());
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    cpus = (size_t)CPU_COUNT(&all);
    tally = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(tally != MAP_FAILED);
    for (size_t which = 0; which < scenes_count; which++) {
        for (size_t what = 0; what < operations_count; what++) {
            scene = &scenes[which];
            if (!belongs(&operations[what], only_leases))
                continue;
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
    printf("crash: %zu pairs of a queue's state and an operation, %lu stops; all %lu distinct states that a kill "
           "leaves are as before or after, also where one of %lu others went on and was killed too\n",
           pairs, tally->stops, tally->states, tally->twice);
    return 0;
}
