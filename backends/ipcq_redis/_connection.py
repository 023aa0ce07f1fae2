"""A connection to a server: the socket, its life and commands are here, and redis-py parses replies."""

import errno
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from time import monotonic
from typing import Any, Final, TypeAlias

from redis.connection import AbstractConnection
from redis.exceptions import AuthenticationError, BusyLoadingError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as ProtocolError

from ipcq.backend import closed, opened, reraise_from_handler, too_many_descriptors
from ipcq.errors import ConnectionLost, MessageQueueError, PermissionDenied
from ipcq_redis._errors import explained_reply, with_code
from ipcq_redis._place import Server

#: Part of a command.
Word: TypeAlias = str | bytes | int

_NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)

#: The least timeout of a system call, in seconds: 0 would mean none.
_LEAST: Final = 0.001
#: The part of the time left that a timeout set earlier may have. To set another one is a system call.
_EARLY: Final = 0.9

#: The errors that are replies of the server.
_REPLIED: Final = (ResponseError, AuthenticationError, BusyLoadingError)


class _Protocol(AbstractConnection):
    """Parses replies, from a socket that it never opens or closes."""

    host: str = "the server"

    def __init__(self, end: socket.socket) -> None:
        super().__init__(protocol=2, socket_timeout=None, retry=None)
        self._sock: socket.socket | None = end  # type: ignore[assignment]  # the library's annotation is None
        self._parser.on_connect(self)
        # The library's own method around it costs more than a system call.
        self.read: Callable[..., Any] = self._parser.read_response

    def repr_pieces(self) -> list[tuple[str, Any]]:  # pragma: no cover - abstract there
        return []

    def _connect(self) -> None:  # pragma: no cover - abstract there; this connection is never connected again
        raise ProtocolError("the connection is closed")

    def _host_error(self) -> str:  # pragma: no cover - abstract there
        return "the server"


@lru_cache(maxsize=256)
def _packed_number(number: int) -> bytes:
    digits = b"%d" % number
    return b"$%d\r\n%b\r\n" % (len(digits), digits)


def packed(words: Iterable[Word]) -> list[bytes]:
    """Return the parts of a command's words as a server reads them, without their number."""
    parts: list[bytes] = []
    for word in words:
        if isinstance(word, int):
            parts.append(_packed_number(word))
        else:
            text = word if isinstance(word, bytes) else word.encode()
            parts += b"$%d\r\n" % len(text), text, b"\r\n"
    return parts


