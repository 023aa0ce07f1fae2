/*
 * lease and lease_many.
 *
 * No message may stay leased that no `Lease` stands for, because it would come back only with the end of the handle.
 * All leases are created before a message is leased, and messages are copied to memory that `room_for_message`
 * allocates before the message changes its state. What can fail afterwards is decoding. Then Python gets the messages
 * as bytes and decodes the rest, and it gives back, with the right verdict, what it cannot decode. If Python raises,
 * whatever the reason, all messages of the call are released. That changes nothing for those that it has given back.
 */
#include "native.h"

#include "arguments.h"
#include "batch.h"
#include "decoding.h"
#include "lease_object.h"

/* Messages of up to this size, in bytes, are copied to the stack. */
#define SCRATCH_BYTES 1024
/* The least memory for messages that do not fit there, in bytes. */
#define CHUNK_BYTES 16384
/* The most leases of one call, and the bytes of messages after which a batch ends: MOST_LEASES and STEP in
 * ipcq/backend. */
#define MOST_LEASES 65536
#define STEP (1 << 23)

/* Memory for messages, in a list. */
struct chunk {
    struct chunk *next;
    unsigned char bytes[];
};

struct message {
    const unsigned char *data;
    size_t size;
    unsigned priority;
};

/* Messages that are being leased. Those of a batch have arrays on the heap. */
struct lending {
    bool is_batch;
    size_t limit;
    int64_t hold;
    PyObject *list;        /* of a batch; NULL for one message */
    struct lease **leases; /* created, but without messages; as many as there are places */
    struct ipcq_loan *loans;
    struct message *messages;
    size_t places;
    size_t given; /* messages that got memory; some of them may not have been leased */
    size_t bytes;
    size_t leased;
    uint64_t serial; /* of the first */
    unsigned char *next, *end; /* memory for messages that is left */
    struct chunk *chunks;
    /* What decoding needs from the handle, as references of our own: the handle may be closed meanwhile. */
    enum codec_format format;
    struct codec_object *codec;
    PyObject *decode;
    PyObject *session;
    struct lease *one_lease;
    struct ipcq_loan one_loan;
    struct message one_message;
    unsigned char scratch[SCRATCH_BYTES];
};

/* Memory */

/* An initialiser would fill the scratch buffer with zeros. */
static void lending_begin(struct lending *lending, bool is_batch, size_t limit, int64_t hold)
{
    lending->is_batch = is_batch;
    lending->limit = limit;
    lending->hold = hold;
    lending->leases = &lending->one_lease;
    lending->loans = &lending->one_loan;
    lending->messages = &lending->one_message;
    lending->one_lease = NULL;
    lending->list = NULL;
    lending->places = 0;
    lending->chunks = NULL;
    lending->codec = NULL;
    lending->decode = lending->session = NULL;
}

static void free_places(struct lending *lending)
{
    Py_CLEAR(lending->one_lease);
    Py_CLEAR(lending->list);
    if (lending->loans != &lending->one_loan) {
        PyMem_Free(lending->loans);
        PyMem_Free(lending->messages);
    }
    lending->places = 0;
}

static void lending_end(struct lending *lending)
{
    free_places(lending);
    while (lending->chunks != NULL) {
        struct chunk *first = lending->chunks;

        lending->chunks = first->next;
        PyMem_RawFree(first);
    }
    Py_XDECREF((PyObject *)lending->codec);
    Py_XDECREF(lending->decode);
    Py_XDECREF(lending->session);
}

/* Creates places for up to `count` messages, unless there are as many; false without memory. */
static bool have_places(struct lending *lending, PyTypeObject *type, size_t count)
{
    if (lending->places >= count)
        return true;
    free_places(lending);
    if (lending->is_batch) {
        lending->list = PyList_New((Py_ssize_t)count);
        lending->loans = PyMem_New(struct ipcq_loan, count);
        lending->messages = PyMem_New(struct message, count);
        if (lending->list == NULL || lending->loans == NULL || lending->messages == NULL)
            return false;
        lending->leases = (struct lease **)((PyListObject *)lending->list)->ob_item;
    }
    while (lending->places < count) {
        lending->leases[lending->places] = lease_new(type);
        if (lending->leases[lending->places] == NULL)
            return false;
        lending->places++;
    }
    return true;
}

/* Not inlined, because few messages need it. */
static __attribute__((noinline)) bool new_chunk(struct lending *lending, size_t size)
{
    size_t bytes = size > CHUNK_BYTES ? size : CHUNK_BYTES;
    struct chunk *chunk = PyMem_RawMalloc(sizeof *chunk + bytes);

    if (chunk == NULL)
        return false;
    chunk->next = lending->chunks;
    lending->chunks = chunk;
    lending->next = chunk->bytes;
    lending->end = chunk->bytes + bytes;
    return true;
}

