"""What one `open` asks for: address and options, checked before anything is touched."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from enum import Enum
from functools import cached_property
from time import monotonic
from typing import Any, Final

from ipcq._opening.address import Address, convert
from ipcq._opening.choose import Minimum
from ipcq._opening.options import DEFAULTS, OF_HANDLE, OPTIONS, flag
from ipcq._process.deadline import NEVER, seconds_of
from ipcq.backend import Capabilities, Persistence, Request
from ipcq.errors import InvalidArgument

#: The type of each capability's minimum. Where a capability is a number, None says that there is no bound.
_KINDS: Final[Mapping[str, type]] = {
    field.name: int if field.default is None else type(field.default) for field in fields(Capabilities)
}
#: The `max_message_size` that a queue has at least if none was asked for (clause 6 of `ipcq.backend`).
_LARGEST_ANYWAY: Final = 8192
#: The options that a backend is told.
_TOLD: Final = tuple(field.name for field in fields(Request) if field.name in OPTIONS)


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
    handle: Mapping[str, Any]
    """The options that concern the handle: with these it can be opened again."""
    request: Request
    """What the backend is told."""

    def to_create(self) -> Request:
        """Return the request for a queue that is created: one that exists may be larger than the minimum."""
        least = int(self.require.get("max_message_size", 0))
        if self.request.max_message_size is None and least > _LARGEST_ANYWAY:
            return replace(self.request, max_message_size=least)
        return self.request

    @classmethod
    def of(cls, address: Address, given: Mapping[str, Any]) -> "OpenRequest":
        """Check the options that were given, in the URL and as arguments.

        Raises:
            InvalidArgument: One has a wrong type or value, or some contradict each other.
        """
        given = _merged(address.options, given) if address.options else given
        own = {}
        for name, value in given.items():
            if name in OPTIONS:
                OPTIONS[name].kind.check(name, value)
            else:
                own[name] = value
        options = {**DEFAULTS, **given}
        create, exclusive = options["create"], options["exclusive"]
        wait, open_timeout = options["wait"], options["open_timeout"]
        if not (options["read"] or options["write"]):
            raise InvalidArgument("read=False and write=False leave nothing that the handle could do")
        if exclusive and not create:
            raise InvalidArgument("exclusive=True creates the queue, create=False forbids it")
        if create and wait is not None:
            raise InvalidArgument("wait= is for create=False: there is nothing to wait for where the queue is created")
        minima = _minima(options["require"])
        options["priorities"] = options["priorities"] or bool(minima.get("priorities"))
        _agree(minima, options)
        return cls(
            name=address.name,
            backend=address.backend,
            create=create,
            exclusive=exclusive,
            appears=monotonic() + (0.0 if wait is None else seconds_of(wait, "wait")),
            open_timeout=NEVER if open_timeout is None else seconds_of(open_timeout, "open_timeout"),
            require=minima,
            handle={name: options[name] for name in OF_HANDLE},
            request=Request(options=own, **{name: options[name] for name in _TOLD}),
        )

    @cached_property
    def patience(self) -> float:
        """Until when to wait for others, on `time.monotonic`.

        Counted from when it is first asked for: a busy machine may need seconds for what comes before, such as loading
        the backends, and a lock that is held at that instant would end the call at once.
        """
        return monotonic() + self.open_timeout


def _merged(url: Mapping[str, Any], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of a URL and of the call together; what both say has to be the same."""
    together = dict(arguments)
    for option, value in url.items():
        said = arguments.get(option, value)
        if option not in OPTIONS and isinstance(value, str) and isinstance(said, bool | int | float):
            value = convert(option, value, type(said))
        if said != value and not (option in OPTIONS and said == DEFAULTS[option]):
            raise InvalidArgument(f"{option} is {value!r} in the URL and {said!r} as an argument")
        together[option] = value
    return together


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
