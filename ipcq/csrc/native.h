/*
 * What the files of the extension share.
 *
 *     pycompat                 functions of newer Pythons, for older ones
 *     wire codec encode decode the MessagePack codec, as plain functions
 *     sink                     the buffer that an encoder writes to
 *     native                   this file: the types
 *     codec_object             `Codec`: the codec as a Python object
 *     base                     `Base`: the fields of a handle in C, and its use of the channel
 *     arguments                the arguments of calls
 *     piece                    a message to put
 *     decoding batch           a message that was taken; a list of them
 *     put put_many             the calls
 *     get get_many
 *     lease_object             `LeaseBase`, the fields of a lease; `Serials`
 *     lease settle
 *     verb module              the decorator `in_c`; the module
 *
 * A call in C has no semantics of its own: it does exactly what the method in Python would do, or it falls back to that
 * method. Before a fallback it has at most encoded the item or waited for part of the time. It falls back for unusual
 * arguments, for a queue that is busy, has ended or is damaged, and for a closed handle.
 *
 * In Python, Lifecycle counts the calls inside a channel, so that it is not closed under them. A call in C mostly needs
 * no count: while it uses the channel it keeps the GIL or, in a free-threaded Python, the handle's lock. An encoder in
 * Python may release it, or close the handle, so the channel is looked up again after it. Only waits and copies of
 * large messages release it while they use the channel. These uses are counted, and closing waits for them
 * (`base_await_uses`). Disarming does not wait, because several threads may close the handle, but only one of them
 * closes the channel.
 */
#ifndef IPCQ_NATIVE_H
#define IPCQ_NATIVE_H

#include "pycompat.h"

#include <ipcq/channel.h>

#include <stdatomic.h>
#include <stdbool.h>

#include "codec.h"
#include "sink.h"

struct native_state {
    PyObject *base; /* types */
    PyObject *codec;
    PyObject *lease_base;
    PyObject *serials;
    PyObject *verb;
    PyObject *dropped; /* a method of Lease */
    PyObject *get; /* names of methods of Queue */
    PyObject *get_rest;
    PyObject *keep;
    PyObject *lent_rest;
    PyObject *put;
    PyObject *put_encoded;
    PyObject *put_rest;
    PyObject *raise;
    PyObject *raise_lost;
    PyObject *recall;
};

/* Returns the state of the module that defines a class or one of its base classes; NULL with an exception if none is
 * ours. */
struct native_state *native_state_of(PyTypeObject *type);

/* Codecs */

enum codec_format {
    FORMAT_OTHER,       /* unknown to C: Python encodes every item */
    FORMAT_RAW,         /* bytes unchanged; Python encodes everything else */
    FORMAT_BIN,         /* bytes as MessagePack's bin; Python encodes everything else */
    FORMAT_MESSAGEPACK, /* the items that codec.h names; Python encodes everything else */
};

struct codec_object {
    PyObject_HEAD
    enum codec_format format;
    PyObject *encode; /* the fallback in Python */
    PyObject *decode;
    struct codec_keys keys;
};

/* Returns the codec whose methods these two are, or NULL. */
struct codec_object *codec_object_of(const struct native_state *state, PyObject *encode, PyObject *decode);

/* codec_bin_head for a message that begins with 0xc5 or 0xc6. */
size_t codec_long_bin_head(const unsigned char *front, size_t present, size_t size);

/* Returns the size of the head if a message is exactly one MessagePack bin, else 0. `front` has the first `present`
 * bytes of the message, which has `size` bytes. */
static inline size_t codec_bin_head(const unsigned char *front, size_t present, size_t size)
{
    if (present < 2)
        return 0;
    if (front[0] == 0xc4)
        return front[1] == size - 2 ? 2 : 0;
    return front[0] == 0xc5 || front[0] == 0xc6 ? codec_long_bin_head(front, present, size) : 0;
}

/* Handles */

