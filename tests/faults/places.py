"""The brokers that faults are provoked on, each behind proxies.

Knows how to start one, and what a run configures there; not what goes wrong.
"""

from __future__ import annotations

import contextlib
import pathlib
import typing as t
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

from ..servers import Kafka
from ..servers import KafkaCluster
from ..servers import RabbitMQ
from ..servers import Redis
from ..servers import RedisSentinel
from ..servers import Server
from ..servers import Vhost
from ..servers.kafka import version as kafka_version
from ..servers.ports import HOST
from ..servers.ports import free_port
from ..servers.redis_sentinel import NAME as SENTINEL_NAME
from . import fault
from .proxy import Proxy

#: What every worker and publisher is told; keys without ``QCONSUME_``.
COMMON = {
    "HEARTBEAT": fault.HEARTBEAT,
    "PUBLISH_TIMEOUT": fault.PUBLISH_TIMEOUT,
    "RETRY": {"min_delay": 1, "max_delay": 2},
}

_KAFKA = {
    "ORDERING": "key",
    "LEASE": 6,
    "TRANSPORT_OPTIONS": {
        "partitions": 8,
        "kafka_consumer_config": {
            "session.timeout.ms": round(fault.SESSION * 1000),
            "heartbeat.interval.ms": 500,
        },
    },
}


@dataclass
class Place:
    """One broker that runs, and what stands before it."""

    name: str
    #: For people: ``"RabbitMQ 3.10.8, quorum queues"``.
    title: str
    server: t.Any
    proxies: Sequence[Proxy]
    #: Where we connect to: the proxies.
    url: str
    vhost: Vhost | None = None
    #: Further configuration, without ``QCONSUME_``.
    config: dict[str, t.Any] = field(default_factory=dict)
    #: Whether messages of one key must be handled in their order.
    ordered: bool = False


@contextlib.contextmanager
def _rabbitmq(name: str, folder: pathlib.Path) -> Iterator[Place]:
    with (
        RabbitMQ(folder) as server,
        Proxy(server.port) as proxy,
        server.vhost() as vhost,
    ):
        version = server.ctl("version").strip()
        yield Place(
            name,
            f"RabbitMQ {version}, {name} queues",
            server,
            [proxy],
            vhost.url.replace(f"{HOST}:{server.port}", proxy.address),
            vhost,
            {**COMMON, "QUEUE_TYPE": name},
        )


@contextlib.contextmanager
def _redis(name: str, folder: pathlib.Path) -> Iterator[Place]:
    # What the record asks for, so that nothing is lost in a crash of the server.
    options = {"appendfsync": "always"}
    with Redis(folder, options=options) as server, Proxy(server.port) as proxy:
        with server.client() as client:
            version = client.info("server")["redis_version"]
        scheme = "redis-streams" if name == "streams" else "redis"
        kind = "Streams" if name == "streams" else "lists"
        yield Place(
            name,
            f"Redis {version}, {kind}",
            server,
            [proxy],
            f"{scheme}://{proxy.address}/0",
            None,
            {**COMMON, "LEASE": fault.LEASE},
        )


@contextlib.contextmanager
def _kafka(name: str, folder: pathlib.Path) -> Iterator[Place]:
    many = name == "cluster"
    ports = [free_port() for _ in range(3 if many else 1)]
    server = (
        KafkaCluster(folder, proxy_ports=ports)
        if many
        else Kafka(folder, proxy_port=ports[0])
    )
    brokers = server.brokers if isinstance(server, KafkaCluster) else [server]
    with contextlib.ExitStack() as stack:
        stack.enter_context(server)
        proxies = [
            stack.enter_context(Proxy(each.proxied_port, each.proxy_port))
            for each in brokers
        ]
        yield Place(
            name,
            f"Kafka {kafka_version()}, {len(brokers)} broker{'s' * many}",
            server,
            proxies,
            "kafka://" + ",".join(proxy.address for proxy in proxies),
            None,
            {**COMMON, **_KAFKA},
            ordered=True,
        )


@contextlib.contextmanager
def _sentinel(name: str, folder: pathlib.Path) -> Iterator[Place]:
    """No proxy: sentinels name the servers' own addresses."""
    with RedisSentinel(folder, {"appendfsync": "always"}) as server:
        with server.servers[0].client() as client:
            version = client.info("server")["redis_version"]
        streams = name == "sentinel-streams"
        yield Place(
            name,
            f"Redis {version} with a replica, {'Streams' if streams else 'lists'}",
            server,
            [],
            server.url.replace("sentinel:", f"{name}:", 1),
            None,
            {
                **COMMON,
                "LEASE": fault.LEASE,
                "TRANSPORT_OPTIONS": {"master_name": SENTINEL_NAME},
            },
        )


_Opened = Callable[[str, pathlib.Path], contextlib.AbstractContextManager[Place]]

#: How each is opened, by its name, and which server it needs.
PLACES: dict[str, tuple[_Opened, type[Server]]] = {
    "quorum": (_rabbitmq, RabbitMQ),
    "classic": (_rabbitmq, RabbitMQ),
    "redis": (_redis, Redis),
    "streams": (_redis, Redis),
    "kafka": (_kafka, Kafka),
    "cluster": (_kafka, Kafka),
    "sentinel": (_sentinel, Redis),
    "sentinel-streams": (_sentinel, Redis),
}


def opened(name: str, folder: pathlib.Path) -> contextlib.AbstractContextManager[Place]:
    """Start the broker of that name in a folder, for the length of a block."""
    return PLACES[name][0](name, folder)
