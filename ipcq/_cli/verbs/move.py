"""``ipcq move``: move messages from one queue into another."""

import click

from ipcq._cli._rescue import take
from ipcq._cli._transfer import Request, Transfer, transfer, transfer_verb
from ipcq.errors import QueueEmpty, QueueShutDown


@click.command("move")
@transfer_verb
def command(request: Request) -> None:
    """Move messages with their priorities from queue SRC to queue DST, until SRC is empty.

    SRC and DST are names or URLs, as in mqueue:///jobs. If DST does not exist, it is created with the mode and the
    limits of SRC; options override them. A limit that the backend does not support is omitted, with a note on stderr.
    An existing queue must match the limits given by options.

    Before taking any message, move checks that DST accepts messages as large as SRC allows, with priorities if SRC has
    them. Each message is put before the next one is taken, so at most one is in transit. A rescue file holds it
    meanwhile. At the start, stderr names the file and the command that loads it into DST. The file is removed at the
    end.

    No message is delivered to two consumers. After a SIGKILL, the message in transit may be both in the rescue file and
    in a queue. If the backend of SRC supports peek (see `ipcq backends`), a message is written before it is taken, so
    none is lost. On mqueue it is taken first and then written: a SIGKILL between the two loses it. The same holds on
    other backends if another consumer takes the message that was peeked.

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
