"""A handle in the child of a fork."""

import gc
import os
import warnings
from collections.abc import Iterator

import pytest

import ipcq
from core.conftest import Handle, Installed, Run
from core.fakes import FakeBackend, FakeChannel
from ipcq._handle import lifecycle as _lifecycle
from ipcq.errors import QueueClosed


def child(handle: Handle) -> None:
    """Take the first steps of a forked child in this process."""
    handle._forget_calls()
    handle._after_fork()


def test_an_inherited_handle_works_if_its_channel_does(handle: Handle) -> None:
    """C20: a handle inherited through a fork works or raises."""
    child(handle)
    handle.put(5)
    assert handle.get(timeout=5) == 5


def test_an_inherited_handle_that_cannot_work_raises(installed: Installed, fake: FakeBackend, name: str) -> None:
    """C20: the error has the way out."""
    fake.survives_fork = False
    with ipcq.open(name, "fake") as handle:
        child(handle)
        with pytest.raises(QueueClosed, match="do not cross a fork: open the queue in the child"):
            handle.put(5)


def test_an_inherited_channel_that_cannot_work_is_left_alone(fake: FakeBackend, name: str) -> None:
    """Clause 17: no further method is called."""
    fake.survives_fork = False
    with ipcq.open(name, "fake") as handle:
        child(handle)
    assert [channel.closings for channel in fake.channels] == [0]


def test_a_closed_handle_is_skipped_in_the_child(fake: FakeBackend, name: str) -> None:
    """Clause 17: its channel is already closed."""
    fake.survives_fork = False
    handle = ipcq.open(name, "fake")
    handle.close()
    child(handle)
    assert handle.closed


def test_an_inherited_handle_is_collected_silently(fake: FakeBackend, name: str) -> None:
    """Only the parent has to close it."""
    handle = ipcq.open(name, "fake")
    child(handle)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del handle
        gc.collect()
    assert not caught


def test_calls_of_the_parents_threads_do_not_count_in_the_child(handle: Handle, channel: FakeChannel) -> None:
    """C20: those threads do not exist in the child, so closing does not wait for them."""
    handle._calls.extend([None] * 3)
    child(handle)
    handle.close()
    assert channel.closings == 1


def test_a_call_that_forks_still_counts_in_the_child(handle: Handle, channel: FakeChannel) -> None:
    """C20: the child's copy of the interrupted call still returns through the handle."""

    def items() -> Iterator[int]:
        child(handle)
        handle.close()
        yield channel.closings

    with pytest.raises(QueueClosed):
        handle.put_many(items())
    assert channel.closings == 1


def test_all_handles_are_called_after_a_fork(handle: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C20: each handle of the process is called."""
    told: list[object] = []
    monkeypatch.setattr(ipcq.Queue, "_after_fork", lambda queue: told.append(queue))
    _lifecycle._after_fork()
    assert handle in told


def test_a_handle_can_be_closed_in_the_child_of_a_fork_at_the_end_of_a_call(run: Run) -> None:
    """C20: a signal handler may fork just before a call returns; closing in the child must not wait for that call."""
    assert (
        run(
            """
            import os, signal, sys
            import ipcq

            queue = ipcq.open("/core-fork", "mqueue", exclusive=True, max_messages=4, max_message_size=64)
            children = []

            def fork_on_the_way_out(frame, event, argument):
                if event == "c_return" and frame.f_code is ipcq.Queue.put.__code__:
                    if getattr(argument, "__name__", "") in ("pop", "_leave") and not children:
                        children.append(os.fork())

            try:
                sys.setprofile(fork_on_the_way_out)
                queue.put(1)
                sys.setprofile(None)
                if children == [0]:
                    signal.alarm(10)
                    queue.close()
                    os._exit(0)
                print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
            finally:
                queue.close()
                queue.unlink()
            """
        )
        == "0"
    )


def test_this_process_is_still_the_parent(handle: Handle) -> None:
    """No test above went on in a child."""
    assert os.getpid() == int(handle.name.split("-")[1])
