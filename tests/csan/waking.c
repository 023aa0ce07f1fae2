/* Wake-ups, turns and holders of locks: what lets many participants get on side by side. */
#include <sys/stat.h>
#include <sys/wait.h>

#include "queue.h"
#include "watch.h"

#define LARGEST 40000

static unsigned char bytes[LARGEST];
static struct place place = {bytes, sizeof bytes, 0, 0};

/* Makes a bell look as if so many slept on it and none was woken lately. */
static void put_to_sleep(struct bell *bell, uint32_t count)
{
    bell->asleep = count;
    bell->woken = 0;
}

/* Returns a child that is stopped while it holds a lock. */
static pid_t stopped_inside(int file, bool getting)
{
    pid_t child = fork_child();
    int status;

    if (child == 0) {
        struct ring *ring = queue_open(file);
        struct lock *lock = getting ? &ring->segment->get.lock : &ring->segment->put.lock;

        CHECK(lock_take(lock, 0) == LOCK_TAKEN);
        raise(SIGSTOP);
        lock_give(lock);
        _exit(0);
    }
    CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
    return child;
}

static void end(pid_t child)
{
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
}

static void go_on(pid_t child)
{
    CHECK(kill(child, SIGCONT) == 0 && waitpid(child, NULL, 0) == child);
}

static void one_sleeper_is_woken_at_a_time(void)
{
    struct ring *ring = queue_open(queue_file(1 << 12, 0, 64));
    struct ring_side *put = &ring->segment->put;
    int64_t since;

    put_to_sleep(&put->bell, 3);
    put->bell.turns = put->answered = 7;
    do { /* until the two come within the time that a wake-up may be on its way */
        put->answered = put->bell.turns;
        since = wait_now();
        CHECK(ring_put(ring, "x", 1, 0) == RING_OK);
        CHECK(put->bell.turns == put->answered + 1);
        put->bell.asleep = 3;
        CHECK(ring_put(ring, "x", 1, 0) == RING_OK);
        CHECK(try_get(ring, &place) == RING_OK && try_get(ring, &place) == RING_OK);
    } while (wait_now() - since >= 1000000);
    CHECK(put->bell.turns == put->answered + 1);
    /* One that does not answer in time is not relied on. */
    put->bell.woken = wait_now() - 2000000;
    CHECK(ring_put(ring, "x", 1, 0) == RING_OK && put->bell.turns == put->answered + 2);
    /* And whoever got on wakes the next, if there is more. */
    put->answered = put->bell.turns;
    put->bell.asleep = 3;
    ring_pass_on(ring, true);
    CHECK(put->bell.turns == put->answered + 1);
    CHECK(try_get(ring, &place) == RING_OK);
    put->answered = put->bell.turns;
    put->bell.asleep = 3;
    ring_pass_on(ring, true);
    CHECK(put->bell.turns == put->answered);
    queue_close(ring);
}

static bool never(void *whom)
{
    (void)whom;
    return false;
}

static void who_was_woken_answers(void)
{
    int file = queue_file(1 << 12, 0, 64);
    struct ring *ring = queue_open(file);
    struct ring_side *put = &ring->segment->put;
    pid_t child = fork_child();

    if (child == 0) {
        struct ring *sleeper = queue_open(file);

        put = &sleeper->segment->put;
        wait_sleep(&put->bell, &put->answered, &sleeper->reading, wait_now() + 10 * SECOND, never, NULL);
        _exit(0);
    }
    while (put->bell.asleep == 0)
        usleep(1000);
    CHECK(put->answered == 0 && ring_put(ring, "x", 1, 0) == RING_OK);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(put->bell.turns == 1 && put->answered == 1);
    /* Nobody has woken who looks around by itself. */
    put->bell.turns = 5;
    wait_sleep(&put->bell, &put->answered, &ring->reading, wait_now() + 1000000, never, NULL);
    CHECK(put->answered == 1 && put->bell.asleep == 0);
    queue_close(ring);
    close(file);
}

static void a_consumer_that_takes_little_wakes_a_producer(void)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        struct ring *ring = queue_open(queue_file_of(ordered ? RING_ORDERED : 0, 1 << 16, 0, 64));
        struct ring_side *get = &ring->segment->get;

        while (ring_put(ring, bytes, 64, 0) == RING_OK)
            continue;
        put_to_sleep(&get->bell, 1);
        CHECK(try_get(ring, &place) == RING_OK && get->bell.turns == 1);
        queue_close(ring);
    }
}

