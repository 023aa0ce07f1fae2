"""The options of `open`: one table, the only source of every fact about an option.

`Options` is read twice. A type checker reads the types, so that a misspelled option is a type error. Python reads the
`Option` beside each type: default, check, text form, flag and documentation.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, TypedDict

from ipcq._process.deadline import seconds_of
from ipcq.backend import AFTER_UNLINK, LIFETIMES, AfterUnlink, Lifetime, Persistence, Scope
from ipcq.errors import InvalidArgument

#: The type of `require`: names of `Capabilities`, or a mapping of names to minima.
Require: TypeAlias = Iterable[str] | Mapping[str, bool | int | str | Persistence | Scope]

#: What an option applies to: this call of `open`, the handle, a new queue, or any queue. In the last case an existing
#: queue must have been created with an equal value.
Role: TypeAlias = Literal["call", "handle", "new queue", "queue"]


class Kind:
    """A kind of value: its check, its parser for text, and its placeholder in a usage line."""

    __slots__ = ("check", "metavar", "parse")

    def __init__(self, check: Callable[[str, Any], object], parse: Callable[[str], Any], metavar: str = "") -> None:
        self.check = check
        self.parse = parse
        self.metavar = metavar


class Option:
    """The facts about one option, except its name and type.

    Attributes:
        kind: The kind of its values.
        default: The value if it is left out.
        role: What it applies to.
        doc: Its meaning, with the unit. The first sentence is also the help on the command line.
        flag: Its name on the command line; empty if no command takes it.
        in_url: Whether a URL may set it. False if text from a configuration could run code, or if it has no text form.
    """

    __slots__ = ("default", "doc", "flag", "in_url", "kind", "role")

    def __init__(self, kind: Kind, default: Any, role: Role, doc: str, *, flag: str = "", in_url: bool = True) -> None:
        self.kind = kind
        self.default = default
        self.role = role
        self.doc = doc
        self.flag = flag
        self.in_url = in_url

    @property
    def summary(self) -> str:
        """The first sentence of the documentation."""
        return self.doc.partition(". ")[0].rstrip(".") + "."

    @property
    def shown(self) -> str:
        """The default as a Python literal, permission bits in octal."""
        return oct(self.default) if self.kind is MODE else repr(self.default)


def check_bool(option: str, value: object) -> bool:
    """Check that a user's value is a bool, and return it.

    Raises:
        InvalidArgument: It is not a bool.
    """
    if not isinstance(value, bool):
        raise InvalidArgument(f"{option} must be True or False, not {value!r}")
    return value


def _check_count(option: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InvalidArgument(f"{option} must be an int of 1 or more, or None, not {value!r}")


def _check_mode(option: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0o777:
        raise InvalidArgument(f"{option} must be permission bits from 0 to 0o777, not {value!r}")


def _check_seconds(option: str, value: object) -> None:
    if value is not None:
        seconds_of(value, option)


def _check_lifetime(option: str, value: object) -> None:
    _check_one_of(option, value, LIFETIMES)


def _check_after_unlink(option: str, value: object) -> None:
    _check_one_of(option, value, AFTER_UNLINK)


def _check_one_of(option: str, value: object, values: tuple[str, ...]) -> None:
    if value not in values:
        raise InvalidArgument(f"{option} must be {' or '.join(map(repr, values))}, not {value!r}")


def _unchecked(option: str, value: object) -> None:
    """Check nothing here: the serializers, msgspec or the table of capabilities check the value."""


def parse_bool(text: str) -> bool:
    """Parse a bool.

    Raises:
        ValueError: The text is not a bool.
    """
    try:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
    except KeyError:
        raise ValueError("write true or false") from None


def _parse_octal(text: str) -> int:
    return int(text, 8)


def _parse_names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


FLAG: Final = Kind(check_bool, parse_bool)
MESSAGES: Final = Kind(_check_count, int, "N")
BYTES: Final = Kind(_check_count, int, "BYTES")
MODE: Final = Kind(_check_mode, _parse_octal, "OCTAL")
SECONDS: Final = Kind(_check_seconds, float, "SECONDS")
WORD: Final = Kind(_unchecked, str, "NAME")
MINIMA: Final = Kind(_unchecked, _parse_names, "CAPABILITY[:MINIMUM]")


class Options(TypedDict, total=False):
    """The keyword options of `open` except `type`, from which the overloads derive the type of the handle."""

    create: Annotated[bool, Option(FLAG, True, "call", "Create the queue if it does not exist.")]
    exclusive: Annotated[bool, Option(FLAG, False, "call", "Fail if the queue exists.")]
    fresh: Annotated[
        bool,
        Option(
            FLAG,
            False,
            "call",
            "Begin with a new, empty queue. Any queues of the name are removed first, and their handles raise "
            "`QueueGone`; with ``auto`` on every backend. Programs that do this at the same time each get a whole "
            "queue, and the last one's keeps the name.",
        ),
    ]
    wait: Annotated[
        float | None,
        Option(
            SECONDS,
            None,
            "call",
            "With ``create=False``, seconds to wait for the queue to appear. None does not wait.",
        ),
    ]
    read: Annotated[bool, Option(FLAG, True, "handle", "The handle gets messages.")]
    write: Annotated[bool, Option(FLAG, True, "handle", "The handle puts messages.")]
    mode: Annotated[
        int,
        Option(
            MODE,
            0o600,
            "new queue",
            "Permission bits of a new queue, whatever the umask. Reading is consuming.",
            flag="--mode",
        ),
    ]
    max_messages: Annotated[
        int | None,
        Option(
            MESSAGES,
            None,
            "queue",
            "Capacity of the queue, in messages. None: the backend's choice.",
            flag="--max-messages",
        ),
    ]
    max_message_size: Annotated[
        int | None,
        Option(
            BYTES,
            None,
            "queue",
            "Largest message of the queue, in bytes, as encoded. None: the backend's choice.",
            flag="--max-message-size",
        ),
    ]
    buffer_size: Annotated[
        int | None,
        Option(
            BYTES,
            None,
            "queue",
            "Capacity of the queue, in bytes. None: the backend's choice.",
            flag="--buffer-size",
        ),
    ]
    priorities: Annotated[bool, Option(FLAG, False, "queue", "Messages have priorities.", flag="--priorities")]
    leases: Annotated[
        bool,
        Option(
            FLAG,
            False,
            "queue",
            "Messages can be leased, so that a job survives the worker that held it.",
            flag="--leases",
        ),
    ]
    max_deliveries: Annotated[
        int | None,
        Option(
            MESSAGES,
            None,
            "queue",
            "Failed deliveries after which a message becomes a dead letter. None: any number. Implies ``leases=True``.",
            flag="--max-deliveries",
        ),
    ]
    lifetime: Annotated[
        Lifetime,
        Option(
            Kind(_check_lifetime, str),
            "persistent",
            "queue",
            'When the queue is removed: ``"persistent"`` by an unlink or a restart of the machine, ``"last-close"`` '
            "with its last handle.",
        ),
    ]
    serializer: Annotated[
        str,
        Option(
            WORD,
            "msgpack",
            "handle",
            '``"msgpack"``, ``"msgspec"``, ``"arrays"`` (with NumPy arrays), ``"raw"`` (the bytes of a buffer alone), '
            '``"pickle"``, or a registered one.',
            flag="--serializer",
        ),
    ]
    allow_pickle: Annotated[
        bool,
        Option(
            FLAG,
            False,
            "handle",
            "Let this handle write and read pickles, which can run any code of their writer.",
            flag="--allow-pickle",
            in_url=False,
        ),
    ]
    require: Annotated[
        Require,
        Option(
            MINIMA,
            (),
            "call",
            "Names of `Capabilities` that the queue must have, or a mapping of them to minima: "
            '``{"peek": True, "persistence": Persistence.KERNEL, "max_message_size": 1 << 20}``. In a URL a minimum '
            "follows a colon: ``require=peek,persistence:kernel``. A minimum of `max_message_size` also applies to a "
            "new queue.",
            flag="--require",
        ),
    ]
    other_users: Annotated[
        bool,
        Option(
            FLAG,
            False,
            "handle",
            "Trust a queue that belongs to another user than this one and root.",
            flag="--other-users",
        ),
    ]
    after_unlink: Annotated[
        AfterUnlink,
        Option(
            Kind(_check_after_unlink, str),
            "raise",
            "handle",
            'After an unlink, ``"raise"`` `QueueGone`, or ``"continue"`` with the nameless queue.',
        ),
    ]
    open_timeout: Annotated[
        float | None,
        Option(
            SECONDS,
            10.0,
            "call",
            "Seconds to wait for other processes that are creating or unlinking the name. They count from the first "
            "wait; None waits without a limit.",
            flag="--open-timeout",
        ),
    ]


_ANNOTATIONS: Final[dict[str, Any]] = Options.__annotations__

#: Every option of `open`, by name.
OPTIONS: Final[Mapping[str, Option]] = {
    **{name: annotation.__metadata__[0] for name, annotation in _ANNOTATIONS.items()},
    "type": Option(
        Kind(_unchecked, str),
        None,
        "handle",
        "Decode every message as this type (a dataclass, a ``TypedDict``, a ``msgspec.Struct``, a union …). It needs "
        "msgspec.",
        in_url=False,
    ),
}
DEFAULTS: Final[Mapping[str, Any]] = {name: option.default for name, option in OPTIONS.items()}

#: Options of the handle, needed to open it again.
HANDLE_OPTIONS: Final = tuple(name for name, option in OPTIONS.items() if option.role == "handle")
#: Options that must equal those of an existing queue, unless they are left out.
COMPARED: Final = tuple(name for name, option in OPTIONS.items() if option.role == "queue")


def documented(docstring: str | None) -> str:
    """Insert the documentation of every option into a docstring, before its ``**options``."""
    before, options, after = (docstring or "").partition("**options:")
    indent = before.rpartition("\n")[2]
    described = "".join(
        f"{name}: {option.doc} Default: ``{option.shown}``.\n{indent}" for name, option in OPTIONS.items()
    )
    return before + described + options + after
