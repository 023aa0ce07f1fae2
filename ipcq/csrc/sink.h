/* A sink for an encoder: a buffer on the stack for small messages, and a bytes object for larger ones. */
#ifndef IPCQ_SINK_H
#define IPCQ_SINK_H

#include "codec.h"

/* Enough for most messages. */
#define SINK_STACK_BYTES 1024

struct bytes_sink {
    struct codec_sink sink;
    PyObject *bytes;      /* NULL as long as the stack suffices */
    unsigned char *begin; /* of the written bytes, in either buffer */
    unsigned char stack[SINK_STACK_BYTES];
};

bool sink_grow(struct codec_sink *sink, size_t more);

/* An initialiser of the whole struct would fill the stack with zeros. */
static inline void sink_begin(struct bytes_sink *self)
{
    self->sink = (struct codec_sink){.next = self->stack, .end = self->stack + sizeof self->stack, .grow = sink_grow};
    self->begin = self->stack;
    self->bytes = NULL;
}

static inline size_t sink_size(const struct bytes_sink *self)
{
    return (size_t)(self->sink.next - self->begin);
}

/* Returns the written bytes and releases the sink; NULL without an exception if memory runs out. */
PyObject *sink_finish(struct bytes_sink *self);

/* Releases the sink without a result. */
static inline void sink_drop(struct bytes_sink *self)
{
    Py_CLEAR(self->bytes);
}

#endif
