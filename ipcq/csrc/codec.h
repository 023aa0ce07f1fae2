/*
 * The MessagePack of most messages: None, bool, int, float, str, bytes, bytearray, and list, tuple and dict of these, of
 * exactly these classes.
 *
 * It has no semantics of its own. Either it writes what `msgpack` would write and makes what `msgpack` would make, or it
 * leaves the whole value to `msgpack`: subclasses, times and other extensions, what is nested deeper than CODEC_LEVELS,
 * and everything that is to be refused, so that all refusals and their texts are those of `msgpack`.
 *
 * Encoding runs no Python code before it gives an item up, so with the GIL nothing changes a list or dict meanwhile. (Of
 * a lone surrogate CPython makes an exception, and making it may run the garbage collector.) A free-threaded Python has
 * no GIL: there each list, dict and bytearray is locked while it is read, and a length is compared with what is found.
 *
 * Decoding may be done in memory that another process changes during the call, see wire.h: a str or bytes is copied to
 * its own object first, and is looked at there. Decoding may run the garbage collector and with it any Python code, so
 * it is not for places that hold a lock of a queue.
 */
#ifndef IPCQ_CODEC_H
#define IPCQ_CODEC_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

/* So many lists or dicts inside each other, and no more. msgpack takes 1,024, but each of them takes stack here, and a
 * thread may have as little as 32 KiB (threading.stack_size). */
#define CODEC_LEVELS 96

/* Where an encoder writes. */
struct codec_sink {
    unsigned char *next;
    unsigned char *end;
    /* Moves what is written to where there is room for so many bytes more; returns false, without an exception, where it
     * cannot. NULL where the memory is all there is. */
    bool (*grow)(struct codec_sink *sink, size_t bytes);
};

enum codec_result {
    CODEC_DONE,
    CODEC_NO_ROOM, /* the sink is too small. A few bytes may be left: room for a longest head is wanted before each. */
    CODEC_FOREIGN, /* to be left to `msgpack` */
};

/* Writes an item; never raises. What is in the sink after another result than CODEC_DONE means nothing. */
enum codec_result codec_encode(PyObject *item, struct codec_sink *sink);

/*
 * Short keys of dicts that were decoded before. The keys of a message are mostly those of the one before it, and so need
 * no new str. A key is in one of two places. A key's first and last eight bytes, which overlap, are all of it, so it is told from others by two numbers
 * and its length. A hostile producer can displace keys, but not make there be more of them.
 *
 * The owner begins with zeros, and ends with `codec_forget`.
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

/* Returns the item that these bytes are; NULL with MemoryError; or NULL without an exception: to be left to `msgpack`. */
PyObject *codec_decode(const unsigned char *data, size_t bytes, struct codec_keys *keys);

#endif
