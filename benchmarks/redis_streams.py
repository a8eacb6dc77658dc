"""Redis Streams beside kombu's Redis lists, in turns: ``python -m …redis_streams``.

Prints the ratios that the project has set itself: at least 15 for our worker (read,
dispatch with an app context, acknowledged) over kombu's own consumer of lists.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
from collections.abc import Iterator

from . import brokers
from . import table
from .job import Job
from .rounds import Run
from .rounds import Summary
from .rounds import play

KOMBU = "kombu_consumer"
#: Who reads from what; kombu's lists get fewer messages, since they take longer.
TURNS = (
    ("redis", KOMBU, 0.2),
    ("redis-streams", "us_link", 1.0),
    ("redis-streams", "us", 1.0),
    ("redis-streams", "kombu_ours", 1.0),
    ("redis-streams", "redis_py", 1.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="messages in a run")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    runs = list(_runs(options.count, options.rounds))
    names = [name for _, name, _ in TURNS]
    found = [Summary(n, [r for r in runs if r.contender == n]) for n in names]
    print(table.rendered(found, KOMBU))
    lists, *others = found
    for each in others:
        ratio = each.median("rate") / lists.median("rate")
        print(f"{each.contender}: {ratio:.1f} times kombu's lists")


def _runs(count: int, rounds: int) -> Iterator[Run]:
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        brokers.started("redis", pathlib.Path(folder) / "server") as url,
    ):
        for _ in range(rounds):
            for broker, name, share in TURNS:
                job = Job(broker, url, "", round(count * share))
                yield from play("drain", job, [name], 1, timeout=120.0)


if __name__ == "__main__":
    main()
