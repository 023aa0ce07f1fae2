#include "doorbell.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ending.h"
#include "flavour.h"
#include "participant.h"
#include "side.h"

/* After how many rings a producer checks whether any handle still listens. */
#define LISTEN_EVERY 256
/* Bytes that one call takes out of a doorbell at most: only an attacker writes more than one. */
#define MOST_BYTES (1 << 16)
/* How long a consumer waits for the lock to take the byte away, in nanoseconds; otherwise the next one does it. */
#define SET_PATIENCE 5000000
/* How long a listener waits for a stopped producer, in nanoseconds: an event loop may be blocked meanwhile. */
#define ARM_PATIENCE 50000000

/* Locks the byte of a handle that has armed the doorbell and, if the queue ends for it with its name, the next byte. */
static bool listen(const struct queue *queue)
{
    struct flock bytes = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = (off_t)LAYOUT_ARMED, .l_len = queue->stays ? 1 : 2};

    return fcntl(queue->descriptor, F_OFD_SETLK, &bytes) == 0;
}

static bool is_doorbell(const struct queue *queue, int descriptor, uint64_t inode)
{
    struct stat file, found;

    return fstat(descriptor, &found) == 0 && fstat(queue->descriptor, &file) == 0 && S_ISFIFO(found.st_mode) &&
           (uint64_t)found.st_ino == inode &&
           (found.st_uid == 0 || found.st_uid == geteuid() || found.st_uid == file.st_uid);
}

static bool out_of_descriptors(void)
{
    return errno == EMFILE || errno == ENFILE;
}

