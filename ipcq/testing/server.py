"""What the conformance suite does to the server of a backend that reaches other machines."""

from typing import Protocol


class Server(Protocol):
    """A server that a test stops, restarts and disturbs; the fixture `server` of a backend's tests returns one."""

    def start(self) -> None:
        """Start the server at its old address, with what it keeps; return when it answers. Do nothing if it runs."""

    def stop(self) -> None:
        """Kill the server: its connections break, and new ones are refused. Do nothing if it is stopped."""

    def stall(self) -> None:
        """Let the server answer nothing, as a black hole does, while connections to it still succeed."""

    def go_on(self) -> None:
        """Let a stalled server continue."""

    def drop_replies(self, count: int, after: int = 0) -> None:
        """Let the server carry out `count` requests, but break the connection in place of the reply.

        Args:
            count: The number of requests; waits do not count.
            after: The number of requests before them that are answered.
        """

    def requests(self) -> int:
        """Return how many requests the server has had so far; a wait counts as one."""
