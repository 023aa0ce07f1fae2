/* put, put_nowait and put_many. */
#include "native.h"

#include "arguments.h"
#include "wire.h"

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

static size_t piece_size(const struct ipcq_piece *piece)
{
    return piece->head_size + piece->size;
}

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

static void point_to(struct ipcq_piece *piece, const void *data, size_t size, unsigned priority)
{
    piece->data = data;
    piece->size = size;
    piece->priority = priority;
    piece->head_size = 0;
}

/* Makes a piece of bytes in one of our formats, without copying them. */
static bool point_to_bytes(struct ipcq_piece *piece, PyObject *bytes, enum codec_format format, unsigned priority)
{
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);

    point_to(piece, PyBytes_AS_STRING(bytes), size, priority);
    if (format == FORMAT_RAW)
        return true;
    if (size > WIRE_LONGEST)
        return false;
    piece->head_size = (unsigned)(wire_write_bin(piece->head, (uint32_t)size) - piece->head);
    return true;
}

/* Encodes an item in C, if C can. */
static bool encode_in_c(struct outgoing *out, PyObject *item, const struct coding *coding)
{
    if (coding->format == FORMAT_OTHER)
        return false;
    if (PyBytes_CheckExact(item)) {
        out->owner = Py_NewRef(item);
        return point_to_bytes(&out->piece, item, coding->format, coding->priority);
    }
    if (coding->format != FORMAT_MESSAGEPACK)
        return false;
    sink_begin(&out->sink);
    if (codec_encode(item, &out->sink.sink) != CODEC_DONE) {
        sink_drop(&out->sink);
        return false;
    }
    out->owner = out->sink.bytes;
    point_to(&out->piece, out->sink.begin, sink_size(&out->sink), coding->priority);
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
        point_to(&out->piece, PyBytes_AS_STRING(out->data), (size_t)PyBytes_GET_SIZE(out->data), coding->priority);
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
    const struct ipcq_piece *piece = &out->piece;
    PyObject *bytes;

    if (out->data != NULL)
        return Py_NewRef(out->data);
    if (piece->head_size == 0 && out->owner != NULL && PyBytes_AS_STRING(out->owner) == piece->data &&
        (size_t)PyBytes_GET_SIZE(out->owner) == piece->size)
        return Py_NewRef(out->owner);
    bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)piece_size(piece));
    if (bytes != NULL) {
        memcpy(PyBytes_AS_STRING(bytes), piece->head, piece->head_size);
        memcpy(PyBytes_AS_STRING(bytes) + piece->head_size, piece->data, piece->size);
    }
    return bytes;
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

/* Waits once for space. False if this is left to Python. */
static bool wait_for_space(struct handle *self, size_t size, int64_t since, int64_t until)
{
    bool can = false;

    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->channel != NULL && self->waits) {
        can = true;
        base_wait_writable(self, size, since, until);
    }
    Py_END_CRITICAL_SECTION();
    return can;
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
        if (!wait_for_space(self, piece_size(piece), since, last - now < SLICE ? last : now + SLICE))
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

/* Batches */

/* Makes the pieces of a batch of bytes; false if any is not bytes, or is too large. */
static bool pieces_of(const struct handle *self, PyObject *batch, struct ipcq_piece *pieces, size_t *bytes)
{
    *bytes = 0;
    for (Py_ssize_t index = 0; index < PyTuple_GET_SIZE(batch); index++) {
        PyObject *item = PyTuple_GET_ITEM(batch, index);
        struct ipcq_piece *piece = &pieces[index];

        if (!PyBytes_CheckExact(item) || !point_to_bytes(piece, item, self->format, 0) ||
            piece_size(piece) > self->channel->max_message_size)
            return false;
        *bytes += piece_size(piece);
    }
    return true;
}

/* Puts as many items of a batch as fit, and returns their number. The lock of the handle is held. */
static size_t put_batch(struct handle *self, PyObject *batch, struct ipcq_piece *pieces)
{
    const struct ipcq_channel *channel = self->channel;
    size_t count = (size_t)PyTuple_GET_SIZE(batch);
    size_t stored = 0;
    size_t bytes;
    int result;

    if (channel == NULL || !self->puts || self->format == FORMAT_OTHER || channel->put_many == NULL ||
        !pieces_of(self, batch, pieces, &bytes))
        return 0;
    if (bytes < IPCQ_LARGE) {
        result = channel->put_many(channel->context, pieces, count, &stored);
    } else {
        BEGIN_USE(self);
        result = channel->put_many(channel->context, pieces, count, &stored);
        END_USE(self);
    }
    return result == IPCQ_OK ? stored : 0;
}

/* Leaves the rest of a batch to Python. Some items are stored, so a lack of memory for the call is no error. */
static PyObject *leave_rest(const struct native_state *state, struct handle *self, PyObject *batch, PyObject *number,
                            double deadline)
{
    PyObject *arguments[4] = {(PyObject *)self, batch, number, PyFloat_FromDouble(deadline)};
    PyObject *result = NULL;

    if (arguments[3] != NULL)
        result = PyObject_VectorcallMethod(state->put_rest, arguments, 4, NULL);
    Py_XDECREF(arguments[3]);
    if (result == NULL && PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Clear();
        result = Py_NewRef(number);
    }
    return result;
}

PyObject *put_many_call(const struct verb *verb, struct handle *self, PyObject *const *arguments, Py_ssize_t count,
                        PyObject *names)
{
    static const struct wanted wanted = {{"items", "block", "timeout", NULL}, 3};
    PyObject *places[MOST_PLACES] = {NULL};
    PyObject *batch, *number, *result = NULL;
    struct ipcq_piece *pieces;
    size_t stored = 0;
    double seconds;

    if (!arguments_sort(arguments, count, names, &wanted, places) || places[ITEM] == NULL ||
        !(PyList_CheckExact(places[ITEM]) || PyTuple_CheckExact(places[ITEM])) ||
        !arguments_patience(places[BLOCK], places[TIMEOUT], &seconds))
        return NULL;
    batch = PySequence_Tuple(places[ITEM]);
    if (batch == NULL)
        return NULL;
    pieces = PyMem_New(struct ipcq_piece, (size_t)PyTuple_GET_SIZE(batch));
    number = PyLong_FromSsize_t(PyTuple_GET_SIZE(batch)); /* now, because the call must not fail once items are stored */
    if (pieces != NULL && number != NULL) {
        Py_BEGIN_CRITICAL_SECTION(self);
        stored = put_batch(self, batch, pieces);
        Py_END_CRITICAL_SECTION();
    } else {
        PyErr_NoMemory();
    }
    PyMem_Free(pieces);
    if (stored != 0 && stored == (size_t)PyTuple_GET_SIZE(batch)) {
        result = Py_NewRef(number);
    } else if (stored != 0) {
        Py_DECREF(number); /* its memory suffices for the other int, unless another thread takes it meanwhile */
        number = PyLong_FromSize_t(stored);
        if (number == NULL) {
            PyErr_Clear();
            number = PyLong_FromSize_t(stored);
        }
        if (number != NULL)
            result = leave_rest(verb->state, self, batch, number, deadline_of(seconds));
    }
    Py_XDECREF(number);
    Py_DECREF(batch);
    return result;
}
