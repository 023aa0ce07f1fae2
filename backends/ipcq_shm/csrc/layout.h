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
 *     data      the ring (ring.h), or the cells of a queue with priorities (cells.h)
 *
 * Positions are 64-bit counts of bytes that only grow. Blocks that different sides write are 128 bytes apart, because
 * processors fetch cache lines in pairs. The segment contains no pointers. Other versions of ipcq and the Python code
 * (_segment.py, _stuck.py) read it by offset, so the assertions at the end pin it: a change needs a new LAYOUT_VERSION.
 *
 * This file includes none of ours. Every other file may include it.
 */
#ifndef IPCQ_LAYOUT_H
#define IPCQ_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define LAYOUT_MAGIC UINT64_C(0x0a1a715063510d8a) /* neither text nor zeros, and different in the other byte order */
#define LAYOUT_VERSION 1
#define LAYOUT_SLOTS 4096
/* Offset in the file of the lock bytes of the slots: beyond the largest possible file. */
#define LAYOUT_LOCKS (UINT64_C(1) << 60)
/* The next lock bytes: of a process that removes the name (_segment.py), of each handle that armed the doorbell, and of
 * each of those handles for which the queue ends with its name. */
#define LAYOUT_REMOVAL (LAYOUT_LOCKS + LAYOUT_SLOTS)
#define LAYOUT_ARMED (LAYOUT_REMOVAL + 1)
#define LAYOUT_ENDING (LAYOUT_ARMED + 1)

enum layout_flag {
    FLAG_ORDERED = 1,    /* messages have priorities: the data is cells, not a ring */
    FLAG_LAST_CLOSE = 2, /* the queue is removed with its last participant */
    FLAG_BYTES = 4,      /* the creator set a limit in bytes, or no limit in messages */
};

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
    uint32_t checksum;
};

enum segment_down {
    DOWN_ENDED = 1,
    DOWN_DROPPED = 2, /* only with DOWN_ENDED: all messages were dropped, and get returns none */
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

struct segment {
    struct segment_header header;
    _Alignas(128) struct segment_state state;
    _Alignas(128) struct segment_figures figures;
    struct side put;
    struct side get;
    _Alignas(128) struct cells_index cells;
    _Atomic uint32_t generations[LAYOUT_SLOTS];
    char name[256]; /* the queue's; the file's name may be abridged */
};

/* Data: the ring */

enum record_state { RECORD_READY = 1, RECORD_RESERVED = 2, RECORD_CLAIMED = 3, RECORD_DONE = 4 };

struct ring_record {
    _Atomic uint64_t word; /* state; for RESERVED and CLAIMED also << 8 the slot and << 32 its generation */
    uint32_t size;
    uint16_t priority;
    uint16_t deliveries; /* how often it was returned after the death of a consumer */
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
#define CELL_COST (CELL_SIZE + 3 * sizeof(uint32_t)) /* bytes of a cell and its words in the three arrays */
#define CELLS_LARGEST (UINT64_C(1) << 38) /* bytes: a cell's number has 32 bits */

struct cell {
    union {
        struct {
            uint64_t key;
            uint32_t size;
            uint32_t unused;
            unsigned char message[CELL_FIRST];
        } first;
        unsigned char more[CELL_SIZE];
    } as;
};

static inline uint64_t cells_for(uint64_t message_size)
{
    return message_size <= CELL_FIRST ? 1 : 1 + (message_size - CELL_FIRST + CELL_SIZE - 1) / CELL_SIZE;
}

/* Bytes of a queue's limit that a message takes. */
static inline uint64_t layout_message_size(uint64_t message_size, uint32_t flags)
{
    return flags & FLAG_ORDERED ? cells_for(message_size) * CELL_COST : ring_record_size(message_size);
}

_Static_assert(sizeof(struct segment_header) == 80, "layout of version 1");
_Static_assert(offsetof(struct segment_header, flags) == 72, "layout of version 1");
_Static_assert(offsetof(struct segment, state) == 128, "layout of version 1");
_Static_assert(offsetof(struct segment_state, unlinked) == 4, "layout of version 1");
_Static_assert(offsetof(struct segment_state, doorbell) == 32, "layout of version 1");
_Static_assert(offsetof(struct segment, figures) == 256, "layout of version 1");
_Static_assert(offsetof(struct segment, put) == 384, "layout of version 1");
_Static_assert(offsetof(struct segment, get) == 640, "layout of version 1");
_Static_assert(offsetof(struct segment, cells) == 896, "layout of version 1");
_Static_assert(offsetof(struct segment, generations) == 912, "layout of version 1");
_Static_assert(offsetof(struct segment, name) == 17296, "layout of version 1");
_Static_assert(offsetof(struct side, holder) == 32, "layout of version 1");
_Static_assert(offsetof(struct side, holder_since) == 40, "layout of version 1");
_Static_assert(offsetof(struct side, position) == 128, "layout of version 1");
_Static_assert(offsetof(struct side, event) == 144, "layout of version 1");
_Static_assert(offsetof(struct side, marks) == 160, "layout of version 1");
_Static_assert(sizeof(struct side) == 256, "layout of version 1");
_Static_assert(sizeof(struct ring_record) == 16, "layout of version 1");
_Static_assert(sizeof(struct cell) == CELL_SIZE, "layout of version 1");
_Static_assert(CELLS_LARGEST / CELL_COST < UINT32_MAX, "a cell's number has 32 bits");
_Static_assert(sizeof(_Atomic uint64_t) == 8, "an atomic has no hidden lock");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "other processes do not share our locks");

#endif
