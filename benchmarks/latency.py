"""Latency of messages at an even pace: ``python -m benchmarks.latency``.

One process publishes 200 messages per second with their time; another process handles
them, and its handler compares the time. On RabbitMQ, flask_qconsume and kombu's plain
loop read the same queue in turns. On Redis Streams only flask_qconsume is measured. On
databases each contender publishes for itself. Except on RabbitMQ, the latency includes
the publisher's part: with a database, the commit.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import statistics
import sys
import tempfile
import uuid
from collections.abc import Collection
from collections.abc import Sequence

from . import brokers
from .contenders import title
from .job import Job
from .rounds import call
from .rounds import told
from .table import format_rows
from .target import Target

HEAD = ("broker", "contender", "p50 ms", "p99 ms", "spread of p99", "targets", "")

_P99S = {"postgresql": Target(10.0, " ms"), "sqlite": Target(10.0, " ms")}
P99 = Target(1.5, " ms")

_OURS, _KOMBU = "us_latency", "kombu_latency"
CONTENDERS = {
    "rabbitmq": (_OURS, _KOMBU),
    "redis-streams": (_OURS,),
    "postgresql": (_OURS, "procrastinate_async", "pgqueuer_async", "river_go"),
    "sqlite": (_OURS, "huey_latency"),
}

Figures = dict[str, float]


def heard(name: str, job: Job) -> Figures:
    """Percentiles of one contender in milliseconds."""
    queue = f"bench-{uuid.uuid4().hex[:8]}"
    url = brokers.fresh_url(job.broker, job.url, queue)
    job = dataclasses.replace(job, queue=queue, url=url)
    timeout = 120.0 + 2 * job.count / job.pace
    publisher = _OURS if name == _KOMBU else name
    call(publisher, "declare", job, timeout)
    with told(name, "listen", job, timeout) as lines:
        next(lines)  # It listens.
        call(publisher, "pace", job, timeout)
        figures: Figures = next(lines)
    print(
        f"{job.broker}, {name}: p50 {figures['p50']:.2f} ms,"
        f" p99 {figures['p99']:.2f} ms",
        file=sys.stderr,
    )
    return figures


def compared(job: Job, rounds: int, wanted: Collection[str]) -> list[tuple[str, ...]]:
    """Measure all contenders of the broker in turns."""
    names = [name for name in CONTENDERS[job.broker] if name in wanted]
    found: dict[str, list[Figures]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[:: 1 if number % 2 else -1]:
            found[name].append(heard(name, job))
    p50s = {name: _median(found[name], "p50") for name in names}
    return [_row(job, name, found[name], p50s.get(_KOMBU)) for name in names]


def _row(
    job: Job, name: str, figures: Sequence[Figures], other_latency: float | None
) -> tuple[str, ...]:
    p50, p99 = _median(figures, "p50"), _median(figures, "p99")
    p99s = [each["p99"] for each in figures]
    targets = {"p99": (_P99S.get(job.broker, P99), p99)}
    if other_latency is not None:
        targets["p50"] = (Target(round(other_latency, 2), " ms"), p50)
    ours = name == _OURS
    return (
        job.broker,
        title(name),
        f"{p50:.2f}",
        f"{p99:.2f}",
        f"{min(p99s):.2f} – {max(p99s):.2f}",
        ", ".join(f"{k} {target}" for k, (target, _) in targets.items()) * ours or "–",
        ", ".join(target.verdict(value) for target, value in targets.values()) * ours,
    )


def _median(figures: Sequence[Figures], name: str) -> float:
    return statistics.median(each[name] for each in figures)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    rows: list[tuple[str, ...]] = [HEAD]
    for broker in options.brokers:
        with (
            tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
            brokers.started(broker, pathlib.Path(folder) / "server") as url,
        ):
            job = Job(broker, url, "", options.count, pace=options.rate)
            wanted = options.contenders or CONTENDERS[broker]
            rows += compared(job, options.rounds, wanted)
    print(format_rows(rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency", description=__doc__
    )
    parser.add_argument(
        "--brokers",
        nargs="+",
        choices=list(CONTENDERS),
        metavar="NAME",
        default=list(CONTENDERS),
    )
    parser.add_argument(
        "--contenders", nargs="+", metavar="NAME", help="default: all of each broker"
    )
    parser.add_argument("--rate", type=float, default=200.0, help="messages per second")
    parser.add_argument("--count", type=int, default=3_000, help="messages of a run")
    parser.add_argument("--rounds", type=int, default=3)
    return parser


if __name__ == "__main__":
    main()
