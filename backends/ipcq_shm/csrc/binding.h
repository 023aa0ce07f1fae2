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

#include "queue.h"
#include "side.h"
#include "waiting.h"

#define HIGHEST_PRIORITY 32767

/* The Python object `Ring`. */
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

/* The state of the module that a class or a base class of it belongs to; NULL with an exception if there is none. */
const struct core_state *core_state_of(PyTypeObject *type);
/* Raises the exception for a result that the method does not handle itself, and returns NULL. */
void *core_raise(PyTypeObject *type, enum queue_result result);

/*
 * Bracket a use of the ring that continues without the GIL, or without the handle's lock in a free-threaded Python. The
 * ring is not unmapped before the last use has ended, whichever thread closes the channel. A use ends before the GIL is
 * taken again: daemon threads never get the GIL again once the interpreter exits, so a finaliser that closes the
 * channel would never return.
 */
#define CORE_BEGIN_USE(channel)                                                                                      \
    Py_INCREF(channel);                                                                                              \
    atomic_fetch_add(&(channel)->uses, 1);                                                                           \
    Py_BEGIN_ALLOW_THREADS
#define CORE_END_USE(channel)                                                                                        \
    atomic_fetch_sub(&(channel)->uses, 1);                                                                           \
    Py_END_ALLOW_THREADS                                                                                             \
    Py_DECREF(channel)

/* Sleeps until there may be a message, a signal came, or `until`. A short spin keeps the GIL; a longer wait releases
 * it. */
void core_wait_readable(struct channel *channel, int64_t since, int64_t until);

/* Shortens a list without allocating: an allocation could fail after messages have been taken. */
void core_shorten(PyObject *list, Py_ssize_t size);

/* Returns `stored` as an int. Releases `whole`, the int `count` that was created before anything was stored. */
PyObject *core_number(PyObject *whole, size_t count, size_t stored);

extern PyType_Spec core_channel_spec;
extern PyType_Spec core_shortcut_spec;
/* Derives a class of handles whose fast path is in C. */
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
