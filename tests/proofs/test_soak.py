"""Memory, threads and files do not grow while connections are cut for a long time."""

from __future__ import annotations

import collections
import gc
import logging
import os
import time
import typing as t
from dataclasses import dataclass

import gevent
import psutil
import pytest
from flask import Flask

from flask_qconsume import BrokerError
from flask_qconsume import QConsume
from flask_qconsume import current_message
from flask_qconsume.running.health.verdict import Verdict
from flask_qconsume.running.worker import Worker

from ..servers.kafka import Kafka
from ..servers.postgresql import Database
from ..servers.rabbitmq import Vhost
from ..servers.redis import Redis
from ..servers.sqlite import SQLiteFile
from ..waiting import spend
from ..waiting import wait_for

#: Seconds between two cuts of connections.
CUT = 3.0


@pytest.fixture(autouse=True)
def unlogged(caplog: pytest.LogCaptureFixture) -> None:
    """Disable logging: pytest keeps log lines in memory, which this test measures."""
    caplog.set_level(logging.CRITICAL, "flask_qconsume")


@dataclass(frozen=True)
class Figures:
    """Figures that must not grow."""

    memory: float
    greenlets: int
    files: int
    connections: int

    @classmethod
    def now(cls, connections: int) -> Figures:
        gc.collect()
        alive = [o for o in gc.get_objects() if isinstance(o, gevent.Greenlet)]
        return cls(
            memory=psutil.Process().memory_info().rss / 2**20,
            greenlets=sum(not greenlet.dead for greenlet in alive),
            files=len(os.listdir("/proc/self/fd")),
            connections=connections,
        )


class Traffic:
    """An app that publishes and consumes its messages in this process."""

    def __init__(self, url: str, lease: float) -> None:
        self.app = Flask("soak")
        self.app.config.update(
            QCONSUME_BROKER_URL=url,
            QCONSUME_PUBLISH_TIMEOUT=5,
            QCONSUME_LEASE=lease,
            QCONSUME_RETRY={"min_delay": 1, "max_delay": 2},
        )
        self._cuts: list[gevent.Greenlet] = []
        #: The latest verdicts of the worker's watchdog.
        self._verdicts: collections.deque[Verdict] = collections.deque(maxlen=3)
        #: Published numbers, until they are handled. The set stays small, so that it
        #: does not distort the measurement.
        self.open: set[int] = set()
        self.confirmed = 0
        self.refused = 0
        qconsume = QConsume(self.app)

        @qconsume.consumer("soak")
        def soak(n: int) -> None:
            if n % 50 == 0 and current_message.attempt == 1:
                raise OSError("once in a while")
            self.open.discard(n)

        self.worker = Worker(self.app)
        self.worker.watchdog.add_outlet(self._verdicts.append)

    def run(self, seconds: float, cut: t.Callable[[], None], every: float) -> None:
        """Publish messages, and cut the connections at intervals."""
        until, next_cut = time.monotonic() + seconds, time.monotonic() + every
        while time.monotonic() < until:
            if time.monotonic() >= next_cut:
                next_cut += every
                cutting = gevent.spawn(cut)
                cutting.link_exception(lambda greenlet: greenlet.get())
                self._cuts.append(cutting)
            self.publish()
            spend(0.001)

    def await_healed(self) -> None:
        """Wait until the last cut is over: all is connected, and a message passes."""
        gevent.joinall(self._cuts, raise_error=True)
        self._cuts.clear()
        self._verdicts.clear()
        fine = [Verdict(live=True, ready=True)] * 3
        wait_for(lambda: list(self._verdicts) == fine, 60)
        wait_for(self.publish, 60)
        self.await_handled()

    def await_handled(self) -> None:
        """Wait until all confirmed messages are handled."""
        wait_for(
            lambda: not self.open,
            timeout=30,
            message=lambda: f"{len(self.open)} of {self.confirmed} not handled",
        )

    def publish(self) -> bool:
        """Publish a message; returns whether it was confirmed."""
        n = self.confirmed + self.refused
        self.open.add(n)
        try:
            self.app.extensions["qconsume"].publish("soak", n)
        except BrokerError:
            self.refused += 1
            self.open.discard(n)
            return False
        self.confirmed += 1
        return True


