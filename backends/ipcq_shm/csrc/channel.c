/* `Ring`: one participant. It converts arguments, releases the GIL around waits and large copies, and raises. */
#include "binding.h"

#include <limits.h>
#include <time.h>

#include "clock.h"
#include "condition.h"
#include "doorbell.h"
#include "futex.h"
#include "holder.h"
#include "lease.h"
#include "notice.h"
#include "participant.h"
#include "side.h"
#include "waiting.h"

/* A spin that takes less time than releasing the GIL and taking it again, in nanoseconds. */
#define SHORT_SPIN 1500

struct queue *core_queue_of(PyObject *self)
{
    struct channel *channel = (struct channel *)self;
    const struct core_state *state;

    if (channel->open)
        return &channel->queue;
    state = core_state_of(Py_TYPE(self));
    if (state != NULL)
        PyErr_SetNone(state->closed);
    return NULL;
}

/*
 * Waits until no thread waits for a notice any more; the caller ensures that no other begins. A use never runs Python
 * code, so it cannot belong to the calling thread.
 */
static void await_uses(struct channel *channel)
{
    const struct timespec moment = {.tv_nsec = 100000};

    while (atomic_load(&channel->uses) != 0) {
        futex_wake(&channel->queue.segment->state.notices, INT_MAX);
        Py_BEGIN_ALLOW_THREADS
        nanosleep(&moment, NULL);
        Py_END_ALLOW_THREADS
    }
}

static bool has_arguments(const char *verb, Py_ssize_t count, Py_ssize_t wanted)
{
    if (count == wanted)
        return true;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", verb, wanted, count);
    return false;
}

/* Putting */

static PyObject *try_put(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    struct queue *queue = core_queue_of(self);
    enum queue_result result = QUEUE_BUSY;
    struct queue_piece piece;
    long priority;

    if (queue == NULL || !has_arguments("try_put", count, 2))
        return NULL;
    if (!PyBytes_Check(arguments[0]))
        return PyErr_Format(PyExc_TypeError, "a message must be bytes, not %.100s", Py_TYPE(arguments[0])->tp_name);
    priority = PyLong_AsLong(arguments[1]);
    if (priority == -1 && PyErr_Occurred())
        return NULL;
    piece = (struct queue_piece){
        .data = PyBytes_AS_STRING(arguments[0]),
        .size = (size_t)PyBytes_GET_SIZE(arguments[0]),
        .priority = (unsigned)priority & HIGHEST_PRIORITY,
    };
    if (piece.size < QUEUE_LARGE)
        result = queue_put_piece(queue, &piece, 0);
    if (result == QUEUE_BUSY) {
        Py_BEGIN_ALLOW_THREADS
        result = queue_put_piece(queue, &piece, QUEUE_PATIENCE);
        Py_END_ALLOW_THREADS
    }
    if (result == QUEUE_OK)
        Py_RETURN_TRUE;
    if (result == QUEUE_FULL || result == QUEUE_BUSY)
        Py_RETURN_FALSE;
    return core_raise(Py_TYPE(self), result);
}

static PyObject *try_put_dropping(PyObject *self, PyObject *arguments)
{
    struct queue *queue = core_queue_of(self);
    struct queue_piece piece = {0};
    enum queue_result result;
    size_t dropped, all = 0;
    int64_t until = 0;
    Py_ssize_t size;

    if (queue == NULL || !PyArg_ParseTuple(arguments, "y#I", &piece.data, &size, &piece.priority))
        return NULL;
    piece.size = (size_t)size;
    piece.priority &= HIGHEST_PRIORITY;
    do {
        Py_BEGIN_ALLOW_THREADS
        result = queue_put_dropping(queue, &piece, &dropped, QUEUE_PATIENCE);
        Py_END_ALLOW_THREADS
        all += dropped;
    } while (result == QUEUE_BUSY && core_settled(queue, &until));
    if (result == QUEUE_OK)
        return PyLong_FromSize_t(all);
    if (result == QUEUE_FULL || result == QUEUE_BUSY)
        Py_RETURN_NONE;
    return core_raise(Py_TYPE(self), result);
}

