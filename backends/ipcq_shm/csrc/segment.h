/* The segment's file: how it is created, checked and mapped. */
#ifndef IPCQ_SEGMENT_H
#define IPCQ_SEGMENT_H

#include "handle.h"

/* Bytes of the file of a queue with this limit and these flags. */
uint64_t segment_size(const struct segment_header *asked);
/* Writes a new queue into a file of segment_size bytes of zeros; only limits and flags of `asked` are read. */
enum queue_result segment_format(int descriptor, const struct segment_header *asked);
/* Checks the header, copies it into the handle, and maps the file; `oldest` is the oldest version that is accepted. The
 * handle owns the descriptor then, unless it fails. */
enum queue_result segment_open(struct queue *queue, int descriptor, uint32_t oldest);
/* In a forked child: opens and maps the file again. Locks belong to the open file, so the slot of the old one remains
 * the parent's. */
enum queue_result segment_reopen(struct queue *queue);
void segment_close(struct queue *queue);
/* The same, but the descriptor remains the caller's. */
void segment_unmap(struct queue *queue);

#endif
