"""MessagePack in C: it writes and reads what msgpack does, or leaves the item or message to msgpack.

These tests compare the codec of a default handle with the one without C. The tests in test_serializers*.py have
examples of the expected results, and run with both codecs.
"""

import gc
import inspect
import math
import random
import struct
import sys
import sysconfig
import threading
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgpack
import pytest
from hypothesis import example, given, settings, strategies

from core.conftest import Run
from ipcq.serializers import Codec, _in_c, _msgpack, codec_for
from processes.sizes import size

if not _in_c.COMPILED:
    if sys.platform != "linux":
        pytest.skip("Windows has no C extension of ipcq, and neither does macOS", allow_module_level=True)
    pytest.fail("ipcq._native was not built: install a C compiler, and then ipcq again", pytrace=False)

from ipcq import _native

#: The levels of nesting that C encodes and decodes; it leaves deeper ones to msgpack (ipcq/csrc/codec.h).
LEVELS = 96


class Left(Exception):
    """Raised where C leaves something to msgpack."""


def leave(_: object) -> Any:
    raise Left


ALONE = _native.Codec(leave, leave)

#: Whether messages share their keys. A free-threaded Python would never free them, which a hostile producer could use.
SHARED = not sysconfig.get_config_var("Py_GIL_DISABLED")


@pytest.fixture(scope="module")
def in_c() -> Codec:
    """Return the codec of a default handle."""
    return codec_for("msgpack")


