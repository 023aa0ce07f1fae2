/*
 * Transitions of a message of a queue with leases from one state to the next (lease.h): what is derived from the states
 * follows. The caller has the lock, and has checked the cell and its state.
 */
#ifndef IPCQ_TRANSITION_H
#define IPCQ_TRANSITION_H

#include "work.h"

/* A whole transition, when all that belongs to the new state has been written. */
void transition_to(struct work *work, uint32_t cell, uint32_t state);
void transition_to_dead(struct work *work, uint32_t cell, const unsigned char *reason, size_t reason_size);
void transition_to_delayed(struct work *work, uint32_t cell, int64_t due);
/* Ends a lease as a failure: the message dies, or is delayed until `due`, or with 0 is ready. False: not now. */
bool transition_fail(struct work *work, uint32_t cell, int64_t due, const unsigned char *reason, size_t reason_size);
/* Ends a lease without a failure; likewise. */
bool transition_release(struct work *work, uint32_t cell, int64_t due);
/* Takes a message out of the queue. */
void transition_drop(struct work *work, uint32_t cell);

#endif
