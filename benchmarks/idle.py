"""What we cost at rest, and at the start: ``python -m benchmarks.idle``.

The processor time of a worker with fifty consumers and nothing to do, the memory of one
with one consumer beside that of the same imports without us, and how much longer
Flask's command takes to start.
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
from .table import drawn
from .target import Target

HEAD = ("what", "figure", "of which not ours", "target", "")

SHARE = Target(1.0, " %")
MEMORY = Target(10.0, " MiB")
COMMAND = Target(30.0, " ms")
IMPORT = Target(60.0, " ms")

_NAME = "us_idle"
_ALL = ("rabbitmq", "redis", "redis-streams", "kafka", "memory")

Row = tuple[str, ...]


def resting(job: Job, consumers: int) -> Row:
    """The share of a processor that idle consumers take."""
    many = dataclasses.replace(job, idle=consumers - 1)
    share = json.loads(call(_NAME, "rest", many, 180.0 + job.rest))["share"]
    name = f"{job.broker}: {consumers} consumers at rest for {job.rest:g} s"
    return (name, f"{share:.2f} %", "–", str(SHARE), SHARE.verdict(share))


def resident(job: Job, rounds: int) -> Row:
    """The memory of a started worker, beyond that of what it imports."""
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
    """How much longer it takes with us, by the clock."""
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
            # As an app has it, and not as it has been set for measuring rates.
            job = dataclasses.replace(job, concurrency=10, prefetch=20)
            rows.append(_told(resting(job, options.consumers)))
            rows.append(_told(resident(job, options.rounds)))
    rows += starting(options.repeats)
    print(drawn(rows))


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
    parser.add_argument("--rounds", type=int, default=3, help="of the memory")
    parser.add_argument("--repeats", type=int, default=15, help="of the starts")
    return parser


if __name__ == "__main__":
    main()
