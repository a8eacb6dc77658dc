"""``python -m benchmarks.load``: how much consumers in its process slow a site down.

First measures how many requests per second the shop can serve without consumers. Then
simulated customers send up to 80 per cent of that rate, in steps, in three modes: to
the site alone, and to the site with consumers whose queues are kept full, without and
with co-scheduling. The modes run in several rounds, in a random order. If the machine
has two cores or more, the site has one core to itself.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from collections.abc import Sequence

from .. import brokers
from . import report
from .trial import Plan
from .trial import Trial
from .trial import measure_limit
from .trial import run_trials


def main(arguments: Sequence[str] | None = None) -> None:
    options = _create_parser().parse_args(arguments)
    _leave_first_core_to_site()
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with (
        tempfile.TemporaryDirectory(prefix="load-", dir=memory) as folder,
        brokers.started(options.broker, pathlib.Path(folder) / "server") as url,
    ):
        if options.broker == "redis-streams":
            url = url.replace("redis://", "redis-streams://")
        trials = list(_run_rounds(options, pathlib.Path(folder), url))
    print(report.render_tables(trials))
    if options.csv:
        report.write_csv(options.csv, trials)


def _run_rounds(
    options: argparse.Namespace, place: pathlib.Path, url: str
) -> Iterator[Trial]:
    """Run all trials; the limit is measured in each round, as the machine is shared."""
    for number in range(1, options.rounds + 1):
        limit = measure_limit(place, url, number)
        limit_text = (
            f"Without consumers, the site serves {limit:.0f} requests/s at most."
        )
        print(f"{number}. {limit_text}", file=sys.stderr, flush=True)
        for trial in run_trials(place, url, _plan_steps(options, limit), number):
            print(report.format_trial(trial), file=sys.stderr, flush=True)
            yield trial


def _plan_steps(options: argparse.Namespace, limit: float) -> Plan:
    """Plan steps up to 80 per cent of the limit; the last step is the longest."""
    most = options.customers
    steps = [(6.0, most // 4), (6.0, most // 2), (options.seconds, most)]
    return Plan(steps, period=most / (options.load * limit))


def _leave_first_core_to_site() -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[1:])
        os.environ["LOAD_CORE"] = str(cores[0])


def _create_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load", description=__doc__
    )
    parser.add_argument("--broker", choices=brokers.NAMES, default="redis-streams")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--customers", type=int, default=200, help="in the last step")
    parser.add_argument("--seconds", type=float, default=20, help="of the last step")
    parser.add_argument("--load", type=float, default=0.8, help="part of the limit")
    parser.add_argument("--csv", type=pathlib.Path, help="write all figures there")
    return parser


if __name__ == "__main__":
    main()
