/*
 * A model of the ring beside it (ring.h): commit, wake and repair, with a kill possible between any two steps.
 *
 * SPIN visits every state that three processes can bring a small queue into, in every order of their steps, with up to
 * CRASHES of them killed at any of these steps. Each step touches shared memory once, as a load, a store or a
 * compare-and-swap of ring.c, side.h or event.c; what a process does with its own variables costs no step.
 *
 * What must hold, whatever happens:
 *
 *     whole      a message that is taken is whole, and the one that was put at that position: none is doubled,
 *                invented, torn or out of turn
 *     kept       a put that returned is got, or still there, or was taken by a consumer that was killed before it
 *                returned; at most one for each that was killed
 *     counted    the mark of a position counts the messages up to it
 *     awake      nobody sleeps forever beside work: with SLICE_QUIET, a slice ends only when everybody sleeps and once
 *                after each change, so that whoever is stuck is an invalid end state
 *     healed     the count of sleepers exceeds what there can be by one for each wake at most, so that who
 *                rings for nothing brings it down again
 *
 * What the model leaves out:
 *
 *     - Memory is sequentially consistent here. That the orders written at the atomics suffice on weaker processors
 *       is for TSan and for machines of that kind to show.
 *     - A record is a unit: all have one size, and the bound in messages and the batches are not modelled.
 *     - The lock is one step; lock.pml takes it apart. Liveness is one step too, as it is one system call.
 *     - A killed process does not come back. Shutdown, unlink, the doorbell and priorities are not modelled.
 *     - Spinning is a sleep that ends at once. A wait for a copy under way is a wait for its end, not a poll.
 *
 * `nox -s model` runs it, and runs it with each of the mistakes that it must find (-D MISTAKE_...). With NO_SLICES a
 * sleeper sleeps until it is woken, and a consumer waits for the lock to give its space back: as long as nobody is
 * killed that must do, or the event would be wrong and the slices hide it.
 */
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef EACH
#define EACH (4 / PRODUCERS) /* messages of a producer */
#endif
#ifndef RECORDS
#define RECORDS 2 /* that the ring has room for */
#endif
#define PROCESSES 3
#define ALL (PRODUCERS * EACH)
#define NOBODY PROCESSES

#define READY 1
#define RESERVED 2
#define CLAIMED 3
#define DONE 4

typedef record {
    byte state;
    byte owner;
    byte low;  /* the halves of a message, which is whole if they are the same */
    byte high;
    bool large
}

typedef side {
    byte lock; /* its owner */
    bool died; /* the last owner, inside */
    byte position;
    byte seen; /* of the other side's position */
    byte mark_position[2];
    byte mark_count[2];
    byte asleep;
    byte turns
}

record ring[RECORDS];
side put, get;
byte held;

/* The kernel's */
bool alive[PROCESSES];
bool waiting[PROCESSES]; /* in the futex call */
byte killed;

/* The judge's */
byte made[ALL + 1];   /* what was put at each position */
bool accepted[ALL + 1];
bool got[ALL + 1];
bool ended[PROCESSES];
bool looked[PROCESSES]; /* since the last change, at the end of a slice */

#define at(position) ring[(position) % RECORDS]
#define is_producer(who) ((who) < PRODUCERS)
#define over(who) (ended[who] || !alive[who])
#if PRODUCERS == 2
#define producers_over (over(0) && over(1))
#define consumers_over (over(2))
#else
#define producers_over (over(0))
#define consumers_over (over(1) && over(2))
#endif
#define still(who) (over(who) || waiting[who])
#define quiet (still(0) && still(1) && still(2))

#if defined(NO_SLICES)
#define SLICE_ENDS false
#elif defined(SLICE_QUIET)
#define SLICE_ENDS (quiet && !looked[me])
#else
#define SLICE_ENDS true
#endif

inline changed()
{
#ifdef SLICE_QUIET
    looked[0] = false;
    looked[1] = false;
    looked[2] = false;
#endif
    skip
}

/* Locks: see lock.pml. Who dies inside gives it back, with a mark. */

inline enter(which)
{
    atomic {
        which.lock == NOBODY -> which.lock = me;
        inherited = which.died;
        which.died = false
    }
}

inline leave(which)
{
    which.lock = NOBODY
}

/* The commit. The lock is held, so only others' reads can come between the steps. */

inline commit(which)
{
    next = (which.mark_position[0] == which.position -> 1 : 0);
    which.mark_count[next] = which.mark_count[1 - next] + 1;
    which.mark_position[next] = position + 1;
    atomic {
        which.position = position + 1;
        assert(which.mark_count[next] == which.position);
        changed()
    }
}

/* Waiting */

inline off_the_count(which)
{
    atomic {
        if
        :: which.asleep > 0 -> which.asleep--
        :: else
        fi
    }
}

inline on_the_count(which)
{
    atomic {
        which.asleep++;
        assert(which.asleep <= PROCESSES * (1 + which.turns))
    }
}

