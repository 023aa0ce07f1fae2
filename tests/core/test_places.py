"""Places: one backend keeps queues in several, each named by a URL."""

import pickle
import sys
from typing import Any

import pytest

import ipcq
import ipcq.logging
from core.conftest import Installed
from core.fakes import HOST, FakeBackend, PlacedBackend, raising
from ipcq._abilities.dead_letters import dead_command
from ipcq._opening import registry
from ipcq.backend import Backend, Capabilities, Persistence, Place, Scope, Secret
from ipcq.errors import (
    BackendUnavailable,
    BackendUnknown,
    InvalidArgument,
    MessageQueueError,
    NoSpace,
    QueueMismatch,
    QueueNotFound,
    Unsupported,
)

PLACE = "placed://host:7000/3/"


@pytest.fixture
def placed(installed: Installed) -> PlacedBackend:
    """Return an installed backend with places, and one without beside it."""
    placed = PlacedBackend(rank=900, options={"shape": str, "depth": int, "word": Secret, "pass_key": int})
    installed.backend(placed)
    installed.backend(FakeBackend("plain", rank=800))
    return placed


# Opening


@pytest.mark.parametrize(
    ("address", "backend"),
    [
        (f"{PLACE}placed-jobs", "auto"),
        ("placed://host/3/placed-jobs", "auto"),
        ("placed://user:word@HOST:7000/3/placed-jobs", "auto"),
        ("/placed-jobs", PLACE),
        ("/placed-jobs", "placed://host/3"),
        ("placed://host/3/placed-jobs", "placed://host/3/"),
    ],
)
def test_all_spellings_of_a_place_lead_to_one_queue(placed: PlacedBackend, address: str, backend: str) -> None:
    """The backend fills in what is left out."""
    with ipcq.open(address, backend) as queue:
        assert (queue.name, queue.backend) == ("/placed-jobs", PLACE)
    assert list(placed.bound[PLACE].queues) == ["/placed-jobs"]


@pytest.mark.parametrize(
    "address", ["placed:///placed-jobs", "placed://localhost:7000/0/placed-jobs", "placed://localhost/placed-jobs"]
)
def test_a_url_of_the_default_place_means_the_backend(placed: PlacedBackend, address: str) -> None:
    """Its queues are those that a plain name finds."""
    with ipcq.open(address) as queue:
        assert (queue.backend, list(placed.queues)) == ("placed", ["/placed-jobs"])


def test_queues_in_two_places_do_not_meet(placed: PlacedBackend) -> None:
    """Not even with the same name."""
    with (
        ipcq.open(f"{PLACE}placed-jobs") as one,
        ipcq.open("placed://host/4/placed-jobs") as two,
        ipcq.open("/placed-jobs") as three,
    ):
        one.put("one")
        assert (two.qsize(), three.qsize(), one.qsize()) == (0, 0, 1)


def test_a_scheme_may_be_an_alias(placed: PlacedBackend) -> None:
    """The backend sees by the scheme how it was named."""
    with ipcq.open("placeds://host/3/placed-jobs") as queue:
        assert queue.backend == "placeds://host:7000/3/"
    with ipcq.open("placeds:///placed-jobs") as queue:
        assert queue.backend == "placeds://localhost:7000/0/"


def test_an_alias_counts_in_suggestions(placed: PlacedBackend) -> None:
    """As names of backends do."""
    with pytest.raises(BackendUnknown, match="did you mean 'distant'"):
        ipcq.open("distand:///placed-jobs")


def test_the_first_of_two_backends_with_an_alias_has_it(placed: PlacedBackend, installed: Installed) -> None:
    """The order of installation does not matter."""
    installed.backend(PlacedBackend("another"))
    installed.backend(PlacedBackend("yet-another"))
    assert registry.plugin("placeds").name == "another"


@pytest.mark.parametrize(
    "call",
    [
        lambda: ipcq.open("plain://host/placed-jobs"),
        lambda: ipcq.exists("plain:///a/placed-jobs"),
        lambda: ipcq.unlink("/placed-jobs", "plain://host/"),
        lambda: ipcq.queues("plain://host/"),
    ],
)
def test_a_backend_without_places_says_how_to_write_its_urls(placed: PlacedBackend, call: Any) -> None:
    """The error names the place that was given."""
    with pytest.raises(InvalidArgument, match=r"backend 'plain://?/.*plain:///name\?option=value"):
        call()