@pytest.fixture(scope="module")
def in_python() -> Iterator[Codec]:
    """Return the same codec without C."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPCQ_SHORTCUTS", "0")
        yield codec_for("msgpack")


def outcome(function: Callable[[Any], Any], argument: Any) -> tuple[Any, ...]:
    """Return everything that a caller sees: the classes and bits of the result, or the details of the exception."""
    try:
        return ("returned", spelled(function(argument)))
    except Exception as error:
        return (type(error), str(error), type(error.__cause__), getattr(error, "data", None))


def spelled(item: Any) -> Any:
    """Return a description of an item, which is equal only if classes, order, signs and NaNs are equal."""
    if type(item) is list:
        return [spelled(each) for each in item]
    if type(item) is tuple:
        return ("tuple", [spelled(each) for each in item])
    if type(item) is dict:
        return ("dict", [(spelled(key), spelled(value)) for key, value in item.items()])
    return (type(item), struct.pack("d", item) if type(item) is float else item)


# Values


class Point(NamedTuple):
    x: int


class Text(str):
    """A str of another class."""

    __slots__ = ()


class Number(int):
    """An int of another class."""


class Real(float):
    """A float of another class."""


class Data(bytes):
    """A bytes of another class."""


class Buffer(bytearray):
    """A bytearray of another class."""


class Items(list[int]):
    """A list of another class."""


EDGES = [
    sign * (1 << bits) + off for bits in (0, 5, 7, 8, 15, 16, 31, 32, 63, 64) for sign in (1, -1) for off in (-1, 0, 1)
]
LENGTHS = [0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 255, 256, 65535, 65536]
SCALARS = (
    strategies.none()
    | strategies.booleans()
    | strategies.integers(-(2**64), 2**65)
    | strategies.sampled_from(EDGES)
    | strategies.floats()
    | strategies.text()
    | strategies.text(strategies.characters(max_codepoint=0x7F), max_size=40)
    | strategies.binary(max_size=40)
    | strategies.binary(max_size=40).map(bytearray)
)
STRANGE = (
    strategies.datetimes(timezones=strategies.just(UTC))
    | strategies.sampled_from([object, {1}, 1j, Text("x"), Point(1), memoryview(b"x"), "\ud800", OrderedDict(a=1)])
    | strategies.builds(msgpack.ExtType, strategies.integers(0, 127), strategies.binary(max_size=20))
)
KEYS = SCALARS.filter(lambda key: type(key) is not bytearray) | strategies.tuples(strategies.integers())
VALUES = strategies.recursive(
    SCALARS | STRANGE,
    lambda inner: (
        strategies.lists(inner) | strategies.lists(inner).map(tuple) | strategies.dictionaries(KEYS, inner, max_size=20)
    ),
    max_leaves=30,
)
IN_RANGE = SCALARS.filter(lambda value: type(value) is not int or -(2**63) <= value < 2**64)
PLAIN = strategies.recursive(
    IN_RANGE,
    lambda inner: (
        strategies.lists(inner)
        | strategies.dictionaries(IN_RANGE.filter(lambda key: type(key) is not bytearray), inner, max_size=20)
    ),
    max_leaves=30,
)


def some(chance: random.Random, levels: int = 3) -> Any:
    """Return a value that C does not leave to msgpack; faster than Hypothesis, for the millions of a nightly run."""
    kind = chance.randrange(12 if levels else 9)
    length = chance.choice(LENGTHS[:12]) if chance.random() < 0.1 else chance.randrange(12)
    if kind < 3:
        return chance.choice(EDGES) if kind else chance.randrange(-(2**31), 2**31)
    if kind == 3:
        return chance.choice((None, True, False, -0.0, math.inf, -math.inf))
    if kind == 4:
        return struct.unpack("d", chance.randbytes(8))[0]
    if kind in (5, 6):
        return "".join(chance.choices("abc\x00\x7f" if kind == 5 else "aé\u20ac\U0001f40d", k=length))
    if kind in (7, 8):
        return (bytes, bytearray)[kind - 7](chance.randbytes(length))
    if kind == 11:
        return {keyed(some(chance, 0)): some(chance, levels - 1) for _ in range(length)}
    return (list, tuple)[kind - 9](some(chance, levels - 1) for _ in range(length))


def keyed(value: Any) -> Any:
    return bytes(value) if type(value) is bytearray else value


def count_of(value: Any) -> int:
    """Return the number of values in a value, including itself."""
    parts: Any = value.items() if type(value) is dict else value if type(value) in (list, tuple) else ()
    return 1 + sum(map(count_of, parts))


# Encoding


@settings(max_examples=size(300, 20_000), deadline=None)
@given(VALUES)
def test_what_is_written_or_refused_is_the_same_in_c(in_c: Codec, in_python: Codec, value: object) -> None:
    """The bytes, the errors and their texts are equal."""
    assert outcome(in_c.encode, value) == outcome(in_python.encode, value)


@settings(max_examples=size(10, 10_000), deadline=None)
@given(strategies.integers(0, 2**64))
def test_values_by_the_thousand_are_written_as_msgpack_writes_them(seed: int) -> None:
    """A nightly run tries ten million; C leaves only integers of more than 64 bits to msgpack."""
    chance, pack, tried = random.Random(seed), msgpack.Packer().pack, 0
    while tried < 1000:
        value = some(chance)
        tried += count_of(value)
        try:
            expected = pack(value)
        except OverflowError:
            with pytest.raises(Left):
                ALONE.encode(value)
        else:
            assert ALONE.encode(value) == expected
            assert spelled(ALONE.decode(expected)) == spelled(_msgpack.decode(expected))


@pytest.mark.parametrize("value", EDGES)
def test_an_integer_takes_the_head_that_msgpack_would_take(in_c: Codec, in_python: Codec, value: int) -> None:
    """At the limits of all ranges; integers beyond them are refused in the same way."""
    assert outcome(in_c.encode, value) == outcome(in_python.encode, value)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(
    "make",
    [
        lambda length: "x" * length,
        lambda length: "é" * (length // 2),
        lambda length: b"x" * length,
        lambda length: bytearray(length),
        lambda length: [None] * length,
        lambda length: (None,) * length,
        lambda length: dict.fromkeys(range(length)),
        lambda length: {"x" * length: 1},
    ],
    ids=["ascii", "text", "bytes", "bytearray", "list", "tuple", "dict", "key"],
)
def test_each_head_is_written_as_by_msgpack_and_read_again(length: int, make: Callable[[int], Any]) -> None:
    """At the limits of all ranges of lengths; C leaves none to msgpack."""
    data = ALONE.encode(make(length))
    assert (data, spelled(ALONE.decode(data))) == (msgpack.packb(make(length)), spelled(_msgpack.decode(data)))


@pytest.mark.parametrize(
    "value",
    [
        *(Text("x"), Number(1), Real(1), Data(b"x"), Buffer(b"x"), Items([1]), Point(1), OrderedDict(a=1)),
        *(memoryview(b"x"), datetime.now(UTC), msgpack.ExtType(5, b"x"), {1}, object()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_other_class_is_left_to_msgpack(value: object) -> None:
    """Subclasses too, because their code might run during encoding."""
    with pytest.raises(Left):
        ALONE.encode([value])


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}, 2**64, -(2**63) - 1])
def test_what_is_refused_is_left_to_msgpack(value: object) -> None:
    """So the error and its text come from msgpack."""
    with pytest.raises(Left):
        ALONE.encode(value)


@pytest.mark.parametrize("nest", [lambda inner: [inner], lambda inner: (inner,), lambda inner: {"a": inner}])
@pytest.mark.parametrize("levels", [LEVELS, LEVELS + 1])
def test_c_handles_a_limited_number_of_levels(nest: Callable[[Any], Any], levels: int) -> None:
    """For encoding and for decoding."""
    value: Any = 5
    for _ in range(levels):
        value = nest(value)
    data = msgpack.packb(value)
    tried = []
    for verb, given_ in ((ALONE.encode, value), (ALONE.decode, data)):
        try:
            verb(given_)
            tried.append(True)
        except Left:
            tried.append(False)
    assert tried == [levels == LEVELS] * 2


@pytest.mark.parametrize("levels", [LEVELS, LEVELS + 1, 1023, 1024, 1025, 1026])
def test_what_is_nested_too_deeply_is_refused_as_by_msgpack(in_c: Codec, in_python: Codec, levels: int) -> None:
    """C29: for encoding and decoding, with msgpack's limits."""
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    data = b"\x91" * (levels - 1) + b"\x90"
    assert (outcome(in_c.encode, value), outcome(in_c.decode, data)) == (
        outcome(in_python.encode, value),
        outcome(in_python.decode, data),
    )


