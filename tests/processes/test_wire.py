"""C26, C29: whatever bytes another process puts, reading gives an item or DecodeError, at bounded cost.

The bytes go through the public interface: a handle with ``serializer="raw"`` writes them, a default one reads them.
"""

import json
import pickle
import random
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

import ipcq
from ipcq.testing.processes import own_seed

MIB = 1 << 20
MESSAGES = 10_000

#: C29: bytes of memory for a message, and for each of its bytes. The worst messages are maps of one entry, which take
#: CPython 224 bytes and two on the wire: nested, they need 112 for each byte; everything else needs at most 80.
FIXED_BYTES, FACTOR = 64 << 10, 120
#: Seconds for each MiB, at ten times the promise.
SECONDS_PER_MIB = 10.0


@pytest.fixture
def name() -> Iterator[str]:
    """Return the name of a queue for large messages; unlink it after the test."""
    name = "/wire"
    ipcq.open(name, "memory", exclusive=True, max_messages=4, max_message_size=2 * MIB).close()
    yield name
    ipcq.unlink(name, "memory")


@pytest.fixture
def writer(name: str) -> Iterator["ipcq.Queue[bytes]"]:
    """Return a handle that puts bytes unchanged."""
    with ipcq.open(name, "memory", create=False, serializer="raw", read=False) as writer:
        yield writer


@pytest.fixture
def reader(name: str) -> Iterator["ipcq.Queue[object]"]:
    """Return a handle with the default options."""
    with ipcq.open(name, "memory", create=False) as reader:
        yield reader


def nested(head: bytes, depth: int) -> bytes:
    """Return arrays or maps nested in each other."""
    return head * depth + b"\xc0"


def colliding_integers(count: int) -> bytes:
    """Return a map whose keys agree in their low 48 bits."""
    return (
        b"\xdf"
        + struct.pack(">I", count)
        + b"".join(b"\xcf" + struct.pack(">Q", n << 48) + b"\xc0" for n in range(count))
    )


def colliding_timestamps(count: int) -> bytes:
    """Return a map whose keys are timestamps with the same sum of seconds and nanoseconds."""
    entries = (b"\xd7\xff" + struct.pack(">Q", (n << 34) | (10**6 - n)) + b"\xc0" for n in range(count))
    return b"\xdf" + struct.pack(">I", count) + b"".join(entries)


def colliding_tuples(count: int) -> bytes:
    """Return a map of different tuples with the same hash: -1 and -2 have the same hash."""
    signs = (bytes(0xFF - (number >> bit & 1) for bit in range(16)) for number in range(min(count, 1 << 16)))
    entries = [b"\xdc\x00\x10" + sign + b"\xc0" for sign in signs]
    return b"\xdf" + struct.pack(">I", len(entries)) + b"".join(entries)


