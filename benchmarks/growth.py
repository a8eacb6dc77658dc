"""Growth of a message's cost with the work: ``python -m benchmarks.growth``.

The same drain, small and large, in turns: with few and with many consumers, waiting
messages, greenlets and bytes, and at the beginning and the end of a long run. The ratio
compares the processor time per message (per byte, if bodies grow). Its median over the
rounds may be 1.1. Rates are not compared, since they depend on other processes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import tempfile
import typing as t
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

from . import brokers
from .job import Job
from .rounds import call
from .table import format_rows
from .target import Target

HEAD = ("what", "small", "large", "ratio", "spread", "target", "")

#: Limit of the cost of the large drain, divided by that of the small drain.
TARGET = Target(1.1)

_NAME = "us_growth"

Figures = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Case:
    """A drain, and the unit of its figures."""

    label: str
    job: Job
    #: Bytes of a message by which the cost is divided, if bodies grow.
    per: int = 1
    #: Whether the queue is filled once, with messages for all rounds.
    kept: bool = False


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two drains whose messages should cost the same."""

    small: Case
    large: Case


@dataclasses.dataclass(frozen=True)
class Scale:
    """Sizes of the drains: full, or quick."""

    count: int
    many: int
    consumers: int = 200
    greenlets: int = 1000
    rounds: int = 3

    @property
    def window(self) -> int:
        return self.many // 20


FULL = Scale(20_000, 1_000_000)
QUICK = Scale(20_000, 200_000)
#: Sizes that show only whether the benchmark works.
TINY = Scale(2_000, 10_000, 20, 100, 1)


def consumers(job: Job, scale: Scale) -> Iterator[Pair]:
    many = scale.consumers
    yield Pair(
        Case("1 consumer", job),
        Case(f"{many}", dataclasses.replace(job, idle=many - 1)),
    )


def waiting(job: Job, scale: Scale) -> Iterator[Pair]:
    deep = dataclasses.replace(job, count=scale.many, first=scale.count)
    yield Pair(
        Case(f"{scale.count:,} waiting", job), Case(f"{scale.many:,}", deep, kept=True)
    )


def greenlets(job: Job, scale: Scale) -> Iterator[Pair]:
    same = dataclasses.replace(job, prefetch=2 * scale.greenlets)
    yield Pair(
        Case("1 greenlet", dataclasses.replace(same, concurrency=1)),
        Case(
            f"{scale.greenlets:,}",
            dataclasses.replace(same, concurrency=scale.greenlets),
        ),
    )


def bodies(job: Job, scale: Scale) -> Iterator[Pair]:
    sizes = {100: "100 B", 10_000: "10 kB", 1_000_000: "1 MB"}
    small, middle, large = (_sized(job, scale, size, sizes[size]) for size in sizes)
    yield Pair(small, middle)
    yield Pair(middle, large)


