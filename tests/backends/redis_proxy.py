"""A proxy in front of a Redis server, as a program: ``python redis_proxy.py ADDRESS SERVER_PORT SLOW``.

It forwards one request at a time on each connection, and on demand drops the reply. SLOW of 100 replies are late, as on
a busy machine. Its control port, which it prints, takes one line: ``open``, ``close`` (then it refuses connections),
``drop COUNT AFTER`` or ``requests``.
"""

import asyncio
import random
import sys
from contextlib import suppress

#: The commands of a new connection.
GREETING = (b"AUTH", b"SELECT", b"TIME")
#: How late a late reply is, in seconds: more than most timeouts in tests.
LATE_SECONDS = 0.15


class Gone(Exception):
    """The other side closed the connection."""


async def read_reply(reader: asyncio.StreamReader) -> tuple[bytes, list[bytes]]:
    """Return a reply or request as it came, and its texts."""
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise Gone
    raw, texts = [line], []
    if line[:1] == b"$" and line[1:2] != b"-":
        text = await reader.readexactly(int(line[1:]) + 2)
        raw.append(text)
        texts.append(text[:-2])
    elif line[:1] == b"*" and line[1:2] != b"-":
        for _ in range(int(line[1:])):
            part, more = await read_reply(reader)
            raw.append(part)
            texts += more
    return b"".join(raw), texts


class Proxy:
    def __init__(self, address: str, server_port: int, slow: int) -> None:
        self.address, self.port, self.server_port, self.slow = address, 0, server_port, slow
        self.requests = self.drop = self.after = 0
        self.listener: asyncio.Server | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        if self.listener is None:
            self.listener = await asyncio.start_server(self.serve, self.address, self.port, limit=1 << 26)
            self.port = self.listener.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        for task in self.tasks:
            task.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        upstream: asyncio.StreamWriter | None = None
        try:
            replies, upstream = await asyncio.open_connection("127.0.0.1", self.server_port, limit=1 << 26)
            forwarding = asyncio.ensure_future(self.forward(reader, writer, replies, upstream))
            try:
                await forwarding
            finally:
                forwarding.cancel()
        except (Gone, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(task)
            for each in filter(None, (writer, upstream)):
                each.transport.abort()

    async def forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        replies: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> None:
        reading = asyncio.ensure_future(read_reply(reader))
        while True:
            request, texts = await reading
            name = texts[0].upper()
            self.requests += 1
            upstream.write(request)
            await upstream.drain()
            reading = asyncio.ensure_future(read_reply(reader))
            answer = asyncio.ensure_future(read_reply(replies))
            await asyncio.wait((reading, answer), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() and reading.done() and reading.exception() is not None:
                answer.cancel()  # the client has gone away during a wait
            reply, _ = await answer
            if self.drop and name not in (*GREETING, b"XREAD"):
                if not self.after:
                    self.drop -= 1
                    reading.cancel()
                    return
                self.after -= 1
            if random.randrange(100) < self.slow:
                await asyncio.sleep(LATE_SECONDS)
            writer.write(reply)
            await writer.drain()

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        verb, *numbers = (await reader.readline()).decode().split()
        if verb == "open":
            await self.open()
        elif verb == "close":
            self.close()
        elif verb == "drop":
            self.drop, self.after = map(int, numbers)
        writer.write(f"{self.port if verb == 'open' else self.requests}\n".encode())
        with suppress(OSError):
            await writer.drain()
        writer.close()


async def main() -> None:
    address, *numbers = sys.argv[1:]
    proxy = Proxy(address, *map(int, numbers))
    server = await asyncio.start_server(proxy.control, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
