/* Test cases of leases in one process, and one that kills holders. A random run is compared with a model. */
#include <linux/futex.h>
#include <sys/wait.h>

#include "harness.h"

#include "chain.h"

#define HOUR (3600 * SECOND)

static unsigned char bytes[4096];
static struct place place = {bytes, sizeof bytes, 0, 0};

static struct queue *open_leases(uint64_t messages, uint64_t largest, uint32_t max_deliveries)
{
    uint64_t limit = messages * layout_message_size(largest, FLAG_LEASES);

    return queue_open(queue_file_with_leases(FLAG_ORDERED, limit, messages, largest, max_deliveries));
}

static void put(struct queue *queue, uint32_t number, unsigned priority)
{
    struct queue_piece piece = {.data = bytes, .size = 40, .priority = priority};

    tag_write(bytes, 40, (struct tag){7, number});
    CHECK(queue_put_piece(queue, &piece, 0) == QUEUE_OK);
}

static uint32_t number_in_place(void)
{
    struct tag tag;

    CHECK(tag_read(bytes, place.size, &tag) && tag.who == 7);
    return tag.number;
}

static uint64_t serials;

/* Leases the next message, which must have this number. */
static struct queue_lease lease(struct queue *queue, uint32_t number, int64_t hold)
{
    struct queue_lease lease;
    size_t taken;

    CHECK(queue_lease(queue, place_for, &place, ++serials, hold, &lease, 1, &taken, PATIENCE) == QUEUE_OK);
    CHECK(taken == 1 && number_in_place() == number && lease.serial == serials);
    return lease;
}

static bool settle(struct queue *queue, struct queue_lease lease, enum lease_verdict verdict, int64_t delay)
{
    struct lease_token token = {lease.cell, lease.serial};
    struct lease_order order = {.verdict = verdict, .delay = delay, .reason = "why", .reason_size = 3};
    bool lost;

    CHECK(lease_settle(queue, &token, 1, &order, &lost, PATIENCE) == QUEUE_OK);
    return !lost;
}

static void expect(struct queue *queue, uint32_t number)
{
    CHECK(try_get(queue, &place) == QUEUE_OK && number_in_place() == number);
}

static void expect_counts(struct queue *queue, uint32_t ready, uint32_t leased, uint32_t delayed, uint32_t dead)
{
    struct lease_counts counts;

    CHECK(lease_count(queue, &counts, PATIENCE) == QUEUE_OK);
    CHECK(counts.ready == ready && counts.leased == leased && counts.delayed == delayed && counts.dead == dead);
}

static void a_lease_keeps_its_place(void)
{
    struct queue *queue = open_leases(2, 40, 0);
    struct queue_lease one;

    put(queue, 1, 0);
    put(queue, 2, 0);
    one = lease(queue, 1, 0);
    CHECK(queue_put(queue, bytes, 40, 0) == QUEUE_FULL);
    expect(queue, 2);
    CHECK(try_get(queue, &place) == QUEUE_EMPTY);
    put(queue, 3, 0);
    CHECK(queue_put(queue, bytes, 40, 0) == QUEUE_FULL);
    CHECK(settle(queue, one, LEASE_ACK, 0));
    put(queue, 4, 0);
    expect_counts(queue, 2, 0, 0, 0);
    queue_close(queue);
}

static void what_comes_back_is_in_its_old_order(void)
{
    struct queue *queue = open_leases(9, 40, 0);
    struct queue_lease low, high;

    put(queue, 1, 0);
    put(queue, 2, 5);
    high = lease(queue, 2, 0);
    low = lease(queue, 1, 0);
    put(queue, 3, 0);
    put(queue, 4, 5);
    CHECK(settle(queue, low, LEASE_RELEASE, 0) && settle(queue, high, LEASE_FAIL, 0));
    expect(queue, 2);
    expect(queue, 4);
    expect(queue, 1);
    expect(queue, 3);
    queue_close(queue);
}

static void only_the_holder_settles_once(void)
{
    int file = queue_file_with_leases(0, 4096, 0, 64, 0);
    struct queue *queue = queue_open(file);
    struct queue *other = queue_open(file);
    struct queue_lease old, now;

    put(queue, 1, 0);
    old = lease(queue, 1, 0);
    CHECK(!settle(other, old, LEASE_ACK, 0));
    CHECK(settle(queue, old, LEASE_RELEASE, 0));
    CHECK(!settle(queue, old, LEASE_ACK, 0));
    now = lease(queue, 1, 0);
    CHECK(now.cell == old.cell && now.deliveries == 2 && now.failures == 0);
    CHECK(!settle(queue, old, LEASE_ACK, 0) && !settle(queue, old, LEASE_REJECT, 0));
    expect_counts(queue, 0, 1, 0, 0);
    CHECK(settle(queue, now, LEASE_ACK, 0) && !settle(queue, now, LEASE_ACK, 0));
    expect_counts(queue, 0, 0, 0, 0);
    queue_close(other);
    queue_close(queue);
    close(file);
}

