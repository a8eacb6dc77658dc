"""Throwaway brokers, from the tests' servers.

Each run has a queue of its own, and on databases a database of its own.
"""

from __future__ import annotations

import contextlib
import pathlib
import typing as t
from collections.abc import Iterable
from collections.abc import Iterator

#: Milliseconds for which Kafka waits for members of a group, as by default; the tests'
#: server does not wait.
_OPTIONS: t.Mapping[str, t.Mapping[str, t.Any]] = {
    "kafka": {"config": {"group.initial.rebalance.delay.ms": "3000"}}
}

NAMES = (
    "rabbitmq",
    "rabbitmq-quorum",
    "redis",
    "redis-streams",
    "memory",
    "kafka",
    "postgresql",
    "sqlite",
)


@contextlib.contextmanager
def started(name: str, folder: pathlib.Path) -> Iterator[str]:
    """Start a broker for a block, and return its URL."""
    if name == "memory":
        yield "memory://"
        return
    if name == "sqlite":
        folder.mkdir(parents=True, exist_ok=True)
        yield f"sqlite:///{folder / 'queue.db'}"
        return
    server = _server(name)
    if reason := server.missing():
        raise SystemExit(f"{server.title} is not installed: {reason}")
    with server(folder, **_OPTIONS.get(name, {})) as running:
        yield running.url


@contextlib.contextmanager
def all_started(names: Iterable[str], folder: pathlib.Path) -> Iterator[dict[str, str]]:
    """Start several brokers for a block, and return their URLs by name."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(started(name, folder / name)) for name in names
        }


def fresh_url(name: str, url: str, run: str) -> str:
    """Return the URL for one run: a new database, if the broker is a database.

    No contender finds rows or dead index entries that another one has left.
    """
    if name == "sqlite":
        return url.replace("queue.db", f"{run}.db")
    if name != "postgresql":
        return url
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'create database "{run}"')  # type: ignore[arg-type]
    return f"{url.rpartition('/')[0]}/{run}"


def _server(name: str) -> t.Any:
    from tests import servers

    if name.startswith("rabbitmq"):
        return servers.RabbitMQ
    if name.startswith("redis"):
        return servers.Redis
    if name == "postgresql":
        return servers.PostgreSQL
    if not hasattr(servers, "Kafka"):
        raise SystemExit("There is no throwaway Kafka in 'tests/servers' yet.")
    return servers.Kafka
