/*
 * A queue of messages in a piece of shared memory, for any number of producers and consumers in any processes.
 *
 * Problem. Each participant may be killed or stopped between any two instructions, also inside the queue. The others
 * must go on, must not lose or double a message of anybody else, and must never see half a message. And what the memory
 * holds may have been written by a program that means harm: it can spoil the queue, but no reader's or writer's memory.
 *
 *
 * Layout
 *
 *     header    what the queue was created with; written once, copied into private memory at attach, never read again
 *     state     shut down, unlinked, who wants to be told; rarely written
 *     figures   statistics that no decision rests on
 *     put       what producers write: lock and caches; on the next two cache lines what they publish
 *     get       the same for consumers
 *     slots     a generation for each participant
 *     data      the ring, or the cells of a queue with priorities (shelf.h)
 *
 * The ring is mapped twice in a row, so that a record is in one piece wherever it begins. Positions are 64-bit numbers of
 * bytes that only grow; a record lies at its position modulo the capacity. Blocks that different sides write are 128
 * bytes apart, because processors fetch cache lines in pairs. There is no pointer in the segment.
 *
 * A record is a header of 16 bytes and the message, rounded up to 8. Its state word says
 *
 *     READY      a message
 *     RESERVED   space that a producer fills without the lock; with its slot and the slot's generation
 *     CLAIMED    a message that a consumer copies without the lock; likewise
 *     DONE       space that holds nothing any more
 *
 * and the two positions divide the ring:
 *
 *     free space | taken records, of which CLAIMED ones still hold their space | records to be taken | free space
 *                ^ get.held, if any                                            ^ get.position         ^ put.position
 *
 * Behind get.position only CLAIMED and RESERVED count: a record in any other state has been taken. So taking a small
 * message is one store to get.position, and nothing is written into the record.
 *
 *
 * Protocol
 *
 *     put        lock put; enough space? write record and mark; put.position = its end; unlock; wake a sleeping consumer
 *     get        lock get; a record? copy it out; write mark; get.position = its end; unlock; wake sleeping producers
 *     large put  as put with the record RESERVED; copy after the unlock; state = READY; wake
 *     large get  lock get; state = CLAIMED; get.held, if none, and get.position; unlock; copy; state = DONE; release
 *     clear      lock get; get.held, if none, of the first RESERVED record; mark; get.position = put.position; unlock
 *
 * "Large" is what takes longer to copy than to take a lock again (RING_LARGE). A batch is one put or get whose store
 * covers several records.
 *
 * Each side has its own lock, which the kernel releases if the owner dies (lock.h), and the store to a position is the
 * commit: the only step by which a message comes into being or is taken. It is sequentially consistent, which includes
 * release, so whoever reads a position sees the records before it. Each side keeps the other's position as it saw it
 * last and looks again only if that does not suffice; being old, it errs to the safe side.
 *
 * Counts. How many messages and bytes have been put must be right for every position, but cannot be stored in one step
 * with it. So each side has two marks {position, count, bytes}: the one whose position is the side's present position
 * counts, a commit fills the other one first.
 *
 *
 * Why it is correct under a kill at any instruction
 *
 * Of a producer. Before the commit it has written only into free space, into the mark that does not count, and into
 * caches, so nothing has happened. After it the message is there; the wake-up may be missing, which a sleeper's slice
 * makes good (wait.h). A RESERVED record of a dead producer is DONE: who comes to it asks the kernel whether the owner
 * lives, and takes its state by compare-and-swap, which fails if it became READY.
 *
 * Of a consumer. Before the commit it has written into caches, the mark that does not count, CLAIMED into a record that
 * is still to be taken, and `held`, which may only be too early; the next consumer, which has the lock, sees the record
 * before get.position and takes it. After the commit the message is gone with its consumer, as it would be an instant
 * later anyway. A CLAIMED record of a dead consumer is DONE, and `sweep` gives its space back.
 *
 * Of a process that clears. A RESERVED record that it passes holds its space like a CLAIMED one, until its producer has
 * made it READY or is dead. Before the commit `held` may lie beyond get.position, where it means nothing; the next owner of the
 * lock runs `sweep` first, which sets it again.
 *
 * So the next owner of a dead one's lock has nothing to repair.
 *
 * Who lives is a matter of kernel locks: each participant, one open handle of one process, has a slot, and locks the
 * byte of that number in the segment's file. The kernel takes the lock back with the last descriptor, so when the process
 * ends, and no process number has to be trusted. A slot's generation is raised whenever it is taken, so that what a
 * dead one left is not held for a later one's.
 *
 *
 * Why it is safe against what the segment may hold
 *
 * Sizes and limits are those of the private copy. Each number that is read from the segment is read once. Positions are
 * used modulo the capacity, their difference is checked against it, a record's size against that difference and the
 * largest message, all before anything is touched; whatever does not fit is RING_CORRUPT. No loop runs longer
 * than the ring has records, no wait longer than its patience.
 *
 *
 * What it gives up
 *
 * Producers take turns, and so do consumers: nobody is promised to be the next. A participant that is stopped inside the
 * lock stops its side until it goes on; the others' calls end in time. A message behind a large one that is still being
 * copied is not to be had before it; a stopped producer can make a queue look empty that way. Bytes are counted with
 * their record's header. What has write access can always destroy the queue, and by truncating the file kill who
 * uses it (SIGBUS). Thread ids bind a queue to one PID namespace.
 *
 * The idea of per-side locks with cached positions and a single committing store is that of many single-producer rings
 * (Rigtorp's SPSCQueue, Aeron) with the lock that makes it crash-safe for many. The doubled mapping is an old
 * trick of audio programs; the waiting is an eventcount.
 */
