/*
 * The functions in C that a channel may offer to ipcq, version 1. With them ipcq puts and gets without calling Python.
 *
 * `Channel.native` returns a PyCapsule named IPCQ_CHANNEL_CAPSULE. Its pointer is a `struct ipcq_channel`, which has to
 * stay valid and unchanged as long as the capsule exists. This header does not include Python.h.
 *
 * The functions do what the channel's methods do, clause by clause (docs/reference/contract.md), with these rules:
 *
 * 1. They never run Python code, take or release the GIL, or set an exception.
 * 2. Those marked "locked" are called with the GIL, or in a free-threaded Python with a lock of the handle. They must not
 *    wait for anything, and may take as long as a copy of IPCQ_LARGE bytes at most. Those marked "unlocked" are called
 *    without the GIL, by any number of threads at the same time, also while a locked function runs.
 * 3. They return one of `enum ipcq_result`. For any result but those that a function's comment lists, they return
 *    IPCQ_OTHER and have done nothing; ipcq then calls the channel's method, which finds the reason and raises.
 * 4. ipcq calls no function after `Channel.close` has begun, and none is running then. `rouse` makes the waits end.
 * 5. In a forked child none is running. Whether the functions work there is the affair of `Channel.after_fork`.
 *
 * Points in time are on CLOCK_MONOTONIC, in nanoseconds. A function whose comment says so may be NULL: ipcq then leaves
 * such calls to the channel's methods.
 *
 * A table may be longer than this version knows, if functions are added at the end; `size` tells. Any other change raises
 * the version.
 */
#ifndef IPCQ_CHANNEL_H
#define IPCQ_CHANNEL_H

#include <stddef.h>
#include <stdint.h>

#define IPCQ_CHANNEL_CAPSULE "ipcq.channel"
#define IPCQ_CHANNEL_VERSION 1

/* Messages of this size, in bytes, and larger ones are put and got unlocked. */
#define IPCQ_LARGE 32768
/* The most bytes in front of a message's data. */
#define IPCQ_HEAD_BYTES 8

enum ipcq_result {
    IPCQ_OK,
    IPCQ_FULL,    /* there is no space now; nothing was stored */
    IPCQ_EMPTY,   /* there is no message now */
    IPCQ_CROWDED, /* only if the call is polite: nothing was done, and ipcq calls `give_way` before it tries again */
    IPCQ_LARGER,  /* the next message does not fit the space; nothing was taken */
    IPCQ_OTHER,   /* nothing was done, and the channel's method finds the reason: a held lock, an end, damage ... */
};

/* A message to put: the head, and the data behind it. */
struct ipcq_piece {
    const void *data;
    size_t size;       /* of the data; with the head at most `max_message_size` */
    unsigned priority; /* 0 without `has_priorities` */
    unsigned head_size;
    unsigned char head[IPCQ_HEAD_BYTES];
};

/* Memory for a message to get. */
struct ipcq_space {
    void *data;
    size_t size;

    /* If this is not 0, only a message is taken that has exactly head_size + size bytes and begins with `head`. The head
     * is then left out. */
    unsigned head_size;
    /* In; and with IPCQ_LARGER out: the first bytes of the next message, as far as there are so many. */
    unsigned char head[IPCQ_HEAD_BYTES];

    /* Out, with IPCQ_OK and IPCQ_LARGER: */
    size_t message_size;    /* with its head */
    unsigned heads_present; /* with IPCQ_LARGER: how many bytes of `head` are set; 0 if the channel cannot tell */
    unsigned priority;
};

/*
 * Returns where to copy the next message of a batch, or NULL to end the batch before it. `front` is its first byte; it is
 * NULL if the message is in several parts, and then `skip` must stay 0. `skip` is 0, and may be set to the number of
 * bytes to leave out at the front. If others can change the message meanwhile, each byte of it is read only once.
 */
typedef void *ipcq_room(void *caller, const void *front, size_t size, unsigned priority, size_t *skip);

struct ipcq_channel {
    uint32_t version; /* IPCQ_CHANNEL_VERSION */
    uint32_t size;    /* sizeof(struct ipcq_channel) */
    void *context;    /* the first argument of each function */
    uint64_t max_message_size;
    uint32_t has_priorities;

    /* Stores a message of less than IPCQ_LARGE bytes (locked), or of any other size (unlocked): IPCQ_OK, IPCQ_FULL,
     * IPCQ_CROWDED. A polite call may give way to others that wait: its caller is willing to wait. */
    int (*put)(void *context, const struct ipcq_piece *piece, int polite);

    /* May be NULL. Stores as many messages as fit, in one step with `capabilities.atomic_batch`: IPCQ_OK, if at least
     * one was stored. Locked if all together have less than IPCQ_LARGE bytes, else unlocked. */
    int (*put_many)(void *context, const struct ipcq_piece *pieces, size_t count, size_t *stored);

    /* Takes the next message if it fits the space: IPCQ_OK, IPCQ_EMPTY, IPCQ_LARGER, IPCQ_CROWDED. Locked if the space
     * has with its head less than IPCQ_LARGE bytes, else unlocked. */
    int (*get)(void *context, struct ipcq_space *space, int polite);

    /* May be NULL. Returns how many messages there are now, as a hint for `get_many`. Locked. */
    uint64_t (*count)(void *context);

    /* May be NULL, as `count`. Takes up to `limit` messages, and ends before one of IPCQ_LARGE bytes or more; `room` is
     * called for each. IPCQ_OK, also if none was taken; or IPCQ_LARGER, if one follows that is large. Locked. */
    int (*get_many)(void *context, ipcq_room *room, void *caller, size_t limit, size_t *taken);

    /*
     * May be NULL, all four together. Wait until `get` may find a message, or `put` space for a message of `size` bytes
     * with its head; until `until` at the latest, or until a signal came. The whole wait began at `since`. They may
     * return earlier.
     *
     * Without `sleep` (locked): looks, or spins until `until`, which is a microsecond or two ahead; returns whether trying
     * again makes sense. With `sleep` (unlocked): the return value means nothing.
     */
    int (*wait_readable)(void *context, int64_t since, int64_t until, int sleep);
    int (*wait_writable)(void *context, size_t size, int64_t since, int64_t until, int sleep);
    /* Counts a put or get that had to wait, and whether it was served in the end. Locked. */
    void (*count_wait)(void *context, int served);
    /* Makes all unlocked waits on this channel return soon. Locked; called repeatedly until they have. */
    void (*rouse)(void *context);

    /* NULL if no call returns IPCQ_CROWDED. Lets others go first, until `until` at the latest. Unlocked. */
    void (*give_way)(void *context, int getting, int64_t until);
};

#endif
