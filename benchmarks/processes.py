"""Throughput of several waiting processes: ``python -m benchmarks.processes``.

``flask qconsume run --processes 1``, then 2 and 4, in turns; each handler waits for
10 ms and 20 run at once in a process, so that one process does 2,000 a second at best.
All processes consume before the first message is published, and handle none before the
last is published. The clock runs from a tenth of the messages to nine tenths, so that
an uneven end does not count. ``efficiency`` is the rate of one process with 100
messages at once, as a share of the possible 10,000 per second.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from collections.abc import Sequence

from . import brokers
from . import fleet
from .job import Job
from .rounds import Run
from .rounds import call
from .rounds import play
from .table import format_rows
from .target import Target

HEAD = ("what", "msg/s", "of the ideal", "to one", "spread", "µs CPU", "target", "")

#: Throughput of four processes, divided by that of one.
FOUR = Target(3.8, at_most=False)
IDEAL = Target(95.0, " %", at_most=False)
COST = Target(60.0, " µs")

_BROKERS = ("rabbitmq", "redis-streams", "kafka", "postgresql", "sqlite")

Row = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Figures:
    """Throughput of the processes, and their microseconds of CPU time per message."""

    rate: float
    cpu: float


def measured(job: Job, processes: int, settle: float) -> Figures:
    """Start processes, publish, and measure their throughput."""
    job = dataclasses.replace(job, queue=f"bench-{uuid.uuid4().hex[:8]}")
    job = dataclasses.replace(job, count=job.count * processes)
    timeout = 60.0 + 20 * job.count * job.work / job.concurrency / processes
    empty = dataclasses.replace(job, count=0)
    call("us", "fill", empty, timeout)  # The queue is there, and for Kafka the topic.
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        fleet.running(job, processes, pathlib.Path(folder)) as running,
    ):
        time.sleep(settle)
        call("us", "fill", job, timeout)
        running.open()
        figures = _watched(running, job, timeout)
    print(
        f"{job.broker}, {processes}: {figures.rate:,.0f}/s, {figures.cpu:.1f} µs CPU",
        file=sys.stderr,
    )
    return figures


def _watched(running: fleet.Fleet, job: Job, timeout: float) -> Figures:
    began = running.await_handled(job.warm_up, timeout)
    before, used = running.handled, running.cpu()
    wanted = job.count * 9 // 10
    ended = running.await_handled(wanted, timeout)
    done = running.handled - before
    return Figures(done / (ended - began), (running.cpu() - used) / done * 1e6)


def scaled(job: Job, counts: Sequence[int], rounds: int, settle: float) -> list[Row]:
    """Measure the throughput of each number of processes in turns."""
    found: dict[int, list[Figures]] = {count: [] for count in counts}
    for number in range(rounds):
        for count in counts[:: 1 if number % 2 else -1]:
            found[count].append(measured(job, count, settle))
    return [_row(job, count, found[count], found[counts[0]]) for count in counts]


def _row(
    job: Job, count: int, figures: Sequence[Figures], one: Sequence[Figures]
) -> Row:
    rate = statistics.median(each.rate for each in figures)
    ratios = [mine.rate / its.rate for mine, its in zip(figures, one, strict=True)]
    ratio = statistics.median(ratios)
    ideal = count * job.concurrency / job.work
    measures = FOUR if count == 4 else None
    return (
        f"{job.broker}, {count} process{'es' * (count > 1)}",
        f"{rate:,.0f}",
        f"{rate / ideal:.0%}",
        f"{ratio:.2f}",
        f"{min(ratios):.2f} – {max(ratios):.2f}",
        f"{statistics.median(each.cpu for each in figures):.1f}",
        str(measures) if measures else "–",
        measures.verdict(ratio) if measures else "",
    )


def efficiency(job: Job, rounds: int) -> Iterator[Row]:
    """Measure one process with 100 handlers at once."""
    job = dataclasses.replace(job, concurrency=100, prefetch=200, count=job.count * 2)
    runs: list[Run] = list(play("drain", {"us": job}, rounds, 120.0))
    rate = statistics.median(run.rate for run in runs)
    cpu = statistics.median(run.cpu for run in runs)
    share = rate / (job.concurrency / job.work) * 100
    rates = [run.rate for run in runs]
    yield (
        f"{job.broker}, efficiency",
        f"{rate:,.0f}",
        f"{share:.0f}%",
        "–",
        f"{min(rates):,.0f} – {max(rates):,.0f}",
        f"{cpu:.1f}",
        f"{IDEAL}, {COST}",
        f"{IDEAL.verdict(share)}, {COST.verdict(cpu)}",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    rows: list[Row] = [HEAD]
    for broker in options.brokers:
        with (
            tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
            brokers.started(broker, pathlib.Path(folder) / "server") as url,
        ):
            job = _job(options, broker, url)
            rows += efficiency(job, options.rounds)
            if options.processes:
                # A Kafka group assigns its partitions once all members have joined.
                settle = 5.0 if broker == "kafka" else 1.0
                rows += scaled(job, options.processes, options.rounds, settle)
    print(format_rows(rows))


def _job(options: argparse.Namespace, broker: str, url: str) -> Job:
    return Job(
        broker,
        url,
        "",
        options.count,
        concurrency=options.concurrency,
        prefetch=2 * options.concurrency,
        work=options.work / 1000,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.processes", description=__doc__
    )
    parser.add_argument(
        "--brokers", nargs="+", choices=_BROKERS, metavar="NAME", default=_BROKERS
    )
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument(
        "--count", type=int, default=20_000, help="messages for each process"
    )
    parser.add_argument("--concurrency", type=int, default=20)
    parser.add_argument("--work", type=float, default=10.0, metavar="MS")
    parser.add_argument("--rounds", type=int, default=3)
    return parser


if __name__ == "__main__":
    main()
