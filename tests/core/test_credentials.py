"""Credentials of a place, and the refusal to send them without encryption."""

from pathlib import Path

import pytest

from ipcq.backend import Place, Secret, check_plaintext, credentials
from ipcq.errors import InvalidArgument, PermissionDenied

PLACE = Place("redis", "host")
NAMED = Place("redis", "host", user="ann", password=Secret("of-url"))


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in ("USER", "PASSWORD", "PASSWORD_FILE"):
        monkeypatch.delenv(f"IPCQ_MY_REDIS_{each}", raising=False)


@pytest.mark.parametrize(
    ("place", "environment", "found"),
    [
        (None, {}, ("", None)),
        (PLACE, {}, ("", None)),
        (NAMED, {}, ("ann", "of-url")),
        (None, {"USER": "bob", "PASSWORD": "variable"}, ("bob", "variable")),
        (PLACE, {"USER": "bob", "PASSWORD": "variable"}, ("bob", "variable")),
        (PLACE, {"PASSWORD": ""}, ("", "")),
        (NAMED, {"USER": "bob", "PASSWORD": "variable"}, ("ann", "of-url")),
        (Place("redis", "host", user="ann"), {"USER": "bob", "PASSWORD": "variable"}, ("ann", "variable")),
        (PLACE, {"PASSWORD_FILE": "file"}, ("", "of-file")),
        (PLACE, {"PASSWORD": "variable", "PASSWORD_FILE": "file"}, ("", "variable")),
    ],
)
def test_credentials_come_from_the_url_or_the_environment(
    place: Place | None,
    environment: dict[str, str],
    found: tuple[str, str | None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The URL counts first, then the variable, then the file."""
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"of-file\r\nnot this\n")
    for name, value in environment.items():
        monkeypatch.setenv(f"IPCQ_MY_REDIS_{name}", value)
    user, password = credentials(place, "my-redis")
    assert (user, None if password is None else password.reveal()) == found


def test_a_missing_password_file_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the file and the variable."""
    monkeypatch.setenv("IPCQ_MY_REDIS_PASSWORD_FILE", "/missing/file")
    with pytest.raises(PermissionDenied, match=r"'/missing/file' cannot be read \(.*IPCQ_MY_REDIS_PASSWORD_FILE"):
        credentials(PLACE, "my-redis")


def test_a_password_file_is_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error does not show it."""
    path = tmp_path / "file"
    path.write_bytes(b"pass\xff")
    monkeypatch.setenv("IPCQ_MY_REDIS_PASSWORD_FILE", str(path))
    with pytest.raises(InvalidArgument, match="is not UTF-8: correct the variable IPCQ_MY_REDIS_PASSWORD_FILE"):
        credentials(PLACE, "my-redis")


@pytest.mark.parametrize("host", ["", "localhost", "127.0.0.1", "127.8.8.8", "::1", "/run/redis.sock"])
def test_this_machine_needs_no_encryption(host: str) -> None:
    """What is sent to it crosses no network."""
    check_plaintext(Place("redis", host), False, "use rediss://")


@pytest.mark.parametrize(
    "host", ["host", "localhost.evil.example", "10.0.0.1", "fe80::1", "0.0.0.0"]
)  # nothing is bound
def test_another_machine_needs_encryption(host: str) -> None:
    """Or the user's consent."""
    with pytest.raises(PermissionDenied, match=f"cross the network to '{host}' without encryption: use rediss://"):
        check_plaintext(Place("redis", host), False, "use rediss://")
    check_plaintext(Place("redis", host), True, "use rediss://")
