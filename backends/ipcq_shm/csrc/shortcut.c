/*
 * `Shortcut`: put and get of a handle from end to end, for what can be done at once.
 *
 * The core lets this class stand before `ipcq.Queue` in the class of a handle (clause 21 in ipcq/backend.py). There is no
 * second set of semantics here: a call either does what Queue's would certainly do without waiting, or is handed on with
 * nothing done but the encoding. What is handed on: arguments that are not plainly right, a queue that is full, empty,
 * busy, ended or damaged, large messages, and everything once the handle is closed.
 *
 * Queue counts who is inside the channel, so that nobody closes it meanwhile. Here nobody has to be counted: while the
 * channel is used the GIL, or in a free-threaded Python the handle's own lock, is not given away, and after an encoder
 * was run, which may do anything, it is asked anew whether there still is a channel.
 *
 * Of most messages the item is a `bytes`. How those travel is known (`of_bytes`), so they are copied from the item to
 * the ring and from there to the item, and no codec is called.
 */
#include <math.h>

#include "binding.h"

#ifndef Py_BEGIN_CRITICAL_SECTION /* came with the free-threaded Python 3.13 */
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

#if PY_VERSION_HEX < 0x030c0000
static PyObject *PyErr_GetRaisedException(void)
{
    PyObject *type, *error, *trace;

    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    if (trace != NULL)
        PyException_SetTraceback(error, trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    return error;
}
#endif

enum of_bytes {
    ENCODED, /* as the codec says */
    BARE,    /* as they are */
    BIN,     /* as MessagePack's bin 8, 16 or 32, whichever is the first to suffice */
};

struct shortcut {
    PyObject_HEAD
    struct channel *channel; /* NULL: everything is handed on */
    PyObject *encode;
    PyObject *decode;
    enum of_bytes of_bytes;
    bool puts;
    bool gets;
};

static struct shortcut *shortcut_of(PyObject *self)
{
    return (struct shortcut *)self;
}

static struct ring *ring_of(const struct shortcut *shortcut)
{
    return shortcut->channel != NULL && shortcut->channel->open ? &shortcut->channel->ring : NULL;
}

/* Handing on */

/* Calls the method of the class that comes next. */
static PyObject *hand_on(PyObject *self, const char *verb, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    const struct core_state *state = core_state_of(Py_TYPE(self));
    PyObject *next = state == NULL ? NULL
                                   : PyObject_CallFunctionObjArgs((PyObject *)&PySuper_Type, state->shortcut, self, NULL);
    PyObject *method = next == NULL ? NULL : PyObject_GetAttrString(next, verb);
    PyObject *result = method == NULL ? NULL : PyObject_Vectorcall(method, arguments, (size_t)count, names);

    Py_XDECREF(next);
    Py_XDECREF(method);
    return result;
}

static PyObject *hand_on_encoded(PyObject *self, PyObject *data, long priority, double deadline)
{
    return PyObject_CallMethod(self, "_put_encoded", "Old", data, priority, deadline);
}

/* Lets the handle raise what a codec raised, which then says of which queue. */
static PyObject *raise_again(PyObject *self)
{
    PyObject *error = PyErr_GetRaisedException();
    PyObject *nothing = PyObject_CallMethod(self, "_raise", "O", error);

    Py_DECREF(error);
    return nothing;
}

/* Arguments */

/* Sorts arguments into places, NULL where there is none; false where Python has to say what is wrong with them. */
static bool sorted(PyObject *const *arguments, Py_ssize_t count, PyObject *names, const char *const *wanted,
                   Py_ssize_t most, PyObject **places)
{
    Py_ssize_t named = names == NULL ? 0 : PyTuple_GET_SIZE(names);

    if (count > most)
        return false;
    for (Py_ssize_t index = 0; index < count; index++)
        places[index] = arguments[index];
    for (Py_ssize_t index = 0; index < named; index++) {
        Py_ssize_t place = 0;

        while (wanted[place] != NULL &&
               PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, index), wanted[place]) != 0)
            place++;
        if (wanted[place] == NULL || places[place] != NULL)
            return false;
        places[place] = arguments[count + index];
    }
    return true;
}

