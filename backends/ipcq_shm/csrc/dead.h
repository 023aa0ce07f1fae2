/* Dead letters: messages of a queue with leases (lease.h) that failed too often or were rejected. */
#ifndef IPCQ_DEAD_H
#define IPCQ_DEAD_H

#include <stddef.h>
#include <stdint.h>

#include "handle.h"

struct lease_dead {
    uint64_t number; /* at least 1 */
    uint32_t deliveries;
    size_t reason_size;
    unsigned char reason[CELL_REASON];
};

/* Takes the dead letter with this number, which was peeked at, unless it is not the oldest any more: QUEUE_EMPTY. */
enum queue_result lease_take_dead(struct queue *queue, uint64_t number, int64_t patience);
/* Copies up to `limit` dead letters with numbers above `after`, oldest first. `room` is called for each, after its
 * letter was filled in. */
enum queue_result lease_peek_dead(struct queue *queue, uint64_t after, queue_room *room, void *context,
                                  struct lease_dead *letters, size_t limit, size_t *found, int64_t patience);
enum queue_result lease_requeue(struct queue *queue, size_t limit, size_t *count, int64_t patience);
enum queue_result lease_clear_dead(struct queue *queue, size_t *count, int64_t patience);

#endif