/* In the futex call, until woken or the slice is over. */
inline sleep(which)
{
    atomic {
        if
        :: which.turns == turns -> waiting[me] = true
        :: else -> goto awake /* who changed it took this one off the count */
        fi
    }
    if
    :: !waiting[me]
    :: atomic { waiting[me] && SLICE_ENDS -> waiting[me] = false;
#ifdef SLICE_QUIET
           looked[me] = true;
#endif
           skip }
       off_the_count(which)
    :: atomic { (is_producer(me) -> consumers_over : producers_over && put.position == get.position) ->
           waiting[me] = false;
           goto end }
    fi;
awake:
    skip
}

inline wake_one_consumer()
{
    atomic {
        if
        :: put.asleep > 0 -> put.asleep--
        :: else
        fi
    }
    put.turns++;
    atomic {
        if
        :: PRODUCERS < 2 && waiting[1] -> waiting[1] = false
        :: waiting[2] -> waiting[2] = false
        :: else
        fi
    }
}

inline wake_producers()
{
    get.asleep = 0;
    get.turns++;
    atomic {
        waiting[0] = false;
#if PRODUCERS == 2
        waiting[1] = false;
#endif
        skip
    }
}

/* `held` moves on to the oldest record that a living consumer copies. */
inline sweep(ask)
{
    sweeping = held;
    if
    :: sweeping == 0
    :: else ->
        do
        :: sweeping - 1 < get.position ->
            state = at(sweeping - 1).state;
            if
            :: state == CLAIMED && !ask -> break
            :: state == CLAIMED && ask && alive[at(sweeping - 1).owner] -> break
            :: else -> sweeping++
            fi
        :: else -> break
        od;
        atomic {
            held = (sweeping - 1 < get.position -> sweeping : 0);
            changed()
        }
    fi;
    sweeping = 0
}

/* What producers may write over: the position first. */
inline find_free()
{
#ifdef MISTAKE_HELD_FIRST
    holding = held;
    free = get.position;
#else
    free = get.position;
    holding = held;
#endif
    free = (holding != 0 && holding - 1 < free -> holding - 1 : free);
    holding = 0
}

inline note_put(message)
{
    made[position] = message
}

proctype producer(byte me)
{
    byte message = me * EACH;
    byte position, next, free, holding, state, turns, sweeping;
    bool inherited, large, sleepers, reclaimed;

    {
        do
        :: message == (me + 1) * EACH -> break
        :: else ->
            atomic {
                message++;
                if
                :: large = false
                :: large = true
                fi
            }
again:
            reclaimed = false;
try:
            enter(put);
            atomic { position = put.position }
            if
            :: position - put.seen < RECORDS
            :: else ->
                find_free();
                put.seen = free;
                free = 0;
                if
                :: position - put.seen < RECORDS
                :: else ->
                    leave(put);
                    goto crowded
                fi
            fi;
            /* Write the record into free space. */
            atomic {
                at(position).state = (large -> RESERVED : READY);
                at(position).owner = me;
                at(position).large = large
            }
#ifdef MISTAKE_COMMIT_BEFORE_COPY
            note_put(message);
            commit(put);
            at(position).low = message;
            at(position).high = message;
            sleepers = (put.asleep > 0);
#else
            if
            :: large
            :: else ->
                at(position).low = message;
                at(position).high = message
            fi;
            note_put(message);
#ifdef MISTAKE_WAKE_BEFORE_COMMIT
            sleepers = (put.asleep > 0);
            commit(put);
#else
            commit(put);
            sleepers = (put.asleep > 0);
#endif
#endif
            leave(put);
            if
            :: large ->
                at(position).low = message;
                at(position).high = message;
                atomic {
                    at(position).state = READY;
                    changed()
                }
                sleepers = (put.asleep > 0)
            :: else
            fi;
            if
            :: sleepers -> wake_one_consumer()
            :: else
            fi;
            atomic {
                accepted[message] = true;
                sleepers = false;
                position = 0;
                next = 0;
                state = 0;
                inherited = false
            }
            goto done;
crowded:
            /* Space that a dead consumer holds comes back when somebody needs it. */
            if
            :: held != 0 && !reclaimed ->
                reclaimed = true;
                if
                :: atomic { get.lock == NOBODY -> get.lock = me; inherited = get.died; get.died = false }
                    sweep(true);
                    leave(get);
                    goto try
                :: get.lock != NOBODY
                fi
            :: else
            fi;
            turns = get.turns;
            on_the_count(get);
            find_free();
            if
            :: put.position - free < RECORDS -> off_the_count(get)
            :: else -> free = 0; sleep(get)
            fi;
            atomic { turns = 0; free = 0; position = 0; state = 0; inherited = false }
            goto again;
done:
            skip
        od
    } unless { !alive[me] }
end:
    atomic { ended[me] = true; changed() }
}

