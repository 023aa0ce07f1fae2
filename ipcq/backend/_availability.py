"""Whether a backend can be used."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used here, and if not, why."""

    usable: bool
    reason: str = ""
    """One sentence without a full stop that ends with the way out; empty where usable."""

    @classmethod
    def yes(cls) -> "Availability":
        """The backend can be used."""
        return _USABLE

    @classmethod
    def no(cls, reason: str) -> "Availability":
        """The backend cannot be used because of `reason`."""
        return cls(False, reason)


_USABLE: Final = Availability(True)
