"""The exception for a value that a serializer must not encode: why, and the way out."""


class Unencodable(ValueError):
    """A value that could be read otherwise than it was written, or not at all.

    Args:
        reason: What is wrong with the value.
        advice: What to put instead.
    """

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason}: {advice}")
        self.reason = reason
        self.advice = advice
