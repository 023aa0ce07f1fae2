/* The arguments of calls, and times. */
#ifndef IPCQ_ARGUMENTS_H
#define IPCQ_ARGUMENTS_H

#include "pycompat.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* How long a wait may go without checking whether the handle was closed, in nanoseconds; as SLICE in
 * ipcq/_process/deadline.py. */
#define SLICE 100000000

/* Deadlines later than this, in seconds of the clock, count as infinite, so that nanoseconds fit an int64_t. */
#define LATEST 4e9

/* The longest hold or delay, in seconds: LONGEST in ipcq/backend. */
#define LONGEST 3e9

#define MOST_PLACES 4

/* The parameters of a call. The first `positional` of them may be passed by position. */
struct parameters {
    const char *names[MOST_PLACES + 1];
    Py_ssize_t positional;
};

/* Stores each argument in `places`, at the index of its parameter; missing ones stay NULL. Returns false if the
 * arguments do not match the parameters, so that Python has to raise. */
bool arguments_sort_named(PyObject *const *arguments, Py_ssize_t count, PyObject *names,
                          const struct parameters *parameters, PyObject **places);

static inline bool arguments_sort(PyObject *const *arguments, Py_ssize_t count, PyObject *names,
                                  const struct parameters *parameters, PyObject **places)
{
    if (count > parameters->positional)
        return false;
    for (Py_ssize_t index = 0; index < count; index++)
        places[index] = arguments[index];
    return names == NULL || arguments_sort_named(arguments, count, names, parameters, places);
}

/* Converts a duration of 0 seconds or more; returns false for all else, so that Python has to check it. */
bool arguments_duration(PyObject *given, double *seconds);

/* Converts the duration of a hold or a delay; one that is not 0 is at least a nanosecond. */
int64_t arguments_nanoseconds(double seconds);

/* Converts a number of messages; returns false for what is no int of 1 or more. */
bool arguments_number(PyObject *given, size_t *number);

/* Converts block and timeout to the number of seconds that the call may wait. Returns false if a type or value is
 * unusual, so that Python has to check it. */
bool arguments_patience(PyObject *block, PyObject *timeout, double *seconds);

/* Returns the seconds that are left until a deadline, as the timeout of a call in Python; None for INFINITY. */
PyObject *seconds_left(double deadline);

/* CLOCK_MONOTONIC, in nanoseconds. */
static inline int64_t clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Converts a timeout to a deadline on that clock, in seconds; -INFINITY for a call that does not wait. */
static inline double deadline_of(double seconds)
{
    return seconds == 0 ? -INFINITY : seconds == INFINITY ? INFINITY : (double)clock_now() * 1e-9 + seconds;
}

/* Converts such a deadline to nanoseconds. */
static inline int64_t deadline_instant(double deadline)
{
    return deadline == -INFINITY ? 0 : deadline < LATEST ? (int64_t)(deadline * 1e9) : INT64_MAX;
}

#endif
