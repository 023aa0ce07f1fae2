/*
 * Participants: the open handles of a queue, and which of them are alive.
 *
 * Liveness relies on kernel locks. Each participant, which is one open handle of one process, has a slot, and locks the
 * slot's byte in the segment's file. The kernel releases the lock with the last descriptor, so at the latest when the
 * process ends, and no process id has to be trusted. A slot's generation is incremented each time it is taken, so that
 * a later participant is not mistaken for a dead one.
 *
 * Between the two steps, locking the byte and incrementing the generation, a dead predecessor seems alive. For a record
 * that is being written, a moment later is soon enough. But a participant that is stopped there would keep the leases
 * of its predecessor, so each participant with leases locks one more byte, of its slot and generation.
 *
 * A word of the segment names a participant by its slot << 8 and generation << 32; the lowest byte is free for a state.
 */
#ifndef IPCQ_PARTICIPANT_H
#define IPCQ_PARTICIPANT_H

#include <stdbool.h>
#include <stdint.h>

#include "handle.h"

static inline uint64_t participant_word(const struct queue *queue, uint64_t state)
{
    return (uint64_t)queue->generation << 32 | (uint64_t)queue->slot << 8 | state;
}

static inline uint32_t participant_slot(uint64_t word)
{
    return word >> 8 & 0xffffff;
}

enum queue_result participant_join(struct queue *queue);
/* Returns whether the participant that a word names is alive. */
bool participant_lives(const struct queue *queue, uint64_t word);
/* Returns whether the queue has any other participant. */
bool participant_shared(const struct queue *queue);
/* The same for a participant with leases, which called `participant_lend` before its first one. */
bool participant_lends(const struct queue *queue, uint64_t word);
/* Locks the byte that shows others that this participant may have leases; false if the system refuses. */
bool participant_lend(struct queue *queue);
/* Returns whether another open file has locked this byte. */
bool participant_locked(const struct queue *queue, uint64_t at);

#endif
