/* The table of C functions for ipcq's put, get and leases (<ipcq/channel.h>). */
#include "binding.h"

#include <stddef.h>
#include <stdlib.h>

#include "holder.h"
#include "lease.h"
#include "side.h"
#include "waiting.h"

/* ipcq's pieces, loans and tokens are used without a conversion, so both structs must have the same layout. */
_Static_assert(sizeof(struct ipcq_piece) == sizeof(struct queue_piece), "sizeof");
_Static_assert(offsetof(struct ipcq_piece, size) == offsetof(struct queue_piece, size), "size");
_Static_assert(offsetof(struct ipcq_piece, priority) == offsetof(struct queue_piece, priority), "priority");
_Static_assert(offsetof(struct ipcq_piece, head_size) == offsetof(struct queue_piece, head_size), "head_size");
_Static_assert(offsetof(struct ipcq_piece, head) == offsetof(struct queue_piece, head), "head");
_Static_assert(sizeof(struct ipcq_loan) == sizeof(struct queue_lease), "sizeof");
_Static_assert(offsetof(struct ipcq_loan, serial) == offsetof(struct queue_lease, serial), "serial");
_Static_assert(offsetof(struct ipcq_loan, place) == offsetof(struct queue_lease, cell), "place");
_Static_assert(offsetof(struct ipcq_loan, deliveries) == offsetof(struct queue_lease, deliveries), "deliveries");
_Static_assert(offsetof(struct ipcq_loan, failures) == offsetof(struct queue_lease, failures), "failures");
_Static_assert(sizeof(struct ipcq_token) == sizeof(struct lease_token), "sizeof");
_Static_assert(offsetof(struct ipcq_token, place) == offsetof(struct lease_token, cell), "place");
_Static_assert(offsetof(struct ipcq_token, serial) == offsetof(struct lease_token, serial), "serial");
_Static_assert(sizeof(bool) == sizeof(unsigned char), "lost");
_Static_assert(IPCQ_LARGE == QUEUE_LARGE, "what is copied without the ring's lock is copied without the GIL");

static int outcome(enum queue_result result)
{
    switch (result) {
    case QUEUE_OK:
        return IPCQ_OK;
    case QUEUE_FULL:
        return IPCQ_FULL;
    case QUEUE_EMPTY:
        return IPCQ_EMPTY;
    case QUEUE_CROWDED:
        return IPCQ_CROWDED;
    case QUEUE_NO_MEMORY: /* `place` needs a larger space */
        return IPCQ_LARGER;
    default:
        return IPCQ_OTHER;
    }
}

static struct queue *queue_of(void *context)
{
    struct channel *channel = context;

    return channel->open ? &channel->queue : NULL;
}

/* Putting */

static int put_piece(struct queue *queue, const struct ipcq_piece *piece, int polite)
{
    return outcome(queue_put_piece(queue, (const struct queue_piece *)piece, polite ? QUEUE_POLITE : 0));
}

/* Puts a message with a head into cells, which store only messages in one part. */
static int put_joined(struct queue *queue, const struct ipcq_piece *piece, int polite)
{
    unsigned char small[1024];
    size_t size = piece->head_size + piece->size;
    unsigned char *whole = size <= sizeof small ? small : malloc(size);
    struct ipcq_piece joined = {.data = whole, .size = size, .priority = piece->priority};
    int result;

    if (whole == NULL)
        return IPCQ_OTHER;
    memcpy(whole, piece->head, piece->head_size);
    memcpy(whole + piece->head_size, piece->data, piece->size);
    result = put_piece(queue, &joined, polite);
    if (whole != small)
        free(whole);
    return result;
}

static int put(void *context, const struct ipcq_piece *piece, int polite)
{
    struct queue *queue = queue_of(context);

    if (queue == NULL)
        return IPCQ_OTHER;
    if (piece->head_size != 0 && layout_has_cells(queue->flags))
        return put_joined(queue, piece, polite);
    return put_piece(queue, piece, polite);
}

