/* The clock that deadlines are given in. */
#ifndef IPCQ_CLOCK_H
#define IPCQ_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* How much older the coarse clock may be, in nanoseconds: a tick is at most 10 ms. */
#define CLOCK_COARSE 20000000

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

/* The sum, or the last time before INT64_MAX, which means never. */
static inline int64_t clock_after(int64_t now, int64_t time)
{
    return time < INT64_MAX - 1 - now ? now + time : INT64_MAX - 1;
}

/* Whether a time has come. The coarse clock, which is read faster, decides unless it is close. */
static inline bool clock_has_come(int64_t due)
{
    int64_t now;

    if (due == INT64_MAX)
        return false;
    now = clock_now_coarse();
    return due <= now || (due < clock_after(now, CLOCK_COARSE) && due <= clock_now());
}

#endif
