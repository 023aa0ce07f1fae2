"""The target of `move`, `copy` and `load`: an existing queue, or a new one with the limits of the source."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import combinations
from typing import Any

import ipcq
from ipcq._cli._creation import (
    backend_options_option,
    check_persistent,
    limit_options,
    open_existing,
    require_persistence,
)
from ipcq._cli._exits import Failure, complain, line_of
from ipcq._cli._options import Verb, option_of_open
from ipcq._opening.address import parse
from ipcq._opening.options import OPTIONS
from ipcq.errors import BackendUnavailable, LimitExceeded, MessageQueueError, NoSpace, QueueExists, Unsupported

#: Capacities. If one is requested, none is inherited.
CAPACITIES = ("max_messages", "buffer_size")

#: Inherited limits that the new queue may lack, as long as the messages fit.
OMITTABLE = ("buffer_size", "mode", "max_messages")

REFUSALS = (Unsupported, LimitExceeded, NoSpace, BackendUnavailable)


@dataclass(frozen=True)
class Limits:
    """Limits from the command line; None for those not given."""

    requested: Mapping[str, Any]
    options: Mapping[str, Any]
    """Options of the backend."""

    @property
    def drops_priorities(self) -> bool:
        """Whether to put every message with priority 0."""
        return self.requested["priorities"] is False

    def for_open(
        self, inherited: Mapping[str, Any], url: Collection[str] = ()
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield arguments for `ipcq.open` and the inherited limits that they omit, fewest omissions first.

        Args:
            inherited: Limits of the source.
            url: Names of the options in the target's URL.
        """
        requested = {limit: value for limit, value in self.requested.items() if value is not None}
        given = {*requested, *url}
        candidates = {limit: value for limit, value in inherited.items() if value is not None and limit not in given}
        if any(capacity in given for capacity in CAPACITIES):
            candidates = {limit: value for limit, value in candidates.items() if limit not in CAPACITIES}
        omittable = [
            limit for limit in OMITTABLE if limit in candidates and (limit, candidates[limit]) != ("mode", 0o600)
        ]
        for size in range(len(omittable) + 1):
            for omitted in combinations(omittable, size):
                kept = {limit: value for limit, value in candidates.items() if limit not in omitted}
                yield {**kept, **requested, **self.options}, {limit: candidates[limit] for limit in omitted}


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
        requested = {
            "max_messages": max_messages,
            "max_message_size": max_message_size,
            "buffer_size": buffer_size,
            "priorities": priorities,
            "mode": mode,
        }
        return verb(limits=Limits(requested, options), **others)

    with_limits: Callable[..., Any] = call
    for option in (
        backend_options_option,
        option_of_open("mode"),
        option_of_open(
            "priorities",
            negative="--no-priorities",
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
    reword: Callable[[MessageQueueError], None] = lambda _: None,
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
        reword: Rewords the advice in an error for the command line of this verb.
        **options: Other options of `ipcq.open`.

    Raises:
        Failure: The new queue would have less capacity than the messages need.
        MessageQueueError: The queue cannot be opened or created.
    """
    options["read"] = False
    requested, _ = next(limits.for_open({}))
    for_existing = {**requested, **options}
    for_existing.pop("mode", None)  # only for a new queue
    if limits.drops_priorities:
        del for_existing["priorities"]
    if not create:
        return ipcq.open(name, backend, create=False, **for_existing)
    if (existing := open_existing(name, backend, **for_existing)) is not None:
        return existing
    errors: list[MessageQueueError] = []
    for requested, omitted in limits.for_open(inherited, parse(name).options):
        try:
            with require_persistence():
                queue = ipcq.open(name, backend, exclusive=True, **requested, **options)
        except QueueExists:  # created meanwhile
            return ipcq.open(name, backend, create=False, **for_existing)
        except REFUSALS as error:
            reword(error)
            errors.append(error)
        else:
            try:
                _check_new(queue, omitted, messages, errors)
            except BaseException:
                with queue:
                    queue.unlink()
                raise
            return queue
    max_size = inherited.get("max_message_size")
    if max_size is not None and limits.requested["max_message_size"] is None:
        errors[-1].add_note(
            f"messages may have {max_size} bytes: if none is that large, pass a smaller --max-message-size"
        )
    raise errors[-1]


def _check_new(
    queue: ipcq.Queue[Any], omitted: Mapping[str, Any], messages: int | None, errors: Sequence[MessageQueueError]
) -> None:
    check_persistent(queue)
    if not omitted:
        return
    if queue.max_messages is not None and messages is not None and messages > queue.max_messages:
        raise Failure(
            f"{messages} messages do not fit into a new queue {queue.name!r} on backend {queue.backend!r}, which would "
            f"hold {queue.max_messages}: pass --max-messages {messages}, or fewer if a consumer takes them meanwhile"
        )
    listed = ", ".join(
        f"{OPTIONS[limit].flag} {value:04o}" if limit == "mode" else f"{OPTIONS[limit].flag} {value}"
        for limit, value in omitted.items()
    )
    complain(f"queue {queue.name!r} is created without {listed}: {line_of(errors[0])}")


def check_size(queue: ipcq.Queue[Any], limits: Limits, max_size: int | None) -> None:
    """Check that the queue accepts the largest possible message, unless --max-message-size was given.

    Raises:
        Failure: It does not.
    """
    if max_size is not None and max_size > queue.max_message_size and limits.requested["max_message_size"] is None:
        raise Failure(
            f"queue {queue.name!r} on backend {queue.backend!r} takes messages of at most {queue.max_message_size} "
            f"bytes, but some may have {max_size}: if none is larger than {queue.max_message_size}, pass "
            f"--max-message-size {queue.max_message_size}"
        )
