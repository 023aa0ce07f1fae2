"""C41: the server of a queue goes away, comes back, or loses replies (clauses 38 to 42)."""

import time
from collections.abc import Iterator

import pytest

import ipcq
from ipcq.backend import Persistence, Scope
from ipcq.testing.contract._bench import HANG, LATE, WOKEN, Bench
from ipcq.testing.server import Server

#: The timeout of calls that get no answer, in seconds.
SHORT = 0.3


class Servers(Bench):
    """Tests of backends that reach other machines; the tests of such a backend override the fixture `server`."""

    @pytest.fixture
    def server(self) -> Server:
        """Return the server, which runs."""
        if self.can.scope < Scope.NETWORK:
            pytest.skip(f"capabilities.scope is {self.can.scope.name} on backend {self.backend!r}: it has no server")
        pytest.fail(f"override the fixture `server` in {type(self).__name__}: return an `ipcq.testing.Server`")

    @pytest.fixture
    def running(self, server: Server) -> Iterator[Server]:
        """Return the server, and let it run again after the test."""
        yield server
        server.go_on()
        server.start()

    def _needs_memory_of_the_server(self) -> None:
        kept = self.can.persistence
        if kept < Persistence.DISK:  # pragma: no cover - no backend here has a server that forgets
            pytest.skip(f"capabilities.persistence is {kept.name} on backend {self.backend!r}, its server forgets")

    # Lost replies

    def test_a_put_whose_reply_is_lost_stores_one_message(self, running: Server) -> None:
        """Clause 39: the attempts of a put have one identity."""
        with self.create() as q:
            for number in range(8):
                running.drop_replies(1 + number % 2)
                q.put(number, timeout=HANG)
                assert self.drain(q) == [number]

    def test_a_get_whose_reply_is_lost_takes_one_message(self, running: Server) -> None:
        """Clause 39: the attempts of a get have one identity."""
        with self.create() as q:
            q.put_many([0, 1, 2])
            for number in range(3):
                running.drop_replies(1 + number % 2)
                assert q.get(timeout=HANG) == number

    def test_a_batch_whose_replies_are_lost_arrives_once(self, running: Server) -> None:
        """Clause 39: so do those of a batch."""
        with self.create() as q:
            running.drop_replies(2)
            assert q.put_many(range(3), timeout=HANG) == 3
            running.drop_replies(2)
            taken: list[int] = []
            while len(taken) < 3:
                taken += q.get_many(timeout=HANG)
            assert taken == [0, 1, 2]
            assert q.empty()

    def test_a_creation_whose_reply_is_lost_succeeds(self, running: Server) -> None:
        """Clause 39: its second attempt does not find the queue of the first in the way."""
        for after in range(4):  # one of these is the creation
            running.drop_replies(1, after)
            with self.create() as q:
                q.put("first", timeout=HANG)
                assert q.get(timeout=HANG) == "first"
                q.unlink()

    def test_a_lease_whose_reply_is_lost_is_one_delivery(self, running: Server) -> None:
        """Clause 39: neither it nor its acknowledgement happens twice."""
        self.needs("leases")
        with self.create(leases=True) as q:  # pragma: no cover - no backend here has both leases and a server
            q.put("job")
            running.drop_replies(1)
            job = q.lease(timeout=HANG)
            assert job.deliveries == 1
            running.drop_replies(1)
            job.ack()
            q.join(HANG)

    def test_a_message_on_its_way_at_a_timeout_is_not_lost(self, running: Server) -> None:
        """Clause 39: the next get of the handle returns it."""
        with self.create() as q:
            q.put_many([0, 1, 2])
            running.stall()
            for _ in range(2):
                with pytest.raises(ipcq.ConnectionLost):
                    q.get(timeout=SHORT)
            running.go_on()
            assert [q.get(timeout=HANG) for _ in range(3)] == [0, 1, 2]

    # A server that does not answer

    @pytest.mark.parametrize("verb", ["put", "put_many", "get", "get_many"])
    def test_a_timeout_holds_while_the_server_is_silent(self, running: Server, verb: str) -> None:
        """Clause 38: the deadline reaches the channel."""
        with self.create() as q:
            running.stall()
            calls = {
                "put": lambda: q.put("late", timeout=SHORT),
                "put_many": lambda: q.put_many(["late"], timeout=SHORT),
                "get": lambda: q.get(timeout=SHORT),
                "get_many": lambda: q.get_many(timeout=SHORT),
            }
            worker = self.start(calls[verb])
            assert isinstance(worker.error(), ipcq.ConnectionLost)
            running.go_on()
            assert SHORT <= worker.seconds < SHORT + LATE

    def test_a_call_without_a_wait_ends_while_the_server_is_silent(self, running: Server) -> None:
        """Clause 38: it allows the server two seconds for its answer."""
        with self.create() as q:
            running.stall()
            worker = self.start(q.put_nowait, "late")
            assert isinstance(worker.error(), ipcq.ConnectionLost)
            running.go_on()
            assert worker.seconds < 2 + LATE

    def test_open_timeout_bounds_all_of_open(self, running: Server) -> None:
        """Clause 38: not only the waits for other processes."""
        self.create().close()
        running.stall()
        worker = self.start(lambda: self.attach(open_timeout=SHORT))
        error = worker.error()
        running.go_on()
        assert isinstance(error, ipcq.ConnectionLost)
        assert worker.seconds < SHORT + LATE

    def test_close_ends_a_call_that_waits_for_the_server(self, running: Server) -> None:
        """Clause 38, C14: an operation is not repeated on a closed handle, and a wait ends at once."""
        with self.create() as q:
            running.stop()
            waiting = self.start_waiting(q.get)
            closing = self.start(q.close)
            closing.outcome(WOKEN)
            assert isinstance(waiting.error(), ipcq.QueueClosed | ipcq.ConnectionLost)

    def test_close_ends_a_wait_on_the_server(self, running: Server) -> None:
        """Clause 42, C14: `wake` ends it."""
        seconds = []
        for _ in range(3):  # on a busy machine, one of them may take longer
            with self.create(exclusive=False) as q:
                waiting = self.start_waiting(q.get)
                closing = self.start(q.close)
                closing.outcome()
                assert isinstance(waiting.error(), ipcq.QueueClosed)
            seconds.append(closing.seconds)
        assert min(seconds) < WOKEN / 5

    # Outcomes

    def test_a_server_that_is_away_has_done_nothing(self, running: Server) -> None:
        """Clause 40: the outcome of a put to a stopped server is known."""
        with self.create() as q:
            running.stop()
            with pytest.raises(ipcq.ConnectionLost):
                q.put("sent", timeout=SHORT)  # perhaps on a connection that still seems to be there
            with pytest.raises(ipcq.ConnectionLost) as lost:
                q.put("not sent", timeout=SHORT)
            assert lost.value.outcome == "not done"

    def test_a_silent_server_may_have_done_it(self, running: Server) -> None:
        """Clause 40: what was sent may have been carried out."""
        with self.create() as q:
            running.stall()
            with pytest.raises(ipcq.ConnectionLost) as lost:
                q.put("perhaps", timeout=SHORT)
            running.go_on()
            assert lost.value.outcome == "unknown"
            assert self.drain(q) in ([], ["perhaps"])

    # Restarts

    def test_a_waiting_get_outlives_a_restart(self, running: Server) -> None:
        """Clause 38: the wait goes on until the caller's deadline."""
        self._needs_memory_of_the_server()
        with self.create() as q:
            waiting = self.start_waiting(q.get, timeout=HANG)
            running.stop()
            time.sleep(SHORT)
            running.start()
            q.put("after", timeout=HANG)
            assert waiting.outcome() == "after"

    def test_a_waiting_put_outlives_a_restart(self, running: Server) -> None:
        """Clause 38: likewise, and nothing is stored twice."""
        self._needs_memory_of_the_server()
        with self.create() as q:
            count = self.fill(q)
            waiting = self.start_waiting(q.put, count, timeout=HANG)
            running.stop()
            time.sleep(SHORT)
            running.start()
            assert q.get(timeout=HANG) == 0
            waiting.outcome()
            assert self.drain(q) == list(range(1, count + 1))

    # Restraint

    def test_an_idle_consumer_asks_once_a_second(self, running: Server) -> None:
        """Clause 42: hosted servers charge for requests."""
        with self.create() as q:
            waiting = self.start_waiting(q.get, timeout=5)
            before = running.requests()
            time.sleep(4)
            asked = running.requests() - before
            assert isinstance(waiting.error(), ipcq.QueueEmpty)
            assert asked <= 5

    # Incarnations

    @pytest.mark.parametrize("closed", [False, True])
    def test_unlink_leaves_a_later_queue_alone(self, running: Server, closed: bool) -> None:
        """Clause 41: on a server, a name is removed only if it leads to this queue, and in one step."""
        old = self.create()
        ipcq.unlink(self.name, self.backend)
        with self.create() as new:
            if closed:
                old.close()
            old.unlink()
            new.put("kept")
            assert new.get_nowait() == "kept"

    def test_unlink_removes_its_own_queue(self, running: Server) -> None:
        """Clause 41: also after a close, and with a lost reply."""
        q = self.create()
        q.close()
        running.drop_replies(1)
        q.unlink()
        assert not ipcq.exists(self.name, self.backend)

    def test_two_queues_of_a_name_have_different_incarnations(self, running: Server) -> None:
        """Clause 41: a handle to the old queue does not reach the new one."""
        with self.create() as old:
            ipcq.unlink(self.name, self.backend)
            with self.create():
                self.eventually(ipcq.QueueGone, old.get_nowait, within=WOKEN)