/* Leasing */

/* An `ipcq_room`: the lock of the queue is held. */
static void *room_for_message(void *caller, const void *Py_UNUSED(front), size_t size, unsigned priority,
                              size_t *Py_UNUSED(skip))
{
    struct lending *lending = caller;
    unsigned char *data;

    if (lending->given == lending->places || lending->bytes >= STEP)
        return NULL;
    if (size > (size_t)(lending->end - lending->next) && !new_chunk(lending, size))
        return NULL;
    data = lending->next;
    lending->messages[lending->given++] = (struct message){data, size, priority};
    lending->next += size;
    lending->bytes += size;
    return data;
}

/* The number of messages that the next try may lease. */
static size_t most_now(const struct ipcq_channel *channel, size_t limit)
{
    uint64_t available = limit == 1 || channel->count == NULL ? limit : channel->count(channel->context);

    return available == 0 ? 1 : available < limit ? (size_t)available : limit;
}

/* Leases the messages that are ready. The handle's lock is held. */
static int take(struct handle *self, struct lending *lending)
{
    const struct ipcq_channel *channel = self->channel;
    size_t most = most_now(channel, lending->limit);
    int result;

    if (!have_places(lending, self->lease, most)) {
        PyErr_Clear(); /* Python runs out of memory, too, or frees some */
        return IPCQ_OTHER;
    }
    if (self->channel != channel) /* up to Python 3.11, a finaliser may run in `have_places` and close the handle */
        return IPCQ_OTHER;
    lending->serial = serials_take((struct serials *)self->session, most);
    lending->given = lending->bytes = lending->leased = 0;
    if (lending->chunks == NULL) {
        lending->next = lending->scratch;
        lending->end = lending->scratch + sizeof lending->scratch;
    }
    result = channel->lease(channel->context, lending->serial, lending->hold, lending->loans, most, room_for_message,
                            lending, &lending->leased);
    if (result != IPCQ_OK)
        return result;
    lending->format = self->format;
    lending->codec = (struct codec_object *)Py_XNewRef((PyObject *)self->codec);
    lending->decode = Py_NewRef(self->decode);
    lending->session = Py_NewRef(self->session);
    return IPCQ_OK;
}

/* Leases what is ready now. IPCQ_OTHER means: fall back to Python. */
static int take_now(struct handle *self, struct lending *lending)
{
    int result = IPCQ_OTHER;

    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->channel != NULL && self->gets && self->lease != NULL && self->session != NULL && self->session != Py_None)
        result = take(self, lending);
    Py_END_CRITICAL_SECTION();
    return result;
}

struct lease_wait {
    struct wait wait;
    struct lending *lending;
};

static int take_again(struct handle *self, struct wait *wait)
{
    return take_now(self, ((struct lease_wait *)wait)->lending);
}

/* Waits for messages until the deadline and leases them; results are those of `base_wait`. */
static int take_in_time(struct handle *self, struct lending *lending, double deadline)
{
    struct lease_wait wait = {{take_again, true, 0}, lending};

    return base_wait(self, &wait.wait, deadline);
}

/* Giving back */

/* Releases messages without allocating memory; false if that cannot be done now. */
static bool release_now(struct handle *self, const struct lending *lending)
{
    bool released = false;

    Py_BEGIN_CRITICAL_SECTION(self);
    const struct ipcq_channel *channel = self->channel;

    if (channel != NULL && self->lease != NULL && self->session == lending->session) {
        released = true;
        for (size_t which = 0; which < lending->leased; which++) {
            const struct ipcq_token token = {lending->loans[which].place, lending->loans[which].serial};
            unsigned char lost;

            if (channel->settle(channel->context, &token, 1, IPCQ_RELEASE, 0, &lost) != IPCQ_OK)
                released = false;
        }
    }
    Py_END_CRITICAL_SECTION();
    return released;
}

/* Lets Python release messages, with patience. */
static void release_in_python(const struct native_state *state, struct handle *self, const struct lending *lending)
{
    PyObject *arguments[3] = {(PyObject *)self, PyLong_FromUnsignedLongLong(lending->serial),
                              PyLong_FromSize_t(lending->leased)};
    PyObject *none = NULL;

    if (arguments[1] != NULL && arguments[2] != NULL)
        none = PyObject_VectorcallMethod(state->recall, arguments, 3, NULL);
    if (none == NULL)
        PyErr_Clear(); /* they come back with the end of the handle */
    Py_XDECREF(none);
    Py_XDECREF(arguments[1]);
    Py_XDECREF(arguments[2]);
}

