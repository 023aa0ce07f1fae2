/* A handle: the private state of one participant, and the types that it exchanges with its caller. */
#ifndef IPCQ_HANDLE_H
#define IPCQ_HANDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "event.h"
#include "layout.h"

/* How long even a non-waiting call waits for a lock or for a copy in progress, in nanoseconds. */
#define QUEUE_PATIENCE 50000000
/* The patience of a call that tries once, but may give way to sleepers because its caller may block (event.h). */
#define QUEUE_POLITE (-1)

/* Messages of this size, in bytes, and larger ones are copied without the lock, unless the queue has priorities. */
#ifndef QUEUE_LARGE /* smaller in crash.c, which examines each step of a copy */
#define QUEUE_LARGE 32768
#endif

enum queue_result {
    QUEUE_OK,
    QUEUE_FULL,
    QUEUE_EMPTY,
    QUEUE_BUSY, /* a lock was held, or a copy in progress, for as long as the call's patience */
    QUEUE_DOWN,
    QUEUE_GONE,
    QUEUE_CORRUPT,
    QUEUE_NO_MEMORY, /* from the caller's queue_room */
    QUEUE_COPYING,   /* see queue_get */
    QUEUE_CROWDED,   /* only with QUEUE_POLITE: nothing was done, because it is time to give way */
    /* Only of opening: */
    QUEUE_ALIEN,     /* not a queue */
    QUEUE_OLD,       /* a queue of the version before this one, which can be drained */
    QUEUE_VERSIONED, /* a queue of another version or word size */
    QUEUE_FOREIGN,   /* a queue of another PID namespace, or one with leases of another time namespace */
    QUEUE_SLOTLESS,  /* all slots are taken */
    /* Of opening, and of a put that must ring the doorbell: */
    QUEUE_SYSTEM, /* see errno */
};

struct flavour;

/* One participant, in private memory. Any number of threads may use it. */
struct queue {
    const struct flavour *flavour; /* ring or cells */
    struct segment *segment;
    unsigned char *data;
    uint64_t capacity;
    uint64_t mask; /* capacity - 1 if that is a power of two, else 0 */
    uint64_t limit;
    uint64_t max_messages;
    uint64_t max_message_size;
    uint32_t flags;
    uint32_t max_deliveries; /* 0: no bound */
    uint32_t over;           /* the bit of `down` that says that nothing more can be taken */
    struct lease_holder *holders; /* NULL without leases */
    bool holds;                   /* has leased something; changed under the producers' lock */
    uint64_t pid_namespace;
    int descriptor;
    uint32_t slot;
    uint32_t generation;
    size_t mapped; /* bytes of the mapping, which begins at `segment` */
    struct habit reading;
    struct habit writing;
    _Atomic int64_t looked; /* when the file's link count was last read, CLOCK_MONOTONIC_COARSE, ns */
    _Atomic bool named;     /* the file was seen to have a name */
    char doorbell_path[288]; /* doorbell.h; changed, with the next four, under the producers' lock */
    int doorbell;            /* its descriptor, or -1 */
    uint64_t doorbell_inode;
    unsigned rings;
    _Atomic bool armed; /* set after the descriptor; read without the lock */
    bool stays; /* continues after the queue was unlinked */
    _Atomic uint32_t put_turn; /* calls in this turn, while others slept */
    _Atomic uint32_t get_turn;
    _Atomic bool put_busy; /* the last call waited in vain for the side's lock */
    _Atomic bool get_busy;
};

/* A message: bytes in front of it, and the caller's bytes. */
struct queue_piece {
    const void *data;
    size_t size;       /* of the data */
    unsigned priority; /* 0 if the queue has none */
    unsigned head_size; /* 0 in a queue with priorities */
    unsigned char head[8];
};

static inline size_t piece_size(const struct queue_piece *piece)
{
    return piece->head_size + piece->size;
}

struct queue_total {
    uint64_t count;
    uint64_t bytes;
};

/* A message on loan, as its holder learns of it. */
struct queue_lease {
    uint64_t serial;
    uint32_t cell;
    uint32_t deliveries; /* this one included */
    uint32_t failures;   /* before this one */
};

/* A message that is being copied without the lock. */
struct queue_copy {
    uint64_t position;
    const void *source;
    void *target;
    size_t size;
};

/*
 * Returns where to copy the message's data. It may skip bytes at the front by advancing the data, unless that is NULL,
 * which means "in several pieces". The bytes may change at any time, so it must read each of them only once. It is
 * called with a lock held: it must not wait.
 */
typedef void *queue_room(void *context, struct queue_piece *message);

#endif
