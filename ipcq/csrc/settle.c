/* ack and release of a lease, and ack_many. The caller holds the lock of the lease's handle. */
#include "native.h"

#include "arguments.h"
#include "lease_object.h"

/* Returns whether C can settle a lease through this handle: C made it, in this session. After a fork, the leases of the
 * parent process are of another one. */
static inline bool is_held(const struct handle *self, const struct lease *lease)
{
    return lease->end == LEASE_HELD && lease->number == NULL && lease->lessor == (const PyObject *)self &&
           lease->session == self->session;
}

/* Settles one lease; false means: fall back to Python, which also raises if the lease is over. */
static bool settle_one(const struct native_state *state, struct lease *lease, enum ipcq_verdict verdict, int64_t delay)
{
    struct handle *self = (struct handle *)lease->lessor;
    bool settled = false;

    if (self == NULL || !PyObject_TypeCheck((PyObject *)self, (PyTypeObject *)state->base))
        return false;
    Py_BEGIN_CRITICAL_SECTION(self);
    const struct ipcq_channel *channel = self->channel;

    if (channel != NULL && self->lease != NULL && is_held(self, lease)) {
        unsigned char lost = true;

        settled = channel->settle(channel->context, &lease->token, 1, verdict, delay, &lost) == IPCQ_OK && !lost;
        if (settled)
            lease->end = verdict == IPCQ_ACK ? LEASE_ACKNOWLEDGED : LEASE_RELEASED;
    }
    Py_END_CRITICAL_SECTION();
    return settled;
}

PyObject *ack_call(const struct verb *verb, struct lease *self, PyObject *const *Py_UNUSED(arguments), Py_ssize_t count,
                   PyObject *names)
{
    if (count != 0 || names != NULL || !settle_one(verb->state, self, IPCQ_ACK, 0))
        return NULL;
    Py_RETURN_NONE;
}

PyObject *release_call(const struct verb *verb, struct lease *self, PyObject *const *arguments, Py_ssize_t count,
                       PyObject *names)
{
    static const struct parameters parameters = {{"delay", NULL}, 1};
    PyObject *places[MOST_PLACES] = {NULL};
    double seconds = 0;

    if (!arguments_sort(arguments, count, names, &parameters, places) ||
        (places[0] != NULL && !arguments_duration(places[0], &seconds)) ||
        !settle_one(verb->state, self, IPCQ_RELEASE, arguments_nanoseconds(seconds)))
        return NULL;
    Py_RETURN_NONE;
}

/* Batches */

struct settling {
    PyObject *leases; /* a tuple */
    size_t count;
    struct ipcq_token *tokens;
    unsigned char *lost;
    size_t over; /* leases that were lost */
};

static struct lease *lease_at(const struct settling *settling, size_t which)
{
    return (struct lease *)PyTuple_GET_ITEM(settling->leases, (Py_ssize_t)which);
}

/* Collects the tokens; false if C cannot settle all leases, or one is there twice. */
static bool collect(const struct handle *self, const struct settling *settling)
{
    size_t chosen = 0;

    while (chosen < settling->count && PyObject_TypeCheck(lease_at(settling, chosen), self->lease) &&
           is_held(self, lease_at(settling, chosen)) && !lease_at(settling, chosen)->chosen) {
        lease_at(settling, chosen)->chosen = true;
        settling->tokens[chosen] = lease_at(settling, chosen)->token;
        chosen++;
    }
    for (size_t which = 0; which < chosen; which++)
        lease_at(settling, which)->chosen = false;
    return chosen == settling->count;
}

/* Acknowledges all; false means: fall back to Python, nothing was done. */
static bool settle_all(struct handle *self, struct settling *settling)
{
    bool settled = false;

    Py_BEGIN_CRITICAL_SECTION(self);
    const struct ipcq_channel *channel = self->channel;

    if (channel != NULL && self->lease != NULL && collect(self, settling) &&
        channel->settle(channel->context, settling->tokens, settling->count, IPCQ_ACK, 0, settling->lost) == IPCQ_OK) {
        settled = true;
        for (size_t which = 0; which < settling->count; which++) {
            lease_at(settling, which)->end = settling->lost[which] ? LEASE_LOST : LEASE_ACKNOWLEDGED;
            settling->over += settling->lost[which];
        }
    }
    Py_END_CRITICAL_SECTION();
    return settled;
}

/* Raises the error of a batch, some of whose leases were over. */
static PyObject *raise_lost(const struct native_state *state, struct handle *self, const struct settling *settling)
{
    PyObject *const arguments[] = {(PyObject *)self, PyLong_FromSize_t(settling->over),
                                   PyLong_FromSize_t(settling->count)};
    PyObject *nothing = NULL;

    if (arguments[1] != NULL && arguments[2] != NULL)
        nothing = PyObject_VectorcallMethod(state->raise_lost, arguments, 3, NULL);
    Py_XDECREF(arguments[1]);
    Py_XDECREF(arguments[2]);
    return nothing;
}

static PyObject *acknowledge(const struct native_state *state, struct handle *self, struct settling *settling)
{
    PyObject *none = NULL;

    settling->tokens = PyMem_New(struct ipcq_token, settling->count);
    settling->lost = PyMem_New(unsigned char, settling->count);
    if (settling->tokens == NULL || settling->lost == NULL)
        PyErr_NoMemory();
    else if (settle_all(self, settling))
        none = settling->over == 0 ? Py_NewRef(Py_None) : raise_lost(state, self, settling);
    PyMem_Free(settling->tokens);
    PyMem_Free(settling->lost);
    return none;
}

PyObject *ack_many_call(const struct verb *verb, struct handle *self, PyObject *const *arguments, Py_ssize_t count,
                        PyObject *names)
{
    static const struct parameters parameters = {{"leases", NULL}, 1};
    PyObject *places[MOST_PLACES] = {NULL};
    struct settling settling = {0};
    PyObject *none = NULL;

    if (!arguments_sort(arguments, count, names, &parameters, places) || places[0] == NULL ||
        !(PyList_CheckExact(places[0]) || PyTuple_CheckExact(places[0])))
        return NULL;
    settling.leases = PySequence_Tuple(places[0]);
    if (settling.leases == NULL)
        return NULL;
    settling.count = (size_t)PyTuple_GET_SIZE(settling.leases);
    if (settling.count != 0)
        none = acknowledge(verb->state, self, &settling);
    Py_DECREF(settling.leases);
    return none;
}
