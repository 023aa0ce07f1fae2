"""C16, C18, clauses 1 to 4: names, creating, attaching and listing."""

import signal
import threading
import time
from typing import Any

import pytest

import ipcq
from ipcq.testing.contract._bench import HANG, LATE, Bench

#: Names without the leading '/'; the suite appends a unique suffix, as far as it fits.
GOOD_NAMES = {
    "letters": "Jobs",
    "unicode": "aufträge-仕事-💼",
    "dots_in_front": "..jobs",
    "spaces": " a b ",
    "for_a_shell": "$(x)`;&|*?[]{}'\"\\~#",
    "for_a_url": "a%20b?c=d#e",
    "controls": "\n\t\x01\x7f",
    "long": "x" * 254,
    "long_unicode": "ü" * 127,
}
BAD_NAMES: tuple[Any, ...] = (
    *("", "/", "jobs", "//", "/a/b", "/a/", "/.", "/..", "/a\0b", "/" + "x" * 255, "/" + "ü" * 128, "/\ud800"),
    *(None, 1, b"/jobs", ["/jobs"]),
)


class Names(Bench):
    """Names of queues, and how handles find them."""

    @pytest.mark.parametrize("kind", GOOD_NAMES)
    def test_a_name_may_hold_anything_but_slash_and_nul(self, kind: str) -> None:
        """C25: on every backend, a name may have 1 to 254 bytes of UTF-8 after the slash."""
        rest = GOOD_NAMES[kind]
        room = 254 - len(rest.encode())
        name = "/" + rest + self.name[1:][: max(0, room)]
        queue = self.create(name)
        try:
            assert queue.name == name
            assert ipcq.exists(name, self.backend)
            self.attach(name).put("item")
            assert queue.get(timeout=HANG) == "item"
        finally:
            ipcq.unlink(name, self.backend)
        assert not ipcq.exists(name, self.backend)

    @pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name)[:20])
    def test_a_bad_name_is_refused(self, name: Any) -> None:
        """C25: every operation with an invalid name raises InvalidName."""
        for call in (ipcq.open, ipcq.exists, ipcq.unlink):
            with pytest.raises(ipcq.InvalidName):
                call(name, backend=self.backend)

    def test_names_that_hardly_differ_are_different_queues(self) -> None:
        """C25, clause 1: names that differ only in case or in the last of many characters are distinct."""
        stem = self.name[1:]
        names = [f"/{stem}{end.rjust(254 - len(stem), 'x')}" for end in ("a", "A", "b")]
        queues = [self.create(name) for name in names]
        try:
            for number, queue in enumerate(queues):
                queue.put(number)
            assert [self.attach(name).get(timeout=HANG) for name in names] == [0, 1, 2]
        finally:
            for name in names:
                ipcq.unlink(name, self.backend)

    def test_a_url_names_the_backend(self) -> None:
        """C25: BACKEND:///name opens the same queue; so does the URL of its place with its name."""
        queue = self.create()
        url = self.backend if self._plugin != self.backend else f"{self.backend}:///"
        with ipcq.open(f"{url}{self.name[1:]}", create=False) as other:
            other.put("item")
            assert (other.name, other.backend) == (self.name, self.backend)
        assert queue.get(timeout=HANG) == "item"

    def test_a_missing_queue_is_not_found(self) -> None:
        """C18, clause 2: create=False raises QueueNotFound at once and creates nothing."""
        began = time.monotonic()
        with pytest.raises(ipcq.QueueNotFound):
            self.attach()
        assert time.monotonic() - began < LATE
        assert not ipcq.exists(self.name, self.backend)

    def test_a_missing_queue_can_be_waited_for(self) -> None:
        """C10, clause 2: wait=SECONDS attaches once another handle has created the queue."""
        opener = self.start_waiting(self.attach, wait=HANG)
        queue = self.create()
        queue.put("item")
        assert opener.outcome().get(timeout=HANG) == "item"

    def test_waiting_for_a_missing_queue_ends_in_time(self) -> None:
        """C10, clause 2: QueueNotFound is raised after the timeout, not before."""
        began = time.monotonic()
        with pytest.raises(ipcq.QueueNotFound):
            self.attach(wait=0.3)
        assert 0.3 <= time.monotonic() - began < 0.3 + LATE

    def test_opening_twice_meets(self) -> None:
        """C18, clause 1: by default, open creates the queue or attaches to it."""
        queue, other = self.create(exclusive=False), self.create(exclusive=False)
        queue.put("item")
        assert other.get(timeout=HANG) == "item"

    def test_exclusive_creation_of_a_taken_name_is_refused(self) -> None:
        """C18, clause 1: open raises QueueExists and leaves the queue unchanged."""
        queue = self.create()
        queue.put("kept")
        with pytest.raises(ipcq.QueueExists):
            self.create(exclusive=True)
        assert self.drain(queue) == ["kept"]

    def test_one_of_many_threads_creates(self) -> None:
        """C16, clause 1: of concurrent exclusive creations exactly one succeeds."""
        gate = threading.Barrier(8)

        def compete() -> bool:
            gate.wait(HANG)
            try:
                self.create()
            except ipcq.QueueExists:
                return False
            return True

        assert [worker.outcome() for worker in [self.start(compete) for _ in range(8)]].count(True) == 1

    def test_one_of_many_processes_creates(self) -> None:
        """C16, clause 1: this holds for processes too, and the others attach to the same queue."""
        self.needs_processes()
        children = [
            self.launch(
                """
                say("ready")
                hear()
                try:
                    queue = create()
                    say("won")
                except ipcq.QueueExists:
                    queue = attach()
                    say("lost")
                queue.put(os.getpid(), timeout=15)
                hear()
                """
            )
            for _ in range(5)
        ]
        assert [child.hear() for child in children] == ["ready"] * 5
        for child in children:
            child.say("go")
        assert sorted(child.hear() for child in children) == ["lost"] * 4 + ["won"]
        queue = self.attach()
        assert sorted(queue.get(timeout=HANG) for _ in children) == sorted(child.pid for child in children)
        for child in children:
            child.say("end")
            child.done()

    def test_a_name_is_usable_after_its_creator_was_killed(self) -> None:
        """C16: a process killed at any instant of create, attach, close or unlink leaves the name usable."""
        self.needs_processes()
        for number in range(5):
            child = self.launch(
                """
                say("ready")
                while True:
                    with ipcq.open(name, backend=backend, **small) as queue:
                        attach().close()
                        queue.unlink()
                """
            )
            assert child.hear() == "ready"
            time.sleep(number * 0.007)  # a different instant each time; the test holds for any
            child.kill()
            with self.create(exclusive=False) as queue:
                queue.put("item", timeout=HANG)
                assert queue.get(timeout=HANG) == "item"
                queue.unlink()

    def test_existence_is_told(self) -> None:
        """C18, clause 3: exists is false before the creation, true until the unlink, and false after it."""
        assert not ipcq.exists(self.name, self.backend)
        self.create()
        assert ipcq.exists(self.name, self.backend)
        ipcq.unlink(self.name, self.backend)
        assert not ipcq.exists(self.name, self.backend)

    def test_looking_and_attaching_alter_nothing(self) -> None:
        """C18, clause 2: attaching, failing to attach and listing change neither messages nor limits."""
        queue = self.create()
        queue.put("kept")
        for _ in range(30):
            assert ipcq.exists(self.name, self.backend)
            with self.attach() as other:
                assert not other.empty()
            with pytest.raises(ipcq.QueueMismatch):
                self.attach(max_message_size=self.limit + 1)
            with pytest.raises(ipcq.QueueExists):
                self.create()
            ipcq.queues()
        assert queue.max_messages == self.capacity
        assert self.drain(queue) == ["kept"]

    def test_processes_that_attach_and_exit_alter_nothing(self) -> None:
        """C18, clause 2: the queue stays, however an attached process ends."""
        self.needs_processes()
        queue = self.create()
        queue.put("kept")
        children = [
            self.launch(f"queue = attach(); assert not queue.empty(); {end}")
            for end in ("queue.close()", "os._exit(0)", "del queue", "sys.exit(0)")
        ]
        for child in children:
            child.done()
        killed = self.launch("queue = attach(); os.kill(os.getpid(), signal.SIGKILL)")
        assert killed.wait() == -signal.SIGKILL
        assert ipcq.exists(self.name, self.backend)
        assert self.drain(queue) == ["kept"]

    def test_existing_queues_are_listed(self) -> None:
        """C18, clause 20: the listing has the queue, or the reason why the backend cannot list here."""
        self.needs("listing")
        self.create()
        try:
            listing = ipcq.queues(self.backend)
        except ipcq.Unsupported as error:
            assert error.detail
        else:
            assert (self.name, self.backend) in [(info.name, info.backend) for info in listing]
            ipcq.unlink(self.name, self.backend)
            assert (self.name, self.backend) not in [(info.name, info.backend) for info in ipcq.queues(self.backend)]

    def test_a_backend_that_cannot_list_says_so(self) -> None:
        """Clause 20: the listing is refused, and that of all backends has none of its queues."""
        self.lacks("listing")
        self.create()
        with pytest.raises(ipcq.Unsupported):
            ipcq.queues(self.backend)
        assert self.backend not in {info.backend for info in ipcq.queues()}