#ifndef IPCQ_RING_H
#define IPCQ_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lock.h"
#include "wait.h"

#define RING_MAGIC UINT64_C(0x0a1a715063510d8a) /* neither text nor zeros, and another number the other way round */
#define RING_VERSION 1
#define RING_SLOTS 4096
#ifndef RING_LARGE /* less where each step of a copy is looked at */
#define RING_LARGE 32768
#endif
/* Where the locked bytes of the slots are in the file: behind every byte that it can have. */
#define RING_LOCKS (UINT64_C(1) << 60)
/* How long a call that is not to wait waits for a lock or a copy under way, in nanoseconds. */
#define RING_PATIENCE 50000000
/* The patience of a call that tries once, but may give way to those who sleep because its caller may wait (wait.h). */
#define RING_POLITE (-1)

enum ring_flag {
    RING_ORDERED = 1,    /* messages have priorities */
    RING_LAST_CLOSE = 2, /* the queue goes with its last participant */
    RING_BYTES = 4,      /* somebody asked for the bound in bytes, or for none in messages */
};

struct ring_header {
    uint64_t magic;
    uint32_t version;
    uint32_t word_size;
    uint64_t pid_namespace; /* inode number of /proc/self/ns/pid */
    uint64_t segment_size;
    uint64_t data_offset;
    uint64_t capacity; /* of the data, whole pages */
    uint64_t limit;    /* bytes that may be in use, at most the capacity */
    uint64_t max_messages; /* 0: as many as there are bytes for */
    uint64_t max_message_size;
    uint32_t flags;
    uint32_t checksum;
};

struct ring_state {
    _Atomic uint32_t down; /* enum ring_down */
    _Atomic uint32_t unlinked; /* written by whoever removes the name, as a plain byte to the file */
    _Atomic uint32_t hint;     /* the slot that is likely to be free */
    _Atomic uint32_t watch;    /* enum ring_watch: 0 while the fast path suffices */
    _Atomic uint64_t registrant; /* slot and generation of who asked for a notice */
    _Atomic uint32_t notices;    /* futex word, raised with each notice */
    _Atomic uint32_t unused;
    _Atomic uint64_t doorbell; /* inode number of the FIFO */
};

enum ring_down {
    RING_ENDED = 1,
    RING_DROPPED = 2, /* only with RING_ENDED: all messages were dropped, and get returns none */
};

enum ring_watch {
    RING_DOORBELL = 1,
    RING_NOTICE = 2,
    /* Two or more participants of a side slept lately, so those that run take turns with them (wait.h). */
    RING_PUT_CROWD = 4,
    RING_GET_CROWD = 8,
    RING_TOLD = RING_DOORBELL | RING_NOTICE,
};

