#include "watch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "inside.h"

/* Bytes of the file that are locked: by a process that removes the name (_segment.py), by each handle that armed the
 * doorbell, and by each of those handles that ends with the name. */
#define REMOVAL (RING_LOCKS + RING_SLOTS)
#define ARMED (REMOVAL + 1)
#define ENDING (ARMED + 1)
/* After how many rings a producer looks whether anybody still listens. */
#define LISTEN_EVERY 256
/* Bytes that one call takes out of a doorbell at most: more than one means harm. */
#define MOST_BYTES (1 << 16)
/* How long a consumer waits to set the doorbell right; the next one does it else. */
#define SET_PATIENCE 5000000
/* How often a consumer sleeps 50 us for a remover, which takes no longer than that unless it is stopped. */
#define MOST_NAPS 40
/* How long who wants to be told waits for a stopped producer: an event loop may stand still meanwhile. */
#define ARM_PATIENCE 50000000

/* Tells whether another open file has locked this byte. */
static bool held(const struct ring *ring, uint64_t at)
{
    struct flock byte = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)at, .l_len = 1};

    return fcntl(ring->descriptor, F_OFD_GETLK, &byte) == 0 && byte.l_type != F_UNLCK;
}

/* Locks the bytes that say that this handle has armed the doorbell, and whether it ends with the name. */
static bool listen(const struct ring *ring)
{
    struct flock bytes = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = (off_t)ARMED, .l_len = ring->stays ? 1 : 2};

    return fcntl(ring->descriptor, F_OFD_SETLK, &bytes) == 0;
}

static bool is_doorbell(const struct ring *ring, int descriptor, uint64_t inode)
{
    struct stat queue, found;

    return fstat(descriptor, &found) == 0 && fstat(ring->descriptor, &queue) == 0 && S_ISFIFO(found.st_mode) &&
           (uint64_t)found.st_ino == inode &&
           (found.st_uid == 0 || found.st_uid == geteuid() || found.st_uid == queue.st_uid);
}

static bool out_of_descriptors(void)
{
    return errno == EMFILE || errno == ENFILE;
}

