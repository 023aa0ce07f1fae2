/*
 * A MessagePack codec for the items of most messages: None, bool, int, float, str, bytes, bytearray, and list, tuple
 * and dict of these, of exactly these classes.
 *
 * It has no semantics of its own. It writes what `msgpack` would write and returns what `msgpack` would return, or it
 * leaves the whole item to `msgpack`: subclasses, timestamps and other extensions, items nested deeper than
 * CODEC_LEVELS, and everything that must be refused. So every error and its text come from `msgpack`.
 *
 * Encoding runs no Python code until it gives an item up, so with the GIL nothing can change a list or dict meanwhile.
 * (For a lone surrogate CPython creates an exception, which may run the garbage collector; the item is then given up.)
 * A free-threaded Python has no GIL: there each list, dict and bytearray is locked while it is read, and its length is
 * checked against the elements that are found.
 *
 * Decoding may read memory that another process changes during the call, see wire.h: a str or bytes is first copied to
 * its object, and then inspected there. Decoding may run the garbage collector, and so any Python code; do not call it
 * with a lock of a queue held.
 */
#ifndef IPCQ_CODEC_H
#define IPCQ_CODEC_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

/* How deep lists and dicts may be nested. msgpack allows 1,024 levels, but here each level takes stack, and a thread
 * may have as little as 32 KiB (threading.stack_size). */
#define CODEC_LEVELS 96

/* The buffer that an encoder writes to. */
struct codec_sink {
    unsigned char *next;
    unsigned char *end;
    /* Moves the written bytes to a buffer with space for `bytes` more. Returns false, without an exception, if it
     * cannot. NULL for a buffer of fixed size. */
    bool (*grow)(struct codec_sink *sink, size_t bytes);
};

enum codec_result {
    CODEC_DONE,
    CODEC_NO_ROOM, /* the sink has too little space, counting every head at its maximum size */
    CODEC_FOREIGN, /* the item must be left to `msgpack` */
};

/* Writes an item; never raises. Unless it returns CODEC_DONE, the contents of the sink are undefined. */
enum codec_result codec_encode(PyObject *item, struct codec_sink *sink);

/*
 * A cache of short keys of dicts. Successive messages mostly have the same keys, which then need no new str. The first
 * and the last eight bytes of a key, which may overlap, are all of it; so these two numbers and the length identify it.
 * A key can be in either of two entries. A hostile producer can displace keys, but cannot make the cache grow.
 *
 * Initialise it with zeros, and release it with `codec_forget`.
 */
#define CODEC_KEYS 128
#define CODEC_KEY_BYTES 16

struct codec_keys {
    struct codec_key {
        uint64_t first;
        uint64_t last; /* 0 in a key of less than eight bytes */
        PyObject *key; /* NULL, or a str of ASCII */
    } each[CODEC_KEYS];
};

void codec_forget(struct codec_keys *keys);

/* Returns the item; or NULL with MemoryError; or NULL without an exception if the message must be left to `msgpack`. */
PyObject *codec_decode(const unsigned char *data, size_t bytes, struct codec_keys *keys);

#endif
