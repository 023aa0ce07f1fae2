/* put and put_nowait. */
#include "native.h"

#include "arguments.h"
#include "piece.h"

#define HIGHEST_PRIORITY 32767

/* A message on its way: encoded, and kept until it is stored or left to Python. */
struct outgoing {
    struct ipcq_piece piece;
    PyObject *data;         /* the whole message as bytes, or NULL */
    PyObject *owner;        /* keeps what the piece points to, or NULL */
    struct bytes_sink sink; /* holds what the piece points to otherwise */
};

/* What a put needs of the handle; references, because an encoder may do anything. */
struct coding {
    enum codec_format format;
    PyObject *encode;
    unsigned priority;
};

static bool priority_of(const struct ipcq_channel *channel, PyObject *given, unsigned *priority)
{
    int overflow;
    long number;

    *priority = 0;
    if (given == NULL)
        return true;
    if (!PyLong_CheckExact(given))
        return false;
    number = PyLong_AsLongAndOverflow(given, &overflow);
    *priority = (unsigned)number;
    return overflow == 0 && number >= 0 && number <= (channel->has_priorities ? HIGHEST_PRIORITY : 0);
}

/* Encoding */

/* Encodes an item in C, if C can. */
static bool encode_in_c(struct outgoing *out, PyObject *item, const struct coding *coding)
{
    if (coding->format == FORMAT_OTHER)
        return false;
    if (PyBytes_CheckExact(item)) {
        out->owner = Py_NewRef(item);
        return piece_of_bytes(&out->piece, item, coding->format, coding->priority);
    }
    if (coding->format != FORMAT_MESSAGEPACK)
        return false;
    sink_begin(&out->sink);
    if (codec_encode(item, &out->sink.sink) != CODEC_DONE) {
        sink_drop(&out->sink);
        return false;
    }
    out->owner = out->sink.bytes;
    piece_set(&out->piece, out->sink.begin, sink_size(&out->sink), coding->priority);
    return true;
}

/* Encodes an item; false with an exception of the codec. What it returns need not be bytes: then Python says so. */
static bool encode(struct outgoing *out, PyObject *item, const struct coding *coding)
{
    out->data = out->owner = NULL;
    if (encode_in_c(out, item, coding))
        return true;
    Py_CLEAR(out->owner);
    out->data = PyObject_CallOneArg(coding->encode, item);
    if (out->data == NULL)
        return false;
    if (PyBytes_Check(out->data))
        piece_set(&out->piece, PyBytes_AS_STRING(out->data), (size_t)PyBytes_GET_SIZE(out->data), coding->priority);
    else
        out->piece.data = NULL;
    return true;
}

static void drop(struct outgoing *out)
{
    Py_CLEAR(out->data);
    Py_CLEAR(out->owner);
}

/* Returns the whole message as one object, for Python. */
static PyObject *whole(const struct outgoing *out)
{
    return out->data != NULL ? Py_NewRef(out->data) : piece_whole(&out->piece, out->owner);
}

/* Storing */

static int put_unlocked(struct handle *self, const struct ipcq_channel *channel, const struct ipcq_piece *piece,
                        int polite)
{
    int result;

    BEGIN_USE(self);
    result = channel->put(channel->context, piece, polite);
    END_USE(self);
    return result;
}

static int put_now(struct handle *self, const struct ipcq_piece *piece, int polite)
{
    int result = IPCQ_OTHER;

    Py_BEGIN_CRITICAL_SECTION(self);
    const struct ipcq_channel *channel = self->channel;

    if (channel != NULL && piece_size(piece) <= channel->max_message_size)
        result = piece_size(piece) < IPCQ_LARGE ? channel->put(channel->context, piece, polite)
                                                : put_unlocked(self, channel, piece, polite);
    Py_END_CRITICAL_SECTION();
    return result;
}

