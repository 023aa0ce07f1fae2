"""Addresses: plain names, and URLs that name the backend and may have options."""

from typing import Any

import pytest

from ipcq._opening.address import Address, convert, parse, parse_place, unknown_option
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
    ("address", "words"),
    [
        ("mqueue://host/jobs", "mqueue:///name"),
        ("mqueue://jobs", "has a host"),
        ("mqueue://user@host:80/jobs", "has a host"),
        ("mqueue:///jobs#part", "a fragment"),
        ("mqueue://[/jobs", "has a host"),
    ],
)
def test_a_url_with_a_host_or_a_fragment_is_refused(address: str, words: str) -> None:
    """A queue is on this machine and has no parts."""
    with pytest.raises(InvalidArgument) as caught:
        parse(address)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "mqueue:/jobs",
            "mqueue://",
            "mqueue:///",
            "mqueue:///a/b",
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


@pytest.mark.parametrize("address", ["mqueue:///a%FF", "mqueue:///jobs?depth=%FF"])
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
    assert parse_place("mqueue:///jobs", "auto") == ("/jobs", "mqueue")


def test_calls_other_than_open_refuse_options() -> None:
    """The options of a URL are only for `open`."""
    with pytest.raises(InvalidArgument, match="leave out max_messages"):
        parse_place("mqueue:///jobs?max_messages=4", "auto")


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
