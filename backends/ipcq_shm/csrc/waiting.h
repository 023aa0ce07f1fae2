/*
 * Waiting for a message or for space, after a try that found none: spin, then sleep, then try again.
 *
 * `since` and `until` are points on CLOCK_MONOTONIC, in nanoseconds.
 */
#ifndef IPCQ_WAITING_H
#define IPCQ_WAITING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "handle.h"

/* Spin for a time, and return whether trying again may succeed. */
bool wait_spin_readable(struct queue *queue, int64_t since, int64_t until);
bool wait_spin_writable(struct queue *queue, size_t size, int64_t since, int64_t until);
/* Sleep until trying again may succeed, a signal came, or `until`. */
void wait_sleep_readable(struct queue *queue, int64_t until);
void wait_sleep_writable(struct queue *queue, size_t size, int64_t until);
/* Wakes all participants that sleep, in any process, so that they look again. */
void wait_rouse(struct queue *queue);
/* Counts a put or a get that had to wait, and wakes the next sleeper if there is more to do. */
void wait_count(struct queue *queue, bool served);
/* Call it after a sleep that led to a message or to space: wakes the next sleeper of the side if there is more work. */
void wait_pass_on(struct queue *queue, bool getting);
/* Wakes one sleeper of the side and sleeps behind the others, until `until` at the latest. */
void wait_give_way(struct queue *queue, bool getting, int64_t until);

#endif
