"""Placeholders in the arguments of ``ipcq work``."""

from typing import Any

import pytest

from ipcq._cli._placeholders import Unfit, filled, has_placeholder

ORDER = {"id": 7, "user": {"name": "Ann", "id": None}, "tags": ["new", {"x": True}]}


@pytest.mark.parametrize(
    ("item", "text"),
    [("a b", "a b"), (b"a b", "a b"), ({"id": 1}, '{"id": 1}'), (None, "null"), (b"\xff", "\udcff")],
)
def test_braces_stand_for_the_item(item: Any, text: str) -> None:
    """As `ipcq get` prints it; bytes that are not UTF-8 reach the command unchanged."""
    assert filled(["--item={}!"], item) == [f"--item={text}!"]


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("{id}", "7"),
        ("{user.name}", "Ann"),
        ("{user.id}", "null"),
        ("{user}", '{"name": "Ann", "id": null}'),
        ("{tags.0}", "new"),
        ("{tags.1.x}", "true"),
        ("{id}-{user.name}", "7-Ann"),
    ],
)
def test_path_stands_for_a_part(word: str, text: str) -> None:
    """Keys and indexes; text as it is, anything else as JSON."""
    assert filled([word], ORDER) == [text]


@pytest.mark.parametrize("item", ['{"id": 7}', b'{"id": 7}'])
def test_text_that_is_json_has_parts(item: Any) -> None:
    """Producers may have put it without --json."""
    assert filled(["{id}"], item) == ["7"]


@pytest.mark.parametrize(
    ("word", "text"),
    [("{{id}}", "{id}"), ("{{}}", "{}"), ("{{{id}}}", "{{id}}"), ("{{id}} {id}", "{id} 7")],
)
def test_doubled_braces_stand_for_themselves(word: str, text: str) -> None:
    """For a command that has a meaning for them, such as ``find -exec``."""
    assert filled([word], ORDER) == [text]


@pytest.mark.parametrize("word", ["${HOME}", "{print $1}", "{1..5}", "{.id}", "a{b,c}", "{", "}{"])
def test_other_braces_mean_nothing(word: str) -> None:
    """They belong to shells, awk and others."""
    assert filled([word], ORDER) == [word]


def test_replacement_is_not_replaced_again() -> None:
    """A message cannot refer to its parts."""
    assert filled(["{a}"], {"a": "{b}", "b": "secret"}) == ["{b}"]


@pytest.mark.parametrize(
    ("word", "item"),
    [
        ("{nothing}", ORDER),
        ("{tags.2}", ORDER),
        ("{tags.x}", ORDER),
        ("{id.x}", ORDER),
        ("{id}", "no JSON"),
        ("{id}", b"\xff"),
        ("{id}", 7),
        ("{id}", "[" * 100_000),
    ],
)
def test_missing_part_is_named(word: str, item: Any) -> None:
    """The message does not have what the command needs."""
    with pytest.raises(Unfit, match=f"it has no {word}"):
        filled([word], item)


def test_nul_cannot_be_an_argument() -> None:
    """An argument ends there."""
    with pytest.raises(Unfit, match=r"\{\} has a NUL"):
        filled(["{}"], "a\0b")


@pytest.mark.parametrize(("word", "has"), [("{}", True), ("{id}", True), ("{{id}}", False), ("sh", False)])
def test_word_depends_on_the_item_if_it_has_a_placeholder(word: str, has: bool) -> None:
    """Only others can be looked up before there is an item."""
    assert has_placeholder(word) is has
