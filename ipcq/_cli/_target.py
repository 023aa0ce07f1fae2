"""The target of `move`, `copy` and `load`: an existing queue, or a new one with the limits of the source."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import combinations
from typing import Any

import ipcq
from ipcq._cli._creation import backend_options_option, check_that_it_lasts, existing, lasting, limit_options
from ipcq._cli._exits import Failure, complain, line_of
from ipcq._cli._options import Verb, option_of_open
from ipcq._opening.address import parse
from ipcq._opening.options import OPTIONS
from ipcq.errors import BackendUnavailable, LimitExceeded, MessageQueueError, NoSpace, QueueExists, Unsupported

#: Capacities. If one is requested, none is inherited.
CAPACITIES = ("max_messages", "buffer_size")

#: Inherited limits that the new queue may lack, as long as the messages fit.
SPARABLE = ("buffer_size", "mode", "max_messages")

REFUSALS = (Unsupported, LimitExceeded, NoSpace, BackendUnavailable)


@dataclass(frozen=True)
class Limits:
    """Limits from the command line; None for those not given."""

    asked: Mapping[str, Any]
    options: Mapping[str, Any]
    """Options of the backend."""

    @property
    def drops_priorities(self) -> bool:
        """Whether to put every message with priority 0."""
        return self.asked["priorities"] is False

    def of_open(
        self, inherited: Mapping[str, Any], url: Collection[str] = ()
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield arguments for `ipcq.open` and the inherited limits that they omit, fewest omissions first.

        Args:
            inherited: Limits of the source.
            url: Names of the options in the target's URL.
        """
        asked = {limit: value for limit, value in self.asked.items() if value is not None}
        said = {*asked, *url}
        rest = {limit: value for limit, value in inherited.items() if value is not None and limit not in said}
        if any(capacity in said for capacity in CAPACITIES):
            rest = {limit: value for limit, value in rest.items() if limit not in CAPACITIES}
        spared = [limit for limit in SPARABLE if limit in rest and (limit, rest[limit]) != ("mode", 0o600)]
        for size in range(len(spared) + 1):
            for left_out in combinations(spared, size):
                kept = {limit: value for limit, value in rest.items() if limit not in left_out}
                yield {**kept, **asked, **self.options}, {limit: rest[limit] for limit in left_out}


def target_options(verb: Verb) -> Verb:
    """Add the options for the limits of a new queue, and pass them as `Limits` named ``limits``."""

    @wraps(verb)
    def call(
        *,
        max_messages: int | None,
        max_message_size: int | None,
        buffer_size: int | None,
        priorities: bool | None,
        mode: int | None,
        options: Mapping[str, Any],
        **others: Any,
    ) -> Any:
        asked = {
            "max_messages": max_messages,
            "max_message_size": max_message_size,
            "buffer_size": buffer_size,
            "priorities": priorities,
            "mode": mode,
        }
        return verb(limits=Limits(asked, options), **others)

    with_limits: Callable[..., Any] = call
    for option in (
        backend_options_option,
        option_of_open("mode"),
        option_of_open(
            "priorities",
            off="--no-priorities",
            default=None,
            help="Create the queue with priorities, or put every message with priority 0.",
        ),
        option_of_open("buffer_size"),
        limit_options,
    ):
        with_limits = option(with_limits)
    return with_limits  # type: ignore[return-value]  # the same verb with other arguments


def open_target(
    name: str,
    backend: str,
    limits: Limits,
    inherited: Mapping[str, Any],
    *,
    messages: int | None,
    create: bool,
    advise: Callable[[MessageQueueError], None] = lambda _: None,
    **options: Any,
) -> ipcq.Queue[Any]:
    """Open the queue, or create it with the requested limits and those of the source.

    Args:
        name: Name or URL.
        backend: The backend to search and to create on.
        limits: Limits from the command line.
        inherited: Mode and limits of the source. Those that the backend rejects are omitted, with a note on stderr.
        messages: Number of messages to come, if known.
        create: Create the queue if it does not exist.
        advise: Rewords the advice in an error for the command line of this verb.
        **options: Other options of `ipcq.open`.

    Raises:
        Failure: The new queue would have less capacity than the messages need.
        MessageQueueError: The queue cannot be opened or created.
    """
    options["read"] = False
    asked, _ = next(limits.of_open({}))
    of_existing = {**asked, **options}
    of_existing.pop("mode", None)  # only for a new queue
    if limits.drops_priorities:
        del of_existing["priorities"]
    if not create:
        return ipcq.open(name, backend, create=False, **of_existing)
    if (there := existing(name, backend, **of_existing)) is not None:
        return there
    troubles: list[MessageQueueError] = []
    for asked, left_out in limits.of_open(inherited, parse(name).options):
        try:
            with lasting():
                queue = ipcq.open(name, backend, exclusive=True, **asked, **options)
        except QueueExists:  # created meanwhile
            return ipcq.open(name, backend, create=False, **of_existing)
        except REFUSALS as error:
            advise(error)
            troubles.append(error)
        else:
            try:
                _check_new(queue, left_out, messages, troubles)
            except BaseException:
                with queue:
                    queue.unlink()
                raise
            return queue
    largest = inherited.get("max_message_size")
    if largest is not None and limits.asked["max_message_size"] is None:
        troubles[-1].add_note(
            f"messages may have {largest} bytes: if none is that large, pass a smaller --max-message-size"
        )
    raise troubles[-1]


def _check_new(
    queue: ipcq.Queue[Any], left_out: Mapping[str, Any], messages: int | None, troubles: Sequence[MessageQueueError]
) -> None:
    check_that_it_lasts(queue)
    if not left_out:
        return
    if queue.max_messages is not None and messages is not None and messages > queue.max_messages:
        raise Failure(
            f"{messages} messages do not fit into a new queue {queue.name!r} on backend {queue.backend!r}, which would "
            f"hold {queue.max_messages}: pass --max-messages {messages}, or fewer if a consumer takes them meanwhile"
        )
    listed = ", ".join(
        f"{OPTIONS[limit].flag} {value:04o}" if limit == "mode" else f"{OPTIONS[limit].flag} {value}"
        for limit, value in left_out.items()
    )
    complain(f"queue {queue.name!r} is created without {listed}: {line_of(troubles[0])}")


def check_size(queue: ipcq.Queue[Any], limits: Limits, largest: int | None) -> None:
    """Check that the queue accepts the largest possible message, unless --max-message-size was given.

    Raises:
        Failure: It does not.
    """
    if largest is not None and largest > queue.max_message_size and limits.asked["max_message_size"] is None:
        raise Failure(
            f"queue {queue.name!r} on backend {queue.backend!r} takes messages of at most {queue.max_message_size} "
            f"bytes, but some may have {largest}: if none is larger than {queue.max_message_size}, pass "
            f"--max-message-size {queue.max_message_size}"
        )