def _sized(job: Job, scale: Scale, size: int, label: str) -> Case:
    count = max(50, min(scale.count, 200_000_000 // size))
    # 200 of the largest would be more than a prefetch buffer is meant for.
    prefetch = 20 if size > 100_000 else job.prefetch
    sized = dataclasses.replace(job, size=size, count=count, prefetch=prefetch)
    return Case(f"{label}, a byte", sized, per=size)


PAIRS: dict[str, Callable[[Job, Scale], Iterator[Pair]]] = {
    "consumers": consumers,
    "waiting": waiting,
    "greenlets": greenlets,
    "bodies": bodies,
}
LONG = "long"


class Growth:
    """Runner of the pairs on one throwaway broker."""

    def __init__(self, job: Job, scale: Scale) -> None:
        self._job = job
        self._scale = scale
        # A busy machine publishes ten thousand messages per second.
        self._timeout = 120.0 + scale.many / 1_000

    def rows(self, whats: Sequence[str]) -> Iterator[tuple[str, ...]]:
        for what in whats:
            if what == LONG:
                yield from self._long()
                continue
            for pair in PAIRS[what](self._job, self._scale):
                yield self._row(pair)

    def _row(self, pair: Pair) -> tuple[str, ...]:
        kept = {case: self._filled(case) for case in _cases(pair) if case.kept}
        turns = []
        for number in range(self._scale.rounds):
            order = _cases(pair)[:: 1 if number % 2 else -1]
            turn = {case: self._played(case, kept) for case in order}
            turns.append((turn[pair.small], turn[pair.large]))
        return _compared(self._job.broker, pair, turns)

    def _played(self, case: Case, kept: t.Mapping[Case, Job]) -> Figures:
        job = kept.get(case) or self._filled(case)
        figures: Figures = json.loads(call(_NAME, "first", job, self._timeout))
        _say(job, case.label, figures)
        return figures

    def _filled(self, case: Case) -> Job:
        job = dataclasses.replace(case.job, queue=f"bench-{uuid.uuid4().hex[:8]}")
        if case.kept:  # The rounds take some.
            more = job.count + self._scale.rounds * 2 * job.first
            call(_NAME, "fill", dataclasses.replace(job, count=more), self._timeout)
        elif job.broker != "memory":
            call(_NAME, "fill", job, self._timeout)
        return job

    def _long(self) -> Iterator[tuple[str, ...]]:
        """Measure the beginning and the end of one long run."""
        scale = self._scale
        job = dataclasses.replace(self._job, count=scale.many, first=scale.window)
        job = self._filled(Case("", job))
        found = json.loads(call(_NAME, "windows", job, self._timeout))
        for label, figures in found.items():
            _say(job, label, figures)
        labels = [f"{each} windows of {scale.many:,}" for each in found]
        pair = Pair(Case(labels[0], job), Case(labels[1], job))
        yield _compared(job.broker, pair, [(found["first"], found["last"])])
        memory = [found[each]["memory"] for each in ("first", "last")]
        texts = [f"{each:.1f} MiB" for each in memory]
        ratio = memory[1] / memory[0]
        told = (f"{ratio:.2f}", "–", str(TARGET), TARGET.verdict(ratio))
        yield (f"{job.broker}: memory, the same run", *texts, *told)


def _cases(pair: Pair) -> list[Case]:
    return [pair.small, pair.large]


def _compared(
    broker: str, pair: Pair, turns: Sequence[tuple[Figures, Figures]]
) -> tuple[str, ...]:
    small = [turn[0]["cpu"] / pair.small.per for turn in turns]
    large = [turn[1]["cpu"] / pair.large.per for turn in turns]
    ratios = [much / little for little, much in zip(small, large, strict=True)]
    ratio = statistics.median(ratios)
    return (
        f"{broker}: {pair.small.label} → {pair.large.label}",
        _cost(statistics.median(small)),
        _cost(statistics.median(large)),
        f"{ratio:.2f}",
        f"{min(ratios):.2f} – {max(ratios):.2f}",
        str(TARGET),
        TARGET.verdict(ratio),
    )


def _cost(microseconds: float) -> str:
    if microseconds < 1:
        return f"{microseconds * 1000:.2f} ns"
    return f"{microseconds:.1f} µs"


def _say(job: Job, label: str, figures: Figures) -> None:
    print(
        f"{job.broker}, {label}: {figures['cpu']:.1f} µs CPU,"
        f" {figures['rate']:,.0f}/s, {figures['memory']:.0f} MiB",
        file=sys.stderr,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    scale = dataclasses.replace(options.scale or FULL, **_asked(options))
    rows: list[tuple[str, ...]] = [HEAD]
    for broker in options.brokers:
        with (
            tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
            brokers.started(broker, pathlib.Path(folder) / "server") as url,
        ):
            job = Job(broker, url, "", scale.count)
            rows += Growth(job, scale).rows(options.what)
    print(format_rows(rows))


def _asked(options: argparse.Namespace) -> dict[str, int]:
    return {"rounds": options.rounds} if options.rounds else {}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__
    )
    whats = [*PAIRS, LONG]
    parser.add_argument("what", nargs="*", default=whats, help=", ".join(whats))
    parser.add_argument(
        "--brokers",
        nargs="+",
        choices=brokers.NAMES,
        metavar="NAME",
        default=["rabbitmq", "redis-streams"],
    )
    parser.add_argument("--rounds", type=int)
    for name, scale in {"quick": QUICK, "tiny": TINY}.items():
        parser.add_argument(
            f"--{name}",
            dest="scale",
            action="store_const",
            const=scale,
            help=f"{scale.many:,} messages in place of {FULL.many:,}",
        )
    return parser


if __name__ == "__main__":
    main()