static int open_fifo(const struct ring *ring)
{
    return open(ring->bell_path, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
}

/* Opens the queue's doorbell, if there is one and this handle does not have it. The producers' lock is held. */
static bool have_doorbell(struct ring *ring)
{
    uint64_t inode = atomic_load_explicit(&ring->segment->state.doorbell, memory_order_relaxed);
    int descriptor;

    errno = ENOENT;
    if (inode == 0 || ring->bell_inode == inode)
        return inode != 0;
    descriptor = open_fifo(ring);
    if (descriptor < 0)
        return false;
    if (!is_doorbell(ring, descriptor, inode)) {
        close(descriptor);
        errno = ENOENT;
        return false;
    }
    if (ring->bell >= 0)
        close(ring->bell);
    ring->bell = descriptor;
    ring->bell_inode = inode;
    return true;
}

static bool nameless(const struct ring *ring)
{
    struct stat queue;

    return fstat(ring->descriptor, &queue) == 0 && queue.st_nlink == 0;
}

static bool make_doorbell(struct ring *ring)
{
    struct stat queue, made;
    int descriptor;

    unlink(ring->bell_path); /* of a queue that was there before */
    if (fstat(ring->descriptor, &queue) != 0 || mkfifo(ring->bell_path, 0600) != 0)
        return false;
    descriptor = open_fifo(ring);
    if (descriptor < 0) {
        int reason = errno;

        unlink(ring->bell_path);
        errno = reason;
        return false;
    }
    if (fchmod(descriptor, queue.st_mode & 0777) != 0 || fstat(descriptor, &made) != 0 ||
        !is_doorbell(ring, descriptor, (uint64_t)made.st_ino)) {
        close(descriptor);
        errno = EPERM;
        return false;
    }
    if (ring->bell >= 0)
        close(ring->bell);
    ring->bell = descriptor;
    ring->bell_inode = (uint64_t)made.st_ino;
    atomic_store_explicit(&ring->segment->state.doorbell, ring->bell_inode, memory_order_seq_cst);
    if (nameless(ring))
        unlink(ring->bell_path);
    return true;
}

/* The end */

/* Tells whether the name is removed or being removed. The lock is checked first: once it is free, the remover has finished
 * or died, and the name tells what it did. */
static bool loses_name(const struct ring *ring)
{
    return atomic_load_explicit(&ring->named, memory_order_relaxed) && (held(ring, REMOVAL) || nameless(ring));
}

/* Tells whether the loss of the name ends any handle that listens. */
static bool name_matters(const struct ring *ring)
{
    return !ring->stays || held(ring, ENDING);
}

/* Tells whether the segment says that the queue has ended for any listener. */
static bool said_to_end(const struct ring *ring)
{
    const struct ring_state *state = &ring->segment->state;

    return atomic_load_explicit(&state->down, memory_order_seq_cst) ||
           (atomic_load_explicit(&state->unlinked, memory_order_seq_cst) && name_matters(ring));
}

static bool ends(const struct ring *ring)
{
    return said_to_end(ring) || (loses_name(ring) && name_matters(ring));
}

static bool rung(const struct ring *ring)
{
    int bytes = 0;

    return ioctl(ring->bell, FIONREAD, &bytes) == 0 && bytes > 0;
}

static void silence(const struct ring *ring)
{
    char bytes[1024];

    for (size_t taken = 0; taken < MOST_BYTES && read(ring->bell, bytes, sizeof bytes) > 0; taken += sizeof bytes)
        continue;
}

static bool sound(const struct ring *ring)
{
    return rung(ring) || write(ring->bell, "", 1) == 1;
}

/*
 * Takes the byte away, unless it has to stay because the queue has ended, and tells whether it did. The caller holds the
 * producers' lock. A shutdown takes this lock too, unless its owner is stopped; a remover of the name does not. So whoever
 * ends the queue rings after the end is visible, and this checks for the end after it took the byte: one of the two sees the
 * other. A remover rings before the removal, too. If it is killed before it rings again, its first byte is still there, or
 * was taken here, and then the check finds its lock or the missing name.
 */
static bool calm(struct ring *ring)
{
    if (said_to_end(ring))
        return false;
    silence(ring);
    if (!ends(ring))
        return true;
    sound(ring);
    return false;
}

/* Waits for a remover that has rung but not yet noted the removal, and looks what it did. */
static void meet_remover(struct ring *ring)
{
    const struct timespec nap = {.tv_nsec = 50000};

    for (int naps = 0; naps < MOST_NAPS && !said_to_end(ring) && held(ring, REMOVAL); naps++)
        nanosleep(&nap, NULL);
    ring_look(ring);
}

bool watch_end(struct ring *ring, bool entered)
{
    uint64_t inode = atomic_load_explicit(&ring->segment->state.doorbell, memory_order_seq_cst);
    int descriptor;

    if (inode == 0)
        return true;
    if (entered || ring->bell_path[0] == 0) {
        if (!have_doorbell(ring))
            return !out_of_descriptors();
        sound(ring);
        return true;
    }
    /* This handle's own descriptor of the doorbell is guarded by the lock. */
    descriptor = open_fifo(ring);
    if (descriptor < 0)
        return !out_of_descriptors();
    if (is_doorbell(ring, descriptor, inode) && write(descriptor, "", 1) != 1)
        errno = EAGAIN; /* the FIFO is full, so it is rung already */
    close(descriptor);
    return true;
}

static void stop_ringing(struct ring *ring)
{
    atomic_fetch_and_explicit(&ring->segment->state.watch, ~(uint32_t)RING_DOORBELL, memory_order_relaxed);
    silence(ring);
}

static bool ring_doorbell(struct ring *ring)
{
    if (!have_doorbell(ring))
        return !out_of_descriptors();
    if (sound(ring) && ++ring->rings % LISTEN_EVERY == 0 && !ring->armed && !held(ring, ARMED))
        stop_ringing(ring);
    return true;
}

static bool empty(struct ring *ring)
{
    return atomic_load_explicit(&ring->segment->put.position, memory_order_seq_cst) ==
           atomic_load_explicit(&ring->segment->get.position, memory_order_seq_cst);
}

static void end_request(struct ring *ring)
{
    struct ring_state *state = &ring->segment->state;

    atomic_store_explicit(&state->registrant, 0, memory_order_relaxed);
    atomic_fetch_and_explicit(&state->watch, ~(uint32_t)RING_NOTICE, memory_order_relaxed);
    atomic_fetch_add_explicit(&state->notices, 1, memory_order_release);
    wait_wake(&state->notices, INT_MAX);
}

bool watch_before_put(struct ring *ring)
{
    uint32_t watch = atomic_load_explicit(&ring->segment->state.watch, memory_order_relaxed);

    if (watch & RING_DOORBELL && !ring_doorbell(ring))
        return false;
    if (watch & RING_NOTICE && empty(ring) && !wait_anybody(&ring->segment->put.bell, &ring->segment->get.spinner))
        end_request(ring);
    return true;
}

enum ring_result watch_after_get(struct ring *ring, int64_t patience)
{
    bool more;
    bool over = false;

    if (!empty(ring) || said_to_end(ring))
        return RING_OK;
    if (!ring_enter_put(ring, patience < SET_PATIENCE ? patience : SET_PATIENCE))
        return RING_BUSY;
    more = !empty(ring);
    if (!more && have_doorbell(ring) && rung(ring))
        over = !calm(ring);
    leave_put(ring);
    if (!over)
        return more ? RING_OK : RING_EMPTY;
    if (patience <= 0)
        return RING_BUSY;
    meet_remover(ring);
    return RING_OK;
}

static enum ring_result get_doorbell(struct ring *ring)
{
    if (have_doorbell(ring))
        return RING_OK;
    if (out_of_descriptors())
        return RING_SYSTEM;
    if (nameless(ring)) { /* so that its path may be another's by now */
        if (ring->bell < 0 || atomic_load_explicit(&ring->segment->state.doorbell, memory_order_relaxed) != 0)
            return RING_GONE;
        atomic_store_explicit(&ring->segment->state.doorbell, ring->bell_inode, memory_order_seq_cst);
        return RING_OK;
    }
    return make_doorbell(ring) ? RING_OK : RING_SYSTEM;
}

enum ring_result watch_arm(struct ring *ring)
{
    enum ring_result result;
    int reason;

    if (!ring_enter_put(ring, ARM_PATIENCE))
        return RING_BUSY;
    result = get_doorbell(ring);
    if (result == RING_OK && !listen(ring))
        result = RING_SYSTEM;
    if (result == RING_OK) {
        ring->armed = true;
        atomic_fetch_or_explicit(&ring->segment->state.watch, RING_DOORBELL, memory_order_relaxed);
        if (!empty(ring) || ends(ring))
            sound(ring);
    }
    reason = errno;
    leave_put(ring);
    errno = reason;
    return result;
}

void watch_disarm(struct ring *ring)
{
    if (ring->armed && ring_enter_put(ring, SET_PATIENCE)) {
        if (!held(ring, ARMED))
            stop_ringing(ring);
        leave_put(ring);
    }
    if (ring->bell >= 0)
        close(ring->bell);
}

bool watch_adopt(struct ring *ring, int descriptor)
{
    struct stat found;

    if (fstat(descriptor, &found) != 0)
        return false;
    if (!S_ISFIFO(found.st_mode) || ring->bell >= 0) {
        errno = EINVAL;
        return false;
    }
    ring->bell = descriptor;
    ring->bell_inode = (uint64_t)found.st_ino;
    return true;
}

enum ring_result watch_ask(struct ring *ring, uint32_t *seen)
{
    struct ring_state *state = &ring->segment->state;
    uint64_t other;
    enum ring_result result = RING_FULL;

    if (!ring_enter_put(ring, ARM_PATIENCE))
        return RING_BUSY;
    other = atomic_load_explicit(&state->registrant, memory_order_relaxed);
    if (other == 0 || !ring_participates(ring, other)) {
        *seen = atomic_load_explicit(&state->notices, memory_order_acquire);
        atomic_store_explicit(&state->registrant, ring_identity(ring), memory_order_relaxed);
        atomic_fetch_or_explicit(&state->watch, RING_NOTICE, memory_order_relaxed);
        result = RING_OK;
    }
    leave_put(ring);
    return result;
}

void watch_cancel(struct ring *ring)
{
    uint64_t own = ring_identity(ring);

    if (!ring_enter_put(ring, ARM_PATIENCE)) {
        /* Past a stopped process the place is given up all the same. The mark that somebody asked stays, and the next
         * put into the empty queue takes it away. */
        atomic_compare_exchange_strong_explicit(&ring->segment->state.registrant, &own, 0, memory_order_relaxed,
                                                memory_order_relaxed);
        return;
    }
    if (atomic_load_explicit(&ring->segment->state.registrant, memory_order_relaxed) == own)
        end_request(ring);
    leave_put(ring);
}

bool watch_told(struct ring *ring, uint32_t seen, int64_t longest)
{
    _Atomic uint32_t *notices = &ring->segment->state.notices;

    if (atomic_load_explicit(notices, memory_order_acquire) == seen)
        wait_on(notices, seen, longest);
    return atomic_load_explicit(notices, memory_order_acquire) != seen;
}
