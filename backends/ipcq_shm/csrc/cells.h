/*
 * Cells: the data of a queue with priorities or leases. The highest priority leaves first, and within one the oldest
 * message. What leases add is in lease.h.
 *
 * Problem. Messages leave in a different order than they came, so a ring would soon be full of holes; and the next
 * message is found through several words, which no single store changes.
 *
 * Layout. Cells of 64 bytes, and for each cell a word in three arrays. A message is a chain of cells; its first one
 * begins with its key and size.
 *
 *     cells    key, size, 48 bytes of the message | 64 bytes of it | ...
 *     next     for each cell the one that follows, in a message or in the list of free cells
 *     heads    READY if a message begins in this cell, else 0 (with leases there are more states)
 *     heap     a binary heap of first cells, smallest key first
 *
 * A key has 32767 - priority in its high bits and the message's number in its low bits, so one comparison compares
 * both. The positions of this queue count messages.
 *
 * Protocol. There is one lock, the producers'. A put fills cells from the front of the list of free cells, whose chain
 * they already are, marks the first one READY and commits by put.position, as the ring does; then it takes the cells
 * off the list and adds the first one to the heap (heap.h). A get copies the message at the top of the heap, commits by clearing
 * its READY, and frees the cells.
 *
 * Why it is correct under a kill at any instruction. `heads`, the keys, and `next` within a message define the
 * messages; a READY head counts if its number is below put.position. All else can be derived, so a participant that
 * inherits the lock rebuilds it: `rebuild` drops heads that do not count, and then computes list, heap and totals from
 * the rest. It does not change its input, so it may be killed and started again.
 *
 * Why it is safe against a hostile segment. Each cell's number is checked against the number of cells, each chain has
 * as many links as its message's size needs, and sizes are at most the largest message's.
 *
 * What it gives up. Both sides share the lock, which is held while a message of any size is copied. Each cell costs 12
 * bytes beside its 64. A kill inside costs the next participant a rebuild, a millisecond per 100,000 cells.
 */
#ifndef IPCQ_CELLS_H
#define IPCQ_CELLS_H

#include "chain.h"
#include "flavour.h"

extern const struct flavour cells_flavour;

/* What a queue with leases (lease.h) has in common with one that has only priorities. */

/* Takes the lock, and rebuilds if its last owner died. */
bool cells_enter(struct queue *queue, int64_t patience);
/* The next four with the lock held. */
/* Puts messages that are ready, or with `due` delayed until then. */
enum queue_result cells_put_locked(struct queue *queue, const struct queue_piece *pieces, size_t count, bool whole,
                                   size_t *stored, int64_t due);
/* Drops ready messages of at most the piece's priority until it fits, as few as that takes; without any if it does not
 * fit even so: QUEUE_FULL. */
enum queue_result cells_make_room(struct queue *queue, const struct queue_piece *piece, size_t *dropped);
/* Finds the newest ready message of the highest priority, and how many of that priority are older. */
enum queue_result cells_latest(struct queue *queue, const struct cells *cells, uint32_t *cell, size_t *size,
                               size_t *older);
/* Finds the next message. */
enum queue_result cells_top(struct queue *queue, const struct cells *cells, uint32_t *cell, size_t *size);
enum queue_result cells_copy_out(const struct cells *cells, uint32_t cell, size_t size, const struct taking *taking);
/* Commits the get of the next message. */
void cells_drop(struct queue *queue, const struct cells *cells, uint32_t cell, size_t size);
bool cells_has_space(struct queue *queue, uint64_t message_size);
bool cells_much_is_free(struct queue *queue);

#endif
