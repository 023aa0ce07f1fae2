/*
 * get_many.
 *
 * No message may be lost (C6, C36). Nothing can be decoded while a lock of the queue is held, because decoding may run
 * any Python code. So the messages are first taken into a list, as bytes objects. Then each is decoded and replaced
 * with its item. From the first one that C cannot decode on, Python gets them as bytes. If memory runs out, the handle
 * keeps them.
 *
 * If every message is one MessagePack bin, the heads are skipped, and the bytes objects already are the items.
 */
#include "native.h"

#include "arguments.h"
#include "batch.h"

/* What the bytes objects in the list are. */
enum content {
    CONTENT_UNKNOWN, /* the first message decides */
    CONTENT_ITEMS,
    CONTENT_MESSAGES, /* still to be decoded */
};

struct filling {
    PyObject *list;
    Py_ssize_t next;
    enum codec_format format;
    enum content content;
    bool may_decode;
    bool stopped; /* before a message that Python has to take, because it is large or in another format */
};

struct incoming_batch {
    struct filling filling;
    struct codec_object *codec; /* a reference, because the handle may be closed meanwhile */
    size_t most;                /* the maximum number of messages to take */
    size_t more;                /* available messages that were not taken */
};

/* Taking */

/* Decides whether a message's bytes will be an item or a message, and how many bytes to skip. False ends the batch. */
static bool classify(struct filling *filling, const void *front, size_t size, size_t *skip)
{
    unsigned char head[IPCQ_HEAD_BYTES];
    size_t present = size < sizeof head ? size : sizeof head;

    if (filling->format == FORMAT_RAW || filling->content == CONTENT_MESSAGES)
        return true;
    if (front != NULL) {
        if (present == sizeof head) /* the fixed size compiles to one load */
            memcpy(head, front, sizeof head);
        else
            memcpy(head, front, present);
        *skip = codec_bin_head(head, present, size);
    }
    if (filling->content == CONTENT_UNKNOWN)
        filling->content = *skip == 0 && filling->may_decode ? CONTENT_MESSAGES : CONTENT_ITEMS;
    filling->stopped = *skip == 0 && filling->content == CONTENT_ITEMS;
    return !filling->stopped;
}

/* An `ipcq_room`: the lock of the queue is held, and a hostile process may change the message meanwhile. */
static void *room_in_list(void *caller, const void *front, size_t size, unsigned Py_UNUSED(priority), size_t *skip)
{
    struct filling *filling = caller;
    PyObject *bytes;

    if (!classify(filling, front, size, skip))
        return NULL;
    bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(size - *skip));
    if (bytes == NULL) {
        PyErr_Clear();
        return NULL;
    }
    PyList_SET_ITEM(filling->list, filling->next++, bytes);
    return PyBytes_AS_STRING(bytes);
}

/* Takes the available messages into a new list. Unless the result is IPCQ_OK, it took none. The handle's lock is
 * held. */
static int take_batch(struct handle *self, struct incoming_batch *batch)
{
    const struct ipcq_channel *channel = self->channel;
    struct filling *filling = &batch->filling;
    uint64_t available = channel->count(channel->context);
    size_t most = batch->most < available ? batch->most : (size_t)available;
    size_t taken = 0;
    int result;

    /* The count is only a hint. If it is 0, trying to take one message tells whether the queue is empty or has
     * ended. */
    filling->list = PyList_New(most == 0 ? 1 : (Py_ssize_t)most);
    if (filling->list == NULL) {
        PyErr_Clear();
        return IPCQ_OTHER;
    }
    if (self->channel != channel) { /* up to Python 3.11, a finaliser may run in PyList_New and close the handle */
        Py_CLEAR(filling->list);
        return IPCQ_OTHER;
    }
    filling->format = self->format;
    filling->may_decode = self->format == FORMAT_MESSAGEPACK && !channel->has_priorities;
    result = channel->get_many(channel->context, room_in_list, filling, (size_t)PyList_GET_SIZE(filling->list), &taken);
    if (result == IPCQ_LARGER)
        filling->stopped = true;
    batch->more = (size_t)PyList_GET_SIZE(filling->list) - taken;
    batch_shorten(filling->list, (Py_ssize_t)taken);
    if (taken != 0) {
        batch->codec = (struct codec_object *)Py_XNewRef((PyObject *)self->codec);
        return IPCQ_OK;
    }
    Py_CLEAR(filling->list);
    return result == IPCQ_EMPTY ? IPCQ_EMPTY : IPCQ_OTHER;
}

/* Takes a batch if there are messages. IPCQ_OTHER means: fall back to Python. */
static int take_now(struct handle *self, struct incoming_batch *batch)
{
    int result = IPCQ_OTHER;

    Py_BEGIN_CRITICAL_SECTION(self);
    const struct ipcq_channel *channel = self->channel;

    if (channel != NULL && self->gets && self->format != FORMAT_OTHER && channel->get_many != NULL &&
        channel->count != NULL)
        result = take_batch(self, batch);
    Py_END_CRITICAL_SECTION();
    return result;
}

struct get_wait {
    struct wait wait;
    struct incoming_batch *batch;
};

