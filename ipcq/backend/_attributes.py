"""What a queue was created with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ipcq.backend._request import Lifetime


@dataclass(frozen=True, kw_only=True)
class Attributes:
    """What a queue was created with: the requested values, and the backend's choice for the others."""

    mode: int
    """Permission bits."""
    max_messages: int | None
    """Capacity in messages; None: limited by bytes alone."""
    max_message_size: int
    """Largest message, in bytes."""
    buffer_size: int | None = None
    """Capacity in bytes; None: limited by messages alone."""
    priorities: bool = False
    """Messages have priorities."""
    leases: bool = False
    """Messages can be leased."""
    max_deliveries: int | None = None
    """Failed deliveries that make a message a dead letter; None: any number."""
    lifetime: Lifetime = "persistent"
    """When the queue is removed."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Backend-specific options of the queue; those that concern one channel alone are not among them."""