/* Tells from block and timeout for how many seconds the call may wait; false where they are not plainly right. */
static bool patience_of(PyObject *block, PyObject *timeout, double *seconds)
{
    *seconds = INFINITY;
    if (timeout != NULL && timeout != Py_None) {
        if (PyFloat_CheckExact(timeout)) {
            *seconds = PyFloat_AS_DOUBLE(timeout);
        } else if (PyLong_CheckExact(timeout)) {
            *seconds = PyLong_AsDouble(timeout);
            if (*seconds == -1 && PyErr_Occurred())
                PyErr_Clear();
        } else {
            return false;
        }
        if (!(*seconds >= 0))
            return false;
    }
    if (block == NULL || block == Py_True)
        return true;
    *seconds = 0;
    return block == Py_False;
}

/* As a deadline on the monotonic clock, in seconds. */
static double deadline_of(double seconds)
{
    return seconds == 0 ? -INFINITY : seconds == INFINITY ? INFINITY : (double)wait_now() * 1e-9 + seconds;
}

static bool priority_of(const struct ring *ring, PyObject *given, long *priority)
{
    int overflow;

    *priority = 0;
    if (given == NULL)
        return true;
    if (!PyLong_CheckExact(given))
        return false;
    *priority = PyLong_AsLongAndOverflow(given, &overflow);
    return overflow == 0 && *priority >= 0 && *priority <= (ring->flags & RING_ORDERED ? HIGHEST_PRIORITY : 0);
}

/* Putting */

static struct ring_piece piece_of(PyObject *bytes, long priority)
{
    return (struct ring_piece){
        .data = PyBytes_AS_STRING(bytes),
        .size = (size_t)PyBytes_GET_SIZE(bytes),
        .priority = (unsigned)priority,
    };
}

/* Writes the head of MessagePack's bin. */
static void pack_head(struct ring_piece *piece)
{
    size_t size = piece->size;
    unsigned bytes = size < 1 << 8 ? 1 : size < 1 << 16 ? 2 : 4;

    piece->head[0] = bytes == 1 ? 0xc4 : bytes == 2 ? 0xc5 : 0xc6;
    for (unsigned byte = bytes; byte > 0; byte--, size >>= 8)
        piece->head[byte] = (unsigned char)size;
    piece->head_size = 1 + bytes;
}

/* Puts if that can be done at once. */
static bool put_at_once(PyObject *self, const struct ring_piece *piece)
{
    enum ring_result result = RING_BUSY;
    size_t stored;

    Py_BEGIN_CRITICAL_SECTION(self);
    struct ring *ring = ring_of(shortcut_of(self));

    if (ring != NULL && piece->head_size + piece->size < RING_LARGE)
        result = ring_put_many(ring, piece, 1, &stored, 0);
    Py_END_CRITICAL_SECTION();
    return result == RING_OK;
}

/* Encodes, and puts now or later. */
static PyObject *put_encoded(PyObject *self, PyObject *encode, PyObject *item, long priority, double seconds)
{
    double deadline = deadline_of(seconds);
    PyObject *data = PyObject_CallOneArg(encode, item);
    PyObject *result;

    if (data == NULL)
        return raise_again(self);
    if (PyBytes_Check(data)) {
        struct ring_piece piece = piece_of(data, priority);

        if (put_at_once(self, &piece)) {
            Py_DECREF(data);
            Py_RETURN_NONE;
        }
    }
    result = hand_on_encoded(self, data, priority, deadline);
    Py_DECREF(data);
    return result;
}

enum { ITEM, BLOCK, TIMEOUT, PRIORITY, PLACES };

static const char *const put_wants[] = {"item", "block", "timeout", "priority", NULL};
static const char *const put_nowait_wants[] = {"item", NULL};
static const char *const get_wants[] = {"block", "timeout", NULL};

/* Puts what stands at the places, where that can be done at once or comes to pass after the encoding; NULL without an
 * exception where the call is to be handed on. */
