/*
 * get and get_nowait.
 *
 * No message may be lost (C6, C36). A message that was taken must reach a caller, even if memory runs out while it is
 * decoded. The handle then keeps it for the next get, as a bytes object. A large message is in a bytes object already.
 * A small one is on the stack, so before a get takes anything it has a bytes object in reserve. The handle keeps the
 * reserve between calls.
 */
#include "native.h"

#include "arguments.h"
#include "decoding.h"

/* Messages up to this size, in bytes, are copied to the stack (the scratch buffer) and decoded there. */
#define SCRATCH_BYTES 1024
/* How often a get allocates memory for a large message that another consumer then takes, before it falls back to
 * Python. */
#define LARGER_TRIES 8

/* A message that is being taken and decoded. */
struct incoming {
    size_t size;     /* of the message in the scratch buffer */
    PyObject *bytes; /* a message that is too large for the scratch buffer, or NULL */
    bool is_item;    /* `bytes` is the item: the message without its head */
    unsigned priority;
    PyObject *reserve;
    /* What decoding needs from the handle, as references of our own: the handle may be closed meanwhile. */
    enum codec_format format;
    struct codec_object *codec;
    PyObject *decode;
    unsigned char scratch[SCRATCH_BYTES];
};

/* Taking */

/* Takes the handle's reserve, or allocates one; returns false if memory runs out. The handle's lock is held. */
static bool have_reserve(struct handle *self, struct incoming *in)
{
    if (in->reserve != NULL)
        return true;
    in->reserve = self->reserve;
    self->reserve = NULL;
    if (in->reserve == NULL)
        in->reserve = PyBytes_FromStringAndSize(NULL, SCRATCH_BYTES);
    if (in->reserve == NULL)
        PyErr_Clear();
    return in->reserve != NULL;
}

static void give_reserve_back(struct handle *self, struct incoming *in)
{
    PyObject *left = in->reserve;

    if (left == NULL)
        return;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->reserve == NULL) {
        self->reserve = left;
        left = NULL;
    }
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(left);
}

/* Shortens bytes in place, which cannot fail. */
static void shorten(PyObject *bytes, size_t size)
{
    Py_SET_SIZE((PyVarObject *)bytes, (Py_ssize_t)size);
    PyBytes_AS_STRING(bytes)[size] = '\0';
}

/* Shortens bytes to `size`, which never fails. If that leaves most of the memory unused, it tries to copy them. */
static void fit(PyObject **bytes, size_t size)
{
    size_t allocated = (size_t)PyBytes_GET_SIZE(*bytes);
    PyObject *smaller = size == allocated || size > allocated / 2
                            ? NULL
                            : PyBytes_FromStringAndSize(PyBytes_AS_STRING(*bytes), (Py_ssize_t)size);

    if (smaller != NULL) {
        Py_SETREF(*bytes, smaller);
    } else if (size != allocated) {
        PyErr_Clear();
        shorten(*bytes, size);
    }
}

static int get_unlocked(struct handle *self, const struct ipcq_channel *channel, struct ipcq_space *space)
{
    int result;

    BEGIN_USE(self);
    result = channel->get(channel->context, space, 0);
    END_USE(self);
    return result;
}

/* Allocates memory for the message that the last try found too large, and tries again. By now, the next message may be
 * another one. */
static int take_larger(struct handle *self, const struct ipcq_channel *channel, struct incoming *in,
                       struct ipcq_space *space)
{
    size_t size = space->message_size;
    size_t head = 0;
    int result;

    if (size > channel->max_message_size)
        return IPCQ_OTHER;
    if (in->format == FORMAT_BIN || in->format == FORMAT_MESSAGEPACK)
        head = codec_bin_head(space->head, space->heads_present, size);
    Py_XSETREF(in->bytes, PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(size - head)));
    if (in->bytes == NULL) {
        PyErr_Clear();
        return IPCQ_OTHER;
    }
    in->is_item = head != 0 || in->format == FORMAT_RAW;
    space->data = PyBytes_AS_STRING(in->bytes);
    space->size = size - head;
    space->head_size = (unsigned)head;
    result = size < IPCQ_LARGE ? channel->get(channel->context, space, 0) : get_unlocked(self, channel, space);
    if (result == IPCQ_OK)
        fit(&in->bytes, space->message_size - head);
    else
        Py_CLEAR(in->bytes);
    return result;
}

