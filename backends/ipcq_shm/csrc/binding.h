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
/* How long a call that has no "not now" waits for a stopped participant, in nanoseconds. */
#define LONG_PATIENCE 500000000

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

/* The queue of a `Ring`; NULL with an exception if it is closed. */
struct queue *core_queue_of(PyObject *self);
/* Waits without the GIL until a retry makes sense; false if the patience is used up or a stopped process holds a lock. */
bool core_settled(struct queue *queue, int64_t *until);
/* Shortens a list without allocating: an allocation could fail after messages have been taken. */
void core_shorten(PyObject *list, Py_ssize_t size);

typedef enum queue_result core_dropping(struct queue *queue, size_t *dropped, int64_t patience);
/* Drops messages without the GIL, and returns how many; NULL if there is no queue, with its exception. */
PyObject *core_drop(PyObject *self, struct queue *queue, core_dropping *drop);

/* Methods of a queue with leases (leasing.c). */
PyObject *core_put_delayed(PyObject *self, PyObject *arguments);
PyObject *core_lease(PyObject *self, PyObject *arguments);
PyObject *core_recall(PyObject *self, PyObject *arguments);
PyObject *core_end_leases(PyObject *self, PyObject *arguments);
PyObject *core_extend_leases(PyObject *self, PyObject *arguments);
PyObject *core_find_lost(PyObject *self, PyObject *numbers);
PyObject *core_release_leases(PyObject *self, PyObject *unused);
PyObject *core_tend(PyObject *self, PyObject *unused);
PyObject *core_counts(PyObject *self, PyObject *unused);
PyObject *core_held(PyObject *self, PyObject *number);
PyObject *core_peek_dead(PyObject *self, PyObject *arguments);
PyObject *core_take_dead(PyObject *self, PyObject *number);
PyObject *core_requeue(PyObject *self, PyObject *number);
PyObject *core_clear_dead(PyObject *self, PyObject *unused);
/* Counts the messages in each state; false with an exception if the queue is gone. */
struct lease_counts;
bool core_count(PyObject *self, struct queue *queue, struct lease_counts *counts);

/* The number of messages that a get may find now, as a hint. */
uint64_t core_available(struct queue *queue);
/* Fills the channel's table of functions, and returns it in a capsule. */
PyObject *core_table(struct channel *channel);

#endif
