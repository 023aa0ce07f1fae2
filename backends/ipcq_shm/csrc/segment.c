#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* Creating */

static uint64_t whole_pages(uint64_t size)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

    return (size + page - 1) / page * page;
}

static uint64_t data_offset(uint32_t flags)
{
    return whole_pages(sizeof(struct segment) + (flags & FLAG_LEASES ? LAYOUT_HOLDERS : 0));
}

uint64_t segment_size(const struct segment_header *asked)
{
    return data_offset(asked->flags) + whole_pages(asked->limit);
}

static uint32_t checksum_of(const struct segment_header *header)
{
    const unsigned char *bytes = (const unsigned char *)header;
    uint32_t sum = 2166136261u; /* FNV-1a */

    /* A file of version 1 has zeros behind the checksum, which do not count there. */
    for (size_t index = 0; index < sizeof *header; index++)
        if (index < offsetof(struct segment_header, checksum) ||
            (index >= offsetof(struct segment_header, incarnation) && header->version != 1))
            sum = (sum ^ bytes[index]) * 16777619u;
    return sum;
}

/* 0 where the kernel has none: then there is only one. */
static uint64_t time_namespace(void)
{
    struct stat found;

    return stat("/proc/self/ns/time", &found) == 0 ? (uint64_t)found.st_ino : 0;
}

static bool pid_namespace(uint64_t *inode)
{
    struct stat found;

    if (stat("/proc/self/ns/pid", &found) != 0) {
        errno = ENOTSUP; /* ENOENT would mean that the queue does not exist */
        return false;
    }
    *inode = (uint64_t)found.st_ino;
    return true;
}

/* Computes the fields that depend on limits and flags; false if these are out of bounds. */
static bool complete(struct segment_header *header)
{
    uint64_t most = layout_has_cells(header->flags) ? CELLS_LARGEST : RING_LARGEST;

    if (header->limit == 0 || header->limit > most || header->max_message_size > UINT32_MAX ||
        layout_message_size(header->max_message_size, header->flags) > header->limit)
        return false;
    header->magic = LAYOUT_MAGIC;
    header->word_size = sizeof(void *);
    header->segment_size = segment_size(header);
    header->data_offset = data_offset(header->flags);
    header->capacity = whole_pages(header->limit);
    header->checksum = checksum_of(header);
    return true;
}

enum queue_result segment_format(int descriptor, const struct segment_header *asked)
{
    struct segment_header header = {
        .limit = asked->limit,
        .max_messages = asked->max_messages,
        .max_message_size = asked->max_message_size,
        .version = LAYOUT_VERSION,
        .flags = asked->flags,
        .time_namespace = time_namespace(),
        .max_deliveries = asked->max_deliveries,
    };

    if (!pid_namespace(&header.pid_namespace) ||
        getrandom(&header.incarnation, sizeof header.incarnation, 0) != (ssize_t)sizeof header.incarnation)
        return QUEUE_SYSTEM;
    if (header.flags & ~(uint32_t)LAYOUT_FLAGS || !complete(&header)) {
        errno = EINVAL;
        return QUEUE_SYSTEM;
    }
    return pwrite(descriptor, &header, sizeof header, 0) == (ssize_t)sizeof header ? QUEUE_OK : QUEUE_SYSTEM;
}

static enum queue_result read_header(int descriptor, struct segment_header *header, uint32_t oldest)
{
    struct segment_header expected;
    struct stat found;
    uint64_t here;

