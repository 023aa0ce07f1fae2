"""C42: no verb shows the password of an address that it refuses."""

from collections.abc import Callable

import pytest
from click.testing import Result

CANARY = "s3cret"
ADDRESS = f"redis://user:{CANARY}@h:6379/jobs"
FOUND = f"redis:///:{CANARY}@h/jobs/x"

COMMANDS = [
    *(
        [verb, address]
        for verb in ("get", "peek", "tail", "stat", "top", "rm", "shutdown")
        for address in (ADDRESS, FOUND)
    ),
    *(
        [verb, "/jobs", "--backend", ADDRESS]
        for verb in ("put", "get", "peek", "tail", "create", "rm", "shutdown", "stat")
    ),
    *([verb, "--backend", ADDRESS] for verb in ("ls", "top", "demo", "stress", "bench", "doctor")),
    ["put", ADDRESS, "x"],
    ["put", FOUND, "x"],
    ["create", ADDRESS],
    ["create", FOUND],
    ["create", "/jobs", "--max-messages", ADDRESS],
    ["rm", "--yes", ADDRESS],
    ["work", ADDRESS, "--", "true"],
    ["work", FOUND, "--", "true"],
    ["dead", ADDRESS],
    ["dead", FOUND],
    ["drain", ADDRESS, "-"],
    *([verb, *ends] for verb in ("move", "copy") for ends in ((ADDRESS, "/jobs"), (FOUND, "/jobs"))),
    ["load", ADDRESS, "-"],
    ["load", "/jobs", ADDRESS],
    ["--traceback", "load", "/jobs", ADDRESS],
    ["--traceback", "get", ADDRESS],
    ["get", "/jobs", ADDRESS],
    ["get", "/jobs", "--wait", ADDRESS],
    ["ls", ADDRESS],
    ["config", ADDRESS],
    ["completion", ADDRESS],
    ["version", ADDRESS],
    ["backends", ADDRESS],
    ["doctor", ADDRESS],
    ["bench", ADDRESS],
    ["bench", "--peers", ADDRESS],
    ["demo", ADDRESS],
    ["stress", ADDRESS],
    [ADDRESS],
    [f"--name={ADDRESS}"],
    ["get", f"--name={ADDRESS}"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_verb_shows_the_password(run: Callable[..., Result], command: list[str]) -> None:
    """Neither on stdout nor on stderr, whatever else they contain."""
    result = run(*command)
    assert (result.exit_code != 0, CANARY in result.output + result.stderr) == (True, False)


def test_the_preferred_backend_is_shown_without_its_password(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """IPCQ_BACKEND cannot hold a URL, and the error says so without its password."""
    monkeypatch.setenv("IPCQ_BACKEND", ADDRESS)
    assert CANARY not in "".join(
        result.output + result.stderr for result in (run("create", "/jobs"), run("doctor"), run("config"), run("ls"))
    )
