/*
 * The fast path of a handle to a ring: put and get from end to end in C.
 *
 * The class is derived from `ipcq.Queue` (clause 21 of `ipcq.backend`) and has no semantics of its own. A call either
 * does exactly what Queue's method would do, or falls back to that method. Before a fallback it has done nothing but
 * the encoding, or the beginning of a wait for a message. It falls back for unusual arguments, for a queue that is
 * full, busy, ended or damaged, and for a closed handle.
 *
 * Queue counts the calls inside the channel, so that the channel is not closed meanwhile. Here no count is necessary.
 * While the channel is used, the GIL or, in a free-threaded Python, the handle's lock is not released. After an encoder
 * ran, which may do anything, the channel is looked up again. Only a wait, and the copy of a large message, continue
 * without that lock. Such uses are counted, and the channel's close waits for them. Disarming does not wait, because
 * several threads may close the handle and only one of them disarms it.
 *
 * Most items are `bytes`. Their encoding is known (`of_bytes`), so they are copied directly between the item and the
 * ring, and no codec is called.
 *
 * A handle has one word after Queue's fields, for a `Shortcut`. No class may be derived from this one, so the word is
 * always the last one. Python creates and deallocates Queue's part; for that the word is a member like those of
 * __slots__, and Python code can write to it. So its type is checked before each use.
 */
#include "binding.h"

#include <math.h>
#include <structmember.h> /* needs Python.h before it */

#include "clock.h"

#ifndef Py_BEGIN_CRITICAL_SECTION /* new in Python 3.13 */
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

static void PyErr_SetRaisedException(PyObject *error)
{
    PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
}
#endif

enum of_bytes {
    ENCODED, /* as the codec encodes them */
    BARE,    /* unchanged */
    BIN,     /* as MessagePack's bin 8, 16 or 32, whichever is the smallest that suffices */
};

/* The data that the fast path needs while the handle is open. */
struct shortcut {
    PyObject_HEAD
    struct channel *channel;
    PyObject *encode;
    PyObject *decode;
    enum of_bytes of_bytes;
    bool puts;
    bool gets;
    bool waits;
};

static void shortcut_dealloc(PyObject *self);

static PyObject **word_of(PyObject *self)
{
    return (PyObject **)((char *)self + Py_TYPE(self)->tp_basicsize) - 1;
}

static bool is_shortcut(PyObject *word)
{
    return word != NULL && Py_TYPE(word)->tp_dealloc == shortcut_dealloc;
}

/* NULL if the handle or its channel is closed. */
static struct shortcut *shortcut_of(PyObject *self)
{
    PyObject *word = *word_of(self);
    struct shortcut *shortcut = (struct shortcut *)word;

    return is_shortcut(word) && shortcut->channel->open ? shortcut : NULL;
}

/* Later deadlines, in seconds of the clock, count as infinite. */
#define LATEST 4e9

/* Gives way to sleepers, for at most so many seconds. The handle may be closed meanwhile. */
static void give_way(PyObject *self, bool getting, double seconds)
{
    int64_t until = seconds < LATEST ? clock_now() + (int64_t)(seconds * 1e9) : INT64_MAX;

    Py_BEGIN_CRITICAL_SECTION(self);
    struct shortcut *shortcut = shortcut_of(self);

    if (shortcut != NULL) {
        struct channel *channel = shortcut->channel;

        CORE_BEGIN_USE(channel);
        wait_give_way(&channel->queue, getting, until);
        CORE_END_USE(channel);
    }
    Py_END_CRITICAL_SECTION();
}

/* Fallback */

/* Falls back to the method of the base class. */
static PyObject *hand_on(PyObject *self, const char *verb, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    PyObject *super = PyObject_CallFunctionObjArgs((PyObject *)&PySuper_Type, (PyObject *)Py_TYPE(self), self, NULL);
    PyObject *method = super == NULL ? NULL : PyObject_GetAttrString(super, verb);
    PyObject *result = method == NULL ? NULL : PyObject_Vectorcall(method, arguments, (size_t)count, names);

    Py_XDECREF(super);
    Py_XDECREF(method);
    return result;
}

