/* What the others find when a participant was killed (crash.c): all messages, and all space. */
#include <sys/ioctl.h>

#include "crash.h"

struct ring_record *record_in(unsigned char *segment, uint64_t position)
{
    const struct segment_header *header = (const struct segment_header *)segment;

    return (struct ring_record *)(segment + header->data_offset + position % header->capacity);
}

int file_of(const unsigned char *state)
{
    int file = memfd_create("state", MFD_CLOEXEC);

    CHECK(file >= 0 && write(file, state, film_size) == (ssize_t)film_size);
    return file;
}

static bool lock_byte(int file, uint64_t at)
{
    struct flock byte = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)at, .l_len = 1};

    return fcntl(file, F_OFD_SETLK, &byte) == 0;
}

int occupy(int file)
{
    char path[32];
    int other;

    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    other = open(path, O_RDWR | O_CLOEXEC);
    CHECK(other >= 0 && lock_byte(other, LAYOUT_LOCKS + holder) && lock_byte(other, lending));
    return other;
}

bool is_rung(void)
{
    int count = 0;

    return bell >= 0 && ioctl(bell, FIONREAD, &count) == 0 && count > 0;
}

static struct contents drain(struct queue *queue)
{
    struct place place = {bytes, sizeof bytes, 0, 0};
    struct contents contents = {0};
    struct queue_total put, got;
    enum queue_result result;
    struct queue_copy copy;
    struct tag tag;

    while ((result = queue_get(queue, place_for, &place, &copy, SECOND)) == QUEUE_OK || result == QUEUE_COPYING) {
        if (result == QUEUE_COPYING) {
            memcpy(copy.target, copy.source, copy.size);
            queue_release(queue, &copy);
        }
        CHECK(tag_read(bytes, place.size, &tag) && tag.who == 7 && contents.count < MOST);
        contents.numbers[contents.count++] = tag.number;
    }
    CHECK(result == QUEUE_EMPTY);
    side_totals(queue, &put, &got);
    CHECK(put.count == got.count && put.bytes == got.bytes);
    return contents;
}

unsigned fill(struct queue *queue, size_t size)
{
    unsigned count = 0;

    memset(bytes, 0, size);
    while (queue_put(queue, bytes, size, PATIENCE) == QUEUE_OK)
        count++;
    return count;
}

bool has_other(void)
{
    return scene->with == CLAIMED || scene->with == RESERVED || scene->with == LENT || scene->with == OVER ||
           scene->with == RETURNED;
}

static void come_home(struct queue *queue)
{
    int64_t wait;

    queue->segment->leases.looked = 0;
    CHECK(lease_tend(queue, &wait, SECOND) == QUEUE_OK);
}

/* All messages when the leases of the victim have come back, in the order of putting. */
static struct contents all_of(struct queue *queue)
{
    struct cells cells = cells_of(queue);
    struct contents contents = {0};
    struct lease_counts counts;
    uint32_t states[CELL_DEAD + 1] = {0};
    uint64_t keys[MOST];

    for (uint32_t cell = 0; cell < cells.count; cell++) {
        uint32_t state = state_of(&cells, cell);
        uint32_t size = size_of(&cells, cell);
        uint32_t failures = cells.cell[cell].as.leased.deliveries - cells.cell[cell].as.leased.settled;
        size_t at = contents.count;
        struct tag tag;

        if (state == CELL_NONE)
            continue;
        CHECK(state <= CELL_DEAD && contents.count < MOST && size <= sizeof bytes);
        CHECK(chain_copy(&cells, cell, bytes, NULL, size) < cells.count && tag_read(bytes, size, &tag) && tag.who == 7);
        states[state]++;
        for (; at > 0 && keys[at - 1] > number_of(&cells, cell); at--) {
            keys[at] = keys[at - 1];
            contents.numbers[at] = contents.numbers[at - 1];
        }
        keys[at] = number_of(&cells, cell);
        /* Of a dead letter the failures mean nothing, and of a leased message they are not known yet. */
        contents.numbers[at] = tag.number << 16 | state << 12 | cells.cell[cell].as.leased.deliveries << 6 |
                               (state == CELL_DEAD || state == CELL_LEASED ? 0 : failures);
        contents.count++;
    }
    CHECK(lease_count(queue, &counts, SECOND) == QUEUE_OK);
    CHECK(counts.ready == states[CELL_READY] && counts.leased == states[CELL_LEASED]);
    CHECK(counts.delayed == states[CELL_DELAYED] && counts.dead == states[CELL_DEAD]);
    return contents;
}

static struct contents survive_with_leases(const unsigned char *state, unsigned capacity)
{
    int file = file_of(state);
    int other = has_other() ? occupy(file) : -1;
    struct queue *queue = queue_open(file);
    struct place place = {bytes, sizeof bytes, 0, 0};
    struct queue_total put, got;
    struct contents contents;
    enum queue_result result;
    bool down;
    size_t count;

