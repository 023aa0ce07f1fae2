"""C12: signals. Each test runs in its own process, because only the main thread runs handlers."""

import pytest

from ipcq.testing.contract._bench import INTERRUPTED, LATE, Bench

# Creates a queue on which the call must wait, with the second argument as timeout in seconds.
_WAIT = """
verb, seconds = sys.argv[1], float(sys.argv[2])
queue = create()
call = {
    "get": lambda: queue.get(timeout=seconds),
    "get_many": lambda: queue.get_many(timeout=seconds),
    "put": lambda: queue.put("item", timeout=seconds),
    "put_many": lambda: queue.put_many(["item"], timeout=seconds),
}[verb]
if verb.startswith("put"):
    while not queue.full():
        queue.put_nowait("item")
def wait():
    global seconds, waited
    while True:
        began = time.monotonic()
        try:
            return call()
        except ipcq.ConnectionLost:  # a server on a busy machine may take longer to answer
            seconds *= 2
        finally:
            waited = time.monotonic() - began
def whole():
    depth = 0
    while not queue.empty():
        assert queue.get(timeout=5) == "item"
        depth += 1
    queue.put("item")
    assert queue.get(timeout=5) == "item"
    queue.unlink()
    queue.close()
    return depth
"""
verbs = pytest.mark.parametrize("verb", ["get", "get_many", "put", "put_many"])


