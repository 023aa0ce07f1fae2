/* A sink for an encoder: the stack for small messages, and bytes for larger ones. */
#ifndef IPCQ_SINK_H
#define IPCQ_SINK_H

#include "codec.h"

/* What most messages take, in bytes. */
#define SINK_STACK_BYTES 1024

struct bytes_sink {
    struct codec_sink sink;
    PyObject *bytes;      /* NULL as long as the stack suffices */
    unsigned char *begin; /* of what is written */
    unsigned char stack[SINK_STACK_BYTES];
};

bool sink_grow(struct codec_sink *sink, size_t more);

/* Without an initialiser, which would fill the stack with zeros. */
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

/* Returns what was written as bytes, and ends the sink; NULL without an exception where memory is wanting. */
PyObject *sink_finish(struct bytes_sink *self);

/* Ends the sink without a result. */
static inline void sink_drop(struct bytes_sink *self)
{
    Py_CLEAR(self->bytes);
}

#endif
