/* Shared by the files of the program `crash`: the queues, what a victim does in them, and what survivors find. */
#ifndef CRASH_H
#define CRASH_H

#include "harness.h"

#include "chain.h"

#define LARGEST (QUEUE_LARGE + 8)
#define SMALL 40
#define MOST_BYTES (SMALL * 4 > LARGEST ? SMALL * 4 : LARGEST)
#define MOST 64 /* messages in a queue here */

enum circumstance {
    NOTHING,
    CLAIMED,  /* a live participant copies the first message out */
    RESERVED, /* a live participant copies the last message in */
    ASLEEP,   /* a participant sleeps on each side */
    ARMED,    /* a participant has armed the doorbell */
    ASKED,    /* a participant has requested a notice */
    /* Only with leases: */
    LENT,     /* a live participant has leased the first message */
    OVER,     /* the same, and its hold is over */
    ORPHANED, /* the same, and it is dead; the next participant has its slot */
    RETURNED, /* a live participant has leased the first message and given it back */
    REJECTED, /* the first message is a dead letter */
    DOWN,     /* the queue is shut down */
};

struct scene {
    const char *name;
    uint64_t limit;
    uint64_t messages;
    unsigned turns;  /* messages that passed before, so that the ring begins at another offset */
    unsigned filled; /* messages in the queue */
    size_t size;     /* of each */
    uint32_t flags;
    enum circumstance with;
};

/* What a victim does. */
struct operation {
    const char *name;
    void (*act)(struct queue *queue);
    bool puts;
    bool maps;   /* opens the queue once more, and stores through that mapping */
    bool second; /* also as the second victim, in scenes with leases if it needs them, else in the others */
    /* Only with leases: what else may have been done when it is killed, and whether that holds for each message
     * alone. */
    bool leases;
    void (*part)(struct queue *queue);
    void (*other)(struct queue *queue);
    bool singly;
};

/* The numbers of the messages; with leases also their states, deliveries and failures. */
struct contents {
    size_t count;
    uint32_t numbers[MOST];
};

/* The state of a queue: its segment, and its doorbell. */
struct state {
    unsigned char *bytes;
    bool rung;
};

struct bounds {
    struct contents before, after;
    struct contents part, other; /* else as before */
    bool singly; /* with priorities, messages of a batch are taken one by one */
    unsigned capacity;
};

/* State for one pair of a scene and an operation; workers are processes, so that each has one. */
extern const struct scene *scene;
extern size_t film_size;  /* bytes of a segment */
extern uint64_t held;     /* position of the record that is being copied, and the slot of its owner */
extern uint32_t holder;
extern uint64_t lending; /* the lock byte of that participant if it has leases */
extern int bell;
extern unsigned char bytes[MOST_BYTES];

/* scenes.c: the queues, and the operations */

extern const struct scene scenes[];
extern const size_t scenes_count;
extern const struct operation operations[];
extern const size_t operations_count;

/* Returns whether an operation is tried in this scene. */
bool belongs(const struct operation *operation, bool only_leases);
/* Creates the queue of the scene, and returns its state. */
struct state set_up(void);
/* How many messages the queue of the scene has space for. */
unsigned capacity_of(void);

/* survivors.c: what others find after a kill */

struct ring_record *record_in(unsigned char *segment, uint64_t position);
int file_of(const unsigned char *state);
/* Makes the slot `holder` belong to a live participant. */
int occupy(int file);
bool is_rung(void);
/* Puts until the queue is full, and returns how often. */
unsigned fill(struct queue *queue, size_t size);
/* Returns whether a live participant other than the victim has something. */
bool has_other(void);
/* Lets a survivor read all messages, and check that all space is usable. Copies in progress are finished. */
struct contents survive(const unsigned char *state, unsigned capacity);
/* Lets a survivor find the queue as it was before the operation, or as it is after it. */
void judge(const unsigned char *state, const struct bounds *bounds);
/* The invariants after each store. */
void check_now(const unsigned char *first, const unsigned char *now, bool putting);

#endif
