/*
 * The data of a queue with priorities: highest first, the order of putting within one.
 *
 * Problem. Messages leave in another order than they came, so a ring would soon be full of holes; and what finds the
 * next message is several words, which no single store changes.
 *
 * Layout. Cells of 64 bytes, and for each cell a word in three arrays. A message is a chain of cells; its first one begins
 * with its key and size.
 *
 *     cells    key, size, 48 bytes of the message | 64 bytes of it | ...
 *     next     for each cell the one that follows, in a message or in the list of free ones
 *     heads    READY if a message begins in this cell, else 0
 *     heap     a binary heap of first cells, the smallest key in front
 *
 * A key is 32767 - priority above the message's number, so that comparing keys compares both. Numbers are what the
 * positions of this queue count.
 *
 * Protocol. There is one lock, the producers'. A put fills cells from the front of the list of free ones, whose chain
 * they already are, marks the first one READY and commits by put.position, as the ring does; then it takes the cells off
 * the list and puts the first one into the heap. A get copies the message at the heap's top, commits by taking its READY
 * away, and gives the cells back.
 *
 * Why it is correct under a kill at any instruction. Messages are told by `heads`, by their keys, and by `next` within
 * them; a READY head counts if its number is below put.position. All else follows from these, so who inherits the lock
 * makes it anew: `rebuild` drops heads that do not count, and then writes list, heap and totals from what is left. It
 * changes nothing that it is made from, so it may be killed and begun again.
 *
 * Why it is safe against what the segment may hold. Each cell's number is checked against how many there are, each chain
 * has as many links as its message's size needs, and sizes are at most the largest message's.
 *
 * What it gives up. Both sides share the lock, which is held while a message is copied, whatever its size. Each cell
 * costs 12 bytes beside its 64. A kill inside costs the next one a rebuild, a millisecond for 100,000 cells.
 */
#ifndef IPCQ_SHELF_H
#define IPCQ_SHELF_H

#include "ring.h"

/* Bytes that a queue with priorities may have: the numbers of cells are 32 bits wide. */
#define SHELF_LARGEST (UINT64_C(1) << 38)

/* How many bytes of a queue's limit a message takes. */
uint64_t shelf_message_size(uint64_t message_size);

/* Takes the lock, and rebuilds what a dead owner left. */
bool shelf_enter(struct ring *ring, int64_t patience);

/* The rest is called with the lock. */
enum ring_result shelf_put(struct ring *ring, const struct ring_piece *pieces, size_t count, size_t *stored);
enum ring_result shelf_look(struct ring *ring, ring_room *room, void *context);
enum ring_result shelf_take(struct ring *ring, ring_room *room, void *context, size_t limit, size_t *taken);
enum ring_result shelf_clear(struct ring *ring, size_t *dropped);

/* Without it. */
bool shelf_has_space(struct ring *ring, uint64_t message_size);
bool shelf_much_is_free(struct ring *ring);

#endif
