#include "arguments.h"

bool arguments_sort_named(PyObject *const *arguments, Py_ssize_t count, PyObject *names,
                          const struct parameters *parameters, PyObject **places)
{
    for (Py_ssize_t index = 0; index < PyTuple_GET_SIZE(names); index++) {
        Py_ssize_t place = 0;

        while (parameters->names[place] != NULL &&
               PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, index), parameters->names[place]) != 0)
            place++;
        if (parameters->names[place] == NULL || places[place] != NULL)
            return false;
        places[place] = arguments[count + index];
    }
    return true;
}

bool arguments_patience(PyObject *block, PyObject *timeout, double *seconds)
{
    *seconds = INFINITY;
    if (timeout != NULL && timeout != Py_None) {
        if (PyFloat_CheckExact(timeout)) {
            *seconds = PyFloat_AS_DOUBLE(timeout);
        } else if (PyLong_CheckExact(timeout)) {
            *seconds = PyLong_AsDouble(timeout);
            if (*seconds == -1 && PyErr_Occurred())
                PyErr_Clear();
        } else {
            return false;
        }
        if (!(*seconds >= 0))
            return false;
    }
    if (block == NULL || block == Py_True)
        return true;
    *seconds = 0;
    return block == Py_False;
}

PyObject *seconds_left(double deadline)
{
    double rest = deadline - (double)clock_now() * 1e-9;

    return deadline == INFINITY ? Py_NewRef(Py_None) : PyFloat_FromDouble(rest > 0 ? rest : 0);
}
