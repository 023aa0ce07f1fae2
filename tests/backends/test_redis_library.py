"""redis-py: the way out if it is not installed, and when it is imported."""

from collections.abc import Callable

import pytest

import ipcq
import scripts
from backends.redis_database import NAME
from ipcq.errors import BackendUnavailable
from ipcq.testing.processes import fresh_name
from ipcq_redis import RedisBackend


def test_without_the_library_the_backend_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 19: with the command that installs it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert RedisBackend().probe().reason == "redis-py is not installed: pip install 'ipcq-queue[redis]'"


@pytest.mark.parametrize(
    "call",
    [lambda: ipcq.exists(NAME, "redis"), lambda: ipcq.unlink(NAME, "redis"), lambda: ipcq.queues("redis")],
    ids=["exists", "unlink", "queues"],
)
def test_without_the_library_no_server_can_be_asked(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]
) -> None:
    """Clause 19: the error is that of `open`, with the command that installs the library."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BackendUnavailable, match="redis-py is not installed: pip install"):
        call()


@pytest.mark.parametrize(
    "call",
    [
        "queue = ipcq.open(NAME); queue.unlink(); queue.close()",
        "ipcq.exists(NAME)",
        "ipcq.queues()",
        "ipcq.backends()",
        "cli(['doctor'], standalone_mode=False)",
        "cli(['ls'], standalone_mode=False)",
    ],
)
def test_the_library_is_imported_only_if_a_server_is_named(call: str) -> None:
    """`auto` and the shell are as fast as without it."""
    begin = f"import sys, ipcq; from ipcq._cli import cli; NAME = {fresh_name()!r}"
    script = f"{begin}; {call}; print('redis' in sys.modules)"
    assert scripts.run(script).split()[-1] == "False"
