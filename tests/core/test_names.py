"""One rule for names, before anything else looks at them."""

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
def test_a_good_name_comes_back_as_it_is(name: str) -> None:
    """1 to 254 bytes of UTF-8 after the slash, whatever they are."""
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
def test_a_bad_name_is_refused(name: object) -> None:
    """Whatever breaks the rule is InvalidName."""
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
def test_a_refusal_tells_what_is_wrong(name: object, words: str) -> None:
    """The text names what was given and how it would be right."""
    with pytest.raises(InvalidName) as caught:
        check_name(name)
    assert words in str(caught.value)
