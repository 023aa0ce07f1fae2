#include "ending.h"

#include <sys/stat.h>

#include "participant.h"

bool ending_nameless(const struct queue *queue)
{
    struct stat found;

    return fstat(queue->descriptor, &found) == 0 && found.st_nlink == 0;
}

/* Returns whether the name is removed or being removed. The lock is checked first: once it is free, the remover has
 * finished or died, and the link count shows what it did. */
static bool loses_name(const struct queue *queue)
{
    return atomic_load_explicit(&queue->named, memory_order_relaxed) &&
           (participant_locked(queue, LAYOUT_REMOVAL) || ending_nameless(queue));
}

/* Returns whether the queue ends with its name for any handle that listens. */
static bool name_matters(const struct queue *queue)
{
    return !queue->stays || participant_locked(queue, LAYOUT_ENDING);
}

bool ending_for_listeners(const struct queue *queue)
{
    const struct segment_state *state = &queue->segment->state;

    return atomic_load_explicit(&state->down, memory_order_seq_cst) & queue->over ||
           (atomic_load_explicit(&state->unlinked, memory_order_seq_cst) && name_matters(queue));
}

bool ending_soon_for_listeners(const struct queue *queue)
{
    return ending_for_listeners(queue) || (loses_name(queue) && name_matters(queue));
}
