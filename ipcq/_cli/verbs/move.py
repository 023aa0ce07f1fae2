"""``ipcq move``: messages from one queue into another."""

import click

from ipcq._cli._rescue import take
from ipcq._cli._transfer import Request, Transfer, transfer, transfer_verb
from ipcq.errors import QueueEmpty, QueueShutDown


@click.command("move")
@transfer_verb
def command(request: Request) -> None:
    """Move the messages of the queue SRC into the queue DST, with their priorities, until SRC is empty.

    Both are names or URLs, as in mqueue:///jobs. If there is no queue DST it is created with the mode and the limits of
    SRC. Options replace them. A limit that the backend cannot have is left out, and stderr says so. An existing queue
    must have the limits that options ask for.

    Before it takes anything, it makes sure that DST takes messages as large as SRC may have, with priorities if SRC has
    them. Then each message is taken and put before the next one is taken, so at most one is under way. A rescue file
    holds it meanwhile. At the start, stderr names that file and the command that puts the message from there into DST.
    The file is removed at the end.

    No message is given to two consumers. After a SIGKILL the one message under way may be in the rescue file and in a
    queue as well. If SRC can be looked into (`ipcq backends` lists peek), a message is written before it is taken, so
    none is lost. On mqueue it is taken first and then written, and a SIGKILL exactly between the two loses it. The same
    holds elsewhere if another consumer takes the message that was looked at.

    \b
    ipcq move /jobs /jobs-new
    ipcq move mqueue:///jobs shm:///jobs --max-messages 5000
    """
    with transfer(request, "move", "moved", gives_back=False) as its:
        _move(its)


def _move(its: Transfer) -> None:
    while its.progress.count != its.request.count and not its.stop.number:
        its.putter.wait_for_space(its.source, its.show)
        if its.stop.number:
            break
        its.file.make_room()
        try:
            message = take(its.source, its.file, its.stop, its.check)
        except (QueueEmpty, QueueShutDown):
            if not its.progress.count:
                raise
            break
        its.in_hand = 1
        its.put(message)
        its.in_hand = 0
        its.file.clear()
        its.progress.count += 1
        its.show()
