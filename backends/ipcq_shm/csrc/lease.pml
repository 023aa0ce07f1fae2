/*
 * A model of the leases beside it (lease.h): transitions of messages, the return of the leases of the dead, and the
 * rebuilding, with a kill possible between any two steps.
 *
 * SPIN visits every state that two participants can bring MESSAGES messages into: they lease, settle and return, in
 * every order of their steps, and up to CRASHES of them are killed at any step. A killed participant is followed by one
 * that has its slot and the next generation. A step is one access to a word that matters. All steps of an operation are
 * done with the lock held, so what is modelled is not two operations at the same time, but one that ends anywhere.
 *
 * What must hold, whatever happens:
 *
 *     kept       a message is READY, LEASED or DEAD until it has been acknowledged, and that once
 *     fenced     who acknowledges it with success is the participant to which it was lent last
 *     counted    the failures of a message are the holds of it that ended by death or by the clock. A kill in the
 *                middle of a lease counts as one just after it
 *     returned   no message stays with a dead participant
 *     ended      the end of a shut-down queue is noticed: nobody waits for it forever, and nobody sees it early
 *
 * Left out: the order of messages, delays (they are returned like holds), and all that is derived; `rebuild` is one step
 * here, because it changes nothing but that, and crash.c takes it apart. The lock is one step; lock.pml has its steps.
 */
#ifndef MESSAGES
#define MESSAGES 1
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef MOST
#define MOST 3 /* deliveries of a message: a bound for the search */
#endif
#define PROCESSES 2
#define NOBODY 255

#define NONE 0
#define READY 1
#define LEASED 2
#define DEAD 3

typedef message {
    byte state;
    byte owner; /* slot */
    byte generation;
    byte serial;
    byte deliveries;
    byte settled;
    bool held; /* the lease has an end */
    bool over; /* which has come; a clock that nobody sees */
    /* The judge's */
    byte failures;
    bool releasing; /* the holder has counted the release, and not committed it */
    byte lent_to; /* the last one: slot, generation, serial */
    byte lent_generation;
    byte lent_serial;
    byte acknowledged
}

message m[MESSAGES];
byte lock = NOBODY;
bool died; /* the last owner, with the lock */
bool down, end_noted;
byte generation[PROCESSES];
bool alive[PROCESSES];
bool finished[PROCESSES];
byte killed;

#ifdef MISTAKE_NO_SERIAL
#define SAME_SERIAL true
#else
#define SAME_SERIAL (m[0].serial == held)
#endif
#define settled_now (m[0].state == NONE || m[0].state == DEAD)

inline enter()
{
    atomic { lock == NOBODY -> lock = me; died = false }
}

/* The end, as every operation looks for it with the lock. */
inline leave()
{
    if
#ifdef MISTAKE_EARLY_END
    :: down && m[0].state != READY -> end_noted = true
#else
    :: down && settled_now -> end_noted = true
#endif
    :: else
    fi;
    assert(!end_noted || settled_now);
    lock = NOBODY
}

/* A failure, counted by the participant that returns the message. */
inline come_back()
{
#ifdef MISTAKE_COUNT_AT_RETURN
    m[0].settled = m[0].settled - 1;
#endif
    atomic { m[0].state = READY; m[0].failures++; m[0].releasing = false }
}

#ifdef MISTAKE_NO_GENERATION
#define LEFT (!alive[m[0].owner])
#else
#define LEFT (!alive[m[0].owner] || generation[m[0].owner] != m[0].generation)
#endif
#define TO_RETURN (m[0].state == LEASED && (m[0].over || LEFT))

inline look()
{
    if
    :: TO_RETURN -> come_back()
    :: else
    fi
}

