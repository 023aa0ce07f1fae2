"""``ipcq backends``: list installed backends."""

import click

import ipcq
from ipcq._cli._options import json_option
from ipcq._cli._output import capabilities_of, print_json, print_table
from ipcq._opening import registry

HEADINGS = ("backend", "usable", "rank", "scope", "outlives", "can", "distribution", "why not")


@click.command("backends")
@json_option("Print one JSON object per backend.")
def command(as_json: bool) -> None:
    """List installed backends, best first, including those that are unusable or fail to load.

    'rank': backend 'auto' creates queues on the highest rank, and never on '-'. 'scope': which processes can share a
    queue. 'outlives': what a queue survives. 'why not': why the backend is unusable.
    """
    registry.known()  # raises if there are none: an empty list would hide a broken installation
    rows = []
    for each in ipcq.backends():
        capabilities = None if each.capabilities is None else capabilities_of(each.capabilities)
        if as_json:
            print_json(
                {
                    "name": each.name,
                    "usable": each.usable,
                    "reason": each.reason,
                    "rank": each.rank,
                    "distribution": each.distribution,
                    "capabilities": capabilities,
                }
            )
            continue
        known = capabilities or {}
        can = [capability for capability, has in known.items() if has is True]
        rows.append(
            (
                each.name,
                each.usable,
                each.rank,
                known.get("scope"),
                known.get("persistence"),
                can or None,
                each.distribution or None,
                each.reason or None,
            )
        )
    if not as_json:
        print_table(HEADINGS, rows, folding={"can", "why not"})
