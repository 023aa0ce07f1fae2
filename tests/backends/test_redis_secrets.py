"""C42, C30: no password of a Redis server shows, and none crosses a network in the clear."""

import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import ipcq
from backends.redis_server import RedisProcess, certify, free_port, running
from ipcq.backend import Place, Request
from ipcq.errors import ConnectionLost, MessageQueueError, PermissionDenied, QueueEmpty
from ipcq.testing.contract._places import told
from ipcq_redis import RedisBackend, _place

CANARY = "c4n4ry-of-the-test"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running(tmp_path_factory.mktemp("redis"), requirepass=CANARY) as server:
        yield server


@pytest.fixture(autouse=True)
def _no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("USER", "PASSWORD", "PASSWORD_FILE", "CA", "INSECURE"):
        monkeypatch.delenv(f"IPCQ_REDIS_{variable}", raising=False)


def with_password(server: RedisProcess, password: str = CANARY) -> str:
    return server.url.replace("://", f"://:{password}@")


def test_a_password_comes_from_the_url_a_variable_or_a_file(
    server: RedisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C42: and a child needs the variable or the file."""
    with ipcq.open("/jobs", with_password(server)) as queue:
        queue.put(1)
        pickled = pickle.dumps(queue)
        with pytest.raises(PermissionDenied, match="IPCQ_REDIS_PASSWORD"):
            pickle.loads(pickled)
        monkeypatch.setenv("IPCQ_REDIS_PASSWORD", CANARY)
        with pickle.loads(pickled) as same:
            assert same.get(timeout=9) == 1
        monkeypatch.delenv("IPCQ_REDIS_PASSWORD")
        file = tmp_path / "password"
        file.write_text(f"{CANARY}\n")
        monkeypatch.setenv("IPCQ_REDIS_PASSWORD_FILE", str(file))
        assert ipcq.exists("/jobs", server.url)
        queue.unlink()


def test_nothing_shows_the_password(
    server: RedisProcess, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """C42: not a text, record, pickle, listing or error of any kind."""
    shown: list[str] = []

    def collect(call: Any) -> None:
        try:
            shown.append(repr(call()))
        except MessageQueueError as error:
            shown.extend([*told(error), repr(vars(error)), "".join(traceback.format_exception(error))])

    url = with_password(server)
    with caplog.at_level(logging.DEBUG):
        with ipcq.open("/jobs", url, leases=True) as queue:
            collect(lambda: queue)
            collect(lambda: pickle.dumps(queue))
            collect(lambda: queue.options)
            collect(lambda: vars(queue._channel))
            collect(lambda: (queue._channel._server, queue._channel._client.server.place))
            collect(lambda: queue.get(timeout=0))
            collect(lambda: ipcq.queues(url))
            collect(lambda: ipcq.open("/jobs", url, exclusive=True))
            collect(lambda: ipcq.open("/none", url, create=False))
            server.stall()
            collect(lambda: queue.get(timeout=0.1))
            server.go_on()
            queue.unlink()
            collect(queue.qsize)
        collect(lambda: ipcq.open("/jobs", with_password(server, f"{CANARY}-wrong")))
        collect(lambda: ipcq.open("/jobs", url.replace("/0/", "/99/")))
        server.stop()
        collect(lambda: ipcq.open("/jobs", url, open_timeout=0.1))
        server.start()
    printed = capfd.readouterr()
    assert len(shown) > 20
    assert CANARY not in "".join([*shown, caplog.text, printed.out, printed.err])


def test_no_argument_of_a_process_shows_the_password(server: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """C42: `ipcq demo` starts processes that need it."""
    environment = {**os.environ, "IPCQ_REDIS_PASSWORD": CANARY}
    command = [sys.executable, "-m", "ipcq", "demo", "--backend", server.url, "--messages", "300", "--quiet"]
    seen = set()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        while demo.poll() is None:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes())
                except OSError:
                    pass
        assert demo.stdout is not None
        assert "PASS" in demo.stdout.read()
    assert any(b"demo" in each for each in seen)
    assert not [each for each in seen if CANARY.encode() in each and b"redis-server" not in each]


@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_password_is_told_at_once(server: RedisProcess, password: str) -> None:
    """Clause 18: it is no lost connection, so nothing is repeated."""
    url = with_password(server, password) if password else server.url
    with pytest.raises(PermissionDenied, match="IPCQ_REDIS_PASSWORD"):
        ipcq.open("/jobs", url)


def test_a_password_that_the_server_does_not_have_is_told(tmp_path: Path) -> None:
    """Clause 18: with the way out."""
    with running(tmp_path) as server, pytest.raises(PermissionDenied, match="or not this user"):
        ipcq.open("/jobs", with_password(server))


# The network


def test_no_plaintext_leaves_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """C30: open, exists and unlink refuse before they connect, unless the user asked for it."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("it asked for an address"))
    for call in (ipcq.open, ipcq.exists, ipcq.unlink):
        with pytest.raises(PermissionDenied, match=r"rediss://.*insecure=True.*IPCQ_REDIS_INSECURE=1"):
            call("redis://far.example/0/jobs")


def test_plaintext_is_permitted_by_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """C30: by an option of `open`, in a URL too; or by a variable, also for what has no options."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(8, "no such host")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    lost = pytest.raises(ConnectionLost, match=r"far\.example:6379 cannot be reached")
    with lost:
        ipcq.open("redis://far.example/0/jobs?insecure=true", open_timeout=0.1)
    monkeypatch.setattr("ipcq._process.operation.OPERATION_SECONDS", 0.1)
    with pytest.raises(PermissionDenied):
        ipcq.exists("redis://far.example/0/jobs")
    monkeypatch.setenv("IPCQ_REDIS_INSECURE", "1")
    with lost:
        ipcq.exists("redis://far.example/0/jobs")


def test_a_handle_keeps_the_permission(server: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """C30: for all that it does, as if this server were on another machine; a pickled handle takes it along."""
    monkeypatch.setattr("ipcq.backend._place._is_loopback", lambda _: False)
    with ipcq.open("/jobs", with_password(server), insecure=True) as queue:
        queue.put(1)
        pickled = pickle.dumps(queue)
        monkeypatch.setenv("IPCQ_REDIS_PASSWORD", CANARY)
        with pickle.loads(pickled) as same:
            assert same.get(timeout=9) == 1
        queue.unlink()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a certificate for localhost."""
    directory = tmp_path_factory.mktemp("certificates")
    certify(directory, "DNS:localhost")
    return directory


@pytest.fixture(scope="module")
def encrypted(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return the port of a server with TLS."""
    port = free_port()
    settings = {
        "tls_port": str(port),
        "tls_cert_file": str(certificates / "certificate"),
        "tls_key_file": str(certificates / "key"),
        "tls_auth_clients": "no",
    }
    with running(tmp_path_factory.mktemp("redis"), **settings):
        yield port


def test_an_encrypted_connection_works(encrypted: int, certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C30: with a certificate that is trusted; and a wait and a fork over it."""
    monkeypatch.setenv("IPCQ_REDIS_CA", str(certificates / "certificate"))
    with ipcq.open(f"rediss://localhost:{encrypted}/0/jobs") as queue:
        assert queue.backend == f"rediss://localhost:{encrypted}/0/"
        queue.put(bytes(200_000))
        assert queue.get(timeout=9) == bytes(200_000)
        with pytest.raises(QueueEmpty):
            queue.get(timeout=0.1)
        queue.unlink()


def test_a_certificate_that_is_not_trusted_is_refused(encrypted: int) -> None:
    """C30: by default, and nothing is repeated."""
    with pytest.raises(PermissionDenied, match="IPCQ_REDIS_CA"):
        ipcq.open(f"rediss://localhost:{encrypted}/0/jobs")


def test_a_certificate_of_another_host_is_refused(
    encrypted: int, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C30: even if its authority is trusted."""
    monkeypatch.setenv("IPCQ_REDIS_CA", str(certificates / "certificate"))
    with pytest.raises(PermissionDenied, match="not trusted"):
        ipcq.open(f"rediss://127.0.0.1:{encrypted}/0/jobs")


def test_a_server_without_encryption_is_refused(server: RedisProcess) -> None:
    """C30: it never falls back; a Redis server waits for the rest of what it takes for a command."""
    with pytest.raises(ConnectionLost, match="handshake"):
        ipcq.open(f"rediss://127.0.0.1:{server.port}/0/jobs", open_timeout=0.2)


def test_an_answer_that_is_not_encrypted_is_refused() -> None:
    """C30: likewise, and nothing is repeated."""
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        end.listen()

        def answer() -> None:
            with end.accept()[0] as accepted:
                accepted.sendall(b"-ERR plain text\r\n")
                accepted.recv(1 << 16)

        answering = threading.Thread(target=answer)
        answering.start()
        with pytest.raises(PermissionDenied, match="cannot encrypt"):
            ipcq.open(f"rediss://127.0.0.1:{end.getsockname()[1]}/0/jobs")
        answering.join()


def test_a_missing_file_of_authorities_is_told(encrypted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 18: the variable names it."""
    monkeypatch.setenv("IPCQ_REDIS_CA", "/nonexistent")
    with pytest.raises(PermissionDenied, match="IPCQ_REDIS_CA"):
        ipcq.open(f"rediss://localhost:{encrypted}/0/jobs")


# Connections


def test_all_addresses_of_a_host_are_tried(server: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """C41: the first one may be of a network that is down."""
    found = socket.getaddrinfo
    dead = free_port()

    def two(host: str, port: int, **options: Any) -> list[Any]:
        return [*found(host, dead, **options), *found(host, port, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    monkeypatch.setenv("IPCQ_REDIS_PASSWORD", CANARY)
    assert not ipcq.exists("/jobs", server.url)


def test_a_black_hole_is_left_in_time() -> None:
    """C41: it accepts connections, and says nothing; nothing was done."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen()
        with pytest.raises(ConnectionLost) as lost:
            ipcq.open(f"redis://127.0.0.1:{hole.getsockname()[1]}/0/jobs", open_timeout=0.3)
    assert lost.value.outcome == "not done"


def test_without_descriptors_the_limit_is_named(server: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: it is no lost connection."""

    def full(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    backend = RedisBackend(_place.canonical(Place("redis", "127.0.0.1", server.port)))
    monkeypatch.setattr(socket, "socket", full)
    with pytest.raises(ipcq.LimitExceeded, match="RLIMIT_NOFILE"):
        backend.exists("/jobs")


def test_a_server_with_too_many_clients_is_waited_for(tmp_path: Path) -> None:
    """C41: nothing was done."""
    with running(tmp_path, maxclients="1") as server:
        backend = RedisBackend(_place.canonical(Place("redis", "127.0.0.1", server.port)))
        with closing(backend.create("/jobs", Request())) as queue:
            queue.qsize()
            with pytest.raises(ConnectionLost, match="max number of clients") as lost:
                ipcq.open("/jobs", server.url, open_timeout=0.2)
            assert lost.value.outcome == "not done"