static void failures_count_and_returns_do_not(void)
{
    struct queue *queue = open_leases(3, 40, 2);
    struct lease_dead letter;
    size_t count;

    put(queue, 1, 3);
    put(queue, 2, 0);
    for (int turn = 0; turn < 5; turn++)
        CHECK(settle(queue, lease(queue, 1, 0), LEASE_RELEASE, 0));
    CHECK(settle(queue, lease(queue, 1, 0), LEASE_FAIL, 0));
    CHECK(settle(queue, lease(queue, 1, 0), LEASE_FAIL, 0));
    expect_counts(queue, 1, 0, 0, 1);
    CHECK(settle(queue, lease(queue, 2, 0), LEASE_REJECT, 0));
    CHECK(lease_requeue(queue, 1, &count, PATIENCE) == QUEUE_OK && count == 1);
    CHECK(settle(queue, lease(queue, 1, 0), LEASE_FAIL, 0));
    expect_counts(queue, 1, 0, 0, 1);
    CHECK(get_dead(queue, &place, &letter, PATIENCE) == QUEUE_OK && number_in_place() == 2);
    CHECK(letter.number == 2 && letter.deliveries == 1 && letter.reason_size == 3 && memcmp(letter.reason, "why", 3) == 0);
    CHECK(get_dead(queue, &place, &letter, PATIENCE) == QUEUE_EMPTY);
    queue_close(queue);
}

static void a_reason_has_its_room_at_every_size(void)
{
    struct queue *queue = open_leases(3, 300, 0);
    struct lease_dead letter;

    for (size_t size = 0; size <= 300; size++) {
        unsigned char message[300], reason[CELL_REASON];
        struct queue_lease taken;
        struct lease_order order = {.verdict = LEASE_REJECT, .reason = reason, .reason_size = size % (CELL_REASON + 1)};
        size_t count;
        bool lost;

        memset(message, (int)size, sizeof message);
        memset(reason, (int)~size, sizeof reason);
        for (int which = 0; which < 3; which++)
            CHECK(queue_put(queue, message, size, 0) == QUEUE_OK);
        for (int which = 0; which < 3; which++) {
            CHECK(queue_lease(queue, place_for, &place, ++serials, 0, &taken, 1, &count, PATIENCE) == QUEUE_OK);
            CHECK(lease_settle(queue, &(struct lease_token){taken.cell, taken.serial}, 1, &order, &lost, PATIENCE) ==
                      QUEUE_OK &&
                  !lost);
        }
        for (int which = 0; which < 3; which++) {
            CHECK(get_dead(queue, &place, &letter, PATIENCE) == QUEUE_OK);
            CHECK(place.size == size && memcmp(bytes, message, size) == 0);
            CHECK(letter.reason_size == order.reason_size && memcmp(letter.reason, reason, letter.reason_size) == 0);
        }
    }
    queue_close(queue);
}

static void dead_letters_are_listed_in_the_order_of_putting(void)
{
    struct queue *queue = open_leases(20, 40, 1);
    struct lease_dead letters[3];
    uint64_t after = 0;
    size_t found;

    for (uint32_t number = 1; number <= 10; number++)
        put(queue, number, number % 3);
    for (uint32_t turn = 0; turn < 10; turn++) {
        struct queue_lease one;
        size_t taken;

        CHECK(queue_lease(queue, place_for, &place, ++serials, 0, &one, 1, &taken, PATIENCE) == QUEUE_OK);
        CHECK(settle(queue, one, LEASE_FAIL, 0));
    }
    for (uint32_t expected = 1; expected <= 10; expected += 3) {
        CHECK(lease_peek_dead(queue, after, place_for, &place, letters, 3, &found, PATIENCE) == QUEUE_OK);
        CHECK(found == (expected < 10 ? 3 : 1));
        for (size_t which = 0; which < found; which++)
            CHECK(letters[which].number == expected + which);
        after = letters[found - 1].number;
    }
    CHECK(lease_clear_dead(queue, &found, PATIENCE) == QUEUE_OK && found == 10);
    expect_counts(queue, 0, 0, 0, 0);
    queue_close(queue);
}

