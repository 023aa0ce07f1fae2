"""The options of `open`: one table, from which everything that knows an option takes it.

`Options` is read twice. A type checker reads the types, so that a mistyped option is a type error. Python reads the
`Option` beside each type: default, check, text form, flag and documentation.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, TypedDict

from ipcq._process.deadline import seconds_of
from ipcq.backend import AFTER_UNLINK, LIFETIMES, AfterUnlink, Lifetime, Persistence, Scope
from ipcq.errors import InvalidArgument

#: What `require` takes: names of `Capabilities`, or a mapping of names to the least value that will do.
Require: TypeAlias = Iterable[str] | Mapping[str, bool | int | str | Persistence | Scope]

#: What an option concerns: this call of `open` alone, the handle, a queue that is created, or any queue. Then one that
#: exists must have been created with an equal value.
Role: TypeAlias = Literal["call", "handle", "new queue", "queue"]


class Kind:
    """A kind of values: how one is checked, how it is made of text, and what stands for it in a usage line."""

    __slots__ = ("check", "metavar", "parse")

    def __init__(self, check: Callable[[str, Any], object], parse: Callable[[str], Any], metavar: str = "") -> None:
        self.check = check
        self.parse = parse
        self.metavar = metavar


class Option:
    """What there is to know of one option, beside its name and its type.

    Attributes:
        kind: Its values.
        default: What counts if it is left out.
        role: What it concerns.
        doc: What it means, with its unit. The first sentence is also the help on the command line.
        flag: What it is called on the command line; empty if no command takes it.
        in_url: Whether a URL may carry it. What lets text from a configuration run code, or is no text, may not.
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
        """The default as Python has it, permission bits in octal."""
        return oct(self.default) if self.kind is MODE else repr(self.default)


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


def _mode(option: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0o777:
        raise InvalidArgument(f"{option} is permission bits from 0 to 0o777, not {value!r}")


def _seconds(option: str, value: object) -> None:
    if value is not None:
        seconds_of(value, option)


def _lifetime(option: str, value: object) -> None:
    _one_of(option, value, LIFETIMES)


def _after_unlink(option: str, value: object) -> None:
    _one_of(option, value, AFTER_UNLINK)


def _one_of(option: str, value: object, values: tuple[str, ...]) -> None:
    if value not in values:
        raise InvalidArgument(f"{option} is {' or '.join(map(repr, values))}, not {value!r}")


def _elsewhere(option: str, value: object) -> None:
    """Leave the check to those who know: serializers, msgspec, and the capabilities' own table."""


def truth(text: str) -> bool:
    """Return the bool that a text says.

    Raises:
        ValueError: It says none.
    """
    try:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
    except KeyError:
        raise ValueError("say true or false") from None


def _octal(text: str) -> int:
    return int(text, 8)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


FLAG: Final = Kind(flag, truth)
MESSAGES: Final = Kind(_count, int, "N")
BYTES: Final = Kind(_count, int, "BYTES")
MODE: Final = Kind(_mode, _octal, "OCTAL")
SECONDS: Final = Kind(_seconds, float, "SECONDS")
WORD: Final = Kind(_elsewhere, str, "NAME")
MINIMA: Final = Kind(_elsewhere, _names, "CAPABILITY[:MINIMUM]")


class Options(TypedDict, total=False):
    """The keyword options of `open`, `type` excepted: the overloads take the type of the handle from that one."""

    create: Annotated[bool, Option(FLAG, True, "call", "Create the queue if there is none.")]
    exclusive: Annotated[bool, Option(FLAG, False, "call", "Create it or fail.")]
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
    lifetime: Annotated[
        Lifetime,
        Option(
            Kind(_lifetime, str),
            "persistent",
            "queue",
            'When the queue goes: ``"persistent"`` with an unlink or a restart of the machine, ``"last-close"`` with '
            "the last handle to it.",
        ),
    ]
    serializer: Annotated[
        str,
        Option(
            WORD,
            "msgpack",
            "handle",
            '``"msgpack"``, ``"msgspec"``, ``"raw"`` (bytes alone), ``"pickle"``, or a registered one.',
            flag="--serializer",
        ),
    ]
    allow_pickle: Annotated[
        bool,
        Option(
            FLAG,
            False,
            "handle",
            "Let this handle write and read pickles, which run code that the writer chose.",
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
            "follows a colon: ``require=peek,persistence:kernel``. A new queue takes messages of at least that size.",
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
            Kind(_after_unlink, str),
            "raise",
            "handle",
            'Once somebody unlinked the queue, ``"raise"`` `QueueGone` or ``"continue"`` with the nameless queue.',
        ),
    ]
    open_timeout: Annotated[
        float | None,
        Option(
            SECONDS,
            10.0,
            "call",
            "Seconds to wait for other processes that are creating or unlinking the name. They count from the first "
            "wait; None waits without limit.",
            flag="--open-timeout",
        ),
    ]


_ANNOTATIONS: Final[dict[str, Any]] = Options.__annotations__

#: Every option of `open`, by name.
OPTIONS: Final[Mapping[str, Option]] = {
    **{name: annotation.__metadata__[0] for name, annotation in _ANNOTATIONS.items()},
    "type": Option(
        Kind(_elsewhere, str),
        None,
        "handle",
        "Decode every message as this type (a dataclass, a ``TypedDict``, a ``msgspec.Struct``, a union …). It needs "
        "msgspec.",
        in_url=False,
    ),
}
DEFAULTS: Final[Mapping[str, Any]] = {name: option.default for name, option in OPTIONS.items()}

#: Options of the handle, with which it can be opened again.
OF_HANDLE: Final = tuple(name for name, option in OPTIONS.items() if option.role == "handle")
#: Options that must be equal to what an existing queue was created with, unless they are left out.
COMPARED: Final = tuple(name for name, option in OPTIONS.items() if option.role == "queue")


def documented(docstring: str | None) -> str:
    """Describe every option in a docstring, before its ``**options``."""
    before, options, after = (docstring or "").partition("**options:")
    indent = before.rpartition("\n")[2]
    described = "".join(
        f"{name}: {option.doc} Default: ``{option.shown}``.\n{indent}" for name, option in OPTIONS.items()
    )
    return before + described + options + after
