"""``ipcq backends``: the mechanisms that are installed."""

import click

import ipcq
from ipcq._cli._options import json_option
from ipcq._cli._output import capabilities_of, say_json, say_table
from ipcq._opening import registry

HEADINGS = ("backend", "usable", "rank", "scope", "outlives", "can", "distribution", "why not")


@click.command("backends")
@json_option("Print one JSON object for each backend, on a line of its own.")
def command(as_json: bool) -> None:
    """List the backends that are installed, the best first, those that cannot be used or loaded included.

    'rank' is the place in the order in which backend 'auto' creates queues, the highest first, '-' for never; 'scope'
    is who can meet on a queue; 'outlives' says what it outlives; 'why not' says what keeps a backend from being used.
    """
    registry.known()  # an empty list would not say that there is something to mend
    rows = []
    for each in ipcq.backends():
        abilities = None if each.capabilities is None else capabilities_of(each.capabilities)
        if as_json:
            say_json(
                {
                    "name": each.name,
                    "usable": each.usable,
                    "reason": each.reason,
                    "rank": each.rank,
                    "distribution": each.distribution,
                    "capabilities": abilities,
                }
            )
            continue
        told = abilities or {}
        can = [ability for ability, has in told.items() if has is True]
        rows.append(
            (
                each.name,
                each.usable,
                each.rank,
                told.get("scope"),
                told.get("persistence"),
                can or None,
                each.distribution or None,
                each.reason or None,
            )
        )
    if not as_json:
        say_table(HEADINGS, rows, folding={"can", "why not"})
