"""The database of a queue, and the statements on it.

- `made` has what the queue was created with.
- `state` has one row: the figures of the queue. So limits are checked without counting messages.
- `messages` has the messages. The key orders them: priority, highest first, then the number that each put gives a
  message. It is the order of the table itself, so a plain queue needs no index.
- `entries`, on a queue with leases, has the state of each message, apart from its bytes: a lease does not rewrite them.
- `owners`, on a queue with leases, has the numbers of channels with leases (see `_owners`).

Triggers keep the figures. One of them belongs to each connection and is not in the file: it calls `ring`, a function in
C that writes to the queue's FIFO, as soon as a get would not wait any more.
"""

from typing import Final

from ipcq.backend import STEP, Verdict

#: "ipcq" in ASCII; file(1) and SQLite show it.
APPLICATION_ID: Final = 0x69706371
#: Changes with each incompatible change of the schema.
VERSION: Final = 1

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
    bytes_put INTEGER NOT NULL DEFAULT 0,
    high INTEGER NOT NULL DEFAULT 0,
    returned INTEGER NOT NULL DEFAULT 0,
    down INTEGER NOT NULL DEFAULT 0,      -- shut down
    polled INTEGER NOT NULL DEFAULT 0,    -- somebody asked for a descriptor
    clock TEXT NOT NULL DEFAULT ''        -- the clock by which `due` is measured
) STRICT;
INSERT INTO state DEFAULT VALUES;
CREATE TABLE messages (key INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TRIGGER left AFTER DELETE ON messages BEGIN
    UPDATE state SET places = places - 1, bytes = bytes - length(old.data),
        charge = charge - max(length(old.data), 1), gets = gets + 1{{also}};
END;
"""
_CREATE_PLAIN: Final = _CREATE.format(also=", ready = ready - 1")
_CREATE_LEASES: Final = f"""{_CREATE.format(also="")}
CREATE TABLE entries (
    key INTEGER PRIMARY KEY, state INTEGER NOT NULL,
    due REAL,                             -- when the hold or the delay ends, by the monotonic clock
    wall REAL,                            -- when the delay ends, by the clock that outlives a reboot
    owner INTEGER, serial INTEGER, since REAL,
    deliveries INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0, reason BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE INDEX ready ON entries (key) WHERE state = {READY};
CREATE INDEX due ON entries (due) WHERE due IS NOT NULL;
CREATE INDEX leases ON entries (owner, serial) WHERE state = {LEASED};
CREATE INDEX dead ON entries (key & {_NUMBER}) WHERE state = {DEAD};
CREATE TABLE owners (number INTEGER PRIMARY KEY) STRICT;
CREATE TRIGGER entered AFTER INSERT ON entries BEGIN
    UPDATE state SET ready = ready + (new.state = {READY}), delayed = delayed + (new.state = {DELAYED});
END;
CREATE TRIGGER changed AFTER UPDATE OF state ON entries WHEN old.state <> new.state BEGIN
    UPDATE state SET
        ready = ready + (new.state = {READY}) - (old.state = {READY}),
        leased = leased + (new.state = {LEASED}) - (old.state = {LEASED}),
        delayed = delayed + (new.state = {DELAYED}) - (old.state = {DELAYED}),
        dead = dead + (new.state = {DEAD}) - (old.state = {DEAD}),
        returned = returned + (old.state = {LEASED});
END;
CREATE TRIGGER gone AFTER DELETE ON entries BEGIN
    DELETE FROM messages WHERE key = old.key;
    UPDATE state SET
        ready = ready - (old.state = {READY}), leased = leased - (old.state = {LEASED}),
        delayed = delayed - (old.state = {DELAYED}), dead = dead - (old.state = {DEAD});
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
#: The same after a statement that found nothing to take or to change.
SILENCE_UNCHANGED: Final = f"{SILENCE} AND changes() = 0"

#: What a channel looks at after each step.
STATE: Final = "SELECT ready, leased, delayed, dead, places, charge, down, polled FROM state"
FIGURES: Final = "SELECT ready, bytes, bytes_put, last, gets, high, leased, delayed, dead, returned FROM state"

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
#: Count the batch. Parameters: the upper bits, and the length of the batch.
COUNT: Final = """
UPDATE state SET places = places + stored, {also} last = last + stored, batch = stored, bytes = bytes + size,
    charge = charge + charged, bytes_put = bytes_put + size, high = max(high, places + stored)
FROM (
    SELECT count(*) AS stored, ifnull(sum(length(data)), 0) AS size, ifnull(sum(max(length(data), 1)), 0) AS charged
    FROM messages
    WHERE key > (SELECT ?1 | last FROM state) AND key <= (SELECT ?1 | (last + ?2) FROM state)
)
WHERE stored > 0
"""
COUNT_PLAIN: Final = COUNT.format(also="ready = ready + stored,")
COUNT_LEASES: Final = COUNT.format(also="")

#: How many messages the batch has stored.
STORED: Final = "SELECT iif(changes(), batch, 0) FROM state"

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
POLL: Final = "UPDATE state SET polled = 1 WHERE NOT polled"

# Queues with leases

_NEXT: Final = f"SELECT key FROM entries INDEXED BY ready WHERE state = {READY} ORDER BY key LIMIT 1"
TAKE_READY: Final = f"SELECT key, data FROM messages WHERE key = ({_NEXT})"
DROP_READY: Final = f"DELETE FROM entries WHERE key = ({_NEXT})"
CLEAR_READY: Final = f"DELETE FROM entries WHERE state IN ({READY}, {DELAYED})"
DROP_LIVING: Final = f"DELETE FROM entries WHERE state <> {DEAD}"

# A lease that has ended keeps its serial number, which RETURNING gives back.
_FREE: Final = "owner = NULL, since = NULL"
_READY: Final = f"state = {READY}, due = NULL, wall = NULL, {_FREE}"
_READY_LATER: Final = f"state = iif(:due IS NULL, {READY}, {DELAYED}), due = :due, wall = :wall, {_FREE}"
_DEAD: Final = f"state = {DEAD}, due = NULL, wall = NULL, {_FREE}, reason = :reason"
_FAILED: Final = f"""
    state = iif(failures + 1 >= :bound, {DEAD}, {READY}), due = NULL, wall = NULL, {_FREE},
    failures = failures + 1, reason = :reason
"""
_FAILED_LATER: Final = f"""
    state = iif(failures + 1 >= :bound, {DEAD}, iif(:due IS NULL, {READY}, {DELAYED})),
    due = iif(failures + 1 >= :bound, NULL, :due), wall = iif(failures + 1 >= :bound, NULL, :wall), {_FREE},
    failures = failures + 1, reason = :reason
"""

#: What is over by the clock. Parameters: now, bound, reason.
END_DELAYS: Final = f"UPDATE entries SET {_READY} WHERE state = {DELAYED} AND due <= :now"
END_HOLDS: Final = f"UPDATE entries SET {_FAILED} WHERE state = {LEASED} AND due <= :now"
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
            FROM entries INDEXED BY ready CROSS JOIN messages ON messages.key = entries.key
            WHERE state = {READY} ORDER BY entries.key LIMIT ?5
        )
    ) WHERE before < {STEP}
)
WHERE key = picked
"""
#: Parameters: owner, first serial number, limit.
READ_LEASES: Final = f"""
SELECT data, messages.key, deliveries, serial, failures
FROM entries INDEXED BY leases CROSS JOIN messages ON messages.key = entries.key
WHERE state = {LEASED} AND owner = ?1 AND serial >= ?2 AND serial < ?2 + ?3 ORDER BY serial
"""
_MINE: Final = f"state = {LEASED} AND owner = :owner"
_SETTLED: Final = f"WHERE {_MINE} AND serial IN (SELECT value FROM json_each(:tokens)) RETURNING serial"
#: Parameters: owner, tokens as JSON, due, wall, bound, reason.
SETTLE: Final = {
    Verdict.ACK: f"DELETE FROM entries {_SETTLED}",
    Verdict.RELEASE: f"UPDATE entries SET {_READY_LATER} {_SETTLED}",
    Verdict.FAIL: f"UPDATE entries SET {_FAILED_LATER} {_SETTLED}",
    Verdict.REJECT: f"UPDATE entries SET {_DEAD} {_SETTLED}",
}
#: A rejection is no return.
NOT_RETURNED: Final = "UPDATE state SET returned = returned - changes()"
#: Parameters: owner, first serial number, end.
RECALL: Final = f"UPDATE entries SET {_READY} WHERE {_MINE} AND serial >= :first AND serial < :end"
LEAVE: Final = f"UPDATE entries SET {_READY} WHERE {_MINE}"
FORGET_OWNER: Final = "DELETE FROM owners WHERE number = :owner"
EXTEND: Final = f"UPDATE entries SET due = :due {_SETTLED}"
FIND: Final = f"SELECT serial FROM entries WHERE {_MINE} AND serial IN (SELECT value FROM json_each(:tokens))"
HELD: Final = f"SELECT owner, since, deliveries FROM entries WHERE state = {LEASED} ORDER BY since LIMIT ?"

_DEAD_ORDER: Final = f"key & {_NUMBER}"
#: Parameters: number, limit.
READ_DEAD: Final = f"""
SELECT data, messages.key, deliveries, reason
FROM entries INDEXED BY dead CROSS JOIN messages ON messages.key = entries.key
WHERE state = {DEAD} AND entries.key & {_NUMBER} > ?1 ORDER BY entries.key & {_NUMBER} LIMIT ?2
"""
_FIRST_DEAD: Final = f"SELECT key FROM entries INDEXED BY dead WHERE state = {DEAD} ORDER BY {_DEAD_ORDER} LIMIT"
DROP_FIRST_DEAD: Final = f"DELETE FROM entries WHERE key = ({_FIRST_DEAD} 1)"
#: Parameters: limit.
REQUEUE: Final = f"""
UPDATE entries SET state = {READY}, failures = 0, reason = x''
WHERE key IN ({_FIRST_DEAD} ?1) AND NOT (SELECT down FROM state)
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
