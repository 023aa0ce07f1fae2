/* put_many, for a list or tuple of items that C can encode. */
#include "native.h"

#include "arguments.h"
#include "piece.h"

/* A batch, all of which is encoded before the first message is stored. */
struct outgoing_batch {
    PyObject *items; /* a tuple */
    struct ipcq_piece *pieces;
    size_t count;
    size_t bytes;           /* of all messages */
    struct bytes_sink sink; /* the encoded items, except those that are bytes, one after another */
};

/* What encoding a batch needs from the handle. */
struct limits {
    enum codec_format format;
    uint64_t max_message_size;
};

static bool limits_of(struct handle *self, struct limits *limits)
{
    bool armed = false;

    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->channel != NULL && self->puts && self->channel->put_many != NULL && self->format != FORMAT_OTHER) {
        armed = true;
        limits->format = self->format;
        limits->max_message_size = self->channel->max_message_size;
    }
    Py_END_CRITICAL_SECTION();
    return armed;
}

/* Encoding */

/* Makes the piece of one item. For an item in the sink, its data stays NULL for now, because the sink may move. */
static bool encode_item(struct outgoing_batch *batch, PyObject *item, struct ipcq_piece *piece,
                        const struct limits *limits)
{
    size_t before = sink_size(&batch->sink);

    if (PyBytes_CheckExact(item))
        return piece_of_bytes(piece, item, limits->format, 0);
    if (limits->format != FORMAT_MESSAGEPACK || codec_encode(item, &batch->sink.sink) != CODEC_DONE)
        return false;
    piece_set(piece, NULL, sink_size(&batch->sink) - before, 0);
    return true;
}

static void point_into_sink(struct outgoing_batch *batch)
{
    const unsigned char *next = batch->sink.begin;

    for (size_t index = 0; index < batch->count; index++) {
        struct ipcq_piece *piece = &batch->pieces[index];

        if (piece->data == NULL) {
            piece->data = next;
            next += piece->size;
        }
    }
}

/* Encodes a batch; returns false if C cannot encode an item, or if one is too large. */
static bool encode_batch(struct outgoing_batch *batch, const struct limits *limits)
{
    batch->bytes = 0;
    for (size_t index = 0; index < batch->count; index++) {
        struct ipcq_piece *piece = &batch->pieces[index];

        if (!encode_item(batch, PyTuple_GET_ITEM(batch->items, (Py_ssize_t)index), piece, limits) ||
            piece_size(piece) > limits->max_message_size)
            return false;
        batch->bytes += piece_size(piece);
    }
    point_into_sink(batch);
    return true;
}

/* Storing */

static int put_many_unlocked(struct handle *self, const struct ipcq_channel *channel, const struct ipcq_piece *pieces,
                             size_t count, size_t *stored)
{
    int result;

    BEGIN_USE(self);
    result = channel->put_many(channel->context, pieces, count, stored);
    END_USE(self);
    return result;
}

/* Stores as many of the remaining messages as fit now. IPCQ_OK means that all are stored. */
static int put_more(struct handle *self, const struct outgoing_batch *batch, size_t *stored)
{
    const struct ipcq_piece *pieces = batch->pieces + *stored;
    size_t count = batch->count - *stored;
    size_t more = 0;
    int result = IPCQ_OTHER;

    Py_BEGIN_CRITICAL_SECTION(self);
    const struct ipcq_channel *channel = self->channel;

    if (channel != NULL)
        result = batch->bytes < IPCQ_LARGE ? channel->put_many(channel->context, pieces, count, &more)
                                           : put_many_unlocked(self, channel, pieces, count, &more);
    Py_END_CRITICAL_SECTION();
    if (result == IPCQ_OK)
        *stored += more;
    return result == IPCQ_OK && more < count ? IPCQ_FULL : result;
}

struct batch_wait {
    struct wait wait;
    const struct outgoing_batch *batch;
    size_t *stored;
};

static int put_again(struct handle *self, struct wait *wait)
{
    struct batch_wait *mine = (struct batch_wait *)wait;
    int result = put_more(self, mine->batch, mine->stored);

    if (result == IPCQ_FULL)
        wait->size = piece_size(&mine->batch->pieces[*mine->stored]);
    return result;
}

/* Waits for space until the deadline and stores the rest; results are those of `base_wait`. */
static int put_in_time(struct handle *self, const struct outgoing_batch *batch, size_t *stored, double deadline)
{
    struct batch_wait wait = {{put_again, false, piece_size(&batch->pieces[*stored])}, batch, stored};

    return base_wait(self, &wait.wait, deadline);
}