def test_the_error_of_a_place_says_how_to_write_it(placed: PlacedBackend) -> None:
    """It is the backend's own, with the queue's name."""
    with pytest.raises(
        InvalidArgument, match=r"queue '/placed-jobs' on backend 'placed://host/x/': .* is not a number"
    ):
        ipcq.open("placed://:word@host/x/placed-jobs")


def test_a_backend_gets_the_credentials_once(placed: PlacedBackend) -> None:
    """It keeps them in the descriptor."""
    ipcq.open("placed://us:word@host/3/placed-jobs").close()
    (place,) = placed.given
    assert (place.user, place.password) == ("us", Secret("word"))


def test_an_error_on_an_open_handle_names_the_place(placed: PlacedBackend) -> None:
    """As one of another backend names the backend."""
    with ipcq.open(f"{PLACE}placed-jobs") as queue, pytest.raises(ipcq.QueueEmpty) as caught:
        queue.get_nowait()
    assert (caught.value.queue, caught.value.backend) == ("/placed-jobs", PLACE)


def test_a_repr_names_the_place(placed: PlacedBackend) -> None:
    """Without credentials."""
    with ipcq.open("placed://us:word@host/3/placed-jobs") as queue:
        assert repr(queue) == f"<ipcq.Queue '/placed-jobs' on '{PLACE}', open>"