static void a_hold_ends(void)
{
    struct queue *queue = open_leases(3, 40, 2);
    struct lease_dead letter;
    struct queue_lease one;

    put(queue, 1, 0);
    one = lease(queue, 1, 1);
    CHECK(!settle(queue, one, LEASE_ACK, 0));
    expect_counts(queue, 1, 0, 0, 0);
    one = lease(queue, 1, HOUR);
    CHECK(lease_extend(queue, &(struct lease_token){one.cell, one.serial}, 1, 1, &(bool){false}, PATIENCE) == QUEUE_OK);
    expect_counts(queue, 0, 0, 0, 1);
    CHECK(get_dead(queue, &place, &letter, PATIENCE) == QUEUE_OK && letter.deliveries == 2);
    CHECK(letter.reason_size == 14 && memcmp(letter.reason, "its hold ended", 14) == 0);
    queue_close(queue);
}

static void an_extended_hold_does_not_end(void)
{
    struct queue *queue = open_leases(3, 40, 0);
    struct queue_lease one;
    bool lost = true;

    put(queue, 1, 0);
    one = lease(queue, 1, SECOND / 100);
    CHECK(lease_extend(queue, &(struct lease_token){one.cell, one.serial}, 1, HOUR, &lost, PATIENCE) == QUEUE_OK && !lost);
    while (clock_now() < queue->segment->leases.next - HOUR + SECOND / 50)
        continue;
    expect_counts(queue, 0, 1, 0, 0);
    CHECK(settle(queue, one, LEASE_ACK, 0));
    queue_close(queue);
}

static void what_is_delayed_comes_in_the_order_of_putting(void)
{
    static const int64_t delays[] = {HOUR, HOUR - SECOND, SECOND / 50};
    struct queue *queue = open_leases(5, 40, 0);
    struct queue_piece piece = {.data = bytes, .size = 40};
    struct cells cells = cells_of(queue);
    int64_t since = clock_now();

    for (uint32_t number = 1; number <= 3; number++) {
        tag_write(bytes, 40, (struct tag){7, number});
        CHECK(lease_put_delayed(queue, &piece, delays[number - 1], PATIENCE) == QUEUE_OK);
    }
    put(queue, 4, 0);
    expect_counts(queue, 1, 0, 3, 0);
    expect(queue, 4);
    CHECK(get_waiting(queue, &place, 10 * SECOND) == QUEUE_OK && number_in_place() == 3);
    CHECK(clock_now() - since >= SECOND / 50);
    CHECK(try_get(queue, &place) == QUEUE_EMPTY);
    for (uint32_t cell = 0; cell < cells.count; cell++)
        if (state_of(&cells, cell) == CELL_DELAYED)
            cells.cell[cell].as.leased.due -= HOUR; /* the second is still due before the first */
    queue->segment->leases.next -= HOUR;
    expect(queue, 1);
    expect(queue, 2);
    queue_close(queue);
}

static void the_leases_of_the_dead_come_back(void)
{
    int file = queue_file_with_leases(0, 1 << 14, 0, 64, 0);
    struct queue *queue = queue_open(file);
    struct queue *other = queue_open(file);

    for (uint32_t number = 1; number <= 3; number++)
        put(queue, number, 0);
    lease(other, 1, 0);
    lease(queue, 2, 0);
    lease(other, 3, HOUR);
    expect_counts(queue, 0, 3, 0, 0);
    queue_abandon(other); /* as the kernel does it */
    free(other);
    CHECK(get_waiting(queue, &place, SECOND) == QUEUE_OK && number_in_place() == 1);
    expect(queue, 3);
    expect_counts(queue, 0, 1, 0, 0);
    CHECK(queue->segment->leases.returned == 2);
    queue_close(queue);
    close(file);
}

static void a_later_owner_of_the_slot_has_none_of_them(void)
{
    struct queue_lease now;
    size_t count;
    struct taking taking = {
        .room = place_for, .context = &place, .limit = 1, .taken = &count, .serial = 1000, .leases = &now};
    int file = queue_file_with_leases(0, 1 << 14, 0, 64, 0);
    struct queue *queue = queue_open(file);
    struct queue *dead = queue_open(file);
    struct queue_lease old;
    struct queue *next;

    put(queue, 1, 0);
    put(queue, 2, 0);
    old = lease(dead, 1, 0);
    queue->segment->state.hint = dead->slot;
    queue_abandon(dead);
    next = queue_open(file);
    CHECK(next->slot == dead->slot);
    free(dead);
    CHECK(!settle(next, old, LEASE_ACK, 0));
    /* Without a look at the holders before. */
    CHECK(next->flavour->lease(next, &taking, PATIENCE) == QUEUE_OK && number_in_place() == 1);
    CHECK(now.deliveries == 2 && now.failures == 1);
    expect(queue, 2);
    CHECK(queue->holders[next->slot].leases == 1);
    queue_abandon(next);
    free(next);
    queue->segment->leases.looked = 0;
    expect(queue, 1);
    queue_close(queue);
    close(file);
}

