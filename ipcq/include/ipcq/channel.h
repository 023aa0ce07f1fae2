/*
 * Version 1 of the C functions that a channel may offer to ipcq, so that put, get and leases need not call
 * Python.
 *
 * `Channel.native` returns a PyCapsule named IPCQ_CHANNEL_CAPSULE. Its pointer is a `struct ipcq_channel`, the table,
 * which must stay valid and unchanged as long as the capsule exists. This header does not include Python.h.
 *
 * The functions do what the channel's methods do, clause by clause (docs/reference/contract.md), under these rules:
 *
 * 1. They never run Python code, take or release the GIL, or set an exception.
 * 2. Functions marked "locked" are called with the GIL held or, in a free-threaded Python, with the handle's lock held.
 *    They must not wait for anything, and must not take longer than a copy of IPCQ_LARGE bytes. Functions marked
 *    "unlocked" are called without the GIL, by any number of threads at the same time, even while a locked one runs.
 * 3. Those that put or get return an `enum ipcq_result`. Where the result would not be one that the function's comment
 *    lists, they do nothing and return IPCQ_OTHER. ipcq then calls the channel's method, which finds the reason and
 *    raises.
 * 4. Once `Channel.close` is called, no function is running and ipcq calls none. Before that, `rouse` ends the waits.
 * 5. In a forked child no function is running. `Channel.after_fork` decides whether they can be used there.
 *
 * Times are on CLOCK_MONOTONIC, in nanoseconds. A function may be NULL if its comment says so: ipcq then calls the
 * channel's methods instead.
 *
 * Functions may be added at the end of the table without a new version; `size` says which are there. Any other change
 * raises the version.
 */
#ifndef IPCQ_CHANNEL_H
#define IPCQ_CHANNEL_H

#include <stddef.h>
#include <stdint.h>

#define IPCQ_CHANNEL_CAPSULE "ipcq.channel"
#define IPCQ_CHANNEL_VERSION 1

/* Messages of at least this size, in bytes, are put and got unlocked. */
#define IPCQ_LARGE 32768
/* The maximum size of a head, in bytes: the serializer's prefix in front of a message's data. */
#define IPCQ_HEAD_BYTES 8

enum ipcq_result {
    IPCQ_OK,
    IPCQ_FULL,    /* no space now; nothing was stored */
    IPCQ_EMPTY,   /* no message now */
    IPCQ_CROWDED, /* polite calls only: others are waiting; nothing was done. ipcq calls `give_way` and tries again */
    IPCQ_LARGER,  /* the next message does not fit the space; nothing was taken */
    IPCQ_OTHER,   /* nothing was done: the lock is held, the queue has ended or is damaged, ... The method finds out */
};

/* A message to put: a head, followed by the data. */
struct ipcq_piece {
    const void *data;
    size_t size;       /* of the data; together with the head at most `max_message_size` */
    unsigned priority; /* 0 unless `has_priorities` */
    unsigned head_size;
    unsigned char head[IPCQ_HEAD_BYTES];
};

/* Memory for a message to get. */
struct ipcq_space {
    void *data;
    size_t size;

    /* If this is not 0, take only a message that has exactly head_size + size bytes and begins with `head`, and copy
     * only what follows the head. */
    unsigned head_size;
    /* In: the expected head. Out, with IPCQ_LARGER: the first bytes of the next message. */
    unsigned char head[IPCQ_HEAD_BYTES];

    /* Out, with IPCQ_OK and IPCQ_LARGER: */
    size_t message_size;    /* including the head */
    unsigned heads_present; /* with IPCQ_LARGER: how many bytes of `head` are set; 0 if the channel cannot tell */
    unsigned priority;
};

/*
 * ipcq's callback for `get_many` and `lease`. Returns where to copy the next message of a batch, or NULL to end the
 * batch before it. `front` points to the message, or is NULL if the message is in several parts. `skip` points to 0;
 * unless `front` is NULL, the callback may set it to a number of bytes to leave out at the front. Other processes may
 * change the message during the call, so the callback reads no byte of it twice.
 */
typedef void *ipcq_room(void *caller, const void *front, size_t size, unsigned priority, size_t *skip);

#define IPCQ_SERIAL_BITS 63

/* A lease, for the channel. The channel's methods know it as the token `place << IPCQ_SERIAL_BITS | serial`. */
struct ipcq_token {
    uint32_t place; /* the channel's own: where the message is, or 0 */
    uint64_t serial;
};

