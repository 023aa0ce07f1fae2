/* put and put_nowait. */
#include "native.h"

#include "arguments.h"
#include "piece.h"

#define HIGHEST_PRIORITY 32767

/* An encoded message, which is kept until it is stored or passed to Python. */
struct outgoing {
    struct ipcq_piece piece;
    unsigned priority;
    PyObject *data;         /* the result of an encoder in Python, or NULL */
    struct bytes_sink sink; /* what the piece points to, unless it points into the item or into `data` */
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

/* Encodes an item in C; returns false if C cannot. The piece may point into the item, which the caller keeps alive. */
static inline bool encode_in_c(struct outgoing *out, PyObject *item, enum codec_format format)
{
    out->data = out->sink.bytes = NULL;
    if (format == FORMAT_OTHER)
        return false;
    if (PyBytes_CheckExact(item))
        return piece_of_bytes(&out->piece, item, format, out->priority);
    if (format != FORMAT_MESSAGEPACK)
        return false;
    sink_begin(&out->sink);
    if (codec_encode(item, &out->sink.sink) != CODEC_DONE) {
        sink_drop(&out->sink);
        return false;
    }
    piece_set(&out->piece, out->sink.begin, sink_size(&out->sink), out->priority);
    return true;
}

/* Encodes an item in Python; false with an exception of the encoder. If the encoder does not return bytes, the piece
 * has no data, and the fallback to Python raises. */
static bool encode_in_python(struct outgoing *out, PyObject *item, PyObject *encode)
{
    out->data = PyObject_CallOneArg(encode, item);
    if (out->data == NULL)
        return false;
    if (PyBytes_Check(out->data))
        piece_set(&out->piece, PyBytes_AS_STRING(out->data), (size_t)PyBytes_GET_SIZE(out->data), out->priority);
    else
        out->piece.data = NULL;
    return true;
}

/* Returns the whole message as one object, for the fallback to Python. */
static PyObject *whole(const struct outgoing *out, PyObject *item)
{
    if (out->data != NULL)
        return Py_NewRef(out->data);
    return piece_whole(&out->piece, out->sink.bytes != NULL ? out->sink.bytes : item);
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

/* Stores the message if there is space. The handle's lock is held. */
static inline int try_put(struct handle *self, const struct ipcq_piece *piece, int polite)
{
    const struct ipcq_channel *channel = self->channel;

    if (channel == NULL || piece_size(piece) > channel->max_message_size)
        return IPCQ_OTHER;
    return piece_size(piece) < IPCQ_LARGE ? channel->put(channel->context, piece, polite)
                                          : put_unlocked(self, channel, piece, polite);
}

static int put_now(struct handle *self, const struct ipcq_piece *piece, int polite)
{
    int result;

    Py_BEGIN_CRITICAL_SECTION(self);
    result = try_put(self, piece, polite);
    Py_END_CRITICAL_SECTION();
    return result;
}

struct put_wait {
    struct wait wait;
    const struct ipcq_piece *piece;
};

static int put_again(struct handle *self, struct wait *wait)
{
    return put_now(self, ((struct put_wait *)wait)->piece, 0);
}

/* Waits for space until the deadline and stores the message; results are those of `base_wait`. */
static int put_in_time(struct handle *self, const struct ipcq_piece *piece, double deadline)
{
    struct put_wait wait = {{put_again, false, piece_size(piece)}, piece};

    return base_wait(self, &wait.wait, deadline);
}

/* Continues a put after the result of its first try. Any result but IPCQ_OK means: an exception is set, or else fall
 * back to Python. */
static int retry_put(struct handle *self, const struct ipcq_piece *piece, int result, double seconds, double deadline)
{
    if (result == IPCQ_CROWDED) {
        base_give_way(self, false, seconds);
        result = put_now(self, piece, 0);
    }
    if (result == IPCQ_FULL && seconds != 0)
        result = put_in_time(self, piece, deadline);
    return result;
}

/* Falls back to Python with the encoded message. */
static PyObject *leave_encoded(const struct native_state *state, struct handle *self, const struct outgoing *out,
                               PyObject *item, double deadline)
{
    PyObject *arguments[4] = {(PyObject *)self, whole(out, item), PyLong_FromUnsignedLong(out->priority),
                              PyFloat_FromDouble(deadline)};
    PyObject *result = NULL;

    if (arguments[1] != NULL && arguments[2] != NULL && arguments[3] != NULL)
        result = PyObject_VectorcallMethod(state->put_encoded, arguments, 4, NULL);
    Py_XDECREF(arguments[1]);
    Py_XDECREF(arguments[2]);
    Py_XDECREF(arguments[3]);
    return result;
}

/* Completes a put after the result of its first try, and releases the message. */
static PyObject *finish_put(const struct native_state *state, struct handle *self, struct outgoing *out, PyObject *item,
                            int result, double seconds, double deadline)
{
    PyObject *done = NULL;

    if (result != IPCQ_OK)
        result = retry_put(self, &out->piece, result, seconds, deadline);
    if (result == IPCQ_OK)
        done = Py_NewRef(Py_None);
    else if (!PyErr_Occurred())
        done = leave_encoded(state, self, out, item, deadline);
    Py_XDECREF(out->data);
    sink_drop(&out->sink);
    return done;
}

/* Puts an item that is encoded in Python. */
static PyObject *put_encoded_in_python(const struct native_state *state, struct handle *self, struct outgoing *out,
                                       PyObject *item, PyObject *encode, double seconds, double deadline)
{
    int result = IPCQ_OTHER;

    if (!encode_in_python(out, item, encode))
        return base_raise_again(state, self);
    if (out->piece.data != NULL)
        result = put_now(self, &out->piece, seconds != 0);
    return finish_put(state, self, out, item, result, seconds, deadline);
}

/* Puts an item, with the arguments converted. */
static inline PyObject *put_item(const struct native_state *state, struct handle *self, PyObject *item,
                                 PyObject *priority, double seconds)
{
    double deadline = deadline_of(seconds); /* before encoding, because the timeout includes it */
    PyObject *encode = NULL, *done;
    bool encoded = false;
    int result = IPCQ_OTHER;
    struct outgoing out;

    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->channel != NULL && self->puts && priority_of(self->channel, priority, &out.priority)) {
        encoded = encode_in_c(&out, item, self->format);
        if (encoded)
            result = try_put(self, &out.piece, seconds != 0);
        else
            encode = Py_NewRef(self->encode); /* it may run any code, so it is called without the handle's lock */
    }
    Py_END_CRITICAL_SECTION();
    if (encode != NULL) {
        done = put_encoded_in_python(state, self, &out, item, encode, seconds, deadline);
        Py_DECREF(encode);
        return done;
    }
    if (!encoded)
        return NULL;
    if (result == IPCQ_OK && out.sink.bytes == NULL)
        Py_RETURN_NONE;
    return finish_put(state, self, &out, item, result, seconds, deadline);
}

enum { ITEM, BLOCK, TIMEOUT, PRIORITY };

PyObject *put_call(const struct verb *verb, struct handle *self, PyObject *const *arguments, Py_ssize_t count,
                   PyObject *names)
{
    static const struct parameters parameters = {{"item", "block", "timeout", "priority", NULL}, 3};
    PyObject *places[MOST_PLACES] = {NULL};
    double seconds;

    if (count == 1 && names == NULL)
        return put_item(verb->state, self, arguments[0], NULL, INFINITY);
    if (!arguments_sort(arguments, count, names, &parameters, places) || places[ITEM] == NULL ||
        !arguments_patience(places[BLOCK], places[TIMEOUT], &seconds))
        return NULL;
    return put_item(verb->state, self, places[ITEM], places[PRIORITY], seconds);
}

PyObject *put_nowait_call(const struct verb *verb, struct handle *self, PyObject *const *arguments, Py_ssize_t count,
                          PyObject *names)
{
    static const struct parameters parameters = {{"item", NULL}, 1};
    PyObject *places[MOST_PLACES] = {NULL};

    if (!arguments_sort(arguments, count, names, &parameters, places) || places[ITEM] == NULL ||
        !verb_is_current(verb->state, self, verb->state->put, put_call))
        return NULL;
    return put_item(verb->state, self, places[ITEM], NULL, 0);
}
