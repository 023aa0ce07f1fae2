"""Looking for a name, removing it, and listing all."""

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
    """OpenRequest of all backends, or of one."""
    one.make(name)
    assert ipcq.exists(name, backend) is True


@pytest.mark.parametrize("backend", ["auto", "one"])
def test_a_queue_that_is_not_there_does_not_exist(one: FakeBackend, name: str, backend: str) -> None:
    """OpenRequest of all backends, or of one."""
    assert ipcq.exists(name, backend) is False


def test_a_queue_elsewhere_does_not_exist_here(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """A named backend is asked alone."""
    one.make(name)
    assert not ipcq.exists(name, "two")


def test_a_url_asks_one_backend(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """A URL names the backend."""
    one.make(name)
    assert not ipcq.exists(f"two://{name}")


def test_a_queue_exists_though_its_backend_cannot_be_used(one: FakeBackend, name: str) -> None:
    """DESIGN 5: whether a name exists is told without the optional dependency."""
    one.make(name)
    one.availability = Availability.no("no library")
    assert ipcq.exists(name, "one")


def test_a_backend_that_cannot_say_is_not_asked_twice_by_auto(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """A stranger's plugin keeps nobody from finding a queue elsewhere."""
    one.on_exists = raising(ValueError("no"))
    two.make(name)
    assert ipcq.exists(name)


def test_a_backend_that_cannot_say_is_an_error_where_it_is_named(one: FakeBackend, name: str) -> None:
    """No is an answer, and an exception is none."""
    one.on_exists = raising(ValueError("no"))
    with pytest.raises(BackendUnavailable, match=f"queue '{name}' on backend 'one': its search for the queue failed"):
        ipcq.exists(name, "one")


def test_an_error_of_the_tree_out_of_a_backend_goes_through(one: FakeBackend, name: str) -> None:
    """DESIGN 5: where it is not known whether a name is taken, nothing may be made of it."""
    one.on_exists = raising(MessageQueueError("the table is full"))
    with pytest.raises(MessageQueueError, match=f"queue '{name}' on backend 'one': the table is full"):
        ipcq.exists(name)


@pytest.mark.parametrize("address", ["jobs", "/a/b", "", None, 5, "one:///a/b"])
@pytest.mark.parametrize("call", [ipcq.exists, ipcq.unlink])
def test_a_bad_name_is_refused(call: Any, address: Any) -> None:
    """The rule for names holds wherever a name is given."""
    with pytest.raises(InvalidName):
        call(address)


@pytest.mark.parametrize("call", [ipcq.exists, ipcq.unlink])
def test_options_are_refused(call: Any) -> None:
    """Options of a URL are for opening."""
    with pytest.raises(InvalidArgument, match="leave out max_messages"):
        call("memory:///jobs?max_messages=4")


@pytest.mark.parametrize("call", [ipcq.exists, ipcq.unlink])
@pytest.mark.parametrize("backend", [None, 5, b"memory"])
def test_a_backend_that_is_no_str_is_refused(call: Any, backend: Any) -> None:
    """The argument is checked like that of open."""
    with pytest.raises(InvalidArgument):
        call("/jobs", backend)


# unlink


@pytest.mark.parametrize("backend", ["auto", "one"])
def test_unlink_removes_the_name(one: FakeBackend, name: str, backend: str) -> None:
    """Found by ``auto``, or named."""
    one.make(name)
    ipcq.unlink(name, backend)
    assert name not in one.queues


def test_unlinking_leaves_the_other_backends_queue(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """A named backend is asked alone."""
    one.make(name)
    two.make(name)
    ipcq.unlink(name, "one")
    assert name in two.queues


def test_unlinking_what_is_not_there_is_not_found(one: FakeBackend, name: str) -> None:
    """The text says how to see what there is."""
    with pytest.raises(QueueNotFound, match=f"queue '{name}' on backend 'one': no such queue: list .*ipcq.queues"):
        ipcq.unlink(name, "one")


def test_unlinking_a_name_that_exists_twice_is_refused(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """Rule 1: two found, an error that lists both, also for unlink."""
    one.make(name)
    two.make(name)
    with pytest.raises(QueueMismatch, match="it exists on 'one' and 'two'"):
        ipcq.unlink(name)


def test_a_refused_unlink_removes_nothing(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """Neither of the two goes."""
    one.make(name)
    two.make(name)
    with pytest.raises(QueueMismatch):
        ipcq.unlink(name)
    assert (name in one.queues, name in two.queues) == (True, True)


def test_a_queue_is_unlinked_though_its_backend_cannot_be_used(one: FakeBackend, name: str) -> None:
    """So that a name can be freed whatever became of a library."""
    one.make(name)
    one.availability = Availability.no("no library")
    ipcq.unlink(name)
    assert name not in one.queues


def test_an_error_of_unlinking_names_the_backend_that_was_found(
    one: FakeBackend, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not 'auto', but where the queue is."""
    one.make(name)
    monkeypatch.setattr(one, "unlink", raising(PermissionDenied()))
    with pytest.raises(PermissionDenied, match=f"queue '{name}' on backend 'one'"):
        ipcq.unlink(name)


# queues


def test_every_backends_queues_are_listed(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """By name, then by backend."""
    for fake in (two, one):
        fake.make(name + "-b")
        fake.make(name + "-a")
    found = [(info.name.removeprefix(name), info.backend) for info in ipcq.queues() if info.name.startswith(name)]
    assert found == [("-a", "one"), ("-a", "two"), ("-b", "one"), ("-b", "two")]


def test_a_listing_is_a_list(one: FakeBackend, name: str) -> None:
    """It can be counted, sorted and walked through."""
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
def test_a_backend_that_cannot_list_is_told(one: FakeBackend, error: Exception, told: str) -> None:
    """Why, and what would change that."""
    one.on_names = raising(error)
    assert ipcq.queues().unlisted["one"] == told


def test_a_backend_that_cannot_list_hides_nobodys_queues(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """A stranger's plugin is one line."""
    one.on_names = raising(TypeError("nonsense"))
    two.make(name)
    assert ipcq.QueueInfo(name, "two") in ipcq.queues()


@pytest.mark.parametrize("names", [None, 5])
def test_a_backend_that_lists_nonsense_is_told(
    one: FakeBackend, monkeypatch: pytest.MonkeyPatch, names: object
) -> None:
    """What is no list of names lists nothing."""
    monkeypatch.setattr(one, "names", lambda: names)
    assert "it cannot list its queues: TypeError" in ipcq.queues().unlisted["one"]


def test_a_backend_that_lists_is_not_among_the_unlisted(one: FakeBackend) -> None:
    """No reason where there is none."""
    assert "one" not in ipcq.queues().unlisted


def test_a_backend_that_says_nothing_of_listing_cannot_list(installed: Installed) -> None:
    """What a backend does not define is no."""

    class Silent(FakeBackend):
        def names(self) -> list[str]:
            return super(FakeBackend, self).names()

    installed.backend(Silent("silent", capabilities=Capabilities(scope=Scope.HOST)))
    assert ipcq.queues().unlisted["silent"] == "queues of this backend cannot be listed"


def test_a_backend_has_no_findings_unless_it_says_so(one: FakeBackend) -> None:
    """What a backend does not define is nothing."""
    assert one.findings() == []


def test_the_private_directory_is_not_listed(one: FakeBackend) -> None:
    """Listing takes no lock and makes nothing."""
    before = os.listdir("/proc/self/fd")
    ipcq.queues()
    assert os.listdir("/proc/self/fd") == before
