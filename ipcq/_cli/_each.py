"""Doing one thing to each of several queues: if one fails, the others are still done."""

from collections.abc import Callable, Sequence

from ipcq._cli._exits import ERROR, Failure, code_of, complain, line_of
from ipcq._cli._output import say, say_json, shown
from ipcq.errors import MessageQueueError


def do_each(
    names: Sequence[str], do: Callable[[str], bool], done: str, key: str, *, as_json: bool, quiet: bool
) -> None:
    """Do it to each, and print what became of it.

    Args:
        names: As they were given.
        do: Returns whether it did; False where somebody said no.
        done: What is printed before the name of one to which it was done.
        key: The same for JSON.
        as_json: Print one JSON object for each.
        quiet: Print errors alone.

    Raises:
        Failure: One failed at least; each has its line already.
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