proctype consumer(byte me)
{
    byte position, next, state, turns, sweeping, low, high, owner;
    bool inherited, sleepers;

    {
        do
        :: atomic { producers_over && put.position == get.position -> goto end }
        :: else ->
            /* Is there anything? If not, sleep. */
            position = get.position;
            if
            :: put.position != position
            :: else ->
rest:
                turns = put.turns;
                on_the_count(put);
                position = get.position;
                if
                :: put.position != position -> off_the_count(put)
                :: else -> sleep(put)
                fi;
                atomic { turns = 0; position = 0 }
                goto again
            fi;
            enter(get);
            if
            :: inherited -> sweep(true)
            :: else
            fi;
look:
            atomic { position = get.position }
            if
            :: get.seen != position
            :: else ->
                get.seen = put.position;
                if
                :: get.seen != position
                :: else ->
                    leave(get);
                    goto rest
                fi
            fi;
            atomic {
                state = at(position).state;
                owner = at(position).owner
            }
            if
            :: state == DONE -> /* given up by who survived its producer */
                commit(get);
                goto look
            :: state == CLAIMED -> /* by a consumer that died before it took it */
                at(position).state = READY
            :: state == RESERVED ->
                if
                :: alive[owner] ->
                    leave(get);
                    /* Until its copy is made, or its owner is dead. */
                    (at(position).state != RESERVED || at(position).owner != owner || !alive[owner]);
                    goto again
                :: else ->
#ifdef MISTAKE_REPAIR_BLINDLY
                    at(position).state = DONE;
#else
                    atomic {
                        if
                        :: at(position).state == RESERVED && at(position).owner == owner -> at(position).state = DONE
                        :: else
                        fi
                    }
#endif
                    goto look
                fi
            :: else -> assert(state == READY)
            fi;
            if
            :: !at(position).large ->
                low = at(position).low;
                high = at(position).high;
#ifdef MISTAKE_TAKE_BEFORE_COPY
                commit(get);
                low = at(position).low;
                high = at(position).high;
#else
                commit(get);
#endif
                sleepers = (get.asleep > 0);
                leave(get)
            :: else ->
                atomic { at(position).state = CLAIMED; at(position).owner = me }
#ifdef MISTAKE_HOLD_AFTER_COMMIT
                commit(get);
                if
                :: held == 0 -> held = position + 1
                :: else
                fi;
#else
                if
                :: held == 0 -> held = position + 1
                :: else
                fi;
                commit(get);
#endif
                leave(get);
                low = at(position).low;
                high = at(position).high;
                atomic { at(position).state = DONE; changed() }
                if
                :: enter(get);
                    sweep(inherited);
                    sleepers = (get.asleep > 0);
                    leave(get)
#ifndef NO_SLICES
                :: get.lock != NOBODY /* it gives up: the next one does it */
#endif
                fi
            fi;
            if
            :: sleepers -> wake_producers()
            :: else
            fi;
            atomic {
                assert(low == high && low == made[position] && !got[low]);
                got[low] = true;
                low = 0;
                high = 0;
                sleepers = false
            }
again:
            atomic { position = 0; next = 0; state = 0; owner = 0; inherited = false }
        od
    } unless { !alive[me] }
end:
    atomic { ended[me] = true; changed() }
}

/* Kills whom it likes when it likes, and is the kernel that cleans up behind. */
inline kill(victim)
{
    atomic {
        killed < CRASHES && !over(victim) ->
        alive[victim] = false;
        killed++;
        waiting[victim] = false;
        if
        :: put.lock == victim -> put.lock = NOBODY; put.died = true
        :: else
        fi;
        if
        :: get.lock == victim -> get.lock = NOBODY; get.died = true
        :: else
        fi;
        changed()
    }
}

proctype killer()
{
end:
    do
    :: kill(0)
    :: kill(1)
    :: kill(2)
    od
}

/* Looks at what is left when all have come to their end. */
proctype judge()
{
    byte message, position, lost, dead;

    over(0) && over(1) && over(2) ->
    atomic {
        position = 0;
        do
        :: position < PROCESSES ->
            if
            :: !is_producer(position) && !alive[position] -> dead++
            :: else
            fi;
            position++
        :: else -> break
        od;
        assert(get.position <= put.position);
        /* Somebody who lived took all there was. */
        assert(dead == PROCESSES - PRODUCERS || get.position == put.position);
        message = 1;
        do
        :: message <= ALL ->
            position = get.position;
            do
            :: position < put.position && made[position] != message -> position++
            :: else -> break
            od;
            if
            :: accepted[message] && !got[message] && position == put.position -> lost++
            :: else
            fi;
            message++
        :: else -> break
        od;
        assert(lost <= dead)
    }
}

init {
    atomic {
        put.lock = NOBODY;
        get.lock = NOBODY;
        alive[0] = true;
        alive[1] = true;
        alive[2] = true;
        run producer(0);
#if PRODUCERS == 2
        run producer(1);
#else
        run consumer(1);
#endif
        run consumer(2);
        run killer();
        run judge()
    }
}
