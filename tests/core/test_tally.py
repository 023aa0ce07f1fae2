"""Tallies: which messages consumers took, and the verdict on them."""

import json

import pytest

from ipcq.testing.oracle import Tag, Verdict
from ipcq.testing.tally import GROWTH, Tally, judge_tallies


def tally(*taken: tuple[int, int]) -> Tally:
    """Return the tally of a consumer that took these messages, given as producer and number."""
    found = Tally()
    for producer, number in taken:
        found.took(producer, number)
    return found


def judged(sent: list[int], *tallies: Tally) -> Verdict:
    """Judge tallies that went through JSON, as real ones do."""
    return judge_tallies(sent, [json.loads(json.dumps(each.report())) for each in tallies])


def test_taking_each_message_once_is_no_fault() -> None:
    """It does not matter which consumer took it."""
    verdict = judged([3, 2], tally((0, 0), (1, 0), (0, 2)), tally((0, 1), (1, 1)))
    assert (verdict.faults, verdict.accepted, verdict.received) == ([], 5, 5)


def test_a_message_that_no_consumer_took_is_lost() -> None:
    """It is reported by producer and number."""
    assert judged([3, 3], tally((0, 0), (0, 1), (0, 2), (1, 0)), tally((1, 2))).lost == [Tag(1, 1)]


def test_all_messages_of_a_producer_may_be_lost() -> None:
    """No consumer has an entry for that producer."""
    assert judged([0, 2], Tally()).lost == [Tag(1, 0), Tag(1, 1)]


def test_a_message_that_one_consumer_took_twice_is_duplicated() -> None:
    """It does not count as lost."""
    verdict = judged([2], tally((0, 0), (0, 1), (0, 0)))
    assert (verdict.duplicated, verdict.lost) == ([Tag(0, 0)], [])


def test_a_message_that_two_consumers_took_is_duplicated() -> None:
    """Each of them saw it only once."""
    assert judged([2], tally((0, 0), (0, 1)), tally((0, 1))).duplicated == [Tag(0, 1)]


def test_a_message_that_comes_after_a_later_one_is_reordered() -> None:
    """It is reported with the message that overtook it."""
    assert judged([3], tally((0, 0), (0, 2), (0, 1))).reordered == [(Tag(0, 1), Tag(0, 2))]


def test_producers_do_not_overtake_each_other() -> None:
    """Messages of different producers may come in any order."""
    assert judged([2, 2], tally((1, 0), (1, 1), (0, 0), (0, 1))).sound


@pytest.mark.parametrize("strange", [(0, 1), (0, -1), (7, 0), (0, 1 << 60)], ids=str)
def test_a_message_that_was_never_put_is_invented(strange: tuple[int, int]) -> None:
    """Its number may be too large, negative or absurd, without using memory for all below, or its producer unknown."""
    assert judged([1], tally((0, 0), strange)).invented == [Tag(*strange)]


def test_an_unreadable_message_is_torn() -> None:
    """It counts as received."""
    found = Tally()
    found.torn(b"half")
    verdict = judged([0], found)
    assert (verdict.torn, verdict.received) == (["b'half'"], 1)


def test_a_tally_grows_with_the_number_of_messages() -> None:
    """The bitmap is enlarged when needed."""
    count = GROWTH * 8 * 2 + 3
    assert judged([count], tally(*((0, number) for number in range(count)))).faults == []


@pytest.mark.parametrize("count", [0, 1, 8, 1001])
def test_a_consumer_that_checked_the_order_itself_has_the_same_tally(count: int) -> None:
    """Its tally has the first `count` messages."""
    verdict = judged([count], Tally.of_first(count))
    assert (verdict.faults, verdict.received) == ([], count)


def test_a_consumer_that_saw_one_message_less_lost_the_last() -> None:
    """The lost message is named."""
    assert judged([1001], Tally.of_first(1000)).faults == ["1 lost (no. 1000 of producer 0)"]


def test_the_first_five_of_many_losses_are_named() -> None:
    """An ellipsis shows that there are more."""
    told = judged([9], Tally()).losses
    assert told.startswith("9 lost (no. 0 of producer 0, ") and told.endswith("no. 4 of producer 0, …)")