def test_the_smallest_stack_of_a_thread_suffices_for_all_levels(run: Run) -> None:
    """The number of levels was chosen for that."""
    assert (
        run(
            f"""
            import threading
            from ipcq._native import Codec
            codec = Codec(None, None)
            data = b"\\x81\\xa1a" * {LEVELS} + b"\\xc0"
            threading.stack_size(32 * 1024)
            thread = threading.Thread(target=lambda: print(codec.encode(codec.decode(data)) == data))
            thread.start()
            thread.join()
            """
        )
        == "True"
    )


@pytest.mark.parametrize("large", [1000, 1023, 1024, 1025, 5000, 1 << 20])
def test_what_outgrows_the_stack_is_whole(large: int) -> None:
    """Messages are first written on the stack, and large ones are moved from there."""
    value = ["x" * 500, b"y" * large, list(range(300)), {"z": "ü" * large}]
    assert ALONE.encode(value) == msgpack.packb(value)


def test_containers_that_other_threads_change_become_whole_messages() -> None:
    """C21: whatever the threads do to a list or dict during encoding."""
    shared: list[Any] = [{"a": [1] * 10} for _ in range(50)]
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            shared.append({"b": [2]})
            shared[0][len(shared)] = shared.pop()
            shared[0].clear()
            shared[1]["a"].append(shared[1]["a"].pop(0))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=change)
    thread.start()
    try:
        lengths = {len(ALONE.decode(ALONE.encode(shared))) for _ in range(2000)}
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert lengths <= {49, 50, 51}


# Decoding

#: Bytes that begin a value, or an invalid one.
HEADS = bytes([0x00, 0x7F, 0x80, 0x81, 0x82, 0x8F, 0x90, 0x91, 0x9F, 0xA0, 0xA1, 0xA8, 0xBF, *range(0xC0, 0xE1), 0xFF])


def mutated(chance: random.Random, data: bytes) -> bytes:
    """Return a message with a few bytes changed, removed, inserted or cut off."""
    message = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(message) + 1)
        match chance.randrange(5):
            case 0:
                message[place:place] = bytes([chance.choice(HEADS)])
            case 1:
                message[place : place + 1] = bytes([chance.choice(HEADS)])
            case 2:
                message[place : place + 1] = chance.randbytes(1)
            case 3:
                del message[place : place + chance.randrange(3)]
            case _:
                del message[place:]
    return bytes(message)


@settings(max_examples=size(300, 20_000), deadline=None)
@given(data=VALUES.map(lambda value: outcome(_msgpack.encode, value)) | strategies.binary(max_size=60), chance=...)
@example(data=b"\xca\x7f\x80\x00\x01", chance=random.Random(0))  # a signalling NaN of 32 bits
def test_what_is_read_or_refused_is_the_same_in_c(
    in_c: Codec, in_python: Codec, data: Any, chance: random.Random
) -> None:
    """The values, the errors and their texts are equal: for valid messages, changed ones and random bytes."""
    message = data if isinstance(data, bytes) else data[1][1] if data[0] == "returned" else b""
    for each in (message, mutated(chance, message)):
        assert outcome(in_c.decode, each) == outcome(in_python.decode, each)


@settings(max_examples=size(10, 2_000), deadline=None)
@given(strategies.integers(0, 2**64))
def test_mutants_by_the_hundred_are_read_or_refused_as_by_msgpack(in_c: Codec, in_python: Codec, seed: int) -> None:
    """A nightly run tries a million."""
    chance, tried = random.Random(seed), 0
    while tried < 500:
        try:
            data = msgpack.packb(some(chance))
        except OverflowError:
            continue
        for _ in range(10):
            tried += 1
            mutant = mutated(chance, data)
            assert outcome(in_c.decode, mutant) == outcome(in_python.decode, mutant), mutant