struct handle {
    PyObject_HEAD
    const struct ipcq_channel *channel; /* NULL while disarmed: Python does every call */
    PyObject *capsule;                  /* owns the table; kept when the handle is disarmed */
    struct codec_object *codec;         /* NULL with FORMAT_OTHER */
    PyObject *encode;                   /* the fallback in Python */
    PyObject *decode;
    enum codec_format format;
    bool puts;              /* whether the handle may put */
    bool gets;
    bool waits;             /* whether it waits as its channel does, and not in an event loop */
    PyObject *reserve;      /* memory for a message whose decoding runs out of memory, see get.c */
    _Atomic unsigned uses;  /* calls in progress that released the GIL, or the handle's lock */
    PyObject *session;      /* a Serials; None without leases */
    PyTypeObject *lease;    /* the class of leases; NULL if Python leases and settles */
};

/*
 * Bracket a use of the channel without the GIL or, in a free-threaded Python, without the handle's lock. The use ends
 * before the thread takes the GIL again: once the interpreter exits, a daemon thread never gets the GIL again, and a
 * finaliser that closes the channel would wait for that thread forever.
 */
#define BEGIN_USE(handle)                                                                                            \
    atomic_fetch_add(&(handle)->uses, 1);                                                                            \
    Py_BEGIN_ALLOW_THREADS
#define END_USE(handle)                                                                                              \
    atomic_fetch_sub(&(handle)->uses, 1);                                                                            \
    Py_END_ALLOW_THREADS

/* Lets other callers go first, for at most `seconds`. The handle may be closed meanwhile. */
void base_give_way(struct handle *self, bool getting, double seconds);
/* Raises the current exception of a codec again, with the name of the queue if it is one of ipcq's errors; returns
 * NULL. */
PyObject *base_raise_again(const struct native_state *state, struct handle *self);

/* Keeps a message for the handle's next get. Allocates nothing in C unless the priority is above 256. */
void base_keep(const struct native_state *state, struct handle *self, PyObject *message, unsigned priority);

/* A call that waits. A type that begins with it holds the rest of the call's state. */
struct wait {
    /* Tries the call again: IPCQ_OK; IPCQ_EMPTY or IPCQ_FULL, to wait on; or any other result, which ends the wait. */
    int (*again)(struct handle *self, struct wait *wait);
    bool getting;
    size_t size; /* of the next message to put, with its head */
};

/* Waits and tries again, until a try is served or the deadline has passed. IPCQ_OTHER means: an exception is set, or else
 * fall back to Python. */
int base_wait(struct handle *self, struct wait *wait, double deadline);

extern PyType_Spec base_spec;
extern PyType_Spec codec_object_spec;

/* Verbs */

struct verb;

/* Tries the call in C. NULL without an exception means: fall back to the method in Python. */
typedef PyObject *verb_call(const struct verb *verb, struct handle *self, PyObject *const *arguments, Py_ssize_t count,
                            PyObject *names);

/* The same for a method of a lease. */
struct lease;
typedef PyObject *verb_settle(const struct verb *verb, struct lease *self, PyObject *const *arguments, Py_ssize_t count,
                              PyObject *names);

struct verb {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    verb_call *call;
    verb_settle *settle; /* instead of `call`, if it is a method of leases */
    PyObject *method; /* in Python */
    vectorcallfunc call_method; /* of `method`; calling it directly saves time for handles without a table */
    const struct native_state *state;
};

/* Returns whether the handle's class still has the verb of this call under `name`. If put was overridden, put_nowait
 * must call the override, as the method in Python does. */
bool verb_is_current(const struct native_state *state, const struct handle *self, PyObject *name, verb_call *call);

verb_call put_call;
verb_call put_nowait_call;
verb_call put_many_call;
verb_call get_call;
verb_call get_nowait_call;
verb_call get_many_call;
verb_call lease_call;
verb_call lease_many_call;
verb_call ack_many_call;

verb_settle ack_call;
verb_settle release_call;

extern PyType_Spec lease_spec;
extern PyType_Spec serials_spec;
extern PyType_Spec verb_spec;
/* The decorator `in_c`. */
PyObject *verb_in_c(PyObject *module, PyObject *method);

#endif