    come_home(queue);
    contents = all_of(queue);
    if (other >= 0)
        close(other);
    come_home(queue);
    down = queue->segment->state.down != 0;
    while ((result = try_get(queue, &place)) == QUEUE_OK)
        continue;
    CHECK(result == QUEUE_EMPTY || down);
    queue_clear(queue, &count, SECOND);
    CHECK(try_get(queue, &place) == (down ? QUEUE_DOWN : QUEUE_EMPTY));
    CHECK(lease_clear_dead(queue, &count, SECOND) == QUEUE_OK);
    side_totals(queue, &put, &got);
    CHECK(put.count == got.count && put.bytes == got.bytes);
    if (capacity != 0 && !down)
        CHECK(fill(queue, scene->size) == capacity);
    queue_close(queue);
    close(file);
    return contents;
}

struct contents survive(const unsigned char *state, unsigned capacity)
{
    int file, other;
    struct queue *queue;
    struct contents contents;

    if (scene->flags & FLAG_LEASES)
        return survive_with_leases(state, capacity);
    file = file_of(state);
    other = has_other() ? occupy(file) : -1;
    queue = queue_open(file);
    if (scene->with == RESERVED) {
        struct ring_record *record = record_in((unsigned char *)queue->segment, held);
        size_t size = record->size;

        CHECK((record->word & 0xff) == RECORD_RESERVED && size == scene->size);
        record->word = RECORD_READY;
    }
    contents = drain(queue);
    if (other >= 0)
        close(other);
    if (capacity != 0)
        CHECK(fill(queue, scene->size) == capacity);
    queue_close(queue);
    close(file);
    return contents;
}

static bool same(const struct contents *one, const struct contents *other)
{
    return one->count == other->count && memcmp(one->numbers, other->numbers, one->count * sizeof(uint32_t)) == 0;
}

/* Returns whether a prefix of the messages is gone, and not more than after the whole operation. */
static bool between(const struct contents *found, const struct contents *before, const struct contents *after)
{
    return found->count <= before->count && found->count >= after->count &&
           memcmp(found->numbers, before->numbers + before->count - found->count, found->count * sizeof(uint32_t)) == 0;
}

/* Returns a message, which is named by its number; 0 if it is not there. */
static uint32_t message_of(const struct contents *contents, uint32_t number)
{
    for (size_t index = 0; index < contents->count; index++)
        if (contents->numbers[index] >> 16 == number)
            return contents->numbers[index];
    return 0;
}

/* Returns whether each message alone is as in one of the bounds. */
static bool each_within(const struct contents *found, const struct bounds *bounds)
{
    const struct contents *all[] = {&bounds->before, &bounds->after, &bounds->part, &bounds->other};
    bool within = true;

    for (size_t which = 0; which < 4; which++) {
        for (size_t index = 0; index < all[which]->count; index++) {
            uint32_t number = all[which]->numbers[index] >> 16;
            uint32_t message = message_of(found, number);

            within = within && (message == message_of(all[0], number) || message == message_of(all[1], number) ||
                                message == message_of(all[2], number) || message == message_of(all[3], number));
        }
    }
    return within;
}

void judge(const unsigned char *state, const struct bounds *bounds)
{
    struct contents found = survive(state, bounds->capacity);

    if (scene->flags & FLAG_LEASES) {
        CHECK(same(&found, &bounds->before) || same(&found, &bounds->after) || same(&found, &bounds->part) ||
              same(&found, &bounds->other) || (bounds->singly && each_within(&found, bounds)));
        return;
    }
    CHECK(same(&found, &bounds->before) || same(&found, &bounds->after) || same(&found, &bounds->part) ||
          (bounds->singly && between(&found, &bounds->before, &bounds->after)));
}

void check_now(const unsigned char *first, const unsigned char *now, bool putting)
{
    const struct segment *before = (const struct segment *)first;
    const struct segment *there = (const struct segment *)now;

    if (putting && there->put.event.turns != before->put.event.turns)
        CHECK(there->put.position != before->put.position);
    if (!putting && there->get.event.turns != before->get.event.turns && scene->flags == 0)
        CHECK(there->get.position != before->get.position);
    if (scene->with == ARMED && scene->flags & FLAG_LEASES)
        CHECK(is_rung() || there->cells.ready == 0);
    else if (scene->with == ARMED)
        CHECK(is_rung() || there->put.position == there->get.position);
    if (scene->with == ASKED && before->state.attention == ATTEND_NOTICE && there->put.position != before->put.position)
        CHECK(there->state.notices != before->state.notices);
}