static void a_newcomer_that_is_stopped_keeps_no_lease_of_its_slot(void)
{
    int file = queue_file_with_leases(0, 1 << 14, 0, 64, 0);
    struct queue *queue = queue_open(file);
    struct queue *dead = queue_open(file);
    struct flock byte = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)(LAYOUT_LOCKS + dead->slot), .l_len = 1};
    struct queue *newcomer;

    put(queue, 1, 0);
    lease(dead, 1, 0);
    newcomer = queue_open(file);
    queue_abandon(dead);
    /* It has locked the byte of the slot, and not taken the next generation yet. */
    CHECK(fcntl(newcomer->descriptor, F_OFD_SETLK, &byte) == 0);
    CHECK(get_waiting(queue, &place, SECOND) == QUEUE_OK && number_in_place() == 1);
    free(dead);
    queue_close(newcomer);
    queue_close(queue);
    close(file);
}

static void a_forked_child_has_leases_of_its_own(void)
{
    int file = queue_file_with_leases(0, 1 << 14, 0, 64, 0);
    struct queue *queue = queue_open(file);
    struct queue_lease one;
    int ready[2];
    pid_t child;

    put(queue, 1, 0);
    put(queue, 2, 0);
    one = lease(queue, 1, 0);
    CHECK(pipe(ready) == 0);
    child = fork_child();
    if (child == 0) {
        CHECK(queue_reattach(queue) == QUEUE_OK && !settle(queue, one, LEASE_ACK, 0));
        lease(queue, 2, 0);
        CHECK(write(ready[1], "", 1) == 1);
        for (;;)
            pause();
    }
    CHECK(read(ready[0], &(char){0}, 1) == 1);
    expect_counts(queue, 0, 2, 0, 0);
    kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(get_waiting(queue, &place, SECOND) == QUEUE_OK && number_in_place() == 2);
    expect_counts(queue, 0, 1, 0, 0);
    CHECK(settle(queue, one, LEASE_ACK, 0));
    close(ready[0]);
    close(ready[1]);
    queue_close(queue);
    close(file);
}

static void dead_letters_keep_their_place_in_a_full_queue(void)
{
    struct queue *queue = open_leases(2, 40, 1);
    struct lease_dead letter;

    put(queue, 1, 0);
    put(queue, 2, 0);
    CHECK(queue_put(queue, bytes, 40, 0) == QUEUE_FULL);
    CHECK(settle(queue, lease(queue, 1, 0), LEASE_FAIL, 0) && settle(queue, lease(queue, 2, 0), LEASE_REJECT, 0));
    expect_counts(queue, 0, 0, 0, 2);
    CHECK(queue_put(queue, bytes, 40, 0) == QUEUE_FULL);
    CHECK(get_dead(queue, &place, &letter, PATIENCE) == QUEUE_OK && number_in_place() == 1);
    put(queue, 3, 0);
    expect(queue, 3);
    queue_close(queue);
}

/* It was killed when the message was LEASED, and no longer among those that are ready. */
static void a_lease_that_was_not_counted_yet_comes_back(void)
{
    int file = queue_file_with_leases(0, 1 << 14, 0, 64, 0);
    struct queue *queue = queue_open(file);
    struct queue *dead = queue_open(file);

    put(queue, 1, 0);
    lease(dead, 1, 0);
    queue->segment->leases.leased = 0;
    queue->holders[dead->slot].leases = 0;
    queue->segment->put.lock.word = FUTEX_OWNER_DIED;
    queue_abandon(dead);
    free(dead);
    CHECK(get_waiting(queue, &place, SECOND) == QUEUE_OK && number_in_place() == 1);
    queue_close(queue);
    close(file);
}

static void leaving_is_no_failure(void)
{
    int file = queue_file_with_leases(0, 1 << 14, 0, 64, 1);
    struct queue *queue = queue_open(file);
    struct queue *other = queue_open(file);

    put(queue, 1, 0);
    lease(other, 1, 0);
    queue_close(other);
    expect_counts(queue, 1, 0, 0, 0);
    queue_close(queue);
    close(file);
}