static void a_copy_that_ends_while_the_lock_is_busy_gives_its_space_back(void)
{
    for (int dies = 0; dies < 2; dies++) {
        int file = queue_file(2 * ring_record_size(LARGEST), 0, LARGEST);
        struct ring *ring = queue_open(file);
        struct ring_side *get = &ring->segment->get;
        struct ring_copy copy;
        pid_t child;

        CHECK(ring_put(ring, bytes, LARGEST, 0) == RING_OK && ring_put(ring, bytes, 8, 0) == RING_OK);
        CHECK(ring_get(ring, place_for, &place, &copy, 0) == RING_COPYING);
        child = stopped_inside(file, true);
        put_to_sleep(&get->bell, 1);
        ring_release(ring, &copy);
        CHECK(get->held != 0 && get->bell.turns == 1); /* a producer is to look */
        (dies ? end : go_on)(child);
        put_to_sleep(&get->bell, 1);
        CHECK(try_get(ring, &place) == RING_OK && get->held == 0 && get->bell.turns == 2);
        queue_close(ring);
        close(file);
    }
}

static void what_a_dead_producer_gave_up_is_space_for_who_sleeps(void)
{
    int file = queue_file(2 * ring_record_size(LARGEST), 0, LARGEST);
    struct ring *ring = queue_open(file);
    struct ring_side *get = &ring->segment->get;
    struct ring_record *record = (struct ring_record *)ring->data;

    CHECK(ring_put(ring, bytes, LARGEST, 0) == RING_OK);
    record->word = RING_RESERVED | UINT64_C(77) << 8 | UINT64_C(1) << 32; /* of a slot that nobody has */
    put_to_sleep(&get->bell, 1);
    CHECK(try_get(ring, &place) == RING_EMPTY && get->bell.turns == 1);
    queue_close(ring);
    close(file);
}

static void a_turn_ends_where_others_sleep(void)
{
    struct ring *ring = queue_open(queue_file(1 << 20, 0, 64));
    struct ring_side *put = &ring->segment->put, *get = &ring->segment->get;
    _Atomic uint32_t *watch = &ring->segment->state.watch;
    struct ring_copy copy;
    struct ring_piece piece = PIECE(bytes, 8);
    size_t stored;

    *watch = RING_PUT_CROWD | RING_GET_CROWD;
    get->bell.asleep = put->bell.asleep = UINT32_MAX; /* more than are ever woken here */
    for (int turn = 0; turn < 3; turn++) {
        for (int count = 0; count < TURN; count++)
            CHECK(ring_put_many(ring, &piece, 1, &stored, RING_POLITE) == RING_OK);
        CHECK(ring_put_many(ring, &piece, 1, &stored, RING_POLITE) == RING_CROWDED && stored == 0);
        for (int count = 0; count < TURN; count++)
            CHECK(ring_get(ring, place_for, &place, &copy, RING_POLITE) == RING_OK);
        CHECK(ring_put(ring, bytes, 8, 0) == RING_OK);
        CHECK(ring_get(ring, place_for, &place, &copy, RING_POLITE) == RING_CROWDED);
        CHECK(ring_get(ring, place_for, &place, &copy, 0) == RING_OK);
    }
    /* A call that must not wait never gives way, and nobody does where nobody sleeps. */
    for (int count = 0; count < 2 * TURN; count++)
        CHECK(ring_put(ring, bytes, 8, 0) == RING_OK && try_get(ring, &place) == RING_OK);
    get->bell.asleep = put->bell.asleep = 0;
    CHECK(ring_put_many(ring, &piece, 1, &stored, RING_POLITE) == RING_OK);
    CHECK(ring_get(ring, place_for, &place, &copy, RING_POLITE) == RING_OK && *watch == 0);
    queue_close(ring);
}

static void who_gives_way_wakes_one_and_comes_back(void)
{
    struct ring *ring = queue_open(queue_file(1 << 12, 0, 64));
    struct bell *bell = &ring->segment->get.bell;

    put_to_sleep(bell, 1);
    ring_give_way(ring, false, wait_now() + SECOND);
    CHECK(bell->turns == 1 && bell->asleep == 0);
    ring_give_way(ring, true, wait_now()); /* no time to wait */
    queue_close(ring);
}

