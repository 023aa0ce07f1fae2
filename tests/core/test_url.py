"""Addresses: plain names, and URLs that name the backend and may have options."""

import pickle
from typing import Any

import pytest

from ipcq._opening.address import Address, convert, parse, parse_bare, unknown_option
from ipcq.backend import Place, Secret
from ipcq.errors import InvalidArgument, InvalidName


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("/jobs", Address("/jobs")),
        ("/jobs?max_messages=4", Address("/jobs?max_messages=4")),
        ("/a:b", Address("/a:b")),
        ("mqueue:///jobs", Address("/jobs", "mqueue")),
        ("MQueue:///jobs", Address("/jobs", "mqueue")),
        ("a+b-c.d1:///jobs", Address("/jobs", "a+b-c.d1")),
        ("mqueue:///a%20b", Address("/a b", "mqueue")),
        ("mqueue:///a%3Fb", Address("/a?b", "mqueue")),
        ("mqueue:///%C3%BC", Address("/ü", "mqueue")),
        ("mqueue:///ü", Address("/ü", "mqueue")),
        ("mqueue:///a%0Ab", Address("/a\nb", "mqueue")),
        ("mqueue:///jobs?", Address("/jobs", "mqueue")),
    ],
)
def test_an_address_is_parsed(address: str, parsed: Address) -> None:
    """A URL has a backend and a name; a plain name is only a name."""
    assert parse(address) == parsed


@pytest.mark.parametrize(
    ("query", "option", "value"),
    [
        ("create=true", "create", True),
        ("create=0", "create", False),
        ("exclusive=Yes", "exclusive", True),
        ("read=no", "read", False),
        ("write=FALSE", "write", False),
        ("priorities=1", "priorities", True),
        ("other_users=true", "other_users", True),
        ("max_messages=4", "max_messages", 4),
        ("max_message_size=512", "max_message_size", 512),
        ("buffer_size=65536", "buffer_size", 65536),
        ("mode=640", "mode", 0o640),
        ("mode=0o600", "mode", 0o600),
        ("wait=1.5", "wait", 1.5),
        ("open_timeout=3", "open_timeout", 3.0),
        ("lifetime=last-close", "lifetime", "last-close"),
        ("serializer=raw", "serializer", "raw"),
        ("after_unlink=continue", "after_unlink", "continue"),
        ("require=peek,notify", "require", ("peek", "notify")),
        ("require=persistence:disk,peek", "require", ("persistence:disk", "peek")),
        ("depth=9", "depth", "9"),  # an option of a backend: only the backend knows its type
        ("depth=", "depth", ""),
        ("depth=a+b%26c", "depth", "a b&c"),
    ],
)
def test_an_option_in_a_url_gets_its_type(query: str, option: str, value: object) -> None:
    """The query has options of `open`."""
    assert dict(parse(f"mqueue:///jobs?{query}").options) == {option: value}


def test_a_url_may_have_several_options() -> None:
    """They are joined by '&'."""
    assert parse("m:///j?max_messages=4&read=no").options == {"max_messages": 4, "read": False}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("create=maybe", "write true or false"),
        ("create", "create=''"),
        ("max_messages=four", "max_messages='four'"),
        ("max_messages=", "max_messages=''"),
        ("max_messages", "max_messages=''"),
        ("max_messages=1.5", "max_messages='1.5'"),
        ("mode=999", "mode='999'"),
        ("wait=soon", "wait='soon'"),
        ("max_messages=1&max_messages=1", "'max_messages' twice"),
        ("depth=1&depth=2", "'depth' twice"),
        ("allow_pickle=true", "as an argument of ipcq.open"),
        ("type=str", "as an argument of ipcq.open"),
    ],
)
def test_a_bad_option_in_a_url_is_refused(query: str, words: str) -> None:
    """It has the wrong type, occurs twice, or could run code."""
    with pytest.raises(InvalidArgument) as caught:
        parse(f"mqueue:///jobs?{query}")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("redis://host/jobs", "redis://host/"),
        ("Redis://HOST:6379/0/jobs", "redis://host:6379/0/"),
        ("redis://user:word@host/0/jobs", "redis://host/0/"),
        ("redis://[::1]:6379/jobs", "redis://[::1]:6379/"),
        ("redis://%2Frun%2FRedis.sock/0/jobs", "redis://%2Frun%2FRedis.sock/0/"),
        ("redis://host:/jobs", "redis://host/"),
        ("sqlite:///var/lib/a%20b/jobs", "sqlite:///var/lib/a%20b/"),
        ("sqlite:///a%40b/jobs", "sqlite:///a%40b/"),
        ("redis://:word@/jobs", "redis:///"),
    ],
)
def test_what_is_before_the_name_is_the_place(address: str, text: str) -> None:
    """A host, or a path of more than one part."""
    name, backend, _ = parse(address)
    assert (name, str(backend)) == ("/jobs", text)


