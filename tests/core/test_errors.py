"""The exception tree: one class for each condition, with queue, backend, figures and way out."""

import copy
import errno
import inspect
import pickle
import queue
import sys
from collections.abc import Mapping
from typing import Any

import pytest

import ipcq
from ipcq import errors
from ipcq.errors import (
    BackendUnavailable,
    DecodeError,
    LimitExceeded,
    MessageQueueError,
    MessageTooLarge,
    QueueFull,
    Unsupported,
)

CLASSES = sorted(
    {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, MessageQueueError)},
    key=lambda kind: kind.__name__,
)

FACTS: Mapping[type[MessageQueueError], Mapping[str, Any]] = {
    MessageTooLarge: {"size": 600, "limit": 512},
    LimitExceeded: {
        "limit": "fs.mqueue.msg_max",
        "value": 10,
        "asked": 50,
        "remedy": "sudo sysctl fs.mqueue.msg_max=50",
        "errno": errno.EINVAL,
    },
    DecodeError: {"data": b"\xc1\x01"},
    BackendUnavailable: {"reasons": {"shm": "no compiler"}},
    Unsupported: {"alternatives": ("memory", "shm")},
}


def made(kind: type[MessageQueueError]) -> MessageQueueError:
    """Return an error of a class with all attributes set."""
    detail = () if kind is LimitExceeded else ("it went wrong",)
    error = kind(*detail, queue="/jobs", backend="mqueue", **FACTS.get(kind, {}))
    error.errno = errno.EIO
    error.add_note("a note")
    return error


@pytest.mark.parametrize(
    ("kind", "parent"),
    [
        ("TimedOutError", TimeoutError),
        ("QueueEmpty", queue.Empty),
        ("QueueEmpty", errors.TimedOutError),
        ("QueueFull", queue.Full),
        ("QueueFull", errors.TimedOutError),
        ("QueueNotFound", FileNotFoundError),
        ("QueueExists", FileExistsError),
        ("InvalidArgument", ValueError),
        ("InvalidName", errors.InvalidArgument),
        ("MessageTooLarge", ValueError),
        ("LimitExceeded", OSError),
        ("NoSpace", OSError),
        ("BackendUnknown", LookupError),
        ("Unsupported", NotImplementedError),
        ("PermissionDenied", PermissionError),
    ],
)
def test_an_error_is_also_an_instance_of_the_builtin_class(kind: str, parent: type[Exception]) -> None:
    """If the standard library has a class for the condition, ours is a subclass."""
    assert issubclass(getattr(ipcq, kind), parent)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="queue.ShutDown came with Python 3.13")
def test_a_shut_down_queue_is_the_standard_librarys_shut_down() -> None:
    """QueueShutDown is a subclass of queue.ShutDown if Python has it."""
    assert issubclass(ipcq.QueueShutDown, queue.ShutDown)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_of_the_tree(kind: type[MessageQueueError]) -> None:
    """One except clause catches them all, and ipcq exports each."""
    assert getattr(ipcq, kind.__name__) is kind


@pytest.mark.parametrize(("alias", "kind"), [("ShmQueueEmpty", ipcq.QueueEmpty), ("ShmQueueFull", ipcq.QueueFull)])
def test_shmqueues_names_are_the_same_classes(alias: str, kind: type) -> None:
    """QueueEmpty and QueueFull have a second name each."""
    assert getattr(ipcq, alias) is kind


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_has_its_own_wording(kind: type[MessageQueueError]) -> None:
    """An error that is raised without a text still describes what happened."""
    assert "wording" in vars(kind)


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind is not LimitExceeded])
def test_a_wording_has_no_full_stop(kind: type[MessageQueueError]) -> None:
    """A text ends with the way out, without a period."""
    assert not str(kind()).endswith(".")


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if issubclass(kind, OSError)])
def test_an_error_of_the_system_has_its_number(kind: type[MessageQueueError]) -> None:
    """Code that catches OSError can always read errno."""
    assert isinstance(kind(**(FACTS[kind] if kind is LimitExceeded else {})).errno, int)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "it broke"),
        ({"queue": "/jobs"}, "queue '/jobs': it broke"),
        ({"backend": "shm"}, "backend 'shm': it broke"),
        ({"queue": "/jobs", "backend": "shm"}, "queue '/jobs' on backend 'shm': it broke"),
        ({"queue": "/a\nb"}, r"queue '/a\nb': it broke"),
    ],
)
def test_a_text_begins_with_queue_and_backend(place: Mapping[str, str], text: str) -> None:
    """Each is named if it is known."""
    assert str(MessageQueueError("it broke", **place)) == text


def test_an_error_without_a_text_has_the_wording_of_its_class() -> None:
    """The wording is the default text."""
    assert str(QueueFull(queue="/jobs")) == "queue '/jobs': no space became free before the timeout"


def test_queue_and_backend_are_added_if_they_are_missing() -> None:
    """Lower layers do not know them."""
    assert str(QueueFull().at("/jobs", "shm")).startswith("queue '/jobs' on backend 'shm': ")


def test_queue_and_backend_that_are_known_stay() -> None:
    """The layer that raised the error knew them best."""
    assert str(QueueFull("x", queue="/a", backend="b").at("/jobs", "shm")) == "queue '/a' on backend 'b': x"


def test_adding_queue_and_backend_returns_the_error() -> None:
    """The caller can raise it in the same statement."""
    error = QueueFull()
    assert error.at("/jobs", "shm") is error


def test_a_way_out_is_added_to_the_text() -> None:
    """A second way out follows the first."""
    error = LimitExceeded(limit="x", value=1, asked=2, remedy="raise it", errno=1)
    error.add_way_out("or use backend='shm'")
    assert str(error) == "x is 1, asked for 2: raise it, or use backend='shm'"


def test_a_way_out_is_added_to_the_classs_wording() -> None:
    """The same for an error without its own text."""
    error = errors.NoSpace()
    error.add_way_out("or use backend='shm'")
    assert str(error) == "no space is left for the queue, or use backend='shm'"


def test_a_limit_shows_its_figures() -> None:
    """C24: the text has the limit, its value, the requested value, and the remedy."""
    assert str(made(LimitExceeded)) == (
        "queue '/jobs' on backend 'mqueue': fs.mqueue.msg_max is 10, asked for 50: sudo sysctl fs.mqueue.msg_max=50"
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", CLASSES)
def test_a_pickled_error_keeps_its_class(kind: type[MessageQueueError], protocol: int) -> None:
    """An error travels from a worker process to its parent."""
    assert type(pickle.loads(pickle.dumps(made(kind), protocol))) is kind


@pytest.mark.parametrize("kind", CLASSES)
def test_a_pickled_error_keeps_its_attributes(kind: type[MessageQueueError]) -> None:
    """No attribute is lost."""
    error = made(kind)
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_pickled_error_keeps_its_text(kind: type[MessageQueueError]) -> None:
    """It reads the same on the other side."""
    error = made(kind)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_copied_error_keeps_its_attributes(kind: type[MessageQueueError]) -> None:
    """`copy` uses the same protocol as pickle."""
    error = made(kind)
    assert vars(copy.copy(error)) == vars(error)


def test_reasons_do_not_change_with_the_mapping() -> None:
    """The error has a copy."""
    reasons = {"shm": "no compiler"}
    error = BackendUnavailable(reasons=reasons)
    reasons.clear()
    assert error.reasons == {"shm": "no compiler"}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_is_documented(kind: type[MessageQueueError]) -> None:
    """Its docstring describes the condition."""
    assert (kind.__doc__ or "").strip()
