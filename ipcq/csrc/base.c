/* `Base`: the base class of handles, with the fields that calls in C need. It counts their uses of the
 * channel. */
#include "native.h"

#include <stddef.h>

#include "arguments.h"

/* How long a wait spins before it releases the GIL, in nanoseconds: less than releasing and taking it would take. */
#define SHORT_SPIN 1500

PyObject *base_raise_again(const struct native_state *state, struct handle *self)
{
    PyObject *error = PyErr_GetRaisedException();
    PyObject *const arguments[] = {(PyObject *)self, error};
    PyObject *nothing = PyObject_VectorcallMethod(state->raise, arguments, 2, NULL);

    Py_DECREF(error);
    return nothing;
}

void base_keep(const struct native_state *state, struct handle *self, PyObject *message, unsigned priority)
{
    bool kept = false;

    for (int tries = 0; !kept && tries < 3; tries++) {
        PyObject *number = PyLong_FromUnsignedLong(tries == 0 ? priority : 0);
        PyObject *const arguments[] = {(PyObject *)self, message, number};
        PyObject *none = number == NULL ? NULL : PyObject_VectorcallMethod(state->keep, arguments, 3, NULL);

        kept = none != NULL;
        Py_XDECREF(none);
        Py_XDECREF(number);
        PyErr_Clear();
    }
}

/* Uses of the channel */

void base_give_way(struct handle *self, bool getting, double seconds)
{
    int64_t until = seconds < LATEST ? clock_now() + (int64_t)(seconds * 1e9) : INT64_MAX;

    Py_BEGIN_CRITICAL_SECTION(self);
    const struct ipcq_channel *channel = self->channel;

    if (channel != NULL && channel->give_way != NULL) {
        BEGIN_USE(self);
        channel->give_way(channel->context, getting, until);
        END_USE(self);
    }
    Py_END_CRITICAL_SECTION();
}

static void count_wait(struct handle *self, bool served)
{
    Py_BEGIN_CRITICAL_SECTION(self);
    const struct ipcq_channel *channel = self->channel;

    if (channel != NULL && channel->count_wait != NULL)
        channel->count_wait(channel->context, served);
    Py_END_CRITICAL_SECTION();
}

static int64_t spin_end(int64_t until)
{
    int64_t soon = clock_now() + SHORT_SPIN;

    return soon < until ? soon : until;
}

static int wait_in(const struct ipcq_channel *channel, const struct wait *wait, int64_t since, int64_t until, int sleep)
{
    return wait->getting ? channel->wait_readable(channel->context, since, until, sleep)
                         : channel->wait_writable(channel->context, wait->size, since, until, sleep);
}

/* Waits once, until `until` at the latest; the whole wait began at `since`. False means: fall back to Python. */
static bool wait_once(struct handle *self, const struct wait *wait, int64_t since, int64_t until)
{
    bool waits;

    Py_BEGIN_CRITICAL_SECTION(self);
    const struct ipcq_channel *channel = self->channel;

    waits = channel != NULL && self->waits;
    if (waits && !wait_in(channel, wait, since, spin_end(until), 0)) {
        BEGIN_USE(self);
        wait_in(channel, wait, since, until, 1);
        END_USE(self);
    }
    Py_END_CRITICAL_SECTION();
    return waits;
}

int base_wait(struct handle *self, struct wait *wait, double deadline)
{
    int64_t since = clock_now();
    int64_t last = deadline_instant(deadline);
    int unserved = wait->getting ? IPCQ_EMPTY : IPCQ_FULL;
    int result = unserved;

    if (since >= last)
        return result;
    for (int64_t now = since; now < last && result == unserved; now = clock_now()) {
        if (!wait_once(self, wait, since, last - now < SLICE ? last : now + SLICE))
            return IPCQ_OTHER;
        /* Before the next try, because an exception must not lose messages that were taken, and a put that raises must
         * have stored nothing. */
        if (PyErr_CheckSignals() < 0)
            return IPCQ_OTHER;
        result = wait->again(self, wait);
    }
    if (result == IPCQ_OK || result == unserved)
        count_wait(self, result == IPCQ_OK);
    return result;
}

/* Arming and disarming */

/* The size of a table whose functions are those that every table of this version has. */
#define FIRST_SIZE offsetof(struct ipcq_channel, lease)

/* Whether a table has the functions for leases. */
static bool lends(const struct ipcq_channel *table)
{
    return table->size >= offsetof(struct ipcq_channel, settle) + sizeof table->settle && table->lease != NULL &&
           table->settle != NULL;
}

