/*
 * The ring: the data of a queue whose messages leave in the order in which they came.
 *
 *
 * Layout
 *
 * The data is mapped twice in a row, so that a record is contiguous wherever it begins. A record lies at its position
 * modulo the capacity. It is a header of 16 bytes and the message, rounded up to 8. Its state word says
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
 *     get latest as get, of the last record that a get could take; the position passes all before it
 *     drop       lock get; get.position = the first record that may stay; unlock; then put, and again if it is full
 *     clear      lock get; get.held, if none, of the first RESERVED record; mark; get.position = put.position; unlock
 *
 * "Large" is what takes longer to copy than to take a lock again (QUEUE_LARGE). A batch is one put or get whose store
 * covers several records.
 *
 * The store to a position is the commit: the only step that creates or takes a message. It is sequentially consistent,
 * which includes release, so a participant that reads a position sees the records before it. Each side caches the
 * other's position and reads it again only if the cached one does not suffice; an old one errs on the safe side.
 *
 *
 * Why it is correct under a kill at any instruction
 *
 * Of a producer. Before the commit it has written only into free space, into the mark that does not count, and into
 * caches, so nothing has happened. After it the message is there; the wake-up may be missing, and the sleeper looks at
 * the end of its slice (event.h). A RESERVED record of a dead producer counts as DONE: a consumer that finds it checks
 * whether the owner lives (participant.h), and changes the state by compare-and-swap, which fails if it became READY.
 *
 * Of a consumer. Before the commit it has written into caches, the mark that does not count, CLAIMED into a record that
 * is still to be taken, and `held`, which may only be too early; the next consumer, which has the lock, finds the
 * record before get.position and takes it. After the commit the message is gone with its consumer, as it would be an
 * instant later anyway. A CLAIMED record of a dead consumer counts as DONE, and `sweep` frees its space.
 *
 * Of a process that clears. A RESERVED record that it passes holds its space like a CLAIMED one, until its producer has
 * made it READY or is dead. Before the commit `held` may lie beyond get.position, where it means nothing; the next
 * owner of the lock runs `sweep` first, which corrects it.
 *
 * So the next owner of a lock has nothing to repair after the last one died.
 *
 *
 * Why it is safe against a hostile segment
 *
 * Each number of the segment is read once. Positions are used modulo the capacity, their difference is checked against
 * it, and a record's size against that difference and the largest message, all before any memory is accessed; a value
 * that does not fit is QUEUE_CORRUPT. No loop runs longer than the ring has records.
 *
 *
 * The idea of per-side locks with cached positions and a single committing store is that of many single-producer rings
 * (Rigtorp's SPSCQueue, Aeron), with a crash-safe lock for many. The doubled mapping is an old trick of audio programs.
 */
#ifndef IPCQ_RING_H
#define IPCQ_RING_H

#include "flavour.h"

extern const struct flavour ring_flavour;

#endif