class Connection:
    """A connection, used by one request at a time.

    Args:
        server: The server.
        until: When the attempt to connect ends, on the monotonic clock.

    Raises:
        ConnectionLost: The server cannot be reached now. The outcome is ``"not done"``.
        PermissionDenied: The server refuses the password, or its certificate is not trusted.
    """

    def __init__(self, server: Server, until: float) -> None:
        server.check()
        self.began = monotonic()
        """When it was opened, on the monotonic clock."""
        self._process = os.getpid()
        self._descriptor = -1
        self._end: socket.socket | None = None
        self._timeout = 0.0
        try:
            self._open(server, until)
            self._protocol = _Protocol(self._socket)
            self._greet(server, until)
        except BaseException:
            self.close()
            raise

    @property
    def _socket(self) -> socket.socket:
        assert self._end is not None  # noqa: S101  # for the type checker
        return self._end

    def _open(self, server: Server, until: float) -> None:
        try:
            addresses = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
            # There is at least one.
            for number, (family, kind, protocol, _, address) in enumerate(addresses, 1):  # pragma: no branch
                try:
                    self._connect(family, kind, protocol, address, until)
                    break
                except OSError:
                    self.close()
                    if number == len(addresses):
                        raise
            if server.encrypted:
                self._encrypt(server, until)
        except MessageQueueError:
            raise
        except OSError as error:
            raise _lost(error, server) from error

    def _connect(self, family: int, kind: int, protocol: int, address: Any, until: float) -> None:
        # A forked child closes what `opened` has recorded, so it never shares a connection with its parent.
        def open_end() -> int:
            self._end = socket.socket(family, kind, protocol)
            return self._end.fileno()

        self._descriptor = opened(open_end)
        self.limit(until)
        self._socket.connect(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _encrypt(self, server: Server, until: float) -> None:
        try:
            context = ssl.create_default_context(cafile=server.authorities)
        except OSError as error:
            reraise_from_handler(error)
            raise PermissionDenied(
                f"the certificates in {server.authorities} cannot be read ({error}): correct the variable IPCQ_REDIS_CA"
            ) from error
        self._end = encrypted = context.wrap_socket(
            self._socket, server_hostname=server.host, do_handshake_on_connect=False
        )
        self.limit(until)
        encrypted.do_handshake()

    def _greet(self, server: Server, until: float) -> None:
        """Authenticate, choose the database, and learn the server's clock."""
        user, password = server.credentials()
        commands: list[Sequence[Word]] = [("SELECT", server.database), ("TIME",)]
        if password is not None:
            commands.insert(0, ("AUTH", *filter(None, [user]), password.reveal()))
        try:
            (seconds, micros) = self.ask(commands, until)[-1]
        except MessageQueueError:
            raise
        except OSError as error:
            raise _lost(error, server) from error
        self.clock = int(seconds) + int(micros) / 1e6 - monotonic()
        """What the server's clock is ahead of the monotonic one, in seconds."""

    def limit(self, until: float) -> None:
        """Let system calls time out at that time, or a little earlier."""
        seconds = max(_LEAST, until - monotonic())
        if not _EARLY * seconds < self._timeout < seconds + _LEAST:
            self._socket.settimeout(seconds)
            self._timeout = seconds

    def ask(self, commands: Sequence[Sequence[Word]], until: float) -> list[Any]:
        """Send commands, and return their replies; raises as `exchange` does."""
        requests = [part for command in commands for part in (b"*%d\r\n" % len(command), *packed(command))]
        return self.exchange(b"".join(requests), len(commands), until)

    def exchange(self, request: bytes, count: int, until: float) -> list[Any]:
        """Send so many packed commands, and return their replies.

        Raises:
            OSError: The connection is lost.
            MessageQueueError: The server replied an error. The connection can be used further.
            ResponseError: The server does not have the script, or cannot compile it.
        """
        read = self._protocol.read
        replies: list[Any] = []
        refusal: Exception | None = None
        try:
            self.limit(until)
            self._socket.sendall(request)
            for _ in range(count):
                self.limit(until)
                try:
                    reply = read(disable_decoding=True)
                except _REPLIED as error:
                    reply = error
                replies.append(reply)
                if isinstance(reply, RedisError):
                    refusal = refusal or reply
        except RedisError as error:
            cause = error.__cause__ or error.__context__
            if isinstance(cause, OSError):
                reraise_from_handler(cause)
            raise ConnectionResetError(str(error)) from error
        if refusal is not None:
            if isinstance(refusal, NoScriptError) or "compiling script" in str(refusal):
                raise refusal  # for the client, which sends another one
            raise explained_reply(with_code(refusal)) from None
        return replies

    def break_off(self) -> None:
        """Let a request in another thread end with an error."""
        end = self._end
        if end is not None:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed already

    def close(self) -> None:
        end = self._end
        if end is None:
            return
        # A handler may have raised between any two steps of opening, or of an earlier call of this method.
        number = end.fileno()
        closed(self._descriptor if number < 0 else number, end.close)
        if os.getpid() == self._process:
            end.close()
        else:  # the child has closed the descriptor, and its number may have another owner by now
            end.detach()
        self._end, self._descriptor = None, -1

    def abandon(self) -> None:
        """Forget the descriptor in a forked child, which has closed it already."""
        if self._end is not None:
            self._end.detach()
        self._end, self._descriptor = None, -1


def _lost(error: OSError, server: Server) -> MessageQueueError:
    reraise_from_handler(error)
    where = f"{server.host}:{server.port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return PermissionDenied(
            f"the certificate of {where} is not trusted ({error.verify_message}): let IPCQ_REDIS_CA name the file with "
            "the certificate of its authority"
        )
    if isinstance(error, ssl.SSLError):
        return PermissionDenied(
            f"{where} cannot encrypt ({error.reason}): use the port for TLS, or redis:// without it"
        )
    if error.errno in _NO_DESCRIPTORS:
        return too_many_descriptors(error.errno)
    text = f"{where} cannot be reached: {error}"
    return ConnectionLost(text, outcome="not done", errno=None if isinstance(error, socket.gaierror) else error.errno)
