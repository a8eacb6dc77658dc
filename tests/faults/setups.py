"""Brokers for the faults, each behind proxies, and their configuration."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import typing as t
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

from ..servers import Database
from ..servers import Kafka
from ..servers import KafkaCluster
from ..servers import PostgreSQL
from ..servers import PostgreSQLPair
from ..servers import RabbitMQ
from ..servers import Redis
from ..servers import RedisSentinel
from ..servers import Server
from ..servers import SmallDisk
from ..servers import SQLiteFile
from ..servers import Vhost
from ..servers.kafka import version as kafka_version
from ..servers.ports import HOST
from ..servers.ports import free_port
from ..servers.redis_sentinel import NAME as SENTINEL_NAME
from . import fault
from .proxy import Proxy

#: Configuration of all workers and publishers; keys without ``QCONSUME_``.
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
class BrokerSetup:
    """One running broker, and the proxies in front of it."""

    name: str
    #: Title in reports: ``"RabbitMQ 3.10.8, quorum queues"``.
    title: str
    server: t.Any
    proxies: Sequence[Proxy]
    #: URL of the proxies, to which workers and publishers connect.
    url: str
    vhost: Vhost | None = None
    database: Database | None = None
    #: Further configuration, without ``QCONSUME_``.
    config: dict[str, t.Any] = field(default_factory=dict)
    #: Whether messages of one key must be handled in their order.
    ordered: bool = False


@contextlib.contextmanager
def _open_rabbitmq(name: str, folder: pathlib.Path) -> Iterator[BrokerSetup]:
    with (
        RabbitMQ(folder) as server,
        Proxy(server.port) as proxy,
        server.vhost() as vhost,
    ):
        version = server.ctl("version").strip()
        yield BrokerSetup(
            name,
            f"RabbitMQ {version}, {name} queues",
            server,
            [proxy],
            vhost.url.replace(f"{HOST}:{server.port}", proxy.address),
            vhost,
            config={**COMMON, "QUEUE_TYPE": name},
        )


@contextlib.contextmanager
def _open_redis(name: str, folder: pathlib.Path) -> Iterator[BrokerSetup]:
    # The setting that the documentation asks for, so that a crash loses no message.
    options = {"appendfsync": "always"}
    with Redis(folder, options=options) as server, Proxy(server.port) as proxy:
        with server.client() as client:
            version = client.info("server")["redis_version"]
        scheme = "redis-streams" if name == "streams" else "redis"
        kind = "Streams" if name == "streams" else "lists"
        yield BrokerSetup(
            name,
            f"Redis {version}, {kind}",
            server,
            [proxy],
            f"{scheme}://{proxy.address}/0",
            config={**COMMON, "LEASE": fault.LEASE},
        )


@contextlib.contextmanager
def _open_kafka(name: str, folder: pathlib.Path) -> Iterator[BrokerSetup]:
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
        yield BrokerSetup(
            name,
            f"Kafka {kafka_version()}, {len(brokers)} broker{'s' * many}",
            server,
            proxies,
            "kafka://" + ",".join(proxy.address for proxy in proxies),
            config={**COMMON, **_KAFKA},
            ordered=True,
        )


@contextlib.contextmanager
def _open_sentinel(name: str, folder: pathlib.Path) -> Iterator[BrokerSetup]:
    """Start without a proxy, since sentinels return the servers' own addresses."""
    with RedisSentinel(folder, {"appendfsync": "always"}) as server:
        with server.servers[0].client() as client:
            version = client.info("server")["redis_version"]
        streams = name == "sentinel-streams"
        yield BrokerSetup(
            name,
            f"Redis {version} with a replica, {'Streams' if streams else 'lists'}",
            server,
            [],
            server.url.replace("sentinel:", f"{name}:", 1),
            config={
                **COMMON,
                "LEASE": fault.LEASE,
                "TRANSPORT_OPTIONS": {"master_name": SENTINEL_NAME},
            },
        )


@contextlib.contextmanager
def _open_postgresql(name: str, folder: pathlib.Path) -> Iterator[BrokerSetup]:
    pair = name == "postgresql-pair"
    with (
        PostgreSQLPair(folder) if pair else PostgreSQL(folder) as server,
        Proxy(server.port) as proxy,
        SmallDisk.mounted(megabytes=256) as disk,
        server.database(*[] if pair else [disk]) as database,
    ):
        version = database.execute("SHOW server_version")[0][0].split()[0]
        yield BrokerSetup(
            name,
            f"PostgreSQL {version}{' with a standby' * pair}",
            server,
            [proxy],
            database.url.replace(f"{HOST}:{server.port}", proxy.address),
            database=database,
            config={**COMMON, "LEASE": fault.LEASE},
        )


@contextlib.contextmanager
def _open_sqlite(name: str, folder: pathlib.Path) -> Iterator[BrokerSetup]:
    """Put the file on a disk that can be filled: 256 MB in memory.

    Its log of writes grows to tens of megabytes while a halted worker reads.
    """
    with SmallDisk.mounted(megabytes=256) as disk:
        server = SQLiteFile((disk.folder if disk else folder) / "shop", disk)
        yield BrokerSetup(
            name,
            f"SQLite {sqlite3.sqlite_version}",
            server,
            [],
            server.url,
            config={**COMMON, "LEASE": fault.LEASE},
        )


_Open = Callable[[str, pathlib.Path], contextlib.AbstractContextManager[BrokerSetup]]

#: The function that opens each setup, and the server class that it needs.
SETUPS: dict[str, tuple[_Open, type[Server | SQLiteFile]]] = {
    "quorum": (_open_rabbitmq, RabbitMQ),
    "classic": (_open_rabbitmq, RabbitMQ),
    "redis": (_open_redis, Redis),
    "streams": (_open_redis, Redis),
    "kafka": (_open_kafka, Kafka),
    "cluster": (_open_kafka, Kafka),
    "sentinel": (_open_sentinel, Redis),
    "sentinel-streams": (_open_sentinel, Redis),
    "postgresql": (_open_postgresql, PostgreSQL),
    "postgresql-pair": (_open_postgresql, PostgreSQL),
    "sqlite": (_open_sqlite, SQLiteFile),
}


def open_setup(
    name: str, folder: pathlib.Path
) -> contextlib.AbstractContextManager[BrokerSetup]:
    """Start the broker of that name in a folder, for the length of a block."""
    return SETUPS[name][0](name, folder)
