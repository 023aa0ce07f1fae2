"""The command line of the scripts in this directory, which measure their contestants like `ipcq bench`."""

from collections.abc import Sequence
from typing import Any

import click

from ipcq._bench.contestant import PEER, Contestant, Declined, Sample
from ipcq._bench.workload import Workload
from ipcq._cli._exits import Failure, complain
from ipcq._cli.verbs import bench


class Absent:
    """A peer that is not installed; its column says so."""

    kind = PEER
    version = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def sample(self, workload: Workload, seconds: float) -> Sample:
        raise Declined("it is not installed")


def main(doc: str, contestants: Sequence[Contestant], workloads: Sequence[str] = ()) -> None:
    """Run the command line of a benchmark.

    Args:
        doc: The text of ``--help``.
        contestants: The contestants, ours first.
        workloads: Names of the default workloads; empty for all.
    """

    @click.command(help=f"\b\n{doc}")
    @bench.rounds_option(5)
    @bench.measuring_options
    def command(chosen: tuple[str, ...], **how: Any) -> None:
        report = bench.measure(contestants, chosen=chosen or workloads, **how)
        try:
            bench.judge(report)
        except Failure as failure:
            complain(str(failure))
            raise SystemExit(failure.code) from None

    command()