def test_a_place_has_the_decoded_parts_of_its_url() -> None:
    """The text is split before it is decoded."""
    where = parse("redis://us%3Aer:pa%2Fss@Host:6379/a%20b/c/jobs").backend
    assert isinstance(where, Place)
    assert (where.scheme, where.host, where.port, where.path) == ("redis", "host", 6379, ("a b", "c"))
    assert (where.user, where.password) == ("us:er", Secret("pa/ss"))


@pytest.mark.parametrize("text", ["redis://host:6379/0/", "redis://host:6379/0"])
def test_a_place_may_stand_for_a_backend(text: str) -> None:
    """Its last slash may be missing there."""
    assert parse("/jobs", text) == Address("/jobs", Place("redis", "host", 6379, ("0",)))


def test_the_place_of_a_backend_may_be_its_default() -> None:
    """A URL with neither host nor path means the same as the backend's name."""
    assert parse("/jobs", "shm:///") == Address("/jobs", "shm")


def test_a_place_has_no_options() -> None:
    """They would be ignored."""
    with pytest.raises(InvalidArgument, match="no options: pass them as arguments"):
        parse("/jobs", "redis://host/?max_messages=4")


def test_url_and_argument_may_name_one_place() -> None:
    """Spelled alike, they agree."""
    assert parse("redis://host/0/jobs", "redis://host/0").backend == Place("redis", "host", path=("0",))


def test_the_environment_may_name_the_place_for_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were passed as the backend."""
    monkeypatch.setenv("IPCQ_BACKEND", "redis://host/0/")
    assert parse("/jobs").backend == Place("redis", "host", path=("0",))
    assert parse("/jobs", "shm").backend == parse("shm:///jobs").backend == "shm"


def test_a_bad_place_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable."""
    monkeypatch.setenv("IPCQ_BACKEND", "redis://host:x/0/")
    with pytest.raises(InvalidArgument, match="unset the environment variable IPCQ_BACKEND"):
        parse("/jobs")


@pytest.mark.parametrize("kind", [Place("redis", "h", 1, ("0",), "u", Secret("word")), Secret("word")])
def test_a_place_shows_no_credentials(kind: object) -> None:
    """Neither does its password."""
    assert "word" not in f"{kind!r} {kind!s} {kind}"


def test_places_are_equal_if_their_texts_are() -> None:
    """The credentials do not count."""
    place = Place("redis", "h", 1, ("0",), "u", Secret("word"))
    assert len({place, Place("redis", "h", 1, ("0",))}) == 1


def test_a_place_is_pickled_without_its_credentials() -> None:
    """Another process needs them in its environment or in a file."""
    copy = pickle.loads(pickle.dumps(Place("redis", "h", 1, ("0",), "u", Secret("word"))))
    assert (copy, copy.user, copy.password) == (Place("redis", "h", 1, ("0",)), "", None)


def test_a_secret_is_not_pickled() -> None:
    """The error says what to do instead."""
    with pytest.raises(TypeError, match="in its environment or a file"):
        pickle.dumps(Secret("word"))


def test_secrets_compare_by_their_text() -> None:
    """So two places with one password can share a connection."""
    assert {Secret("a"), Secret("a"), Secret("b")} == {Secret("b"), Secret("a")}
    assert Secret("a") != "a"