static enum queue_result put_pieces(struct queue *queue, const struct queue_piece *pieces, size_t count, bool whole,
                                   size_t *stored, int64_t patience)
{
    enum queue_result result;

    if (!whole)
        return queue_put_many(queue, pieces, count, stored, patience);
    result = queue_put_all(queue, pieces, count, patience);
    *stored = result == QUEUE_OK ? count : 0;
    return result;
}

/* Returns `stored` as an int. Takes over `whole`, the int `count`, which was created before anything was stored. */
static PyObject *number_of(PyObject *whole, size_t count, size_t stored)
{
    PyObject *number;

    if (stored == count)
        return whole;
    Py_DECREF(whole); /* frees memory for the other int, unless another thread takes it meanwhile */
    number = PyLong_FromSize_t(stored);
    if (number == NULL) {
        PyErr_Clear();
        number = PyLong_FromSize_t(stored);
    }
    return number;
}

static PyObject *put_batch(PyObject *self, PyObject *batch, unsigned priority, bool whole)
{
    struct queue *queue = core_queue_of(self);
    PyObject *number;
    PyObject *messages = queue == NULL ? NULL : PySequence_Tuple(batch);
    enum queue_result result = QUEUE_BUSY;
    struct queue_piece *pieces;
    size_t count;
    size_t stored = 0;
    size_t bytes = 0;

    if (messages == NULL)
        return NULL;
    count = (size_t)PyTuple_GET_SIZE(messages);
    pieces = PyMem_New(struct queue_piece, count);
    number = PyLong_FromSize_t(count); /* before anything is stored, because the call must not fail afterwards */
    if (pieces == NULL || number == NULL) {
        PyMem_Free(pieces);
        Py_XDECREF(number);
        Py_DECREF(messages);
        return PyErr_NoMemory();
    }
    for (size_t index = 0; index < count; index++) {
        PyObject *message = PyTuple_GET_ITEM(messages, (Py_ssize_t)index);

        if (!PyBytes_Check(message)) {
            PyErr_Format(PyExc_TypeError, "a message must be bytes, not %.100s", Py_TYPE(message)->tp_name);
            PyMem_Free(pieces);
            Py_DECREF(number);
            Py_DECREF(messages);
            return NULL;
        }
        pieces[index] = (struct queue_piece){
            .data = PyBytes_AS_STRING(message),
            .size = (size_t)PyBytes_GET_SIZE(message),
            .priority = priority,
        };
        bytes += pieces[index].size;
    }
    if (bytes < QUEUE_LARGE)
        result = put_pieces(queue, pieces, count, whole, &stored, 0);
    if (result == QUEUE_BUSY) {
        Py_BEGIN_ALLOW_THREADS
        result = put_pieces(queue, pieces, count, whole, &stored, QUEUE_PATIENCE);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(pieces);
    Py_DECREF(messages);
    if (result == QUEUE_OK || result == QUEUE_FULL || result == QUEUE_BUSY)
        return number_of(number, count, stored);
    Py_DECREF(number);
    return core_raise(Py_TYPE(self), result);
}

static PyObject *try_put_many(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    long priority = count == 2 ? PyLong_AsLong(arguments[1]) : 0;

    if ((priority == -1 && PyErr_Occurred()) || (count != 2 && !has_arguments("try_put_many", count, 1)))
        return NULL;
    return put_batch(self, arguments[0], (unsigned)priority & HIGHEST_PRIORITY, false);
}

static PyObject *try_put_all(PyObject *self, PyObject *batch)
{
    return put_batch(self, batch, 0, true);
}

/* Getting */

/* The result is created before a message is taken, except its bytes, whose creation cannot run Python code. */
static PyObject *new_received(void)
{
    PyObject *received = PyTuple_New(2);

    if (received != NULL)
        PyTuple_SET_ITEM(received, 1, PyLong_FromLong(0));
    return received;
}

static void *room_in_received(void *context, struct queue_piece *message)
{
    PyObject *data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)message->size);
    PyObject *number = message->priority == 0 ? NULL : PyLong_FromUnsignedLong(message->priority);

    if (data == NULL || (message->priority != 0 && number == NULL)) {
        Py_XDECREF(data);
        Py_XDECREF(number);
        PyErr_Clear();
        return NULL;
    }
    PyTuple_SET_ITEM((PyObject *)context, 0, data);
    if (number != NULL) {
        Py_DECREF(PyTuple_GET_ITEM((PyObject *)context, 1)); /* the int 0, which is immortal or cached */
        PyTuple_SET_ITEM((PyObject *)context, 1, number);
    }
    return PyBytes_AS_STRING(data);
}

