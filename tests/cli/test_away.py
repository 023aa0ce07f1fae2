"""C41: no verb asks a server that nobody named: it may be away, and each verb would wait for it."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli import _facts, _options
from ipcq._opening import registry
from ipcq.backend import Availability, Backend, Capabilities, Persistence, Scope
from ipcq.errors import ConnectionLost

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]


class Away(Backend):
    """A backend whose server is away; it counts the questions."""

    name = "away"
    rank = 999
    capabilities = Capabilities(scope=Scope.NETWORK, persistence=Persistence.SYNCED, leases=True, peek=True)
    questions = 0

    def probe(self) -> Availability:
        return Availability.yes()

    def _ask(self, *_: object) -> Any:
        self.questions += 1
        raise ConnectionLost("no answer")

    exists = create = attach = unlink = unlink_incarnation = names = findings = _ask


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Away:
    """Install the backend beside the others."""
    backend = Away()
    plugins = [*registry.plugins(), registry.Plugin("away", "stranger", backend=backend)]
    monkeypatch.setattr(registry, "plugins", lambda: plugins)
    monkeypatch.delenv("IPCQ_BACKEND", raising=False)
    return backend


@pytest.mark.parametrize(
    "verb",
    [
        "backends",
        "config",
        "version --verbose",
        "doctor",
        "ls",
        "top --once --interval 0.01",
        "create NAME",
        "put NAME item",
        "stat NAME",
        "peek NAME",
        "get NAME --wait 0",
        "dead NAME",
        "drain NAME -",
        "copy NAME NAME-other",
        "shutdown NAME",
        "rm --yes NAME",
        "rm --yes NAME-missing",
    ],
)
def test_no_verb_asks_the_server(run: Run, away: Away, queue: Queue, verb: str) -> None:
    """Also not about a queue that no local backend has."""
    assert run(*verb.replace("NAME", queue.name).split()).exit_code != 2
    with suppress(ipcq.QueueNotFound):
        ipcq.unlink(f"{queue.name}-other")
    assert away.questions == 0


def test_a_name_is_completed_without_the_server(away: Away, queue: Queue) -> None:
    """A shell would hang at the tab key."""
    assert queue.name in _options.complete_name(None, None, queue.name)
    assert away.questions == 0


def test_config_does_not_say_that_auto_creates_there(run: Run, away: Away) -> None:
    """Whatever its rank."""
    (line,) = (line for line in run("config").stdout.splitlines() if line.startswith("backend auto creates on"))
    assert "away" not in line


def test_no_local_queue_is_said_to_be_on_a_worse_backend(away: Away, shared: Queue) -> None:
    """`auto` does not use the server, so its backend is no better one."""
    assert not [note for note in _facts.notes_on(shared) if "away" in note]
