/*
 * The layout of a segment: every byte that processes share.
 *
 *     header    what the queue was created with; written once, copied into private memory at attach, never read again
 *     state     shut down, unlinked, registrants for notification; rarely written
 *     figures   statistics; no decision depends on them
 *     put       what producers write: lock and caches; on the next two cache lines what they publish
 *     get       the same for consumers
 *     cells     derived words of a queue with priorities
 *     slots     a generation for each participant
 *     leases    derived words of a queue with leases
 *     holders   of a queue with leases: how many each participant holds
 *     data      the ring (ring.h), or the cells of a queue with priorities or leases (cells.h)
 *
 * Positions are 64-bit counts of bytes that only grow. Blocks that different sides write are 128 bytes apart, because
 * processors fetch cache lines in pairs. The segment contains no pointers. Other versions of ipcq and the Python code
 * (_segment.py, _stuck.py) read it by offset, so the assertions at the end pin it: a change needs a new LAYOUT_VERSION.
 *
 * Version 2 has moved nothing of version 1: it has a longer header, further blocks behind the name, and longer heads of
 * messages in a queue with leases. So a queue of version 1 can be drained like one of version 2. What only some queues
 * have is announced by a flag, and a flag that is not known makes the queue one of another version.
 *
 * This file includes none of ours. Every other file may include it.
 */
#ifndef IPCQ_LAYOUT_H
#define IPCQ_LAYOUT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LAYOUT_MAGIC UINT64_C(0x0a1a715063510d8a) /* neither text nor zeros, and different in the other byte order */
#define LAYOUT_VERSION 2
#define LAYOUT_OLDEST 1 /* that can be drained */
#define LAYOUT_SLOTS 4096
/* Offset in the file of the lock bytes of the slots: beyond the largest possible file. */
#define LAYOUT_LOCKS (UINT64_C(1) << 60)
/* The next lock bytes: of a process that removes the name (_segment.py), of each handle that armed the doorbell, and of
 * each of those handles for which the queue ends with its name. */
#define LAYOUT_REMOVAL (LAYOUT_LOCKS + LAYOUT_SLOTS)
#define LAYOUT_ARMED (LAYOUT_REMOVAL + 1)
#define LAYOUT_ENDING (LAYOUT_ARMED + 1)
/* The lock byte of a participant with leases: this + its slot << 32 + its generation. Nobody else ever locks it, while a
 * slot's byte is soon locked by the next participant. */
#define LAYOUT_LENDING (UINT64_C(1) << 61)

enum layout_flag {
    FLAG_ORDERED = 1,    /* messages have priorities: the data is cells, not a ring */
    FLAG_LAST_CLOSE = 2, /* the queue is removed with its last participant */
    FLAG_BYTES = 4,      /* the creator set a limit in bytes, or no limit in messages */
    FLAG_LEASES = 8,     /* messages can be leased: the data is cells */
    FLAG_PARCELS = 16,   /* reserved: messages may be in files of their own */
};
#define LAYOUT_FLAGS (FLAG_ORDERED | FLAG_LAST_CLOSE | FLAG_BYTES | FLAG_LEASES) /* that are known */

static inline bool layout_has_cells(uint32_t flags)
{
    return (flags & (FLAG_ORDERED | FLAG_LEASES)) != 0;
}

struct segment_header {
    uint64_t magic;
    uint32_t version;
    uint32_t word_size;
    uint64_t pid_namespace; /* inode number of /proc/self/ns/pid */
    uint64_t segment_size;
    uint64_t data_offset;
    uint64_t capacity; /* of the data, whole pages */
    uint64_t limit;    /* bytes that may be in use, at most the capacity */
    uint64_t max_messages; /* 0: as many as the bytes allow */
    uint64_t max_message_size;
    uint32_t flags; /* enum layout_flag */
    uint32_t checksum; /* of all other bytes of the header */
    /* Since version 2; zeros in a file of version 1. */
    uint64_t incarnation; /* a random number, in the names of this queue's parcels */
    uint64_t time_namespace; /* inode number of /proc/self/ns/time, or 0; matters to a queue with leases */
    uint32_t max_deliveries; /* failures after which a message is a dead letter; 0: no bound */
    uint32_t unused[7];
};

enum segment_down {
    DOWN_ENDED = 1,
    DOWN_DROPPED = 2, /* only with DOWN_ENDED: all messages were dropped, and get returns none */
    DOWN_OVER = 4,    /* only with leases, and with DOWN_ENDED: no message is ready, delayed or leased any more */
};

/* What a put or a get must do in addition to moving its message (attention.h). 0 on the fast path. */
enum segment_attention {
    ATTEND_DOORBELL = 1,
    ATTEND_NOTICE = 2,
    /* Two or more participants of a side slept recently, so running participants take turns with sleepers. */
    ATTEND_PUT_CROWD = 4,
    ATTEND_GET_CROWD = 8,
    ATTEND_LISTENERS = ATTEND_DOORBELL | ATTEND_NOTICE,
};

