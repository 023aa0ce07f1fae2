/* Benchmarks of the core without Python: processes on both ends, and a put and a get in one thread. */
#include <sched.h>
#include <sys/wait.h>

#include "harness.h"

#define BIGGEST (1 << 20)

static unsigned char message[BIGGEST];

static double alone(size_t size, int pairs)
{
    struct queue *queue = queue_open(queue_file(1 << 20, 0, 1 << 18));
    struct place place = {message, sizeof message, 0, 0};
    int64_t begin = clock_now();

    for (int pair = 0; pair < pairs; pair++) {
        CHECK(queue_put(queue, message, size, 0) == QUEUE_OK);
        CHECK(try_get(queue, &place) == QUEUE_OK);
    }
    return (double)(clock_now() - begin) / pairs;
}

static double across(int producers, int consumers, size_t size, int each, uint64_t limit)
{
    int file = queue_file(limit, 0, limit / 4);
    int64_t begin = clock_now();
    int total = producers * each;

    for (int which = 0; which < producers + consumers; which++) {
        if (fork_child() == 0) {
            struct queue *queue = queue_open(file);
            struct place place = {message, sizeof message, 0, 0};

            if (which < producers)
                for (int number = 0; number < each; number++)
                    CHECK(put_waiting(queue, message, size, 10 * SECOND) == QUEUE_OK);
            else
                for (int number = 0; number < total / consumers; number++)
                    CHECK(get_waiting(queue, &place, 10 * SECOND) == QUEUE_OK);
            _exit(0);
        }
    }
    for (int which = 0; which < producers + consumers; which++) {
        int status;

        CHECK(wait(&status) > 0 && status == 0);
    }
    close(file);
    return total / ((double)(clock_now() - begin) / SECOND);
}

static double ping_pong(int rounds, bool spin)
{
    int there = queue_file(1 << 20, 0, 1 << 18);
    int back = queue_file(1 << 20, 0, 1 << 18);
    struct place place = {message, sizeof message, 0, 0};
    struct queue *out = queue_open(there);
    struct queue *in = queue_open(back);
    int64_t begin;

    if (fork_child() == 0) {
        struct queue *from = queue_open(there);
        struct queue *to = queue_open(back);

        if (!spin)
            from->reading.cost = from->reading.budget = 0;
        for (int round = 0; round < rounds; round++) {
            CHECK(get_waiting(from, &place, 10 * SECOND) == QUEUE_OK);
            CHECK(put_waiting(to, message, 64, 10 * SECOND) == QUEUE_OK);
        }
        _exit(0);
    }
    if (!spin)
        in->reading.cost = in->reading.budget = 0;
    begin = clock_now();
    for (int round = 0; round < rounds; round++) {
        CHECK(put_waiting(out, message, 64, 10 * SECOND) == QUEUE_OK);
        CHECK(get_waiting(in, &place, 10 * SECOND) == QUEUE_OK);
    }
    CHECK(wait(NULL) > 0);
    return (double)(clock_now() - begin) / rounds / 1000;
}

/* Pins this process to its processor number `skip`, counted from 0, so that the two processes below never share one. */
static void pin(size_t skip)
{
    cpu_set_t all, one;

    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && skip-- == 0)
            CPU_SET(cpu, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
}

static int by_size(const void *one, const void *other)
{
    const double *first = one, *second = other;

    return (*first > *second) - (*first < *second);
}

/* Returns the median time in nanoseconds of a get, while a producer on another processor spins for space; without
 * `spinner`, that producer only pretends to. Only stretches of 400 gets count during which the producer ran all the
 * time. */
static double get_beside(bool spinner)
{
    enum { STRETCH = 400, STRETCHES = 200 };
    double took[STRETCHES];
    int file = queue_file(1 << 20, 0, 1 << 18), count = 0;
    struct place place = {message, sizeof message, 0, 0};
    struct queue *queue = queue_open(file);
    cpu_set_t before;
    pid_t child;

    CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
    child = fork_child();
    if (child == 0) {
        struct queue *producer = queue_open(file);

        pin(1);
        for (;;) {
            producer->writing.budget = 160000;
            if (spinner)
                wait_spin_writable(producer, 64, clock_now(), INT64_MAX);
            else
                producer->segment->put.spinner = clock_now() + 160000;
        }
    }
    pin(0);
    while (count < STRETCHES) {
        int64_t since;

        while (queue_put(queue, message, 64, 0) == QUEUE_OK)
            continue;
        since = clock_now();
        for (int number = 0; number < STRETCH; number++)
            CHECK(try_get(queue, &place) == QUEUE_OK);
        if (queue->segment->put.spinner > clock_now() && queue->segment->put.spinner < since + 160000)
            took[count++] = (double)(clock_now() - since) / STRETCH;
    }
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    CHECK(sched_setaffinity(0, sizeof before, &before) == 0);
    queue_close(queue);
    close(file);
    qsort(took, (size_t)count, sizeof *took, by_size);
    return took[count / 2];
}

int main(void)
{
    CHECK(lock_works());
    for (int round = 0; round < 5; round++)
        printf("get of 64 B from a full queue: %.1f ns, beside a producer that spins %.1f ns\n",
               get_beside(false), get_beside(true));
    for (int round = 0; round < 3; round++) {
        printf("same thread, put and get: %.1f ns (64 B), %.1f ns (1 KiB)\n", alone(64, 2000000), alone(1024, 1000000));
        printf("64 B: %.1f M/s 1P1C, %.1f M/s 2P2C, %.1f M/s 3P1C, %.1f M/s 1P3C\n",
               across(1, 1, 64, 3000000, 1 << 20) / 1e6, across(2, 2, 64, 1000000, 1 << 20) / 1e6,
               across(3, 1, 64, 600000, 1 << 20) / 1e6, across(1, 3, 64, 1500000, 1 << 20) / 1e6);
        printf("1P1C: %.2f M/s 1 KiB, %.0f k/s 64 KiB, %.1f k/s 1 MiB; 2P2C: %.1f k/s 1 MiB\n",
               across(1, 1, 1024, 1000000, 1 << 20) / 1e6, across(1, 1, 1 << 16, 100000, 1 << 22) / 1e3,
               across(1, 1, BIGGEST - 16, 8000, 1 << 22) / 1e3, across(2, 2, BIGGEST - 16, 4000, 1 << 22) / 1e3);
        printf("ping-pong: %.2f us spinning, %.1f us asleep\n", ping_pong(200000, true), ping_pong(10000, false));
    }
    return 0;
}
