"""What goes wrong with a queue in SQLite is an error of ipcq, with the way out."""

import errno
import math
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import ipcq
from backends import sqlite
from backends.sqlite import NAME, USES, attach, change_index, create, execute, holding, locked, path_of
from ipcq.backend import Channel, Persistence, Place, Request, Secret
from ipcq.errors import (
    CorruptQueue,
    InvalidArgument,
    LimitExceeded,
    MessageQueueError,
    NoSpace,
    PermissionDenied,
    QueueExists,
    QueueGone,
    QueueMismatch,
    QueueNotFound,
    TimedOutError,
    Unsupported,
    VersionMismatch,
)
from ipcq_sqlite import SqliteBackend, _channel, _creation, _errors, _library, _place

fcntl = pytest.importorskip("fcntl", reason="could not import 'fcntl', which only POSIX has")
resource = pytest.importorskip("resource", reason="could not import 'resource', which only POSIX has")

backend, queue, jobs = sqlite.backend, sqlite.queue, sqlite.jobs

either_use = pytest.mark.parametrize("use", USES.values(), ids=USES)


# Damage


@either_use
def test_a_damaged_database_is_corrupt(backend: SqliteBackend, use: Callable[[Channel], object]) -> None:
    """C28: the error says how to save what is left."""
    with create(backend) as channel:
        channel.try_put(bytes(10_000), 0)
    database = path_of(backend) / "db"
    raw = bytearray(database.read_bytes())
    raw[4096:] = os.urandom(len(raw) - 4096)
    database.write_bytes(raw)
    with pytest.raises(CorruptQueue, match=r"\.recover"), attach(backend) as channel:
        use(channel)


@pytest.mark.parametrize("content", [b"", b"no database" * 1000], ids=["empty", "other"])
def test_a_file_that_is_no_database_is_corrupt(backend: SqliteBackend, content: bytes) -> None:
    """C28: nothing is written to it."""
    create(backend).__enter__().close()
    database = path_of(backend) / "db"
    database.write_bytes(content)
    with pytest.raises(CorruptQueue):
        backend.attach(NAME, Request())
    assert database.read_bytes() == content


@pytest.mark.parametrize(
    "damage",
    [
        "PRAGMA application_id = 1",
        "DROP TABLE made",
        "DELETE FROM made",
        "UPDATE made SET durability = 'none'",
        "DROP TABLE messages",
        "DELETE FROM state",
    ],
)
def test_a_foreign_database_is_corrupt(backend: SqliteBackend, damage: str) -> None:
    """C18, C28: a database that was not made by ipcq is refused."""
    create(backend).__enter__().close()
    execute(backend, damage)
    with pytest.raises(CorruptQueue), attach(backend) as channel:
        channel.try_put(b"item", 0)


def test_a_connection_that_cannot_be_prepared_is_closed(backend: SqliteBackend, queue: Any) -> None:
    """C28: a queue that is damaged while no connection has it open."""
    queue._database.close()
    execute(backend, "DELETE FROM state")
    with pytest.raises(CorruptQueue) as raised:
        queue.qsize()
    assert raised.value.__traceback__  # which keeps the connection alive
    entries = Path("/proc/self/fd").iterdir()
    assert path_of(backend) / "db" not in {entry.readlink() for entry in entries if entry.is_symlink()}


def test_another_version_is_refused(backend: SqliteBackend) -> None:
    """C18: with the way out; nothing is changed."""
    create(backend).__enter__().close()
    execute(backend, "PRAGMA user_version = 99")
    with pytest.raises(VersionMismatch, match="version 99"):
        backend.attach(NAME, Request())


# Space


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 2 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@sqlite.as_root
@pytest.mark.parametrize("leases", [False, True], ids=["plain", "leases"])
def test_a_full_disk_is_no_space(small: Path, leases: bool) -> None:
    """C23: the put that does not fit stores nothing, and what is stored can be taken once there is space."""
    place = SqliteBackend(str(small))
    with create(place, leases=leases) as channel:
        stored = 0
        with pytest.raises(NoSpace, match="free some"):
            while channel.try_put(b"%08d" % stored + bytes(50_000), 0):
                stored += 1
        assert channel.qsize() == stored > 3
        subprocess.run(["mount", "-o", "remount,size=8m", small], check=True)
        assert [int(channel.try_get()[0][:8]) for _ in range(stored)] == list(range(stored))


@sqlite.as_root
def test_a_queue_is_not_created_on_a_full_disk(small: Path) -> None:
    """C23: no name and no file is left."""
    ballast = sqlite.fill_disk(small)
    place = SqliteBackend(str(small))
    with pytest.raises(NoSpace):
        place.create(NAME, Request())
    assert list(small.iterdir()) == [ballast]


