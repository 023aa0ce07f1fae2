"""The request of one `open`: its address and options, checked before any backend is called."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from enum import Enum
from time import monotonic
from typing import Any, Final

from ipcq._opening.address import Address, Where, convert
from ipcq._opening.choose import Minimum
from ipcq._opening.options import DEFAULTS, HANDLE_OPTIONS, OPTIONS, check_bool
from ipcq._process.deadline import NEVER, seconds_of
from ipcq._redaction import value_shown
from ipcq.backend import Capabilities, Persistence, Request
from ipcq.errors import InvalidArgument

#: The type of each capability's minimum. The numeric capability has None as its default, which means no limit.
_MINIMUM_TYPES: Final[Mapping[str, type]] = {
    field.name: int if field.default is None else type(field.default) for field in fields(Capabilities)
}
#: The guaranteed `max_message_size` of a queue if none is requested (clause 6 of `ipcq.backend`).
_DEFAULT_MESSAGE_BYTES: Final = 8192
#: The options that are passed to the backend.
_REQUEST_OPTIONS: Final = tuple(field.name for field in fields(Request) if field.name in OPTIONS)


@dataclass(frozen=True, kw_only=True)
class OpenRequest:
    """The checked arguments of one `open`."""

    name: str
    backend: Where
    create: bool
    exclusive: bool
    fresh: bool
    """Remove what has the name before the creation."""
    appear_deadline: float
    """The deadline for the queue to appear, on `time.monotonic`."""
    open_timeout: float
    """Seconds to wait for other processes."""
    require: Mapping[str, Minimum]
    """The minimum of each required capability."""
    handle: Mapping[str, Any]
    """The options of the handle, needed to open it again."""
    request: Request
    """The request to the backend."""

    def to_create(self) -> Request:
        """Return the request for a new queue, which has the required message size; an existing one may have more."""
        least = int(self.require.get("max_message_size", 0))
        if self.request.max_message_size is None and least > _DEFAULT_MESSAGE_BYTES:
            return replace(self.request, max_message_size=least)
        return self.request

    @classmethod
    def of(cls, address: Address, given: Mapping[str, Any]) -> "OpenRequest":
        """Check the options of the URL and the arguments.

        Raises:
            InvalidArgument: An option has a wrong type or value, or options contradict each other.
        """
        given = _merged(address.options, given) if address.options else given
        backend_options = {}
        for name, value in given.items():
            if name in OPTIONS:
                OPTIONS[name].kind.check(name, value)
            else:
                backend_options[name] = value
        options = {**DEFAULTS, **given}
        create, exclusive, fresh = options["create"], options["exclusive"], options["fresh"]
        wait, open_timeout = options["wait"], options["open_timeout"]
        if not (options["read"] or options["write"]):
            raise InvalidArgument("read=False and write=False leave nothing that the handle could do")
        if exclusive and not create:
            raise InvalidArgument(
                "exclusive=True creates the queue, but create=False forbids it: leave one of them out"
            )
        if fresh and not create:
            raise InvalidArgument("fresh=True creates the queue, but create=False forbids it: leave one of them out")
        if fresh and exclusive:
            raise InvalidArgument(
                "fresh=True removes a queue of that name, but exclusive=True keeps it: leave one of them out"
            )
        if create and wait is not None:
            raise InvalidArgument("wait= needs create=False: otherwise the queue is created without a wait")
        minima = _minima(options["require"])
        options["priorities"] = options["priorities"] or bool(minima.get("priorities"))
        options["leases"] = (
            options["leases"]
            or options["max_deliveries"] is not None
            or any(minima.get(each) for each in ("leases", "death_notice", "delays"))
        )
        _check_minima(minima, options)
        return cls(
            name=address.name,
            backend=address.backend,
            create=create,
            exclusive=exclusive,
            fresh=fresh,
            appear_deadline=monotonic() + (0.0 if wait is None else seconds_of(wait, "wait")),
            open_timeout=NEVER if open_timeout is None else seconds_of(open_timeout, "open_timeout"),
            require=minima,
            handle={name: options[name] for name in HANDLE_OPTIONS},
            request=Request(options=backend_options, **{name: options[name] for name in _REQUEST_OPTIONS}),
        )

    @property
    def deadline(self) -> float:
        """The deadline for waits for other processes, on `time.monotonic`.

        The time counts from the first read. Earlier steps, such as loading the backends, may take seconds on a busy
        machine. If they counted, a briefly held lock could end the call at once.
        """
        # Not functools.cached_property: before Python 3.12 it has a lock, which a fork may leave held in the child.
        return self.__dict__.setdefault("_deadline", monotonic() + self.open_timeout)  # type: ignore[no-any-return]


def _merged(url: Mapping[str, Any], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Merge the options of a URL and of the call; an option in both must have the same value."""
    merged = dict(arguments)
    for option, value in url.items():
        argument = arguments.get(option, value)
        if option not in OPTIONS and isinstance(value, str) and isinstance(argument, bool | int | float):
            value = convert(option, value, type(argument))
        if argument != value and not (option in OPTIONS and argument == DEFAULTS[option]):
            raise InvalidArgument(
                f"{option} is {value_shown(option, value)} in the URL, but {value_shown(option, argument)} as an "
                "argument: leave one out"
            )
        merged[option] = value
    return merged


def _minima(require: Any) -> Mapping[str, Minimum]:
    given: Iterable[tuple[Any, Any]]
    if isinstance(require, Mapping):
        given = require.items()
    else:
        try:
            given = map(_name_and_minimum, (require,) if isinstance(require, str) else tuple(require))
        except TypeError:
            raise InvalidArgument(
                f"require takes names of capabilities, or a mapping of names to minima, not {require!r}"
            ) from None
    minima: dict[str, Minimum] = {}
    for ability, value in given:
        kind = _MINIMUM_TYPES.get(ability) if isinstance(ability, str) else None
        if kind is None:
            raise InvalidArgument(
                f"require: no capability {ability!r}: choose from {', '.join(sorted(_MINIMUM_TYPES))}"
            )
        minimum = _minimum(ability, kind, value)
        minima[ability] = max(minimum, minima.get(ability, minimum))
    return minima


def _name_and_minimum(each: object) -> tuple[object, object]:
    """Split a name from its minimum, if it has one, as in the text of a URL: ``persistence:disk``."""
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
        return check_bool(f"require: {ability}", value)
    if isinstance(value, str):
        with suppress(ValueError):  # the error below is clearer
            value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidArgument(f"require: {ability} needs a minimum, an int of 1 or more, not {value!r}")
    return value


def _check_minima(minima: Mapping[str, Minimum], request: Mapping[str, Any]) -> None:
    """Check that a queue with these options can have the required minima."""
    least, largest = minima.get("max_message_size", 0), request["max_message_size"]
    if largest is not None and largest < least:
        raise InvalidArgument(
            f"max_message_size={largest} is less than the minimum {least} in require=: raise it, or lower the minimum"
        )
    if request["lifetime"] == "last-close" and minima.get("persistence", 0) > Persistence.HOLDERS:
        raise InvalidArgument(
            "lifetime='last-close' removes the queue with its last handle, but require= asks for a persistence that "
            "keeps it: leave one of them out"
        )
