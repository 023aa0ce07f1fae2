"""The database of a queue, and the statements on it.

- `made` has what the queue was created with.
- `state` has one row: the figures of the queue. So limits are checked without counting messages.
- `messages` has the messages. The key orders them: priority, highest first, then the number that each put gives a
  message. It is the order of the table itself, so a plain queue needs no index.
- `entries`, on a queue with leases, has the state of each message, apart from its bytes: a lease does not rewrite them.
  Its key orders the messages of each state as they are looked up, so it needs no other index for that: by `key` if they
  are ready, by owner and serial number if they are leased, by number if they are dead letters.
- `owners`, on a queue with leases, has the numbers of channels with leases (see `_owners`).

Triggers keep the figures. One of them belongs to each connection and is not in the file: it calls `ring`, a function in
C that writes to the queue's FIFO, as soon as a get would not wait any more.
"""

from typing import Final

from ipcq.backend import STEP, Verdict

#: "ipcq" in ASCII; file(1) and SQLite show it.
APPLICATION_ID: Final = 0x69706371
#: Changes with each incompatible change of the schema.
VERSION: Final = 2

#: The lower bits of a key are the message's number.
NUMBER_BITS: Final = 48
_NUMBER: Final = (1 << NUMBER_BITS) - 1

#: The states of a message on a queue with leases.
READY, LEASED, DELAYED, DEAD = range(4)

_CREATE: Final = f"""
PRAGMA journal_mode = WAL;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
BEGIN;
CREATE TABLE made (
    name TEXT NOT NULL, max_messages INTEGER, max_message_size INTEGER NOT NULL, buffer_size INTEGER,
    priorities INTEGER NOT NULL, leases INTEGER NOT NULL, max_deliveries INTEGER, durability TEXT NOT NULL,
    mode INTEGER NOT NULL
) STRICT;
CREATE TABLE state (
    places INTEGER NOT NULL DEFAULT 0,    -- messages, whatever their state
    ready INTEGER NOT NULL DEFAULT 0,
    leased INTEGER NOT NULL DEFAULT 0,
    delayed INTEGER NOT NULL DEFAULT 0,
    dead INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    charge INTEGER NOT NULL DEFAULT 0,    -- bytes; an empty message counts as one
    last INTEGER NOT NULL DEFAULT 0,      -- the number of the last message
    batch INTEGER NOT NULL DEFAULT 0,     -- messages that the last put stored
    gets INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0,   -- to make room, and by gets of the latest
    bytes_put INTEGER NOT NULL DEFAULT 0,
    high INTEGER NOT NULL DEFAULT 0,
    returned INTEGER NOT NULL DEFAULT 0,
    down INTEGER NOT NULL DEFAULT 0,      -- shut down
    polled INTEGER NOT NULL DEFAULT 0,    -- somebody asked for a descriptor
    clock TEXT NOT NULL DEFAULT ''        -- the clock by which `due` is measured
) STRICT;
INSERT INTO state DEFAULT VALUES;
CREATE TABLE messages (key INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
"""
_CREATE_PLAIN: Final = f"""{_CREATE}
CREATE TRIGGER left AFTER DELETE ON messages BEGIN
    UPDATE state SET places = places - 1, bytes = bytes - length(old.data),
        charge = charge - max(length(old.data), 1), gets = gets + 1, ready = ready - 1;
END;
"""
_CREATE_LEASES: Final = f"""{_CREATE}
CREATE TABLE entries (
    state INTEGER NOT NULL,
    owner INTEGER NOT NULL DEFAULT 0,     -- of the lease
    serial INTEGER NOT NULL DEFAULT 0,    -- of the lease; the number of a dead letter
    key INTEGER NOT NULL,
    due REAL,                             -- when the hold or the delay ends, by the monotonic clock
    wall REAL,                            -- when the delay ends, by the clock that outlives a reboot
    since REAL,
    deliveries INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0, reason BLOB NOT NULL DEFAULT x'',
    PRIMARY KEY (state, owner, serial, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX due ON entries (due) WHERE due IS NOT NULL;
CREATE TABLE owners (number INTEGER PRIMARY KEY) STRICT;
CREATE TRIGGER changed AFTER UPDATE OF state ON entries WHEN old.state <> new.state BEGIN
    UPDATE state SET
        ready = ready + (new.state = {READY}) - (old.state = {READY}),
        leased = leased + (new.state = {LEASED}) - (old.state = {LEASED}),
        delayed = delayed + (new.state = {DELAYED}) - (old.state = {DELAYED}),
        dead = dead + (new.state = {DEAD}) - (old.state = {DEAD}),
        returned = returned + (old.state = {LEASED});
END;
CREATE TRIGGER gone AFTER DELETE ON entries BEGIN
    UPDATE state SET
        places = places - 1, gets = gets + 1,
        bytes = bytes - (SELECT length(data) FROM messages WHERE key = old.key),
        charge = charge - (SELECT max(length(data), 1) FROM messages WHERE key = old.key),
        ready = ready - (old.state = {READY}), leased = leased - (old.state = {LEASED}),
        delayed = delayed - (old.state = {DELAYED}), dead = dead - (old.state = {DEAD});
    DELETE FROM messages WHERE key = old.key;
END;
"""
MADE: Final = "INSERT INTO made VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
READ_VERSION: Final = "SELECT application_id, user_version FROM pragma_application_id, pragma_user_version"
READ_MADE: Final = (
    "SELECT max_messages, max_message_size, buffer_size, priorities, leases, max_deliveries, durability, mode FROM made"
)

