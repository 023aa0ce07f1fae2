"""C31: how `auto` chooses a backend, as tables of cases."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from ipcq._opening.choose import Attach, Candidate, Create, Minimum, ambiguous, choose, missing_capability, shortcoming
from ipcq.backend import Availability, Capabilities, Persistence, Request, Scope
from ipcq.errors import BackendUnavailable, QueueMismatch

HOST = Capabilities(scope=Scope.HOST, persistence=Persistence.KERNEL)
ALL = Capabilities(
    scope=Scope.HOST,
    persistence=Persistence.KERNEL,
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
SOCKETPAIR = candidate("socketpair", 100, replace(HOST, persistence=Persistence.HOLDERS, last_close=True))
MEMORY = candidate("memory", None, replace(ALL, scope=Scope.PROCESS))
STRANGER = candidate("stranger")
LINUX = (MEMORY, MQUEUE, PYSHM, SHM, SOCKETPAIR)


def there(candidate: Candidate) -> Candidate:
    return candidate._replace(exists=True)


def broken(candidate: Candidate, reason: str = "no compiler") -> Candidate:
    return candidate._replace(availability=Availability.no(reason))


def able(candidate: Candidate, **abilities: Any) -> Candidate:
    return candidate._replace(capabilities=replace(candidate.capabilities, **abilities))


# Rule 1: `auto` attaches to an existing queue, on any backend and whatever was requested.
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
def test_an_existing_queue_is_attached_to(case: str) -> None:
    """Rule 1: it may exist on any backend."""
    candidates, asked, name = ATTACH[case]
    assert choose(candidates, Request(**asked)) == Attach(name)


def test_an_existing_queue_is_attached_to_even_if_it_lacks_a_requirement() -> None:
    """Rule 1: `require=` never creates a second queue of a name; opening checks it afterwards."""
    assert choose([SHM, there(MQUEUE)], Request(), {"peek": True}) == Attach("mqueue")


def test_an_existing_queue_is_attached_to_even_if_another_backend_is_preferred() -> None:
    """Rule 1 precedes IPCQ_BACKEND, which affects only rule 2."""
    assert choose([SHM, there(MQUEUE)], Request(), (), "shm") == Attach("mqueue")


@pytest.mark.parametrize("usable", [True, False])
def test_a_name_that_exists_twice_is_an_error_that_lists_both(usable: bool) -> None:
    """Rule 1: whether or not both can be used."""
    second = there(MQUEUE) if usable else broken(there(MQUEUE))
    with pytest.raises(QueueMismatch, match="it exists on 'mqueue' and 'shm': choose one with backend="):
        choose([there(SHM), second], Request())


def test_a_name_that_exists_three_times_is_an_error_that_lists_all() -> None:
    """Rule 1: the same for three."""
    assert "'a' and 'b' and 'c'" in str(ambiguous(["b", "c", "a"]))


def test_an_existing_queue_on_an_unusable_backend_is_an_error() -> None:
    """Rule 1: a second queue of the name is never created instead."""
    with pytest.raises(BackendUnavailable, match=r"backend 'shm': the queue exists on this backend, .*: no compiler"):
        choose([broken(there(SHM)), MQUEUE], Request())


def test_the_error_for_an_unusable_backend_carries_the_reason() -> None:
    """Programs find the reason in an attribute."""
    with pytest.raises(BackendUnavailable) as caught:
        choose([broken(there(SHM)), MQUEUE], Request())
    assert caught.value.reasons == {"shm": "no compiler"}


ONLY_SOCKETPAIR = (*map(broken, (SHM, MQUEUE, PYSHM)), SOCKETPAIR)
LAST_CLOSE = {"lifetime": "last-close"}

# Rule 2: if no queue exists, `auto` creates it on the best-ranked usable backend that can honour the whole request.
Case = tuple[Sequence[Candidate], dict[str, Any], Mapping[str, Minimum], str | None, tuple[str, ...]]
CREATE: Mapping[str, Case] = {
    "by rank": (LINUX, {}, {}, None, ("shm", "mqueue", "pyshm")),
    "by rank in any order of installation": (LINUX[::-1], {}, {}, None, ("shm", "mqueue", "pyshm")),
    "for as long as it is open": (
        (able(SHM, last_close=True), SOCKETPAIR),
        LAST_CLOSE,
        {},
        None,
        ("shm", "socketpair"),
    ),
    "for the owner alone": (
        (able(SHM, modes=True), able(MQUEUE, other_users=True), PYSHM),
        {"mode": 0o700},
        {},
        None,
        ("shm", "mqueue"),
    ),
    "after an unlink": ((SHM, able(MQUEUE, after_unlink=True)), {"after_unlink": "continue"}, {}, None, ("mqueue",)),
    "where it is forgotten if all others cannot be used": (ONLY_SOCKETPAIR, {}, {}, None, ("socketpair",)),
    "where it is forgotten if the others have no rank": ((SOCKETPAIR, STRANGER), {}, {}, None, ("socketpair",)),
    "not where it is forgotten if the others cannot do it": (
        (PYSHM, able(SOCKETPAIR, peek=True)),
        {},
        {"peek": True},
        None,
        (),
    ),
    "not where it is forgotten if that is not enough": (
        ONLY_SOCKETPAIR,
        {},
        {"persistence": Persistence.KERNEL},
        None,
        (),
    ),
    "of a persistence": (
        (SHM, able(MQUEUE, persistence=Persistence.DISK)),
        {},
        {"persistence": Persistence.DISK},
        None,
        ("mqueue",),
    ),
    "of a larger persistence": (
        (SHM, able(MQUEUE, persistence=Persistence.SYNCED)),
        {},
        {"persistence": Persistence.DISK},
        None,
        ("mqueue",),
    ),
    "of a required size": (
        (able(SHM, max_message_size=99), able(MQUEUE, max_message_size=100), PYSHM),
        {},
        {"max_message_size": 100},
        None,
        ("mqueue", "pyshm"),
    ),
    "by name among equals": (
        (candidate("b", 5), candidate("a", 5), candidate("c", 5)),
        {},
        {},
        None,
        ("a", "b", "c"),
    ),
    "a rank below zero is a rank": ((candidate("a", -5), candidate("b", 5)), {}, {}, None, ("b", "a")),
    "never where there is no rank": ((STRANGER,), {}, {}, None, ()),
    "never within one process": ((MEMORY, able(SHM, scope=Scope.FAMILY)), {}, {}, None, ()),
    "on a network too": ((able(STRANGER, scope=Scope.NETWORK), able(SHM, scope=Scope.NETWORK)), {}, {}, None, ("shm",)),
    "not where it cannot be used": ((broken(SHM), MQUEUE), {}, {}, None, ("mqueue",)),
    "with priorities": ((SHM, able(MQUEUE, priorities=True)), {"priorities": True}, {}, None, ("mqueue",)),
    "with lifetime": ((able(SHM, last_close=True), MQUEUE), {"lifetime": "last-close"}, {}, None, ("shm",)),
    "for the group": ((SHM, able(MQUEUE, other_users=True)), {"mode": 0o660}, {}, None, ("mqueue",)),
    "for others": ((SHM, able(MQUEUE, other_users=True)), {"mode": 0o604}, {}, None, ("mqueue",)),
    "of a size": (
        (able(SHM, max_message_size=99), able(MQUEUE, max_message_size=100), PYSHM),
        {"max_message_size": 100},
        {},
        None,
        ("mqueue", "pyshm"),
    ),
    "of any size": ((able(SHM, max_message_size=99),), {}, {}, None, ("shm",)),
    "with what is required": ((SHM, able(MQUEUE, peek=True)), {}, {"peek": True}, None, ("mqueue",)),
    "with all that is required": (
        (able(SHM, peek=True), able(MQUEUE, peek=True, notify=True)),
        {},
        {"peek": True, "notify": True},
        None,
        ("mqueue",),
    ),
    "with its option": ((SHM, PYSHM._replace(options={"lock"})), {"options": {"lock": "file"}}, {}, None, ("pyshm",)),
    "on the preferred": (LINUX, {}, {}, "socketpair", ("socketpair",)),
    "on the preferred though it has no rank": ((*LINUX, STRANGER), {}, {}, "stranger", ("stranger",)),
    "not on the preferred within one process": (LINUX, {}, {}, "memory", ()),
    "not on the preferred that cannot be used": ((broken(SHM), MQUEUE), {}, {}, "shm", ()),
    "not on the preferred that cannot honour it": (LINUX, {"priorities": True}, {}, "pyshm", ()),
    "on nothing": ((), {}, {}, None, ()),
}


@pytest.mark.parametrize("case", CREATE)
def test_backends_are_tried_for_a_new_queue_in_this_order(case: str) -> None:
    """Rule 2: by rank, among the usable backends that can honour the whole request."""
    candidates, asked, require, preferred, order = CREATE[case]
    decision = choose(candidates, Request(**asked), require, preferred)
    assert isinstance(decision, Create) and decision.order == order


PASSED_OVER: Mapping[str, tuple[Candidate, dict[str, Any], Mapping[str, Minimum], str | None, str]] = {
    "no rank": (STRANGER, {}, {}, None, "it has no rank, so a queue is created on it only with backend='stranger'"),
    "no reach": (MEMORY, {}, {}, None, "are private to one process: pass backend='memory'"),
    "not preferred": (SHM, {}, {}, "mqueue", "IPCQ_BACKEND names 'mqueue'"),
    "not usable": (broken(SHM), {}, {}, None, "no compiler"),
    "no leases": (SHM, {"leases": True}, {}, None, "it has no leases"),
    "no priorities": (SHM, {"priorities": True}, {}, None, "it has no priorities"),
    "no last close": (SHM, {"lifetime": "last-close"}, {}, None, "(lifetime='last-close')"),
    "no other users": (SHM, {"mode": 0o640}, {}, None, "(mode=0o640)"),
    "no modes": (SHM, {"mode": 0o400}, {}, None, "always have mode 0o600 (mode=0o400)"),
    "no going on": (SHM, {"after_unlink": "continue"}, {}, None, "(after_unlink='continue')"),
    "too large": (
        able(SHM, max_message_size=99),
        {"max_message_size": 100},
        {},
        None,
        "its messages have at most 99 bytes, but 100 were requested",
    ),
    "forgets": (SOCKETPAIR, {}, {}, None, "only as long as some process has them open: pass lifetime='last-close' if"),
    "forgets, and has no such lifetime": (
        able(SOCKETPAIR, last_close=False),
        {},
        {},
        None,
        "only as long as some process has them open: pass backend='socketpair' if that is enough",
    ),
    "not so persistent": (
        SHM,
        {},
        {"persistence": Persistence.DISK},
        None,
        "its persistence is 'kernel', but at least 'disk' is required",
    ),
    "not so large": (
        able(SHM, max_message_size=99),
        {},
        {"max_message_size": 100},
        None,
        "its max_message_size is 99, but at least 100 is required",
    ),
    "not required": (SHM, {}, {"peek": True}, None, "it lacks the required capability 'peek'"),
    "no option": (SHM, {"options": {"lock": "file"}}, {}, None, "it has no option 'lock'"),
}


#: A usable backend that keeps queues, so a weaker one is not considered.
KEEPER = candidate("keeper", 1)


@pytest.mark.parametrize("case", PASSED_OVER)
def test_a_backend_that_is_passed_over_has_a_reason(case: str) -> None:
    """If all fail, the error lists these reasons."""
    candidate, asked, require, preferred, words = PASSED_OVER[case]
    decision = choose([candidate, KEEPER], Request(**asked), require, preferred)
    assert isinstance(decision, Create) and words in decision.passed_over[candidate.name]


def test_a_backend_in_the_order_is_not_passed_over() -> None:
    """Each candidate is in the order or has a reason."""
    decision = choose(LINUX, Request())
    assert isinstance(decision, Create) and set(decision.passed_over) == {"memory", "socketpair"}


# C31: whether the queue is weaker than requested, which causes a warning.
Weaker = tuple[Sequence[Candidate], dict[str, Any], str | None, bool]
WEAKER: Mapping[str, Weaker] = {
    "a backend keeps queues": (LINUX, {}, None, False),
    "the one that can do it keeps queues": ((SHM, able(MQUEUE, priorities=True)), {"priorities": True}, None, False),
    "none that keeps queues can be used": (ONLY_SOCKETPAIR, {}, None, True),
    "the preferred forgets": (LINUX, {}, "socketpair", True),
    "that was asked for": (ONLY_SOCKETPAIR, LAST_CLOSE, None, False),
    "there is no queue then": ((MEMORY, broken(SHM)), {}, None, False),
}


@pytest.mark.parametrize("case", WEAKER)
def test_a_queue_is_weaker_if_it_was_to_persist_and_no_usable_backend_keeps_it(case: str) -> None:
    """C31: a weaker queue causes a PersistenceWarning."""
    candidates, asked, preferred, weaker = WEAKER[case]
    decision = choose(candidates, Request(**asked), {}, preferred)
    assert isinstance(decision, Create) and decision.weaker is weaker


# C31: backends with a higher rank than the chosen one that were passed over because of the request.
BETTER: Mapping[str, tuple[Sequence[Candidate], str, Sequence[str]]] = {
    "the best": (LINUX, "shm", ()),
    "the second": (LINUX, "mqueue", ("shm",)),
    "the second, where the best cannot be used": ((broken(SHM), MQUEUE), "mqueue", ()),
    "one without a rank": ((SHM, STRANGER, MEMORY), "stranger", ("shm",)),
}


@pytest.mark.parametrize("case", BETTER)
def test_better_backends_are_only_those_that_can_be_used_here(case: str) -> None:
    """C31: the request is not the reason that a backend is missing here."""
    candidates, name, better = BETTER[case]
    decision = choose(candidates, Request())
    assert isinstance(decision, Create) and tuple(decision.better(name)) == tuple(better)


def test_no_limit_satisfies_any_minimum() -> None:
    """`None` means no limit."""
    assert not missing_capability({"max_message_size": 1 << 60}, HOST, None)


def test_a_queue_with_the_lifetime_last_close_has_the_persistence_holders() -> None:
    """It has that even on a backend with more persistence."""
    words = "its persistence is 'holders', but at least 'kernel' is required"
    assert missing_capability({"persistence": Persistence.KERNEL}, HOST, None, "last-close") == words


def test_a_capability_that_is_not_required_is_not_lacking() -> None:
    """A minimum of False requires nothing."""
    assert not missing_capability({"peek": False}, HOST, None)


def test_a_backend_that_can_do_all_has_no_shortcoming() -> None:
    """The same check, without rank and scope, applies to a named backend."""
    asked = Request(priorities=True, lifetime="last-close", mode=0o666, max_message_size=1 << 40)
    assert not shortcoming(MEMORY._replace(capabilities=ALL), asked, {"peek": True, "notify": True, "shutdown": True})
