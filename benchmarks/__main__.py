"""``python -m benchmarks drain --broker rabbitmq``; see ``--help``."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
import tempfile
import time
import typing as t
from collections.abc import Sequence

from . import brokers
from . import contenders
from . import table
from .job import Job
from .rounds import Run
from .rounds import Summary
from .rounds import play

#: Packages whose versions are noted beside the figures, if installed.
PACKAGES = (
    "aio-pika",
    "amqp",
    "asyncpg",
    "celery",
    "confluent-kafka",
    "dramatiq",
    "faststream",
    "flask",
    "gevent",
    "huey",
    "kombu",
    "marshmallow",
    "msgspec",
    "nameko",
    "pgqueuer",
    "pika",
    "procrastinate",
    "psycopg",
    "redis",
    "sqlalchemy",
    "uvloop",
)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    names = options.contenders or _find_able(options.do, options.broker)
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        brokers.all_started(
            {_broker(options, name) for name in names}, pathlib.Path(folder)
        ) as urls,
    ):
        jobs = {name: _job(options, _broker(options, name), urls) for name in names}
        turns = play(options.do, jobs, options.rounds, options.timeout)
        runs = list(_told(turns))
    summaries = [Summary(name, _of(name, runs)) for name in names if _of(name, runs)]
    print(table.render(summaries, "us"))
    if options.json:
        options.json.write_text(json.dumps(_record(options, runs), indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("do", choices=["drain", "publish"])
    parser.add_argument("--broker", choices=brokers.NAMES, default="rabbitmq")
    parser.add_argument(
        "--contenders",
        nargs="+",
        type=_contender,
        metavar="NAME[@BROKER]",
        help="default: all that support the broker; '@' chooses a different broker for"
        f" one contender: {', '.join(contenders.names())}",
    )
    parser.add_argument("--count", type=int, default=20_000, help="messages of a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--work",
        type=float,
        default=0.0,
        metavar="MS",
        help="milliseconds that each handler waits",
    )
    parser.add_argument("--schema", action="store_true", help="load bodies by a schema")
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--prefetch", type=int, default=200)
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="seconds of one run"
    )
    parser.add_argument(
        "--json", type=pathlib.Path, help="write all figures to this file"
    )
    return parser


def _find_able(do: str, broker: str) -> list[str]:
    found = [(name, contenders.find(name)) for name in contenders.names()]
    return [n for n, c in found if broker in c.BROKERS and hasattr(c, do)]


def _contender(text: str) -> str:
    name, at, broker = text.partition("@")
    if name not in contenders.names():
        raise argparse.ArgumentTypeError(f"there is no contender '{name}'")
    if at and broker not in brokers.NAMES:
        raise argparse.ArgumentTypeError(f"there is no broker '{broker}'")
    return text


def _broker(options: argparse.Namespace, name: str) -> str:
    return name.partition("@")[2] or str(options.broker)


def _job(options: argparse.Namespace, broker: str, urls: t.Mapping[str, str]) -> Job:
    return Job(
        broker=broker,
        url=urls[broker],
        queue="",
        count=options.count,
        concurrency=options.concurrency,
        prefetch=options.prefetch,
        work=options.work / 1000,
        schema=options.schema,
    )


def _told(runs: t.Iterable[Run]) -> t.Iterator[Run]:
    for run in runs:
        left = "" if run.left is None else f", {run.left} left"
        print(
            f"{run.round}. {run.contender}: {run.rate:,.0f}/s,"
            f" {run.cpu:.1f} µs CPU{left}",
            file=sys.stderr,
        )
        yield run


def _of(name: str, runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.contender == name]


def _record(options: argparse.Namespace, runs: Sequence[Run]) -> dict[str, t.Any]:
    return {
        "options": {k: v for k, v in vars(options).items() if k != "json"},
        "time": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
        },
        "versions": dict(_versions()),
        "runs": [dataclasses.asdict(run) for run in runs],
    }


def _processor() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> t.Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue


if __name__ == "__main__":
    main()
