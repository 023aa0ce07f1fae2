"""Put and get in C: they exist, and a handle is still a Queue."""

import copy
import datetime as dt
import inspect
import os
import pickle
import pydoc
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

import ipcq
from backends import native
from backends.native import Handle, Open
from ipcq.serializers import codec_for

if sys.platform != "linux":
    pytest.skip("shm is for Linux", allow_module_level=True)

from ipcq import _native

switched_on, reset_codec = native.switched_on, native.reset_codec
name, opened, open_in_python, queue = native.name, native.opened, native.open_in_python, native.queue

VERBS = ("put", "put_nowait", "put_many", "get", "get_nowait", "get_many")

# It exists


@pytest.mark.parametrize("verb", VERBS)
def test_the_verbs_of_a_handle_are_in_c(queue: Handle, verb: str) -> None:
    """A call of a function in Python takes as long as the work of the ring."""
    assert isinstance(getattr(queue, verb).__func__, _native.Verb)


def test_a_handle_of_shm_puts_and_gets_in_c(queue: Handle) -> None:
    """The channel has functions in C."""
    assert queue._armed


def frames(handle: Handle) -> list[str]:
    """Return the names of the functions in Python that run during a put and a get."""
    seen: list[str] = []
    sys.setprofile(lambda frame, event, _: seen.append(frame.f_code.co_name) if event == "call" else None)
    try:
        handle.put({"a": [b"1"]})
        handle.get()
    finally:
        sys.setprofile(None)
    return seen


def test_no_function_in_python_runs(queue: Handle) -> None:
    """Put and get are in C from end to end, including the codec."""
    assert frames(queue) == []


def test_the_switch_turns_c_off(open_in_python: Open) -> None:
    """IPCQ_SHORTCUTS=0."""
    handle = open_in_python()
    assert (handle._armed, {"put", "get"} <= set(frames(handle))) == (False, True)