@settings(max_examples=size(100, 10_000), deadline=None)
@given(PLAIN)
def test_what_c_wrote_c_reads(value: object) -> None:
    """C33: without msgpack."""
    assert spelled(ALONE.decode(ALONE.encode(value))) == spelled(
        msgpack.unpackb(msgpack.packb(value), strict_map_key=False)
    )


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\xc1", b"\xc1\x00\x01", b"\x01\x02", b"\x80\x05", b"\xa1\xff", b"\xa2\xc3\x28", b"\xa3\xed\xa0\x80"),
        *(b"\xd4\x05x", b"\xd6\xff\0\0\0\0", b"\xc7\x0c\xff" + bytes(12), b"\x81\x90\x01", b"\x81\x80\x01"),
        *(b"\x91", b"\x81\xa1a", b"\xdc\x00", b"\xcf" + bytes(7), b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"),
    ],
)
def test_what_is_no_plain_message_is_left_to_msgpack(data: bytes) -> None:
    """Extensions, marks, invalid text, keys that no dict can have, truncated messages, and bytes behind the message."""
    with pytest.raises(Left):
        ALONE.decode(data)


@pytest.mark.parametrize("data", [bytearray(b"\x05"), memoryview(b"\x05"), "x", None])
def test_what_is_not_bytes_is_left_to_python(data: Any) -> None:
    """A bytearray, for example, may change during decoding."""
    with pytest.raises(Left):
        ALONE.decode(data)


def test_a_message_is_read_within_memory_in_proportion_to_it() -> None:
    """C29: nested lists cannot each claim the rest of the message."""
    claims = b"".join(b"\xdd" + (500_000 - 5 * level).to_bytes(4) for level in range(1, 90))
    data = claims + b"\xc0" * (500_000 - len(claims))
    tracemalloc.start()
    try:
        with pytest.raises(Left):
            ALONE.decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024 + 9 * len(data)


def test_broken_messages_leak_no_memory() -> None:
    """C29: C frees what it has decoded before it finds that the message is broken."""
    chance = random.Random(7)
    data = msgpack.packb([{"key": [1.5, "text", b"bytes", {"inner": (1, 2)}]} for _ in range(5)])
    broken = [mutated(chance, data) for _ in range(200)]

    def use() -> None:
        for each in broken:
            outcome(ALONE.decode, each)

    use()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(20):
        use()
    gc.collect()
    assert sys.getallocatedblocks() - before < 200


# Keys


def test_the_keys_of_one_message_are_those_of_the_next() -> None:
    """A known key needs no new str; long keys are one object as well, as with msgpack."""
    data = msgpack.packb({"id": 1, "a-longer-key-1234": 2})
    assert [one is other for one, other in zip(ALONE.decode(data), ALONE.decode(data), strict=True)] == [SHARED] * 2


def test_a_codec_keeps_keys_as_long_as_it_lives() -> None:
    """It holds one reference to each."""
    codec = _native.Codec(leave, leave)
    (key,) = codec.decode(msgpack.packb({"a-key": 1}))
    codec.decode(msgpack.packb({"a-key": 1}))
    before = sys.getrefcount(key)
    del codec
    # CPython 3.12 never frees a str that is interned, as each key is, also by msgpack; its count does not change.
    assert before - sys.getrefcount(key) == (SHARED and before < 1 << 30)


@pytest.mark.parametrize("key", ["a", "a" * 8, "ab" * 4, "a" * 9])
def test_keys_that_differ_in_their_length_are_told_apart(key: str) -> None:
    """Their first and last bytes may be the same, and zeros may follow a short key."""
    keys = [key + tail * count for tail in ("\0", "a") for count in range(8)]
    for each in [*keys, *keys]:
        assert ALONE.decode(msgpack.packb({each: None})) == {each: None}


@settings(max_examples=size(100, 5_000), deadline=None)
@given(strategies.lists(strategies.text(strategies.sampled_from("ab\0é"), max_size=18), max_size=60))
def test_keys_are_not_mixed_up(keys: list[str]) -> None:
    """Their bytes and their length identify short keys."""
    for key in keys:
        assert ALONE.decode(msgpack.packb({key: 1})) == {key: 1}


