"""The arguments of one `open`, checked before anything is touched."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from time import monotonic
from typing import Any, Final

from ipcq._deadline import NEVER, seconds_of
from ipcq.backend import AFTER_UNLINK, LIFETIMES, Capabilities, Request
from ipcq.errors import InvalidArgument

_ABILITIES: Final = frozenset(field.name for field in fields(Capabilities) if field.type in ("bool", bool))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What somebody who opens a queue wants."""

    name: str
    backend: str
    create: bool
    exclusive: bool
    appears: float
    """Until when to wait for the queue to appear, on `time.monotonic`."""
    patience: float
    """Until when to wait for others, on `time.monotonic`."""
    require: tuple[str, ...]
    request: Request

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
    ) -> "Asked":
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
        abilities = _abilities(require)
        request["priorities"] = request["priorities"] or "priorities" in abilities
        now = monotonic()
        return cls(
            name=name,
            backend=backend,
            create=bool(create),
            exclusive=bool(exclusive),
            appears=now + (0.0 if wait is None else seconds_of(wait, "wait")),
            patience=NEVER if open_timeout is None else now + seconds_of(open_timeout, "open_timeout"),
            require=abilities,
            request=Request(options=options, **request),
        )


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


def _abilities(require: Any) -> tuple[str, ...]:
    try:
        abilities = (require,) if isinstance(require, str) else tuple(require)
    except TypeError:
        raise InvalidArgument(f"require is names of capabilities, not {require!r}") from None
    for ability in abilities:
        if not isinstance(ability, str) or ability not in _ABILITIES:
            raise InvalidArgument(f"no capability {ability!r}: there are {', '.join(sorted(_ABILITIES))}")
    return abilities