struct segment_state {
    _Atomic uint32_t down;      /* enum segment_down */
    _Atomic uint32_t unlinked;  /* written by the remover of the name, as a plain byte to the file */
    _Atomic uint32_t hint;      /* the slot that is probably free */
    _Atomic uint32_t attention; /* enum segment_attention */
    _Atomic uint64_t registrant; /* slot and generation of the participant that requested a notice */
    _Atomic uint32_t notices;    /* futex word, incremented by each notice */
    _Atomic uint32_t unused;
    _Atomic uint64_t doorbell; /* inode number of the FIFO */
};

struct segment_figures {
    _Atomic uint64_t high_water_mark;
    _Atomic uint64_t waits;
    _Atomic uint64_t timeouts;
    _Atomic uint64_t recoveries;
    _Atomic uint64_t aborted; /* reserved records whose producer died; counted as put and as got */
    _Atomic uint64_t dropped; /* by puts that drop the oldest, and by gets of the latest; counted as got */
};

/* A lock (lock.h). */
struct lock {
    _Atomic uint32_t word;
};

/* A futex event (event.h). */
struct event {
    _Atomic uint32_t asleep;
    _Atomic uint32_t turns;
    _Atomic int64_t woken; /* CLOCK_MONOTONIC, ns */
};

/* How much has been put or got when a side is at this position (side.h). */
struct side_mark {
    _Atomic uint64_t position;
    _Atomic uint64_t count;
    _Atomic uint64_t bytes;
};

struct side {
    _Alignas(128) struct lock lock;
    _Atomic uint64_t seen_position; /* of the other side, when last read */
    _Atomic uint64_t seen_count;
    _Atomic int64_t spinner; /* until when a waiter of this side spins; CLOCK_MONOTONIC, ns (event.h) */
    /* Written by a waiter whose patience for the lock ran out: the owner's thread id, when that owner was first seen
     * (CLOCK_MONOTONIC, ns), and the side's position then. A different position means that the side has moved since. */
    _Atomic uint32_t holder;
    _Atomic int64_t holder_since;
    _Atomic uint64_t holder_position;
    _Alignas(128) _Atomic uint64_t position;
    _Atomic uint64_t held;     /* 0, or 1 + the position of the oldest record that may be CLAIMED */
    struct event event;        /* that this side signals */
    struct side_mark marks[2];
    _Atomic uint32_t answered; /* the last wake-up of this event that was answered; written by the other side */
};

/* Of a queue with priorities: words that cells_enter can rebuild from the cells. */
struct cells_index {
    _Atomic uint32_t built; /* 0: the words beside this one and the arrays have to be rebuilt */
    _Atomic uint32_t first_free;
    _Atomic uint32_t free_cells;
    _Atomic uint32_t ready; /* messages */
};

/* Of a queue with leases: likewise, except the last three. */
struct lease_index {
    _Atomic uint32_t delayed; /* messages */
    _Atomic uint32_t holds;   /* leases that have an end */
    _Atomic uint32_t leased;  /* messages, with or without an end */
    _Atomic uint32_t dead;    /* letters */
    _Atomic int64_t next;     /* when the first delay or hold ends, CLOCK_MONOTONIC, ns; INT64_MAX: none is there */
    _Atomic uint32_t slots;   /* participants with leases have smaller numbers; only grows */
    _Atomic int64_t looked;   /* when the holders were last checked, CLOCK_MONOTONIC_COARSE, ns */
    _Atomic uint64_t returned; /* a figure: deliveries that ended without an acknowledgement */
};

/* The leases of a participant; derived. */
struct lease_holder {
    _Atomic uint32_t generation;
    _Atomic uint32_t leases;
};

struct segment {
    struct segment_header header;
    _Alignas(128) struct segment_state state;
    _Alignas(128) struct segment_figures figures;
    struct side put;
    struct side get;
    _Alignas(128) struct cells_index cells;
    _Atomic uint32_t generations[LAYOUT_SLOTS];
    char name[256]; /* the queue's; the file's name may be abridged */
    _Alignas(128) struct lease_index leases;
    _Alignas(128) _Atomic uint64_t parcels[16]; /* reserved */
};
#define LAYOUT_HOLDERS (LAYOUT_SLOTS * sizeof(struct lease_holder)) /* bytes before the data of a queue with leases */

/* Data: the ring */

enum record_state { RECORD_READY = 1, RECORD_RESERVED = 2, RECORD_CLAIMED = 3, RECORD_DONE = 4 };

struct ring_record {
    _Atomic uint64_t word; /* state; for RESERVED and CLAIMED also << 8 the slot and << 32 its generation */
    uint32_t size;
    uint16_t kind; /* 0; 1 is reserved for a parcel */
    uint16_t unused;
};

#define RING_LARGEST (UINT64_C(1) << 46) /* bytes */

/* Bytes of the ring that a message takes. */
static inline uint64_t ring_record_size(uint64_t message_size)
{
    return sizeof(struct ring_record) + ((message_size + 7) & ~UINT64_C(7));
}

/* Data: cells */

