/* The segment: how its file is made, checked and mapped, and who holds which of the bytes that are locked in it. */
#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inside.h"
#include "shelf.h"
#include "watch.h"

/* Largest mapping, in bytes, whose page table is filled at once: that takes a tenth of a microsecond for each page. */
#define LARGEST_POPULATED (UINT64_C(16) << 20)
#define LARGEST_RING (UINT64_C(1) << 46)

_Static_assert(sizeof(off_t) == 8, "slots are locked at offsets beyond 4 GiB: compile with _FILE_OFFSET_BITS=64");

/* Creating */

static uint64_t whole_pages(uint64_t size)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

    return (size + page - 1) / page * page;
}

uint64_t ring_segment_size(const struct ring_header *asked)
{
    return whole_pages(sizeof(struct ring_segment)) + whole_pages(asked->limit);
}

static uint32_t checksum_of(const struct ring_header *header)
{
    const unsigned char *bytes = (const unsigned char *)header;
    uint32_t sum = 2166136261u; /* FNV-1a */

    for (size_t index = 0; index < offsetof(struct ring_header, checksum); index++)
        sum = (sum ^ bytes[index]) * 16777619u;
    return sum;
}

static bool pid_namespace(uint64_t *inode)
{
    struct stat found;

    if (stat("/proc/self/ns/pid", &found) != 0) {
        errno = ENOTSUP; /* else it would seem that the queue is not there */
        return false;
    }
    *inode = (uint64_t)found.st_ino;
    return true;
}

/* What follows from the limits. */
static bool complete(struct ring_header *header)
{
    if (header->limit == 0 || header->limit > (header->flags & RING_ORDERED ? SHELF_LARGEST : LARGEST_RING) || header->max_message_size > UINT32_MAX ||
        ring_message_size(header->max_message_size, header->flags) > header->limit)
        return false;
    header->magic = RING_MAGIC;
    header->version = RING_VERSION;
    header->word_size = sizeof(void *);
    header->segment_size = ring_segment_size(header);
    header->data_offset = whole_pages(sizeof(struct ring_segment));
    header->capacity = whole_pages(header->limit);
    header->checksum = checksum_of(header);
    return true;
}

enum ring_result ring_format(int descriptor, const struct ring_header *asked)
{
    struct ring_header header = {
        .limit = asked->limit,
        .max_messages = asked->max_messages,
        .max_message_size = asked->max_message_size,
        .flags = asked->flags,
    };

    if (!pid_namespace(&header.pid_namespace))
        return RING_SYSTEM;
    if (!complete(&header)) {
        errno = EINVAL;
        return RING_SYSTEM;
    }
    return pwrite(descriptor, &header, sizeof header, 0) == (ssize_t)sizeof header ? RING_OK : RING_SYSTEM;
}

static enum ring_result read_header(int descriptor, struct ring_header *header)
{
    struct ring_header expected;
    struct stat found;
    uint64_t here;

    if (fstat(descriptor, &found) != 0)
        return RING_SYSTEM;
    if (pread(descriptor, header, sizeof *header, 0) != (ssize_t)sizeof *header || header->magic != RING_MAGIC)
        return RING_ALIEN;
    if (header->version != RING_VERSION || header->word_size != sizeof(void *))
        return RING_VERSIONED;
    expected = *header;
    if (checksum_of(header) != header->checksum || !complete(&expected) ||
        memcmp(&expected, header, sizeof expected) != 0 || (uint64_t)found.st_size < header->segment_size)
        return RING_CORRUPT;
    if (!pid_namespace(&here))
        return RING_SYSTEM;
    return here == header->pid_namespace ? RING_OK : RING_FOREIGN;
}

/* Mapping */

/* Maps the file over what is mapped there. */
static bool map_over(const struct ring *ring)
{
    unsigned char *base = (unsigned char *)ring->segment;
    size_t head = (size_t)(ring->data - base);
    /* So that the first calls do not meet page faults with a lock. */
    int how = MAP_SHARED | MAP_FIXED | (ring->mapped <= LARGEST_POPULATED ? MAP_POPULATE : 0);

    return mmap(base, head + ring->capacity, PROT_READ | PROT_WRITE, how, ring->descriptor, 0) != MAP_FAILED &&
           mmap(ring->data + ring->capacity, ring->capacity, PROT_READ | PROT_WRITE, how, ring->descriptor,
                (off_t)head) != MAP_FAILED;
}