/* Returns the table in a capsule; NULL with VersionMismatch if it has another version. */
static const struct ipcq_channel *table_in(PyObject *capsule)
{
    const struct ipcq_channel *table = PyCapsule_GetPointer(capsule, IPCQ_CHANNEL_CAPSULE);
    PyObject *errors, *kind;

    if (table == NULL || (table->version == IPCQ_CHANNEL_VERSION && table->size >= FIRST_SIZE))
        return table;
    errors = PyImport_ImportModule("ipcq.errors");
    kind = errors == NULL ? NULL : PyObject_GetAttrString(errors, "VersionMismatch");
    if (kind != NULL)
        PyErr_Format(kind,
                     "its functions in C have version %u (%u bytes), but this ipcq needs version %u (%zu bytes): "
                     "compile the backend again",
                     (unsigned)table->version, (unsigned)table->size, IPCQ_CHANNEL_VERSION, FIRST_SIZE);
    Py_XDECREF(errors);
    Py_XDECREF(kind);
    return NULL;
}

/* The references that a handle owns. They are released after the handle's lock, because that may run any code. */
struct owned {
    PyObject *capsule;
    PyObject *codec;
    PyObject *encode;
    PyObject *decode;
    PyObject *lease;
};

static void release(struct owned *owned)
{
    Py_XDECREF(owned->capsule);
    Py_XDECREF(owned->codec);
    Py_XDECREF(owned->encode);
    Py_XDECREF(owned->decode);
    Py_XDECREF(owned->lease);
}

/* Replaces the handle's references, and returns the old ones. The handle's lock is held. */
static struct owned exchange(struct handle *self, const struct ipcq_channel *channel, struct owned new)
{
    struct owned before = {self->capsule, (PyObject *)self->codec, self->encode, self->decode, (PyObject *)self->lease};

    __atomic_store_n(&self->channel, channel, __ATOMIC_RELAXED); /* verbs read it without the lock */
    self->capsule = new.capsule;
    self->codec = (struct codec_object *)new.codec;
    self->encode = new.encode;
    self->decode = new.decode;
    self->lease = (PyTypeObject *)new.lease;
    return before;
}

static PyObject *base_arm(PyObject *object, PyObject *arguments)
{
    struct handle *self = (struct handle *)object;
    const struct native_state *state = native_state_of(Py_TYPE(object));
    const struct ipcq_channel *channel;
    PyObject *capsule, *encode, *decode;
    PyObject *lease = Py_None;
    struct codec_object *codec;
    struct owned owned;
    int puts, gets, waits;

    if (state == NULL || !PyArg_ParseTuple(arguments, "OOOppp|O", &capsule, &encode, &decode, &puts, &gets, &waits,
                                           &lease))
        return NULL;
    if (lease != Py_None && !(PyType_Check(lease) && PyType_IsSubtype((PyTypeObject *)lease,
                                                                      (PyTypeObject *)state->lease_base)))
        return PyErr_Format(PyExc_TypeError, "%R is not a class of leases", lease);
    channel = table_in(capsule);
    if (channel == NULL)
        return NULL;
    codec = codec_object_of(state, encode, decode);
    owned.capsule = Py_NewRef(capsule);
    owned.codec = Py_XNewRef(codec);
    owned.encode = Py_NewRef(codec == NULL ? encode : codec->encode);
    owned.decode = Py_NewRef(codec == NULL ? decode : codec->decode);
    owned.lease = lease != Py_None && lends(channel) ? Py_NewRef(lease) : NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    owned = exchange(self, channel, owned);
    self->format = codec == NULL ? FORMAT_OTHER : codec->format;
    self->puts = puts;
    self->gets = gets;
    self->waits = waits && channel->wait_readable != NULL;
    Py_END_CRITICAL_SECTION();
    release(&owned);
    Py_RETURN_NONE;
}

/* Keeps the capsule, because `base_await_uses` needs the table. */
static PyObject *base_disarm(PyObject *object, PyObject *Py_UNUSED(unused))
{
    struct handle *self = (struct handle *)object;
    struct owned owned;

    Py_BEGIN_CRITICAL_SECTION(self);
    owned = exchange(self, NULL, (struct owned){.capsule = Py_XNewRef(self->capsule)});
    Py_END_CRITICAL_SECTION();
    release(&owned);
    Py_RETURN_NONE;
}

/*
 * Waits until no use is in progress. The handle is disarmed, so none begins. Only a use that sleeps takes longer than a
 * copy, and `rouse` wakes it. A use never runs Python code, so none can belong to the calling thread.
 */