/* Waits for space and puts. For any result but IPCQ_OK there is an exception, or the message is left to Python. */
static int put_in_time(struct handle *self, const struct ipcq_piece *piece, double deadline)
{
    int64_t since = clock_now();
    int64_t last = deadline_instant(deadline);
    int result = IPCQ_FULL;

    if (since >= last)
        return result;
    for (int64_t now = since; now < last && result == IPCQ_FULL; now = clock_now()) {
        if (!base_wait_for_space(self, piece_size(piece), since, last - now < SLICE ? last : now + SLICE))
            return IPCQ_OTHER;
        /* Before the next try: a call that raises must have stored nothing. */
        if (PyErr_CheckSignals() < 0)
            return IPCQ_OTHER;
        result = put_now(self, piece, 0);
    }
    if (result == IPCQ_OK || result == IPCQ_FULL)
        base_count_wait(self, result == IPCQ_OK);
    return result;
}

/* Stores a message within its time. For any result but IPCQ_OK there is an exception, or it is left to Python. */
static int store(struct handle *self, const struct ipcq_piece *piece, double seconds, double deadline)
{
    int result = put_now(self, piece, seconds != 0);

    if (result == IPCQ_CROWDED) {
        base_give_way(self, false, seconds);
        result = put_now(self, piece, 0);
    }
    if (result == IPCQ_FULL && seconds != 0)
        result = put_in_time(self, piece, deadline);
    return result;
}

static PyObject *leave_encoded(const struct native_state *state, struct handle *self, const struct outgoing *out,
                               unsigned priority, double deadline)
{
    PyObject *arguments[4] = {(PyObject *)self, whole(out), PyLong_FromUnsignedLong(priority), PyFloat_FromDouble(deadline)};
    PyObject *result = NULL;

    if (arguments[1] != NULL && arguments[2] != NULL && arguments[3] != NULL)
        result = PyObject_VectorcallMethod(state->put_encoded, arguments, 4, NULL);
    Py_XDECREF(arguments[1]);
    Py_XDECREF(arguments[2]);
    Py_XDECREF(arguments[3]);
    return result;
}

static PyObject *put_encoded(const struct native_state *state, struct handle *self, struct outgoing *out,
                             unsigned priority, double seconds, double deadline)
{
    if (out->piece.data != NULL && store(self, &out->piece, seconds, deadline) == IPCQ_OK)
        Py_RETURN_NONE;
    return PyErr_Occurred() ? NULL : leave_encoded(state, self, out, priority, deadline);
}

/* `put` after its arguments were sorted. */
static PyObject *put_item(const struct native_state *state, struct handle *self, PyObject *item, PyObject *priority,
                          double seconds)
{
    struct coding coding = {.encode = NULL};
    struct outgoing out;
    PyObject *result;
    double deadline;

    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->channel != NULL && self->puts && priority_of(self->channel, priority, &coding.priority)) {
        coding.format = self->format;
        coding.encode = Py_NewRef(self->encode);
    }
    Py_END_CRITICAL_SECTION();
    if (coding.encode == NULL)
        return NULL;
    deadline = deadline_of(seconds); /* before the encoder, whose time counts */
    if (encode(&out, item, &coding))
        result = put_encoded(state, self, &out, coding.priority, seconds, deadline);
    else
        result = base_raise_again(state, self);
    drop(&out);
    Py_DECREF(coding.encode);
    return result;
}

enum { ITEM, BLOCK, TIMEOUT, PRIORITY };

PyObject *put_call(const struct verb *verb, struct handle *self, PyObject *const *arguments, Py_ssize_t count,
                   PyObject *names)
{
    static const struct wanted wanted = {{"item", "block", "timeout", "priority", NULL}, 3};
    PyObject *places[MOST_PLACES] = {NULL};
    double seconds;

    if (!arguments_sort(arguments, count, names, &wanted, places) || places[ITEM] == NULL ||
        !arguments_patience(places[BLOCK], places[TIMEOUT], &seconds))
        return NULL;
    return put_item(verb->state, self, places[ITEM], places[PRIORITY], seconds);
}

PyObject *put_nowait_call(const struct verb *verb, struct handle *self, PyObject *const *arguments, Py_ssize_t count,
                          PyObject *names)
{
    static const struct wanted wanted = {{"item", NULL}, 1};
    PyObject *places[MOST_PLACES] = {NULL};

    if (!arguments_sort(arguments, count, names, &wanted, places) || places[ITEM] == NULL ||
        !verb_is_current(verb->state, self, verb->state->put, put_call))
        return NULL;
    return put_item(verb->state, self, places[ITEM], NULL, 0);
}