/* A message on loan. */
struct ipcq_loan {
    uint64_t serial;
    uint32_t place;
    uint32_t deliveries; /* this one included */
    uint32_t failures;   /* before this one */
};

/* What becomes of leased messages, as ipcq.backend.Verdict; the other verdicts are given to the channel's method. */
enum ipcq_verdict { IPCQ_ACK, IPCQ_RELEASE };

struct ipcq_channel {
    uint32_t version; /* IPCQ_CHANNEL_VERSION */
    uint32_t size;    /* sizeof(struct ipcq_channel) */
    void *context;    /* the first argument of each function */
    uint64_t max_message_size;
    uint32_t has_priorities;

    /* Stores a message: IPCQ_OK, IPCQ_FULL, IPCQ_CROWDED. Locked if it has less than IPCQ_LARGE bytes, else unlocked.
     * A polite call may let other waiting callers go first, because its own caller is willing to wait. */
    int (*put)(void *context, const struct ipcq_piece *piece, int polite);

    /* May be NULL. Stores as many messages as fit, in one step if `capabilities.atomic_batch`: IPCQ_OK if at least one
     * was stored, IPCQ_FULL. Locked if the batch has less than IPCQ_LARGE bytes in total, else unlocked. */
    int (*put_many)(void *context, const struct ipcq_piece *pieces, size_t count, size_t *stored);

    /* Takes the next message if it fits the space: IPCQ_OK, IPCQ_EMPTY, IPCQ_LARGER, IPCQ_CROWDED. Locked if head_size
     * + size is less than IPCQ_LARGE, else unlocked. */
    int (*get)(void *context, struct ipcq_space *space, int polite);

    /* May be NULL. Returns the current number of messages, as a hint for `get_many`. Locked. */
    uint64_t (*count)(void *context);

    /* May be NULL, like `count`. Takes up to `limit` messages, each into the memory that `room` returns, and stops
     * before a message of at least IPCQ_LARGE bytes: IPCQ_LARGER if it stopped there, else IPCQ_OK if it took any or
     * `room` ended the batch, else IPCQ_EMPTY. Locked. */
    int (*get_many)(void *context, ipcq_room *room, void *caller, size_t limit, size_t *taken);

    /*
     * These four are either all set or all NULL. The first two wait until `get` may find a message, or until `put` may
     * find space for a message of `size` bytes including the head; at most until `until`, or until a signal arrives.
     * `since` is when the caller's whole wait began. Both may return early.
     *
     * Without `sleep` (locked), they check once, or spin until `until`, which is one or two microseconds ahead, and
     * return whether to try again. With `sleep` (unlocked), the return value means nothing.
     */
    int (*wait_readable)(void *context, int64_t since, int64_t until, int sleep);
    int (*wait_writable)(void *context, size_t size, int64_t since, int64_t until, int sleep);
    /* Records in the statistics a put or get that had to wait; `served` says whether it succeeded. Locked. */
    void (*count_wait)(void *context, int served);
    /* Makes all unlocked waits on this channel return soon. Locked; called repeatedly until they have. */
    void (*rouse)(void *context);

    /* NULL if no call returns IPCQ_CROWDED. Lets other callers go first, at most until `until`. Unlocked. */
    void (*give_way)(void *context, int getting, int64_t until);

    /*
     * These two are either both set or both NULL, and only set for a queue with leases whose `capabilities.death_notice`
     * is true. They may take as long as a copy of what they lease. A table whose `size` ends before them has neither.
     *
     * Leases up to `limit` messages that are ready now, in one step, with the serial numbers from `serial` on, for
     * `hold` nanoseconds; 0: without an end. Fills in one of `loans` for each, then calls `room` for it, and commits it
     * after its copy. IPCQ_OK if it leased any, IPCQ_EMPTY. Locked.
     */
    int (*lease)(void *context, uint64_t serial, int64_t hold, struct ipcq_loan *loans, size_t limit, ipcq_room *room,
                 void *caller, size_t *leased);
    /* Ends leases of this channel in one step: IPCQ_OK. `lost[i]` is set to whether the lease `i` was over: then nothing
     * changed for it. With IPCQ_RELEASE a message becomes ready `delay` nanoseconds from now. Must not allocate memory.
     * Locked. */
    int (*settle)(void *context, const struct ipcq_token *tokens, size_t count, enum ipcq_verdict verdict,
                  int64_t delay, unsigned char *lost);
};

#endif