    if (fstat(descriptor, &found) != 0)
        return QUEUE_SYSTEM;
    if (pread(descriptor, header, sizeof *header, 0) != (ssize_t)sizeof *header || header->magic != LAYOUT_MAGIC)
        return QUEUE_ALIEN;
    if (header->version < LAYOUT_OLDEST || header->version > LAYOUT_VERSION || header->word_size != sizeof(void *))
        return QUEUE_VERSIONED;
    if (header->version < oldest)
        return QUEUE_OLD;
    expected = *header;
    if (checksum_of(header) != header->checksum || !complete(&expected) ||
        memcmp(&expected, header, sizeof expected) != 0 || (uint64_t)found.st_size < header->segment_size)
        return QUEUE_CORRUPT;
    if (header->flags & ~(uint32_t)(header->version == 1 ? FLAG_ORDERED | FLAG_LAST_CLOSE | FLAG_BYTES : LAYOUT_FLAGS))
        return QUEUE_VERSIONED;
    if (!pid_namespace(&here))
        return QUEUE_SYSTEM;
    if (header->flags & FLAG_LEASES && header->time_namespace != time_namespace())
        return QUEUE_FOREIGN;
    return here == header->pid_namespace ? QUEUE_OK : QUEUE_FOREIGN;
}

/* Mapping */

/*
 * Maps the file over the reserved addresses. Page faults fill the page tables: MAP_POPULATE would take more than half
 * of the time of attaching, for pages that most handles never reach. The file's memory is allocated, so the first
 * access to a page costs about a microsecond.
 */
static bool map_over(const struct queue *queue)
{
    unsigned char *base = (unsigned char *)queue->segment;
    size_t head = (size_t)(queue->data - base);
    int how = MAP_SHARED | MAP_FIXED;

    return mmap(base, head + queue->capacity, PROT_READ | PROT_WRITE, how, queue->descriptor, 0) != MAP_FAILED &&
           mmap(queue->data + queue->capacity, queue->capacity, PROT_READ | PROT_WRITE, how, queue->descriptor,
                (off_t)head) != MAP_FAILED;
}

static bool map(struct queue *queue, const struct segment_header *header)
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
    queue->segment = (struct segment *)base;
    queue->data = base + header->data_offset;
    queue->mapped = (size_t)whole;
    if (!map_over(queue)) {
        int reason = errno;

        munmap(base, queue->mapped);
        errno = reason;
        return false;
    }
    return true;
}

/* Opening */

enum queue_result segment_open(struct queue *queue, int descriptor, uint32_t oldest)
{
    struct segment_header header;
    enum queue_result result = read_header(descriptor, &header, oldest);

    if (result != QUEUE_OK)
        return result;
    memset(queue, 0, sizeof *queue);
    queue->descriptor = descriptor;
    queue->doorbell = -1;
    queue->capacity = header.capacity;
    queue->mask = (header.capacity & (header.capacity - 1)) == 0 ? header.capacity - 1 : 0;
    queue->limit = header.limit;
    queue->max_messages = header.max_messages;
    queue->max_message_size = header.max_message_size;
    queue->flags = header.flags;
    queue->max_deliveries = header.max_deliveries;
    queue->over = header.flags & FLAG_LEASES ? DOWN_OVER : DOWN_ENDED;
    queue->pid_namespace = header.pid_namespace;
    if (!map(queue, &header))
        return QUEUE_SYSTEM;
    if (header.flags & FLAG_LEASES)
        queue->holders = (struct lease_holder *)(void *)(queue->data - LAYOUT_HOLDERS);
    return QUEUE_OK;
}

enum queue_result segment_reopen(struct queue *queue)
{
    char path[32];
    uint64_t here;
    int descriptor;

    /* After unshare(CLONE_NEWPID) the children of a process are in another PID namespace. */
    if (!pid_namespace(&here))
        return QUEUE_SYSTEM;
    if (here != queue->pid_namespace)
        return QUEUE_FOREIGN;
    snprintf(path, sizeof path, "/proc/self/fd/%d", queue->descriptor);
    descriptor = open(path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0)
        return QUEUE_SYSTEM;
    close(queue->descriptor);
    queue->descriptor = descriptor;
    /* A mapping holds the open file too, and would keep the parent's locks after the parent's death. */
    return map_over(queue) ? QUEUE_OK : QUEUE_SYSTEM;
}

void segment_unmap(struct queue *queue)
{
    munmap(queue->segment, queue->mapped);
}

void segment_close(struct queue *queue)
{
    segment_unmap(queue);
    close(queue->descriptor);
}
