/* Messages to put: a head, followed by the data. */
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
    memset(piece->head, 0, sizeof piece->head); /* a channel may copy all of it to memory that others can read */
}

/* Makes a piece that points to bytes, with the head of the format (any but FORMAT_OTHER). Returns false if the bytes
 * are too long for the format. */
bool piece_of_bytes(struct ipcq_piece *piece, PyObject *bytes, enum codec_format format, unsigned priority);

/* Returns the whole message as bytes. `owner` is the object that has the piece's data, or NULL. If it is exactly the
 * message, it is returned without a copy. */
PyObject *piece_whole(const struct ipcq_piece *piece, PyObject *owner);

#endif
