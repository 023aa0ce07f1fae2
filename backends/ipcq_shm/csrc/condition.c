#include "condition.h"

#include <sys/stat.h>
#include <time.h>

#include "doorbell.h"
#include "ending.h"
#include "participant.h"

/* How often a consumer sleeps 50 us for a remover; a remover takes less time unless it is stopped. */
#define MOST_NAPS 40

/* The name may also be removed without notice, by rm or by the system. */
void condition_look(struct queue *queue)
{
    struct stat found;

    atomic_store_explicit(&queue->looked, clock_now_coarse(), memory_order_relaxed);
    if (fstat(queue->descriptor, &found) != 0)
        return;
    if (found.st_nlink > 0)
        atomic_store_explicit(&queue->named, true, memory_order_relaxed);
    else if (atomic_load_explicit(&queue->named, memory_order_relaxed) &&
             !atomic_exchange_explicit(&queue->segment->state.unlinked, 1, memory_order_seq_cst))
        doorbell_ring_for_good(queue, false); /* this handle is the first to notice */
}

void condition_meet_remover(struct queue *queue)
{
    const struct timespec nap = {.tv_nsec = 50000};

    for (int naps = 0;
         naps < MOST_NAPS && !ending_for_listeners(queue) && participant_locked(queue, LAYOUT_REMOVAL); naps++)
        nanosleep(&nap, NULL);
    condition_look(queue);
}