static void a_recall_releases_what_was_leased(void)
{
    struct queue *queue = open_leases(5, 40, 0);
    struct queue_lease taken[3];
    size_t count;

    for (uint32_t number = 1; number <= 3; number++)
        put(queue, number, 0);
    CHECK(queue_lease(queue, place_for, &place, 100, 0, taken, 3, &count, PATIENCE) == QUEUE_OK && count == 3);
    CHECK(lease_recall(queue, 101, 1000, PATIENCE) == QUEUE_OK);
    expect_counts(queue, 2, 1, 0, 0);
    expect(queue, 2);
    CHECK(settle(queue, taken[0], LEASE_ACK, 0) && !settle(queue, taken[1], LEASE_ACK, 0));
    queue_close(queue);
}

static void a_shut_down_queue_ends_when_nothing_comes_back_any_more(void)
{
    struct queue *queue = open_leases(5, 40, 0);
    struct queue_lease one;
    size_t count;

    put(queue, 1, 0);
    put(queue, 2, 0);
    CHECK(settle(queue, lease(queue, 1, 0), LEASE_REJECT, 0));
    one = lease(queue, 2, 0);
    CHECK(queue_shutdown(queue, PATIENCE) == QUEUE_OK);
    CHECK(try_get(queue, &place) == QUEUE_EMPTY && queue_put(queue, bytes, 1, 0) == QUEUE_DOWN);
    CHECK(settle(queue, one, LEASE_RELEASE, SECOND / 100));
    CHECK(try_get(queue, &place) == QUEUE_EMPTY);
    CHECK(get_waiting(queue, &place, SECOND) == QUEUE_OK && number_in_place() == 2);
    CHECK(try_get(queue, &place) == QUEUE_DOWN);
    CHECK(lease_requeue(queue, 1, &count, PATIENCE) == QUEUE_DOWN);
    expect_counts(queue, 0, 0, 0, 1);
    queue_close(queue);
}

static void an_immediate_shutdown_leaves_the_dead_letters(void)
{
    struct queue *queue = open_leases(5, 40, 0);
    struct queue_lease one;

    put(queue, 1, 0);
    put(queue, 2, 0);
    put(queue, 3, 0);
    CHECK(settle(queue, lease(queue, 1, 0), LEASE_REJECT, 0));
    one = lease(queue, 2, 0);
    CHECK(queue_shutdown(queue, PATIENCE) == QUEUE_OK);
    queue_drop(queue, PATIENCE);
    CHECK(!settle(queue, one, LEASE_ACK, 0));
    CHECK(try_get(queue, &place) == QUEUE_DOWN);
    expect_counts(queue, 0, 0, 0, 1);
    queue_close(queue);
}

/* A process is killed with leases; another waits for them. The time that takes is reported. */
static void a_waiter_learns_of_a_death(void)
{
    int64_t longest = 0, sum = 0;
    int file = queue_file_with_leases(0, 1 << 14, 0, 64, 0);
    struct queue *queue = queue_open(file);

    for (uint32_t round = 1; round <= 20; round++) {
        int ready[2];
        pid_t child;
        int64_t since;

        put(queue, round, 0);
        CHECK(pipe(ready) == 0);
        child = fork_child();
        if (child == 0) {
            struct queue *own = queue_open(file);

            lease(own, round, 0);
            CHECK(write(ready[1], "", 1) == 1);
            for (;;)
                pause();
        }
        CHECK(read(ready[0], &(char){0}, 1) == 1);
        kill(child, SIGKILL);
        since = clock_now();
        CHECK(get_waiting(queue, &place, 10 * SECOND) == QUEUE_OK && number_in_place() == round);
        since = clock_now() - since;
        longest = since > longest ? since : longest;
        sum += since;
        CHECK(waitpid(child, NULL, 0) == child);
        close(ready[0]);
        close(ready[1]);
    }
    printf("leases: a death is noticed in %.1f ms on average, %.1f ms at most\n", (double)sum / 20e6, (double)longest / 1e6);
    CHECK(longest < 10 * SECOND / 10);
    queue_close(queue);
    close(file);
}

/* A random run beside a model */

#define HANDLES 3
#define FULL 12
#define MOST 2 /* deliveries */

enum when { NEVER, LATE, AT_ONCE }; /* when a hold or a delay ends */

struct message {
    enum cell_state state;
    uint32_t number;
    unsigned priority, deliveries, failures;
    enum when when;
    int holder;
    struct queue_lease lease;
};

