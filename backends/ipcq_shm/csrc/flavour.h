/*
 * The operations that the ring and the cells have in common. queue.c calls them through the handle.
 *
 * The handle points to the flavour of its queue, so a call does not test which one it is. An
 * operation takes the lock that it needs and releases it; `patience` is in nanoseconds.
 */
#ifndef IPCQ_FLAVOUR_H
#define IPCQ_FLAVOUR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "handle.h"

/* The arguments of a get, a batch of gets or a peek. */
struct taking {
    queue_room *room;
    void *context;
    struct queue_copy *copy; /* only for `get` */
    size_t limit;            /* this and the next only for `get_many` and `lease` */
    size_t *taken;
    uint64_t serial;          /* this and the next two only for `lease`: the number of the first lease */
    int64_t hold;             /* ns; 0: without end */
    struct queue_lease *leases; /* each is filled in before `room` is called for its message */
};

typedef enum queue_result flavour_take(struct queue *queue, const struct taking *taking, int64_t patience);

struct flavour {
    /* Takes the producers' lock, and repairs the state that a dead owner left. side_leave releases it. */
    bool (*enter_put)(struct queue *queue, int64_t patience);
    /* A large message may be copied after the unlock. */
    enum queue_result (*put)(struct queue *queue, const struct queue_piece *piece, int64_t patience);
    /* With `whole`, stores all pieces or none. */
    enum queue_result (*put_many)(struct queue *queue, const struct queue_piece *pieces, size_t count, bool whole,
                                  size_t *stored, int64_t patience);
    /* Stores a message, and drops ready ones of at most its priority if it does not fit otherwise. Sets `dropped`. */
    enum queue_result (*put_dropping)(struct queue *queue, const struct queue_piece *piece, size_t *dropped,
                                      int64_t patience);
    /* Frees the space that dead consumers hold, and returns whether there was any. NULL if they hold none. */
    bool (*reclaim)(struct queue *queue);
    flavour_take *get;
    flavour_take *get_latest; /* the newest message of the highest priority; drops the older ones of that priority */
    flavour_take *get_many;
    flavour_take *peek;
    flavour_take *lease; /* this and the next three are NULL without leases */
    /* Checks before a get what can be known without the lock: QUEUE_OK, QUEUE_EMPTY or QUEUE_DOWN. */
    enum queue_result (*before_get)(struct queue *queue);
    /* Returns whether a get would find no message. NULL: the positions tell. */
    bool (*is_empty)(struct queue *queue);
    /* Until when, in ns, a waiter may sleep without looking. */
    int64_t (*wake_at)(struct queue *queue);
    /* After a `get` that returned QUEUE_COPYING; NULL if none does. */
    void (*release)(struct queue *queue, const struct queue_copy *copy);
    enum queue_result (*clear)(struct queue *queue, size_t *count, int64_t patience);
    /* Without a lock, so the result is only a hint: */
    bool (*has_space)(struct queue *queue, uint64_t message_size);
    bool (*much_is_free)(struct queue *queue);
    /* Waits until the next message is completely written; returns whether the lock could be taken for that. NULL if
     * messages are written with the lock. */
    bool (*settle)(struct queue *queue, int64_t until);
    /* Returns the slot of the producer that is writing the next message, or -1. NULL likewise. */
    int32_t (*writer)(struct queue *queue, uint64_t position);
    /* Consumers take the producers' lock too, and cache no position of the other side. */
    bool one_lock;
};

#endif