@sqlite.as_root
def test_a_read_only_file_system_is_refused(small: Path) -> None:
    """C27: creation and attachment say why."""
    place = SqliteBackend(str(small))
    create(place).__enter__().close()
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    with pytest.raises(PermissionDenied, match="read-only"):
        place.create("/other", Request())
    with pytest.raises(PermissionDenied, match="read-only"):
        place.attach(NAME, Request())
    with pytest.raises(PermissionDenied, match="read-only"):
        place.unlink(NAME)
    assert place.names() == [NAME]


def test_too_few_descriptors_are_a_limit(backend: SqliteBackend) -> None:
    """C24: SQLite would only say that it cannot open the file."""
    create(backend).__enter__().close()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, before[1]))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(4):
            os.close(taken.pop())
        with pytest.raises(LimitExceeded, match="RLIMIT_NOFILE"):
            backend.attach(NAME, Request())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in taken:
            os.close(descriptor)


@pytest.mark.parametrize(
    ("code", "free", "expected"),
    [
        (sqlite3.SQLITE_FULL, 1, NoSpace),
        (sqlite3.SQLITE_IOERR, 0, NoSpace),
        (sqlite3.SQLITE_IOERR | 10 << 8, 1, MessageQueueError),
        (sqlite3.SQLITE_READONLY, 1, PermissionDenied),
        (sqlite3.SQLITE_NOTADB, 1, CorruptQueue),
        (sqlite3.SQLITE_ERROR, 1, CorruptQueue),
    ],
)
def test_each_error_of_sqlite_has_its_class(
    code: int, free: int, expected: type[MessageQueueError], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Clause 18: SQLite reports a full disk as a failed write, too."""
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = code
    monkeypatch.setattr(_errors, "_free", lambda _: free)
    found = _errors.explained_error(error, str(tmp_path))
    assert type(found) is expected
    assert "it failed" in str(found) or expected is NoSpace


def test_the_free_space_of_a_missing_directory_is_unknown(tmp_path: Path) -> None:
    """Clause 18: so an error is not taken for a lack of space."""
    assert _errors._free(str(tmp_path / "missing")) == 1


# Places


def test_a_missing_directory_has_no_queues_and_is_not_created(tmp_path: Path) -> None:
    """C18: a typo in a path creates nothing; the error has the command."""
    place = SqliteBackend(str(tmp_path / "missing"))
    with pytest.raises(InvalidArgument, match="mkdir -p"):
        place.create(NAME, Request())
    with pytest.raises(QueueNotFound):
        place.attach(NAME, Request())
    with pytest.raises(QueueNotFound):
        place.unlink(NAME)
    assert (place.exists(NAME), place.names()) == (False, [])
    assert not (tmp_path / "missing").exists()


def test_a_network_file_system_is_refused(backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """C31: SQLite's shared memory does not reach other machines."""
    monkeypatch.setattr(_place, "file_system", lambda _: "nfs4")
    with pytest.raises(Unsupported, match="nfs4"):
        backend.create(NAME, Request())


def test_the_file_system_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C31: by the device of the directory; unknown devices are accepted."""
    assert _place.file_system("/proc") == "proc"
    monkeypatch.setattr(os, "major", lambda _: 4095)
    assert _place.file_system(str(tmp_path)) == ""


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_something_else_with_the_name_is_not_touched(backend: SqliteBackend, tmp_path: Path, kind: str) -> None:
    """C27: it is no queue, and creation says so."""
    entry = tmp_path / "jobs"
    if kind == "file":
        entry.write_text("kept")
    elif kind == "directory":
        entry.mkdir()
    else:
        entry.symlink_to("elsewhere")
    assert not backend.exists(NAME)
    assert backend.names() == []
    with pytest.raises(PermissionDenied, match="no queue"):
        backend.create(NAME, Request())
    with pytest.raises(QueueNotFound):
        backend.attach(NAME, Request())
    with pytest.raises(QueueNotFound):
        backend.unlink(NAME)
    assert [each.name for each in tmp_path.iterdir()] == ["jobs"]


def test_a_name_that_cannot_be_decoded_is_not_listed(backend: SqliteBackend, tmp_path: Path) -> None:
    """C25: names are UTF-8."""
    os.symlink(b".ipcq-" + b"0" * 32, os.fsencode(tmp_path) + b"/\xff")
    assert backend.names() == []


def test_a_directory_that_cannot_be_read_is_an_error(backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 3: it is unknown whether the queue exists."""

    def refuse(*_: object) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "readlink", refuse)
    with pytest.raises(MessageQueueError, match="Input/output"):
        backend.exists(NAME)


