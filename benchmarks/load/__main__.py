"""``python -m benchmarks.load``: what consumers in the same process cost the site.

Finds how many requests a second the shop can serve alone. Then customers come in steps,
up to 80 % of that: to the site alone, and to the site beside its consumers, whose
queues are kept full, without and with co-scheduling; in rounds, each in another order.
The site has a core for itself, where there are two; the rest shares the others.
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
from .trial import limit_of
from .trial import play


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    _to_the_last_core()
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with (
        tempfile.TemporaryDirectory(prefix="load-", dir=memory) as folder,
        brokers.started(options.broker, pathlib.Path(folder) / "server") as url,
    ):
        if options.broker == "redis-streams":
            url = url.replace("redis://", "redis-streams://")
        trials = list(_rounds(options, pathlib.Path(folder), url))
    print(report.rendered(trials))
    if options.csv:
        report.write(options.csv, trials)


def _rounds(
    options: argparse.Namespace, place: pathlib.Path, url: str
) -> Iterator[Trial]:
    """All trials. The limit is asked anew in each round: others use the machine too."""
    for number in range(1, options.rounds + 1):
        limit = limit_of(place, url, number)
        told = f"The site alone serves {limit:.0f} requests a second at the most."
        print(f"{number}. {told}", file=sys.stderr, flush=True)
        for trial in play(place, url, _plan(options, limit), number):
            print(report.line(trial), file=sys.stderr, flush=True)
            yield trial


def _plan(options: argparse.Namespace, limit: float) -> Plan:
    """Steps up to 80 % of the limit; the last one is the longest, and the one meant."""
    most = options.customers
    steps = [(6.0, most // 4), (6.0, most // 2), (options.seconds, most)]
    return Plan(steps, period=most / (options.load * limit))


def _to_the_last_core() -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[1:])
        os.environ["LOAD_CORE"] = str(cores[0])


def _parser() -> argparse.ArgumentParser:
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