bool core_settled(struct queue *queue, int64_t *until)
{
    int64_t now = clock_now();
    bool free;

    if (*until == 0)
        *until = now + QUEUE_PATIENCE;
    if (now >= *until)
        return false;
    Py_BEGIN_ALLOW_THREADS
    free = queue_settle(queue, true, *until - now);
    Py_END_ALLOW_THREADS
    return free;
}

static PyObject *received_or_none(PyObject *self, enum queue_result result, PyObject *received)
{
    if (result == QUEUE_OK)
        return received;
    Py_DECREF(received);
    if (result == QUEUE_EMPTY || result == QUEUE_BUSY)
        Py_RETURN_NONE;
    return core_raise(Py_TYPE(self), result);
}

typedef enum queue_result get_one(struct queue *queue, queue_room *room, void *context, struct queue_copy *copy,
                                  int64_t patience);

/* Takes one message of any size. */
static inline enum queue_result take_by(get_one *get, struct queue *queue, PyObject *received)
{
    enum queue_result result;
    struct queue_copy copy;
    int64_t until = 0;

    do {
        result = get(queue, room_in_received, received, &copy, 0);
    } while (result == QUEUE_BUSY && core_settled(queue, &until));
    if (result != QUEUE_COPYING)
        return result;
    Py_BEGIN_ALLOW_THREADS
    memcpy(copy.target, copy.source, copy.size);
    queue_release(queue, &copy);
    Py_END_ALLOW_THREADS
    return QUEUE_OK;
}

static enum queue_result take_into(struct queue *queue, PyObject *received)
{
    return take_by(queue_get, queue, received);
}

static PyObject *try_get_latest(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct queue *queue = core_queue_of(self);
    PyObject *received = queue == NULL ? NULL : new_received();

    return received == NULL ? NULL
                            : received_or_none(self, take_by(queue_get_latest, queue, received), received);
}

static PyObject *try_get(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct queue *queue = core_queue_of(self);
    PyObject *received = queue == NULL ? NULL : new_received();

    return received == NULL ? NULL : received_or_none(self, take_into(queue, received), received);
}

static PyObject *look(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct queue *queue = core_queue_of(self);
    PyObject *received = queue == NULL ? NULL : new_received();
    enum queue_result result;
    int64_t until = 0;

    if (received == NULL)
        return NULL;
    do {
        result = queue_peek(queue, room_in_received, received, 0);
    } while (result == QUEUE_BUSY && core_settled(queue, &until));
    return received_or_none(self, result, received);
}

struct filling {
    PyObject *list;
    Py_ssize_t next;
};

static void *room_in_list(void *context, struct queue_piece *message)
{
    struct filling *filling = context;
    void *room = room_in_received(PyList_GET_ITEM(filling->list, filling->next), message);

    filling->next += room != NULL;
    return room;
}

static PyObject *new_list(Py_ssize_t size)
{
    PyObject *list = PyList_New(size);

    for (Py_ssize_t index = 0; list != NULL && index < size; index++) {
        PyObject *received = new_received();

        if (received == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, index, received);
    }
    return list;
}

void core_shorten(PyObject *list, Py_ssize_t size)
{
    Py_ssize_t before = PyList_GET_SIZE(list);

    Py_SET_SIZE(list, size);
    for (Py_ssize_t index = size; index < before; index++)
        Py_XDECREF(((PyListObject *)list)->ob_item[index]);
}

static PyObject *get_alone(PyObject *self)
{
    PyObject *list = PyList_New(1);
    PyObject *received = list == NULL ? NULL : try_get(self, NULL);

    if (received == NULL) {
        Py_XDECREF(list);
        return NULL;
    }
    PyList_SET_ITEM(list, 0, received);
    if (received == Py_None)
        core_shorten(list, 0);
    return list;
}

