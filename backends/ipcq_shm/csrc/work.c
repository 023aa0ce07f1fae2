#include "work.h"

#include "attention.h"
#include "cells.h"
#include "clock.h"
#include "doorbell.h"
#include "event.h"
#include "heap.h"
#include "rebuild.h"
#include "side.h"

static bool something_lives(const struct cells *cells)
{
    return get32(&cells->index->ready) != 0 || get32(&cells->leases->delayed) != 0 ||
           get32(&cells->leases->leased) != 0;
}

static void drop_all(struct work *work)
{
    for (uint32_t cell = 0; cell < work->cells.count; cell++) {
        uint32_t state = state_of(&work->cells, cell);

        if (state != CELL_NONE && state != CELL_DEAD)
            work_set_state(work, cell, CELL_NONE);
    }
    set32(&work->cells.index->built, 0); /* a kill from here on leaves no other trace */
    rebuild(work->queue, &work->cells);
    work->freed = true;
}

/* After a shutdown: completes what it asked for, if that can be done by now. */
static void end(struct work *work, uint32_t down)
{
    if (down & DOWN_DROPPED && something_lives(&work->cells))
        drop_all(work);
    if (down & DOWN_OVER || something_lives(&work->cells))
        return;
    /* Without a descriptor for the doorbell it cannot ring; the next operation tries again. */
    if (!doorbell_ring_for_good(work->queue, true))
        return;
    atomic_fetch_or_explicit(&work->queue->segment->state.down, DOWN_OVER, memory_order_seq_cst);
    event_wake(&work->queue->segment->put.event, UINT32_MAX);
}

bool work_enter(struct work *work, struct queue *queue, int64_t patience)
{
    uint32_t down;

    *work = (struct work){.queue = queue, .cells = cells_of(queue)};
    if (!cells_enter(queue, patience))
        return false;
    down = work_down(queue);
    if (down != 0)
        end(work, down);
    return true;
}

void work_leave(struct work *work)
{
    struct segment *segment = work->queue->segment;
    uint32_t consumers = 0;
    uint32_t producers = 0;
    uint32_t down = work_down(work->queue);

    if (down != 0)
        end(work, down);
    if (work->readied != 0 || work->sooner) {
        /* Again, and sequentially consistent: either this sees a sleeper, or the sleeper sees the message (event.h). */
        atomic_store_explicit(&work->cells.index->ready, get32(&work->cells.index->ready), memory_order_seq_cst);
        consumers = event_asleep(&segment->put.event);
    }
    if (work->freed)
        producers = event_asleep(&segment->get.event);
    side_leave(&segment->put);
    attention_wake_consumers(work->queue, consumers, work->readied == 0 ? 1 : work->readied);
    attention_wake_producers(work->queue, producers);
}

bool work_announce(struct work *work)
{
    uint32_t attention = attention_of(work->queue) & ATTEND_LISTENERS;

    /* Once is enough: the doorbell stays rung while this participant has the lock. */
    if (!work->announced)
        work->announced = attention == 0 || attention_before_put(work->queue, attention, 0) == QUEUE_OK;
    return work->announced;
}

void work_note_next(struct work *work)
{
    int64_t before = atomic_load_explicit(&work->cells.leases->next, memory_order_relaxed);
    int64_t next;

    heap_note_next(&work->cells);
    next = atomic_load_explicit(&work->cells.leases->next, memory_order_relaxed);
    /* Waiters look by themselves at the end of a slice. */
    work->sooner |= next < before && next < clock_after(clock_now_coarse(), EVENT_SLICE);
}
