/*
 * What the files of the extension share.
 *
 *     pycompat                 what newer Pythons have
 *     wire codec encode decode MessagePack, without an object of its own
 *     sink                     where an encoder writes
 *     native                   this file: the types
 *     codec_object             `Codec`: encode and decode as an object of Python
 *     base                     `Base`: the fields of a handle in C, and the uses of its channel
 *     arguments                those of put and get
 *     piece                    a message to put
 *     put put_many             the calls
 *     get get_many
 *     verb module              `in_c`; the module
 *
 * A call in C has no semantics of its own. It either does exactly what the method in Python would do, or leaves the call
 * to that method. Before that it has done nothing but the encoding, or the beginning of a wait. It leaves unusual
 * arguments, a queue that is busy, ended or damaged, and a closed handle.
 *
 * Lifecycle counts the calls inside the channel, so that the channel is not closed meanwhile. Here no count is
 * necessary. While the channel is used, the GIL or, in a free-threaded Python, the handle's lock is not released. After
 * an encoder in Python ran, which may do anything, the channel is looked up again. Only a wait, and the copy of a large
 * message, continue without that lock. Such uses are counted, and closing waits for them (`base_await_uses`). Disarming
 * does not wait, because several threads may close the handle and only one of them disarms it.
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
    PyObject *verb;
    PyObject *get; /* names of methods of Queue */
    PyObject *get_rest;
    PyObject *keep;
    PyObject *put;
    PyObject *put_encoded;
    PyObject *put_rest;
    PyObject *raise;
};

/* The state of the module that a class or a base class of it belongs to; NULL with an exception if there is none. */
struct native_state *native_state_of(PyTypeObject *type);

/* Codecs */

enum codec_format {
    FORMAT_OTHER,       /* not ours: every item is encoded in Python */
    FORMAT_RAW,         /* bytes as they are, everything else in Python */
    FORMAT_BIN,         /* bytes as MessagePack's bin, everything else in Python */
    FORMAT_MESSAGEPACK, /* as codec.h says */
};

struct codec_object {
    PyObject_HEAD
    enum codec_format format;
    PyObject *encode; /* for what is left to Python */
    PyObject *decode;
    struct codec_keys keys;
};

/* The codec whose two methods these are, or NULL. */
struct codec_object *codec_object_of(const struct native_state *state, PyObject *encode, PyObject *decode);

/* The same, for a message that begins with 0xc5 or 0xc6. */
size_t codec_long_bin_head(const unsigned char *front, size_t present, size_t size);

/* Returns the size of the head, if a message of that size that begins with these bytes is one MessagePack bin; else 0. */
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
    const struct ipcq_channel *channel; /* NULL while every call is left to Python; the rest is then empty too */
    PyObject *capsule;                  /* owns the table */
    struct codec_object *codec;         /* NULL with FORMAT_OTHER */
    PyObject *encode;                   /* for what is left to Python */
    PyObject *decode;
    enum codec_format format;
    bool puts;
    bool gets;
    bool waits; /* as its channel, not in an event loop */
    PyObject *reserve;      /* memory for a message that does not fit into memory when it is decoded, see get.c */
    _Atomic unsigned uses;  /* calls in progress that released the GIL, or the handle's lock */
};

/*
 * Bracket a use of the channel that continues without the GIL, or without the handle's lock in a free-threaded Python. A
 * use ends before the GIL is taken again: daemon threads never get the GIL again once the interpreter exits, so a
 * finaliser that closes the channel would never return.
 */
#define BEGIN_USE(handle)                                                                                            \
    atomic_fetch_add(&(handle)->uses, 1);                                                                            \
    Py_BEGIN_ALLOW_THREADS
#define END_USE(handle)                                                                                              \
    atomic_fetch_sub(&(handle)->uses, 1);                                                                            \
    Py_END_ALLOW_THREADS

/* Lets others go first, for at most so many seconds. The handle may be closed meanwhile. */
void base_give_way(struct handle *self, bool getting, double seconds);
void base_count_wait(struct handle *self, bool served);
/* Lets the handle raise what a codec raised, with the name of the queue. */
PyObject *base_raise_again(const struct native_state *state, struct handle *self);

/* Stores a message for the handle's next get. Nothing here allocates unless the priority is high. */
void base_keep(const struct native_state *state, struct handle *self, PyObject *message, unsigned priority);

/* Waiting, with the lock of the handle and a channel that can. The channel must be looked up again afterwards. */
void base_wait_readable(struct handle *self, int64_t since, int64_t until);
void base_wait_writable(struct handle *self, size_t size, int64_t since, int64_t until);

/* Takes the lock of the handle, and waits for space. False if that is left to Python. */
bool base_wait_for_space(struct handle *self, size_t size, int64_t since, int64_t until);

extern PyType_Spec base_spec;
extern PyType_Spec codec_object_spec;

/* Verbs */

struct verb;

/* Does a call in C. NULL without an exception: nothing was done, and the call is left to the method in Python. */
typedef PyObject *verb_call(const struct verb *verb, struct handle *self, PyObject *const *arguments, Py_ssize_t count,
                            PyObject *names);

struct verb {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    verb_call *call;
    PyObject *method; /* in Python */
    vectorcallfunc call_method; /* called directly, because handles without a table pay for each detour in each call */
    const struct native_state *state;
};

/* Whether `name` is still this verb in the class of a handle. A method in Python that calls it would call what replaced
 * it. */
bool verb_is_current(const struct native_state *state, const struct handle *self, PyObject *name, verb_call *call);

verb_call put_call;
verb_call put_nowait_call;
verb_call put_many_call;
verb_call get_call;
verb_call get_nowait_call;
verb_call get_many_call;

extern PyType_Spec verb_spec;
/* The decorator. */
PyObject *verb_in_c(PyObject *module, PyObject *method);

#endif
