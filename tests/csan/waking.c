/* Wake-ups, turns and holders of locks: progress of many participants. */
#include <sys/stat.h>
#include <sys/wait.h>

#include "harness.h"

#include "doorbell.h"
#include "holder.h"

#define LARGEST 40000

static unsigned char bytes[LARGEST];
static struct place place = {bytes, sizeof bytes, 0, 0};

/* Makes an event look as if so many participants slept on it and none was woken recently. */
static void put_to_sleep(struct event *event, uint32_t count)
{
    event->asleep = count;
    event->woken = 0;
}

/* Returns a child that is stopped while it holds a lock. */
static pid_t stopped_inside(int file, bool getting)
{
    pid_t child = fork_child();
    int status;

    if (child == 0) {
        struct queue *queue = queue_open(file);
        struct lock *lock = getting ? &queue->segment->get.lock : &queue->segment->put.lock;

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
    struct queue *queue = queue_open(queue_file(1 << 12, 0, 64));
    struct side *put = &queue->segment->put;
    int64_t since;

    put_to_sleep(&put->event, 3);
    put->event.turns = put->answered = 7;
    do { /* until both puts come within the time in which a sleeper may answer */
        put->answered = put->event.turns;
        since = clock_now();
        CHECK(queue_put(queue, "x", 1, 0) == QUEUE_OK);
        CHECK(put->event.turns == put->answered + 1);
        put->event.asleep = 3;
        CHECK(queue_put(queue, "x", 1, 0) == QUEUE_OK);
        CHECK(try_get(queue, &place) == QUEUE_OK && try_get(queue, &place) == QUEUE_OK);
    } while (clock_now() - since >= 1000000);
    CHECK(put->event.turns == put->answered + 1);
    /* After that time another sleeper is woken. */
    put->event.woken = clock_now() - 2000000;
    CHECK(queue_put(queue, "x", 1, 0) == QUEUE_OK && put->event.turns == put->answered + 2);
    /* A participant that made progress wakes the next, if there is more work. */
    put->answered = put->event.turns;
    put->event.asleep = 3;
    wait_pass_on(queue, true);
    CHECK(put->event.turns == put->answered + 1);
    CHECK(try_get(queue, &place) == QUEUE_OK);
    put->answered = put->event.turns;
    put->event.asleep = 3;
    wait_pass_on(queue, true);
    CHECK(put->event.turns == put->answered);
    queue_close(queue);
}

static bool never(void *whom)
{
    (void)whom;
    return false;
}

static void who_was_woken_answers(void)
{
    int file = queue_file(1 << 12, 0, 64);
    struct queue *queue = queue_open(file);
    struct side *put = &queue->segment->put;
    pid_t child = fork_child();

    if (child == 0) {
        struct queue *sleeper = queue_open(file);

        put = &sleeper->segment->put;
        event_sleep(&put->event, &put->answered, &sleeper->reading, clock_now() + 10 * SECOND, never, NULL);
        _exit(0);
    }
    while (put->event.asleep == 0)
        usleep(1000);
    CHECK(put->answered == 0 && queue_put(queue, "x", 1, 0) == QUEUE_OK);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(put->event.turns == 1 && put->answered == 1);
    /* A sleeper that wakes at the end of its slice was not woken, so it does not answer. */
    put->event.turns = 5;
    event_sleep(&put->event, &put->answered, &queue->reading, clock_now() + 1000000, never, NULL);
    CHECK(put->answered == 1 && put->event.asleep == 0);
    queue_close(queue);
    close(file);
}

static void a_consumer_that_takes_little_wakes_a_producer(void)
{
    for (int ordered = 0; ordered < 2; ordered++) {
        struct queue *queue = queue_open(queue_file_of(ordered ? FLAG_ORDERED : 0, 1 << 16, 0, 64));
        struct side *get = &queue->segment->get;

        while (queue_put(queue, bytes, 64, 0) == QUEUE_OK)
            continue;
        put_to_sleep(&get->event, 1);
        CHECK(try_get(queue, &place) == QUEUE_OK && get->event.turns == 1);
        queue_close(queue);
    }
}

static void a_copy_that_ends_while_the_lock_is_busy_gives_its_space_back(void)
{
    for (int dies = 0; dies < 2; dies++) {
        int file = queue_file(2 * ring_record_size(LARGEST), 0, LARGEST);
        struct queue *queue = queue_open(file);
        struct side *get = &queue->segment->get;
        struct queue_copy copy;
        pid_t child;

        CHECK(queue_put(queue, bytes, LARGEST, 0) == QUEUE_OK && queue_put(queue, bytes, 8, 0) == QUEUE_OK);
        CHECK(queue_get(queue, place_for, &place, &copy, 0) == QUEUE_COPYING);
        child = stopped_inside(file, true);
        put_to_sleep(&get->event, 1);
        queue_release(queue, &copy);
        CHECK(get->held != 0 && get->event.turns == 1); /* a producer was woken to check */
        (dies ? end : go_on)(child);
        put_to_sleep(&get->event, 1);
        CHECK(try_get(queue, &place) == QUEUE_OK && get->held == 0 && get->event.turns == 2);
        queue_close(queue);
        close(file);
    }
}

static void what_a_dead_producer_gave_up_is_space_for_who_sleeps(void)
{
    int file = queue_file(2 * ring_record_size(LARGEST), 0, LARGEST);
    struct queue *queue = queue_open(file);
    struct side *get = &queue->segment->get;
    struct ring_record *record = (struct ring_record *)queue->data;

    CHECK(queue_put(queue, bytes, LARGEST, 0) == QUEUE_OK);
    record->word = RECORD_RESERVED | UINT64_C(77) << 8 | UINT64_C(1) << 32; /* of a slot without a participant */
    put_to_sleep(&get->event, 1);
    CHECK(try_get(queue, &place) == QUEUE_EMPTY && get->event.turns == 1);
    queue_close(queue);
    close(file);
}

static void a_turn_ends_where_others_sleep(void)
{
    struct queue *queue = queue_open(queue_file(1 << 20, 0, 64));
    struct side *put = &queue->segment->put, *get = &queue->segment->get;
    _Atomic uint32_t *watch = &queue->segment->state.attention;
    struct queue_copy copy;
    struct queue_piece piece = PIECE(bytes, 8);
    size_t stored;

    *watch = ATTEND_PUT_CROWD | ATTEND_GET_CROWD;
    get->event.asleep = put->event.asleep = UINT32_MAX; /* more than this test ever wakes */
    for (int turn = 0; turn < 3; turn++) {
        for (int count = 0; count < EVENT_TURN; count++)
            CHECK(queue_put_many(queue, &piece, 1, &stored, QUEUE_POLITE) == QUEUE_OK);
        CHECK(queue_put_many(queue, &piece, 1, &stored, QUEUE_POLITE) == QUEUE_CROWDED && stored == 0);
        for (int count = 0; count < EVENT_TURN; count++)
            CHECK(queue_get(queue, place_for, &place, &copy, QUEUE_POLITE) == QUEUE_OK);
        CHECK(queue_put(queue, bytes, 8, 0) == QUEUE_OK);
        CHECK(queue_get(queue, place_for, &place, &copy, QUEUE_POLITE) == QUEUE_CROWDED);
        CHECK(queue_get(queue, place_for, &place, &copy, 0) == QUEUE_OK);
    }
    /* A call that must not wait never gives way, and no call does without sleepers. */
    for (int count = 0; count < 2 * EVENT_TURN; count++)
        CHECK(queue_put(queue, bytes, 8, 0) == QUEUE_OK && try_get(queue, &place) == QUEUE_OK);
    get->event.asleep = put->event.asleep = 0;
    CHECK(queue_put_many(queue, &piece, 1, &stored, QUEUE_POLITE) == QUEUE_OK);
    CHECK(queue_get(queue, place_for, &place, &copy, QUEUE_POLITE) == QUEUE_OK && *watch == 0);
    queue_close(queue);
}

static void who_gives_way_wakes_one_and_comes_back(void)
{
    struct queue *queue = queue_open(queue_file(1 << 12, 0, 64));
    struct event *event = &queue->segment->get.event;

    put_to_sleep(event, 1);
    wait_give_way(queue, false, clock_now() + SECOND);
    CHECK(event->turns == 1 && event->asleep == 0);
    wait_give_way(queue, true, clock_now()); /* no time to wait */
    queue_close(queue);
}

static void a_holder_is_known_to_who_waited(void)
{
    int file = queue_file(1 << 12, 0, 64);
    struct queue *queue = queue_open(file);
    int64_t begin = clock_now();
    struct holder holder;
    pid_t child;

    for (int getting = 0; getting < 2; getting++) {
        CHECK(queue_put(queue, "x", 1, 0) == QUEUE_OK);
        child = stopped_inside(file, getting);
        holder = holder_find(queue, getting);
        CHECK(holder.thread == (uint32_t)child && holder.since == 0);
        if (getting)
            CHECK(try_get(queue, &place) == QUEUE_BUSY);
        else
            CHECK(queue_put(queue, "x", 1, PATIENCE) == QUEUE_BUSY);
        holder = holder_find(queue, getting);
        CHECK(holder.thread == (uint32_t)child && holder.since >= begin && holder.since <= clock_now());
        begin = holder.since;
        if (getting)
            CHECK(try_get(queue, &place) == QUEUE_BUSY);
        else
            CHECK(queue_put(queue, "x", 1, PATIENCE) == QUEUE_BUSY);
        CHECK(holder_find(queue, getting).since == begin); /* since it was first seen */
        CHECK(holder_found_busy(queue, getting) && !holder_found_busy(queue, getting));
        holder_await(queue, getting, clock_now() + 1000000);
        end(child);
        holder_await(queue, getting, INT64_MAX); /* which is free */
        CHECK(holder_find(queue, getting).thread == 0);
        CHECK(try_get(queue, &place) == QUEUE_OK);
    }
    queue_close(queue);
    close(file);
}

static void a_message_that_is_not_finished_has_a_writer(void)
{
    int file = queue_file(2 * ring_record_size(LARGEST), 0, LARGEST);
    struct queue *queue = queue_open(file), *writer = queue_open(file);
    struct ring_record *record = (struct ring_record *)queue->data;

    CHECK(holder_find(queue, true).writer == -1);
    CHECK(queue_put(queue, bytes, LARGEST, 0) == QUEUE_OK);
    /* No writer is noted for a finished record, even if there is no time to check; it would be mistaken for the next
     * one. */
    CHECK(queue_settle(queue, true, 0) && queue->segment->get.holder_since == 0);
    record->word = RECORD_RESERVED | participant_word(writer, 0);
    CHECK(holder_find(queue, true).writer == (int32_t)writer->slot && holder_find(queue, false).writer == -1);
    CHECK(holder_find(queue, true).since == 0);
    CHECK(queue_settle(queue, true, 1000000) && holder_find(queue, true).since != 0);
    queue_close(writer);
    queue_close(queue);
    close(file);
}

/* If the doorbell has to be repaired, a call without patience, which holds the GIL, reports QUEUE_BUSY. */
static void a_doorbell_is_not_waited_for_without_patience(void)
{
    char bell_path[64];
    struct queue *queue;
    struct queue_copy copy;
    int file, put;
    pid_t child;

    file = queue_file(1 << 12, 0, 64);
    queue = queue_open(file);
    snprintf(bell_path, sizeof bell_path, "/dev/shm/ipcq-waking-%d", (int)getpid());
    CHECK(mkfifo(bell_path, 0600) == 0);
    put = open(bell_path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    CHECK(put >= 0 && unlink(bell_path) == 0);
    CHECK(doorbell_adopt(queue, put));
    queue->segment->state.doorbell = queue->doorbell_inode;
    CHECK(doorbell_arm(queue) == QUEUE_OK);
    child = stopped_inside(file, false);
    CHECK(queue_get(queue, place_for, &place, &copy, 0) == QUEUE_BUSY);
    CHECK(queue_get(queue, place_for, &place, &copy, 1) == QUEUE_EMPTY);
    end(child);
    CHECK(queue_get(queue, place_for, &place, &copy, 0) == QUEUE_EMPTY);
    queue_close(queue);
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
    puts("waking: all passed");
    return 0;
}