static struct message model[FULL];
static struct queue *handles[HANDLES];
static uint64_t chance;

static uint32_t random_below(uint32_t count)
{
    return random_next(&chance) % count;
}

static int64_t time_of(enum when when)
{
    return when == NEVER ? 0 : when == LATE ? HOUR : 1;
}

static unsigned model_count(enum cell_state state)
{
    unsigned count = 0;

    for (int which = 0; which < FULL; which++)
        count += model[which].state == state;
    return count;
}

static void model_fail(struct message *message, enum when delay)
{
    message->failures++;
    message->state = message->failures >= MOST ? CELL_DEAD : delay != NEVER ? CELL_DELAYED : CELL_READY;
    message->when = delay;
}

static void model_tend(void)
{
    for (int which = 0; which < FULL; which++) {
        struct message *message = &model[which];

        if (message->state == CELL_LEASED && message->when == AT_ONCE)
            model_fail(message, NEVER);
        else if (message->state == CELL_DELAYED && message->when == AT_ONCE)
            message->state = CELL_READY;
    }
}

/* The first message in a state: of the highest priority, unless it is dead. */
static struct message *model_first(enum cell_state state)
{
    struct message *first = NULL;

    for (int which = 0; which < FULL; which++) {
        struct message *message = &model[which];
        bool urgent = state == CELL_READY && first != NULL && message->priority != first->priority;

        if (message->state == state &&
            (first == NULL || (urgent ? message->priority > first->priority : message->number < first->number)))
            first = message;
    }
    return first;
}

static void random_put(struct queue *queue, uint32_t number)
{
    struct queue_piece piece = {.data = bytes, .size = 8 + random_below(60), .priority = random_below(3)};
    enum when delay = random_below(2) ? NEVER : random_below(2) ? LATE : AT_ONCE;
    enum queue_result result;

    tag_write(bytes, piece.size, (struct tag){7, number});
    result = delay == NEVER ? queue_put_piece(queue, &piece, PATIENCE)
                            : lease_put_delayed(queue, &piece, time_of(delay), PATIENCE);
    for (int which = 0; which < FULL; which++) {
        if (model[which].state != CELL_NONE)
            continue;
        CHECK(result == QUEUE_OK);
        model[which] = (struct message){.state = delay == NEVER ? CELL_READY : CELL_DELAYED,
                                        .number = number,
                                        .priority = piece.priority,
                                        .when = delay};
        return;
    }
    CHECK(result == QUEUE_FULL);
}

static void random_lease(int holder)
{
    enum when hold = random_below(3) ? NEVER : random_below(2) ? LATE : AT_ONCE;
    struct message *expected;
    struct queue_lease taken;
    size_t count;

    model_tend();
    expected = model_first(CELL_READY);
    if (queue_lease(handles[holder], place_for, &place, ++serials, time_of(hold), &taken, 1, &count, PATIENCE) != QUEUE_OK) {
        CHECK(expected == NULL);
        return;
    }
    CHECK(expected != NULL && number_in_place() == expected->number && place.priority == expected->priority);
    expected->state = CELL_LEASED;
    expected->when = hold;
    expected->holder = holder;
    expected->lease = taken;
    CHECK(taken.deliveries == ++expected->deliveries);
}

static void random_settle(int holder)
{
    struct message *message = &model[random_below(FULL)];
    enum lease_verdict verdict = (enum lease_verdict)random_below(4);
    enum when delay = random_below(2) ? NEVER : random_below(2) ? LATE : AT_ONCE;
    bool valid = message->state == CELL_LEASED && message->holder == holder && message->when != AT_ONCE;

    /* Only what is asked about is sure to be tended. */
    if (message->state == CELL_LEASED && message->holder == holder && message->when == AT_ONCE)
        model_fail(message, NEVER);
    CHECK(settle(handles[holder], message->lease, verdict, time_of(delay)) == valid);
    if (!valid)
        return;
    if (verdict == LEASE_ACK) {
        message->state = CELL_NONE;
    } else if (verdict == LEASE_REJECT) {
        message->state = CELL_DEAD;
    } else if (verdict == LEASE_FAIL) {
        model_fail(message, delay);
    } else {
        message->state = delay == NEVER ? CELL_READY : CELL_DELAYED;
        message->when = delay;
    }
}

