/*
 * Kills and stops participants at random instants, and compares the received messages with the accepted ones.
 *
 *     storm [SECONDS [SEED [stop] [order] [lease] [late]]]
 *
 * Three producers and three consumers share a queue. Again and again one of them is killed and replaced; with "stop" it
 * is stopped for a while. With "order" the queue has priorities, but only one is used, so that the messages stay in
 * order. The judge's memory records for each producer how many messages it tried to put and how many were accepted, and
 * for each message how often it was taken. A consumer may lose one message when it dies. No other message may be lost,
 * none may be duplicated, partial or out of order, and there is always progress.
 *
 * With "lease" consumers lease messages, and acknowledge most of them; with "late" the leases have short holds, and some
 * consumers are too late. Then no message may be lost, a later delivery has a greater number, and each message is
 * acknowledged once; the record of one acknowledgement may be missing for each killed consumer.
 */
#include <sys/wait.h>

#include "harness.h"

#define PRODUCERS 3
#define CONSUMERS 3
#define NAMES 100000
#define EACH 512 /* messages that a producer puts under one id */
#define LARGEST 60000

struct record {
    _Atomic uint32_t names; /* ids given to producers so far */
    _Atomic uint64_t progress;
    _Atomic uint64_t longest_call; /* ns */
    _Atomic uint32_t meant[NAMES];
    _Atomic uint32_t accepted[NAMES];
    _Atomic unsigned char taken[NAMES][EACH]; /* or acknowledged */
    _Atomic uint32_t handed[NAMES][EACH];      /* on loan */
    _Atomic unsigned char ending[NAMES][EACH]; /* a consumer began to acknowledge it */
    _Atomic uint32_t delivered[NAMES][EACH];   /* the greatest number of deliveries of which a consumer learned */
    _Atomic uint64_t redelivered, too_late;
};

static struct record *record;
static int file;
static bool lend, late;

static void timed(int64_t since)
{
    uint64_t took = (uint64_t)(clock_now() - since);
    uint64_t longest = record->longest_call;

    while (took > longest && !atomic_compare_exchange_weak(&record->longest_call, &longest, took))
        continue;
}

static void produce(uint64_t seed)
{
    static unsigned char bytes[LARGEST];
    struct queue *queue = queue_open(file);

    for (;;) {
        uint32_t who = record->names++;

        CHECK(who < NAMES);
        for (uint32_t number = 0; number < EACH; number++) {
            uint32_t kind = random_next(&seed) % 100;
            size_t size = 8 + (kind < 3 ? random_next(&seed) % (LARGEST - 8) : random_next(&seed) % 500);
            enum queue_result result;

            tag_write(bytes, size, (struct tag){who, number});
            record->meant[who] = number + 1;
            do {
                int64_t since = clock_now();

                result = put_waiting(queue, bytes, size, SECOND / 2);
                timed(since);
            } while (result == QUEUE_FULL || result == QUEUE_BUSY);
            if (result == QUEUE_DOWN)
                _exit(0);
            CHECK(result == QUEUE_OK);
            record->accepted[who] = number + 1;
            record->progress++;
        }
    }
}

static void consume(void)
{
    static unsigned char bytes[LARGEST];
    static uint16_t next[NAMES];
    struct place place = {bytes, sizeof bytes, 0, 0};
    struct queue *queue = queue_open(file);

    for (;;) {
        int64_t since = clock_now();
        enum queue_result result = get_waiting(queue, &place, SECOND / 2);
        struct tag tag;

        timed(since);
        if (result == QUEUE_EMPTY || result == QUEUE_BUSY)
            continue;
        if (result == QUEUE_DOWN)
            _exit(0);
        CHECK(result == QUEUE_OK);
        CHECK(tag_read(bytes, place.size, &tag));
        CHECK(tag.who < NAMES && tag.number < EACH);
        CHECK(tag.number >= next[tag.who]);
        next[tag.who] = (uint16_t)(tag.number + 1);
        record->taken[tag.who][tag.number]++;
        record->progress++;
    }
}