struct ring_figures {
    _Atomic uint64_t high_water_mark;
    _Atomic uint64_t waits;
    _Atomic uint64_t timeouts;
    _Atomic uint64_t recoveries;
    _Atomic uint64_t aborted; /* reserved records whose producer died; they are counted as put and as got */
};

struct ring_mark {
    _Atomic uint64_t position;
    _Atomic uint64_t count;
    _Atomic uint64_t bytes;
};

struct ring_side {
    _Alignas(128) struct lock lock;
    _Atomic uint64_t seen_position; /* of the other side, as last looked at */
    _Atomic uint64_t seen_count;
    _Atomic int64_t spinner; /* of those who wait to get on with this side (wait.h); CLOCK_MONOTONIC, ns */
    /* Written by who waited for the lock in vain: the owner's thread id, when it was first seen to own the lock
     * (CLOCK_MONOTONIC, ns), and the side's position then. Another position means that the side got on meanwhile. */
    _Atomic uint32_t holder;
    _Atomic int64_t holder_since;
    _Atomic uint64_t holder_position;
    _Alignas(128) _Atomic uint64_t position;
    _Atomic uint64_t held; /* 0, or 1 + the position of the oldest record that may be CLAIMED */
    struct bell bell;      /* that this side rings */
    struct ring_mark marks[2];
    _Atomic uint32_t answered; /* the wake-up of this bell that was answered last (wait.h); written by the other side */
};

/* Of a queue with priorities. */
struct ring_shelf {
    _Atomic uint32_t built; /* 0: the words beside this one, and the arrays, are to be made anew */
    _Atomic uint32_t first_free;
    _Atomic uint32_t free_cells;
    _Atomic uint32_t ready; /* messages */
};

struct ring_segment {
    struct ring_header header;
    _Alignas(128) struct ring_state state;
    _Alignas(128) struct ring_figures figures;
    struct ring_side put;
    struct ring_side get;
    _Alignas(128) struct ring_shelf shelf;
    _Atomic uint32_t generations[RING_SLOTS];
    char name[256]; /* the queue's; the file's may be an abridged one */
};

enum ring_record_state { RING_READY = 1, RING_RESERVED = 2, RING_CLAIMED = 3, RING_DONE = 4 };

struct ring_record {
    _Atomic uint64_t word; /* state, and for RESERVED and CLAIMED << 8 the slot and << 32 its generation */
    uint32_t size;
    uint16_t priority;
    uint16_t deliveries; /* how often it came back from a dead consumer */
};

_Static_assert(sizeof(struct ring_header) == 80, "layout of version 1");
_Static_assert(offsetof(struct ring_header, flags) == 72, "layout of version 1");
_Static_assert(offsetof(struct ring_segment, state) == 128, "layout of version 1");
_Static_assert(offsetof(struct ring_state, unlinked) == 4, "layout of version 1");
_Static_assert(offsetof(struct ring_state, doorbell) == 32, "layout of version 1");
_Static_assert(offsetof(struct ring_segment, figures) == 256, "layout of version 1");
_Static_assert(offsetof(struct ring_segment, put) == 384, "layout of version 1");
_Static_assert(offsetof(struct ring_segment, get) == 640, "layout of version 1");
_Static_assert(offsetof(struct ring_side, holder) == 32, "layout of version 1");
_Static_assert(offsetof(struct ring_side, holder_since) == 40, "layout of version 1");
_Static_assert(offsetof(struct ring_side, position) == 128, "layout of version 1");
_Static_assert(offsetof(struct ring_side, bell) == 144, "layout of version 1");
_Static_assert(offsetof(struct ring_side, marks) == 160, "layout of version 1");
_Static_assert(offsetof(struct ring_segment, generations) == 912, "layout of version 1");
_Static_assert(offsetof(struct ring_segment, name) == 17296, "layout of version 1");
_Static_assert(sizeof(struct ring_side) == 256, "layout of version 1");
_Static_assert(sizeof(struct ring_record) == 16, "layout of version 1");
_Static_assert(sizeof(_Atomic uint64_t) == 8, "an atomic is the number alone");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "other processes do not share our locks");