static bool map(struct ring *ring, const struct ring_header *header)
{
    uint64_t whole = header->data_offset + 2 * header->capacity; /* `complete` has bounded both */
    unsigned char *base;

    if (whole > SIZE_MAX) { /* on 32 bits a header may ask for more than there are addresses */
        errno = ENOMEM;
        return false;
    }
    base = mmap(NULL, (size_t)whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return false;
    ring->segment = (struct ring_segment *)base;
    ring->data = base + header->data_offset;
    ring->mapped = (size_t)whole;
    if (!map_over(ring)) {
        int reason = errno;

        munmap(base, ring->mapped);
        errno = reason;
        return false;
    }
    return true;
}

/* Participants */

static bool lock_byte(const struct ring *ring, int command, struct flock *what)
{
    what->l_whence = SEEK_SET;
    what->l_pid = 0;
    return fcntl(ring->descriptor, command, what) == 0;
}

static enum ring_result take_slot(struct ring *ring)
{
    uint32_t first = atomic_fetch_add_explicit(&ring->segment->state.hint, 1, memory_order_relaxed);

    for (uint32_t tries = 0; tries < RING_SLOTS; tries++) {
        uint32_t slot = (first + tries) % RING_SLOTS;
        struct flock byte = {.l_type = F_WRLCK, .l_start = (off_t)(RING_LOCKS + slot), .l_len = 1};

        if (lock_byte(ring, F_OFD_SETLK, &byte)) {
            ring->slot = slot;
            ring->generation =
                atomic_fetch_add_explicit(&ring->segment->generations[slot], 1, memory_order_acq_rel) + 1;
            return RING_OK;
        }
        if (errno != EAGAIN && errno != EACCES)
            return RING_SYSTEM;
    }
    return RING_SLOTLESS;
}

uint64_t ring_identity(const struct ring *ring)
{
    return own_word(ring, 0);
}

/* Tells whether who wrote this word may still come back to it. */
bool ring_participates(const struct ring *ring, uint64_t word)
{
    uint32_t slot = word >> 8 & 0xffffff;
    uint32_t generation = (uint32_t)(word >> 32);
    struct flock byte = {.l_type = F_WRLCK, .l_start = (off_t)(RING_LOCKS + slot), .l_len = 1};

    if (slot == ring->slot && generation == ring->generation)
        return true;
    if (slot >= RING_SLOTS ||
        atomic_load_explicit(&ring->segment->generations[slot], memory_order_acquire) != generation)
        return false;
    return !lock_byte(ring, F_OFD_GETLK, &byte) || byte.l_type != F_UNLCK;
}

bool ring_shared(const struct ring *ring)
{
    struct flock all = {.l_type = F_WRLCK, .l_start = (off_t)RING_LOCKS, .l_len = RING_SLOTS};

    return !lock_byte(ring, F_OFD_GETLK, &all) || all.l_type != F_UNLCK;
}

/* Opening */

enum ring_result ring_attach(struct ring *ring, int descriptor)
{
    struct ring_header header;
    enum ring_result result = read_header(descriptor, &header);

    if (result != RING_OK)
        return result;
    memset(ring, 0, sizeof *ring);
    ring->descriptor = descriptor;
    ring->bell = -1;
    ring->capacity = header.capacity;
    ring->mask = (header.capacity & (header.capacity - 1)) == 0 ? header.capacity - 1 : 0;
    ring->limit = header.limit;
    ring->max_messages = header.max_messages;
    ring->max_message_size = header.max_message_size;
    ring->flags = header.flags;
    ring->pid_namespace = header.pid_namespace;
    wait_learn(&ring->reading);
    wait_learn(&ring->writing);
    if (!map(ring, &header))
        return RING_SYSTEM;
    result = take_slot(ring);
    if (result != RING_OK) {
        int reason = errno;

        munmap(ring->segment, ring->mapped);
        errno = reason;
        return result;
    }
    ring_look(ring);
    return RING_OK;
}

enum ring_result ring_reattach(struct ring *ring)
{
    char path[32];
    uint64_t here;
    int descriptor;

    ring->armed = false; /* that is the parent's, also where this fails */
    /* A process that has made itself another PID namespace has its children there. */
    if (!pid_namespace(&here))
        return RING_SYSTEM;
    if (here != ring->pid_namespace)
        return RING_FOREIGN;
    /* Another open file, because locks belong to the open file and the parent's slot is the parent's. */
    snprintf(path, sizeof path, "/proc/self/fd/%d", ring->descriptor);
    descriptor = open(path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0)
        return RING_SYSTEM;
    close(ring->descriptor);
    ring->descriptor = descriptor;
    /* A mapping holds the open file too, and the parent's locks would outlive the parent by it. */
    return map_over(ring) ? take_slot(ring) : RING_SYSTEM;
}

void ring_abandon(struct ring *ring)
{
    if (ring->bell >= 0)
        close(ring->bell);
    munmap(ring->segment, ring->mapped);
    close(ring->descriptor);
}

void ring_detach(struct ring *ring)
{
    watch_disarm(ring);
    munmap(ring->segment, ring->mapped);
    close(ring->descriptor);
}