def test_more_keys_than_are_remembered_are_read() -> None:
    """They displace each other."""
    codec = _native.Codec(leave, leave)
    items = [{f"key-{number}": number} for number in range(2000)] * 2
    assert [codec.decode(msgpack.packb(item)) for item in items] == items


def test_equal_keys_of_several_classes_are_one_as_in_msgpack(in_c: Codec, in_python: Codec) -> None:
    """The first key stays, and the last value counts."""
    data = b"\x85\x01\xa1a\xc3\xa1b\xcb" + struct.pack(">d", 1.0) + b"\xa1c\xa1k\x01\xa1k\x02"
    assert outcome(in_c.decode, data) == outcome(in_python.decode, data)


# The module


def test_a_default_handle_uses_c_unless_it_is_switched_off(in_c: Codec, in_python: Codec) -> None:
    """IPCQ_SHORTCUTS=0 does that; otherwise the tests above would compare Python with itself."""
    calls = (in_c.encode, in_c.decode, in_python.encode, in_python.decode)
    assert list(map(inspect.isbuiltin, calls)) == [True, True, False, False]


@pytest.mark.parametrize("arguments", [(), (leave,), (leave, leave, leave), (leave, leave, "raw", leave)])
def test_the_codec_takes_two_functions_and_a_format(arguments: tuple[Any, ...]) -> None:
    """C calls one of them for what it leaves to Python."""
    with pytest.raises(TypeError):
        _native.Codec(*arguments)


def test_an_unknown_format_is_refused() -> None:
    """The error names the format."""
    with pytest.raises(ValueError, match="no format marshal"):
        _native.Codec(leave, leave, "marshal")


@pytest.mark.parametrize("size", [0, 255, 256, 65535, 65536])
@pytest.mark.parametrize("format", ["messagepack", "bin", "raw"])
def test_every_format_has_bytes(format: str, size: int) -> None:
    """C calls neither of the two functions."""
    codec = _native.Codec(leave, leave, format)
    data = bytes(size)
    assert codec.encode(data) == (data if format == "raw" else msgpack.packb(data))
    assert codec.decode(codec.encode(data)) == data


@pytest.mark.parametrize("item", [None, 5, "text", bytearray(b"1"), [b"1"], type("Mine", (bytes,), {})(b"1")], ids=repr)
@pytest.mark.parametrize("format", ["bin", "raw"])
def test_other_formats_leave_everything_but_bytes(format: str, item: object) -> None:
    """They are for serializers that encode everything else differently."""
    with pytest.raises(Left):
        _native.Codec(leave, leave, format).encode(item)


@pytest.mark.parametrize("data", [b"", b"\xc4", b"\xc4\x02a", b"\xc4\x01ab", b"\xc5\x00", b"\xa1a", b"\x05"], ids=repr)
def test_a_message_that_is_not_one_bin_is_left(data: bytes) -> None:
    """The length in its head must be that of the rest of the message."""
    with pytest.raises(Left):
        _native.Codec(leave, leave, "bin").decode(data)


def test_the_collector_finds_what_a_codec_refers_to() -> None:
    """A cycle through it can be collected."""
    one, other = (lambda _: b""), (lambda _: None)
    assert {one, other} <= set(gc.get_referents(_native.Codec(one, other)))


def test_a_fallback_gets_the_argument_of_the_call() -> None:
    """The item or the bytes; and the codec returns its result."""
    codec = _native.Codec(lambda item: b"encoded", lambda data: data)
    assert (codec.encode({1}), codec.decode(b"\xc1")) == (b"encoded", b"\xc1")


@pytest.mark.parametrize("verb", ["encode", "decode"])
def test_an_exception_of_a_fallback_propagates(verb: str) -> None:
    """C12: even an interrupt."""

    def interrupt(_: object) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        getattr(_native.Codec(interrupt, interrupt), verb)(object())


SUBINTERPRETER = """
    import os
    try:
        import _interpreters as interpreters  # since 3.13
    except ImportError:
        import _xxsubinterpreters as interpreters
    script = "from ipcq._native import Codec; c = Codec(None, None); assert c.decode(c.encode({'a': [1]}))"
    script += "; print('worked', flush=True)"
    for _ in range(3):
        number = interpreters.create()
        failed = interpreters.run_string(number, script)
        assert failed is None, failed
        interpreters.destroy(number)
    os._exit(0)  # CPython 3.12.1 may crash at its end after other interpreters, whatever they have imported
"""


def test_every_interpreter_of_a_process_has_its_own_codec(run: Run) -> None:
    """The module has no state that they would share; since 3.12 each has its own GIL."""
    assert run(SUBINTERPRETER).split() == ["worked"] * 3
