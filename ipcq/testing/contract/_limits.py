"""C7, C24, C27, clauses 6 and 7: limits, modes and owners."""

import os
import signal
from typing import Any

import pytest

import ipcq
from ipcq.backend import Scope
from ipcq.testing.contract._bench import HANG, Bench

LIMITS = frozenset(("max_messages", "max_message_size", "buffer_size"))
REFUSALS = (ipcq.LimitExceeded, ipcq.NoSpace, ipcq.Unsupported)

_ANOTHER_USER = """
            def become_another_user():
                # Import all modules now, also those needed for failures, because the other user may not read them.
                import traceback
                with ipcq.open(name + "-first", backend=backend, **small) as queue:
                    queue.put(1)
                    queue.get()
                    queue.unlink()
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
"""


class Limits(Bench):
    """Limits, lifetime, mode and owner of a queue."""

    @pytest.mark.parametrize("count", [1, 2, 3, 4])
    @pytest.mark.parametrize("size", [1, 512])
    def test_exactly_as_many_messages_fit_as_were_asked_for(self, count: int, size: int) -> None:
        """C7, clause 6: exactly max_messages messages of max_message_size bytes fit."""
        queue = self.create(max_messages=count, max_message_size=size, serializer="raw")
        for _ in range(count):
            assert not queue.full()
            queue.put_nowait(bytes(size))
        assert queue.full()
        with pytest.raises(ipcq.QueueFull):
            queue.put_nowait(b"")
        assert queue.get_nowait() == bytes(size)
        assert not queue.full()
        queue.put_nowait(bytes(size))

    def test_no_more_messages_fit_because_they_are_small(self) -> None:
        """C7, clause 6: exactly max_messages messages fit, even if they are empty."""
        queue = self.create(serializer="raw")
        for _ in range(self.capacity):
            queue.put_nowait(b"")
        with pytest.raises(ipcq.QueueFull):
            queue.put_nowait(b"")

    def test_eight_messages_of_8_kib_fit_where_nothing_was_asked_for(self) -> None:
        """C7, clause 6: the default limits of every backend hold that many."""
        queue = ipcq.open(self.name, backend=self.backend, exclusive=True, serializer="raw")
        self._cleaning.callback(queue.close)
        for number in range(8):
            queue.put_nowait(bytes([number]) * 8192)
        assert [queue.get_nowait()[:1] for _ in range(8)] == [bytes([number]) for number in range(8)]

    @pytest.mark.parametrize("size", [1, 7, 100, 511, 512])
    def test_the_limit_on_size_is_the_one_asked_for(self, size: int) -> None:
        """C7, clause 6: max_message_size is not rounded in either direction."""
        queue = self.create(max_message_size=size, serializer="raw")
        assert queue.max_message_size == size
        queue.put(b"x" * size)
        assert queue.get(timeout=HANG) == b"x" * size
        with pytest.raises(ipcq.MessageTooLarge):
            queue.put(b"x" * (size + 1))

    def test_every_handle_knows_the_limits(self) -> None:
        """C18, clause 6: every handle reports the limits with which the queue was created."""
        queue, other = self.create(), self.attach()
        for handle in (queue, other):
            assert handle.max_messages == self.capacity
            assert handle.max_message_size == self.limit
            assert handle.mode == 0o600
            assert handle.lifetime == "persistent"
        assert queue.buffer_size == other.buffer_size
        assert queue.priorities == other.priorities
        assert queue.capabilities == other.capabilities

    def test_the_limits_reach_other_processes(self) -> None:
        """C18, clause 6: a handle in an unrelated process reports the same limits."""
        self.needs_processes()
        self.create()
        (limits,) = self.run("queue = attach(); say(queue.max_messages, queue.max_message_size, oct(queue.mode))")
        assert limits.split() == [str(self.capacity), str(self.limit), "0o600"]

    @pytest.mark.parametrize("limit", ["max_messages", "max_message_size"])
    def test_limits_that_differ_are_a_mismatch(self, limit: str) -> None:
        """C18: opening with another explicit limit raises QueueMismatch, which names both values."""
        self.create()
        asked = self.small[limit] - 1
        for create in (False, True):
            options: dict[str, Any] = {limit: asked, "create": create}
            with pytest.raises(ipcq.QueueMismatch) as caught:
                ipcq.open(self.name, backend=self.backend, **options)
            text = str(caught.value)
            assert limit in text
            assert str(asked) in text
            assert str(self.small[limit]) in text

    def test_the_same_limits_are_no_mismatch(self) -> None:
        """C18: opening with the queue's own limits succeeds."""
        self.create()
        assert self.attach(**self.small).max_messages == self.capacity

    @pytest.mark.parametrize("value", [0, -1, True, 1.0, "4", float("nan")], ids=repr)
    @pytest.mark.parametrize("limit", ["max_messages", "max_message_size", "buffer_size"])
    def test_a_bad_limit_is_refused(self, limit: str, value: Any) -> None:
        """C25: a limit must be an int of at least 1; otherwise nothing is created."""
        with pytest.raises(ipcq.InvalidArgument):
            self.create(**{limit: value})
        assert not ipcq.exists(self.name, self.backend)

    @pytest.mark.parametrize(
        "limits",
        [
            {"max_messages": 2**40},
            {"max_message_size": 2**40},
            {"max_messages": 2**62, "max_message_size": 2**62},
            {"buffer_size": 2**50},
        ],
        ids=lambda limits: "-".join(limits),
    )
    def test_a_limit_is_honoured_or_refused(self, limits: dict[str, Any]) -> None:
        """C24, clause 6: limits are exact; a refusal names the system's limit, its value, the request, the way out."""
        unlimited = dict.fromkeys(LIMITS & self.small.keys())  # options of the backend's own stay
        try:
            queue = self.create(**{**unlimited, **limits})
        except ipcq.LimitExceeded as error:
            assert error.errno
            assert error.limit
            assert error.remedy
            assert str(error.value) in str(error)
            assert str(error.asked) in str(error)
            assert not ipcq.exists(self.name, self.backend)
        except REFUSALS:
            assert not ipcq.exists(self.name, self.backend)
        else:
            with queue:
                assert {limit: getattr(queue, limit) for limit in limits} == limits

    def test_a_size_above_the_largest_is_refused(self) -> None:
        """C24, clauses 6, 20: a size above capabilities.max_message_size raises LimitExceeded or Unsupported."""
        self.needs("max_message_size")
        largest = self.can.max_message_size
        assert largest is not None
        with pytest.raises((ipcq.LimitExceeded, ipcq.Unsupported)):
            self.create(max_message_size=largest + 1)
        assert not ipcq.exists(self.name, self.backend)

    def test_an_unknown_option_is_refused(self) -> None:
        """C25: a misspelt option raises InvalidArgument, and nothing is created."""
        with pytest.raises(ipcq.InvalidArgument):
            self.create(no_such_option=1)
        assert not ipcq.exists(self.name, self.backend)

    # Lifetime

    def test_a_last_close_queue_goes_with_its_last_handle(self) -> None:
        """C14, clause 5: the queue is removed when its last handle closes, not before, without an unlink."""
        self.needs("last_close")
        queue = self.create(lifetime="last-close")
        other = self.attach()
        assert other.lifetime == "last-close"
        queue.close()
        assert ipcq.exists(self.name, self.backend)
        other.put("item")
        assert other.get(timeout=HANG) == "item"
        other.close()
        assert not ipcq.exists(self.name, self.backend)

    def test_a_last_close_queue_goes_with_killed_processes_too(self) -> None:
        """C14, C17, clause 5: the handles of a killed process count as closed."""
        self.needs("last_close")
        self.needs_processes()
        child = self.launch("queue = create(lifetime='last-close'); os.kill(os.getpid(), signal.SIGKILL)")
        assert child.wait() == -signal.SIGKILL
        with pytest.raises(ipcq.QueueNotFound):
            self.attach()

    def test_last_close_is_refused_where_it_cannot_be(self) -> None:
        """Clause 20: Unsupported, and nothing is created."""
        self.lacks("last_close")
        with pytest.raises(ipcq.Unsupported):
            self.create(lifetime="last-close")
        assert not ipcq.exists(self.name, self.backend)

    # Modes and owners

    @pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777], ids=oct)
    def test_the_mode_is_private_under_any_umask(self, umask: int) -> None:
        """C27, clause 7: the default mode is 0600 under any umask."""
        before = os.umask(umask)
        try:
            queue = self.create()
        finally:
            os.umask(before)
        assert queue.mode == 0o600
        assert self.attach().mode == 0o600

    @pytest.mark.parametrize("umask", [0, 0o022, 0o077], ids=oct)
    @pytest.mark.parametrize("mode", [0o600, 0o620, 0o640, 0o660, 0o666], ids=oct)
    def test_the_mode_is_exactly_the_one_asked_for(self, mode: int, umask: int) -> None:
        """C27, clause 7: every handle reports the requested mode, whatever the umask."""
        self.needs("other_users")
        before = os.umask(umask)
        try:
            queue = self.create(mode=mode, other_users=True)
        finally:
            os.umask(before)
        assert queue.mode == mode
        assert self.attach(other_users=True).mode == mode

    @pytest.mark.parametrize("mode", [0o640, 0o666, 0o602], ids=oct)
    def test_a_mode_that_grants_others_is_refused_where_it_cannot_be(self, mode: int) -> None:
        """C27, clause 20: Unsupported, and nothing is created."""
        self.lacks("other_users")
        with pytest.raises(ipcq.Unsupported):
            self.create(mode=mode, other_users=True)
        assert not ipcq.exists(self.name, self.backend)

    @pytest.mark.parametrize("mode", [0o600, 0o700], ids=oct)
    def test_the_owners_bits_are_exactly_those_asked_for(self, mode: int) -> None:
        """C27, clause 7: every handle reports the requested mode, even if other users never get access."""
        self.needs("modes")
        assert self.create(mode=mode).mode == mode
        assert self.attach().mode == mode

    @pytest.mark.parametrize("mode", [0o400, 0o700], ids=oct)
    def test_a_mode_is_refused_where_there_is_one_alone(self, mode: int) -> None:
        """C27, clause 20: open raises Unsupported and creates nothing, rather than use another mode."""
        self.lacks("modes")
        self.lacks("other_users")
        with pytest.raises(ipcq.Unsupported):
            self.create(mode=mode)
        assert not ipcq.exists(self.name, self.backend)

    @pytest.mark.parametrize("mode", [-1, 0o10000, 0o1600, "600", 0.5, True, None], ids=repr)
    def test_a_bad_mode_is_refused(self, mode: Any) -> None:
        """C27: a mode must be an int of permission bits."""
        with pytest.raises(ipcq.InvalidArgument):
            self.create(mode=mode)
        assert not ipcq.exists(self.name, self.backend)

    def test_a_private_queue_is_closed_to_other_users(self) -> None:
        """C27, clause 7: another user's process can neither attach nor unlink."""
        self.needs_processes()
        if self.can.scope >= Scope.NETWORK:
            pytest.skip(f"capabilities.scope is {self.can.scope.name}: who has the server's credentials is trusted")
        self._needs_root()
        queue = self.create()
        queue.put("kept")
        self.run(
            _ANOTHER_USER
            + """
            become_another_user()
            for call in (attach, lambda: attach(other_users=True), lambda: ipcq.unlink(name, backend)):
                try:
                    call()
                except (ipcq.PermissionDenied, ipcq.QueueNotFound):
                    pass
                else:
                    raise SystemExit("another user got in")
            """
        )
        assert self.drain(queue) == ["kept"]

    def test_another_users_queue_is_refused_unless_it_is_trusted(self) -> None:
        """C27, clause 7: a queue of another user than root raises PermissionDenied, unless other_users=True."""
        self.needs("other_users")
        self.needs_processes()
        self._needs_root()
        self.run(
            _ANOTHER_USER
            + """
            become_another_user()
            os.umask(0)
            create(mode=0o666, other_users=True).close()
            """
        )
        with pytest.raises(ipcq.PermissionDenied):
            self.attach()
        assert self.attach(other_users=True).empty()

    def _needs_root(self) -> None:
        if not hasattr(os, "geteuid") or os.geteuid():
            pytest.skip("only root can become another user")

    def test_a_handle_that_does_not_read_gets_nothing(self) -> None:
        """C27: with read=False, gets raise PermissionDenied and puts work."""
        queue, other = self.create(), self.attach(read=False)
        other.put("item")
        for call in (other.get, other.get_nowait, other.get_many, other.get_message, other.clear):
            with pytest.raises(ipcq.PermissionDenied):
                call()
        assert self.drain(queue) == ["item"]

    def test_a_handle_that_does_not_write_puts_nothing(self) -> None:
        """C27: with write=False, puts raise PermissionDenied and gets work."""
        queue, other = self.create(), self.attach(write=False)
        queue.put("item")
        for call in (other.put, other.put_nowait):
            with pytest.raises(ipcq.PermissionDenied):
                call("refused")
        with pytest.raises(ipcq.PermissionDenied):
            other.put_many(["refused"])
        assert other.get(timeout=HANG) == "item"
        assert queue.empty()

    def test_a_queue_may_be_created_by_who_only_reads(self) -> None:
        """C27: write=False restricts the handle that creates the queue, but not the queue."""
        reader = self.create(write=False)
        self.attach().put("item")
        assert reader.get(timeout=HANG) == "item"
