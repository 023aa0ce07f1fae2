/* The limits of the hardware and the kernel, without any queue, for comparison with the figures of queues.
 *
 * The first argument selects the measurement, the second is its duration in seconds; one number is printed.
 *
 *   spin     a round trip between two processes that spin on words of shared memory, in us
 *   futex    a round trip with FUTEX_WAKE and FUTEX_WAIT only, in us
 *   pipe     a round trip of 64 bytes through two pipes, in us
 *   wake     the latency of FUTEX_WAKE to a process that has slept for 5 ms, in us
 *   slices   the processor time of a process that FUTEX_WAITs, and looks every 100 ms, in ms
 *   memcpy N copies of N bytes per second, between two buffers that stay in the cache as far as they fit
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, MOST = 1 << 22, WARMING = 5 };

struct shared {
    _Alignas(128) _Atomic uint32_t there;
    _Alignas(128) _Atomic uint32_t back;
    _Alignas(128) _Atomic int64_t sent;
};

static struct shared *shared;
static double *figures;
static int to[2], from[2];

static int64_t read_clock(clockid_t which) {
    struct timespec t;
    clock_gettime(which, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int64_t now(void) {
    return read_clock(CLOCK_MONOTONIC);
}

static void check(long result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static void wait_for(_Atomic uint32_t *word, uint32_t value, int spinning) {
    uint32_t seen;
    while ((seen = atomic_load_explicit(word, memory_order_acquire)) != value) {
        if (!spinning)
            syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
    }
}

static void set(_Atomic uint32_t *word, uint32_t value, int spinning) {
    atomic_store_explicit(word, value, memory_order_release);
    if (!spinning)
        syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void echo(const char *what) {
    char message[SIZE];
    if (!strcmp(what, "pipe")) {
        while (read(to[0], message, SIZE) == SIZE)
            check(write(from[1], message, SIZE), "write");
        return;
    }
    if (!strcmp(what, "wake")) {
        for (uint32_t turn = 1;; turn++) {
            wait_for(&shared->there, turn, 0);
            figures[0] = (double)(now() - atomic_load_explicit(&shared->sent, memory_order_relaxed)) / 1e3;
            set(&shared->back, turn, 0);
        }
    }
    int spinning = !strcmp(what, "spin");
    for (uint32_t turn = 1;; turn++) {
        wait_for(&shared->there, turn, spinning);
        set(&shared->back, turn, spinning);
    }
}

static double once(const char *what, uint32_t turn) {
    char message[SIZE] = {0};
    if (!strcmp(what, "wake")) {
        nanosleep(&(struct timespec){0, 5000000}, NULL);
        atomic_store_explicit(&shared->sent, now(), memory_order_relaxed);
        set(&shared->there, turn, 0);
        wait_for(&shared->back, turn, 0);
        return figures[0];
    }
    int64_t begin = now();
    if (!strcmp(what, "pipe")) {
        check(write(to[1], message, SIZE), "write");
        check(read(from[0], message, SIZE), "read");
    } else {
        int spinning = !strcmp(what, "spin");
        set(&shared->there, turn, spinning);
        wait_for(&shared->back, turn, spinning);
    }
    return (double)(now() - begin) / 1e3;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double copies(size_t size, double seconds) {
    char *source = malloc(size), *target = malloc(size);
    if (!source || !target)
        exit(1);
    memset(source, 1, size);
    memset(target, 2, size);
    int64_t begin = now(), end = begin + (int64_t)(seconds * 1e9), at;
    double count = 0;
    do {
        for (int i = 0; i < 8; i++) {
            memcpy(target, source, size);
            __asm__ volatile("" : : "r"(target) : "memory"); /* else the compiler could drop the copy */
        }
        count += 8;
    } while ((at = now()) < end);
    free(source);
    free(target);
    return count / ((double)(at - begin) / 1e9);
}

static double slices(double seconds) {
    _Atomic uint32_t word = 0;
    int64_t end = now() + (int64_t)(seconds * 1e9), begin = read_clock(CLOCK_PROCESS_CPUTIME_ID);
    while (now() < end)
        syscall(SYS_futex, &word, FUTEX_WAIT, 0, &(struct timespec){0, 100000000}, NULL, 0);
    return (double)(read_clock(CLOCK_PROCESS_CPUTIME_ID) - begin) / 1e6;
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    const char *what = argv[1];
    double seconds = atof(argv[2]);
    if (!strcmp(what, "memcpy")) {
        printf("%.1f\n", copies((size_t)atol(argv[3]), seconds));
        return 0;
    }
    if (!strcmp(what, "slices")) {
        printf("%.3f\n", slices(seconds));
        return 0;
    }
    shared = mmap(NULL, sizeof *shared + MOST * sizeof(double), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    figures = (double *)(shared + 1);
    check(pipe(to), "pipe");
    check(pipe(from), "pipe");
    pid_t child = fork();
    check(child, "fork");
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        echo(what);
        return 0;
    }
    double *kept = figures + 1;
    int64_t end = now() + (int64_t)(seconds * 1e9);
    size_t count = 0;
    for (uint32_t turn = 1; count < MOST - 1 && (turn <= WARMING + 1 || now() < end); turn++) {
        double took = once(what, turn);
        if (turn > WARMING)
            kept[count++] = took;
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    qsort(kept, count, sizeof *kept, ascending);
    printf("%.3f\n", kept[count / 2]);
    return 0;
}
