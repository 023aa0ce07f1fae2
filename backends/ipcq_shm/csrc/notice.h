/*
 * The notice: one participant is notified once when a message arrives in the empty queue while no consumer waits in a
 * get.
 *
 * The registrant sleeps on the futex word `state.notices`, which the producer increments before it commits. Cancelling
 * a request increments the word too. A dead registrant can be replaced. Without a request a put pays only for reading
 * `state.attention`.
 */
#ifndef IPCQ_NOTICE_H
#define IPCQ_NOTICE_H

#include <stdbool.h>
#include <stdint.h>

#include "handle.h"

/* Requests a notice; QUEUE_FULL if another live participant has a request, QUEUE_BUSY if a stopped process holds the
 * lock. `seen` is for notice_given. */
enum queue_result notice_ask(struct queue *queue, uint32_t *seen);
void notice_cancel(struct queue *queue);
/* Sleeps up to `longest` ns and returns whether the request has ended. */
bool notice_given(struct queue *queue, uint32_t seen, int64_t longest);

/* For a producer that holds its lock and is about to commit, if ATTEND_NOTICE is set. */
void notice_before_put(struct queue *queue);

#endif
