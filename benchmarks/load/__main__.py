"""``python -m benchmarks.load``: what consumers in the same process cost the site.

Finds how many requests a second the shop can serve alone; then customers come in steps,
up to 80 % of that: to the site alone, and to the site beside its consumers, whose queues
are kept full, with and without co-scheduling. In rounds, each in another order. The site
has a core for itself, where there are two; Locust, the broker and this have another one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterable
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
        place = pathlib.Path(folder)
        limit = options.limit or limit_of(place, url)
        print(f"The site alone serves {limit:.0f} requests a second at the most.")
        plan = _plan(options, limit)
        trials = list(_told(play(place, url, plan, options.rounds)))
    print(report.rendered(plan, trials))
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(t) for t in trials]))


def _plan(options: argparse.Namespace, limit: float) -> Plan:
    """Steps up to 80 % of the limit; the last one is the longest, and the one meant."""
    most = options.customers
    steps = [(8.0, most // 4), (8.0, most // 2), (options.seconds, most)]
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
    parser.add_argument("--limit", type=float, help="requests a second, if known")
    parser.add_argument("--json", type=pathlib.Path, help="write all figures there")
    return parser


def _told(trials: Iterable[Trial]) -> Iterator[Trial]:
    for trial in trials:
        print(report.line(trial), file=sys.stderr, flush=True)
        yield trial


if __name__ == "__main__":
    main()
