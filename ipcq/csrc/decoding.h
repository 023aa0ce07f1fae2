/* Decoding messages in C. */
#ifndef IPCQ_DECODING_H
#define IPCQ_DECODING_H

#include "native.h"

/* Returns the size of the head if a message is bytes with a head; else 0. */
static inline size_t decoding_head(enum codec_format format, const unsigned char *data, size_t size)
{
    return format == FORMAT_BIN || format == FORMAT_MESSAGEPACK ? codec_bin_head(data, size, size) : 0;
}

/* Returns whether a message is bytes, so that decoding it runs no Python code and needs nothing from the handle. */
static inline bool decoding_is_bytes(enum codec_format format, const unsigned char *data, size_t size)
{
    return format == FORMAT_RAW || decoding_head(format, data, size) != 0;
}

/* Decodes a message. NULL with MemoryError; or NULL without an exception if Python has to decode it. `codec` may be NULL
 * for any format but FORMAT_MESSAGEPACK. */
static inline PyObject *decoding_item(enum codec_format format, struct codec_object *codec, const unsigned char *data,
                                      size_t size)
{
    size_t head = decoding_head(format, data, size);

    if (head != 0 || format == FORMAT_RAW)
        return PyBytes_FromStringAndSize((const char *)data + head, (Py_ssize_t)(size - head));
    return format == FORMAT_MESSAGEPACK ? codec_decode(data, size, &codec->keys) : NULL;
}

#endif