/* Releases all messages of the call, and keeps the current exception. Returns NULL. */
static void *give_back(const struct native_state *state, struct handle *self, const struct lending *lending)
{
    PyObject *error = PyErr_GetRaisedException();

    for (size_t which = 0; which < lending->leased; which++)
        lending->leases[which]->end = LEASE_LOST; /* its finaliser has nothing to give back */
    if (!release_now(self, lending))
        release_in_python(state, self, lending);
    PyErr_SetRaisedException(error);
    return NULL;
}

/* Decoding */

static PyObject *item_of(const struct lending *lending, const struct message *message)
{
    PyObject *item = decoding_item(lending->format, lending->codec, message->data, message->size);
    PyObject *bytes;

    if (item != NULL || PyErr_Occurred())
        return item;
    bytes = PyBytes_FromStringAndSize((const char *)message->data, (Py_ssize_t)message->size);
    item = bytes == NULL ? NULL : PyObject_CallOneArg(lending->decode, bytes);
    Py_XDECREF(bytes);
    return item;
}

/* Completes a lease with its item, which it takes over. */
static inline void fill_in(struct handle *self, const struct lending *lending, size_t which, PyObject *item)
{
    struct lease *lease = lending->leases[which];
    const struct ipcq_loan *loan = &lending->loans[which];

    lease->item = item;
    lease->priority = lending->messages[which].priority;
    lease->deliveries = loan->deliveries;
    lease->failures = loan->failures;
    lease->token = (struct ipcq_token){loan->place, loan->serial};
    lease->session = Py_NewRef(lending->session);
    lease->lessor = Py_NewRef((PyObject *)self);
}

/* Completes leases, up to the first message that cannot be decoded: then an exception is set. Returns their number. */
static size_t complete(struct handle *self, const struct lending *lending)
{
    for (size_t which = 0; which < lending->leased; which++) {
        PyObject *item = item_of(lending, &lending->messages[which]);

        if (item == NULL)
            return which;
        fill_in(self, lending, which, item);
    }
    return lending->leased;
}

/* The fields of ipcq.backend.Leased. */
static PyObject *leased_in_python(const struct message *message, const struct ipcq_loan *loan)
{
    PyObject *token = lease_number(&(struct ipcq_token){loan->place, loan->serial});
    PyObject *fields = NULL;

    if (token != NULL)
        fields = Py_BuildValue("(y#IINI)", (const char *)message->data, (Py_ssize_t)message->size, message->priority,
                               loan->deliveries, token, loan->failures);
    return fields;
}

/* Lets Python decode and complete the leases from number `done` on. Returns a list of all. */
static PyObject *leave_rest(const struct native_state *state, struct handle *self, const struct lending *lending,
                            size_t done)
{
    PyObject *begun = PyList_New((Py_ssize_t)done);
    PyObject *rest = PyList_New((Py_ssize_t)(lending->leased - done));
    PyObject *const arguments[] = {(PyObject *)self, begun, rest};
    PyObject *result = NULL;
    bool made = begun != NULL && rest != NULL;

    for (size_t which = 0; made && which < done; which++)
        PyList_SET_ITEM(begun, (Py_ssize_t)which, Py_NewRef((PyObject *)lending->leases[which]));
    for (size_t which = done; made && which < lending->leased; which++) {
        PyObject *fields = leased_in_python(&lending->messages[which], &lending->loans[which]);

        made = fields != NULL;
        PyList_SET_ITEM(rest, (Py_ssize_t)(which - done), fields);
    }
    if (made)
        result = PyObject_VectorcallMethod(state->lent_rest, arguments, 3, NULL);
    Py_XDECREF(begun);
    Py_XDECREF(rest);
    return result;
}

/* Returns a list of the leases in which Python has decoded all from number `done` on; NULL with an exception, if it
 * could not, and everything is given back. */
static PyObject *decoded_in_python(const struct native_state *state, struct handle *self,
                                   const struct lending *lending, size_t done)
{
    PyObject *leases;

    if (!PyErr_ExceptionMatches(PyExc_Exception)) /* of a signal handler, or the end of a task */
        return give_back(state, self, lending);
    PyErr_Clear(); /* Python decodes the message again, and finds the verdict */
    leases = leave_rest(state, self, lending, done);
    return leases != NULL ? leases : give_back(state, self, lending);
}

/* The calls */

/* Leases messages within the timeout, and sets the deadline; results are those of `base_wait`. */
static inline int obtain(struct handle *self, struct lending *lending, double seconds, double *deadline)
{
    int result = take_now(self, lending);

    *deadline = deadline_of(seconds);
    return result == IPCQ_EMPTY && seconds != 0 ? take_in_time(self, lending, *deadline) : result;
}