static void note_greatest(_Atomic uint32_t *word, uint32_t value)
{
    uint32_t before = *word;

    while (value > before && !atomic_compare_exchange_weak(word, &before, value))
        continue;
}

static void consume_leases(uint64_t seed)
{
    static unsigned char bytes[LARGEST];
    struct place place = {bytes, sizeof bytes, 0, 0};
    struct queue *queue = queue_open(file);

    for (uint64_t serial = 1;; serial++) {
        static const enum lease_verdict verdicts[] = {LEASE_ACK, LEASE_ACK, LEASE_ACK, LEASE_RELEASE, LEASE_FAIL};
        struct lease_order order = {.verdict = verdicts[random_next(&seed) % 5]};
        int64_t since = clock_now();
        enum queue_result result;
        struct queue_lease lease;
        struct tag tag;
        size_t taken;
        bool lost;

        result = queue_lease(queue, place_for, &place, serial, late ? SECOND / 1000 : 0, &lease, 1, &taken, PATIENCE);
        if (result == QUEUE_EMPTY || result == QUEUE_BUSY) {
            wait_sleep_readable(queue, since + SECOND / 2);
            timed(since);
            continue;
        }
        if (result == QUEUE_DOWN)
            _exit(0);
        CHECK(result == QUEUE_OK && tag_read(bytes, place.size, &tag) && tag.who < NAMES && tag.number < EACH);
        /* With short holds another one may have leased it meanwhile. */
        CHECK(late || lease.deliveries > record->handed[tag.who][tag.number]);
        note_greatest(&record->delivered[tag.who][tag.number], lease.deliveries);
        record->redelivered += lease.deliveries > 1;
        record->handed[tag.who][tag.number]++;
        if (random_next(&seed) % 8 == 0)
            nanosleep(&(struct timespec){.tv_nsec = random_next(&seed) % 2000000}, NULL);
        if (order.verdict == LEASE_ACK)
            record->ending[tag.who][tag.number] = 1;
        do
            result = lease_settle(queue, &(struct lease_token){lease.cell, lease.serial}, 1, &order, &lost, PATIENCE);
        while (result == QUEUE_BUSY);
        CHECK(result == QUEUE_OK && (late || !lost));
        record->too_late += lost;
        if (!lost && order.verdict == LEASE_ACK) {
            record->taken[tag.who][tag.number]++;
            record->progress++;
        }
        timed(since);
    }
}

static pid_t start(unsigned role, uint64_t seed)
{
    pid_t child = fork_child();

    if (child == 0) {
        if (role < PRODUCERS)
            produce(seed);
        else if (lend)
            consume_leases(seed);
        else
            consume();
    }
    return child;
}