static int put_many(void *context, const struct ipcq_piece *pieces, size_t count, size_t *stored)
{
    struct queue *queue = queue_of(context);

    *stored = 0;
    if (queue == NULL)
        return IPCQ_OTHER;
    if (layout_has_cells(queue->flags))
        for (size_t index = 0; index < count; index++)
            if (pieces[index].head_size != 0)
                return IPCQ_OTHER;
    return outcome(queue_put_many(queue, (const struct queue_piece *)pieces, count, stored, 0));
}

/* Getting */

/* Reports the first bytes of a message that does not fit. This and the next function are not inlined, so that `place`
 * stays short. */
__attribute__((noinline)) static void *want(struct ipcq_space *space, const struct queue_piece *message)
{
    space->heads_present = 0;
    if (message->data != NULL) {
        space->heads_present = message->size < IPCQ_HEAD_BYTES ? (unsigned)message->size : IPCQ_HEAD_BYTES;
        memcpy(space->head, message->data, space->heads_present);
    }
    return NULL;
}

__attribute__((noinline)) static void *place_behind_head(struct ipcq_space *space, struct queue_piece *message)
{
    unsigned head = space->head_size;

    /* If a hostile process changes the head between this comparison and the copy, that is as if it had put another
     * message. */
    if (message->data == NULL || message->size != head + space->size || memcmp(message->data, space->head, head) != 0)
        return want(space, message);
    message->data = (const unsigned char *)message->data + head;
    message->size -= head;
    return space->data;
}

static void *place(void *context, struct queue_piece *message)
{
    struct ipcq_space *space = context;

    space->message_size = message->size;
    space->priority = message->priority;
    if (space->head_size != 0)
        return place_behind_head(space, message);
    return message->size <= space->size ? space->data : want(space, message);
}

static int get(void *context, struct ipcq_space *space, int polite)
{
    struct queue *queue = queue_of(context);
    struct queue_copy copy;
    enum queue_result result;

    if (queue == NULL)
        return IPCQ_OTHER;
    result = queue_get(queue, place, space, &copy, polite ? QUEUE_POLITE : 0);
    if (result != QUEUE_COPYING)
        return outcome(result);
    memcpy(copy.target, copy.source, copy.size);
    queue_release(queue, &copy);
    return IPCQ_OK;
}

uint64_t core_available(struct queue *queue)
{
    struct queue_total put, got;
    uint64_t count;

    if (queue->holders != NULL) {
        count = atomic_load_explicit(&queue->segment->cells.ready, memory_order_relaxed);
    } else {
        side_totals(queue, &put, &got);
        count = put.count - got.count;
    }
    /* More messages do not fit the limit, so the counts are corrupt. */
    return count > queue->limit / 16 ? 0 : count;
}

static uint64_t count(void *context)
{
    struct queue *queue = queue_of(context);

    return queue == NULL ? 0 : core_available(queue);
}

struct batch {
    ipcq_room *room;
    void *caller;
};

static void *place_in_batch(void *context, struct queue_piece *message)
{
    const struct batch *batch = context;
    size_t skip = 0;
    void *target = batch->room(batch->caller, message->data, message->size, message->priority, &skip);

    if (target != NULL && skip != 0) {
        message->data = (const unsigned char *)message->data + skip;
        message->size -= skip;
    }
    return target;
}

static int get_many(void *context, ipcq_room *room, void *caller, size_t limit, size_t *taken)
{
    struct queue *queue = queue_of(context);
    struct batch batch = {room, caller};
    enum queue_result result;

    *taken = 0;
    if (queue == NULL)
        return IPCQ_OTHER;
    result = queue_get_many(queue, place_in_batch, &batch, limit, taken, 0);
    if (result == QUEUE_COPYING)
        return IPCQ_LARGER;
    return result == QUEUE_NO_MEMORY || *taken != 0 ? IPCQ_OK : outcome(result);
}

/* Leasing */

