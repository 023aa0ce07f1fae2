"""Whether a backend can be used."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used here, and if not, why."""

    usable: bool
    reason: str = ""
    """One sentence without a full stop that ends with the way out; empty if usable."""

    @classmethod
    def yes(cls) -> "Availability":
        """Report that the backend is usable."""
        return _USABLE

    @classmethod
    def no(cls, reason: str) -> "Availability":
        """Report that the backend is not usable because of `reason`."""
        return cls(False, reason)


_USABLE: Final = Availability(True)
