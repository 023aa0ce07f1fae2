"""C25: one semantics on every backend, shown by the model and by replaying the same calls on two backends."""

import itertools
import unittest

import pytest
from hypothesis import given, seed

from ipcq.testing.machine import end_helper, machine_for, options_for, profile, replay, shared, traces
from ipcq.testing.model import Step
from ipcq.testing.processes import own_seed
from local_backends import local_backends
from processes.needs import usable
from processes.sizes import size

#: Seconds; nightly there is no limit.
TIMEOUT_SECONDS = size(300, 0)

NAMES = [info.name for info in local_backends()]
LEASING = [info.name for info in local_backends() if info.capabilities is not None and info.capabilities.leases]
#: Each with memory, which is fast; nightly each with each.
PAIRS = [pair for pair in itertools.combinations(NAMES, 2) if size(0, 1) or "memory" in pair]


@pytest.mark.storm
@pytest.mark.timeout(TIMEOUT_SECONDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_backend_gives_the_results_of_the_model(name: str) -> None:
    """C25: calls on several handles in two processes give the model's results and exceptions."""
    run(machine_for(usable(name)))


@pytest.mark.storm
@pytest.mark.timeout(TIMEOUT_SECONDS)
@pytest.mark.parametrize("name", LEASING)
def test_a_queue_with_leases_gives_the_results_of_the_model(name: str) -> None:
    """C25, C3, C4: each message is in one state, and lost leases change nothing."""
    run(machine_for(usable(name), leases=True))


def run(case: type[unittest.TestCase]) -> None:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    for _, text in (*result.failures, *result.errors):
        pytest.fail(text, pytrace=False)
    assert result.testsRun == 1


@pytest.mark.timeout(TIMEOUT_SECONDS)
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_the_same_calls_give_the_same_results_on_two_backends(pair: tuple[str, str]) -> None:
    """C25: one trace replayed on two backends gives identical results and exceptions, call by call."""
    first, second = map(usable, pair)
    options = options_for(first, second)

    @seed(own_seed())
    @profile(100)
    @given(trace=traces(shared(first, second), priorities=options["priorities"]))
    def compare(trace: list[Step]) -> None:
        for step, one, other in zip(trace, replay(trace, first, options), replay(trace, second, options), strict=True):
            assert repr(one) == repr(other), f"{step} gave {one} on {first}, {other} on {second}"

    try:
        compare()
    finally:
        end_helper()