static PyObject *base_await_uses(PyObject *object, PyObject *Py_UNUSED(unused))
{
    struct handle *self = (struct handle *)object;
    const struct timespec moment = {.tv_nsec = 100000};

    while (atomic_load(&self->uses) != 0) {
        const struct ipcq_channel *channel = PyCapsule_GetPointer(self->capsule, IPCQ_CHANNEL_CAPSULE);

        if (channel == NULL)
            return NULL;
        if (channel->rouse != NULL) {
            Py_BEGIN_CRITICAL_SECTION(self);
            channel->rouse(channel->context);
            Py_END_CRITICAL_SECTION();
        }
        Py_BEGIN_ALLOW_THREADS
        nanosleep(&moment, NULL);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

static PyObject *base_forget_uses(PyObject *object, PyObject *Py_UNUSED(unused))
{
    atomic_store(&((struct handle *)object)->uses, 0);
#ifdef Py_GIL_DISABLED
    /* CPython does not release the locks of objects in a forked child. A thread of the parent may own this one: it was
     * handed over to a waiting thread, which had to stop for the fork before it could run. No Python code runs under
     * this lock, so the calling thread cannot own it. */
    object->ob_mutex = (PyMutex){0};
#endif
    Py_RETURN_NONE;
}

static PyObject *base_armed(PyObject *object, void *Py_UNUSED(unused))
{
    return PyBool_FromLong(__atomic_load_n(&((struct handle *)object)->channel, __ATOMIC_RELAXED) != NULL);
}

static PyObject *base_get_session(PyObject *object, void *Py_UNUSED(unused))
{
    PyObject *session;

    Py_BEGIN_CRITICAL_SECTION(object);
    session = Py_XNewRef(((struct handle *)object)->session);
    Py_END_CRITICAL_SECTION();
    if (session == NULL)
        PyErr_SetString(PyExc_AttributeError, "_session");
    return session;
}

static int base_set_session(PyObject *object, PyObject *session, void *Py_UNUSED(unused))
{
    struct handle *self = (struct handle *)object;
    const struct native_state *state = native_state_of(Py_TYPE(object));
    PyObject *before;

    if (state == NULL)
        return -1;
    if (session != Py_None && !(session != NULL && PyObject_TypeCheck(session, (PyTypeObject *)state->serials))) {
        PyErr_SetString(PyExc_TypeError, "a session must have serial numbers");
        return -1;
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    before = self->session;
    self->session = Py_NewRef(session);
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(before);
    return 0;
}

/* The type */

static int base_traverse(PyObject *object, visitproc visit, void *arg)
{
    struct handle *self = (struct handle *)object;

    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->capsule);
    Py_VISIT((PyObject *)self->codec);
    Py_VISIT(self->encode);
    Py_VISIT(self->decode);
    Py_VISIT((PyObject *)self->lease);
    Py_VISIT(self->session);
    return 0;
}

static int base_clear(PyObject *object)
{
    struct handle *self = (struct handle *)object;
    struct owned owned = exchange(self, NULL, (struct owned){0});

    release(&owned);
    Py_CLEAR(self->reserve);
    Py_CLEAR(self->session);
    return 0;
}

static void base_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);

    PyObject_GC_UnTrack(object);
    base_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef base_methods[] = {
    {"_arm", base_arm, METH_VARARGS,
     PyDoc_STR("_arm($self, table, encode, decode, puts, gets, waits, lease=None, /)\n--\n\n"
               "Put, get and lease in C from now on, with the functions of the table in a capsule.\n\n"
               "`puts`, `gets` and `waits` say whether the handle may put, may get, and waits as its channel does.\n"
               "`lease` is the class of leases, or None to lease and settle in Python.")},
    {"_disarm", base_disarm, METH_NOARGS,
     PyDoc_STR("_disarm($self, /)\n--\n\nPut and get in Python from now on.")},
    {"_await_uses", base_await_uses, METH_NOARGS,
     PyDoc_STR("_await_uses($self, /)\n--\n\nWait until no call in C uses the channel. Disarm the handle first.")},
    {"_forget_uses", base_forget_uses, METH_NOARGS,
     PyDoc_STR("_forget_uses($self, /)\n--\n\nIn a forked child, forget the uses by threads of the parent.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef base_attributes[] = {
    {"_armed", base_armed, NULL, PyDoc_STR("Whether put and get run in C."), NULL},
    {"_session", base_get_session, base_set_session,
     PyDoc_STR("What the handle keeps for its leases; None without leases."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot base_slots[] = {
    {Py_tp_doc, PyDoc_STR("The base class of handles, with the fields that calls in C need.")},
    {Py_tp_dealloc, base_dealloc},
    {Py_tp_traverse, base_traverse},
    {Py_tp_clear, base_clear},
    {Py_tp_methods, base_methods},
    {Py_tp_getset, base_attributes},
    {0, NULL},
};

PyType_Spec base_spec = {
    .name = "ipcq._native.Base",
    .basicsize = sizeof(struct handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = base_slots,
};
