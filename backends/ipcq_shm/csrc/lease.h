/*
 * Leases: messages on loan, delayed messages and dead letters, in a queue whose data is cells (cells.h).
 *
 *
 * Problem. A message that was taken on loan must come back when its holder dies, and must never be acknowledged by two.
 * A transition changes a message's state, its holder, two counts and a place in an order, and a kill may come between
 * any two of these stores.
 *
 *
 * Layout. The word of a message in `heads` is its state:
 *
 *     READY      the next get or lease may take it
 *     DELAYED    until `due`
 *     LEASED     by `owner`, with `serial`; HELD: until `due`, else until the owner is dead
 *     DEAD       failed too often or was rejected; the reason is behind the message
 *
 * In each state the message keeps its cells and its key, so nothing is allocated when it comes back, and it comes back
 * in its old order. Four heaps (heap.h) and the counts in `lease_index` follow from these words, and so does the number
 * of leases of each slot (`lease_holder`).
 *
 *
 * Protocol. Everything is done with the producers' lock (work.h). A transition is one store to the state word
 * (transition.h). What belongs to the new state is written before, into fields that have no meaning in the old one:
 *
 *     put            due;                                         then put.position commits (cells.h)
 *     lease          owner, serial, due, since, deliveries + 1;   READY -> LEASED
 *     acknowledge                                                 LEASED -> NONE
 *     release        settled + 1, due;                            LEASED -> READY or DELAYED
 *     fail           due, or the reason;                          LEASED -> READY, DELAYED or DEAD
 *     reject         the reason;                                  LEASED -> DEAD
 *     extend         due, which commits by itself;                or: due; LEASED -> LEASED | HELD
 *     return         the reason if it becomes DEAD;               LEASED -> READY or DEAD
 *     end of delay                                                DELAYED -> READY
 *     requeue        settled = deliveries;                        DEAD -> READY
 *
 * The failures of a message that is not leased are deliveries - settled. So who returns the lease of another
 * participant, because it is dead or its hold is over, writes no count, and a failure counts once even if the returner
 * is killed and the next one starts again.
 *
 *
 * Why it is correct under a kill at any instruction. After the store to the state word the transition is complete, and
 * `rebuild` derives the rest. Before it, a message is in its old state. What was written then:
 *
 *     by a participant that leases: deliveries + 1 in READY. The message looks as it does when the lease has been
 *         taken and has come back, and that is what would happen an instant later, because its holder is dead.
 *     by the holder: `settled` or `due` in LEASED. The holder is dead, so the message comes back in any case; with
 *         `settled` it comes back without a failure, as if the release had been completed.
 *     by others: the reason, which has a meaning in DEAD only.
 *
 *
 * Fencing. A token is the cell and the serial number, which a participant never uses twice. It counts if the message in
 * the cell is LEASED by this participant with this serial, and its hold is not over. Slot and generation tell
 * participants apart, so a forked child, another handle and a later owner of the slot have none of its leases.
 *
 *
 * Death. Before its first lease a participant locks a byte of the file that belongs to its slot and generation
 * (participant.h); it is dead once that byte is not locked. Participants that take, wait or count check it, at most
 * once per CHECK_EVERY for all of them together, and without the lock. The dead stay dead, so the result is still true
 * when the lock is taken to return the leases. All leases of a slot have one generation: a participant returns those of its
 * predecessor before its own first one.
 *
 *
 * The end. With leases a shut-down queue has ended once nothing is READY, DELAYED or LEASED: DOWN_OVER. Who finds that
 * so with the lock held sets it, and wakes and rings. Each operation looks for it, so a kill before that is made good.
 *
 *
 * What it gives up. Returning the leases of a dead participant scans `heads`. Messages that become due together are
 * moved at most EXPIRY_STEP at a time; a participant that takes a message repeats this until none is due.
 */
#ifndef IPCQ_LEASE_H
#define IPCQ_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "flavour.h"

/* A delivery, for its holder. */
struct lease_token {
    uint32_t cell;
    uint64_t serial;
};

enum lease_verdict { LEASE_ACK, LEASE_RELEASE, LEASE_FAIL, LEASE_REJECT };

/* What becomes of leased messages. */
struct lease_order {
    enum lease_verdict verdict;
    int64_t delay; /* ns */
    const void *reason;
    size_t reason_size; /* at most CELL_REASON */
};

struct lease_counts {
    uint32_t ready, leased, delayed, dead;
    uint64_t returned; /* deliveries that ended without an acknowledgement, so far */
    struct queue_total put, got;
};

struct lease_held {
    uint32_t slot;
    uint32_t since; /* CLOCK_MONOTONIC, s */
    uint32_t deliveries;
};

extern const struct flavour lease_flavour;

/* Puts a message that is ready after `delay` nanoseconds, which are at least 1. */
enum queue_result lease_put_delayed(struct queue *queue, const struct queue_piece *piece, int64_t delay,
                                    int64_t patience);
/* Releases this participant's leases with `count` serial numbers from `serial` on. */
enum queue_result lease_recall(struct queue *queue, uint64_t serial, uint64_t count, int64_t patience);
/* Ends leases. `lost[i]` says whether the token `i` was not this participant's lease any more. */
enum queue_result lease_settle(struct queue *queue, const struct lease_token *tokens, size_t count,
                               const struct lease_order *order, bool *lost, int64_t patience);
/* Lets leases end `hold` nanoseconds from now. */
enum queue_result lease_extend(struct queue *queue, const struct lease_token *tokens, size_t count, int64_t hold,
                               bool *lost, int64_t patience);
enum queue_result lease_find_lost(struct queue *queue, const struct lease_token *tokens, size_t count, bool *lost,
                                  int64_t patience);
/* Returns what is over. `wait` is when to call it again, in ns; 0 if nothing is leased or delayed. */
enum queue_result lease_tend(struct queue *queue, int64_t *wait, int64_t patience);
/* Counts at one instant; with QUEUE_BUSY without the lock, so the counts may not agree with each other. */
enum queue_result lease_count(struct queue *queue, struct lease_counts *counts, int64_t patience);
/* Finds up to `limit` leases, the longest held first. */
enum queue_result lease_held(struct queue *queue, struct lease_held *held, size_t limit, size_t *found,
                             int64_t patience);
/* Repairs the state that a dead owner of the lock has left. After a shutdown, also notes the end of the queue if nothing
 * is left in it. */
void lease_look(struct queue *queue, int64_t patience);
/* Releases all leases of this participant, which is about to leave. */
void lease_release_all(struct queue *queue, int64_t patience);

#endif