static PyObject *put_places(PyObject *self, PyObject *const *places)
{
    struct shortcut *shortcut = shortcut_of(self);
    enum of_bytes of_bytes = ENCODED;
    PyObject *encode = NULL;
    PyObject *result;
    long priority;
    double seconds;

    if (!patience_of(places[BLOCK], places[TIMEOUT], &seconds))
        return NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    struct ring *ring = ring_of(shortcut);

    if (ring != NULL && shortcut->puts && priority_of(ring, places[PRIORITY], &priority)) {
        of_bytes = shortcut->of_bytes;
        encode = Py_NewRef(shortcut->encode);
    }
    Py_END_CRITICAL_SECTION();
    if (encode == NULL)
        return NULL;
    if (of_bytes != ENCODED && PyBytes_CheckExact(places[ITEM])) {
        struct ring_piece piece = piece_of(places[ITEM], priority);

        if (of_bytes == BIN)
            pack_head(&piece);
        result = put_at_once(self, &piece) ? Py_NewRef(Py_None) : NULL;
    } else {
        result = put_encoded(self, encode, places[ITEM], priority, seconds);
    }
    Py_DECREF(encode);
    return result;
}

static PyObject *put(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    PyObject *places[PLACES] = {NULL};
    PyObject *result = NULL;

    if (sorted(arguments, count, names, put_wants, PRIORITY, places) && places[ITEM] != NULL)
        result = put_places(self, places);
    return result != NULL || PyErr_Occurred() ? result : hand_on(self, "put", arguments, count, names);
}

static PyObject *put_nowait(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    PyObject *places[PLACES] = {NULL, Py_False};
    PyObject *result = NULL;

    if (sorted(arguments, count, names, put_nowait_wants, BLOCK, places) && places[ITEM] != NULL)
        result = put_places(self, places);
    return result != NULL || PyErr_Occurred() ? result : hand_on(self, "put_nowait", arguments, count, names);
}

/* Getting */

struct taking {
    enum of_bytes of_bytes;
    bool is_item;
    PyObject *bytes;
};

/* Returns how long the head of a bin is that is the whole message, or 0 where it is none. */
static size_t unpack_head(const unsigned char *message, size_t size)
{
    unsigned char kind = size < 2 ? 0 : message[0];
    size_t head = kind == 0xc4 ? 2 : kind == 0xc5 ? 3 : kind == 0xc6 ? 5 : 0;
    size_t rest = 0;

    if (head == 0 || size < head)
        return 0;
    for (size_t byte = 1; byte < head; byte++)
        rest = rest << 8 | message[byte];
    return rest == size - head ? head : 0;
}

static void *room(void *context, struct ring_piece *message)
{
    struct taking *taking = context;
    size_t head = 0;

    if (taking->of_bytes == BIN)
        head = unpack_head(message->data, message->size);
    taking->is_item = head != 0 || taking->of_bytes == BARE;
    taking->bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(message->size - head));
    if (taking->bytes == NULL) {
        PyErr_Clear();
        return NULL;
    }
    if (head != 0) {
        message->data = (const unsigned char *)message->data + head;
        message->size -= head;
    }
    return PyBytes_AS_STRING(taking->bytes);
}

/* Takes what comes within a short spin. */
static bool take(struct ring *ring, struct taking *taking, bool waits)
{
    enum ring_result result = ring_get(ring, room, taking, NULL, 0);
    int64_t now;

    if (result == RING_EMPTY && waits) {
        now = wait_now();
        if (ring_spin_readable(ring, now, now + SHORT_SPIN))
            result = ring_get(ring, room, taking, NULL, 0);
        if (result == RING_OK)
            core_count_wait(ring, true);
    }
    return result == RING_OK;
}

/* As put_places. */
static PyObject *get_item(PyObject *self, bool waits)
{
    struct shortcut *shortcut = shortcut_of(self);
    struct taking taking = {0};
    PyObject *decode = NULL;
    PyObject *item;

    Py_BEGIN_CRITICAL_SECTION(self);
    struct ring *ring = ring_of(shortcut);

    taking.of_bytes = shortcut->of_bytes;
    if (ring != NULL && shortcut->gets && take(ring, &taking, waits))
        decode = Py_NewRef(shortcut->decode);
    Py_END_CRITICAL_SECTION();
    if (decode == NULL)
        return NULL;
    if (taking.is_item) {
        Py_DECREF(decode);
        return taking.bytes;
    }
    item = PyObject_CallOneArg(decode, taking.bytes);
    Py_DECREF(taking.bytes);
    Py_DECREF(decode);
    return item != NULL ? item : raise_again(self);
}

