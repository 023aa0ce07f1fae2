"""The rule for names, which is checked before anything else."""

import pytest

from ipcq._opening.names import MAX_BYTES, check_name
from ipcq.errors import InvalidName


@pytest.mark.parametrize(
    "name",
    [
        "/a",
        "/jobs",
        "/.hidden",
        "/...",
        "/a b\n\t\\?*",
        "/" + "a" * MAX_BYTES,
        "/" + "ü" * (MAX_BYTES // 2),
        "/" + "🐍" * (MAX_BYTES // 4),
        "/-",
        "/\x01",
    ],
)
def test_a_valid_name_is_returned_unchanged(name: str) -> None:
    """After the slash, a name has 1 to 254 bytes of UTF-8."""
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "jobs",
        "jobs/",
        " /jobs",
        "/.",
        "/..",
        "//",
        "//jobs",
        "/jobs/",
        "/a/b",
        "/a\0b",
        "/\0",
        "/" + "a" * (MAX_BYTES + 1),
        "/" + "ü" * (MAX_BYTES // 2) + "a",
        "/" + "ü" * (MAX_BYTES // 2 + 1),
        "/\udc80",
        "\ud800",
        None,
        5,
        b"/jobs",
        ["/jobs"],
        True,
    ],
)
def test_an_invalid_name_is_refused(name: object) -> None:
    """A name that breaks the rule raises InvalidName."""
    with pytest.raises(InvalidName):
        check_name(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (b"/jobs", "a str such as '/jobs', not an object of type bytes"),
        ("jobs", "call it '/jobs'"),
        ("jobs/", "call it '/jobs'"),
        ("", InvalidName.wording),
        ("a/b", InvalidName.wording),
        ("/", "add 1 to 254 bytes"),
        ("/" + "a" * 255, "has 255 bytes after its '/', the limit is 254"),
        ("/" + "ü" * 128, "has 256 bytes"),
        ("/a/b", "second '/'"),
        ("/..", "is a directory"),
        ("/\udc80", "UTF-8"),
    ],
)
def test_a_refusal_gives_the_reason(name: object, words: str) -> None:
    """The text has the value that was given, and how to correct it."""
    with pytest.raises(InvalidName) as caught:
        check_name(name)
    assert words in str(caught.value)
