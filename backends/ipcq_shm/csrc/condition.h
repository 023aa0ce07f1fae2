/* The condition of a queue, as a call finds it: open, shut down, or gone with its name. */
#ifndef IPCQ_CONDITION_H
#define IPCQ_CONDITION_H

#include "handle.h"

/* QUEUE_OK, QUEUE_DOWN or QUEUE_GONE. */
enum queue_result condition_of(struct queue *queue);
/* Checks whether the file has its name. A file that never had one is not gone. */
void condition_look(struct queue *queue);
/* Waits for a remover that has rung the doorbell but not yet noted the removal, and checks what it did. */
void condition_meet_remover(struct queue *queue);

#endif
