"""C26, C29: no message makes ipcq run code or use unbounded memory."""

import pickle
import tracemalloc

import pytest

import ipcq
from ipcq.testing.contract._bench import HANG, Bench

_FLAT_BYTES = 64 * 1024
_PER_BYTE = 80

#: Messages that claim a large size but are short, or have many objects in few bytes; truncated to the queue's limit.
BOMBS = {
    "huge_array": b"\xdd\xff\xff\xff\xff",
    "huge_array_of_arrays": b"\xdd\x7f\xff\xff\xff" * 100,
    "huge_map": b"\xdf\xff\xff\xff\xff" * 100,
    "huge_bytes": b"\xc6\xff\xff\xff\xff",
    "huge_string": b"\xdb\xff\xff\xff\xff",
    "huge_extension": b"\xc9\xff\xff\xff\xff\x01",
    "nested_arrays": b"\x91" * 4096,
    "nested_maps": b"\x81\x01" * 2048,
    "empty_maps": b"\xdc\x01\xf4" + b"\x80" * 500,
    "empty_arrays": b"\xdc\x01\xf4" + b"\x90" * 500,
    "small_maps": b"\xdc\x00\xa0" + b"\x81\x01\x02" * 160,
    "framed": b"\xc1\x00\xdd\xff\xff\xff\xff",
}


class Safety(Bench):
    """Hostile messages."""

    def test_no_message_runs_code(self) -> None:
        """C26: pickles, bare or marked, and unknown marks import, open, compile and execute nothing.

        A channel may open files to take a message, because that does not depend on the content.
        """
        self.run(
            """
            import pickle
            from ipcq.backend import Channel
            class Trap:
                def __reduce__(self):
                    return os.system, ("exit 1",)
            pickles = [pickle.dumps(Trap(), protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
            pickles += [b"cos\\nsystem\\n(S'exit 1'\\ntR.", b"c__builtin__\\neval\\n(S'1'\\ntR."]
            marks = [b"", b"\\xc4\\x20"]
            numbers = b"\\x00", b"\\x01", b"\\x81\\x00", b"\\x02", b"\\x03", b"\\xe8\\x07"
            marks += [b"\\xc1" + number for number in numbers]
            harmless = [b"\\xc1\\x01", b"\\x01", b"\\xc1", b"", b"\\x91"]
            queue, raw = create(), attach(serializer="raw")
            taken = []
            def take():
                try:
                    taken.append(queue.get(timeout=5))
                except ipcq.DecodeError as error:
                    taken.append(error.data)
            for message in harmless:  # so that lazy imports happen now
                raw.put(message)
                take()
            watching, events = False, []
            suspicious = "pickle", "import", "exec", "compile", "open", "os", "subprocess", "marshal", "ctypes"
            programs = "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile"
            this_thread = threading.get_ident()
            def watch(event, arguments):
                if watching and event.split(".")[0] in suspicious and threading.get_ident() == this_thread:
                    files = event.split(".")[0] in ("open", "os") and event not in programs
                    if not (files and in_channel(sys._getframe(1))):
                        events.append((event, arguments))
            def in_channel(frame):  # the channel opens files before the message is decoded
                while frame is not None:
                    code = frame.f_code
                    if code.co_argcount and isinstance(frame.f_locals.get(code.co_varnames[0]), Channel):
                        return True
                    frame = frame.f_back
                return False
            sys.addaudithook(watch)
            for mark in marks:
                for payload in pickles:
                    raw.put(mark + payload)
                    watching = True
                    take()
                    watching = False
            assert not events, events
            watching = True
            eval("1")
            watching = False
            assert events, "the hook saw nothing"
            queue.unlink()
            queue.close()
            raw.close()
            """
        )

    def test_a_pickle_is_refused_by_default(self) -> None:
        """C26: a handle that does not allow pickles raises DecodeError for a pickle, and the next get works."""
        queue = self.create()
        writer = self.attach(serializer="pickle", allow_pickle=True)
        writer.put({1, 2})
        writer.put({3})
        with pytest.raises(ipcq.DecodeError) as caught:
            queue.get(timeout=HANG)
        assert pickle.loads(caught.value.data[2:]) == {1, 2}
        assert self.attach(allow_pickle=True).get(timeout=HANG) == {3}

    def test_pickling_is_asked_for_on_both_ends(self) -> None:
        """C26: the pickle serializer requires allow_pickle=True, and no other serializer falls back to it."""
        queue = self.create()
        with pytest.raises(ipcq.InvalidArgument):
            self.attach(serializer="pickle")
        with pytest.raises(ipcq.EncodeError):
            self.attach(allow_pickle=True).put({1})
        assert queue.empty()

    def test_pickling_between_users_is_refused(self) -> None:
        """C26: if other users can write to the queue, pickles are refused, as their code would run as this user."""
        self.needs("other_users")
        with pytest.raises(ipcq.PermissionDenied):
            self.create(mode=0o620, other_users=True, allow_pickle=True)
        self.create(mode=0o620, other_users=True)
        with pytest.raises(ipcq.PermissionDenied):
            self.attach(allow_pickle=True)

    @pytest.mark.parametrize("kind", BOMBS)
    def test_decoding_takes_memory_in_proportion(self, kind: str) -> None:
        """C29: decoding takes at most 64 KiB plus 80 times the message's size, whatever the message claims."""
        queue, raw = self.create(), self.attach(serializer="raw")
        bomb = BOMBS[kind][: self.limit]
        # Once before measuring, for objects that are created on first use.
        peak = 0
        for _ in range(2):
            raw.put(bomb)
            tracemalloc.start()
            try:
                queue.get(timeout=HANG)
            except ipcq.DecodeError:
                pass
            finally:
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
        assert peak <= _FLAT_BYTES + _PER_BYTE * len(bomb)

    def test_raw_handles_take_bytes_alone(self) -> None:
        """C6, C25: any other object raises EncodeError, and nothing is queued."""
        queue = self.create(serializer="raw")
        for item in ("text", 1, None, [1], object()):
            with pytest.raises(ipcq.EncodeError):
                queue.put(item)
        assert queue.empty()