enum ring_result {
    RING_OK,
    RING_FULL,
    RING_EMPTY,
    RING_BUSY, /* somebody held a lock, or was copying, for as long as the call's patience */
    RING_DOWN,
    RING_GONE,
    RING_CORRUPT,
    RING_NO_MEMORY, /* from the caller's function for it */
    RING_COPYING,   /* see ring_get */
    RING_CROWDED,   /* only with RING_POLITE: nothing was done, because it is time to give way */
    /* Of opening alone: */
    RING_ALIEN,     /* not a queue */
    RING_VERSIONED, /* a queue of another version or word size */
    RING_FOREIGN,   /* a queue of another PID namespace */
    RING_SLOTLESS,  /* all slots are taken */
    /* Of opening, and of putting where somebody is to be told: */
    RING_SYSTEM, /* see errno */
};

/* One participant: what a process knows of a queue, in private memory. Any number of threads may use it. */
struct ring {
    struct ring_segment *segment;
    unsigned char *data;
    uint64_t capacity;
    uint64_t mask; /* capacity - 1 where that is a power of two, else 0 */
    uint64_t limit;
    uint64_t max_messages;
    uint64_t max_message_size;
    uint32_t flags;
    uint64_t pid_namespace;
    int descriptor;
    uint32_t slot;
    uint32_t generation;
    size_t mapped; /* bytes of the mapping, which begins at `segment` */
    struct habit reading;
    struct habit writing;
    _Atomic int64_t looked; /* when the file's link count was last looked at, CLOCK_MONOTONIC_COARSE, ns */
    _Atomic bool named;     /* the file was seen to have a name */
    char bell_path[288];    /* of the doorbell (watch.h); what follows is guarded by the producers' lock */
    int bell;               /* its descriptor, or -1 */
    uint64_t bell_inode;
    unsigned rings;
    bool armed;
    bool stays;             /* goes on after the queue was unlinked */
    _Atomic uint32_t put_turn; /* calls that got on in this turn while others slept */
    _Atomic uint32_t get_turn;
    _Atomic bool put_busy;  /* the last call waited for the lock of the side in vain */
    _Atomic bool get_busy;
};

/* A message: some bytes that stand in front of it, and the bytes that the caller has. */
struct ring_piece {
    const void *data;
    size_t size;       /* of the data */
    unsigned priority; /* 0 where there are none */
    unsigned head_size; /* 0 in a queue with priorities */
    unsigned char head[8];
};

struct ring_total {
    uint64_t count;
    uint64_t bytes;
};

/* A record that is being copied without the lock. */
struct ring_copy {
    uint64_t position;
    const void *source;
    void *target;
    size_t size;
};

/*
 * Returns where the message's data is to be copied, or NULL. It may leave bytes in front out by moving the data on, where
 * it is not NULL, which stands for "in several pieces". What is there may change at any time, so it is looked at once. It
 * is called with a lock held: it must not wait.
 */
typedef void *ring_room(void *context, struct ring_piece *message);

uint64_t ring_record_size(uint64_t message_size);
/* How much of a queue's limit a message takes; flags are the queue's. */
uint64_t ring_message_size(uint64_t message_size, uint32_t flags);

/* Creating and opening (segment.c). */
uint64_t ring_segment_size(const struct ring_header *asked);
/* Write a new queue into a file of ring_segment_size bytes of zeros; of `asked`, limits and flags are read. */
enum ring_result ring_format(int descriptor, const struct ring_header *asked);
/* Become a participant. The descriptor is then the ring's, unless it fails. */
enum ring_result ring_attach(struct ring *ring, int descriptor);
/* Make the handle of a forked child a participant of its own. Where it fails, all that is left to do is to detach. */
enum ring_result ring_reattach(struct ring *ring);
void ring_detach(struct ring *ring);
/* Give back, in a forked child, its copy of the parent's handle, without any effect on others. */
void ring_abandon(struct ring *ring);
/* What stands for this participant in the segment, and whether whom such a word stands for still participates. */
uint64_t ring_identity(const struct ring *ring);
bool ring_participates(const struct ring *ring, uint64_t word);
/* Tell whether anybody else than this one participates. */
bool ring_shared(const struct ring *ring);

