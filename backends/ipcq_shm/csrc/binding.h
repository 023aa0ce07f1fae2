/*
 * The ring for CPython, what its files share.
 *
 * The short way keeps the GIL: it makes no system call, unless somebody sleeps, and ends in less than the GIL costs.
 * Where somebody else is inside the queue just now it looks for some tens of microseconds, and where it is busy even
 * then, it is tried again with patience and without the GIL. No lock of the ring is ever waited for with the GIL, nor
 * the GIL with a lock of the ring; and nothing that could run Python code is called with one, so that a finaliser or a
 * signal handler may use the same queue.
 */
#ifndef IPCQ_BINDING_H
#define IPCQ_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "queue.h"
#include "side.h"
#include "waiting.h"

#define HIGHEST_PRIORITY 32767

/* A `Ring`. */
struct channel {
    PyObject_HEAD
    struct queue queue;
    bool open;
    _Atomic unsigned uses; /* calls in progress that released the GIL, or the handle's own lock */
};

struct core_state {
    PyObject *queue;
    PyObject *shortcut;
    PyObject *closed;
    PyObject *corrupt;
    PyObject *gone;
    PyObject *limit_exceeded;
    PyObject *shut_down;
    PyObject *timed_out;
    PyObject *keep; /* the name "_keep" */
    PyObject *too_many_descriptors;
    PyObject *version_mismatch;
};

/* The state of the module that a class, or one that it is derived from, belongs to; NULL with an exception without. */
const struct core_state *core_state_of(PyTypeObject *type);
/* Raises what a result means that is not one of the verb's own, and returns NULL. */
void *core_raise(PyTypeObject *type, enum queue_result result);

/*
 * Bracket a use of the ring that goes on without the GIL, or without the handle's lock in a free-threaded Python. The
 * memory of the ring is not unmapped before the last use has ended, whichever thread closes the channel. A use ends
 * before the GIL is taken again: when the interpreter ends, the threads that it does not wait for never get it any more,
 * and a finaliser that closes the channel would never return.
 */
#define CORE_BEGIN_USE(channel)                                                                                      \
    Py_INCREF(channel);                                                                                              \
    atomic_fetch_add(&(channel)->uses, 1);                                                                           \
    Py_BEGIN_ALLOW_THREADS
#define CORE_END_USE(channel)                                                                                        \
    atomic_fetch_sub(&(channel)->uses, 1);                                                                           \
    Py_END_ALLOW_THREADS                                                                                             \
    Py_DECREF(channel)

/* Sleeps until there may be a message, a signal came, or `until`, without the GIL unless that is a matter of a spin. */
void core_wait_readable(struct channel *channel, int64_t since, int64_t until);

/* Makes a list shorter without asking for memory, which could fail when messages have been taken already. */
void core_shorten(PyObject *list, Py_ssize_t size);

/* Returns the number `stored`, and releases `whole`, the number `count` that was created before anything was stored. */
PyObject *core_number(PyObject *whole, size_t count, size_t stored);

extern PyType_Spec core_channel_spec;
extern PyType_Spec core_shortcut_spec;
/* Derives a class of handles whose short way is in C. */
PyObject *core_shortcut(PyObject *module, PyObject *handle);

/* Counts a wait of a put or a get, and wakes the next sleeper if there is more to do. */
static inline void core_count_wait(struct queue *queue, bool served)
{
    atomic_fetch_add_explicit(&queue->segment->figures.waits, 1, memory_order_relaxed);
    if (served) {
        wait_pass_on(queue, false);
        wait_pass_on(queue, true);
    } else {
        atomic_fetch_add_explicit(&queue->segment->figures.timeouts, 1, memory_order_relaxed);
    }
}

#endif
