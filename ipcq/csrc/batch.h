/* Lists of what was taken. */
#ifndef IPCQ_BATCH_H
#define IPCQ_BATCH_H

#include "pycompat.h"

/* Shortens a list without allocating: an allocation could fail after messages have been taken. */
static inline void batch_shorten(PyObject *list, Py_ssize_t size)
{
    Py_ssize_t before = PyList_GET_SIZE(list);

    Py_SET_SIZE((PyVarObject *)list, size);
    for (Py_ssize_t index = size; index < before; index++)
        Py_XDECREF(((PyListObject *)list)->ob_item[index]);
}

#endif