static PyObject *hand_on_encoded(PyObject *self, PyObject *data, long priority, double deadline)
{
    return PyObject_CallMethod(self, "_put_encoded", "Old", data, priority, deadline);
}

/* Lets the handle raise a codec's exception again, with the name of the queue. */
static PyObject *raise_again(PyObject *self)
{
    PyObject *error = PyErr_GetRaisedException();
    PyObject *nothing = PyObject_CallMethod(self, "_raise", "O", error);

    Py_DECREF(error);
    return nothing;
}

/* Arguments */

/* Sorts arguments into places; a missing one is NULL. False if they are wrong, so that Python must report the error. */
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

/* Computes from block and timeout how many seconds the call may wait; false if their types or values are unusual. */
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

/* Converts a timeout to a deadline on the monotonic clock, in seconds. */
static double deadline_of(double seconds)
{
    return seconds == 0 ? -INFINITY : seconds == INFINITY ? INFINITY : (double)clock_now() * 1e-9 + seconds;
}

static bool priority_of(const struct queue *queue, PyObject *given, long *priority)
{
    int overflow;

    *priority = 0;
    if (given == NULL)
        return true;
    if (!PyLong_CheckExact(given))
        return false;
    *priority = PyLong_AsLongAndOverflow(given, &overflow);
    return overflow == 0 && *priority >= 0 && *priority <= (queue->flags & FLAG_ORDERED ? HIGHEST_PRIORITY : 0);
}

/* Putting */

static struct queue_piece piece_of(PyObject *bytes, long priority)
{
    return (struct queue_piece){
        .data = PyBytes_AS_STRING(bytes),
        .size = (size_t)PyBytes_GET_SIZE(bytes),
        .priority = (unsigned)priority,
    };
}

/* Writes the head of MessagePack's bin. */
static void pack_head(struct queue_piece *piece)
{
    size_t size = piece->size;
    unsigned bytes = size < 1 << 8 ? 1 : size < 1 << 16 ? 2 : 4;

    piece->head[0] = bytes == 1 ? 0xc4 : bytes == 2 ? 0xc5 : 0xc6;
    for (unsigned byte = bytes; byte > 0; byte--, size >>= 8)
        piece->head[byte] = (unsigned char)size;
    piece->head_size = 1 + bytes;
}

static enum queue_result put_large(struct channel *channel, const struct queue_piece *piece, int64_t patience)
{
    enum queue_result result;
    size_t stored;

    CORE_BEGIN_USE(channel);
    result = queue_put_many(&channel->queue, piece, 1, &stored, patience);
    CORE_END_USE(channel);
    return result;
}

/* Tries to put once; `patience` is 0 or QUEUE_POLITE. */
static enum queue_result put_now(PyObject *self, const struct queue_piece *piece, int64_t patience)
{
    enum queue_result result = QUEUE_BUSY;
    size_t stored;

    Py_BEGIN_CRITICAL_SECTION(self);
    struct shortcut *shortcut = shortcut_of(self);

    if (shortcut != NULL) {
        if (piece->head_size + piece->size < QUEUE_LARGE)
            result = queue_put_many(&shortcut->channel->queue, piece, 1, &stored, patience);
        else
            result = put_large(shortcut->channel, piece, patience);
    }
    Py_END_CRITICAL_SECTION();
    return result;
}

/* Tries to put at once and, if the call may wait and has to give way, once more afterwards. */
static bool put_at_once(PyObject *self, const struct queue_piece *piece, double seconds)
{
    enum queue_result result = put_now(self, piece, seconds == 0 ? 0 : QUEUE_POLITE);

    if (result == QUEUE_CROWDED) {
        give_way(self, false, seconds);
        result = put_now(self, piece, 0);
    }
    return result == QUEUE_OK;
}

