"""The arguments of one `open`, checked before anything is touched."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from enum import Enum
from functools import cached_property
from time import monotonic
from typing import Any, Final

from ipcq._opening.address import convert
from ipcq._opening.choose import Minimum
from ipcq._process.deadline import NEVER, seconds_of
from ipcq.backend import AFTER_UNLINK, LIFETIMES, Capabilities, Persistence, Request
from ipcq.errors import InvalidArgument

#: The type of each capability's minimum. Where a capability is a number, None says that there is no bound.
_KINDS: Final[Mapping[str, type]] = {
    field.name: int if field.default is None else type(field.default) for field in fields(Capabilities)
}
#: The `max_message_size` that a queue has at least if none was asked for (clause 6 of `ipcq.backend`).
_LARGEST_ANYWAY: Final = 8192


@dataclass(frozen=True, kw_only=True)
class OpenRequest:
    """What somebody who opens a queue wants."""

    name: str
    backend: str
    create: bool
    exclusive: bool
    appears: float
    """Until when to wait for the queue to appear, on `time.monotonic`."""
    open_timeout: float
    """Seconds to wait for others."""
    require: Mapping[str, Minimum]
    """For each capability that the queue must have, the least value that will do."""
    request: Request

    def to_create(self) -> Request:
        """Return the request for a queue that is created: one that exists may be larger than the minimum."""
        least = int(self.require.get("max_message_size", 0))
        if self.request.max_message_size is None and least > _LARGEST_ANYWAY:
            return replace(self.request, max_message_size=least)
        return self.request

    @classmethod
    def of(
        cls,
        name: str,
        backend: str,
        *,
        create: object,
        exclusive: object,
        wait: object,
        require: Any,
        open_timeout: object,
        options: Mapping[str, Any],
        **request: Any,
    ) -> "OpenRequest":
        for option in ("read", "write", "priorities", "other_users"):
            flag(option, request[option])
        for option in ("max_messages", "max_message_size", "buffer_size"):
            _count(option, request[option])
        mode = request["mode"]
        if isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= 0o777:
            raise InvalidArgument(f"mode is permission bits from 0 to 0o777, not {mode!r}")
        _one_of("lifetime", request["lifetime"], LIFETIMES)
        _one_of("after_unlink", request["after_unlink"], AFTER_UNLINK)
        if not (request["read"] or request["write"]):
            raise InvalidArgument("read=False and write=False leave nothing that the handle could do")
        flag("create", create)
        if flag("exclusive", exclusive) and not create:
            raise InvalidArgument("exclusive=True creates the queue, create=False forbids it")
        if create and wait is not None:
            raise InvalidArgument("wait= is for create=False: there is nothing to wait for where the queue is created")
        minima = _minima(require)
        request["priorities"] = request["priorities"] or bool(minima.get("priorities"))
        _agree(minima, request)
        return cls(
            name=name,
            backend=backend,
            create=bool(create),
            exclusive=bool(exclusive),
            appears=monotonic() + (0.0 if wait is None else seconds_of(wait, "wait")),
            open_timeout=NEVER if open_timeout is None else seconds_of(open_timeout, "open_timeout"),
            require=minima,
            request=Request(options=options, **request),
        )

    @cached_property
    def patience(self) -> float:
        """Until when to wait for others, on `time.monotonic`.

        Counted from when it is first asked for: a busy machine may need seconds for what comes before, such as loading
        the backends, and a lock that is held at that instant would end the call at once.
        """
        return monotonic() + self.open_timeout


def flag(option: str, value: object) -> bool:
    """Return a bool that a user gave.

    Raises:
        InvalidArgument: It is none.
    """
    if not isinstance(value, bool):
        raise InvalidArgument(f"{option} is True or False, not {value!r}")
    return value


def _count(option: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InvalidArgument(f"{option} is an int from 1 on or None, not {value!r}")


def _one_of(option: str, value: object, values: tuple[str, ...]) -> None:
    if value not in values:
        raise InvalidArgument(f"{option} is {' or '.join(map(repr, values))}, not {value!r}")


def _minima(require: Any) -> Mapping[str, Minimum]:
    given: Iterable[tuple[Any, Any]]
    if isinstance(require, Mapping):
        given = require.items()
    else:
        try:
            given = map(_said, (require,) if isinstance(require, str) else tuple(require))
        except TypeError:
            raise InvalidArgument(
                f"require takes names of capabilities, or a mapping of names to minima, not {require!r}"
            ) from None
    minima: dict[str, Minimum] = {}
    for ability, value in given:
        kind = _KINDS.get(ability) if isinstance(ability, str) else None
        if kind is None:
            raise InvalidArgument(f"require: no capability {ability!r}: there are {', '.join(sorted(_KINDS))}")
        minimum = _minimum(ability, kind, value)
        minima[ability] = max(minimum, minima.get(ability, minimum))
    return minima


def _said(each: object) -> tuple[object, object]:
    """Split a name from the minimum that may follow it, as in the text of a URL: ``persistence:disk``."""
    if not isinstance(each, str) or ":" not in each:
        return each, True
    ability, _, value = each.partition(":")
    return ability, value


def _minimum(ability: str, kind: type, value: object) -> Minimum:
    if issubclass(kind, Enum):
        words = {each.name.lower(): each for each in kind}
        found = words.get(value.lower()) if isinstance(value, str) else value
        if not isinstance(found, kind):
            one_of = ", ".join(words)
            raise InvalidArgument(
                f"require: {ability} needs a minimum, one of {one_of}, as in {ability}:{next(iter(words))}"
                if value is True
                else f"require: {ability} takes one of {one_of}, not {value!r}"
            )
        return found  # type: ignore[return-value]  # the enumerations of Capabilities are those of Minimum
    if kind is bool:
        value = convert(f"require={ability}", value, kind) if isinstance(value, str) else value
        return flag(f"require: {ability}", value)
    if isinstance(value, str):
        with suppress(ValueError):  # what is below says more
            value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidArgument(f"require: {ability} needs a minimum, an int of 1 or more, not {value!r}")
    return value


def _agree(minima: Mapping[str, Minimum], request: Mapping[str, Any]) -> None:
    """Refuse minima that no queue with these arguments can have."""
    least, largest = minima.get("max_message_size", 0), request["max_message_size"]
    if largest is not None and largest < least:
        raise InvalidArgument(
            f"max_message_size={largest} is less than the minimum {least} in require=: raise it, or lower the minimum"
        )
    if request["lifetime"] == "last-close" and minima.get("persistence", 0) > Persistence.HOLDERS:
        raise InvalidArgument(
            "lifetime='last-close' lets the queue go with its last handle, and require= asks for a persistence that "
            "keeps it: leave one of them out"
        )
