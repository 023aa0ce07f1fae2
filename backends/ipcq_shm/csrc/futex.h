/* The system calls that sleep on a word of shared memory and wake sleepers, and the pause of a loop that spins. */
#ifndef IPCQ_FUTEX_H
#define IPCQ_FUTEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Sleeps while the word is `seen`, for at most `longest` nanoseconds; false if it ended without being woken. */
bool futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t longest);
void futex_wake(_Atomic uint32_t *word, int count);

static inline void futex_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory"); /* yield takes one cycle; isb takes as long as x86's pause */
#elif defined(__riscv)
    __asm__ volatile(".4byte 0x0100000f" ::: "memory"); /* pause (Zihintpause), a fence that does nothing elsewhere */
#elif defined(__powerpc__)
    __asm__ volatile("or 27,27,27" ::: "memory"); /* yield (Power ISA, book II, 3.2) */
#else
    __asm__ volatile("" ::: "memory"); /* s390x and others have no such hint; the loop must stay a loop */
#endif
}

#endif
