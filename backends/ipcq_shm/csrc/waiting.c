#include "waiting.h"

#include "attention.h"
#include "clock.h"
#include "ending.h"
#include "flavour.h"
#include "side.h"

/* How long a call that gives way sleeps at most, in nanoseconds. */
#define LONGEST_BEHIND 20000000

static bool has_ended(void *context)
{
    return ending_for_handle(context);
}

static bool readable(void *context)
{
    struct queue *queue = context;

    if (queue->flavour->is_empty != NULL)
        return !queue->flavour->is_empty(queue) || ending_for_handle(queue);
    return atomic_load_explicit(&queue->segment->put.position, memory_order_seq_cst) !=
               word_peek(&queue->segment->get.position) ||
           ending_for_handle(queue);
}

/* What a producer waits for. */
struct wish {
    struct queue *queue;
    uint64_t size;
};

static bool writable(void *context)
{
    const struct wish *wish = context;

    return wish->queue->flavour->has_space(wish->queue, wish->size) || ending_for_puts(wish->queue);
}

/* What a producer spins for: space for many messages. If it continued with space for one, both sides would wait for
 * each other's cache lines. */
static bool roomy(void *context)
{
    const struct wish *wish = context;

    return ending_for_puts(wish->queue) || (wish->queue->flavour->much_is_free(wish->queue) && writable(context));
}

bool wait_spin_readable(struct queue *queue, int64_t since, int64_t until)
{
    return event_spin(&queue->segment->get.spinner, &queue->reading, since, until, readable, queue);
}

bool wait_spin_writable(struct queue *queue, size_t size, int64_t since, int64_t until)
{
    struct wish wish = {queue, size};

    return event_spin(&queue->segment->put.spinner, &queue->writing, since, until, roomy, &wish);
}

void wait_sleep_readable(struct queue *queue, int64_t until)
{
    struct side *put = &queue->segment->put;

    if (queue->flavour->wake_at != NULL) {
        int64_t sooner = queue->flavour->wake_at(queue);

        until = sooner < until ? sooner : until;
    }
    if (event_sleep(&put->event, &put->answered, &queue->reading, until, readable, queue))
        attention_note_crowd(queue, ATTEND_GET_CROWD);
}

void wait_sleep_writable(struct queue *queue, size_t size, int64_t until)
{
    struct side *get = &queue->segment->get;
    struct wish wish = {queue, size};

    if (event_sleep(&get->event, &get->answered, &queue->writing, until, writable, &wish))
        attention_note_crowd(queue, ATTEND_PUT_CROWD);
}

void wait_rouse(struct queue *queue)
{
    event_wake(&queue->segment->put.event, UINT32_MAX);
    event_wake(&queue->segment->get.event, UINT32_MAX);
}

void wait_count(struct queue *queue, bool served)
{
    atomic_fetch_add_explicit(&queue->segment->figures.waits, 1, memory_order_relaxed);
    if (served) {
        wait_pass_on(queue, false);
        wait_pass_on(queue, true);
    } else {
        atomic_fetch_add_explicit(&queue->segment->figures.timeouts, 1, memory_order_relaxed);
    }
}

void wait_pass_on(struct queue *queue, bool getting)
{
    struct side *other = getting ? &queue->segment->put : &queue->segment->get;

    if (event_asleep(&other->event) != 0 && (getting ? readable(queue) : queue->flavour->has_space(queue, 0)))
        event_wake_one(&other->event, &other->answered);
}

void wait_give_way(struct queue *queue, bool getting, int64_t until)
{
    struct side *other = getting ? &queue->segment->put : &queue->segment->get;
    int64_t last = clock_now() + LONGEST_BEHIND;

    event_wake_one(&other->event, &other->answered);
    event_sleep(&other->event, &other->answered, getting ? &queue->reading : &queue->writing,
                until < last ? until : last, has_ended, queue);
}
