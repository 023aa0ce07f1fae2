"""A request to create a queue or attach to one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Lifetime = Literal["persistent", "last-close"]
LIFETIMES: Final[tuple[Lifetime, ...]] = ("persistent", "last-close")

AfterUnlink = Literal["raise", "continue"]
AFTER_UNLINK: Final[tuple[AfterUnlink, ...]] = ("raise", "continue")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to create a queue or attach to one. None leaves the choice to the backend."""

    mode: int = 0o600
    """Permission bits of the new queue."""
    max_messages: int | None = None
    """Capacity in messages, at least 1."""
    max_message_size: int | None = None
    """Largest message, in bytes, at least 1."""
    buffer_size: int | None = None
    """Capacity in bytes, at least 1."""
    priorities: bool = False
    """Messages have priorities."""
    leases: bool = False
    """Messages can be leased."""
    max_deliveries: int | None = None
    """Failed deliveries that make a message a dead letter, at least 1; None: any number. Only with `leases`."""
    lifetime: Lifetime = "persistent"
    """When the queue is removed."""
    read: bool = True
    """The handle gets messages."""
    write: bool = True
    """The handle puts messages."""
    other_users: bool = False
    """Accept a queue that another user owns."""
    after_unlink: AfterUnlink = "raise"
    """What the channel does after the queue is unlinked."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Backend-specific options, of the types that `Backend.options` declares."""