static void random_extend(int holder)
{
    struct message *message = &model[random_below(FULL)];
    bool valid = message->state == CELL_LEASED && message->holder == holder && message->when != AT_ONCE;
    enum when hold = random_below(2) ? LATE : AT_ONCE;
    bool lost;

    if (message->state == CELL_LEASED && message->holder == holder && message->when == AT_ONCE)
        model_fail(message, NEVER);
    CHECK(lease_extend(handles[holder], &(struct lease_token){message->lease.cell, message->lease.serial}, 1,
                       time_of(hold), &lost, PATIENCE) == QUEUE_OK);
    CHECK(lost == !valid);
    if (valid)
        message->when = hold;
}

/* Ends a handle, by death or not, and opens another. */
static void random_end(int holder, int file)
{
    bool killed = random_below(2);
    int64_t wait;

    if (killed) {
        queue_abandon(handles[holder]);
        free(handles[holder]);
    } else {
        queue_close(handles[holder]);
    }
    if (random_below(2))
        handles[(holder + 1) % HANDLES]->segment->state.hint = random_below(4);
    handles[holder] = queue_open(file);
    handles[holder]->segment->leases.looked = 0;
    CHECK(lease_tend(handles[holder], &wait, PATIENCE) == QUEUE_OK);
    for (int which = 0; which < FULL; which++) {
        struct message *message = &model[which];

        if (message->state != CELL_LEASED || message->holder != holder)
            continue;
        if (killed || message->when == AT_ONCE)
            model_fail(message, NEVER);
        else
            message->state = CELL_READY;
    }
}

static void random_take(struct queue *queue, bool dead)
{
    struct lease_dead letter;
    struct message *expected;
    enum queue_result result;

    model_tend();
    expected = model_first(dead ? CELL_DEAD : CELL_READY);
    result = dead ? get_dead(queue, &place, &letter, PATIENCE) : try_get(queue, &place);
    CHECK(result == (expected == NULL ? QUEUE_EMPTY : QUEUE_OK));
    if (expected == NULL)
        return;
    CHECK(number_in_place() == expected->number);
    CHECK(!dead || letter.deliveries == expected->deliveries);
    expected->state = CELL_NONE;
}

static void random_requeue(struct queue *queue)
{
    struct message *expected;
    size_t count;

    model_tend();
    expected = model_first(CELL_DEAD);
    CHECK(lease_requeue(queue, 1, &count, PATIENCE) == QUEUE_OK && count == (expected != NULL));
    if (expected != NULL) {
        expected->state = CELL_READY;
        expected->failures = 0;
    }
}

static void random_clear(struct queue *queue)
{
    size_t count;

    model_tend();
    queue_clear(queue, &count, PATIENCE);
    CHECK(count == model_count(CELL_READY) + model_count(CELL_DELAYED));
    for (int which = 0; which < FULL; which++)
        if (model[which].state == CELL_READY || model[which].state == CELL_DELAYED)
            model[which].state = CELL_NONE;
}

static void a_random_run_is_as_the_model(uint64_t seed)
{
    uint64_t limit = FULL * layout_message_size(68, FLAG_LEASES);
    int file = queue_file_with_leases(FLAG_ORDERED, limit, FULL, 68, MOST);

    chance = seed;
    memset(model, 0, sizeof model);
    for (int which = 0; which < HANDLES; which++)
        handles[which] = queue_open(file);
    for (uint32_t step = 0; step < 20000; step++) {
        int holder = (int)random_below(HANDLES);
        struct queue *queue = handles[holder];
        struct queue_total puts, gets;

        switch (random_below(24)) {
        case 0:
            random_end(holder, file);
            break;
        case 1:
            random_requeue(queue);
            break;
        case 2:
            if (random_below(10) == 0)
                random_clear(queue);
            break;
        case 3:
            queue->segment->put.lock.word = FUTEX_OWNER_DIED; /* all that can be derived is derived again */
            queue->segment->leases.looked = 0;
            break;
        case 4:
        case 5:
            random_take(queue, true);
            break;
        case 6:
            random_take(queue, false);
            break;
        case 7:
        case 8:
            random_extend(holder);
            break;
        default:
            if (random_below(3) == 0)
                random_put(queue, step);
            else if (random_below(2) == 0)
                random_lease(holder);
            else
                random_settle(holder);
        }
        if (random_below(4) != 0)
            continue; /* counting tends, too */
        model_tend();
        expect_counts(handles[holder], model_count(CELL_READY), model_count(CELL_LEASED), model_count(CELL_DELAYED),
                      model_count(CELL_DEAD));
        side_totals(handles[holder], &puts, &gets);
        CHECK(puts.count - gets.count == FULL - model_count(CELL_NONE));
    }
    for (int which = 0; which < HANDLES; which++)
        queue_close(handles[which]);
    close(file);
}

