"""The rule that derives the limits of a queue from those that its creator requested."""

import pytest

from ipcq.backend import BUFFER_SIZE, Request, default_limits
from ipcq.errors import InvalidArgument


@pytest.mark.parametrize(
    ("asked", "limits"),
    [
        ({}, (None, BUFFER_SIZE // 4, BUFFER_SIZE)),
        ({"max_messages": 3}, (3, BUFFER_SIZE // 4, BUFFER_SIZE)),
        ({"max_message_size": 10}, (None, 10, BUFFER_SIZE)),
        ({"max_message_size": BUFFER_SIZE}, (None, BUFFER_SIZE, 4 * BUFFER_SIZE)),
        ({"buffer_size": 4000}, (None, 1000, 4000)),
        ({"buffer_size": 3}, (None, 1, 3)),
        ({"buffer_size": 30, "max_messages": 3, "max_message_size": 10}, (3, 10, 30)),
        ({"buffer_size": 4000, "max_messages": 100}, (100, 1000, 4000)),
        ({"max_messages": 3, "max_message_size": 10}, (3, 10, None)),
    ],
)
def test_limits_that_were_not_requested_follow_from_those_that_were(
    asked: dict[str, int], limits: tuple[int | None, int, int | None]
) -> None:
    """Clause 6: requested limits are kept, and the others are large enough for them."""
    found = default_limits(Request(**asked))
    assert (found.max_messages, found.max_message_size, found.buffer_size) == limits


@pytest.mark.parametrize(
    "asked",
    [{"buffer_size": 29, "max_messages": 3, "max_message_size": 10}, {"buffer_size": 9, "max_message_size": 10}],
)
def test_limits_that_contradict_each_other_are_refused(asked: dict[str, int]) -> None:
    """Clause 6: a requested limit is never rounded or ignored."""
    with pytest.raises(InvalidArgument, match="leave one of them out"):
        default_limits(Request(**asked))


def test_the_overhead_of_each_message_counts() -> None:
    """A backend that stores more than the bytes of a message gives the size that it stores."""
    request = Request(buffer_size=30, max_messages=3, max_message_size=10)
    with pytest.raises(InvalidArgument, match="which take 54 bytes"):
        default_limits(request, lambda size: size + 8)


def test_the_rest_of_a_request_is_kept() -> None:
    """Clause 6: mode, priorities and lifetime stay as requested."""
    found = default_limits(Request(mode=0o640, priorities=True, lifetime="last-close"))
    assert (found.mode, found.priorities, found.lifetime) == (0o640, True, "last-close")
