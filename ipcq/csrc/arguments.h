/* The arguments of put and get, and times. */
#ifndef IPCQ_ARGUMENTS_H
#define IPCQ_ARGUMENTS_H

#include "pycompat.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* The longest time without looking whether the handle was closed, in nanoseconds; SLICE in ipcq/_process/deadline.py. */
#define SLICE 100000000

/* Later deadlines, in seconds of the clock, count as infinite. */
#define LATEST 4e9

#define MOST_PLACES 4

/* The arguments that a call may have: `positional` of them may be given without their names. */
struct wanted {
    const char *names[MOST_PLACES + 1];
    Py_ssize_t positional;
};

/* Puts arguments into places; a missing one is NULL. False if they are wrong, so that Python must report the error. */
bool arguments_sort_named(PyObject *const *arguments, Py_ssize_t count, PyObject *names, const struct wanted *wanted,
                          PyObject **places);

static inline bool arguments_sort(PyObject *const *arguments, Py_ssize_t count, PyObject *names,
                                  const struct wanted *wanted, PyObject **places)
{
    if (count > wanted->positional)
        return false;
    for (Py_ssize_t index = 0; index < count; index++)
        places[index] = arguments[index];
    return names == NULL || arguments_sort_named(arguments, count, names, wanted, places);
}

/* Computes from block and timeout how many seconds the call may wait; false if their types or values are unusual. */
bool arguments_patience(PyObject *block, PyObject *timeout, double *seconds);

/* Returns the timeout of a call in Python that goes on until the deadline. */
PyObject *seconds_left(double deadline);

/* CLOCK_MONOTONIC, in nanoseconds. */
static inline int64_t clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Converts a timeout to a deadline on that clock, in seconds. */
static inline double deadline_of(double seconds)
{
    return seconds == 0 ? -INFINITY : seconds == INFINITY ? INFINITY : (double)clock_now() * 1e-9 + seconds;
}

/* The same deadline in nanoseconds. */
static inline int64_t deadline_instant(double deadline)
{
    return deadline == -INFINITY ? 0 : deadline < LATEST ? (int64_t)(deadline * 1e9) : INT64_MAX;
}

#endif
