/*
 * A model of the lock beside it (lock.h): three threads take and give it, and up to CRASHES of them are
 * killed between any two of their steps. The kernel does for a dead one what handle_futex_death does: it looks where
 * the thread's `pending` points.
 *
 * What must hold: one thread at most is inside; whoever comes in after one that died inside is told; and as long as
 * slices end, everybody who lives comes in. A step is one access to shared memory, sequentially consistent.
 */
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef TURNS
#define TURNS 2 /* of each thread */
#endif
#define THREADS 3

/* The word: its owner's id (0: nobody) and two marks. */
byte owner;
bool waiters, died;

bool pending[THREADS];
bool alive[THREADS];
bool ended[THREADS];
bool sleeping[THREADS];
byte killed;

/* The judge's */
byte inside; /* who is: 0, or 1 + a thread */
bool looked[THREADS]; /* since the last change, at the end of a slice */
bool left_behind; /* the last one inside died there */

#define over(who) (ended[who] || !alive[who])

#ifdef NO_SLICES
#define SLICE_ENDS false
#else
/* Once after each change, when everybody sleeps, so that whoever is stuck is an invalid end state. */
#define SLICE_ENDS (!looked[me] && (over(0) || sleeping[0]) && (over(1) || sleeping[1]) && (over(2) || sleeping[2]))
#endif

inline changed()
{
    looked[0] = false;
    looked[1] = false;
    looked[2] = false
}

inline wake_one()
{
    if
    :: sleeping[0] -> sleeping[0] = false
    :: sleeping[1] -> sleeping[1] = false
    :: sleeping[2] -> sleeping[2] = false
    :: else
    fi
}

/* A compare-and-swap from what was found to this thread's id; `mark` for who has slept. */
inline grab(mark)
{
    atomic {
        if
        :: owner == 0 && waiters == seen_waiters && died == seen_died ->
            owner = me + 1;
            waiters = waiters || mark;
            died = false;
            assert(inside == 0);
            assert(seen_died || !left_behind);
            inside = me + 1;
            left_behind = false;
            changed();
            goto in
        :: else
        fi
    }
}

inline look()
{
    atomic {
        seen_owner = owner;
        seen_waiters = waiters;
        seen_died = died
    }
}

proctype thread(byte me)
{
    byte turn, seen_owner;
    bool seen_waiters, seen_died, wake;

    {
        do
        :: turn == TURNS -> break
        :: else ->
#ifndef MISTAKE_LATE_PENDING
            pending[me] = true;
#endif
            look();
            if
            :: seen_owner == 0 -> grab(false)
            :: else
            fi;
            do
            :: true ->
                look();
                if
                :: seen_owner == 0 -> grab(true)
                :: else ->
                    if
                    :: !seen_waiters ->
                        atomic {
                            if
                            :: owner == seen_owner && waiters == seen_waiters && died == seen_died -> waiters = true
                            :: else -> goto again
                            fi
                        }
                    :: else
                    fi;
                    /* FUTEX_WAIT */
                    atomic {
                        if
                        :: owner == seen_owner && waiters && died == seen_died -> sleeping[me] = true
                        :: else -> goto again
                        fi
                    }
                    if
                    :: !sleeping[me]
                    :: atomic { sleeping[me] && SLICE_ENDS -> sleeping[me] = false; looked[me] = true }
                    fi
                fi;
again:
                atomic { seen_owner = 0; seen_waiters = false; seen_died = false }
            od;
in:
#ifdef MISTAKE_LATE_PENDING
            pending[me] = true;
#endif
            /* Inside. */
            assert(inside == me + 1);
            atomic {
                inside = 0;
                wake = waiters;
                owner = 0;
                waiters = false;
                died = false;
                changed()
            }
            if
            :: wake -> atomic { wake_one() }
            :: else
            fi;
            pending[me] = false;
            atomic { turn++; wake = false; seen_owner = 0; seen_waiters = false; seen_died = false }
        od
    } unless { !alive[me] }
    ended[me] = true
}

inline kill(victim)
{
    atomic {
        killed < CRASHES && !over(victim) ->
        alive[victim] = false;
        killed++;
        changed();
        sleeping[victim] = false;
        if
        :: inside == victim + 1 -> inside = 0; left_behind = true
        :: else
        fi;
        if
        :: pending[victim] && owner == victim + 1 ->
            owner = 0;
            died = true;
            if
            :: waiters -> wake_one()
            :: else
            fi
        :: pending[victim] && owner == 0 -> wake_one()
        :: else
        fi
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

init {
    atomic {
        alive[0] = true;
        alive[1] = true;
        alive[2] = true;
        run thread(0);
        run thread(1);
        run thread(2);
        run killer()
    }
}
