"""Measure the figures in the documentation, and rewrite benchmarks/summary.json and the README's lines.

Run it on an idle machine with each Python of the documentation, as `nox -s summary`
does. ``--rounds 1 --seconds 0.05`` is only a trial run, whose figures are marked as
such. The system's limits slow down posix_ipc and baseplate; to raise them:
sudo sysctl fs.mqueue.msg_max=1000 fs.mqueue.msgsize_max=65536
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: Workloads of the replacement for multiprocessing.
SIZES = ("64B", "1KiB", "64KiB", "1MiB", "dict", "ping-pong")

#: The number of batches of a round in one thread.
BATCHES = 50

#: Messages of a figure of leases, and messages that are leased and delayed meanwhile.
MESSAGES, LEASED, DELAYED = 50_000, 100_000, 1_000_000


def main() -> None:
    # Imported here, because otherwise each worker process would import these modules too.
    import click
    import compat_multiprocessing
    import leases
    import same_thread

    import peers
    from ipcq._cli._exits import Failure, complain
    from ipcq._cli.verbs import bench

    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    import benchmark_table

    python = "{}.{}".format(*sys.version_info)

    @click.command(help=f"\b\n{__doc__}")
    @bench.rounds_option(benchmark_table.ROUNDS)
    @click.option("--seconds", type=click.FloatRange(0.001, 60), default=benchmark_table.SECONDS, show_default=True)
    def command(rounds: int, seconds: float) -> None:
        if python not in benchmark_table.PYTHONS:
            raise click.UsageError(f"The documentation only has figures of {' and '.join(benchmark_table.PYTHONS)}.")
        whole = python == benchmark_table.PYTHONS[0]
        runs = {"peers": (peers.contestants(), () if whole else tuple(benchmark_table.SAID))}
        if whole:
            runs["compat_multiprocessing"] = (compat_multiprocessing.CONTESTANTS, SIZES)
        how = {"as_json": False, "as_markdown": True, "plot": None, "quiet": False}
        measured = {
            name: bench.measure(contestants, rounds=rounds, seconds=seconds, chosen=workloads, **how)
            for name, (contestants, workloads) in runs.items()
        }
        kept = {name: benchmark_table.short(report) for name, report in measured.items()}
        kept["same_thread"] = benchmark_table.rounded(same_thread.report(rounds, BATCHES))
        if whole:
            kept["leases"] = benchmark_table.rounded(leases.report(rounds, MESSAGES, LEASED, DELAYED))
        summary = benchmark_table.kept() | {python: kept}
        benchmark_table.SUMMARY.write_text(benchmark_table.dump(summary) + "\n")
        readme = ROOT / "README.md"
        readme.write_text(benchmark_table.written_anew(readme.read_text()))
        try:
            for report in measured.values():
                bench.judge(report)
        except Failure as failure:
            complain(str(failure))
            raise SystemExit(failure.code) from None

    command()


if __name__ == "__main__":
    main()
