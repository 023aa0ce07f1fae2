"""What an opener asks a backend for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Lifetime = Literal["persistent", "last-close"]
LIFETIMES: Final[tuple[Lifetime, ...]] = ("persistent", "last-close")

AfterUnlink = Literal["raise", "continue"]
AFTER_UNLINK: Final[tuple[AfterUnlink, ...]] = ("raise", "continue")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What an opener asked for; None where it left the choice to the backend."""

    mode: int = 0o600
    """Permission bits of a queue that is created."""
    max_messages: int | None = None
    """Capacity in messages, from 1 on."""
    max_message_size: int | None = None
    """Largest message, in bytes, from 1 on."""
    buffer_size: int | None = None
    """Capacity in bytes, from 1 on."""
    priorities: bool = False
    """Messages shall have priorities."""
    lifetime: Lifetime = "persistent"
    """When the queue goes."""
    read: bool = True
    """The handle gets messages."""
    write: bool = True
    """The handle puts messages."""
    other_users: bool = False
    """A queue that another user owns is trusted."""
    after_unlink: AfterUnlink = "raise"
    """What the channel does once the queue has been unlinked."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of this backend's own, of the types that `Backend.options` declares."""