/* As in ipcq/backend. */
#define STEP (1 << 23)

/* Takes the available messages: adjacent small messages in one step, each large one in its own step. */
static enum queue_result take_batch(struct queue *queue, struct filling *filling, size_t limit)
{
    size_t count = 0;
    size_t large = 0; /* bytes of large messages */
    enum queue_result result;

    do {
        size_t taken = 0;
        int64_t until = 0;

        filling->next = (Py_ssize_t)count;
        do {
            result = queue_get_many(queue, room_in_list, filling, limit - count, &taken, 0);
        } while (result == QUEUE_BUSY && count == 0 && core_settled(queue, &until));
        count += taken;
        if (result == QUEUE_COPYING) {
            PyObject *received = PyList_GET_ITEM(filling->list, (Py_ssize_t)count);

            result = take_into(queue, received);
            if (result == QUEUE_OK) {
                large += (size_t)PyBytes_GET_SIZE(PyTuple_GET_ITEM(received, 0));
                count++;
            }
        }
    } while (result == QUEUE_OK && count < limit && large < STEP);
    core_shorten(filling->list, (Py_ssize_t)count);
    return count != 0 ? QUEUE_OK : result;
}

static PyObject *try_get_many(PyObject *self, PyObject *most)
{
    struct queue *queue = core_queue_of(self);
    Py_ssize_t limit = queue == NULL ? -1 : PyNumber_AsSsize_t(most, NULL);
    struct filling filling = {0};
    enum queue_result result;
    uint64_t count;

    if (queue == NULL || (limit == -1 && PyErr_Occurred()))
        return NULL;
    count = core_available(queue);
    if ((uint64_t)limit > count)
        limit = (Py_ssize_t)count;
    if (limit < 2) /* a batch of one */
        return get_alone(self);
    filling.list = new_list(limit);
    if (filling.list == NULL)
        return NULL;
    result = take_batch(queue, &filling, (size_t)limit);
    if (result == QUEUE_OK || result == QUEUE_EMPTY || result == QUEUE_BUSY)
        return filling.list;
    Py_DECREF(filling.list);
    return core_raise(Py_TYPE(self), result);
}