/* Encodes the item and tries the put in C; otherwise falls back with the encoded item. */
static PyObject *put_encoded(PyObject *self, PyObject *encode, PyObject *item, long priority, double seconds)
{
    double deadline = deadline_of(seconds);
    PyObject *data = PyObject_CallOneArg(encode, item);
    PyObject *result;

    if (data == NULL)
        return raise_again(self);
    if (PyBytes_Check(data)) {
        struct queue_piece piece = piece_of(data, priority);

        if (put_at_once(self, &piece, seconds)) {
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
static const char *const put_many_wants[] = {"items", "block", "timeout", NULL};
static const char *const get_many_wants[] = {"max_items", "block", "timeout", NULL};
static const char *const get_wants[] = {"block", "timeout", NULL};

/* Tries the put in C. NULL without an exception means: fall back to Queue.put(). */
static PyObject *put_places(PyObject *self, PyObject *const *places)
{
    enum of_bytes of_bytes = ENCODED;
    PyObject *encode = NULL;
    PyObject *result;
    long priority;
    double seconds;

    if (!patience_of(places[BLOCK], places[TIMEOUT], &seconds))
        return NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    struct shortcut *shortcut = shortcut_of(self);

    if (shortcut != NULL && shortcut->puts && priority_of(&shortcut->channel->queue, places[PRIORITY], &priority)) {
        of_bytes = shortcut->of_bytes;
        encode = Py_NewRef(shortcut->encode);
    }
    Py_END_CRITICAL_SECTION();
    if (encode == NULL)
        return NULL;
    if (of_bytes != ENCODED && PyBytes_CheckExact(places[ITEM])) {
        struct queue_piece piece = piece_of(places[ITEM], priority);

        if (of_bytes == BIN)
            pack_head(&piece);
        result = put_at_once(self, &piece, seconds) ? Py_NewRef(Py_None) : NULL;
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

/* Puts as many items of a batch as fit; none if any item is not `bytes`. */
static size_t put_batch(const struct shortcut *shortcut, PyObject *batch, struct queue_piece *pieces)
{
    struct queue *queue = &shortcut->channel->queue;
    Py_ssize_t count = PyTuple_GET_SIZE(batch);
    size_t bytes = 0;
    size_t stored = 0;

    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *item = PyTuple_GET_ITEM(batch, index);

        if (!PyBytes_CheckExact(item))
            return 0;
        pieces[index] = piece_of(item, 0);
        if (shortcut->of_bytes == BIN)
            pack_head(&pieces[index]);
        if (pieces[index].size + pieces[index].head_size > queue->max_message_size)
            return 0;
        bytes += pieces[index].size;
    }
    if (bytes < QUEUE_LARGE)
        queue_put_many(queue, pieces, (size_t)count, &stored, 0);
    return stored;
}

static PyObject *put_many(PyObject *self, PyObject *const *arguments, Py_ssize_t given, PyObject *names)
{
    PyObject *places[PRIORITY] = {NULL};
    PyObject *batch, *number, *result;
    struct queue_piece *pieces;
    size_t stored = 0;
    size_t count;
    double seconds;

    if (!sorted(arguments, given, names, put_many_wants, PRIORITY, places) || places[ITEM] == NULL ||
        !(PyList_CheckExact(places[ITEM]) || PyTuple_CheckExact(places[ITEM])) ||
        !patience_of(places[BLOCK], places[TIMEOUT], &seconds))
        return hand_on(self, "put_many", arguments, given, names);
    batch = PySequence_Tuple(places[ITEM]);
    if (batch == NULL)
        return NULL;
    count = (size_t)PyTuple_GET_SIZE(batch);
    pieces = PyMem_New(struct queue_piece, count);
    number = PyLong_FromSize_t(count); /* before anything is stored, because the call must not fail afterwards */
    if (pieces == NULL || number == NULL) {
        PyMem_Free(pieces);
        Py_XDECREF(number);
        Py_DECREF(batch);
        return PyErr_NoMemory();
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    struct shortcut *shortcut = shortcut_of(self);

    if (shortcut != NULL && shortcut->puts && shortcut->of_bytes != ENCODED)
        stored = put_batch(shortcut, batch, pieces);
    Py_END_CRITICAL_SECTION();
    PyMem_Free(pieces);
    if (stored == 0)
        result = hand_on(self, "put_many", arguments, given, names);
    else if (stored == count)
        result = Py_NewRef(number);
    else
        result = PyObject_CallMethod(self, "_put_rest", "Ond", batch, (Py_ssize_t)stored, deadline_of(seconds));
    Py_DECREF(batch);
    if (result != NULL || stored == 0 || !PyErr_ExceptionMatches(PyExc_MemoryError)) {
        Py_DECREF(number);
        return result;
    }
    PyErr_Clear(); /* the call itself ran out of memory */
    return core_number(number, count, stored);
}

/* Getting */

struct taking {
    enum of_bytes of_bytes;
    bool is_item;
    unsigned priority;
    PyObject *bytes;
    PyObject *decode;
};

/* Returns the length of the head if the whole message is one MessagePack bin, else 0. */
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

static void *room(void *context, struct queue_piece *message)
{
    struct taking *taking = context;
    size_t head = 0;

    if (taking->of_bytes == BIN)
        head = unpack_head(message->data, message->size);
    taking->is_item = head != 0 || taking->of_bytes == BARE;
    taking->priority = message->priority;
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

/* Takes the next message if there is one; `patience` is 0 or QUEUE_POLITE. */
static enum queue_result take(struct channel *channel, struct taking *taking, int64_t patience)
{
    struct queue *queue = &channel->queue;
    struct queue_copy copy;
    enum queue_result result = queue_get(queue, room, taking, &copy, patience);

    if (result != QUEUE_COPYING)
        return result;
    CORE_BEGIN_USE(channel);
    memcpy(copy.target, copy.source, copy.size);
    queue_release(queue, &copy);
    CORE_END_USE(channel);
    return QUEUE_OK;
}

/* Takes a message. If there is none, waits once, for at most a sleep, until `until` (0: does not wait); `since` is when
 * the wait began. QUEUE_GONE without a shortcut. `patience` is 0 or QUEUE_POLITE. */
static enum queue_result take_within(PyObject *self, struct taking *taking, int64_t since, int64_t until,
                                    int64_t patience)
{
    enum queue_result result = QUEUE_GONE;

    Py_BEGIN_CRITICAL_SECTION(self);
    struct shortcut *shortcut = shortcut_of(self);

    if (shortcut != NULL && shortcut->gets) {
        struct channel *channel = shortcut->channel;

        taking->of_bytes = shortcut->of_bytes;
        taking->decode = Py_NewRef(shortcut->decode); /* before the lock is released and the handle may be closed */
        result = take(channel, taking, patience);
        if (result == QUEUE_EMPTY && until != 0 && !shortcut->waits) {
            result = QUEUE_GONE;
        } else if (result == QUEUE_EMPTY && until != 0) {
            core_wait_readable(channel, since, until);
        }
        if (result != QUEUE_OK)
            Py_CLEAR(taking->decode);
    }
    Py_END_CRITICAL_SECTION();
    return result;
}

static void count_wait(PyObject *self, bool served)
{
    Py_BEGIN_CRITICAL_SECTION(self);
    struct shortcut *shortcut = shortcut_of(self);

    if (shortcut != NULL)
        core_count_wait(&shortcut->channel->queue, served);
    Py_END_CRITICAL_SECTION();
}

/* Takes a message that arrives before the deadline. For any result but QUEUE_OK there is an exception, or the caller
 * falls back. */
static enum queue_result take_in_time(PyObject *self, struct taking *taking, double deadline)
{
    int64_t since = clock_now();
    int64_t last = deadline < LATEST ? (int64_t)(deadline * 1e9) : INT64_MAX;
    enum queue_result result;

    for (int64_t now = since;; now = clock_now()) {
        int64_t until = now >= last ? 0 : last - now < EVENT_SLICE ? last : now + EVENT_SLICE;

        result = take_within(self, taking, since, until, 0);
        if (result != QUEUE_EMPTY || until == 0)
            break;
        /* Before the next try: an exception must not lose a message that was taken. */
        if (PyErr_CheckSignals() < 0)
            return QUEUE_GONE;
    }
    if (result == QUEUE_OK || result == QUEUE_EMPTY)
        count_wait(self, result == QUEUE_OK);
    return result;
}

/* Stores a message for the handle's next get after decoding ran out of memory. Nothing here allocates unless the
 * priority is high. */
static void keep(PyObject *self, struct taking *taking)
{
    const struct core_state *state = core_state_of(Py_TYPE(self));
    PyObject *error = PyErr_GetRaisedException();
    bool kept = false;

    for (int tries = 0; !kept && state != NULL && tries < 3; tries++) {
        PyObject *priority = PyLong_FromUnsignedLong(tries == 0 ? taking->priority : 0);
        PyObject *arguments[] = {self, taking->bytes, priority};
        PyObject *none = priority == NULL ? NULL : PyObject_VectorcallMethod(state->keep, arguments, 3, NULL);

        kept = none != NULL;
        Py_XDECREF(none);
        Py_XDECREF(priority);
        PyErr_Clear();
    }
    PyErr_SetRaisedException(error);
}

static PyObject *decoded(PyObject *self, struct taking *taking)
{
    PyObject *item = taking->bytes;

    if (!taking->is_item) {
        item = PyObject_CallOneArg(taking->decode, taking->bytes);
        if (item == NULL && PyErr_ExceptionMatches(PyExc_MemoryError))
            keep(self, taking);
        Py_DECREF(taking->bytes);
    }
    Py_DECREF(taking->decode);
    return item != NULL ? item : raise_again(self);
}

/* Falls back to Queue.get() for the rest of the time. */
static PyObject *get_in_rest(PyObject *self, double deadline)
{
    double rest = deadline - (double)clock_now() * 1e-9;
    PyObject *timeout = deadline == INFINITY ? Py_NewRef(Py_None) : PyFloat_FromDouble(rest > 0 ? rest : 0);
    PyObject *const arguments[] = {Py_True, timeout};
    PyObject *item = timeout == NULL ? NULL : hand_on(self, "get", arguments, 2, NULL);

    Py_XDECREF(timeout);
    return item;
}

/* `get` after the arguments were checked. */
static PyObject *get_item(PyObject *self, double seconds)
{
    struct taking taking = {0};
    double deadline;
    enum queue_result result = take_within(self, &taking, 0, 0, seconds == 0 ? 0 : QUEUE_POLITE);

    if (result == QUEUE_OK)
        return decoded(self, &taking);
    deadline = deadline_of(seconds);
    if (result == QUEUE_CROWDED) {
        give_way(self, true, seconds);
        result = take_within(self, &taking, 0, 0, 0);
    }
    if (result == QUEUE_OK)
        return decoded(self, &taking);
    if (result == QUEUE_EMPTY && seconds != 0)
        result = take_in_time(self, &taking, deadline);
    if (result == QUEUE_OK)
        return decoded(self, &taking);
    return PyErr_Occurred() ? NULL : get_in_rest(self, deadline);
}

static PyObject *get(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    PyObject *places[2] = {NULL};
    double seconds;

    if (sorted(arguments, count, names, get_wants, 2, places) && patience_of(places[0], places[1], &seconds))
        return get_item(self, seconds);
    return hand_on(self, "get", arguments, count, names);
}

static PyObject *get_nowait(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return get_item(self, 0);
}

struct filling {
    PyObject *list;
    Py_ssize_t next;
    enum of_bytes of_bytes;
    bool stopped; /* at a message that the codec must decode, or at a large one */
};

static void *room_in_list(void *context, struct queue_piece *message)
{
    struct filling *filling = context;
    struct taking taking = {.of_bytes = filling->of_bytes};
    void *place = room(&taking, message);

    if (place == NULL)
        return NULL;
    if (!taking.is_item) {
        Py_DECREF(taking.bytes);
        filling->stopped = true;
        return NULL;
    }
    PyList_SET_ITEM(filling->list, filling->next++, taking.bytes);
    return place;
}

/* Takes available messages into a new list, and returns how many more were available; the list is NULL if no batch can
 * be taken at once. */
static size_t take_batch(struct queue *queue, struct filling *filling, size_t most)
{
    struct queue_total put, got;
    size_t taken;

    side_totals(queue, &put, &got);
    if (most > put.count - got.count)
        most = put.count - got.count;
    if (most < 2 || most > queue->limit / 16) /* a limit cannot hold more messages, so the counts are forged */
        return 0;
    filling->list = PyList_New((Py_ssize_t)most);
    if (filling->list == NULL) {
        PyErr_Clear();
        return 0;
    }
    if (queue_get_many(queue, room_in_list, filling, most, &taken, 0) == QUEUE_COPYING)
        filling->stopped = true;
    core_shorten(filling->list, (Py_ssize_t)taken);
    if (taken == 0)
        Py_CLEAR(filling->list);
    return most - taken;
}

static PyObject *get_many(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    PyObject *places[PRIORITY] = {NULL};
    PyObject *result;
    struct filling filling = {0};
    Py_ssize_t most = PY_SSIZE_T_MAX;
    size_t more = 0;
    double seconds;

    if (!sorted(arguments, count, names, get_many_wants, PRIORITY, places) ||
        !patience_of(places[BLOCK], places[TIMEOUT], &seconds))
        return hand_on(self, "get_many", arguments, count, names);
    if (places[ITEM] != NULL && places[ITEM] != Py_None) {
        most = PyLong_CheckExact(places[ITEM]) ? PyLong_AsSsize_t(places[ITEM]) : 0;
        if (most == -1 && PyErr_Occurred())
            PyErr_Clear();
    }
    if (most > 0) {
        Py_BEGIN_CRITICAL_SECTION(self);
        struct shortcut *shortcut = shortcut_of(self);

        if (shortcut != NULL && shortcut->gets && shortcut->of_bytes != ENCODED) {
            filling.of_bytes = shortcut->of_bytes;
            more = take_batch(&shortcut->channel->queue, &filling, (size_t)most);
        }
        Py_END_CRITICAL_SECTION();
    }
    if (filling.list == NULL)
        return hand_on(self, "get_many", arguments, count, names);
    if (!filling.stopped)
        return filling.list;
    result = PyObject_CallMethod(self, "_get_rest", "On", filling.list, (Py_ssize_t)more + 1);
    if (result == NULL && PyErr_ExceptionMatches(PyExc_MemoryError)) { /* the call itself ran out of memory */
        PyErr_Clear();
        return filling.list;
    }
    Py_DECREF(filling.list);
    return result;
}

/* Arming and disarming */

static PyObject *replace(PyObject *self, PyObject *shortcut)
{
    PyObject *before;

    Py_BEGIN_CRITICAL_SECTION(self);
    before = *word_of(self);
    *word_of(self) = shortcut;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

static PyObject *arm(PyObject *self, PyObject *arguments)
{
    const struct core_state *state = core_state_of(Py_TYPE(self));
    struct shortcut *shortcut;
    PyObject *channel, *encode, *decode;
    const char *of_bytes;
    int puts, gets, waits;

    if (state == NULL || !PyArg_ParseTuple(arguments, "O!OOsppp", (PyTypeObject *)state->queue, &channel, &encode, &decode,
                                           &of_bytes, &puts, &gets, &waits))
        return NULL;
    shortcut = PyObject_GC_New(struct shortcut, (PyTypeObject *)state->shortcut);
    if (shortcut == NULL)
        return NULL;
    shortcut->channel = (struct channel *)Py_NewRef(channel);
    shortcut->encode = Py_NewRef(encode);
    shortcut->decode = Py_NewRef(decode);
    shortcut->of_bytes = strcmp(of_bytes, "bare") == 0 ? BARE : strcmp(of_bytes, "bin") == 0 ? BIN : ENCODED;
    /* A message in cells has no head. */
    if (shortcut->of_bytes == BIN && shortcut->channel->queue.flags & FLAG_ORDERED)
        shortcut->of_bytes = ENCODED;
    shortcut->puts = puts;
    shortcut->gets = gets;
    shortcut->waits = waits;
    PyObject_GC_Track(shortcut);
    return replace(self, (PyObject *)shortcut);
}

static PyObject *disarm(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return replace(self, NULL);
}

/* Only signatures: inspect and help find the docstrings in the base class. */
static PyMethodDef handle_methods[] = {
    {"put", (PyCFunction)(void (*)(void))put, METH_FASTCALL | METH_KEYWORDS,
     "put($self, item, block=True, timeout=None, *, priority=0)\n--\n\n"},
    {"put_nowait", (PyCFunction)(void (*)(void))put_nowait, METH_FASTCALL | METH_KEYWORDS,
     "put_nowait($self, item)\n--\n\n"},
    {"get", (PyCFunction)(void (*)(void))get, METH_FASTCALL | METH_KEYWORDS,
     "get($self, block=True, timeout=None)\n--\n\n"},
    {"get_nowait", get_nowait, METH_NOARGS, "get_nowait($self)\n--\n\n"},
    {"put_many", (PyCFunction)(void (*)(void))put_many, METH_FASTCALL | METH_KEYWORDS,
     "put_many($self, items, block=True, timeout=None)\n--\n\n"},
    {"get_many", (PyCFunction)(void (*)(void))get_many, METH_FASTCALL | METH_KEYWORDS,
     "get_many($self, max_items=None, block=True, timeout=None)\n--\n\n"},
    {"_arm", arm, METH_VARARGS, NULL},
    {"_disarm", disarm, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyObject *core_shortcut(PyObject *module, PyObject *handle)
{
    Py_ssize_t size = PyType_Check(handle) ? ((PyTypeObject *)handle)->tp_basicsize : 0;
    PyMemberDef members[] = {
        {"_shortcut", T_OBJECT_EX, size, 0, NULL},
        {NULL, 0, 0, 0, NULL},
    };
    PyType_Slot slots[] = {
        {Py_tp_methods, handle_methods},
        {Py_tp_members, members},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = "ipcq_shm._core.Queue",
        .basicsize = (int)(size + (Py_ssize_t)sizeof(PyObject *)),
        .flags = Py_TPFLAGS_DEFAULT,
        .slots = slots,
    };

    return PyType_FromModuleAndSpec(module, &spec, handle);
}

static int shortcut_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct shortcut *shortcut = (struct shortcut *)self;

    Py_VISIT(Py_TYPE(self));
    Py_VISIT(shortcut->channel);
    Py_VISIT(shortcut->encode);
    Py_VISIT(shortcut->decode);
    return 0;
}

/* There is no tp_clear: the handle breaks any cycle, and the fields here are never NULL. */
static void shortcut_dealloc(PyObject *self)
{
    struct shortcut *shortcut = (struct shortcut *)self;
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_DECREF(shortcut->channel);
    Py_DECREF(shortcut->encode);
    Py_DECREF(shortcut->decode);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyType_Slot shortcut_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("The data that the fast path of an open handle needs.")},
    {Py_tp_dealloc, shortcut_dealloc},
    {Py_tp_traverse, shortcut_traverse},
    {0, NULL},
};

PyType_Spec core_shortcut_spec = {
    .name = "ipcq_shm._core.Shortcut",
    .basicsize = sizeof(struct shortcut),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = shortcut_slots,
};
