"""DESIGN 5: which backend serves a name, as a table."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from ipcq._choose import Attach, Candidate, Create, ambiguous, choose, shortcoming
from ipcq.backend import Availability, Capabilities, Request, Scope
from ipcq.errors import BackendUnavailable, QueueMismatch

HOST = Capabilities(scope=Scope.HOST)
ALL = Capabilities(
    scope=Scope.HOST,
    priorities=True,
    exact_qsize=True,
    pollable=True,
    notify=True,
    peek=True,
    shutdown=True,
    last_close=True,
    other_users=True,
)


def candidate(name: str, rank: int | None = None, able: Capabilities = HOST, **more: Any) -> Candidate:
    return Candidate(name=name, rank=rank, capabilities=able, **more)


SHM = candidate("shm", 400)
MQUEUE = candidate("mqueue", 300)
PYSHM = candidate("pyshm", 200)
SOCKETPAIR = candidate("socketpair", 100)
MEMORY = candidate("memory", None, replace(ALL, scope=Scope.PROCESS))
STRANGER = candidate("stranger")
LINUX = (MEMORY, MQUEUE, PYSHM, SHM, SOCKETPAIR)


def there(candidate: Candidate) -> Candidate:
    return replace(candidate, exists=True)


def broken(candidate: Candidate, reason: str = "no compiler") -> Candidate:
    return replace(candidate, availability=Availability.no(reason))


def able(candidate: Candidate, **abilities: Any) -> Candidate:
    return replace(candidate, capabilities=replace(candidate.capabilities, **abilities))


# Rule 1: what exists is attached to, wherever it is and whatever was asked for.
ATTACH: Mapping[str, tuple[Sequence[Candidate], dict[str, Any], str]] = {
    "on the best": ((there(SHM), MQUEUE), {}, "shm"),
    "on the worst": ((SHM, MQUEUE, PYSHM, there(SOCKETPAIR)), {}, "socketpair"),
    "on one without a rank": ((SHM, there(STRANGER)), {}, "stranger"),
    "on one within this process": ((there(MEMORY), SHM), {}, "memory"),
    "on one that lacks what is asked for": ((SHM, there(MQUEUE)), {"lifetime": "last-close"}, "mqueue"),
    "on one without the option": ((SHM, there(MQUEUE)), {"options": {"depth": 9}}, "mqueue"),
    "while another cannot be used": ((broken(SHM), there(MQUEUE)), {}, "mqueue"),
}


@pytest.mark.parametrize("case", ATTACH)
def test_what_exists_is_attached_to(case: str) -> None:
    """Rule 1: a queue of that name that exists on any backend is attached to."""
    candidates, asked, name = ATTACH[case]
    assert choose(candidates, Request(**asked)) == Attach(name)


def test_what_exists_is_attached_to_though_it_lacks_what_is_required() -> None:
    """Rule 1: require= never makes a second queue of one name; opening then compares."""
    assert choose([SHM, there(MQUEUE)], Request(), ["peek"]) == Attach("mqueue")


def test_what_exists_is_attached_to_though_another_is_preferred() -> None:
    """Rule 1 comes before IPCQ_BACKEND, which changes only rule 2."""
    assert choose([SHM, there(MQUEUE)], Request(), (), "shm") == Attach("mqueue")


@pytest.mark.parametrize("usable", [True, False])
def test_a_name_that_exists_twice_is_an_error_that_lists_both(usable: bool) -> None:
    """Rule 1: two found, an error that lists both, usable or not."""
    second = there(MQUEUE) if usable else broken(there(MQUEUE))
    with pytest.raises(QueueMismatch, match="it exists on 'mqueue' and 'shm': name one with backend="):
        choose([there(SHM), second], Request())


def test_a_name_that_exists_three_times_is_an_error_that_lists_all() -> None:
    """Rule 1 for three."""
    assert "'a' and 'b' and 'c'" in str(ambiguous(["b", "c", "a"]))


def test_what_exists_where_it_cannot_be_used_is_an_error() -> None:
    """An existing queue whose backend cannot be used here is an error that says so, never a second queue."""
    with pytest.raises(BackendUnavailable, match=r"backend 'shm': the queue exists there, .*: no compiler"):
        choose([broken(there(SHM)), MQUEUE], Request())


def test_the_error_for_what_cannot_be_used_carries_the_reason() -> None:
    """The reason is there for programs, too."""
    with pytest.raises(BackendUnavailable) as caught:
        choose([broken(there(SHM)), MQUEUE], Request())
    assert caught.value.reasons == {"shm": "no compiler"}


# Rule 2: nothing exists, so it is created on the best-ranked that is available and can honour everything.
Case = tuple[Sequence[Candidate], dict[str, Any], Collection[str], str | None, tuple[str, ...]]
CREATE: Mapping[str, Case] = {
    "by rank": (LINUX, {}, (), None, ("shm", "mqueue", "pyshm", "socketpair")),
    "by rank in any order of installation": (LINUX[::-1], {}, (), None, ("shm", "mqueue", "pyshm", "socketpair")),
    "by name among equals": (
        (candidate("b", 5), candidate("a", 5), candidate("c", 5)),
        {},
        (),
        None,
        ("a", "b", "c"),
    ),
    "a rank below zero is a rank": ((candidate("a", -5), candidate("b", 5)), {}, (), None, ("b", "a")),
    "never where there is no rank": ((STRANGER,), {}, (), None, ()),
    "never within one process": ((MEMORY, able(SHM, scope=Scope.FAMILY)), {}, (), None, ()),
    "on a network too": ((able(STRANGER, scope=Scope.NETWORK), able(SHM, scope=Scope.NETWORK)), {}, (), None, ("shm",)),
    "not where it cannot be used": ((broken(SHM), MQUEUE), {}, (), None, ("mqueue",)),
    "with priorities": ((SHM, able(MQUEUE, priorities=True)), {"priorities": True}, (), None, ("mqueue",)),
    "with lifetime": ((able(SHM, last_close=True), MQUEUE), {"lifetime": "last-close"}, (), None, ("shm",)),
    "for the group": ((SHM, able(MQUEUE, other_users=True)), {"mode": 0o660}, (), None, ("mqueue",)),
    "for others": ((SHM, able(MQUEUE, other_users=True)), {"mode": 0o604}, (), None, ("mqueue",)),
    "for the owner alone": ((SHM, able(MQUEUE, other_users=True)), {"mode": 0o700}, (), None, ("shm", "mqueue")),
    "of a size": (
        (able(SHM, max_message_size=99), able(MQUEUE, max_message_size=100), PYSHM),
        {"max_message_size": 100},
        (),
        None,
        ("mqueue", "pyshm"),
    ),
    "of any size": ((able(SHM, max_message_size=99),), {}, (), None, ("shm",)),
    "with what is required": ((SHM, able(MQUEUE, peek=True)), {}, ("peek",), None, ("mqueue",)),
    "with all that is required": (
        (able(SHM, peek=True), able(MQUEUE, peek=True, notify=True)),
        {},
        ("peek", "notify"),
        None,
        ("mqueue",),
    ),
    "with its option": ((SHM, replace(PYSHM, options={"lock"})), {"options": {"lock": "file"}}, (), None, ("pyshm",)),
    "on the preferred": (LINUX, {}, (), "socketpair", ("socketpair",)),
    "on the preferred though it has no rank": ((*LINUX, STRANGER), {}, (), "stranger", ("stranger",)),
    "not on the preferred within one process": (LINUX, {}, (), "memory", ()),
    "not on the preferred that cannot be used": ((broken(SHM), MQUEUE), {}, (), "shm", ()),
    "not on the preferred that cannot honour it": (LINUX, {"priorities": True}, (), "pyshm", ()),
    "on nothing": ((), {}, (), None, ()),
}


@pytest.mark.parametrize("case", CREATE)
def test_what_does_not_exist_is_created_in_this_order(case: str) -> None:
    """Rule 2: created on the best-ranked backend that is available here and can honour everything asked for."""
    candidates, asked, require, preferred, order = CREATE[case]
    decision = choose(candidates, Request(**asked), require, preferred)
    assert isinstance(decision, Create) and decision.order == order


PASSED_OVER: Mapping[str, tuple[Candidate, dict[str, Any], Collection[str], str | None, str]] = {
    "no rank": (STRANGER, {}, (), None, "it has no rank, so only backend='stranger' creates on it"),
    "no reach": (MEMORY, {}, (), None, "do not reach other processes: name it with backend='memory'"),
    "not preferred": (SHM, {}, (), "mqueue", "IPCQ_BACKEND names 'mqueue'"),
    "not usable": (broken(SHM), {}, (), None, "no compiler"),
    "no priorities": (SHM, {"priorities": True}, (), None, "it has no priorities"),
    "no last close": (SHM, {"lifetime": "last-close"}, (), None, "(lifetime='last-close')"),
    "no other users": (SHM, {"mode": 0o640}, (), None, "(mode=0o640)"),
    "too large": (
        able(SHM, max_message_size=99),
        {"max_message_size": 100},
        (),
        None,
        "its messages have at most 99 bytes, asked for 100",
    ),
    "not required": (SHM, {}, ("peek",), None, "it lacks the required capability 'peek'"),
    "no option": (SHM, {"options": {"lock": "file"}}, (), None, "it has no option 'lock'"),
}


@pytest.mark.parametrize("case", PASSED_OVER)
def test_a_backend_that_is_passed_over_is_told_with_its_reason(case: str) -> None:
    """If all fail, one error tells each reason: here they come from."""
    candidate, asked, require, preferred, words = PASSED_OVER[case]
    decision = choose([candidate], Request(**asked), require, preferred)
    assert isinstance(decision, Create) and words in decision.passed_over[candidate.name]


def test_who_is_in_the_order_is_not_passed_over() -> None:
    """Each candidate is either in the order or has a reason."""
    decision = choose(LINUX, Request())
    assert isinstance(decision, Create) and set(decision.passed_over) == {"memory"}


def test_a_backend_that_can_do_all_has_no_shortcoming() -> None:
    """A named backend is asked the same question, without rank and scope."""
    asked = Request(priorities=True, lifetime="last-close", mode=0o666, max_message_size=1 << 40)
    assert not shortcoming(replace(MEMORY, capabilities=ALL), asked, ["peek", "notify", "shutdown"])