static PyObject *get(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    PyObject *places[2] = {NULL};
    PyObject *item = NULL;
    double seconds;

    if (sorted(arguments, count, names, get_wants, 2, places) && patience_of(places[0], places[1], &seconds))
        item = get_item(self, seconds != 0);
    return item != NULL || PyErr_Occurred() ? item : hand_on(self, "get", arguments, count, names);
}

static PyObject *get_nowait(PyObject *self, PyObject *Py_UNUSED(unused))
{
    PyObject *const without_waiting[] = {Py_False};
    PyObject *item = get_item(self, false);

    return item != NULL || PyErr_Occurred() ? item : hand_on(self, "get", without_waiting, 1, NULL);
}

/* Beginning and end */

static void let_go(struct shortcut *shortcut)
{
    Py_CLEAR(shortcut->channel);
    Py_CLEAR(shortcut->encode);
    Py_CLEAR(shortcut->decode);
}

static PyObject *disarm(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct shortcut *shortcut = shortcut_of(self);
    PyObject *channel, *encode, *decode;

    Py_BEGIN_CRITICAL_SECTION(self);
    channel = (PyObject *)shortcut->channel;
    encode = shortcut->encode;
    decode = shortcut->decode;
    shortcut->channel = NULL;
    shortcut->encode = shortcut->decode = NULL;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(channel);
    Py_XDECREF(encode);
    Py_XDECREF(decode);
    Py_RETURN_NONE;
}

static PyObject *arm(PyObject *self, PyObject *arguments)
{
    struct shortcut *shortcut = shortcut_of(self);
    const struct core_state *state = core_state_of(Py_TYPE(self));
    PyObject *channel, *encode, *decode;
    const char *of_bytes;
    int puts, gets;

    if (state == NULL || !PyArg_ParseTuple(arguments, "O!OOspp", (PyTypeObject *)state->ring, &channel, &encode, &decode,
                                           &of_bytes, &puts, &gets))
        return NULL;
    Py_DECREF(disarm(self, NULL));
    Py_BEGIN_CRITICAL_SECTION(self);
    shortcut->of_bytes = strcmp(of_bytes, "bare") == 0 ? BARE : strcmp(of_bytes, "bin") == 0 ? BIN : ENCODED;
    /* On a shelf a message has no head. */
    if (shortcut->of_bytes == BIN && ((struct channel *)channel)->ring.flags & RING_ORDERED)
        shortcut->of_bytes = ENCODED;
    shortcut->puts = puts;
    shortcut->gets = gets;
    shortcut->encode = Py_NewRef(encode);
    shortcut->decode = Py_NewRef(decode);
    shortcut->channel = (struct channel *)Py_NewRef(channel);
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

static int shortcut_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(shortcut_of(self)->channel);
    Py_VISIT(shortcut_of(self)->encode);
    Py_VISIT(shortcut_of(self)->decode);
    return 0;
}

static int shortcut_clear(PyObject *self)
{
    let_go(shortcut_of(self));
    return 0;
}

static void shortcut_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    let_go(shortcut_of(self));
    type->tp_free(self);
    Py_DECREF(type);
}

/* The docstrings are those of the next class, where inspect and help find them. */
static PyMethodDef shortcut_methods[] = {
    {"put", (PyCFunction)(void (*)(void))put, METH_FASTCALL | METH_KEYWORDS,
     "put($self, item, block=True, timeout=None, *, priority=0)\n--\n\n"},
    {"put_nowait", (PyCFunction)(void (*)(void))put_nowait, METH_FASTCALL | METH_KEYWORDS,
     "put_nowait($self, item)\n--\n\n"},
    {"get", (PyCFunction)(void (*)(void))get, METH_FASTCALL | METH_KEYWORDS,
     "get($self, block=True, timeout=None)\n--\n\n"},
    {"get_nowait", get_nowait, METH_NOARGS, "get_nowait($self)\n--\n\n"},
    {"_arm", arm, METH_VARARGS, NULL},
    {"_disarm", disarm, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot shortcut_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("What a handle to a ring does at once.")},
    {Py_tp_dealloc, shortcut_dealloc},
    {Py_tp_traverse, shortcut_traverse},
    {Py_tp_clear, shortcut_clear},
    {Py_tp_methods, shortcut_methods},
    {0, NULL},
};

PyType_Spec core_shortcut_spec = {
    .name = "ipcq_shm._core.Shortcut",
    .basicsize = sizeof(struct shortcut),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = shortcut_slots,
};
