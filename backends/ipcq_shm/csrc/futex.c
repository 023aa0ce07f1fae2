#include "futex.h"

#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

bool futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t longest)
{
    struct timespec span = {.tv_sec = longest / 1000000000, .tv_nsec = longest % 1000000000};

    return syscall(SYS_futex, (void *)word, FUTEX_WAIT, seen, &span, NULL, 0) == 0;
}

void futex_wake(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, (void *)word, FUTEX_WAKE, count, NULL, NULL, 0);
}
