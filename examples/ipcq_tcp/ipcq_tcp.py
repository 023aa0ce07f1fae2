"""Queues on a server: the backend `tcp` of ipcq_tcp_server.py, whose address is in IPCQ_TCP."""

import contextlib, json, os, socket, struct, time

from ipcq import backend as b, errors as e
from ipcq.hooks import hookimpl

ABLE = b.Capabilities(
    scope=b.Scope.NETWORK, persistence=b.Persistence.DISK, exact_qsize=True, peek=True, shutdown=True,
    atomic_batch=True, listing=True, max_message_size=1 << 24,
)  # fmt: skip
REMEMBERED = 50.0  # the server remembers its replies for a minute of its own clock


class Connection:
    def __init__(self, until: float) -> None:
        # A forked child closes what `opened` has recorded, so it never shares a connection with its parent.
        self.descriptor = b.opened(lambda: socket.socket().detach())
        self.socket = socket.socket(fileno=self.descriptor)
        try:
            self.limit(until)
            host, _, port = os.environ.get("IPCQ_TCP", "127.0.0.1:7411").rpartition(":")
            self.socket.connect((host, int(port)))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            self.close()
            raise

    def limit(self, until: float) -> None:
        self.socket.settimeout(max(0.001, until - time.monotonic()))

    def send(self, request: dict) -> None:
        data = json.dumps(request).encode()
        self.socket.sendall(struct.pack(">I", len(data)) + data)

    def receive(self, until: float) -> dict:
        return json.loads(self._exactly(struct.unpack(">I", self._exactly(4, until))[0], until))

    def _exactly(self, size: int, until: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self.limit(until)
            part = self.socket.recv(size - len(data))
            if not part:
                raise ConnectionResetError("the server closed the connection")
            data += part
        return bytes(data)

    def close(self) -> None:
        b.closed(self.descriptor, self.socket.close)


class Client:
    """Connections to the server, each used by one request at a time."""

    def __init__(self) -> None:
        self.idle: list[Connection] = []

    def request(self, operation: b.Operation, name: str, queue: str, **content: object) -> object:
        """Make one attempt of an operation."""
        connection, outcome = None, "not done"
        try:
            with contextlib.suppress(IndexError):
                connection = self.idle.pop()
            connection = connection or Connection(operation.until)
            connection.limit(operation.until)
            outcome = "unknown"  # from here on, the server may receive it
            connection.send({"identity": operation.identity, "operation": name, "name": queue, **content})
            reply = connection.receive(operation.until)
        except BaseException as error:
            if connection is not None:
                connection.close()  # whatever happened: the next request must not get this one's reply
            if isinstance(error, OSError):
                b.reraise_from_handler(error)
                raise e.ConnectionLost(f"the server did not answer: {error}", outcome=outcome) from error
            raise
        self.idle.append(connection)
        if "error" in reply:
            raise getattr(e, reply["error"])
        return reply["result"]

    def ask(self, name: str, queue: str, *, harmless: bool = False, **content: object) -> object:
        return b.ask(
            lambda operation: self.request(operation, name, queue, **content), remembered=REMEMBERED, harmless=harmless
        )

    def close(self) -> None:
        while self.idle:
            self.idle.pop().close()


class TcpChannel(b.RemoteChannel):
    capabilities = ABLE

    def __init__(self, name: str, found: dict) -> None:
        self.name, self.incarnation = name, found["incarnation"]
        limits = {key: found[key] for key in ("max_messages", "max_message_size")}
        self.attributes = b.Attributes(mode=0o600, **limits)
        self.client, self.unanswered = Client(), b.Unanswered(REMEMBERED)
        self.waiting: set[Connection] = set()
        b.belongs(self)

    def ask(self, name: str, **content: object) -> object:
        return self.client.ask(name, self.name, incarnation=self.incarnation, **content)

    def try_put(self, data: bytes, priority: int, /) -> bool:
        return bool(self.try_put_many([data]))

    def try_put_many(self, batch: list[bytes], priority: int = 0, /) -> int:
        return self.ask("put", batch=[data.decode("latin-1") for data in batch])

    def try_get(self) -> b.Received | None:
        return next(iter(self.try_get_many(1)), None)

    def try_get_many(self, limit: int, /) -> list[b.Received]:
        def attempt(operation: b.Operation) -> list[b.Received]:
            content = {"incarnation": self.incarnation, "limit": limit}
            taken = self.client.request(operation, "get", self.name, **content)
            return [(data.encode("latin-1"), 0) for data in taken]

        return self.unanswered.take(attempt, limit)

    def peek(self) -> b.Received | None:
        found = self.ask("get", limit=1, peek=True, harmless=True)
        return (found[0].encode("latin-1"), 0) if found else None

    def qsize(self) -> int:
        return self.ask("qsize", harmless=True)

    def linked(self) -> bool:
        try:
            return self.qsize() >= 0
        except e.QueueGone:
            return False

    def shutdown(self, immediate: bool, /) -> None:
        self.ask("shutdown", immediate=immediate)

    def wait_readable(self, since: float, until: float, /) -> None:
        self._wait(until, readable=True)

    def wait_writable(self, size: int, since: float, until: float, /) -> None:
        self._wait(until, readable=False)

    def _wait(self, until: float, readable: bool) -> None:
        # On a connection of its own, which `wake` ends. If the server is away, the next try finds out.
        with contextlib.suppress(OSError):
            connection = Connection(until)
            self.waiting.add(connection)
            try:
                seconds = max(0.0, until - time.monotonic())
                content = {"incarnation": self.incarnation, "readable": readable, "seconds": seconds}
                connection.send({"identity": "", "operation": "wait", "name": self.name, **content})
                connection.receive(until)
            finally:
                self.waiting.discard(connection)
                connection.close()

    def wake(self) -> None:
        for connection in list(self.waiting):
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.client.close()

    def after_fork(self) -> bool:
        self.abandon()
        return True

    def abandon(self) -> None:
        for connection in self.client.idle:
            connection.socket.detach()  # the child has closed the descriptor already
        self.client, self.waiting = Client(), set()


class TcpBackend(b.Backend):
    name, capabilities = "tcp", ABLE

    def ask(self, operation: str, name: str = "", **content: object) -> object:
        with contextlib.closing(Client()) as client:
            return client.ask(operation, name, **content)

    def create(self, name: str, request: b.Request) -> b.Channel:
        if request.buffer_size is not None:
            raise e.Unsupported("its queues are limited by messages: pass max_messages instead of buffer_size")
        limits = {"max_messages": request.max_messages or 64, "max_message_size": request.max_message_size or 1 << 20}
        return TcpChannel(name, self.ask("create", name, **limits))

    def attach(self, name: str, request: b.Request) -> b.Channel:
        return TcpChannel(name, self.ask("attach", name, harmless=True))

    def exists(self, name: str) -> bool:
        return self.ask("exists", name, harmless=True)

    def unlink(self, name: str) -> None:
        self.ask("unlink", name)

    def unlink_incarnation(self, name: str, incarnation: str) -> None:
        self.ask("unlink", name, incarnation=incarnation)

    def names(self) -> list[str]:
        return self.ask("names", harmless=True)


@hookimpl
def ipcq_backend() -> b.Backend:
    return TcpBackend()
