"""Cost at rest and at the start: ``python -m benchmarks.idle``.

The processor time of an idle worker with fifty consumers, the memory of a worker with
one consumer compared with the same imports without flask_qconsume, and the additional
time that Flask's command takes to start.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Iterator
from collections.abc import Sequence

from . import brokers
from . import startup
from .job import Job
from .rounds import call
from .table import format_rows
from .target import Target

HEAD = ("what", "figure", "of which not ours", "target", "")

SHARE = Target(1.0, " %")
MEMORY = Target(10.0, " MiB")
COMMAND = Target(30.0, " ms")
IMPORT = Target(60.0, " ms")

_NAME = "us_idle"
_ALL = (
    "rabbitmq",
    "redis",
    "redis-streams",
    "kafka",
    "memory",
    "postgresql",
    "sqlite",
)

Row = tuple[str, ...]


def resting(job: Job, consumers: int) -> Row:
    """Measure the share of a processor that idle consumers use."""
    many = dataclasses.replace(job, idle=consumers - 1)
    found = json.loads(call(_NAME, "rest", many, 180.0 + job.rest))
    share, server = found["share"], found["server"]
    name = f"{job.broker}: {consumers} consumers at rest for {job.rest:g} s"
    others = f"server {server:.2f} %" if server else "–"
    return (name, f"{share:.2f} %", others, str(SHARE), SHARE.verdict(share))


def resident(job: Job, rounds: int) -> Row:
    """Measure the memory of a worker, without that of third-party imports."""
    job = dataclasses.replace(job, rest=0.5)
    pairs = [(_memory("rest", job), _memory("bare", job)) for _ in range(rounds)]
    ours, bare = (statistics.median(each) for each in zip(*pairs, strict=True))
    name = f"{job.broker}: memory of a worker"
    more = ours - bare
    figure, others = f"+{more:.1f} MiB", f"{bare:.1f} MiB"
    return (name, figure, others, str(MEMORY), MEMORY.verdict(more))


def _memory(do: str, job: Job) -> float:
    return float(json.loads(call(_NAME, do, job, 180.0))["memory"])


def starting(repeats: int) -> Iterator[Row]:
    """Measure the additional time of a start with flask_qconsume."""
    found = startup.least(repeats)
    for name, (clock, used) in found.items():
        print(f"{name}: {clock:.0f} ms, {used:.0f} ms CPU", file=sys.stderr)
    lines = (
        ("flask --help", "flask --help, without us", COMMAND),
        ("flask qconsume --help", "flask --help, without us", COMMAND),
        ("flask qconsume --help", "flask --help", COMMAND),
        ("import flask_qconsume", "import flask", IMPORT),
    )
    for name, beyond, target in lines:
        ours, others = found[name][0], found[beyond][0]
        more = ours - others
        texts = (f"+{more:.1f} ms", f"{others:.0f} ms")
        what = f"{name}, beyond {beyond}"
        yield (what, *texts, str(target), target.verdict(more))


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    rows: list[Row] = [HEAD]
    for broker in options.brokers:
        with (
            tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
            brokers.started(broker, pathlib.Path(folder) / "server") as url,
        ):
            job = Job(broker, url, f"idle-{broker}", 0, rest=options.seconds)
            # The default of an app, and not the setting for measuring rates.
            job = dataclasses.replace(job, concurrency=10, prefetch=20)
            rows.append(_told(resting(job, options.consumers)))
            rows.append(_told(resident(job, options.rounds)))
    rows += starting(options.repeats)
    print(format_rows(rows))


def _told(row: Row) -> Row:
    print(": ".join(row[:2]), file=sys.stderr)
    return row


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.idle", description=__doc__
    )
    parser.add_argument(
        "--brokers", nargs="*", choices=_ALL, metavar="NAME", default=_ALL
    )
    parser.add_argument("--consumers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument(
        "--rounds", type=int, default=3, help="measurements of the memory"
    )
    parser.add_argument(
        "--repeats", type=int, default=15, help="measurements of the starts"
    )
    return parser


if __name__ == "__main__":
    main()
