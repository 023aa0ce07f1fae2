"""Apply one operation to several queues. A failure does not stop the others."""

from collections.abc import Callable, Sequence

from ipcq._cli._exits import ERROR, Failure, code_of, complain, line_of
from ipcq._cli._output import say, say_json, shown
from ipcq.errors import MessageQueueError


def do_each(
    names: Sequence[str], do: Callable[[str], bool], done: str, key: str, *, as_json: bool, quiet: bool
) -> None:
    """Apply `do` to each name and print the result.

    Args:
        names: Names or URLs as given on the command line.
        do: The operation. Returns False if the user declined.
        done: Printed before the name of each queue that was changed.
        key: JSON key for whether the queue was changed.
        as_json: Print one JSON object for each name.
        quiet: Print errors only.

    Raises:
        Failure: At least one failed. Each failure has been printed.
    """
    codes = set()
    for name in names:
        was_done, reason = False, None
        try:
            was_done = do(name)
        except MessageQueueError as error:
            codes.add(code_of(error))
            reason = line_of(error)
            complain(reason)
        if as_json:
            say_json({"name": name, key: was_done, "error": reason})
        elif was_done and not quiet:
            say(f"{done} {shown(name)}")
    if codes:
        raise Failure(code=codes.pop() if len(codes) == 1 else ERROR)
