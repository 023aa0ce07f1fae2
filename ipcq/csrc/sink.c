#include "sink.h"

bool sink_grow(struct codec_sink *sink, size_t more)
{
    struct bytes_sink *self = (struct bytes_sink *)sink;
    size_t used = sink_size(self);
    size_t size = 2 * (size_t)(sink->end - self->begin);

    if (more > (size_t)PY_SSIZE_T_MAX / 2 - used)
        return false;
    /* Doubling bounds the cost of growth. Large bytes get exactly what they need. */
    if (size < used + more)
        size = used + more;
    if (self->bytes != NULL) {
        _PyBytes_Resize(&self->bytes, (Py_ssize_t)size);
    } else {
        self->bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
        if (self->bytes != NULL)
            memcpy(PyBytes_AS_STRING(self->bytes), self->stack, used);
    }
    if (self->bytes == NULL) {
        PyErr_Clear();
        return false;
    }
    self->begin = (unsigned char *)PyBytes_AS_STRING(self->bytes);
    sink->next = self->begin + used;
    sink->end = self->begin + size;
    return true;
}

PyObject *sink_finish(struct bytes_sink *self)
{
    Py_ssize_t used = (Py_ssize_t)sink_size(self);
    PyObject *bytes = self->bytes;

    self->bytes = NULL;
    if (bytes == NULL)
        bytes = PyBytes_FromStringAndSize((const char *)self->stack, used);
    else if (PyBytes_GET_SIZE(bytes) != used)
        _PyBytes_Resize(&bytes, used);
    if (bytes == NULL)
        PyErr_Clear();
    return bytes;
}
