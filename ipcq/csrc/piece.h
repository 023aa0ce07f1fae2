/* Messages to put: a head, and the data behind it. */
#ifndef IPCQ_PIECE_H
#define IPCQ_PIECE_H

#include "native.h"

static inline size_t piece_size(const struct ipcq_piece *piece)
{
    return piece->head_size + piece->size;
}

static inline void piece_set(struct ipcq_piece *piece, const void *data, size_t size, unsigned priority)
{
    piece->data = data;
    piece->size = size;
    piece->priority = priority;
    piece->head_size = 0;
    memset(piece->head, 0, sizeof piece->head); /* a channel may copy all of it to where others can read it */
}

/* Makes a piece of bytes in one of our formats, without copying them; false if the format cannot have so many. */
bool piece_of_bytes(struct ipcq_piece *piece, PyObject *bytes, enum codec_format format, unsigned priority);

/* Returns the whole message as bytes. `owner` is what the piece's data is in, if that is an object of its own. */
PyObject *piece_whole(const struct ipcq_piece *piece, PyObject *owner);

#endif