/* Invalid numbers at every place while messages are leased: no call may access memory outside the queue, or hang. */
static void harm_stays_in_the_segment(uint64_t seed)
{
    static const uint32_t hostile[] = {0, 1, 2, 3, 4, 0x103, 64, 4095, 4096, 1u << 24, 1u << 31, UINT32_MAX};
    int file = queue_file_with_leases(seed % 2 ? FLAG_ORDERED : 0, 1 << 13, 0, 300, 2);
    struct queue *queue = queue_open(file);
    unsigned char *start = (unsigned char *)queue->segment;
    struct lease_token tokens[4] = {0};

    chance = seed;
    for (int turn = 0; turn < 300; turn++) {
        struct queue_piece piece = {.data = bytes, .size = random_below(300)};
        struct lease_order order = {.verdict = (enum lease_verdict)random_below(4),
                                    .delay = time_of((enum when)random_below(3)),
                                    .reason = bytes,
                                    .reason_size = random_below(65)};
        size_t offset = offsetof(struct segment, leases) + random_below(64), count;
        struct lease_dead letters[2];
        struct queue_lease taken[2];
        bool lost[4];
        int64_t wait;

        switch (random_below(5)) {
        case 0:
            offset = offsetof(struct segment, cells) + random_below(16);
            break;
        case 1:
            offset = (size_t)((unsigned char *)queue->holders - start) + random_below(64);
            break;
        case 2: /* a head */
            offset = (size_t)(queue->data - start) + random_below(10) * CELL_SIZE + random_below(56);
            break;
        case 3: /* the arrays, too */
            offset = (size_t)(queue->data - start) + random_below((uint32_t)queue->limit);
        }
        offset &= ~(size_t)3;
        if (random_below(3) == 0)
            memcpy(start + offset, &hostile[random_below(sizeof hostile / sizeof *hostile)], 4);
        queue->segment->leases.looked = random_below(2) ? 0 : queue->segment->leases.looked;
        switch (random_below(10)) {
        case 0:
            lease_put_delayed(queue, &piece, time_of((enum when)(1 + random_below(2))), 0);
            break;
        case 1:
            try_get(queue, &place);
            break;
        case 2:
            lease_tend(queue, &wait, 0);
            break;
        case 3:
            get_dead(queue, &place, letters, 0);
            lease_peek_dead(queue, random_below(9), place_for, &place, letters, 2, &count, 0);
            break;
        case 4:
            lease_requeue(queue, 2, &count, 0);
            break;
        case 5:
        case 6:
            lease_settle(queue, tokens, 4, &order, lost, 0);
            break;
        case 7:
            lease_extend(queue, tokens, 4, time_of((enum when)(1 + random_below(2))), lost, 0);
            break;
        case 8:
            queue_lease(queue, place_for, &place, ++serials, time_of((enum when)random_below(3)), taken, 2, &count, 0);
            for (size_t which = 0; which < count; which++)
                tokens[random_below(4)] = (struct lease_token){taken[which].cell, taken[which].serial};
            break;
        default:
            queue_put_piece(queue, &piece, 0);
        }
    }
    queue_close(queue);
    close(file);
}

int main(void)
{
    CHECK(lock_works());
    a_lease_keeps_its_place();
    what_comes_back_is_in_its_old_order();
    only_the_holder_settles_once();
    failures_count_and_returns_do_not();
    a_reason_has_its_room_at_every_size();
    dead_letters_are_listed_in_the_order_of_putting();
    a_hold_ends();
    an_extended_hold_does_not_end();
    what_is_delayed_comes_in_the_order_of_putting();
    the_leases_of_the_dead_come_back();
    a_later_owner_of_the_slot_has_none_of_them();
    a_newcomer_that_is_stopped_keeps_no_lease_of_its_slot();
    a_forked_child_has_leases_of_its_own();
    dead_letters_keep_their_place_in_a_full_queue();
    a_lease_that_was_not_counted_yet_comes_back();
    leaving_is_no_failure();
    a_recall_releases_what_was_leased();
    a_shut_down_queue_ends_when_nothing_comes_back_any_more();
    an_immediate_shutdown_leaves_the_dead_letters();
    a_waiter_learns_of_a_death();
    for (uint64_t seed = 1; seed <= 20; seed++)
        a_random_run_is_as_the_model(seed);
    for (uint64_t seed = 1; seed <= 300; seed++)
        harm_stays_in_the_segment(seed);
    printf("leases: all is as it has to be\n");
    return 0;
}