static int open_fifo(const struct queue *queue)
{
    return open(queue->doorbell_path, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
}

/* Opens the queue's doorbell, if there is one and it is not open in this handle. The producers' lock is held. */
static bool have_doorbell(struct queue *queue)
{
    uint64_t inode = atomic_load_explicit(&queue->segment->state.doorbell, memory_order_relaxed);
    int descriptor;

    errno = ENOENT;
    if (inode == 0 || queue->doorbell_inode == inode)
        return inode != 0;
    descriptor = open_fifo(queue);
    if (descriptor < 0)
        return false;
    if (!is_doorbell(queue, descriptor, inode)) {
        close(descriptor);
        errno = ENOENT;
        return false;
    }
    if (queue->doorbell >= 0)
        close(queue->doorbell);
    queue->doorbell = descriptor;
    queue->doorbell_inode = inode;
    return true;
}

static bool make_doorbell(struct queue *queue)
{
    struct stat file, made;
    int descriptor;

    unlink(queue->doorbell_path); /* left over from an earlier queue */
    if (fstat(queue->descriptor, &file) != 0 || mkfifo(queue->doorbell_path, 0600) != 0)
        return false;
    descriptor = open_fifo(queue);
    if (descriptor < 0) {
        int reason = errno;

        unlink(queue->doorbell_path);
        errno = reason;
        return false;
    }
    if (fchmod(descriptor, file.st_mode & 0777) != 0 || fstat(descriptor, &made) != 0 ||
        !is_doorbell(queue, descriptor, (uint64_t)made.st_ino)) {
        close(descriptor);
        errno = EPERM;
        return false;
    }
    if (queue->doorbell >= 0)
        close(queue->doorbell);
    queue->doorbell = descriptor;
    queue->doorbell_inode = (uint64_t)made.st_ino;
    atomic_store_explicit(&queue->segment->state.doorbell, queue->doorbell_inode, memory_order_seq_cst);
    if (ending_nameless(queue))
        unlink(queue->doorbell_path);
    return true;
}

/* The byte */

static bool rung(const struct queue *queue)
{
    int bytes = 0;

    return ioctl(queue->doorbell, FIONREAD, &bytes) == 0 && bytes > 0;
}

static void silence(const struct queue *queue)
{
    char bytes[1024];

    for (size_t taken = 0; taken < MOST_BYTES && read(queue->doorbell, bytes, sizeof bytes) > 0; taken += sizeof bytes)
        continue;
}

static bool sound(const struct queue *queue)
{
    return rung(queue) || write(queue->doorbell, "", 1) == 1;
}

/*
 * Takes the byte away, unless it must stay because the queue has ended, and returns whether it did. The caller holds
 * the producers' lock. A shutdown takes this lock too, unless its owner is stopped; a remover of the name does not. So
 * a process that ends the queue rings after the end is visible, and this function checks for the end after it took the
 * byte: one of the two sees the other. A remover rings before the removal, too. If it is killed before it rings again,
 * its first byte is still there, or was taken here, and then the check finds its lock or the missing name.
 */
static bool calm(struct queue *queue)
{
    if (ending_for_listeners(queue))
        return false;
    silence(queue);
    if (!ending_soon_for_listeners(queue))
        return true;
    sound(queue);
    return false;
}

bool doorbell_ring_for_good(struct queue *queue, bool entered)
{
    uint64_t inode = atomic_load_explicit(&queue->segment->state.doorbell, memory_order_seq_cst);
    int descriptor;

    if (inode == 0)
        return true;
    if (entered || queue->doorbell_path[0] == 0) {
        if (!have_doorbell(queue))
            return !out_of_descriptors();
        sound(queue);
        return true;
    }
    /* The lock guards this handle's descriptor of the doorbell, so open another one. */
    descriptor = open_fifo(queue);
    if (descriptor < 0)
        return !out_of_descriptors();
    if (is_doorbell(queue, descriptor, inode) && write(descriptor, "", 1) != 1)
        errno = EAGAIN; /* the FIFO is full, so it is rung already */
    close(descriptor);
    return true;
}

static void stop_ringing(struct queue *queue)
{
    atomic_fetch_and_explicit(&queue->segment->state.attention, ~(uint32_t)ATTEND_DOORBELL, memory_order_relaxed);
    silence(queue);
}

bool doorbell_before_put(struct queue *queue)
{
    if (!have_doorbell(queue))
        return !out_of_descriptors();
    if (sound(queue) && ++queue->rings % LISTEN_EVERY == 0 && !queue->armed && !participant_locked(queue, LAYOUT_ARMED))
        stop_ringing(queue);
    return true;
}

enum queue_result doorbell_after_get(struct queue *queue, int64_t patience)
{
    bool more;
    bool over = false;

    if (!side_is_empty(queue) || ending_for_listeners(queue))
        return QUEUE_OK;
    if (!queue->flavour->enter_put(queue, patience < SET_PATIENCE ? patience : SET_PATIENCE))
        return QUEUE_BUSY;
    more = !side_is_empty(queue);
    if (!more && have_doorbell(queue) && rung(queue))
        over = !calm(queue);
    side_leave(&queue->segment->put);
    if (over)
        return QUEUE_GONE;
    return more ? QUEUE_OK : QUEUE_EMPTY;
}

static enum queue_result get_doorbell(struct queue *queue)
{
    if (have_doorbell(queue))
        return QUEUE_OK;
    if (out_of_descriptors())
        return QUEUE_SYSTEM;
    if (ending_nameless(queue)) { /* then its path may belong to another queue by now */
        if (queue->doorbell < 0 || atomic_load_explicit(&queue->segment->state.doorbell, memory_order_relaxed) != 0)
            return QUEUE_GONE;
        atomic_store_explicit(&queue->segment->state.doorbell, queue->doorbell_inode, memory_order_seq_cst);
        return QUEUE_OK;
    }
    return make_doorbell(queue) ? QUEUE_OK : QUEUE_SYSTEM;
}

enum queue_result doorbell_arm(struct queue *queue)
{
    enum queue_result result;
    int reason;

    if (!queue->flavour->enter_put(queue, ARM_PATIENCE))
        return QUEUE_BUSY;
    result = get_doorbell(queue);
    if (result == QUEUE_OK && !listen(queue))
        result = QUEUE_SYSTEM;
    if (result == QUEUE_OK) {
        queue->armed = true;
        atomic_fetch_or_explicit(&queue->segment->state.attention, ATTEND_DOORBELL, memory_order_relaxed);
        if (!side_is_empty(queue) || ending_soon_for_listeners(queue))
            sound(queue);
    }
    reason = errno;
    side_leave(&queue->segment->put);
    errno = reason;
    return result;
}

void doorbell_disarm(struct queue *queue)
{
    if (queue->armed && queue->flavour->enter_put(queue, SET_PATIENCE)) {
        if (!participant_locked(queue, LAYOUT_ARMED))
            stop_ringing(queue);
        side_leave(&queue->segment->put);
    }
    if (queue->doorbell >= 0)
        close(queue->doorbell);
}

bool doorbell_adopt(struct queue *queue, int descriptor)
{
    struct stat found;

    if (fstat(descriptor, &found) != 0)
        return false;
    if (!S_ISFIFO(found.st_mode) || queue->doorbell >= 0) {
        errno = EINVAL;
        return false;
    }
    queue->doorbell = descriptor;
    queue->doorbell_inode = (uint64_t)found.st_ino;
    return true;
}