def test_another_value_of_the_switch_has_no_effect(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only 0 is documented."""
    monkeypatch.setenv("IPCQ_SHORTCUTS", "1")
    assert opened()._armed


def test_a_process_inherits_the_switch(queue: Handle, name: str) -> None:
    """It is an environment variable."""
    script = "import ipcq, sys; print(ipcq.open(sys.argv[1])._armed)"
    command = [sys.executable, "-W", "ignore", "-c", script, name]
    told = subprocess.run(
        command, env={**os.environ, "IPCQ_SHORTCUTS": "0"}, capture_output=True, text=True, check=True
    )
    assert told.stdout == "False\n"


# It is a Queue


def test_a_handle_is_a_queue(queue: Handle) -> None:
    """isinstance is true."""
    assert isinstance(queue, ipcq.Queue)


def test_the_class_of_every_handle_is_queue(queue: Handle, open_in_python: Open) -> None:
    """Whatever its backend, and whether C or Python does its calls."""
    assert [type(queue), type(open_in_python())] == [ipcq.Queue, ipcq.Queue]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_the_signature_that_is_written_in_python(queue: Handle, verb: str) -> None:
    """With its annotations, for help() and the documentation."""
    own = inspect.signature(inspect.unwrap(getattr(ipcq.Queue, verb)))
    first, *rest = own.parameters.values()
    assert inspect.signature(getattr(ipcq.Queue, verb)) == own
    assert inspect.signature(getattr(queue, verb)) == own.replace(parameters=rest)
    assert (first.name, own.return_annotation is not inspect.Signature.empty) == ("self", True)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_the_docstring_that_is_written_in_python(queue: Handle, verb: str) -> None:
    """help() shows it."""
    own = inspect.unwrap(getattr(ipcq.Queue, verb)).__doc__
    assert own and own == getattr(ipcq.Queue, verb).__doc__ == getattr(queue, verb).__doc__


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_begins_with_its_call(verb: str) -> None:
    """As for a function."""
    text = pydoc.render_doc(getattr(ipcq.Queue, verb), renderer=pydoc.plaintext)
    assert f"{verb}(self" in "".join(text.split())  # 3.13 writes one argument on a line


@pytest.mark.parametrize("verb", VERBS)
def test_inspect_takes_a_verb_for_a_function(verb: str) -> None:
    """Documentation tools and mocks rely on that."""
    assert inspect.isfunction(getattr(ipcq.Queue, verb))


def test_a_mock_of_the_class_knows_the_arguments_of_a_verb() -> None:
    """Tests of users find a wrong call."""
    with pytest.raises(TypeError, match="item"):
        mock.create_autospec(ipcq.Queue, instance=True).put()


@pytest.mark.parametrize("again", [lambda verb: pickle.loads(pickle.dumps(verb)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_pickled_and_copied_by_its_name(verb: str, again: Callable[[Any], Any]) -> None:
    """As a function is."""
    assert again(getattr(ipcq.Queue, verb)) is getattr(ipcq.Queue, verb)


def test_a_bound_verb_is_pickled_with_its_handle(queue: Handle) -> None:
    """A process can be started with it."""
    put = pickle.loads(pickle.dumps(queue.put))
    with put.__self__:
        put(b"item")
        assert queue.get() == b"item"


def test_a_verb_can_be_bound_by_hand(queue: Handle) -> None:
    """The bound method is still in C."""
    bound = ipcq.Queue.put.__get__(queue)
    assert isinstance(bound.__func__, _native.Verb)


def test_put_nowait_calls_what_replaced_put(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the method in Python does."""
    seen: list[object] = []
    monkeypatch.setattr(ipcq.Queue, "put", lambda _, item, block: seen.append((item, block)))
    queue.put_nowait(5)
    assert (seen, queue.empty()) == ([(5, False)], True)


def test_get_nowait_calls_what_replaced_get(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the method in Python does."""
    queue.put(5)
    monkeypatch.setattr(ipcq.Queue, "get", lambda _, block: ("replaced", block))
    assert (queue.get_nowait(), queue.qsize()) == (("replaced", False), 1)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_of_the_class_takes_the_handle(queue: Handle, verb: str) -> None:
    """As a function of a class does."""
    arguments = {"put": [b"1"], "put_nowait": [b"1"], "put_many": [[b"1"]]}.get(verb, [])
    if not arguments:
        queue.put(b"1")
    getattr(ipcq.Queue, verb)(queue, *arguments)


@pytest.mark.parametrize("wrong", [(), (5,), (5, 6, 7)], ids=str)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_without_a_handle_is_an_error(verb: str, wrong: tuple[object, ...]) -> None:
    """It raises and does not crash."""
    with pytest.raises((TypeError, AttributeError)):
        getattr(ipcq.Queue, verb)(*wrong)


def test_a_handle_that_was_never_opened_does_not_crash() -> None:
    """Its fields in C are empty."""
    with pytest.raises(AttributeError):
        ipcq.Queue.put(object.__new__(ipcq.Queue), 1)


def test_a_handle_shows_itself_as_a_queue(queue: Handle, open_in_python: Open) -> None:
    """The text is the same."""
    assert repr(queue) == repr(open_in_python())


def test_a_pickled_handle_uses_c_again(queue: Handle) -> None:
    """Unpickling opens a handle as open does."""
    with pickle.loads(pickle.dumps(queue)) as again:
        assert again._armed


def test_the_class_takes_type_arguments(queue: Handle) -> None:
    """As for Queue."""
    assert type(queue)[int].__args__ == (int,)


def test_a_handle_takes_no_other_attributes(queue: Handle) -> None:
    """A misspelt attribute is an error."""
    with pytest.raises(AttributeError):
        queue.maxsize = 5


def test_a_class_can_derive_from_it(queue: Handle) -> None:
    """Its fields come before those of any subclass."""

    class Mine(ipcq.Queue[Any]):
        __slots__ = ("extra",)

    mine = Mine(queue._channel, codec_for("raw"), queue._origin)
    mine.extra = 5
    mine.put(b"item")
    assert (mine._armed, mine.get(), mine.extra) == (True, b"item", 5)
    mine._unclosed.clear()  # the channel belongs to `queue`


@pytest.mark.parametrize("table", [None, 5, object(), dt.datetime_CAPI], ids=lambda table: type(table).__name__)
def test_only_a_capsule_of_a_channel_arms_a_handle(queue: Handle, table: object) -> None:
    """Any other object is refused, and the handle works as before."""
    with pytest.raises((TypeError, ValueError)):
        queue._arm(table, bytes, bytes, True, True, True)
    queue.put(b"item")
    assert (queue._armed, queue.get()) == (True, b"item")


@pytest.mark.parametrize("function", [len, int.__add__], ids=repr)
def test_no_other_method_is_in_c(function: Callable[..., object]) -> None:
    """The decorator refuses all others."""
    with pytest.raises(ValueError, match="in C"):
        _native.in_c(function)


def test_only_a_function_is_decorated() -> None:
    """A verb calls it directly."""
    with pytest.raises(TypeError, match="function"):
        _native.in_c(mock.Mock(__name__="put"))
