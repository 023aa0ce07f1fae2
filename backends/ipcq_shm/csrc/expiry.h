/* Expiry: the return of messages whose delay or hold is over, and of the leases of dead holders (lease.h). */
#ifndef IPCQ_EXPIRY_H
#define IPCQ_EXPIRY_H

#include "work.h"

/* Messages that are moved with the lock held, before others get a turn. */
#define EXPIRY_STEP 256

/* Takes the lock, and first returns the messages that are due to the queue. */
bool expiry_enter(struct work *work, struct queue *queue, int64_t patience);
/* Ends a lease whose hold is over, as a failure; false if that cannot be done now. The caller holds the lock. */
bool expiry_end_hold(struct work *work, uint32_t cell);
/* The participant that has the leases of a slot, as a word. */
uint64_t expiry_holder(const struct queue *queue, uint32_t slot);
/* Returns the leases of a participant, as failures or not; false if not all can be returned now. The caller holds the
 * lock. */
bool expiry_return_all(struct work *work, uint64_t owner, bool failed);
/* Looks for dead holders, unless somebody has just done so, and returns their leases. Without the lock. */
void expiry_check_holders(struct queue *queue, int64_t patience);

#endif