def test_the_name_lock_is_not_taken_for_other_machines(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not see it."""
    installed.backend(PlacedBackend(capabilities=Capabilities(scope=Scope.NETWORK, persistence=Persistence.DISK)))
    monkeypatch.setattr("ipcq._opening.rendezvous.name_lock", raising(AssertionError("taken")))
    with ipcq.open(f"{PLACE}placed-jobs") as queue:
        queue.unlink()


class Faulty(FakeBackend):
    """A fake whose `at` raises or returns what a test sets."""

    answer: Any = None

    def at(self, place: Place) -> Backend:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]  # a wrong type, on purpose


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (None, BackendUnavailable, "on backend 'faulty://h/': its method at must return a Backend, not None"),
        (ValueError("no"), BackendUnavailable, "on backend 'faulty://h/': it cannot use the place: ValueError: no"),
        (MemoryError(), NoSpace, "queue '/placed-jobs' on backend 'faulty://h/'"),
    ],
)
def test_a_faulty_plugin_is_named(installed: Installed, answer: object, kind: type[Exception], words: str) -> None:
    """A shortage of the system is not its fault."""
    faulty = Faulty("faulty")
    faulty.answer = answer
    installed.backend(faulty)
    with pytest.raises(kind) as caught:
        ipcq.open("faulty://h/placed-jobs")
    assert words in str(caught.value)


def test_a_place_on_another_platform_is_refused(installed: Installed) -> None:
    """`at` may need what only its platforms have, so it is not called on others."""
    faulty = Faulty("faulty")
    faulty.platforms = ("plan9",)
    faulty.answer = ValueError("called")
    installed.backend(faulty)
    with pytest.raises(BackendUnavailable, match=f"it works only on plan9, but this is {sys.platform}"):
        ipcq.open("faulty://h/placed-jobs")


# Finding, removing, listing


def test_a_queue_exists_in_its_place_alone(placed: PlacedBackend) -> None:
    """Its name is free in others, and for ``auto``."""
    ipcq.open(f"{PLACE}placed-jobs").close()
    found = [
        ipcq.exists("placed://host/3/placed-jobs"),
        ipcq.exists("placed://host/4/placed-jobs"),
        ipcq.exists("/placed-jobs"),
    ]
    assert found == [True, False, False]


@pytest.mark.parametrize(
    "call", [lambda: ipcq.unlink(f"{PLACE}placed-jobs"), lambda: ipcq.unlink("/placed-jobs", PLACE)]
)
def test_unlink_removes_a_queue_in_its_place_alone(placed: PlacedBackend, call: Any) -> None:
    """A queue of the same name elsewhere stays."""
    for address in (f"{PLACE}placed-jobs", "/placed-jobs"):
        ipcq.open(address).close()
    call()
    assert (list(placed.bound[PLACE].queues), list(placed.queues)) == ([], ["/placed-jobs"])


def test_a_missing_queue_is_located(placed: PlacedBackend) -> None:
    """The error of `unlink` names the place."""
    with pytest.raises(QueueNotFound, match=f"queue '/placed-jobs' on backend '{PLACE}': no such queue"):
        ipcq.unlink("placed://host/3/placed-jobs")


def test_a_handle_unlinks_its_queue_with_its_credentials(placed: PlacedBackend) -> None:
    """It uses the descriptor that has them, and asks for no other."""
    with ipcq.open("placed://us:word@host/3/placed-jobs") as queue:
        queue.unlink()
    assert (len(placed.given), list(placed.bound[PLACE].queues)) == (1, [])


@pytest.mark.parametrize("place", [PLACE, "placed://host/3"])
def test_the_queues_of_a_place_are_listed(placed: PlacedBackend, place: str) -> None:
    """Those, and no others."""
    for address in (f"{PLACE}b", f"{PLACE}a", "/c"):
        ipcq.open(address).close()
    assert ipcq.queues(place) == [ipcq.QueueInfo("/a", PLACE), ipcq.QueueInfo("/b", PLACE)]


def test_the_queues_of_one_backend_are_listed(placed: PlacedBackend) -> None:
    """Other backends are not asked."""
    for address in ("placed:///b", "plain:///a"):
        ipcq.open(address).close()
    assert ipcq.queues("placed") == [ipcq.QueueInfo("/b", "placed")]


def test_a_listing_leads_to_its_queues(placed: PlacedBackend) -> None:
    """What it says about a queue opens the queue."""
    ipcq.open(f"{PLACE}placed-jobs").close()
    (info,) = ipcq.queues(PLACE)
    with ipcq.open(info.name, info.backend, create=False) as queue:
        assert queue.backend == PLACE


@pytest.mark.parametrize(
    ("error", "kind"), [(ValueError("no"), BackendUnavailable), (Unsupported("not here"), Unsupported)]
)
def test_a_named_backend_that_cannot_list_is_an_error(
    placed: PlacedBackend, error: Exception, kind: type[Exception]
) -> None:
    """An empty list would be wrong."""
    placed.on_names = raising(error)
    with pytest.raises(kind, match=r"backend 'placed': (it cannot list its queues: ValueError: no|not here)"):
        ipcq.queues("placed")


# The environment


def test_auto_may_mean_a_place(placed: PlacedBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue of the name in another place is not found."""
    ipcq.open("/placed-jobs").close()
    monkeypatch.setenv("IPCQ_BACKEND", PLACE)
    assert (ipcq.exists("/placed-jobs"), ipcq.queues()) == (False, [])
    with ipcq.open("/placed-jobs") as queue:
        assert queue.backend == PLACE
    ipcq.unlink("/placed-jobs")
    assert list(placed.queues) == ["/placed-jobs"]


# Options, and pickles


def test_a_queue_shows_its_options(placed: PlacedBackend) -> None:
    """Those of its creation, from every handle."""
    with ipcq.open("/placed-jobs", "placed", shape="round", depth=3), ipcq.open("/placed-jobs") as other:
        assert other.options == {"shape": "round"}


@pytest.mark.parametrize("options", [{}, {"shape": "round"}, {"depth": 5}])
def test_options_that_agree_attach(placed: PlacedBackend, options: dict[str, Any]) -> None:
    """One that concerns a channel alone agrees with everything."""
    with ipcq.open("/placed-jobs", "placed", shape="round"), ipcq.open("/placed-jobs", "placed", **options) as other:
        assert other.options == {"shape": "round"}


@pytest.mark.parametrize("address", ["placed:///placed-jobs?shape=flat", "/placed-jobs"])
def test_another_option_is_a_mismatch(placed: PlacedBackend, address: str) -> None:
    """As another limit is."""
    options: dict[str, Any] = {"shape": "flat"} if address == "/placed-jobs" else {}
    with (
        ipcq.open("/placed-jobs", "placed", shape="round"),
        pytest.raises(QueueMismatch, match="shape is 'round', asked for 'flat'"),
    ):
        ipcq.open(address, "placed", **options)


def test_a_pickled_handle_keeps_place_and_options(placed: PlacedBackend) -> None:
    """It opens the same queue in the same way, without the passwords."""
    address = "placed://us:word@host/3/placed-jobs?shape=round&depth=3&word=sesame"
    with ipcq.open(address) as queue, pickle.loads(pickle.dumps(queue)) as copy:
        first, second = placed.bound[PLACE].requests
        assert copy.backend == PLACE
    assert first.options == {"shape": "round", "depth": 3, "word": Secret("sesame")}
    assert second.options == {"shape": "round", "depth": 3}
    assert [place.user for place in placed.given] == ["us", ""]


def test_an_option_may_be_a_secret(placed: PlacedBackend) -> None:
    """Text in a URL and an argument become one."""
    with ipcq.open("/placed-jobs", "placed", word="sesame"), ipcq.open("placed:///placed-jobs?word=sesame"):
        assert [request.options["word"] for request in placed.requests] == [Secret("sesame")] * 2


def test_a_mistyped_secret_is_not_shown(placed: PlacedBackend) -> None:
    """The option's name does not have to tell that it is one."""
    with pytest.raises(InvalidArgument) as caught:
        ipcq.open("/placed-jobs", "placed", word=["barley"])
    assert "barley" not in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"pass_key": 5}])
