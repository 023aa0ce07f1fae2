"""The pair of sockets keeps the contract, with messages inside packets and in files beside them."""

import os
import time

import pytest

import ipcq
from ipcq.testing import BackendContract
from ipcq.testing.contract._bench import HANG, LATE

_buffer = pytest.importorskip("ipcq_socketpair._buffer", reason="the backend socketpair rests on what Linux has")

HOLD = """
queue = attach() if sys.argv[1] == "attach" else create()
say("holding")
hear()
queue.close()
"""


class TestSocketpair(BackendContract):
    backend = "socketpair"

    def test_any_holder_answers_newcomers_when_the_creator_is_dead(self) -> None:
        """C1: the queue and its messages live on with any holder."""
        creator = self.launch(HOLD, "create")
        assert creator.hear() == "holding"
        with self.attach() as queue:
            queue.put("kept")
            creator.kill()
            assert self.run("say(attach().get(timeout=5))") == ["kept"]

    def test_any_holder_answers_newcomers_when_the_creator_is_stopped(self) -> None:
        """C11: a stopped holder may accept the connection, yet another one answers, each of 30 times."""
        creator, other = self.launch(HOLD, "create"), None
        assert creator.hear() == "holding"
        other = self.launch(HOLD, "attach")
        assert other.hear() == "holding"
        creator.stop()
        slowest = 0.0
        for _ in range(30):
            began = time.monotonic()
            self.attach().close()
            slowest = max(slowest, time.monotonic() - began)
        creator.resume()
        assert slowest < 10 * sum((0.02, 0.03, 0.05, 0.1))

    def test_an_open_times_out_with_the_reason_if_all_holders_are_stopped(self) -> None:
        """C11: TimedOutError names the way out within open_timeout; attaching works once a holder resumes."""
        creator = self.launch(HOLD, "create")
        assert creator.hear() == "holding"
        creator.stop()
        began = time.monotonic()
        with pytest.raises(ipcq.TimedOutError, match="kill -CONT"):
            self.attach(open_timeout=0.3)
        assert 0.3 <= time.monotonic() - began < 0.3 + LATE + 0.2
        assert ipcq.exists(self.name, self.backend)
        creator.resume()
        assert self.attach().empty()

    def test_stopped_holders_do_not_prevent_an_unlink(self) -> None:
        """C11, C14: the name is free at once, and a stopped holder notices later."""
        creator = self.launch(
            """
            queue = create()
            say("holding")
            try:
                queue.get(timeout=15)
            except ipcq.QueueGone:
                say("gone")
            """
        )
        assert creator.hear() == "holding"
        creator.stop()
        ipcq.unlink(self.name, self.backend)
        assert self.create().empty()
        creator.resume()
        assert creator.hear() == "gone"

    def test_a_file_whose_holders_were_killed_is_no_queue(self) -> None:
        """C16: it is not found, not listed, reported with the way out, and replaced."""
        creator = self.launch(HOLD, "create")
        assert creator.hear() == "holding"
        creator.kill()
        assert not ipcq.exists(self.name, self.backend)
        with pytest.raises(ipcq.QueueNotFound):
            self.attach()
        with pytest.raises(ipcq.QueueNotFound):
            ipcq.unlink(self.name, self.backend)
        assert self.name not in [info.name for info in ipcq.queues()]
        assert self.name[1:] in self._fixes()
        queue = self.create()
        queue.put("new")
        assert self.name[1:] not in self._fixes()
        assert queue.get(timeout=HANG) == "new"

    def _fixes(self) -> str:
        backend = __import__("ipcq_socketpair").SocketpairBackend()
        return " ".join(finding.fix for finding in backend.findings())

    def test_the_last_holder_to_close_takes_the_file_with_it(self) -> None:
        """C17: a close leaves nothing behind."""
        with self.create(), self.attach():
            pass
        assert not os.path.lexists(f"/tmp/ipcq-{os.geteuid()}/socketpair{self.name}")

    def test_a_forked_child_answers_newcomers(self) -> None:
        """C20: the child that inherited the queue answers after its parent has died."""
        parent = self.launch(
            """
            import warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            queue = create()
            queue.put("inherited")
            if not os.fork():
                say("child")
                time.sleep(15)
                os._exit(0)
            signal.pause()
            """
        )
        assert parent.hear() == "child"
        parent.kill()
        assert self.attach().get(timeout=HANG) == "inherited"

    def test_an_interpreter_ends_with_open_handles(self) -> None:
        """C17: the thread that answers ends before the interpreter does, and prints nothing."""
        self.run("queue = create(); attach().put(1); import gc; gc.disable(); globals()['kept'] = [queue]; os._exit(0)")
        child = self.launch("queue = create(); say('open'); import warnings; warnings.simplefilter('ignore')")
        assert child.rest() == ["open"]
        child.done()

    def test_the_bound_is_exact_among_processes(self) -> None:
        """C7: however many processes put at the same time, the queue holds up to max_messages and no more."""
        queue = self.create()
        script = """
        queue = attach()
        say("ready")
        try:
            while True:
                try:
                    queue.put_nowait("item")
                except ipcq.QueueFull:
                    pass
        except (ipcq.QueueShutDown, ipcq.QueueGone):
            pass
        """
        children = [self.launch(script) for _ in range(3)]
        for child in children:
            assert child.hear() == "ready"
        most = 0
        for _ in range(3000):
            most = max(most, queue.qsize())
            queue.get(timeout=HANG)
        queue.shutdown()
        for child in children:
            child.done()
        assert most == self.capacity

    def test_a_message_of_the_maximum_size_crosses_processes(self) -> None:
        """C7: 16 MiB by default, unchanged."""
        queue = ipcq.open(self.name, self.backend, exclusive=True, serializer="raw")
        self._cleaning.callback(queue.close)
        data = os.urandom(1 << 20) * 16
        child = self.launch("say(hash(attach(serializer='raw').get(timeout=15)) and len('x'))")
        queue.put(data)
        assert child.hear() == "1"

    def test_a_full_descriptor_table_loses_no_message(self) -> None:
        """C5: without a free descriptor, large messages are still got one by one, through the reserved descriptor."""
        self.run(
            """
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            queue = ipcq.open(name, backend, exclusive=True, serializer="raw")
            for number in range(3):
                queue.put(bytes([number]) * 100_000)
            queue.put(b"small")
            full = []
            try:
                while True:
                    full.append(os.dup(2))
            except OSError:
                pass
            assert [queue.get(timeout=5)[:1] for _ in range(3)] == [b"\\0", b"\\1", b"\\2"]
            assert queue.get(timeout=5) == b"small"
            os.close(full.pop())
            queue.put(b"x" * 100_000)
            full.append(os.dup(2))
            queue._channel._drop_spare()
            full.append(os.dup(2))
            try:
                queue.get(timeout=5)
            except ipcq.LimitExceeded as error:
                assert error.limit == "RLIMIT_NOFILE"
            else:
                raise SystemExit("there was no descriptor to take it by")
            os.close(full.pop())
            assert queue.get(timeout=5) == b"x" * 100_000
            queue.close()
            """
        )

    def test_a_holder_with_a_full_descriptor_table_answers_once_there_is_space(self) -> None:
        """C24: newcomers wait, and the holder does not spin."""
        holder = self.launch(
            """
            import resource
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            queue = create()
            full = []
            try:
                while True:
                    full.append(os.dup(2))
            except OSError:
                say("full")
            hear()
            for each in full:
                os.close(each)
            said = time.process_time()
            say(said)
            hear()
            """
        )
        assert holder.hear() == "full"
        with pytest.raises(ipcq.TimedOutError):
            self.attach(open_timeout=1.0)
        holder.say("let go")
        assert float(holder.hear()) < 1.0
        assert self.attach().empty()


@pytest.mark.once
class TestSocketpairByFiles(BackendContract):
    """Every message of at least one byte travels as a sealed file."""

    backend = "socketpair"

    @pytest.fixture(autouse=True)
    def _no_room_in_packets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_buffer, "PADDED_INLINE_BYTES", 0)
