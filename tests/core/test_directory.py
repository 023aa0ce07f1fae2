"""Finding a queue by name, unlinking it, and listing all queues."""

import os
from typing import Any

import pytest

import ipcq
from core.conftest import Installed
from core.fakes import FakeBackend, raising
from ipcq.backend import Availability, Capabilities, Scope
from ipcq.errors import (
    BackendUnavailable,
    InvalidArgument,
    InvalidName,
    MessageQueueError,
    PermissionDenied,
    QueueMismatch,
    QueueNotFound,
    Unsupported,
)


@pytest.fixture
def one(installed: Installed) -> FakeBackend:
    """Return an installed backend."""
    fake = FakeBackend("one", rank=900)
    installed.backend(fake)
    return fake


@pytest.fixture
def two(installed: Installed) -> FakeBackend:
    """Return another installed backend."""
    fake = FakeBackend("two", rank=800)
    installed.backend(fake)
    return fake


# exists


@pytest.mark.parametrize("backend", ["auto", "one"])
def test_a_queue_that_is_there_exists(one: FakeBackend, name: str, backend: str) -> None:
    """It is found among all backends, or on a named one."""
    one.make(name)
    assert ipcq.exists(name, backend) is True


@pytest.mark.parametrize("backend", ["auto", "one"])
def test_a_queue_that_is_not_there_does_not_exist(one: FakeBackend, name: str, backend: str) -> None:
    """It is found neither among all backends nor on a named one."""
    assert ipcq.exists(name, backend) is False