class Signals(Bench):
    """Signals during waits and other calls."""

    @verbs
    def test_an_exception_out_of_a_handler_arrives_unchanged(self, verb: str) -> None:
        """C12, clause 13: an exception of a handler propagates within 100 ms, and the queue stays intact."""
        self.run(
            _WAIT
            + """
class Mine(Exception):
    pass
mine = Mine()
def handler(*_):
    raise mine
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    wait()
except Mine as error:
    assert error is mine
else:
    raise SystemExit("the exception was swallowed")
assert waited < 0.2 + float(sys.argv[3]), waited
whole()
""",
            *(verb, 4, INTERRUPTED),
        )

    @verbs
    def test_control_c_ends_a_wait(self, verb: str) -> None:
        """C12: SIGINT during a wait raises KeyboardInterrupt within 100 ms, whichever thread receives the signal."""
        self.run(
            _WAIT
            + """
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    wait()
except KeyboardInterrupt:
    pass
else:
    raise SystemExit("the interrupt was swallowed")
assert waited < 0.2 + float(sys.argv[3]), waited
whole()
""",
            *(verb, 4, INTERRUPTED),
        )

    def test_a_wait_without_end_can_be_interrupted(self) -> None:
        """C12: SystemExit of a SIGTERM handler ends a get without a timeout."""
        self.run(
            _WAIT
            + """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
try:
    queue.get()
except SystemExit as error:
    assert error.code == 7
else:
    raise SystemExit("the exception was swallowed")
whole()
""",
            *("get", 15),
        )

    @verbs
    def test_a_handler_that_returns_leaves_the_time_as_it_is(self, verb: str) -> None:
        """C12: the signals of a 1 kHz timer neither shorten nor lengthen a wait."""
        self.run(
            _WAIT
            + """
ticks = 0
def handler(*_):
    global ticks
    ticks += 1
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
try:
    wait()
except ipcq.TimedOutError:
    pass
else:
    raise SystemExit("there was nothing to wait for")
signal.setitimer(signal.ITIMER_REAL, 0)
assert ticks > 10, ticks
assert seconds <= waited < seconds + float(sys.argv[3]), waited
whole()
""",
            *(verb, 0.5, LATE),
        )

    @pytest.mark.parametrize("serializer", ["raw", "msgpack"])
    def test_exceptions_at_any_instant_leave_the_queue_whole(self, serializer: str) -> None:
        """C5, C12, clause 11: an exception of a handler loses at most one message, and never blocks the queue."""
        self.run(
            """
            class Mine(Exception):
                pass
            def handler(number, frame):
                while frame is not None:
                    if frame.f_code is work.__code__:
                        raise Mine
                    frame = frame.f_back
            queue = create(serializer=sys.argv[1])
            item_of = {"raw": lambda number: b"%d" % number, "msgpack": int}[sys.argv[1]]
            attempted, stored, taken, raised = 0, [], [], 0
            until = time.monotonic() + 1
            def early():
                return raised <= 100 or time.monotonic() < until  # on a busy machine, few timers fire in a second
            def work():
                global attempted
                while early():
                    attempted += 1
                    try:
                        queue.put_nowait(item_of(attempted))
                        stored.append(attempted)
                    except ipcq.QueueFull:
                        pass
                    taken.append(int(queue.get(timeout=0.01)))
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0003)
            while early():
                try:
                    work()
                except Mine:
                    raised += 1
                except (ipcq.QueueEmpty, ipcq.ConnectionLost):  # a server on a busy machine may take longer to answer
                    pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            while not queue.empty():
                taken.append(int(queue.get_nowait()))
            assert len(set(taken)) == len(taken)
            # An interrupted put may reach a server late, even after the next one.
            ordered = set(stored) if sys.argv[2] == "NETWORK" else set(taken)
            numbers = [number for number in taken if number in ordered]
            assert numbers == sorted(numbers)
            lost = set(stored) - set(taken)
            assert len(lost) <= raised, (len(lost), raised)
            while not queue.full():
                try:
                    queue.put_nowait(item_of(0))
                except ipcq.QueueFull:
                    assert sys.argv[2] == "NETWORK"
            assert queue.clear() == small["max_messages"]
            queue.unlink()
            queue.close()
            """,
            *(serializer, self.can.scope.name),
        )

    def test_the_queue_can_be_used_in_a_handler(self) -> None:
        """C12: calls in a handler work or raise, and never deadlock, whatever the handler interrupts."""
        self.run(
            """
            import itertools
            queue = create()
            calls = depth = 0
            over = False
            def handler(*_):
                global calls, depth
                if over:  # a late signal would take the last item and set the timer again
                    return
                calls += 1
                depth += 1
                if depth < 4:  # limit the nesting, so that handlers do not pile up on a slow machine
                    signal.setitimer(signal.ITIMER_REAL, 0.0003)
                for call in (
                    lambda: queue.put_nowait("handler"), queue.qsize, queue.empty, queue.full, queue.get_nowait,
                    queue.stats, lambda: queue.put_many(["handler"], block=False), lambda: queue.get_many(block=False),
                    lambda: attach().close(),
                ):
                    try:
                        call()
                    except ipcq.MessageQueueError:
                        pass
                depth -= 1
            signal.signal(signal.SIGALRM, handler)
            dice = random.Random(1)
            until = time.monotonic() + 5  # if calls are slow, fewer are enough
            turn = itertools.cycle((
                lambda: queue.put("main", timeout=0.01), lambda: queue.get(timeout=0.01), queue.qsize,
                lambda: queue.put_many(["main", "main"], block=False), lambda: queue.get_many(block=False),
                queue.clear, queue.stats, lambda: attach().close(),
            ))
            while calls < 400 and (calls < 10 or time.monotonic() < until):
                signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.00001, 0.001))
                try:
                    next(turn)()
                except ipcq.MessageQueueError:
                    pass
            over = True
            signal.setitimer(signal.ITIMER_REAL, 0)
            queue.clear()
            queue.put("after")
            while queue.get(timeout=5) != "after":  # a message whose reply was lost comes first
                pass
            queue.unlink()
            queue.close()
            """
        )

    def test_the_queue_can_be_closed_in_a_handler(self) -> None:
        """C12, C14: a close in a handler ends the interrupted wait or is refused, and never hangs."""
        self.run(
            """
            queue = create()
            def handler(*_):
                try:
                    queue.close()
                except ipcq.MessageQueueError as error:
                    say("refused", error)
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            try:
                queue.get(timeout=5)
            except (ipcq.QueueClosed, ipcq.QueueEmpty):
                pass
            queue.close()
            queue.unlink()
            """
        )
