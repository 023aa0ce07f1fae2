/* The clock that deadlines are given in. */
#ifndef IPCQ_CLOCK_H
#define IPCQ_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t clock_read(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* CLOCK_MONOTONIC, in nanoseconds. */
static inline int64_t clock_now(void)
{
    return clock_read(CLOCK_MONOTONIC);
}

/* The same, read in a third of the time, and up to a tick old. */
static inline int64_t clock_now_coarse(void)
{
    return clock_read(CLOCK_MONOTONIC_COARSE);
}

#endif