static void a_holder_is_known_to_who_waited(void)
{
    int file = queue_file(1 << 12, 0, 64);
    struct ring *ring = queue_open(file);
    int64_t begin = wait_now();
    struct ring_holder holder;
    pid_t child;

    for (int getting = 0; getting < 2; getting++) {
        CHECK(ring_put(ring, "x", 1, 0) == RING_OK);
        child = stopped_inside(file, getting);
        holder = ring_holder(ring, getting);
        CHECK(holder.thread == (uint32_t)child && holder.since == 0);
        if (getting)
            CHECK(try_get(ring, &place) == RING_BUSY);
        else
            CHECK(ring_put(ring, "x", 1, PATIENCE) == RING_BUSY);
        holder = ring_holder(ring, getting);
        CHECK(holder.thread == (uint32_t)child && holder.since >= begin && holder.since <= wait_now());
        begin = holder.since;
        if (getting)
            CHECK(try_get(ring, &place) == RING_BUSY);
        else
            CHECK(ring_put(ring, "x", 1, PATIENCE) == RING_BUSY);
        CHECK(ring_holder(ring, getting).since == begin); /* since it was first seen */
        CHECK(ring_found_busy(ring, getting) && !ring_found_busy(ring, getting));
        ring_await_lock(ring, getting, wait_now() + 1000000);
        end(child);
        ring_await_lock(ring, getting, INT64_MAX); /* which is free */
        CHECK(ring_holder(ring, getting).thread == 0);
        CHECK(try_get(ring, &place) == RING_OK);
    }
    queue_close(ring);
    close(file);
}

static void a_message_that_is_not_finished_has_a_writer(void)
{
    int file = queue_file(2 * ring_record_size(LARGEST), 0, LARGEST);
    struct ring *ring = queue_open(file), *writer = queue_open(file);
    struct ring_record *record = (struct ring_record *)ring->data;

    CHECK(ring_holder(ring, true).writer == -1);
    CHECK(ring_put(ring, bytes, LARGEST, 0) == RING_OK);
    /* Of one that is finished none is noted, also where there is no time to look; it would be taken for the next. */
    CHECK(ring_settle(ring, true, 0) && ring->segment->get.holder_since == 0);
    record->word = RING_RESERVED | ring_identity(writer);
    CHECK(ring_holder(ring, true).writer == (int32_t)writer->slot && ring_holder(ring, false).writer == -1);
    CHECK(ring_holder(ring, true).since == 0);
    CHECK(ring_settle(ring, true, 1000000) && ring_holder(ring, true).since != 0);
    queue_close(writer);
    queue_close(ring);
    close(file);
}

/* If the doorbell has to be repaired, a call without patience, which holds the GIL, reports RING_BUSY. */
static void a_doorbell_is_not_waited_for_without_patience(void)
{
    char bell_path[64];
    struct ring *ring;
    struct ring_copy copy;
    int file, put;
    pid_t child;

    file = queue_file(1 << 12, 0, 64);
    ring = queue_open(file);
    snprintf(bell_path, sizeof bell_path, "/dev/shm/ipcq-waking-%d", (int)getpid());
    CHECK(mkfifo(bell_path, 0600) == 0);
    put = open(bell_path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    CHECK(put >= 0 && unlink(bell_path) == 0);
    CHECK(watch_adopt(ring, put));
    ring->segment->state.doorbell = ring->bell_inode;
    CHECK(watch_arm(ring) == RING_OK);
    child = stopped_inside(file, false);
    CHECK(ring_get(ring, place_for, &place, &copy, 0) == RING_BUSY);
    CHECK(ring_get(ring, place_for, &place, &copy, 1) == RING_EMPTY);
    end(child);
    CHECK(ring_get(ring, place_for, &place, &copy, 0) == RING_EMPTY);
    queue_close(ring);
    close(file);
}

int main(void)
{
    CHECK(lock_works());
    one_sleeper_is_woken_at_a_time();
    who_was_woken_answers();
    a_consumer_that_takes_little_wakes_a_producer();
    a_copy_that_ends_while_the_lock_is_busy_gives_its_space_back();
    what_a_dead_producer_gave_up_is_space_for_who_sleeps();
    a_turn_ends_where_others_sleep();
    who_gives_way_wakes_one_and_comes_back();
    a_holder_is_known_to_who_waited();
    a_message_that_is_not_finished_has_a_writer();
    a_doorbell_is_not_waited_for_without_patience();
    puts("waking: all is well");
    return 0;
}