#: A get would not wait: a message is ready, or the queue has ended.
_READABLE: Final = "({0}ready > 0 OR ({0}down AND {0}ready + {0}leased + {0}delayed = 0))"
READABLE: Final = _READABLE.format("")
RINGING: Final = f"""
CREATE TEMP TRIGGER ring AFTER UPDATE ON main.state
WHEN {_READABLE.format("new.")} AND NOT {_READABLE.format("old.")} BEGIN
    SELECT ring();
END;
"""
#: Empty the FIFO while no get could succeed. It runs under the write lock. The byte before makes sure that the read
#: finds one, since it would fail otherwise.
SILENCE: Final = f"SELECT ring() + length(hear()) FROM state WHERE NOT {READABLE}"

#: What a channel looks at after each step.
_STATE: Final = "ready, leased, delayed, dead, places, charge, down, polled"
STATE: Final = f"SELECT {_STATE} FROM state"
#: The state after a statement that takes messages. If it found none, this empties the FIFO, as SILENCE does.
STATE_OR_SILENCE: Final = f"""
SELECT {_STATE}, iif(changes() = 0 AND NOT {READABLE}, ring() + length(hear()), 0) FROM state
"""
#: How many messages a put has stored, and the state after it.
STORED: Final = f"SELECT iif(changes(), batch, 0), {_STATE} FROM state"
FIGURES: Final = "SELECT ready, bytes, bytes_put, last, gets, high, dropped, leased, delayed, dead, returned FROM state"

#: One message of a batch. Parameters: the upper bits of its key, its place in the batch from 1 on, its bytes, and what
#: the batch is charged up to it. The state does not change within a batch, so a part from its beginning is stored.
PUT: Final = """
INSERT INTO messages (key, data) SELECT ?1 | (last + ?2), ?3 FROM state
WHERE NOT down AND places + ?2 <= {places} AND charge + ?4 <= {charge}
"""
#: The entries of these messages. Parameters: the upper bits, the length of the batch, state, due, wall.
ENTER: Final = """
INSERT INTO entries (key, state, due, wall) SELECT key, ?3, ?4, ?5 FROM messages
WHERE key > (SELECT ?1 | last FROM state) AND key <= (SELECT ?1 | (last + ?2) FROM state)
"""
#: Count the batch. Parameters: the upper bits, the length of the batch, and, with leases, the state of its messages.
_COUNT: Final = """
UPDATE state SET places = places + stored, {also}, last = last + stored, batch = stored, bytes = bytes + size,
    charge = charge + charged, bytes_put = bytes_put + size, high = max(high, places + stored)
FROM (
    SELECT count(*) AS stored, ifnull(sum(length(data)), 0) AS size, ifnull(sum(max(length(data), 1)), 0) AS charged
    FROM messages
    WHERE key > (SELECT ?1 | last FROM state) AND key <= (SELECT ?1 | (last + ?2) FROM state)
)
WHERE stored > 0
"""
_ENTERED: Final = f"ready = ready + iif(?3 = {READY}, {{0}}, 0), delayed = delayed + iif(?3 = {DELAYED}, {{0}}, 0)"
COUNT_PLAIN: Final = _COUNT.format(also="ready = ready + stored")
COUNT_LEASES: Final = _COUNT.format(also=_ENTERED.format("stored"))
#: The same for a batch of one, which is faster. The second parameter is the number of its bytes.
_COUNT_ONE: Final = """
UPDATE state SET places = places + 1, {also}, last = last + 1, batch = 1, bytes = bytes + ?2,
    charge = charge + max(?2, 1), bytes_put = bytes_put + ?2, high = max(high, places + 1)
WHERE EXISTS (SELECT 1 FROM messages WHERE key = (?1 | (last + 1)))
"""
COUNT_ONE_PLAIN: Final = _COUNT_ONE.format(also="ready = ready + 1")
COUNT_ONE_LEASES: Final = _COUNT_ONE.format(also=_ENTERED.format(1))