static int take_again(struct handle *self, struct wait *wait)
{
    return take_now(self, ((struct get_wait *)wait)->batch);
}

/* Waits for messages until the deadline and takes a batch; results are those of `base_wait`. */
static int take_in_time(struct handle *self, struct incoming_batch *batch, double deadline)
{
    struct get_wait wait = {{take_again, true, 0}, batch};

    return base_wait(self, &wait.wait, deadline);
}

/* Decoding */

/* Replaces messages with their items, and returns how many. Stops at the first that C cannot decode. */
static Py_ssize_t decode_messages(const struct incoming_batch *batch)
{
    PyObject *list = batch->filling.list;
    Py_ssize_t index;

    for (index = 0; index < PyList_GET_SIZE(list); index++) {
        PyObject *message = PyList_GET_ITEM(list, index);
        PyObject *item = codec_decode((const unsigned char *)PyBytes_AS_STRING(message),
                                      (size_t)PyBytes_GET_SIZE(message), &batch->codec->keys);

        if (item == NULL) {
            PyErr_Clear(); /* Python tries again */
            break;
        }
        PyList_SetItem(list, index, item);
    }
    return index;
}

/* Keeps messages for the handle's next gets. Memory ran out, so this allocates nothing. */
static void keep_from(const struct native_state *state, struct handle *self, PyObject *messages, Py_ssize_t first)
{
    for (Py_ssize_t index = PyList_GET_SIZE(messages) - 1; index >= first; index--)
        base_keep(state, self, PyList_GET_ITEM(messages, index), 0);
    batch_shorten(messages, first);
}

/* Lets Python decode the messages after the first `done`, and take more if the batch stopped early. */
static PyObject *leave_rest(const struct native_state *state, struct handle *self, struct incoming_batch *batch,
                            Py_ssize_t done)
{
    PyObject *list = batch->filling.list;
    PyObject *messages = PyList_GetSlice(list, done, PyList_GET_SIZE(list));
    PyObject *more = PyLong_FromSize_t(batch->filling.stopped ? batch->more : 0);
    PyObject *const arguments[] = {(PyObject *)self, list, messages, more};
    bool can_call = messages != NULL && more != NULL;
    PyObject *result = NULL;
    PyObject *error;

    if (can_call) {
        batch_shorten(list, done);
        result = PyObject_VectorcallMethod(state->get_rest, arguments, 4, NULL);
    }
    error = PyErr_GetRaisedException();
    if (can_call)
        keep_from(state, self, messages, 0); /* usually none: Python empties the list once it has them */
    else
        keep_from(state, self, list, done);
    PyErr_SetRaisedException(error);
    if (result == NULL && done != 0 && PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Clear();
        result = Py_NewRef(list);
    }
    Py_XDECREF(messages);
    Py_XDECREF(more);
    return result;
}

/* Returns the items of the batch. */
static PyObject *items_of(const struct native_state *state, struct handle *self, struct incoming_batch *batch)
{
    PyObject *list = batch->filling.list;
    Py_ssize_t done = PyList_GET_SIZE(list);
    PyObject *result;

    if (batch->filling.content == CONTENT_MESSAGES)
        done = decode_messages(batch);
    if (done == PyList_GET_SIZE(list) && !batch->filling.stopped)
        return list;
    result = leave_rest(state, self, batch, done);
    Py_DECREF(list);
    return result;
}

/* The call */

static bool most_of(PyObject *given, size_t *most)
{
    *most = PY_SSIZE_T_MAX;
    return given == NULL || given == Py_None || arguments_number(given, most);
}

/* Falls back to Python for the rest of the timeout. */
static PyObject *leave_call(const struct verb *verb, struct handle *self, PyObject *max_items, double deadline)
{
    PyObject *timeout = seconds_left(deadline);
    PyObject *const arguments[] = {(PyObject *)self, max_items == NULL ? Py_None : max_items, Py_True, timeout};
    PyObject *items = NULL;

    if (timeout != NULL)
        items = PyObject_Vectorcall(verb->method, arguments, 4, NULL);
    Py_XDECREF(timeout);
    return items;
}

PyObject *get_many_call(const struct verb *verb, struct handle *self, PyObject *const *arguments, Py_ssize_t count,
                        PyObject *names)
{
    static const struct parameters parameters = {{"max_items", "block", "timeout", NULL}, 3};
    PyObject *places[MOST_PLACES] = {NULL};
    struct incoming_batch batch = {.codec = NULL};
    PyObject *items;
    double seconds, deadline;
    int result;

    if (!arguments_sort(arguments, count, names, &parameters, places) ||
        !arguments_patience(places[1], places[2], &seconds) || !most_of(places[0], &batch.most))
        return NULL;
    result = take_now(self, &batch);
    deadline = deadline_of(seconds);
    if (result == IPCQ_EMPTY && seconds != 0)
        result = take_in_time(self, &batch, deadline);
    if (result == IPCQ_OK) {
        items = items_of(verb->state, self, &batch);
        Py_XDECREF((PyObject *)batch.codec);
        return items;
    }
    return PyErr_Occurred() || seconds == 0 ? NULL : leave_call(verb, self, places[0], deadline);
}
