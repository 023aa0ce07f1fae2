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

bool arguments_duration(PyObject *given, double *seconds)
{
    if (PyFloat_CheckExact(given)) {
        *seconds = PyFloat_AS_DOUBLE(given);
    } else if (PyLong_CheckExact(given)) {
        *seconds = PyLong_AsDouble(given);
        if (*seconds == -1 && PyErr_Occurred())
            PyErr_Clear();
    } else {
        return false;
    }
    return *seconds >= 0;
}

int64_t arguments_nanoseconds(double seconds)
{
    int64_t nanoseconds = (int64_t)((seconds < LONGEST ? seconds : LONGEST) * 1e9);

    return nanoseconds == 0 && seconds > 0 ? 1 : nanoseconds;
}

bool arguments_number(PyObject *given, size_t *number)
{
    Py_ssize_t value = PyLong_CheckExact(given) ? PyLong_AsSsize_t(given) : 0;

    if (value == -1 && PyErr_Occurred())
        PyErr_Clear();
    *number = (size_t)value;
    return value > 0;
}

bool arguments_patience(PyObject *block, PyObject *timeout, double *seconds)
{
    *seconds = INFINITY;
    if (timeout != NULL && timeout != Py_None && !arguments_duration(timeout, seconds))
        return false;
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