int main(int count, char **words)
{
    double seconds = count > 1 ? atof(words[1]) : 5;
    uint64_t seed = count > 2 ? strtoull(words[2], NULL, 0) : (uint64_t)clock_now();
    bool stop = false, order = false;
    uint64_t state = seed;
    pid_t alive[PRODUCERS + CONSUMERS];
    struct queue *queue;
    struct place place = {malloc(LARGEST), LARGEST, 0, 0};
    unsigned kills = 0, consumers_killed = 0;
    uint64_t lost = 0, sent = 0, seen = 0, before = 0;
    int64_t begin, moved, stall = 0;

    for (int word = 3; word < count; word++) {
        stop |= strcmp(words[word], "stop") == 0;
        order |= strcmp(words[word], "order") == 0;
        late |= strcmp(words[word], "late") == 0;
        lend |= late || strcmp(words[word], "lease") == 0;
    }
    printf("storm: %.0f s, seed %llu%s%s%s%s\n", seconds, (unsigned long long)seed, stop ? ", stopping" : "",
           order ? ", with priorities" : "", lend ? ", with leases" : "", late ? " that end early" : "");
    fflush(stdout);
    CHECK(lock_works());
    record = mmap(NULL, sizeof *record, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(record != MAP_FAILED);
    file = queue_file_of((order ? FLAG_ORDERED : 0) | (lend ? FLAG_LEASES : 0), 1 << 18, 0, LARGEST);
    queue = queue_open(file);
    for (unsigned role = 0; role < PRODUCERS + CONSUMERS; role++)
        alive[role] = start(role, random_next(&state));
    begin = moved = clock_now();
    while (clock_now() - begin < (int64_t)(seconds * (double)SECOND)) {
        struct timespec nap = {.tv_nsec = random_next(&state) % 3000000};
        unsigned role = random_next(&state) % (PRODUCERS + CONSUMERS);
        int status;
        int64_t now;

        nanosleep(&nap, NULL);
        now = clock_now();
        if (record->progress != before) {
            before = record->progress;
            moved = now;
        } else if (now - moved > stall) {
            stall = now - moved;
        }
        CHECK(stall < 2 * SECOND);
        kill(alive[role], stop ? SIGSTOP : SIGKILL);
        if (stop) {
            nap.tv_nsec = random_next(&state) % 20000000;
            nanosleep(&nap, NULL);
            kill(alive[role], SIGCONT);
            moved = clock_now();
            kills++;
            continue;
        }
        CHECK(waitpid(alive[role], &status, 0) == alive[role]);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        kills++;
        consumers_killed += role >= PRODUCERS;
        alive[role] = start(role, random_next(&state));
    }
    CHECK(queue_shutdown(queue, SECOND) == QUEUE_OK);
    for (unsigned role = 0; role < PRODUCERS + CONSUMERS; role++) {
        int status;

        CHECK(waitpid(alive[role], &status, 0) == alive[role] && status == 0);
    }
    /* Messages left over because the consumers had ended. */
    for (enum queue_result result; (result = try_get(queue, &place)) != QUEUE_DOWN;) {
        struct tag tag;

        CHECK(result == QUEUE_OK && tag_read(place.bytes, place.size, &tag));
        record->taken[tag.who][tag.number]++;
    }
    for (uint32_t who = 0; who < record->names; who++) {
        CHECK(record->meant[who] - record->accepted[who] <= 1);
        for (uint32_t number = 0; number < EACH; number++) {
            unsigned char times = record->taken[who][number];

            CHECK(times <= 1);
            CHECK(number < record->meant[who] || times == 0);
            CHECK(record->handed[who][number] <= record->delivered[who][number]);
            CHECK(!lend || number >= record->accepted[who] || times != 0 || record->ending[who][number] != 0);
            seen += times;
            sent += number < record->accepted[who];
            lost += number < record->accepted[who] && times == 0;
        }
    }
    {
        struct queue_total put, got;

        side_totals(queue, &put, &got);
        CHECK(put.count == got.count && put.bytes == got.bytes);
        CHECK(put.count >= sent);
        CHECK(!participant_shared(queue));
    }
    printf("storm: %u %s, %llu of consumers; %llu locks inherited, %llu records given up; %llu sent, %llu taken, "
           "%llu lost; longest stall %.1f ms, longest call %.0f ms\n",
           kills, stop ? "stops" : "kills", (unsigned long long)consumers_killed,
           (unsigned long long)queue->segment->figures.recoveries, (unsigned long long)queue->segment->figures.aborted,
           (unsigned long long)sent, (unsigned long long)seen, (unsigned long long)lost, (double)stall / 1e6,
           (double)record->longest_call / 1e6);
    if (lend)
        printf("storm: %llu redelivered, %llu too late, %llu returned; %llu acknowledged, not recorded\n",
               (unsigned long long)record->redelivered, (unsigned long long)record->too_late,
               (unsigned long long)queue->segment->leases.returned, (unsigned long long)lost);
    CHECK(lost <= consumers_killed);
    CHECK(record->longest_call < (uint64_t)SECOND);
    queue_close(queue);
    free(place.bytes);
    return 0;
}