/* Takes references to what decoding needs from the handle. The handle's lock is held. */
static void hold(struct handle *self, struct incoming *in)
{
    in->codec = (struct codec_object *)Py_XNewRef((PyObject *)self->codec);
    in->decode = Py_NewRef(self->decode);
}

static void let_go(struct incoming *in)
{
    Py_CLEAR(in->codec);
    Py_CLEAR(in->decode);
}

/* Takes a message that is too large for the scratch buffer. */
static int take_large(struct handle *self, const struct ipcq_channel *channel, struct incoming *in,
                      struct ipcq_space *space)
{
    int result = IPCQ_LARGER;

    hold(self, in); /* before the lock is released and the handle may be closed */
    for (int tries = 0; result == IPCQ_LARGER && tries < LARGER_TRIES && self->channel == channel; tries++)
        result = take_larger(self, channel, in, space);
    if (result == IPCQ_OK)
        return result;
    let_go(in);
    return result == IPCQ_LARGER ? IPCQ_OTHER : result;
}

/* Takes the next message if there is one. The handle's lock is held. */
static inline int take(struct handle *self, struct incoming *in, int polite)
{
    const struct ipcq_channel *channel = self->channel;
    struct ipcq_space space;
    int result;

    space.data = in->scratch;
    space.size = sizeof in->scratch;
    space.head_size = 0;
    in->format = self->format;
    result = channel->get(channel->context, &space, polite);
    if (result == IPCQ_LARGER)
        result = take_large(self, channel, in, &space);
    else if (result == IPCQ_OK && !decoding_is_bytes(in->format, in->scratch, space.message_size))
        hold(self, in);
    if (result == IPCQ_OK) {
        in->size = space.message_size;
        in->priority = space.priority;
    }
    return result;
}

/* Takes a message if there is one. IPCQ_OTHER means: fall back to Python. */
static inline int take_now(struct handle *self, struct incoming *in, int polite)
{
    int result = IPCQ_OTHER;

    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->channel != NULL && self->gets && have_reserve(self, in))
        result = take(self, in, polite);
    Py_END_CRITICAL_SECTION();
    return result;
}

struct get_wait {
    struct wait wait;
    struct incoming *in;
};

static int take_again(struct handle *self, struct wait *wait)
{
    return take_now(self, ((struct get_wait *)wait)->in, 0);
}

/* Waits for a message until the deadline and takes it; results are those of `base_wait`. */
static int take_in_time(struct handle *self, struct incoming *in, double deadline)
{
    struct get_wait wait = {{take_again, true, 0}, in};

    return base_wait(self, &wait.wait, deadline);
}

/* Decoding */

/* Copies a message from the scratch buffer to the reserve, which cannot fail. */
static void use_reserve(struct incoming *in)
{
    in->bytes = in->reserve;
    in->reserve = NULL;
    memcpy(PyBytes_AS_STRING(in->bytes), in->scratch, in->size);
    shorten(in->bytes, in->size);
}

/* Keeps a message for the handle's next get, after decoding ran out of memory. */
static void keep(const struct native_state *state, struct handle *self, struct incoming *in)
{
    PyObject *error = PyErr_GetRaisedException();

    if (in->bytes == NULL)
        use_reserve(in);
    base_keep(state, self, in->bytes, in->priority);
    PyErr_SetRaisedException(error);
}