/* The call */

/* Returns the messages that are not stored yet as a list of bytes. */
static PyObject *messages_from(const struct outgoing_batch *batch, size_t stored)
{
    PyObject *list = PyList_New((Py_ssize_t)(batch->count - stored));

    for (size_t index = stored; list != NULL && index < batch->count; index++) {
        PyObject *message = piece_whole(&batch->pieces[index], PyTuple_GET_ITEM(batch->items, (Py_ssize_t)index));

        if (message == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)(index - stored), message);
    }
    return list;
}

/* Falls back to Python with the messages that are not stored yet. */
static PyObject *leave_rest(const struct native_state *state, struct handle *self, const struct outgoing_batch *batch,
                            size_t stored, double deadline)
{
    PyObject *arguments[4] = {(PyObject *)self, messages_from(batch, stored), PyLong_FromSize_t(stored),
                              PyFloat_FromDouble(deadline)};
    PyObject *result = NULL;

    if (arguments[1] != NULL && arguments[2] != NULL && arguments[3] != NULL)
        result = PyObject_VectorcallMethod(state->put_rest, arguments, 4, NULL);
    /* Once messages are stored, running out of memory is no error: the caller needs their number. */
    if (result == NULL && stored != 0 && arguments[2] != NULL && PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Clear();
        result = Py_NewRef(arguments[2]);
    }
    Py_XDECREF(arguments[1]);
    Py_XDECREF(arguments[2]);
    Py_XDECREF(arguments[3]);
    return result;
}

/* Stores a batch within the timeout, and returns the number of messages stored. */
static PyObject *put_batch(const struct native_state *state, struct handle *self, const struct outgoing_batch *batch,
                           double seconds, double deadline)
{
    PyObject *all = PyLong_FromSize_t(batch->count); /* in advance: the call must not fail once messages are stored */
    size_t stored = 0;
    int result;

    if (all == NULL)
        return NULL;
    result = put_more(self, batch, &stored);
    if (result == IPCQ_FULL && seconds != 0)
        result = put_in_time(self, batch, &stored, deadline);
    if (result == IPCQ_OK)
        return all;
    Py_DECREF(all); /* frees memory for the other int, unless another thread takes it meanwhile */
    if (PyErr_Occurred())
        return NULL;
    /* No further attempt: other producers' messages could come between its messages and those stored so far. */
    if (result == IPCQ_FULL && stored != 0)
        return PyLong_FromSize_t(stored);
    return leave_rest(state, self, batch, stored, result == IPCQ_FULL ? -INFINITY : deadline);
}

/* Encodes and stores the items; NULL without an exception means: fall back to Python. */
static PyObject *put_items(const struct native_state *state, struct handle *self, struct outgoing_batch *batch,
                           double seconds)
{
    double deadline = deadline_of(seconds);
    struct limits limits;
    PyObject *number = NULL;

    if (batch->count == 0 || !limits_of(self, &limits))
        return NULL;
    batch->pieces = PyMem_New(struct ipcq_piece, batch->count);
    if (batch->pieces == NULL)
        return PyErr_NoMemory();
    sink_begin(&batch->sink);
    if (encode_batch(batch, &limits))
        number = put_batch(state, self, batch, seconds, deadline);
    sink_drop(&batch->sink);
    PyMem_Free(batch->pieces);
    return number;
}

PyObject *put_many_call(const struct verb *verb, struct handle *self, PyObject *const *arguments, Py_ssize_t count,
                        PyObject *names)
{
    static const struct parameters parameters = {{"items", "block", "timeout", NULL}, 3};
    PyObject *places[MOST_PLACES] = {NULL};
    struct outgoing_batch batch;
    PyObject *number;
    double seconds;

    if (!arguments_sort(arguments, count, names, &parameters, places) || places[0] == NULL ||
        !(PyList_CheckExact(places[0]) || PyTuple_CheckExact(places[0])) ||
        !arguments_patience(places[1], places[2], &seconds))
        return NULL;
    batch.items = PySequence_Tuple(places[0]);
    if (batch.items == NULL)
        return NULL;
    batch.count = (size_t)PyTuple_GET_SIZE(batch.items);
    number = put_items(verb->state, self, &batch, seconds);
    Py_DECREF(batch.items);
    return number;
}