#define CELL_SIZE 64
#define CELL_FIRST 48 /* bytes of a message in its first cell */
#define CELL_FIRST_LEASED 8 /* the same in a queue with leases */
#define CELL_REASON 64 /* bytes behind each message of such a queue, for the reason why it became a dead letter */
#define CELL_COST (CELL_SIZE + 3 * sizeof(uint32_t)) /* bytes of a cell and its words in the three arrays */
#define CELLS_LARGEST (UINT64_C(1) << 38) /* bytes: a cell's number has 32 bits */

/* The word of a cell in `heads`: a state, and bits beside it. */
enum cell_state {
    CELL_NONE = 0, /* no message begins here */
    CELL_READY = 1,
    CELL_DELAYED = 2,
    CELL_LEASED = 3,
    CELL_DEAD = 4,
    CELL_STATE = 0xff,
    CELL_HELD = 0x100,   /* the lease has an end */
    CELL_PARCEL = 0x200, /* reserved: the bytes name a parcel */
};

struct cell {
    union {
        struct {
            uint64_t key;
            uint32_t size;
            uint32_t unused;
            unsigned char message[CELL_FIRST];
        } first;
        /* The same in a queue with leases (lease.h). */
        struct {
            uint64_t key;
            uint32_t size;
            uint32_t place; /* in the heap of holds */
            int64_t due;    /* end of the delay or of the hold, CLOCK_MONOTONIC, ns */
            uint64_t owner; /* slot and generation of the holder (participant.h) */
            uint64_t serial; /* of the lease */
            uint32_t deliveries;
            uint32_t settled; /* deliveries that do not count as failures */
            uint32_t since;   /* when it was leased, CLOCK_MONOTONIC, s */
            uint32_t reason_size;
            unsigned char message[CELL_FIRST_LEASED];
        } leased;
        unsigned char more[CELL_SIZE];
    } as;
};

static inline uint64_t cells_for(uint64_t message_size, uint32_t flags)
{
    if (flags & FLAG_LEASES)
        return 1 + (message_size + CELL_REASON - CELL_FIRST_LEASED + CELL_SIZE - 1) / CELL_SIZE;
    return message_size <= CELL_FIRST ? 1 : 1 + (message_size - CELL_FIRST + CELL_SIZE - 1) / CELL_SIZE;
}

/* Bytes of a queue's limit that a message takes. */
static inline uint64_t layout_message_size(uint64_t message_size, uint32_t flags)
{
    return layout_has_cells(flags) ? cells_for(message_size, flags) * CELL_COST : ring_record_size(message_size);
}

_Static_assert(sizeof(struct segment_header) == 128, "layout of version 2");
_Static_assert(offsetof(struct segment_header, flags) == 72, "layout of version 1");
_Static_assert(offsetof(struct segment_header, checksum) == 76, "layout of version 1");
_Static_assert(offsetof(struct segment, state) == 128, "layout of version 1");
_Static_assert(offsetof(struct segment_state, unlinked) == 4, "layout of version 1");
_Static_assert(offsetof(struct segment_state, doorbell) == 32, "layout of version 1");
_Static_assert(offsetof(struct segment, figures) == 256, "layout of version 1");
_Static_assert(offsetof(struct segment, put) == 384, "layout of version 1");
_Static_assert(offsetof(struct segment, get) == 640, "layout of version 1");
_Static_assert(offsetof(struct segment, cells) == 896, "layout of version 1");
_Static_assert(offsetof(struct segment, generations) == 912, "layout of version 1");
_Static_assert(offsetof(struct segment, name) == 17296, "layout of version 1");
_Static_assert(offsetof(struct segment, leases) == 17664, "layout of version 2");
_Static_assert(offsetof(struct segment, parcels) == 17792, "layout of version 2");
_Static_assert(sizeof(struct segment) == 17920, "layout of version 2");
_Static_assert(offsetof(struct side, holder) == 32, "layout of version 1");
_Static_assert(offsetof(struct side, holder_since) == 40, "layout of version 1");
_Static_assert(offsetof(struct side, position) == 128, "layout of version 1");
_Static_assert(offsetof(struct side, event) == 144, "layout of version 1");
_Static_assert(offsetof(struct side, marks) == 160, "layout of version 1");
_Static_assert(sizeof(struct side) == 256, "layout of version 1");
_Static_assert(sizeof(struct ring_record) == 16, "layout of version 1");
_Static_assert(sizeof(struct cell) == CELL_SIZE, "layout of version 1");
_Static_assert(offsetof(struct cell, as.first.message) == 16, "layout of version 1");
_Static_assert(offsetof(struct cell, as.leased.message) == CELL_SIZE - CELL_FIRST_LEASED, "layout of version 2");
_Static_assert((int)CELL_READY == (int)RECORD_READY, "layout of version 1");
_Static_assert(CELLS_LARGEST / CELL_COST < UINT32_MAX, "a cell's number has 32 bits");
_Static_assert(sizeof(_Atomic uint64_t) == 8, "an atomic has no hidden lock");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "other processes do not share our locks");

#endif
