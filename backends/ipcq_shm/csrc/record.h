/* Records: how a message is stored in the ring (ring.h explains the states). */
#ifndef IPCQ_RECORD_H
#define IPCQ_RECORD_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "handle.h"

static inline struct ring_record *record_at(const struct queue *queue, uint64_t position)
{
    uint64_t offset = queue->mask ? position & queue->mask : position % queue->capacity;

    /* Every position is a multiple of 8, unless an attacker wrote it. */
    return (struct ring_record *)(queue->data + (offset & ~UINT64_C(7)));
}

static inline void *record_message(struct ring_record *record)
{
    return (unsigned char *)record + sizeof(struct ring_record);
}

static inline void record_copy_in(struct ring_record *record, const struct queue_piece *piece)
{
    unsigned char *message = record_message(record);

    /* The fixed size compiles to one store. Bytes behind the head are overwritten by the data or lie in the record's
     * padding: a record whose message has a head has space for at least 8 bytes. */
    if (piece->head_size != 0)
        memcpy(message, piece->head, sizeof piece->head);
    memcpy(message + piece->head_size, piece->data, piece->size);
}

static inline enum record_state record_state_of(uint64_t word)
{
    return (enum record_state)(word & 0xff);
}

/* Returns whether a record before get.position is still being copied: by a consumer, or by its producer if `clear`
 * dropped it. */
static inline bool record_is_copied(uint64_t word)
{
    return record_state_of(word) == RECORD_CLAIMED || record_state_of(word) == RECORD_RESERVED;
}

static inline void record_write(struct ring_record *record, size_t size, uint64_t word)
{
    record->size = (uint32_t)size;
    record->kind = 0;
    record->unused = 0;
    atomic_store_explicit(&record->word, word, memory_order_relaxed);
}

#endif
