"""C17, C20, C21: the resources of a handle, its repr, and its use in other processes."""

import os
import pickle
import threading
from contextlib import suppress

import pytest

import ipcq
from ipcq.backend import Scope
from ipcq.testing._answers import until_answered
from ipcq.testing.contract._bench import HANG, Bench

#: Runs a call on an inherited handle in a forked child; it may work or raise, but never hang.
_FORKED = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads, which these tests need
queue = create()
def fork(act):
    child = os.fork()
    if child:
        return child
    status = 9
    try:
        faulthandler.register(signal.SIGALRM, chain=True)
        signal.alarm(8)
        act()
        status = 0
    except ipcq.MessageQueueError:
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)
def end(child):
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"the child ended with {status}"
"""


class Handles(Bench):
    """One open handle."""

    def _descriptors(self) -> set[str]:
        for folder in ("/proc/self/fd", "/dev/fd"):
            with suppress(OSError):
                return set(os.listdir(folder))
        pytest.skip("the open descriptors cannot be listed here")

    def test_handles_give_back_their_descriptors(self) -> None:
        """C17, clause 16: opening, using and closing handles leaves no descriptor open."""
        queue = self.create()
        self._cycle(queue)
        before = self._descriptors()
        for _ in range(20):
            self._cycle(queue)
        assert self._descriptors() == before

    def _cycle(self, queue: "ipcq.Queue[object]") -> None:
        with ipcq.open(self.name, backend=self.backend, create=False) as other:
            other.put("item")
            assert queue.get(timeout=HANG) == "item"
            with suppress(ipcq.QueueEmpty):
                until_answered(lambda seconds: other.get(timeout=seconds), 0.001)
            if other.capabilities.pollable:
                other.fileno()

    def test_queues_give_back_their_descriptors(self) -> None:
        """C17, clause 16: creating and unlinking queues leaves no descriptor open."""
        before: set[str] = set()
        for number in range(20):
            with ipcq.open(self.name, backend=self.backend, exclusive=True, **self.small) as queue:
                queue.put("item")
                queue.unlink()
            if not number:
                before = self._descriptors()
        assert self._descriptors() == before

    def test_failed_openings_leave_no_descriptors(self) -> None:
        """C17, clauses 1, 2: a failed open leaves no descriptor open."""
        self.create()
        missing = self.fresh_name()
        before: set[str] = set()
        for number in range(10):
            with pytest.raises(ipcq.QueueExists):
                self.create()
            with pytest.raises(ipcq.QueueMismatch):
                self.attach(max_message_size=self.limit - 1)
            with pytest.raises(ipcq.QueueNotFound):
                self.attach(missing)
            if not number:
                before = self._descriptors()
        assert self._descriptors() == before

    def test_forgotten_handles_give_back_their_descriptors(self) -> None:
        """C17, clause 16: garbage collection closes the descriptors of unclosed handles."""
        self.create()
        before: set[str] = set()
        for number in range(10):
            with pytest.warns(ResourceWarning):
                ipcq.open(self.name, backend=self.backend, create=False)
            if not number:
                before = self._descriptors()
        assert self._descriptors() == before

    def test_handles_leave_no_threads(self) -> None:
        """C17, clause 16: a closed handle leaves no thread running."""
        before = threading.active_count()
        queue = self.create()
        with suppress(ipcq.QueueEmpty):
            until_answered(lambda seconds: queue.get(timeout=seconds), 0.15)
        queue.unlink()
        queue.close()
        # A thread that is ending may need a moment.
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and threading.active_count() > before:
                thread.join(1.0)  # pragma: no cover - only where there is one
        assert threading.active_count() <= before

    def test_many_queues_live_side_by_side(self) -> None:
        """C25: several queues in one process are independent."""
        names = [self.fresh_name() for _ in range(4)]
        queues = [self.create(name) for name in names]
        for number, queue in enumerate(queues):
            queue.put(number)
        assert [self.attach(name).get(timeout=HANG) for name in names] == [0, 1, 2, 3]

    # Name, backend and state

    def test_a_handle_shows_where_it_belongs_and_how_it_is(self) -> None:
        """C25: repr shows name, backend and state."""
        queue = self.create()
        assert repr(self.name) in repr(queue)
        assert repr(self.backend) in repr(queue)
        assert "open" in repr(queue)
        queue.close()
        assert "closed" in repr(queue)

    def test_a_handle_knows_its_name_and_backend(self) -> None:
        """C25: the attributes name and backend are those passed to open."""
        queue = self.create()
        assert (queue.name, queue.backend) == (self.name, self.backend)

    def test_an_error_names_the_queue_and_the_backend(self) -> None:
        """C25, clause 18: errors have both names, even if the backend omitted them."""
        queue = self.create()
        for call in (queue.get_nowait, lambda: queue.put(bytes(10_000)), lambda: self.create()):
            with pytest.raises(ipcq.MessageQueueError) as caught:
                call()
            assert (caught.value.queue, caught.value.backend) == (self.name, self.backend)
            assert repr(self.name) in str(caught.value)
            assert repr(self.backend) in str(caught.value)

    # Pickling

    def test_a_pickled_handle_attaches_in_another_process(self) -> None:
        """C20: a pickle has name, backend and serializer, and unpickling attaches to the same queue."""
        self.needs_processes()
        queue = self.create(serializer="raw")
        child = self.launch(
            """
            import pickle
            queue = pickle.loads(bytes.fromhex(hear()))
            assert queue.name == name and queue.backend == backend
            queue.put(queue.get(timeout=15) + b" and back")
            """
        )
        queue.put(b"there")
        child.say(pickle.dumps(queue).hex())
        child.done()
        assert queue.get(timeout=HANG) == b"there and back"

    def test_a_pickled_handle_of_a_queue_that_is_gone_is_not_found(self) -> None:
        """C20: unpickling attaches and never creates."""
        self.needs_processes()
        queue = self.create()
        pickled = pickle.dumps(queue)
        queue.unlink()
        with pytest.raises(ipcq.QueueNotFound):
            pickle.loads(pickled)

    def test_a_handle_that_no_other_process_could_use_is_not_pickled(self) -> None:
        """C20: pickling raises Unsupported if queues are limited to one process."""
        if self.can.scope >= Scope.HOST:
            pytest.skip(f"capabilities.scope is {self.can.scope.name} on backend {self.backend!r}")
        with pytest.raises(ipcq.Unsupported):
            pickle.dumps(self.create())

    # Forking

    def _needs_fork(self) -> None:
        if not hasattr(os, "fork"):
            pytest.skip("this system does not fork")

    def test_an_inherited_handle_works_or_raises(self) -> None:
        """C20, clause 17: in a forked child each call returns or raises, and the parent's handle keeps working."""
        self._needs_fork()
        self.run(
            _FORKED
            + """
queue.put("parent")
for act in (
    lambda: queue.get(timeout=2), lambda: queue.put("child", timeout=2), lambda: queue.get(timeout=0.1),
    lambda: queue.put_many(["child"], timeout=2), queue.qsize, queue.close,
):
    end(fork(act))
queue.clear()
queue.put("after")
while queue.get(timeout=5) != "after":  # a message whose reply was lost comes first
    pass
queue.unlink()
queue.close()
"""
        )

    def test_an_inherited_handle_closes_nobody_elses(self) -> None:
        """C20, clause 17: a child that closes the handle or exits does not affect its parent's handle."""
        self._needs_fork()
        self.run(
            _FORKED
            + """
queue.put("kept")
end(fork(queue.close))
end(fork(lambda: None))
end(fork(lambda: sys.exit(0) if False else os._exit(0)))
assert ipcq.exists(name, backend)
assert queue.get(timeout=5) == "kept"
queue.unlink()
queue.close()
"""
        )

    def test_a_fork_while_threads_are_at_work_is_safe(self) -> None:
        """C20, clause 17: the child does not hang, whatever other threads were doing during the fork."""
        self._needs_fork()
        self.run(
            _FORKED
            + """
stop = threading.Event()
def work():
    while not stop.is_set():
        try:
            queue.put("item", timeout=0.01)
            queue.get(timeout=0.01)
        except (ipcq.TimedOutError, ipcq.ConnectionLost):  # a server on a busy machine may take longer to answer
            pass
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
def act():
    for call in (lambda: queue.put("child", timeout=1), lambda: queue.get(timeout=1), queue.qsize):
        try:
            call()
        except ipcq.MessageQueueError:
            pass
    queue.close()
for _ in range(15):
    end(fork(act))
stop.set()
for thread in threads:
    thread.join(10)
    assert not thread.is_alive()
queue.clear()
queue.put("after")
while queue.get(timeout=5) != "after":  # a message whose reply was lost comes first
    pass
queue.unlink()
queue.close()
"""
        )

    def test_a_forked_child_can_open_for_itself(self) -> None:
        """C20: a forked child can open other queues."""
        self._needs_fork()
        self.run(
            _FORKED
            + """
def act():
    try:
        with ipcq.open(name + "-child", backend=backend, **small) as own:
            own.put("item")
            assert own.get(timeout=2) == "item"
            own.unlink()
    except ipcq.MessageQueueError as error:
        raise AssertionError(str(error)) from error
end(fork(act))
queue.unlink()
queue.close()
"""
        )

    def test_a_forked_child_can_open_its_parents_queue_anew(self) -> None:
        """C1, C20, clause 17: the child's handle works after the parent's close and with a third process."""
        self._needs_fork()
        self.needs_processes()
        family = self.launch(
            _FORKED
            + """
queue.put("parent")
reopened, closed = os.pipe(), os.pipe()
def act():
    global queue
    queue.close()
    queue = attach()
    queue.put("child")
    os.write(reopened[1], b".")
    os.read(closed[0], 1)
    queue.put("child, alone")
    say("put")
    hear()
    queue.put("child, in company")
    queue.close()
child = fork(act)
os.read(reopened[0], 1)
queue.close()
os.write(closed[1], b".")
end(child)
"""
        )
        assert family.hear() == "put"
        stranger = self.attach()
        taken = [stranger.get(timeout=HANG) for _ in range(2)]
        stranger.put("stranger", timeout=HANG)
        family.say("go")
        family.done()
        taken += self.drain(stranger)
        assert taken == ["parent", "child", "child, alone", "stranger", "child, in company"]