/*
 * Messages. `patience` is in nanoseconds; with 0 the calls make no system call unless somebody has to be woken, and
 * take no longer than a copy. `since` and `until` are points on CLOCK_MONOTONIC, in nanoseconds.
 */
enum ring_result ring_put(struct ring *ring, const void *data, size_t size, int64_t patience);
/* Stores as many as there is space for, in one step; `stored` is their number. */
enum ring_result ring_put_many(struct ring *ring, const struct ring_piece *pieces, size_t count, size_t *stored,
                               int64_t patience);
/* Stores all of them in one step, or none; not for a queue with priorities. */
enum ring_result ring_put_all(struct ring *ring, const struct ring_piece *pieces, size_t count, int64_t patience);
/* Takes the next message. RING_COPYING: it is taken, and the caller copies it and calls ring_release. */
enum ring_result ring_get(struct ring *ring, ring_room *room, void *context, struct ring_copy *copy, int64_t patience);
void ring_release(struct ring *ring, const struct ring_copy *copy);
/* Takes up to `limit` messages in one step, as long as there are small ones. RING_COPYING: the next one is large. */
enum ring_result ring_get_many(struct ring *ring, ring_room *room, void *context, size_t limit, size_t *taken,
                               int64_t patience);
enum ring_result ring_peek(struct ring *ring, ring_room *room, void *context, int64_t patience);
/* Drops all messages in one step, and counts them, including those that are still being written. A dead producer's
 * unfinished record is dropped without being counted. RING_BUSY: nothing was dropped. */
enum ring_result ring_clear(struct ring *ring, size_t *count, int64_t patience);
/* Waits until a call of that side with patience 0 would not be busy; false if a lock could not be taken. */
bool ring_settle(struct ring *ring, bool getting, int64_t patience);

enum ring_result ring_shutdown(struct ring *ring, int64_t patience);
/* After a shutdown: drops what is in the queue, and what puts store that began before. */
void ring_drop(struct ring *ring, int64_t patience);
/* Looks whether the file has its name. A file that never had one is not gone. */
void ring_look(struct ring *ring);
/* RING_OK, RING_DOWN or RING_GONE. */
enum ring_result ring_condition(struct ring *ring);

/* Tell whether a message of that size would have fitted. */
bool ring_has_space(struct ring *ring, size_t size);
/* Spin for a time, and return whether trying again may succeed. */
bool ring_spin_readable(struct ring *ring, int64_t since, int64_t until);
bool ring_spin_writable(struct ring *ring, size_t size, int64_t since, int64_t until);
/* Sleep until trying again may succeed, a signal came, or `until`. */
void ring_sleep_readable(struct ring *ring, int64_t until);
void ring_sleep_writable(struct ring *ring, size_t size, int64_t until);
/* Wakes who sleeps for messages, in any process, to look around. */
void ring_rouse(struct ring *ring);
/* Call it after sleeping and getting on: wakes the next sleeper of the side if there is more to do. */
void ring_pass_on(struct ring *ring, bool getting);
/* Wakes one sleeper of the side and sleeps behind the others, until `until` at the latest. */
void ring_give_way(struct ring *ring, bool getting, int64_t until);
/* Tells, once, whether the last call of the side waited for its lock in vain. Then trying again is useless until
 * ring_await_lock returns: when the lock is given back, at `until`, or after a slice. */
bool ring_found_busy(struct ring *ring, bool getting);
void ring_await_lock(struct ring *ring, bool getting, int64_t until);

/* Who blocks a side. */
struct ring_holder {
    uint32_t thread;  /* id of the thread that owns the lock, or 0 */
    int64_t since;    /* when it was first seen to block, CLOCK_MONOTONIC, ns; 0 if nobody has waited for it */
    int32_t writer;   /* if the lock is free: the slot of the producer that has not finished the next record, or -1 */
};
struct ring_holder ring_holder(struct ring *ring, bool getting);

/* How much was ever put, and how much of it was taken, at one instant. */
void ring_count(struct ring *ring, struct ring_total *put, struct ring_total *got);

#endif