/* Converts the hold to nanoseconds; returns false if a type or value is unusual, so that Python has to check it. */
static bool hold_of(PyObject *given, int64_t *hold)
{
    double seconds;

    *hold = 0;
    if (given == NULL || given == Py_None)
        return true;
    if (!arguments_duration(given, &seconds) || seconds == 0)
        return false;
    *hold = arguments_nanoseconds(seconds);
    return true;
}

/* Falls back to Python for the rest of the timeout. `arguments` begin with the handle, and have two free places. */
static PyObject *leave_call(const struct verb *verb, PyObject **arguments, size_t count, PyObject *hold,
                            double deadline)
{
    PyObject *timeout = seconds_left(deadline);
    PyObject *names = Py_BuildValue("(s)", "hold");
    PyObject *result = NULL;

    arguments[count] = Py_True;
    arguments[count + 1] = timeout;
    arguments[count + 2] = hold == NULL ? Py_None : hold;
    if (timeout != NULL && names != NULL)
        result = PyObject_Vectorcall(verb->method, arguments, count + 2, names);
    Py_XDECREF(timeout);
    Py_XDECREF(names);
    return result;
}

/* Returns the lease of one message that was leased. */
static inline PyObject *finish_one(const struct native_state *state, struct handle *self, struct lending *lending)
{
    PyObject *lease, *leases;

    if (complete(self, lending) == 1) {
        lease = (PyObject *)lending->one_lease;
        lending->one_lease = NULL;
        return lease;
    }
    leases = decoded_in_python(state, self, lending, 0);
    if (leases == NULL)
        return NULL;
    lease = Py_NewRef(PyList_GET_ITEM(leases, 0));
    Py_DECREF(leases);
    return lease;
}

/* Returns the list of leases of a batch that was leased. */
static PyObject *finish_batch(const struct native_state *state, struct handle *self, struct lending *lending)
{
    size_t done = complete(self, lending);
    PyObject *list;

    if (done != lending->leased)
        return decoded_in_python(state, self, lending, done);
    list = lending->list;
    lending->list = NULL;
    batch_shorten(list, (Py_ssize_t)done);
    return list;
}

PyObject *lease_call(const struct verb *verb, struct handle *self, PyObject *const *arguments, Py_ssize_t count,
                     PyObject *names)
{
    enum { BLOCK, TIMEOUT, HOLD };
    static const struct parameters parameters = {{"block", "timeout", "hold", NULL}, 2};
    PyObject *places[MOST_PLACES] = {NULL};
    PyObject *again[4] = {(PyObject *)self};
    PyObject *lease = NULL;
    double seconds = INFINITY, deadline;
    struct lending lending;
    int64_t hold = 0;
    int result;

    if ((count != 0 || names != NULL) &&
        (!arguments_sort(arguments, count, names, &parameters, places) ||
         !arguments_patience(places[BLOCK], places[TIMEOUT], &seconds) || !hold_of(places[HOLD], &hold)))
        return NULL;
    lending_begin(&lending, false, 1, hold);
    result = obtain(self, &lending, seconds, &deadline);
    if (result == IPCQ_OK)
        lease = finish_one(verb->state, self, &lending);
    lending_end(&lending);
    if (result == IPCQ_OK || PyErr_Occurred() || seconds == 0)
        return lease;
    return leave_call(verb, again, 1, places[HOLD], deadline);
}

PyObject *lease_many_call(const struct verb *verb, struct handle *self, PyObject *const *arguments, Py_ssize_t count,
                          PyObject *names)
{
    enum { MAX_ITEMS, BLOCK, TIMEOUT, HOLD };
    static const struct parameters parameters = {{"max_items", "block", "timeout", "hold", NULL}, 3};
    PyObject *places[MOST_PLACES] = {NULL};
    PyObject *leases = NULL;
    double seconds, deadline;
    struct lending lending;
    size_t limit;
    int64_t hold;
    int result;

    if (!arguments_sort(arguments, count, names, &parameters, places) || places[MAX_ITEMS] == NULL ||
        !arguments_patience(places[BLOCK], places[TIMEOUT], &seconds) || !hold_of(places[HOLD], &hold) ||
        !arguments_number(places[MAX_ITEMS], &limit))
        return NULL;
    lending_begin(&lending, true, limit < MOST_LEASES ? limit : MOST_LEASES, hold);
    result = obtain(self, &lending, seconds, &deadline);
    if (result == IPCQ_OK)
        leases = finish_batch(verb->state, self, &lending);
    lending_end(&lending);
    if (result == IPCQ_OK || PyErr_Occurred() || seconds == 0)
        return leases;
    return leave_call(verb, (PyObject *[5]){(PyObject *)self, places[MAX_ITEMS]}, 2, places[HOLD], deadline);
}
