#include "participant.h"

#include <errno.h>
#include <fcntl.h>

_Static_assert(sizeof(off_t) == 8, "slots are locked at offsets beyond 4 GiB: compile with _FILE_OFFSET_BITS=64");

static bool lock_byte(const struct queue *queue, int command, struct flock *what)
{
    what->l_whence = SEEK_SET;
    what->l_pid = 0;
    return fcntl(queue->descriptor, command, what) == 0;
}

enum queue_result participant_join(struct queue *queue)
{
    uint32_t first = atomic_fetch_add_explicit(&queue->segment->state.hint, 1, memory_order_relaxed);

    for (uint32_t tries = 0; tries < LAYOUT_SLOTS; tries++) {
        uint32_t slot = (first + tries) % LAYOUT_SLOTS;
        struct flock byte = {.l_type = F_WRLCK, .l_start = (off_t)(LAYOUT_LOCKS + slot), .l_len = 1};

        if (lock_byte(queue, F_OFD_SETLK, &byte)) {
            queue->slot = slot;
            queue->generation =
                atomic_fetch_add_explicit(&queue->segment->generations[slot], 1, memory_order_acq_rel) + 1;
            return QUEUE_OK;
        }
        if (errno != EAGAIN && errno != EACCES)
            return QUEUE_SYSTEM;
    }
    return QUEUE_SLOTLESS;
}

bool participant_lives(const struct queue *queue, uint64_t word)
{
    uint32_t slot = participant_slot(word);
    uint32_t generation = (uint32_t)(word >> 32);
    struct flock byte = {.l_type = F_WRLCK, .l_start = (off_t)(LAYOUT_LOCKS + slot), .l_len = 1};

    if (slot == queue->slot && generation == queue->generation)
        return true;
    if (slot >= LAYOUT_SLOTS ||
        atomic_load_explicit(&queue->segment->generations[slot], memory_order_acquire) != generation)
        return false;
    return !lock_byte(queue, F_OFD_GETLK, &byte) || byte.l_type != F_UNLCK;
}

static uint64_t lending_byte(uint64_t word)
{
    return LAYOUT_LENDING + ((uint64_t)participant_slot(word) << 32) + (word >> 32);
}

bool participant_lend(struct queue *queue)
{
    struct flock byte = {
        .l_type = F_WRLCK, .l_start = (off_t)lending_byte(participant_word(queue, 0)), .l_len = 1};

    return lock_byte(queue, F_OFD_SETLK, &byte);
}

bool participant_lends(const struct queue *queue, uint64_t word)
{
    struct flock byte = {.l_type = F_WRLCK, .l_start = (off_t)lending_byte(word), .l_len = 1};

    /* A file's own locks are not reported. If the system refuses to say, nobody is declared dead. */
    return word == participant_word(queue, 0) || !lock_byte(queue, F_OFD_GETLK, &byte) || byte.l_type != F_UNLCK;
}

bool participant_shared(const struct queue *queue)
{
    struct flock all = {.l_type = F_WRLCK, .l_start = (off_t)LAYOUT_LOCKS, .l_len = LAYOUT_SLOTS};

    return !lock_byte(queue, F_OFD_GETLK, &all) || all.l_type != F_UNLCK;
}

bool participant_locked(const struct queue *queue, uint64_t at)
{
    struct flock byte = {.l_type = F_WRLCK, .l_start = (off_t)at, .l_len = 1};

    return lock_byte(queue, F_OFD_GETLK, &byte) && byte.l_type != F_UNLCK;
}