proctype participant(byte me)
{
    byte serial, held;
again:
    {
        do
        :: atomic { end_noted -> break }
        :: m[0].state == READY && m[0].deliveries < MOST ->
            enter();
            look();
            if
            :: m[0].state == READY && m[0].deliveries < MOST ->
                serial++;
                m[0].owner = me;
                m[0].generation = generation[me];
                m[0].serial = serial;
                m[0].over = false;
                if
                :: m[0].held = true
                :: m[0].held = false
                fi;
#ifdef MISTAKE_COMMIT_FIRST
                m[0].state = LEASED;
#endif
                m[0].deliveries++;
#ifdef MISTAKE_COUNT_AT_RETURN
                m[0].settled++;
#endif
                atomic {
                    m[0].state = LEASED;
                    m[0].lent_to = me;
                    m[0].lent_generation = generation[me];
                    m[0].lent_serial = serial;
                    if
                    :: held = serial
                    :: held != 0 && m[0].held /* it still tries to settle an earlier one, and lets this one end */
                    fi
                }
            :: else
            fi;
            leave()
        :: held != 0 -> /* settle, perhaps what is not held any more */
            enter();
            if
            :: m[0].state == LEASED && m[0].owner == me && m[0].generation == generation[me] && SAME_SERIAL && !m[0].over ->
                if
                :: true -> /* acknowledge */
                    atomic {
                        assert(m[0].lent_to == me && m[0].lent_generation == generation[me] &&
                               m[0].lent_serial == held);
                        m[0].state = NONE;
                        m[0].acknowledged++;
                        assert(m[0].acknowledged == 1)
                    }
                :: true -> /* release */
                    atomic {
#ifndef MISTAKE_COUNT_AT_RETURN
                        m[0].settled++;
#endif
                        m[0].releasing = true
                    };
                    atomic { m[0].state = READY; m[0].releasing = false }
                :: true -> come_back() /* fail */
                :: true -> m[0].state = DEAD /* reject */
                fi
            :: else
            fi;
            leave();
            if
            :: held = 0
            :: true /* and once more */
            fi
        :: TO_RETURN -> /* what a waiter sees when it looks */
            enter();
            look();
            leave()
        :: atomic { !down -> down = true } /* shut down, and look */
            enter();
            look();
            leave()
        :: down && !end_noted && settled_now ->
            enter();
            leave()
        :: m[0].deliveries == MOST && m[0].state == READY -> /* the search ends here */
            enter();
            if
            :: m[0].state == READY -> m[0].state = DEAD
            :: else
            fi;
            leave()
        od
    } unless { !alive[me] };
    if
    :: atomic { !alive[me] ->
        /* The next owner of the slot. */
        generation[me]++;
        alive[me] = true;
        serial = 0;
#ifndef MISTAKE_NO_GENERATION
        held = 0
#else
        skip
#endif
        }
        goto again
    :: else
    fi;
    finished[me] = true
}

/* Ends a hold, or kills. After a kill with the lock the next owner rebuilds; that writes nothing that is modelled, but
 * for a lease that was killed half way: its delivery counts as a failure. */
proctype fate()
{
    byte victim;
end:
    do
    :: atomic { m[0].state == LEASED && m[0].held && !m[0].over && lock == NOBODY -> m[0].over = true }
    :: atomic {
        killed < CRASHES && !end_noted ->
        if
        :: victim = 0
        :: victim = 1
        fi;
        if
        :: alive[victim] && !finished[victim] ->
            alive[victim] = false;
            killed++;
            if
            :: lock == victim ->
                lock = NOBODY;
                died = true;
                if
                :: m[0].state == READY && m[0].deliveries - m[0].settled != m[0].failures -> m[0].failures++
                :: m[0].releasing -> m[0].failures--; m[0].releasing = false /* it comes back without one */
                :: else
                fi
            :: else
            fi
        :: else
        fi;
        victim = 0 }
    od
}

/* With the lock free, the numbers agree. */
proctype judge()
{
end:
    do
    :: atomic { lock == NOBODY && m[0].state == READY ->
        assert(m[0].deliveries - m[0].settled == m[0].failures) }
    :: atomic { finished[0] && finished[1] ->
        assert(end_noted && settled_now);
        break }
    od
}

init {
    atomic {
        m[0].state = READY;
        alive[0] = true;
        alive[1] = true;
        generation[0] = 1;
        generation[1] = 1;
        run participant(0);
        run participant(1);
        run fate();
        run judge()
    }
}
