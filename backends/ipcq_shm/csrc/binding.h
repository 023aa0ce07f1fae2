/*
 * What the files of the CPython extension share.
 *
 * The fast path keeps the GIL: it makes no system call unless a participant sleeps, and takes less time than releasing
 * the GIL. If another participant holds the lock, it retries for some tens of microseconds; if the lock is still held,
 * it releases the GIL and retries with patience. No thread waits for a lock of the ring while it holds the GIL, or for
 * the GIL while it holds a lock of the ring. And no Python code runs while a lock of the ring is held, so a finaliser
 * or a signal handler may use the same queue.
 */
#ifndef IPCQ_BINDING_H
#define IPCQ_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <ipcq/channel.h>

#include "queue.h"

#define HIGHEST_PRIORITY 32767

/* The Python object `Ring`. */
struct channel {
    PyObject_HEAD
    struct queue queue;
    _Atomic bool open;
    _Atomic unsigned uses; /* calls in progress that released the GIL and that the handle does not count */
    struct ipcq_channel table;
};

struct core_state {
    PyObject *queue;
    PyObject *closed;
    PyObject *corrupt;
    PyObject *gone;
    PyObject *limit_exceeded;
    PyObject *shut_down;
    PyObject *timed_out;
    PyObject *too_many_descriptors;
    PyObject *version_mismatch;
};

/* The state of the module that a class or a base class of it belongs to; NULL with an exception if there is none. */
const struct core_state *core_state_of(PyTypeObject *type);
/* Raises the exception for a result that the method does not handle itself, and returns NULL. */
void *core_raise(PyTypeObject *type, enum queue_result result);

extern PyType_Spec core_channel_spec;

/* Fills the channel's table of functions, and returns it in a capsule. */
PyObject *core_table(struct channel *channel);

#endif