def test_a_queue_on_another_backend_does_not_exist_on_this_one(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """If a backend is named, no other is searched."""
    one.make(name)
    assert not ipcq.exists(name, "two")


def test_a_url_searches_one_backend(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """A URL names the backend."""
    one.make(name)
    assert not ipcq.exists(f"two://{name}")


def test_a_queue_exists_even_if_its_backend_cannot_be_used(one: FakeBackend, name: str) -> None:
    """Searching needs no optional dependency."""
    one.make(name)
    one.availability = Availability.no("no library")
    assert ipcq.exists(name, "one")


def test_auto_skips_a_backend_whose_search_fails(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """A broken plugin does not hide a queue on another backend."""
    one.on_exists = raising(ValueError("no"))
    two.make(name)
    assert ipcq.exists(name)


def test_a_failed_search_of_a_named_backend_is_an_error(one: FakeBackend, name: str) -> None:
    """The queue may exist there, so the answer is not False."""
    one.on_exists = raising(ValueError("no"))
    with pytest.raises(BackendUnavailable, match=f"queue '{name}' on backend 'one': its search for the queue failed"):
        ipcq.exists(name, "one")


def test_an_error_of_ipcq_raised_by_a_backend_passes_through(one: FakeBackend, name: str) -> None:
    """The backend works but could not search, so `auto` must not assume that the name is free."""
    one.on_exists = raising(MessageQueueError("the table is full"))
    with pytest.raises(MessageQueueError, match=f"queue '{name}' on backend 'one': the table is full"):
        ipcq.exists(name)


@pytest.mark.parametrize("address", ["jobs", "/a/b", "", None, 5, "one:///"])
@pytest.mark.parametrize("call", [ipcq.exists, ipcq.unlink])
def test_a_bad_name_is_refused(call: Any, address: Any) -> None:
    """Each function that takes a name checks it."""
    with pytest.raises(InvalidName):
        call(address)


@pytest.mark.parametrize("call", [ipcq.exists, ipcq.unlink])
def test_options_are_refused(call: Any) -> None:
    """The options of a URL are only for `open`."""
    with pytest.raises(InvalidArgument, match="leave out max_messages"):
        call("memory:///jobs?max_messages=4")


@pytest.mark.parametrize("call", [ipcq.exists, ipcq.unlink])
@pytest.mark.parametrize("backend", [None, 5, b"memory"])
def test_a_backend_that_is_not_a_str_is_refused(call: Any, backend: Any) -> None:
    """The argument is checked as in `open`."""
    with pytest.raises(InvalidArgument):
        call("/jobs", backend)


# unlink


@pytest.mark.parametrize("backend", ["auto", "one"])
def test_unlink_removes_the_name(one: FakeBackend, name: str, backend: str) -> None:
    """The backend is found by ``auto`` or named."""
    one.make(name)
    ipcq.unlink(name, backend)
    assert name not in one.queues


def test_unlinking_leaves_the_other_backends_queue(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """If a backend is named, no other is affected."""
    one.make(name)
    two.make(name)
    ipcq.unlink(name, "one")
    assert name in two.queues


def test_unlinking_a_missing_queue_is_an_error(one: FakeBackend, name: str) -> None:
    """The text names the call that lists queues."""
    with pytest.raises(QueueNotFound, match=f"queue '{name}' on backend 'one': no such queue: list .*ipcq.queues"):
        ipcq.unlink(name, "one")


@pytest.mark.parametrize("backend", ["auto", "one"])
def test_a_missing_queue_may_be_no_error(one: FakeBackend, name: str, backend: str) -> None:
    """With missing_ok, `unlink` removes the queue if it exists and otherwise does nothing."""
    one.make(name)
    for _ in range(2):
        ipcq.unlink(name, backend, missing_ok=True)
    assert name not in one.queues


def test_only_a_missing_queue_may_be_no_error(one: FakeBackend, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With missing_ok, every other error is still raised."""
    one.make(name)
    monkeypatch.setattr(one, "unlink", raising(PermissionDenied()))
    with pytest.raises(PermissionDenied):
        ipcq.unlink(name, missing_ok=True)


def test_missing_ok_is_a_bool(one: FakeBackend, name: str) -> None:
    """Another value is refused before anything is removed."""
    one.make(name)
    with pytest.raises(InvalidArgument, match="missing_ok must be True or False, not 'yes'"):
        ipcq.unlink(name, missing_ok="yes")  # type: ignore[arg-type]  # wrong on purpose
    assert name in one.queues


def test_unlinking_a_name_that_exists_twice_is_refused(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """Rule 1 applies to `unlink` too: the error lists both."""
    one.make(name)
    two.make(name)
    with pytest.raises(QueueMismatch, match="it exists on 'one' and 'two'"):
        ipcq.unlink(name)


def test_a_refused_unlink_removes_nothing(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """Both queues stay."""
    one.make(name)
    two.make(name)
    with pytest.raises(QueueMismatch):
        ipcq.unlink(name)
    assert (name in one.queues, name in two.queues) == (True, True)


def test_a_queue_is_unlinked_even_if_its_backend_cannot_be_used(one: FakeBackend, name: str) -> None:
    """A name can be freed even if a library is gone."""
    one.make(name)
    one.availability = Availability.no("no library")
    ipcq.unlink(name)
    assert name not in one.queues


def test_an_error_of_unlink_names_the_backend_of_the_queue(
    one: FakeBackend, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not name `auto`."""
    one.make(name)
    monkeypatch.setattr(one, "unlink", raising(PermissionDenied()))
    with pytest.raises(PermissionDenied, match=f"queue '{name}' on backend 'one'"):
        ipcq.unlink(name)


# queues


def test_every_backends_queues_are_listed(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """The list is sorted by name, then by backend."""
    for fake in (two, one):
        fake.make(name + "-b")
        fake.make(name + "-a")
    found = [(info.name.removeprefix(name), info.backend) for info in ipcq.queues() if info.name.startswith(name)]
    assert found == [("-a", "one"), ("-a", "two"), ("-b", "one"), ("-b", "two")]


def test_a_listing_is_a_list(one: FakeBackend, name: str) -> None:
    """Its elements are QueueInfo."""
    one.make(name)
    assert ipcq.QueueInfo(name, "one") in list(ipcq.queues())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Unsupported("mount it"), "mount it"),
        (Unsupported(), "this backend does not support that"),
        (PermissionDenied("not yours"), "not yours"),
        (OSError(5, "no device"), "it cannot list its queues: OSError: [Errno 5] no device"),
        (TypeError("nonsense"), "it cannot list its queues: TypeError: nonsense"),
    ],
)
def test_a_backend_that_cannot_list_is_reported(one: FakeBackend, error: Exception, told: str) -> None:
    """The text has the reason and the way out."""
    one.on_names = raising(error)
    assert ipcq.queues().unlisted["one"] == told


def test_a_backend_that_cannot_list_does_not_hide_other_queues(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """A broken plugin is one entry in `unlisted`."""
    one.on_names = raising(TypeError("nonsense"))
    two.make(name)
    assert ipcq.QueueInfo(name, "two") in ipcq.queues()


@pytest.mark.parametrize("names", [None, 5])
def test_a_backend_that_lists_nonsense_is_reported(
    one: FakeBackend, monkeypatch: pytest.MonkeyPatch, names: object
) -> None:
    """A result that is not a list of names gives no names."""
    monkeypatch.setattr(one, "names", lambda: names)
    assert "it cannot list its queues: TypeError" in ipcq.queues().unlisted["one"]


def test_a_backend_that_lists_is_not_among_the_unlisted(one: FakeBackend) -> None:
    """Only backends that failed have a reason."""
    assert "one" not in ipcq.queues().unlisted


def test_a_backend_cannot_list_by_default(installed: Installed) -> None:
    """The default of `names` raises Unsupported."""

    class Silent(FakeBackend):
        def names(self) -> list[str]:
            return super(FakeBackend, self).names()

    installed.backend(Silent("silent", capabilities=Capabilities(scope=Scope.HOST)))
    assert ipcq.queues().unlisted["silent"] == "queues of this backend cannot be listed"


def test_a_backend_has_no_findings_by_default(one: FakeBackend) -> None:
    """The default of `findings` is an empty list."""
    assert one.findings() == []


def test_listing_leaves_no_descriptor_open(one: FakeBackend) -> None:
    """Listing takes no lock and creates nothing."""
    before = os.listdir("/proc/self/fd")
    ipcq.queues()
    assert os.listdir("/proc/self/fd") == before