def bombs(size: int) -> dict[str, bytes]:
    """Return messages of about this size, each built to blow up when it is decoded."""
    return {
        "empty arrays": b"\xdd" + struct.pack(">I", size) + b"\x90" * size,
        "empty maps": b"\xdd" + struct.pack(">I", size) + b"\x80" * size,
        "empty strings": b"\xdd" + struct.pack(">I", size) + b"\xa0" * size,
        "empty bytes": b"\xdd" + struct.pack(">I", size // 2) + b"\xc4\x00" * (size // 2),
        "small integers": b"\xdd" + struct.pack(">I", size) + b"\x01" * size,
        "floats": b"\xdd" + struct.pack(">I", size // 5) + (b"\xca" + struct.pack(">f", 1.5)) * (size // 5),
        "extensions": b"\xdd" + struct.pack(">I", size // 3) + b"\xd4\x05x" * (size // 3),
        "timestamps": b"\xdd" + struct.pack(">I", size // 6) + b"\xd6\xff\0\0\0\x01" * (size // 6),
        "maps of one": b"\xdd" + struct.pack(">I", size // 3) + b"\x81\x01\x02" * (size // 3),
        "arrays of one": b"\xdd" + struct.pack(">I", size // 2) + b"\x91\xc0" * (size // 2),
        "deep arrays": nested(b"\x91", size),
        "deep maps": nested(b"\x81\xc0", size // 2),
        "arrays as deep as goes": b"\xdd" + struct.pack(">I", size >> 10) + nested(b"\x91", 1000) * (size >> 10),
        "maps as deep as goes": b"\xdd" + struct.pack(">I", size >> 11) + nested(b"\x81\xc0", 1000) * (size >> 11),
        "maps of an empty map": b"\xdd" + struct.pack(">I", size // 3) + b"\x81\xc0\x80" * (size // 3),
        "array that claims 4 Gi": b"\xdd\xff\xff\xff\xff",
        "map that claims 4 Gi": b"\xdf\xff\xff\xff\xff",
        "bytes that claim 4 GiB": b"\xc6\xff\xff\xff\xff",
        "text that claims 4 GiB": b"\xdb\xff\xff\xff\xff",
        "extension that claims 4 GiB": b"\xc9\xff\xff\xff\xff\x01",
        "claims inside claims": b"\xdd\xff\xff\xff\xff" * 1000,
        "map keyed by colliding integers": colliding_integers(size >> 4),
        "map keyed by colliding timestamps": colliding_timestamps(size >> 4),
        "map keyed by colliding tuples": colliding_tuples(size >> 4),
        "empty maps behind an array as key": b"\x92\x81\x90\x01\xdd" + struct.pack(">I", size) + b"\x80" * size,
        "frame without end": b"\xc1" + b"\xff" * size,
        "frame of nothing": b"\xc1",
        "nothing": b"",
        "one string": b"\xdb" + struct.pack(">I", size) + b"x" * size,
        "broken UTF-8": b"\xdb" + struct.pack(">I", size) + b"\xff" * size,
        "one blob": b"\xc6" + struct.pack(">I", size) + b"x" * size,
        "wide characters": b"\xdb" + struct.pack(">I", size) + "\U0001f600".encode() * (size // 4),
    }


BOMBS = bombs(MIB >> 2)


@pytest.mark.parametrize("bomb", BOMBS)
def test_decoding_a_bomb_stays_within_memory_and_time(
    bomb: str, writer: "ipcq.Queue[bytes]", reader: "ipcq.Queue[object]"
) -> None:
    """C29: a bomb costs at most 64 KiB and 120 times its size, and ten seconds for each MiB."""
    data = BOMBS[bomb]
    writer.put(data)
    tracemalloc.start()
    try:
        began = time.process_time()
        try:
            item = reader.get_nowait()
        except ipcq.DecodeError as error:
            item = None
            assert error.data == data
        seconds = time.process_time() - began
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del item
    print(f"{bomb}: {len(data)} bytes, {peak / max(len(data), 1):.1f} bytes each, {seconds:.3f} s")
    assert peak <= FIXED_BYTES + FACTOR * len(data)
    assert seconds <= SECONDS_PER_MIB * max(len(data) / MIB, 1)


def test_the_next_get_works_after_each_bomb(writer: "ipcq.Queue[bytes]", reader: "ipcq.Queue[object]") -> None:
    """C29: a message that cannot be decoded blocks nothing: the item behind it comes out."""
    for data in bombs(MIB >> 4).values():
        writer.put(data)
        writer.put(b"\x2a")
        try:
            reader.get_nowait()
        except ipcq.DecodeError:
            pass
        assert reader.get_nowait() == 42


class Payload:
    """An object that runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return eval, ("1 + 1",)


def hostile(seed: int) -> Iterator[bytes]:
    """Yield messages without end: noise, damaged MessagePack, truncated bombs, pickles under every mark."""
    dice = random.Random(seed)
    pickles = [pickle.dumps(Payload(), protocol) for protocol in range(6)] + [b"cos\nsystem\n(S'true'\ntR."]
    whole = [
        msgpack.packb(item)
        for item in (None, [1, 2.5, "text", b"bytes"], {"a": {"b": [1] * 40}}, 1 << 63, "x" * 300, [[[[]]]] * 20)
    ]
    bombs = [bomb[:400] for bomb in BOMBS.values()]
    while True:
        kind = dice.randrange(6)
        if kind == 0:
            yield dice.randbytes(dice.randrange(64))
        elif kind == 1:
            data = bytearray(dice.choice(whole))
            for _ in range(dice.randrange(1, 5)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            yield bytes(data)
        elif kind == 2:
            data = bytearray(dice.choice(whole))
            yield bytes(data[: dice.randrange(len(data))])
        elif kind == 3:
            yield dice.choice(bombs)
        elif kind == 4:
            number = dice.choice((b"\x00", b"\x01", b"\x81\x00", b"\x02", b"\xe9\x07", dice.randbytes(2)))
            yield b"\xc1" + number + dice.choice((*pickles, *whole))
        else:
            # Extension types of any number.
            payload = dice.choice(pickles)[:255]
            yield b"\xc7" + bytes((len(payload), dice.randrange(256))) + payload


def test_hostile_messages_give_an_item_or_a_decode_error(
    writer: "ipcq.Queue[bytes]", reader: "ipcq.Queue[object]"
) -> None:
    """C29: each of 10,000 hostile messages gives an item or DecodeError with its bytes, within the memory limit."""
    messages = hostile(own_seed())
    refused = 0
    tracemalloc.start()
    try:
        for _ in range(MESSAGES):
            data = next(messages)
            writer.put_nowait(data)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            try:
                reader.get_nowait()
            except ipcq.DecodeError as error:
                assert error.data == data
                refused += 1
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before <= FIXED_BYTES + FACTOR * len(data), data
    finally:
        tracemalloc.stop()
    print(f"{refused} of {MESSAGES} refused")
    assert MESSAGES // 4 < refused < MESSAGES


AUDITED = """
    import json, pickle, sys
    sys.path.insert(0, sys.argv[1])
    import ipcq
    import test_wire

    name = "/audited"
    ipcq.open(name, "memory", exclusive=True, max_messages=4, max_message_size=4096).close()
    writer = ipcq.open(name, "memory", create=False, serializer="raw", read=False)
    reader = ipcq.open(name, "memory", create=False)
    messages = test_wire.hostile(int(sys.argv[2]))

    # What the way in and out imports on first use is not the messages' doing.
    for data in (b"", b"\\x01", b"\\xc1\\x01", b"\\xd6\\xff\\0\\0\\0\\x01", b"\\x92\\x01\\x02"):
        writer.put_nowait(data)
        try:
            reader.get_nowait()
        except ipcq.DecodeError as error:
            str(error)

    watched_for = ("pickle", "marshal", "import", "exec", "compile", "open", "os", "subprocess", "socket", "ctypes")
    seen = []
    watched = False

    def hook(event, arguments):
        if watched and event.split(".")[0] in watched_for:
            seen.append([event, repr(arguments)])

    sys.addaudithook(hook)
    refused = 0
    for _ in range(int(sys.argv[3])):
        data = next(messages)
        writer.put_nowait(data)
        watched = True
        try:
            reader.get_nowait()
        except ipcq.DecodeError:
            refused += 1
        watched = False

    caught = list(seen)

    # That the hook would have seen it.
    watched = True
    pickle.loads(pickle.dumps(test_wire.Payload()))
    watched = False
    control = [event for event, _ in seen[len(caught):]]
    print(json.dumps({"refused": refused, "caught": caught, "control": control}))
"""


def test_no_hostile_message_runs_imports_or_opens_anything() -> None:
    """C26: 10,000 hostile messages, including pickles under every mark, cause no audit event in the interpreter."""
    script = textwrap.dedent(AUDITED)
    here = str(Path(__file__).parent)
    arguments = [sys.executable, "-c", script, here, str(own_seed()), str(MESSAGES)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["caught"] == []
    assert {"pickle.find_class", "exec"} <= set(told["control"])
    assert told["refused"] > MESSAGES // 4
