/* Rebuilding what a participant that died with the lock may have left half done (cells.h, lease.h). */
#ifndef IPCQ_REBUILD_H
#define IPCQ_REBUILD_H

#include "chain.h"

/* Computes list, heaps, counts and totals from the messages. The caller holds the lock. */
void rebuild(struct queue *queue, const struct cells *cells);

#endif
