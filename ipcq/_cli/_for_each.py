"""Apply one operation to several queues. A failure does not stop the others."""

from collections.abc import Callable, Sequence

from ipcq._cli._exits import ERROR, Failure, code_of, complain, line_of
from ipcq._cli._output import print_json, print_line, shown
from ipcq._redaction import without_credentials
from ipcq.errors import MessageQueueError


def for_each_name(
    names: Sequence[str], operation: Callable[[str], bool], past: str, key: str, *, as_json: bool, quiet: bool
) -> None:
    """Apply `operation` to each name and print the result.

    Args:
        names: Names or URLs as given on the command line.
        operation: Returns False if the user declined.
        past: Its past participle, printed before the name of each queue that was changed.
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
            was_done = operation(name)
        except MessageQueueError as error:
            codes.add(code_of(error))
            reason = line_of(error)
            complain(reason)
        if as_json:
            print_json({"name": without_credentials(name), key: was_done, "error": reason})
        elif was_done and not quiet:
            print_line(f"{past} {shown(without_credentials(name))}")
    if codes:
        raise Failure(code=codes.pop() if len(codes) == 1 else ERROR)