@pytest.mark.deadline(1500)
@pytest.mark.parametrize(
    ("warm", "seconds"), [(5, 10), pytest.param(60, 600, marks=pytest.mark.long)]
)
@pytest.mark.may_leak("gevent keeps its threadpool for look-ups of host names")
def test_nothing_grows_on_rabbitmq(
    own_rabbitmq_vhost: Vhost, warm: int, seconds: int
) -> None:
    server = own_rabbitmq_vhost.server

    def connections() -> int:
        rows = server.ctl_json("list_channels", "vhost")
        return sum(row["vhost"] == own_rabbitmq_vhost.name for row in rows)

    figures = _soak(
        own_rabbitmq_vhost.url,
        own_rabbitmq_vhost.close_connections,
        connections,
        (warm, seconds),
    )

    _same(*figures)


@pytest.mark.deadline(1500)
@pytest.mark.parametrize(
    ("warm", "seconds"), [(5, 10), pytest.param(60, 600, marks=pytest.mark.long)]
)
@pytest.mark.may_leak("gevent keeps its threadpool for look-ups of host names")
@pytest.mark.parametrize("scheme", ["redis:", "redis-streams:"])
def test_nothing_grows_on_redis(
    own_redis: Redis, scheme: str, warm: int, seconds: int
) -> None:
    def cut() -> None:
        own_redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def connections() -> int:
        return int(str(own_redis.command("CLIENT", "LIST")).count("id=")) - 1

    _same(
        *_soak(
            own_redis.url.replace("redis:", scheme), cut, connections, (warm, seconds)
        )
    )


@pytest.mark.long
@pytest.mark.deadline(900)
@pytest.mark.may_leak("gevent keeps its threadpool for look-ups of host names")
def test_nothing_grows_on_kafka(own_kafka: Kafka) -> None:
    """Cut Kafka's connections by killing it, for some seconds each time."""

    def cut() -> None:
        if own_kafka.running:
            own_kafka.kill()
            own_kafka.start()

    def connections() -> int:
        found = psutil.Process().net_connections("tcp")
        return sum(each.raddr[1:] == (own_kafka.port,) for each in found)

    _same(*_soak(own_kafka.url, cut, connections, (40, 120), every=20.0, lease=6))


@pytest.mark.long
@pytest.mark.deadline(900)
@pytest.mark.may_leak("gevent keeps its threadpool for look-ups of host names")
def test_nothing_grows_on_postgresql(own_postgresql_database: Database) -> None:
    def connections() -> int:
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        server = own_postgresql_database.server
        return int(server.execute(count, own_postgresql_database.name)[0][0])

    cut = own_postgresql_database.terminate_connections
    _same(*_soak(own_postgresql_database.url, cut, connections, (40, 120)))


@pytest.mark.long
@pytest.mark.deadline(900)
def test_nothing_grows_on_sqlite(sqlite_file: SQLiteFile) -> None:
    """Another program locks the file for half a second, again and again."""

    def lock() -> None:
        with sqlite_file.frozen(seconds=0.5):
            pass

    def connections() -> int:
        opened = [each.path for each in psutil.Process().open_files()]
        return sum(path.startswith(str(sqlite_file.path)) for path in opened)

    _same(*_soak(sqlite_file.url, lock, connections, (40, 120)))


def _soak(
    url: str,
    cut: t.Callable[[], None],
    connections: t.Callable[[], int],
    lengths: tuple[float, float],
    every: float = CUT,
    lease: float = 60,
) -> tuple[Figures, Figures]:
    traffic = Traffic(url, lease)
    traffic.worker.start()
    try:
        traffic.run(lengths[0], cut, every)
        traffic.await_healed()
        before = Figures.now(connections())
        traffic.run(lengths[1], cut, every)
        traffic.await_healed()
        after = Figures.now(connections())
    finally:
        traffic.worker.stop()
    print(
        f"{lengths[1]} s, a cut every {every:g} s, {traffic.confirmed} confirmed,"
        f" {traffic.refused} refused\n  before {before}\n  after  {after}"
    )
    return before, after


def _same(before: Figures, after: Figures) -> None:
    assert after.greenlets <= before.greenlets + 1
    assert after.files <= before.files + 2
    assert after.connections <= before.connections + 1
    assert after.memory <= before.memory * 1.1 + 2
