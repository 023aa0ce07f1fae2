"""``ipcq move``: move messages from one queue into another."""

import click

from ipcq._cli._rescue import take
from ipcq._cli._transfer import Arguments, Transfer, open_transfer, transfer_verb
from ipcq.errors import QueueEmpty, QueueShutDown


@click.command("move")
@transfer_verb
def command(arguments: Arguments) -> None:
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
    with open_transfer(arguments, "move", "moved", puts_back=False) as transfer:
        _move(transfer)


def _move(transfer: Transfer) -> None:
    while transfer.progress.count != transfer.arguments.count and not transfer.stop.number:
        transfer.putter.wait_for_space(transfer.source, transfer.show)
        if transfer.stop.number:
            break
        transfer.file.make_room()
        try:
            message = take(transfer.source, transfer.file, transfer.stop, transfer.check)
        except (QueueEmpty, QueueShutDown):
            if not transfer.progress.count:
                raise
            break
        transfer.in_file_only = 1
        transfer.put(message)
        transfer.in_file_only = 0
        transfer.file.clear()
        transfer.progress.count += 1
        transfer.show()