static PyObject *decode_small(struct incoming *in)
{
    PyObject *item = decoding_item(in->format, in->codec, in->scratch, in->size);
    PyObject *bytes;

    if (item != NULL || PyErr_Occurred())
        return item;
    bytes = PyBytes_FromStringAndSize((const char *)in->scratch, (Py_ssize_t)in->size);
    item = bytes == NULL ? NULL : PyObject_CallOneArg(in->decode, bytes);
    Py_XDECREF(bytes);
    return item;
}

static PyObject *decode_large(struct incoming *in)
{
    PyObject *item;

    if (in->is_item)
        return Py_NewRef(in->bytes);
    item = decoding_item(in->format, in->codec, (const unsigned char *)PyBytes_AS_STRING(in->bytes),
                         (size_t)PyBytes_GET_SIZE(in->bytes));
    return item != NULL || PyErr_Occurred() ? item : PyObject_CallOneArg(in->decode, in->bytes);
}

/* Decodes a message that was taken, and releases its memory and references. */
static PyObject *decoded(const struct native_state *state, struct handle *self, struct incoming *in)
{
    PyObject *item = in->bytes == NULL ? decode_small(in) : decode_large(in);

    if (item == NULL && PyErr_ExceptionMatches(PyExc_MemoryError))
        keep(state, self, in);
    Py_CLEAR(in->bytes);
    let_go(in);
    return item != NULL ? item : base_raise_again(state, self);
}

/* The calls */

/* Takes a message within the timeout, and sets the deadline; results are those of `base_wait`. */
static inline int obtain(struct handle *self, struct incoming *in, double seconds, double *deadline)
{
    int result = take_now(self, in, seconds != 0);

    *deadline = deadline_of(seconds);
    if (result == IPCQ_CROWDED) {
        base_give_way(self, true, seconds);
        result = take_now(self, in, 0);
    }
    if (result == IPCQ_EMPTY && seconds != 0)
        result = take_in_time(self, in, *deadline);
    return result;
}

/* Falls back to Python for the rest of the timeout. */
static PyObject *leave_rest(const struct verb *verb, struct handle *self, double deadline)
{
    PyObject *timeout = seconds_left(deadline);
    PyObject *const arguments[] = {(PyObject *)self, Py_True, timeout};
    PyObject *item = NULL;

    if (timeout != NULL)
        item = PyObject_Vectorcall(verb->method, arguments, 3, NULL);
    Py_XDECREF(timeout);
    return item;
}

/* Gets an item, with the arguments converted. */
static inline PyObject *get_item(const struct verb *verb, struct handle *self, double seconds)
{
    struct incoming in; /* an initialiser would fill the scratch buffer with zeros */
    double deadline = -INFINITY;
    PyObject *item = NULL;
    int result;

    in.bytes = in.reserve = in.decode = NULL;
    in.codec = NULL;
    in.is_item = false;
    result = obtain(self, &in, seconds, &deadline);
    if (result == IPCQ_OK)
        item = decoded(verb->state, self, &in);
    give_reserve_back(self, &in);
    if (result == IPCQ_OK || PyErr_Occurred())
        return item;
    return seconds == 0 ? NULL : leave_rest(verb, self, deadline);
}

PyObject *get_call(const struct verb *verb, struct handle *self, PyObject *const *arguments, Py_ssize_t count,
                   PyObject *names)
{
    static const struct parameters parameters = {{"block", "timeout", NULL}, 2};
    PyObject *places[MOST_PLACES] = {NULL};
    double seconds;

    if (count == 0 && names == NULL)
        return get_item(verb, self, INFINITY);
    if (!arguments_sort(arguments, count, names, &parameters, places) ||
        !arguments_patience(places[0], places[1], &seconds))
        return NULL;
    return get_item(verb, self, seconds);
}

PyObject *get_nowait_call(const struct verb *verb, struct handle *self, PyObject *const *Py_UNUSED(arguments),
                          Py_ssize_t count, PyObject *names)
{
    if (count != 0 || names != NULL || !verb_is_current(verb->state, self, verb->state->get, get_call))
        return NULL;
    return get_item(verb, self, 0);
}