#: What a put may drop. Placeholders: the table of ready messages, and the condition that a row of it is ready.
#: First the oldest of the lowest priority, if the message fits without it. Parameters: the upper bits of the message's
#: key, and its charge.
_DROP_ONE: Final = """
DELETE FROM {table} WHERE {ready} AND key >= ?1 AND key = (
    SELECT min(key) FROM {table} WHERE {ready}
    AND key >= (SELECT max(key) FROM {table} WHERE {ready}) >> {bits} << {bits}
) AND EXISTS (
    SELECT 1 FROM state, messages AS victim WHERE victim.key = {table}.key AND NOT down
    AND (places + 1 > {{places}} OR charge + ?2 > {{charge}})
    AND places <= {{places}} AND charge - max(length(victim.data), 1) + ?2 <= {{charge}}
) RETURNING 1
"""
#: Then as many as are in its way, if it fits without all that it may drop.
_DROP_MANY: Final = """
DELETE FROM {table} WHERE {ready} AND key IN (
    SELECT victim FROM (
        SELECT messages.key AS victim, row_number() OVER dropping - 1 AS before,
            sum(max(length(data), 1)) OVER dropping - max(length(data), 1) AS freed,
            count(*) OVER () AS most, sum(max(length(data), 1)) OVER () AS most_freed
        FROM state CROSS JOIN {table} CROSS JOIN messages {join}
        WHERE {ready} AND messages.key >= ?1 AND NOT down AND (places + 1 > {{places}} OR charge + ?2 > {{charge}})
        WINDOW dropping AS (ORDER BY messages.key >> {bits} DESC, messages.key)
    ), state
    WHERE (places - before + 1 > {{places}} OR charge - freed + ?2 > {{charge}})
    AND places - most + 1 <= {{places}} AND charge - most_freed + ?2 <= {{charge}}
) RETURNING 1
"""
#: The newest message of the highest priority.
_READ_LATEST: Final = """
SELECT key, data FROM messages WHERE key = (
    SELECT max(key) FROM {table} WHERE {ready} AND key <= (SELECT min(key) FROM {table} WHERE {ready}) | {number}
)
"""
_DROP_LATEST: Final = """
DELETE FROM {table} WHERE {ready} AND key <= (SELECT min(key) FROM {table} WHERE {ready}) | {number}
"""
_PLAIN: Final = {"table": "messages", "ready": "TRUE", "bits": NUMBER_BITS, "number": _NUMBER}
DROP_ONE: Final = _DROP_ONE.format(**_PLAIN)
DROP_MANY: Final = _DROP_MANY.replace("CROSS JOIN {table} ", "").format(join="", **_PLAIN)
READ_LATEST: Final = _READ_LATEST.format(**_PLAIN)
DROP_LATEST: Final = _DROP_LATEST.format(**_PLAIN)
#: Count what the statement before has dropped.
COUNT_DROPPED: Final = "UPDATE state SET dropped = dropped + changes() WHERE changes()"
#: The same without the message that was taken.
COUNT_OLDER: Final = "UPDATE state SET dropped = dropped + changes() - 1 WHERE changes()"

FULL: Final = "SELECT places >= {places} OR charge >= {charge} FROM state"

TAKE: Final = "DELETE FROM messages WHERE key = (SELECT min(key) FROM messages) RETURNING key, data"
TAKE_MANY: Final = f"""
DELETE FROM messages WHERE key IN (
    SELECT key FROM (
        SELECT key, sum(size) OVER (ORDER BY key) - size AS before
        FROM (SELECT key, length(data) AS size FROM messages ORDER BY key LIMIT ?1)
    ) WHERE before < {STEP}
) RETURNING key, data
"""
PEEK: Final = "SELECT key, data FROM messages ORDER BY key LIMIT 1"
CLEAR: Final = "DELETE FROM messages"
SHUT_DOWN: Final = "UPDATE state SET down = 1"
#: A change without a meaning, for a commit that syncs those before it: SQLite writes no page that stays equal.
TOUCH: Final = "UPDATE state SET batch = NOT batch"
POLL: Final = "UPDATE state SET polled = 1 WHERE NOT polled"

