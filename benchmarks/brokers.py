"""Throwaway brokers, from the tests' servers; each run has a queue of its own."""

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

NAMES = ("rabbitmq", "rabbitmq-quorum", "redis", "redis-streams", "memory", "kafka")


@contextlib.contextmanager
def started(name: str, folder: pathlib.Path) -> Iterator[str]:
    """Start a broker for a block, and return its URL."""
    if name == "memory":
        yield "memory://"
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


def _server(name: str) -> t.Any:
    from tests import servers

    if name.startswith("rabbitmq"):
        return servers.RabbitMQ
    if name.startswith("redis"):
        return servers.Redis
    if not hasattr(servers, "Kafka"):
        raise SystemExit("There is no throwaway Kafka in 'tests/servers' yet.")
    return servers.Kafka