def test_the_default_place_is_in_the_home_of_the_user_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """C18: no environment variable moves it."""
    before = _place.default()
    for variable in ("HOME", "XDG_STATE_HOME", "TMPDIR"):
        monkeypatch.setenv(variable, "/elsewhere")
    assert _place.default() == before
    assert before.endswith("/.local/state/ipcq/sqlite")


@pytest.mark.parametrize("home", [None, "nowhere"])
def test_a_user_without_a_home_has_no_default_place(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """C18: nothing exists there, and the error says how to name a place."""

    def look_up(_: int) -> str:
        if home is None:
            raise KeyError
        return home

    monkeypatch.setattr(_place, "_home_of", look_up)
    place = SqliteBackend()
    for call in (lambda: place.create(NAME, Request()), lambda: place.attach(NAME, Request())):
        with pytest.raises(PermissionDenied, match="sqlite:///"):
            call()
    assert (place.exists(NAME), place.names()) == (False, [])
    assert ["no default place" in each.text for each in place.findings()] == [True]


def test_the_default_place_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C27: with all its parents, closed to others."""
    default = tmp_path / "home" / "state" / "sqlite"
    monkeypatch.setattr(_place, "_default", lambda: str(default))
    backend = SqliteBackend()
    with create(backend):
        assert default.stat().st_mode & 0o777 == 0o700
    assert backend.names() == [NAME]


@pytest.mark.parametrize("place", [{"host": "server"}, {"port": 1}, {"user": "me"}, {"password": Secret("x")}])
def test_a_place_is_no_server(place: dict[str, Any]) -> None:
    """Clause 35: the error says how to write a directory."""
    with pytest.raises(InvalidArgument, match="three slashes"):
        SqliteBackend().at(Place("sqlite", path=("tmp",), **place))


def test_two_spellings_of_a_place_are_one(tmp_path: Path) -> None:
    """Clause 35: links are resolved, and the text has no spaces."""
    place = tmp_path / "a place"
    place.mkdir()
    (tmp_path / "link").symlink_to(place)
    names = {SqliteBackend().at(Place("sqlite", path=each.parts[1:])).name for each in (place, tmp_path / "link")}
    assert names == {f"sqlite://{str(place).replace(' ', '%20')}/"}


def test_the_default_place_has_the_backends_name() -> None:
    """Clause 35: by its path, or without one."""
    default = Place("sqlite", path=tuple(_place.default()[1:].split("/")))
    assert [SqliteBackend().at(each).name for each in (default, Place("sqlite"))] == ["sqlite", "sqlite"]


# Options


def test_the_durability_is_full_unless_asked_for(backend: SqliteBackend) -> None:
    """C40: and the capability says what it is."""
    with create(backend) as channel:
        assert channel.capabilities.persistence == Persistence.SYNCED
    with ipcq.open(NAME, backend.name, durability="full") as queue:
        assert queue.options == {"durability": "full"}
    with pytest.raises(QueueMismatch, match="durability"):
        ipcq.open(NAME, backend.name, durability="normal")


def test_normal_durability_is_weaker(backend: SqliteBackend) -> None:
    """C40: every handle knows it."""
    with create(backend, options={"durability": "normal"}), attach(backend) as other:
        assert other.capabilities.persistence == Persistence.DISK


def test_an_unknown_durability_is_refused(backend: SqliteBackend) -> None:
    """C25: and nothing is created."""
    with pytest.raises(InvalidArgument, match="'full' or 'normal'"):
        backend.create(NAME, Request(options={"durability": "off"}))
    assert not backend.exists(NAME)


@pytest.mark.parametrize("limits", [{"max_message_size": 1 << 30}, {"max_messages": 1 << 61}, {"buffer_size": 1 << 61}])
def test_limits_beyond_those_of_sqlite_are_refused(backend: SqliteBackend, limits: dict[str, int]) -> None:
    """Clause 6: with the largest value."""
    with pytest.raises(Unsupported, match="at most"):
        backend.create(NAME, Request(**limits))


def test_a_large_buffer_has_messages_of_the_largest_size(backend: SqliteBackend) -> None:
    """Clause 6: a quarter of it would be larger than a row."""
    with create(backend, buffer_size=1 << 40) as channel:
        assert channel.attributes.max_message_size == backend.capabilities.max_message_size


def test_large_messages_fit(backend: SqliteBackend) -> None:
    """C38: a message of any size is one message."""
    data = os.urandom(1 << 20) * 20
    with create(backend) as channel:
        assert channel.try_put(data, 0)
        assert channel.try_get() == (data, 0)


# Others


def test_a_taken_name_is_told(backend: SqliteBackend) -> None:
    """Clause 1: and nothing is left."""
    with create(backend):
        with pytest.raises(QueueExists):
            backend.create(NAME, Request())
        assert len(os.listdir(backend._place())) == 2


def test_the_faster_creator_wins(backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 1: the other one finds out when it gives its queue the name, and leaves nothing."""
    new_directory = _place.new_directory
    faster = []

    def lose(directory: str) -> str:
        monkeypatch.undo()
        faster.append(backend.create(NAME, Request()))
        return new_directory(directory)

    monkeypatch.setattr(_place, "new_directory", lose)
    with pytest.raises(QueueExists):
        backend.create(NAME, Request())
    with closing(faster[0]):
        assert faster[0].try_put(b"item", 0)
    assert len(os.listdir(backend._place())) == 2


def test_a_creator_whose_directory_was_swept_tries_again(
    backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C16: and gives up if that goes on."""
    new_directory = _place.new_directory
    swept = []

    def lose(directory: str) -> str:
        target = new_directory(directory)
        if len(swept) < 2:
            swept.append(target)
            shutil.rmtree(f"{directory}/{target}")
        return target

    monkeypatch.setattr(_place, "new_directory", lose)
    with create(backend):
        assert len(swept) == 2
    backend.unlink(NAME)
    monkeypatch.setattr(_creation, "_TRIES", 1)
    swept.clear()
    with pytest.raises(MessageQueueError, match="No such file"):
        backend.create(NAME, Request())


def test_a_queue_that_goes_while_it_is_opened_is_not_found(
    backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 2: not an error of SQLite."""
    create(backend).__enter__().close()

    def race(*_: object) -> Any:
        backend.unlink(NAME)
        raise CorruptQueue

    monkeypatch.setattr(_creation, "_read_made", race)
    with pytest.raises(QueueNotFound):
        backend.attach(NAME, Request())


def test_another_incarnation_is_not_removed(backend: SqliteBackend) -> None:
    """Clause 41: the name leads to a queue that came later."""
    with create(backend) as first:
        backend.unlink(NAME)
        with create(backend) as second:
            with pytest.raises(QueueNotFound):
                backend.unlink_incarnation(NAME, first.incarnation)
            assert backend.exists(NAME)
            backend.unlink_incarnation(NAME, second.incarnation)
            assert not backend.exists(NAME)


def test_removers_wait_for_each_other(
    backend: SqliteBackend, queue: Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 4: but not for one that is stopped."""
    monkeypatch.setattr(_place, "_PATIENCE", 0.1)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        with pytest.raises(TimedOutError, match="removing a queue"):
            backend.unlink(NAME)
    finally:
        os.close(other)
    backend.unlink(NAME)


@either_use
def test_a_queue_that_goes_during_a_call_is_gone(
    backend: SqliteBackend, queue: Any, use: Callable[[Channel], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C14: whatever SQLite says of files that are missing."""
    queue._database.close()
    linked = iter([True])
    shutil.rmtree(path_of(backend))
    monkeypatch.setattr(queue, "linked", lambda: next(linked, False))
    with pytest.raises(QueueGone):
        use(queue)


def test_another_error_than_a_missing_name_leaves_the_queue_linked(
    queue: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C14: it is unknown, so nobody is told that the queue is gone."""

    def refuse(_: str) -> str:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    assert queue.linked()
    monkeypatch.setattr(os, "readlink", refuse)
    assert queue.linked()


def test_an_old_sqlite_is_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 19: probe returns the reason."""
    assert SqliteBackend().probe().usable
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    assert "needed" in _library._missing()
    monkeypatch.setattr(_library, "MISSING", "it is missing")
    assert SqliteBackend().probe().reason == "it is missing"


def test_a_python_without_sqlite_is_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 19: such Pythons exist."""
    monkeypatch.setitem(__import__("sys").modules, "sqlite3", None)
    assert "sqlite3" in _library._missing()


# A lock that is held


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_a_put_says_who_holds_the_lock(backend: SqliteBackend, queue: Channel, stopped: bool) -> None:
    """C11: it returns soon, and the queue is busy, not full."""
    with holding(backend, stopped=stopped) as pid:
        assert not queue.try_put(b"item", 0)
        assert queue.try_put_many([b"item"]) == 0
        assert queue.try_get() is None
        assert queue.try_get_many(3) == []
        holder = queue.holder(False)
        assert holder is not None
        assert (holder.pid, holder.stopped) == (pid, stopped)
        assert (queue.qsize(), queue.peek(), queue.full()) == (0, None, False)  # they need no lock
    assert queue.try_put(b"item", 0)
    assert queue.holder(False) is None


def test_a_clear_under_a_held_lock_times_out(backend: SqliteBackend, queue: Channel) -> None:
    """C37: it names the process."""
    with holding(backend, stopped=True) as pid, pytest.raises(TimedOutError, match=f"kill -CONT {pid}"):
        queue.clear()


def test_a_held_lock_without_a_known_holder_times_out(
    backend: SqliteBackend, queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C37: the error says how to find it."""
    monkeypatch.setattr(_channel, "LONG_PATIENCE", 1.2)
    with holding(backend):
        monkeypatch.setattr(queue._database, "holder", lambda: None)
        with pytest.raises(TimedOutError, match="fuser"):
            queue.shutdown(False)


def test_a_look_that_is_never_let_in_times_out(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """C37: another process may recover the journal."""
    monkeypatch.setattr(queue._database, "_patiently", lambda *_: None)
    with pytest.raises(TimedOutError):
        queue.qsize()
    with pytest.raises(TimedOutError):
        queue._database.prepare(queue._prepare, queue._relieve, synced=True)


def test_a_count_of_jobs_needs_the_lock_if_something_is_over(backend: SqliteBackend, jobs: Any) -> None:
    """C37: the message that is due has to become ready first."""
    jobs.try_put_delayed(b"item", 0, 1e-6)
    with holding(backend, stopped=True), pytest.raises(TimedOutError, match="kill -CONT"):
        jobs.qsize()
    assert jobs.qsize() == 1


def test_jobs_under_a_held_lock(backend: SqliteBackend, jobs: Any) -> None:
    """C11: nothing is leased."""
    jobs.try_put(b"item", 0)
    with holding(backend, stopped=True):
        assert jobs.try_lease(1, None) is None
        assert jobs.try_get_dead() is None
        assert not jobs.try_put_delayed(b"later", 0, 1.0)
        assert jobs.counts() == (1, 0, 0, 0)


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
@pytest.mark.parametrize(("leases", "next_look"), [(False, 0.0), (True, 0.0), (True, math.inf)])
def test_a_call_is_not_held_up_by_its_looks(
    backend: SqliteBackend, leases: bool, next_look: float, stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C11: while a process changes the index of the journal, others cannot read either."""
    with create(backend, leases=leases) as channel:
        calls: list[Callable[[], object]] = [channel.try_get, partial(channel.try_get_many, 2)]
        if leases:
            calls.append(partial(channel.try_lease_many, 1, 2, None))
            monkeypatch.setattr(channel._owners, "_next_look", next_look)
        for call in calls:
            call()  # the next one looks before it takes
        with holding(backend, stopped=stopped):
            change_index(backend)
            for call in [*calls, lambda: channel.wait_readable(monotonic(), monotonic())]:
                began = monotonic()
                assert not call()
                assert monotonic() - began < 1.0  # ten times what C11 allows
        channel.try_put(b"item", 0)
        assert channel.try_get() == (b"item", 0)


def test_a_call_outlives_a_short_stop(backend: SqliteBackend, queue: Channel) -> None:
    """C11: a call that cannot return "not now" waits for the process to continue."""
    queue.try_put(b"item", 0)
    with holding(backend, stopped=True) as pid:
        killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
        killer.start()
        assert queue.clear() == 1
        killer.join()


@sqlite.as_root
def test_another_users_queue_is_refused_with_a_way_out_that_helps(backend: SqliteBackend) -> None:
    """C27: `other_users=True` is none, because a queue's directory is for its owner alone, whatever its mode."""
    with create(backend, mode=0o400):
        pass
    assert stat.S_IMODE(path_of(backend).stat().st_mode) == 0o700
    os.chown(path_of(backend), 12345, -1)
    with pytest.raises(PermissionDenied, match="use another name, or run as user 12345") as caught:
        backend.attach(NAME, Request())
    assert "other_users" not in str(caught.value)


def test_nothing_is_dropped_under_a_held_lock(backend: SqliteBackend, queue: Any) -> None:
    """C11, clauses 43, 44: both calls end soon, and have changed nothing."""
    queue.try_put(b"item", 0)
    with locked(backend):
        assert queue.try_put_dropping(b"new", 0) is None
        assert queue.try_get_latest() is None
    assert queue.try_get() == (b"item", 0)