# Queues with leases

_IS_READY: Final = f"state = {READY} AND owner = 0 AND serial = 0"
_NEXT: Final = f"SELECT key FROM entries WHERE {_IS_READY} ORDER BY key LIMIT 1"
TAKE_READY: Final = f"SELECT key, data FROM messages WHERE key = ({_NEXT})"
DROP_READY: Final = f"DELETE FROM entries WHERE {_IS_READY} AND key = ({_NEXT})"
_LEASES: Final = {"table": "entries", "ready": _IS_READY, "bits": NUMBER_BITS, "number": _NUMBER}
DROP_ONE_READY: Final = _DROP_ONE.format(**_LEASES)
DROP_MANY_READY: Final = _DROP_MANY.format(join="ON messages.key = entries.key", **_LEASES)
READ_LATEST_READY: Final = _READ_LATEST.format(**_LEASES)
DROP_LATEST_READY: Final = _DROP_LATEST.format(**_LEASES)
CLEAR_READY: Final = f"DELETE FROM entries WHERE state IN ({READY}, {DELAYED})"
DROP_LIVING: Final = f"DELETE FROM entries WHERE state <> {DEAD}"

_FREE: Final = "owner = 0, serial = 0, since = NULL"
_NO_OWNER: Final = "owner = 0, since = NULL"
_READY: Final = f"state = {READY}, due = NULL, wall = NULL, {_FREE}"
_READY_LATER: Final = f"state = iif(:due IS NULL, {READY}, {DELAYED}), due = :due, wall = :wall, {_FREE}"
_DEAD: Final = f"state = {DEAD}, due = NULL, wall = NULL, {_NO_OWNER}, serial = key & {_NUMBER}, reason = :reason"
_FAILED: Final = f"""
    state = iif(failures + 1 >= :bound, {DEAD}, {READY}), due = NULL, wall = NULL, {_NO_OWNER},
    serial = iif(failures + 1 >= :bound, key & {_NUMBER}, 0), failures = failures + 1, reason = :reason
"""
_FAILED_LATER: Final = f"""
    state = iif(failures + 1 >= :bound, {DEAD}, iif(:due IS NULL, {READY}, {DELAYED})),
    due = iif(failures + 1 >= :bound, NULL, :due), wall = iif(failures + 1 >= :bound, NULL, :wall), {_NO_OWNER},
    serial = iif(failures + 1 >= :bound, key & {_NUMBER}, 0), failures = failures + 1, reason = :reason
"""

#: End the delays and holds that are over by the clock: the end of a hold is a failure. Parameters: now, bound, reason.
END_DUE: Final = f"""
UPDATE entries SET
    state = iif(state = {LEASED} AND failures + 1 >= :bound, {DEAD}, {READY}), due = NULL, wall = NULL, {_NO_OWNER},
    serial = iif(state = {LEASED} AND failures + 1 >= :bound, key & {_NUMBER}, 0),
    failures = failures + (state = {LEASED}), reason = iif(state = {LEASED}, :reason, reason)
WHERE due <= :now
"""
#: The leases of dead owners. Parameters: owners, as JSON, bound, reason.
END_DEAD: Final = (
    f"UPDATE entries SET {_FAILED} WHERE state = {LEASED} AND owner IN (SELECT value FROM json_each(:owners))"
)
FORGET_DEAD: Final = "DELETE FROM owners WHERE number IN (SELECT value FROM json_each(:owners))"
#: Whether something is over by the clock, and the owners.
NEXT_DUE: Final = "SELECT min(due) FROM entries INDEXED BY due WHERE due IS NOT NULL"
OWNERS: Final = "SELECT number FROM owners"
#: After a reboot no lease has a living owner, and the monotonic clock has begun anew.
REBOOT: Final = f"UPDATE entries SET due = :now + max(0, wall - :wall) WHERE state = {DELAYED}"
READ_CLOCK: Final = "SELECT clock FROM state"
SET_CLOCK: Final = "UPDATE state SET clock = :clock"