def test_an_option_whose_name_tells_that_it_is_secret_is_not_shown(
    placed: PlacedBackend, options: dict[str, Any]
) -> None:
    """Neither by the error nor by the one behind it."""
    with pytest.raises(InvalidArgument, match="pass_key") as caught:
        ipcq.open("placed:///placed-jobs?pass_key=millet", **options)
    error = caught.value
    assert ("millet" in str(error), error.__cause__, error.__suppress_context__) == (False, None, True)


def test_options_that_differ_are_not_shown_if_they_are_secret(placed: PlacedBackend) -> None:
    """In the URL and as an argument."""
    with pytest.raises(InvalidArgument, match=r"pass_key is '\*\*\*' in the URL, but '\*\*\*' as an argument"):
        ipcq.open("placed:///placed-jobs?pass_key=11111", pass_key=22222)


def test_logging_pickles_no_password() -> None:
    """A listener's process needs it in its environment."""
    records = ipcq.logging.RecordQueue("placed://us:word@host/3/placed-jobs?shape=round", serializer="msgpack")
    data = pickle.dumps(records)
    assert (b"word" in data, b"placed://host/3/placed-jobs?shape=round" in data) == (False, True)


def test_a_pickled_record_queue_opens_its_queue(placed: PlacedBackend) -> None:
    """It is the same one; the handle is not pickled."""
    records = ipcq.logging.RecordQueue("placed://us:word@host/3/placed-jobs")
    records.qsize()
    copy = pickle.loads(pickle.dumps(records))
    assert len(placed.bound[PLACE].channels) == 1
    assert (copy.qsize(), list(placed.bound[PLACE].queues)) == (0, ["/placed-jobs"])
    for each in (records, copy):
        each.close()


@pytest.mark.parametrize(
    ("name", "backend", "command"),
    [
        ("/a b", "shm", "ipcq dead '/a b'"),
        ("/placed-jobs", "a://h/x$y/", "ipcq dead /placed-jobs --backend 'a://h/x$y/'"),
    ],
)
def test_the_command_for_dead_letters_names_the_place(name: str, backend: str, command: str) -> None:
    """It would show and drop those of another queue otherwise."""
    assert dead_command(name, backend) == command


# Capabilities


def test_a_backend_without_places_denies_them() -> None:
    """The suite goes by this."""
    assert (HOST.places, Capabilities().places) == (False, False)


def test_a_live_secret_is_removed_from_errors() -> None:
    """A library may quote a password without its URL."""
    secret = Secret("fenugreek")
    assert str(MessageQueueError("AUTH fenugreek failed")) == "AUTH *** failed"
    del secret
    assert str(MessageQueueError("fenugreek is a seed")) == "fenugreek is a seed"


def test_a_short_secret_is_not_removed_from_errors() -> None:
    """Too many words contain it."""
    secret = Secret("ail")
    assert (str(MessageQueueError("failed")), secret.reveal()) == ("failed", "ail")