def test_the_path_of_a_place_may_be_a_directory() -> None:
    """It is absolute."""
    assert Place("sqlite", path=("var", "lib")).directory == "/var/lib"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("mqueue:///jobs#part", "write '#' as %23"),
        ("redis://host//jobs", "a part of its path is empty"),
        ("redis:////jobs", "a part of its path is empty"),
        ("redis://host/a@b/jobs", "write that as %40"),
        ("redis://host/a%2Fb/jobs", "an encoded '/'"),
        ("redis://host/a%00b/jobs", "an encoded '/' or NUL"),
        ("redis://host:port/jobs", "its host or port is invalid"),
        ("redis://host:65536/jobs", "its host or port is invalid"),
        ("redis://::1/jobs", "its host or port is invalid"),
        ("redis://[/jobs", "its host or port is invalid"),
        ("redis://[::1/jobs", "its host or port is invalid"),
    ],
)
def test_a_malformed_url_is_refused(address: str, words: str) -> None:
    """The error says how to write it."""
    with pytest.raises(InvalidArgument) as caught:
        parse(address)
    assert words in str(caught.value)


@pytest.mark.parametrize("address", ["redis://host", "redis://host/", "redis://host/0/", "redis://host?a=%FF"])
def test_a_place_is_not_a_queue(address: str) -> None:
    """It ends in a slash, or has no path."""
    with pytest.raises(InvalidName, match="is a place: add a queue's name"):
        parse(address)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "mqueue:/jobs",
            "mqueue://",
            "mqueue:///",
            "mqueue:///a%2Fb",
            "mqueue:///..",
            "mqueue:///a%00b",
        ),
        *("://jobs", "1x:///jobs", "jobs", "", None, 5, b"mqueue:///jobs"),
    ],
)
def test_the_name_in_an_address_must_be_valid(address: Any) -> None:
    """The rule for names applies to the decoded name of a URL."""
    with pytest.raises(InvalidName):
        parse(address)


@pytest.mark.parametrize("address", ["mqueue:///a%FF", "mqueue:///jobs?depth=%FF", "redis://a%FF/jobs"])
def test_bytes_in_a_url_that_are_not_utf_8_are_refused(address: str) -> None:
    """Otherwise different URLs could name the same queue."""
    with pytest.raises(InvalidArgument, match="not a URL"):
        parse(address)


@pytest.mark.parametrize("blank", ["\n", "\r", "\t"])
def test_whitespace_in_a_url_is_not_dropped_silently(blank: str) -> None:
    """Without the newline, it would be the URL of another queue."""
    with pytest.raises(InvalidArgument, match="%XX"):
        parse(f"mqueue:///a{blank}b")


def test_a_url_without_options_is_a_name_and_a_backend() -> None:
    """Calls other than `open` need only these."""
    assert parse_bare("mqueue:///jobs", "auto") == ("/jobs", "mqueue")


def test_calls_other_than_open_refuse_options() -> None:
    """The options of a URL are only for `open`."""
    with pytest.raises(InvalidArgument, match="leave out max_messages"):
        parse_bare("mqueue:///jobs?max_messages=4", "auto")


@pytest.mark.parametrize(
    ("scheme", "argument", "backend"),
    [(None, "auto", "auto"), (None, "shm", "shm"), ("shm", "auto", "shm"), ("shm", "shm", "shm")],
)
def test_url_or_argument_name_the_backend(scheme: str | None, argument: str, backend: str) -> None:
    """The backend of the URL counts if the argument is omitted."""
    assert parse(f"{scheme}:///jobs" if scheme else "/jobs", argument).backend == backend


def test_url_and_argument_that_name_two_backends_are_refused() -> None:
    """The error names both."""
    with pytest.raises(InvalidArgument, match="'shm', but the argument names 'mqueue'"):
        parse("shm:///jobs", "mqueue")


@pytest.mark.parametrize("backend", [None, 5, b"shm", ["shm"]])
def test_a_backend_is_named_by_a_str(backend: object) -> None:
    """Anything else raises InvalidArgument."""
    with pytest.raises(InvalidArgument, match="a str such as 'auto'"):
        parse("/jobs", backend)


def test_the_text_of_a_numeric_option_becomes_a_number() -> None:
    """In a URL, an option of type int is text."""
    assert convert("depth", "9", int) == 9


def test_a_mistyped_option_gets_a_suggestion() -> None:
    """The error has the most similar option."""
    assert "did you mean 'max_messages'?" in str(unknown_option("max_message", ["max_messages", "mode"]))


def test_an_unknown_option_without_a_similar_name_gets_the_list() -> None:
    """The error lists the options."""
    assert str(unknown_option("zzz", ["mode", "create"])).endswith("choose from create, mode")