ENTER_OWNER: Final = "INSERT OR IGNORE INTO owners VALUES (?)"
#: Parameters: due, owner, serial number, now.
LEASE_FIRST: Final = f"""
UPDATE entries SET state = {LEASED}, due = ?1, owner = ?2, serial = ?3, since = ?4, deliveries = deliveries + 1
WHERE {_IS_READY} AND key = ({_NEXT})
"""
#: Parameters: due, owner, first serial number, now, limit.
LEASE: Final = f"""
UPDATE entries SET state = {LEASED}, due = ?1, owner = ?2, serial = ?3 + place, since = ?4, deliveries = deliveries + 1
FROM (
    SELECT picked, place FROM (
        SELECT
            picked, row_number() OVER (ORDER BY picked) - 1 AS place,
            sum(size) OVER (ORDER BY picked) - size AS before
        FROM (
            SELECT entries.key AS picked, length(data) AS size
            FROM entries CROSS JOIN messages ON messages.key = entries.key
            WHERE {_IS_READY} ORDER BY entries.key LIMIT ?5
        )
    ) WHERE before < {STEP}
)
WHERE {_IS_READY} AND key = picked
"""
#: Parameters: owner, first serial number, limit.
READ_LEASES: Final = f"""
SELECT data, messages.key, deliveries, serial, failures
FROM entries CROSS JOIN messages ON messages.key = entries.key
WHERE state = {LEASED} AND owner = ?1 AND serial >= ?2 AND serial < ?2 + ?3 ORDER BY serial
"""
_MINE: Final = f"state = {LEASED} AND owner = :owner"
_SETTLED: Final = f"WHERE {_MINE} AND serial = :token"
#: One row if the lease has not ended, as SETTLE and EXTEND return. Parameters: owner, token.
FIND: Final = f"SELECT 1 FROM entries {_SETTLED}"
# A channel settles a lease whose hold is over before anybody has returned it: then it has ended.
_HELD: Final = "AND (due IS NULL OR due > :now) RETURNING 1"
#: Parameters: owner, token, now, due, wall, bound, reason.
SETTLE: Final = {
    Verdict.ACK: f"DELETE FROM entries {_SETTLED} {_HELD}",
    Verdict.RELEASE: f"UPDATE entries SET {_READY_LATER} {_SETTLED} {_HELD}",
    Verdict.FAIL: f"UPDATE entries SET {_FAILED_LATER} {_SETTLED} {_HELD}",
    Verdict.REJECT: f"UPDATE entries SET {_DEAD} {_SETTLED} {_HELD}",
}
#: A rejection is no return.
NOT_RETURNED: Final = "UPDATE state SET returned = returned - changes()"
#: Parameters: owner, first serial number, end.
RECALL: Final = f"UPDATE entries SET {_READY} WHERE {_MINE} AND serial >= :first AND serial < :end"
LEAVE: Final = f"UPDATE entries SET {_READY} WHERE {_MINE}"
FORGET_OWNER: Final = "DELETE FROM owners WHERE number = :owner"
#: Parameters: owner, token, now, due.
EXTEND: Final = f"UPDATE entries SET due = :due {_SETTLED} {_HELD}"
HELD: Final = f"SELECT owner, since, deliveries FROM entries WHERE state = {LEASED} ORDER BY since LIMIT ?"

_IS_DEAD: Final = f"state = {DEAD} AND owner = 0"
#: Parameters: number, limit.
READ_DEAD: Final = f"""
SELECT data, messages.key, deliveries, reason
FROM entries CROSS JOIN messages ON messages.key = entries.key
WHERE {_IS_DEAD} AND serial > ?1 ORDER BY serial LIMIT ?2
"""
_FIRST_DEAD: Final = f"SELECT serial FROM entries WHERE {_IS_DEAD} ORDER BY serial LIMIT"
DROP_FIRST_DEAD: Final = f"DELETE FROM entries WHERE {_IS_DEAD} AND serial = ({_FIRST_DEAD} 1)"
#: Parameters: limit.
REQUEUE: Final = f"""
UPDATE entries SET state = {READY}, serial = 0, failures = 0, reason = x''
WHERE {_IS_DEAD} AND serial IN ({_FIRST_DEAD} ?1) AND NOT (SELECT down FROM state)
"""
CLEAR_DEAD: Final = f"DELETE FROM entries WHERE state = {DEAD}"


def creation(leases: bool) -> str:
    """Return the statements that create the database, in a transaction that the caller ends."""
    return _CREATE_LEASES if leases else _CREATE_PLAIN


def key_base(priority: int) -> int:
    """Return the upper bits of the keys of messages with this priority."""
    return (32767 - priority) << NUMBER_BITS


def priority_of(key: int) -> int:
    return 32767 - (key >> NUMBER_BITS)


def number_of(key: int) -> int:
    return key & _NUMBER