static int lease(void *context, uint64_t serial, int64_t hold, struct ipcq_loan *loans, size_t limit, ipcq_room *room,
                 void *caller, size_t *leased)
{
    struct queue *queue = queue_of(context);
    struct batch batch = {room, caller};
    enum queue_result result;

    *leased = 0;
    if (queue == NULL)
        return IPCQ_OTHER;
    result = queue_lease(queue, place_in_batch, &batch, serial, hold, (struct queue_lease *)loans, limit, leased, 0);
    return *leased != 0 ? IPCQ_OK : result == QUEUE_EMPTY ? IPCQ_EMPTY : IPCQ_OTHER;
}

static int settle(void *context, const struct ipcq_token *tokens, size_t count, enum ipcq_verdict verdict,
                  int64_t delay, unsigned char *lost)
{
    struct queue *queue = queue_of(context);
    struct lease_order order = {.verdict = verdict == IPCQ_ACK ? LEASE_ACK : LEASE_RELEASE, .delay = delay};

    if (queue == NULL)
        return IPCQ_OTHER;
    return outcome(lease_settle(queue, (const struct lease_token *)tokens, count, &order, (bool *)lost, 0));
}

/* Waiting */

static int wait_readable(void *context, int64_t since, int64_t until, int sleep)
{
    struct queue *queue = queue_of(context);

    if (queue == NULL)
        return 1;
    if (!sleep)
        return !holder_seems_busy(queue, true) && wait_spin_readable(queue, since, until);
    if (holder_found_busy(queue, true))
        holder_await(queue, true, until);
    else if (!wait_spin_readable(queue, since, until))
        wait_sleep_readable(queue, until);
    return 1;
}

static int wait_writable(void *context, size_t size, int64_t since, int64_t until, int sleep)
{
    struct queue *queue = queue_of(context);

    if (queue == NULL)
        return 1;
    if (!sleep)
        return !holder_seems_busy(queue, false) && wait_spin_writable(queue, size, since, until);
    if (holder_found_busy(queue, false))
        holder_await(queue, false, until);
    else if (!wait_spin_writable(queue, size, since, until))
        wait_sleep_writable(queue, size, until);
    return 1;
}

static void count_wait(void *context, int served)
{
    struct queue *queue = queue_of(context);

    if (queue != NULL)
        wait_count(queue, served);
}

static void rouse(void *context)
{
    struct queue *queue = queue_of(context);

    if (queue != NULL)
        wait_rouse(queue);
}

static void give_way(void *context, int getting, int64_t until)
{
    struct queue *queue = queue_of(context);

    if (queue != NULL)
        wait_give_way(queue, getting, until);
}

/* The capsule */

static void drop_channel(PyObject *capsule)
{
    Py_XDECREF((PyObject *)PyCapsule_GetContext(capsule));
}

/* Called once, because other threads read the table while it is in use. */
static void fill(struct channel *channel)
{
    const struct queue *queue = &channel->queue;

    channel->table = (struct ipcq_channel){
        .version = IPCQ_CHANNEL_VERSION,
        .size = sizeof channel->table,
        .context = channel,
        .max_message_size = queue->max_message_size,
        .has_priorities = (queue->flags & FLAG_ORDERED) != 0,
        .put = put,
        .put_many = put_many,
        .get = get,
        .count = count,
        .get_many = get_many,
        .wait_readable = wait_readable,
        .wait_writable = wait_writable,
        .count_wait = count_wait,
        .rouse = rouse,
        .give_way = give_way,
    };
    if (queue->holders != NULL) {
        channel->table.lease = lease;
        channel->table.settle = settle;
    }
}

PyObject *core_table(struct channel *channel)
{
    PyObject *capsule;

    if (channel->table.version == 0)
        fill(channel);
    capsule = PyCapsule_New(&channel->table, IPCQ_CHANNEL_CAPSULE, drop_channel);
    if (capsule != NULL && PyCapsule_SetContext(capsule, Py_NewRef((PyObject *)channel)) != 0)
        Py_CLEAR(capsule); /* this cannot happen: the capsule is valid */
    return capsule;
}
