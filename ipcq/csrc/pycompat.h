/* Functions and macros of newer Pythons, for older ones. */
#ifndef IPCQ_PYCOMPAT_H
#define IPCQ_PYCOMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifndef Py_BEGIN_CRITICAL_SECTION /* new in Python 3.13 */
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

#if PY_VERSION_HEX < 0x030d0000
static inline PyObject *_PyType_LookupRef(PyTypeObject *type, PyObject *name)
{
    return Py_XNewRef(_PyType_Lookup(type, name));
}
#endif

#if PY_VERSION_HEX < 0x030c0000
static inline PyObject *PyErr_GetRaisedException(void)
{
    PyObject *type, *error, *trace;

    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    if (trace != NULL)
        PyException_SetTraceback(error, trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    return error;
}

static inline void PyErr_SetRaisedException(PyObject *error)
{
    if (error == NULL)
        PyErr_Clear();
    else
        PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
}
#endif

#endif