PyObject *core_drop(PyObject *self, struct queue *queue, core_dropping *drop)
{
    enum queue_result result;
    size_t dropped;

    if (queue == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = drop(queue, &dropped, LONG_PATIENCE);
    Py_END_ALLOW_THREADS
    if (result == QUEUE_OK || result == QUEUE_EMPTY)
        return PyLong_FromSize_t(dropped);
    return core_raise(Py_TYPE(self), result);
}

static PyObject *clear(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return core_drop(self, core_queue_of(self), queue_clear);
}

/* Waiting */

static bool instant(PyObject *seconds, int64_t *nanoseconds)
{
    double value = PyFloat_AsDouble(seconds);

    if (value == -1 && PyErr_Occurred())
        return false;
    /* Limited to more than a century, so that sums of such numbers do not overflow. */
    *nanoseconds = value > 0 ? (int64_t)((value < 4e9 ? value : 4e9) * 1e9) : 0;
    return true;
}

static PyObject *after_wait(void)
{
    if (PyErr_CheckSignals() < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *wait_readable(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    struct queue *queue = core_queue_of(self);
    int64_t since, until, soon;

    if (queue == NULL || !has_arguments("wait_readable", count, 2) || !instant(arguments[0], &since) ||
        !instant(arguments[1], &until))
        return NULL;
    if (holder_found_busy(queue, true)) {
        Py_BEGIN_ALLOW_THREADS
        holder_await(queue, true, until);
        Py_END_ALLOW_THREADS
        return after_wait();
    }
    soon = clock_now() + SHORT_SPIN;
    if (wait_spin_readable(queue, since, soon < until ? soon : until))
        return after_wait();
    Py_BEGIN_ALLOW_THREADS
    if (!wait_spin_readable(queue, since, until))
        wait_sleep_readable(queue, until);
    Py_END_ALLOW_THREADS
    return after_wait();
}

static PyObject *wait_writable(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    struct queue *queue = core_queue_of(self);
    Py_ssize_t size;
    int64_t since, until, soon;

    if (queue == NULL || !has_arguments("wait_writable", count, 3))
        return NULL;
    size = PyNumber_AsSsize_t(arguments[0], PyExc_OverflowError);
    if ((size == -1 && PyErr_Occurred()) || !instant(arguments[1], &since) || !instant(arguments[2], &until))
        return NULL;
    if (holder_found_busy(queue, false)) {
        Py_BEGIN_ALLOW_THREADS
        holder_await(queue, false, until);
        Py_END_ALLOW_THREADS
        return after_wait();
    }
    soon = clock_now() + SHORT_SPIN;
    if (wait_spin_writable(queue, (size_t)size, since, soon < until ? soon : until))
        Py_RETURN_NONE;
    Py_BEGIN_ALLOW_THREADS
    if (!wait_spin_writable(queue, (size_t)size, since, until))
        wait_sleep_writable(queue, (size_t)size, until);
    Py_END_ALLOW_THREADS
    return after_wait();
}

static PyObject *count_wait(PyObject *self, PyObject *served)
{
    struct queue *queue = core_queue_of(self);

    if (queue == NULL)
        return NULL;
    wait_count(queue, served == Py_True);
    Py_RETURN_NONE;
}

/* Reading */

static bool gone(PyObject *self, struct queue *queue)
{
    if (condition_of(queue) != QUEUE_GONE)
        return false;
    core_raise(Py_TYPE(self), QUEUE_GONE);
    return true;
}

static PyObject *qsize(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct queue *queue = core_queue_of(self);
    struct queue_total put, got;

    if (queue == NULL || gone(self, queue))
        return NULL;
    if (queue->holders != NULL) {
        struct lease_counts counts;

        return core_count(self, queue, &counts) ? PyLong_FromUnsignedLong(counts.ready) : NULL;
    }
    side_totals(queue, &put, &got);
    return PyLong_FromUnsignedLongLong(put.count - got.count);
}

static PyObject *full(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct queue *queue = core_queue_of(self);

    if (queue == NULL || gone(self, queue))
        return NULL;
    return PyBool_FromLong(!queue_has_space(queue, 0));
}

static unsigned long long figure(_Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* Adds a figure; returns whether it did. */
static bool add_figure(PyObject *figures, const char *name, unsigned long long value)
{
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    bool added = number != NULL && PyDict_SetItemString(figures, name, number) == 0;

    Py_XDECREF(number);
    return added;
}

static PyObject *figures(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct queue *queue = core_queue_of(self);
    struct lease_counts counts;
    struct segment_figures *kept;
    struct queue_total put, got;
    unsigned long long aborted;
    PyObject *all;

    if (queue == NULL || gone(self, queue))
        return NULL;
    kept = &queue->segment->figures;
    aborted = figure(&kept->aborted);
    side_totals(queue, &put, &got);
    if (queue->holders != NULL) {
        if (!core_count(self, queue, &counts))
            return NULL;
        put = counts.put;
        got = counts.got;
    }
    all = Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K}", "depth", put.count - got.count, "bytes",
                        put.bytes - got.bytes, "bytes_put", put.bytes, "puts", put.count - aborted, "gets",
                        got.count - aborted, "dropped", figure(&kept->dropped), "high_water_mark", figure(&kept->high_water_mark), "waits",
                        figure(&kept->waits), "timeouts", figure(&kept->timeouts), "recoveries",
                        figure(&kept->recoveries));
    if (all != NULL && queue->holders != NULL &&
        !(add_figure(all, "depth", counts.ready) && add_figure(all, "leased", counts.leased) &&
          add_figure(all, "delayed", counts.delayed) && add_figure(all, "dead", counts.dead) &&
          add_figure(all, "returned", counts.returned)))
        Py_CLEAR(all);
    return all;
}

/* Notification */

static PyObject *doorbell(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct queue *queue = core_queue_of(self);
    enum queue_result result;

    if (queue == NULL)
        return NULL;
    if (queue->armed) /* also after an unlink, so that it can be removed from an event loop */
        return PyLong_FromLong(queue->doorbell);
    if (gone(self, queue))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = doorbell_arm(queue);
    Py_END_ALLOW_THREADS
    if (result == QUEUE_OK)
        return PyLong_FromLong(queue->doorbell);
    return core_raise(Py_TYPE(self), result);
}

static PyObject *ask_notice(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct queue *queue = core_queue_of(self);
    enum queue_result result;
    uint32_t seen;

    if (queue == NULL || gone(self, queue))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = notice_ask(queue, &seen);
    Py_END_ALLOW_THREADS
    if (result == QUEUE_OK)
        return PyLong_FromUnsignedLong(seen);
    if (result == QUEUE_BUSY)
        return core_raise(Py_TYPE(self), QUEUE_BUSY);
    Py_RETURN_NONE;
}

static PyObject *cancel_notice(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct queue *queue = core_queue_of(self);

    if (queue == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    notice_cancel(queue);
    Py_END_ALLOW_THREADS
    /* If a stopped process held the lock, the request stands until the slot is given up. The thread that waits for the
     * notice must wake nevertheless. */
    futex_wake(&queue->segment->state.notices, INT_MAX);
    Py_RETURN_NONE;
}

static PyObject *wait_notice(PyObject *self, PyObject *seen)
{
    struct channel *channel = (struct channel *)self;
    struct queue *queue = core_queue_of(self);
    unsigned long number = queue == NULL ? 0 : PyLong_AsUnsignedLong(seen);
    bool told = true;

    if (PyErr_Occurred())
        return NULL;
    /* The use ends before the GIL is taken again: daemon threads never get the GIL again once the interpreter exits, so
     * a finaliser that closes the channel would never return. */
    Py_INCREF(channel);
    atomic_fetch_add(&channel->uses, 1);
    Py_BEGIN_ALLOW_THREADS
    if (channel->open) /* again, now that the use is counted: without a GIL, another thread may have detached */
        told = notice_given(queue, (uint32_t)number, EVENT_SLICE);
    atomic_fetch_sub(&channel->uses, 1);
    Py_END_ALLOW_THREADS
    Py_DECREF(channel);
    return PyBool_FromLong(told);
}

/* Ends */

static PyObject *shut_down(PyObject *self, PyObject *immediate)
{
    struct queue *queue = core_queue_of(self);
    bool drop = immediate == Py_True;
    enum queue_result result;

    if (queue == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = queue_shutdown(queue, LONG_PATIENCE);
    if (result == QUEUE_OK && drop)
        queue_drop(queue, LONG_PATIENCE);
    Py_END_ALLOW_THREADS
    if (result != QUEUE_OK)
        return core_raise(Py_TYPE(self), result);
    Py_RETURN_NONE;
}

static PyObject *find_holder(PyObject *self, PyObject *getting)
{
    struct queue *queue = core_queue_of(self);
    struct holder found;
    int64_t held;

    if (queue == NULL)
        return NULL;
    found = holder_find(queue, getting == Py_True);
    /* Unsigned, since the segment may hold any number. */
    held = found.since == 0 ? 0 : (int64_t)((uint64_t)clock_now() - (uint64_t)found.since);
    return Py_BuildValue("Iid", (unsigned)found.thread, (int)found.writer, held > 0 ? (double)held * 1e-9 : 0.0);
}

static PyObject *named(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct queue *queue = core_queue_of(self);

    if (queue == NULL)
        return NULL;
    condition_look(queue);
    Py_RETURN_NONE;
}

static PyObject *shared(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct queue *queue = core_queue_of(self);

    return queue == NULL ? NULL : PyBool_FromLong(participant_shared(queue));
}

static PyObject *reattach(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct queue *queue = core_queue_of(self);
    enum queue_result result;

    if (queue == NULL)
        return NULL;
    ((struct channel *)self)->uses = 0; /* those of the parent */
    result = queue_reattach(queue);
    if (result != QUEUE_OK)
        return core_raise(Py_TYPE(self), result);
    Py_RETURN_NONE;
}

static PyObject *settle_uses(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (((struct channel *)self)->open)
        await_uses((struct channel *)self);
    Py_RETURN_NONE;
}

static PyObject *detach(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct channel *channel = (struct channel *)self;
    bool was_open = atomic_exchange(&channel->open, false);

    if (was_open) {
        await_uses(channel);
        Py_BEGIN_ALLOW_THREADS /* it may have to wait for the producers' lock, to silence the doorbell */
        queue_detach(&channel->queue);
        Py_END_ALLOW_THREADS
    }
    return PyBool_FromLong(was_open);
}

static PyObject *native(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return core_queue_of(self) == NULL ? NULL : core_table((struct channel *)self);
}

static PyObject *abandon(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct channel *channel = (struct channel *)self;

    if (channel->open) {
        channel->open = false;
        channel->uses = 0; /* those of the parent */
        queue_abandon(&channel->queue);
    }
    Py_RETURN_NONE;
}

static PyObject *attach(PyObject *self, PyObject *arguments)
{
    struct channel *channel = (struct channel *)self;
    int descriptor, stays, old = 0;
    const char *bell_path;
    enum queue_result result;

    if (!PyArg_ParseTuple(arguments, "isp|p", &descriptor, &bell_path, &stays, &old))
        return NULL;
    if (channel->open)
        return PyErr_Format(PyExc_RuntimeError, "already attached");
    result = old ? queue_attach_old(&channel->queue, descriptor) : queue_attach(&channel->queue, descriptor);
    if (result != QUEUE_OK)
        return core_raise(Py_TYPE(self), result);
    snprintf(channel->queue.doorbell_path, sizeof channel->queue.doorbell_path, "%s", bell_path);
    channel->queue.stays = stays;
    channel->open = true;
    Py_RETURN_NONE;
}

static PyObject *adopt_bell(PyObject *self, PyObject *number)
{
    struct queue *queue = core_queue_of(self);
    int descriptor = queue == NULL ? -1 : (int)PyLong_AsLong(number);

    if (PyErr_Occurred())
        return NULL;
    if (!doorbell_adopt(queue, descriptor))
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *bell(PyObject *self, void *Py_UNUSED(unused))
{
    struct queue *queue = core_queue_of(self);

    return queue == NULL ? NULL : PyLong_FromLong(queue->doorbell);
}

static PyObject *limits(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct queue *queue = core_queue_of(self);

    if (queue == NULL)
        return NULL;
    return Py_BuildValue("KKKII", (unsigned long long)queue->limit, (unsigned long long)queue->max_messages,
                         (unsigned long long)queue->max_message_size, queue->flags, queue->max_deliveries);
}

static PyObject *descriptor(PyObject *self, void *Py_UNUSED(unused))
{
    struct queue *queue = core_queue_of(self);

    return queue == NULL ? NULL : PyLong_FromLong(queue->descriptor);
}

static int channel_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void channel_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    if (((struct channel *)self)->open)
        queue_detach(&((struct channel *)self)->queue);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef channel_methods[] = {
    {"try_put", (PyCFunction)(void (*)(void))try_put, METH_FASTCALL, NULL},
    {"try_put_many", (PyCFunction)(void (*)(void))try_put_many, METH_FASTCALL, NULL},
    {"try_put_all", try_put_all, METH_O, NULL},
    {"try_put_dropping", try_put_dropping, METH_VARARGS, NULL},
    {"try_get", try_get, METH_NOARGS, NULL},
    {"try_get_latest", try_get_latest, METH_NOARGS, NULL},
    {"try_get_many", try_get_many, METH_O, NULL},
    {"peek", look, METH_NOARGS, NULL},
    {"clear", clear, METH_NOARGS, NULL},
    {"wait_readable", (PyCFunction)(void (*)(void))wait_readable, METH_FASTCALL, NULL},
    {"wait_writable", (PyCFunction)(void (*)(void))wait_writable, METH_FASTCALL, NULL},
    {"count_wait", count_wait, METH_O, NULL},
    {"qsize", qsize, METH_NOARGS, NULL},
    {"full", full, METH_NOARGS, NULL},
    {"figures", figures, METH_NOARGS, PyDoc_STR("Return the statistics in the segment, as fields of `Stats`.")},
    {"fileno", doorbell, METH_NOARGS, NULL},
    {"ask_notice", ask_notice, METH_NOARGS,
     PyDoc_STR("Request one notice and return a number for `wait_notice`, or None if another handle has a request.")},
    {"cancel_notice", cancel_notice, METH_NOARGS, PyDoc_STR("Cancel this handle's request for a notice.")},
    {"wait_notice", wait_notice, METH_O,
     PyDoc_STR("Sleep for at most a time slice, and return whether the request has ended.")},
    {"shutdown", shut_down, METH_O, NULL},
    {"find_holder", find_holder, METH_O,
     PyDoc_STR("Return what blocks a side: thread id of the lock's owner or 0, slot of a writer or -1, and seconds.")},
    {"named", named, METH_NOARGS, PyDoc_STR("Note that the file has its name now; losing it ends the queue.")},
    {"shared", shared, METH_NOARGS, PyDoc_STR("Return whether any other handle to the queue is open.")},
    {"reattach", reattach, METH_NOARGS, PyDoc_STR("In a forked child, make the inherited copy a separate handle.")},
    {"attach", attach, METH_VARARGS,
     PyDoc_STR("Become a participant, also of an old version if asked to, and own the descriptor, unless it fails.")},
    {"adopt_bell", adopt_bell, METH_O, PyDoc_STR("Take a FIFO as the doorbell of a queue that never had a name.")},
    {"limits", limits, METH_NOARGS, PyDoc_STR("Return the checked limit, max_messages, max_message_size, flags and max_deliveries.")},
    {"settle_uses", settle_uses, METH_NOARGS,
     PyDoc_STR("Wait until no other thread uses the ring. Call it when no thread can begin to use the ring any more.")},
    {"native", native, METH_NOARGS, NULL},
    {"abandon", abandon, METH_NOARGS, PyDoc_STR("In a forked child, release the copy of its parent's handle.")},
    {"detach", detach, METH_NOARGS, PyDoc_STR("Release descriptor and mapping; return whether it was attached.")},
    /* Only of a queue with leases. Times are in seconds. */
    {"put_delayed", core_put_delayed, METH_VARARGS, PyDoc_STR("Put a message with a delay; return whether it fits.")},
    {"lease", core_lease, METH_VARARGS,
     PyDoc_STR("Lease messages; return data, priority, deliveries, token and failures of each.")},
    {"recall", core_recall, METH_VARARGS, NULL},
    {"end_leases", core_end_leases, METH_VARARGS, PyDoc_STR("Settle leases and return the lost tokens.")},
    {"extend_leases", core_extend_leases, METH_VARARGS, PyDoc_STR("Extend leases and return the lost tokens.")},
    {"find_lost", core_find_lost, METH_O, NULL},
    {"release_leases", core_release_leases, METH_NOARGS, PyDoc_STR("Release all leases of this handle.")},
    {"tend", core_tend, METH_NOARGS, NULL},
    {"count_states", core_counts, METH_NOARGS, PyDoc_STR("Count the ready, leased, delayed and dead messages.")},
    {"find_held", core_held, METH_O, PyDoc_STR("Return slot, -1 for this handle's, seconds and deliveries of the longest leases.")},
    {"peek_dead_after", core_peek_dead, METH_VARARGS, PyDoc_STR("Return dead letters with greater numbers.")},
    {"take_dead", core_take_dead, METH_O, PyDoc_STR("Take the oldest dead letter if it has this number; return whether.")},
    {"requeue", core_requeue, METH_O, NULL},
    {"clear_dead", core_clear_dead, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef channel_attributes[] = {
    {"descriptor", descriptor, NULL, PyDoc_STR("The descriptor of the segment's file."), NULL},
    {"bell", bell, NULL, PyDoc_STR("The descriptor of the doorbell; -1 if it is not open."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot channel_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("One participant in a ring, once it is attached.")},
    {Py_tp_dealloc, channel_dealloc},
    {Py_tp_traverse, channel_traverse},
    {Py_tp_methods, channel_methods},
    {Py_tp_getset, channel_attributes},
    {0, NULL},
};

PyType_Spec core_channel_spec = {
    .name = "ipcq_shm._core.Ring",
    .basicsize = sizeof(struct channel),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = channel_slots,
};
