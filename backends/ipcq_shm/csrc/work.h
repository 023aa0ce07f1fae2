/* Work: what an operation does to a queue with leases (lease.h) while it has the lock, and whom it has to wake. */
#ifndef IPCQ_WORK_H
#define IPCQ_WORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "chain.h"

struct work {
    struct queue *queue;
    struct cells cells;
    size_t readied; /* messages that became ready */
    bool announced; /* to the listeners */
    bool freed;     /* space */
    bool sooner;    /* something is due earlier than waiters know */
};

static inline struct cell *work_head(const struct work *work, uint32_t cell)
{
    return &work->cells.cell[cell];
}

static inline uint32_t work_down(const struct queue *queue)
{
    return atomic_load_explicit(&queue->segment->state.down, memory_order_seq_cst);
}

/* Commits: the only step that changes the state of a message. */
static inline void work_set_state(const struct work *work, uint32_t cell, uint32_t state)
{
    uint32_t kept = get32(&work->cells.heads[cell]) & CELL_PARCEL;

    atomic_store_explicit(&work->cells.heads[cell], state | (state == CELL_NONE ? 0 : kept), memory_order_seq_cst);
}

/* Takes the lock. After a shutdown this and work_leave also note the end of the queue if nothing is left in it. */
bool work_enter(struct work *work, struct queue *queue, int64_t patience);
/* Releases the lock and wakes whom the work concerns. */
void work_leave(struct work *work);
/* Rings and gives notice before a message becomes ready; false if that cannot be done now. */
bool work_announce(struct work *work);
/* Notes when the first delay or hold ends. */
void work_note_next(struct work *work);

#endif
