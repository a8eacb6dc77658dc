"""One probe finds that the broker is back, for all subscriptions that pause."""

from __future__ import annotations

import itertools
import typing as t

import gevent
import pytest
from gevent.event import Event

from flask_qconsume.running import connection_loop
from flask_qconsume.running.backoff import Backoff
from flask_qconsume.running.reconnect import BrokerProbe

from ..servers import Kafka
from ..servers import RabbitMQ
from ..servers import Redis
from ..servers import RedisCluster
from ..servers import Vhost
from ..waiting import wait_for
from .conftest import AppWithWorkers
from .outage import play_outages

#: Seconds longer than any test: a wait for it that ends is a failure.
LONG = 3600.0


class Port:
    """A port that answers or does not, as the test says."""

    def __init__(self) -> None:
        self.answers = False
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.answers

    def await_looks(self, number: int) -> None:
        wanted = self.asked + number
        wait_for(lambda: self.asked >= wanted)


@pytest.fixture
def port() -> Port:
    return Port()


def probe_at(port: t.Callable[[], bool]) -> BrokerProbe:
    return BrokerProbe(port, interval=0.001, spread=0.001)


def test_pauses_end_when_the_broker_is_back(port: Port) -> None:
    probe = probe_at(port)
    waiting = [gevent.spawn(probe.pause, Event(), LONG) for _ in range(50)]
    port.await_looks(3)
    assert not any(one.dead for one in waiting)
    port.answers = True
    gevent.joinall(waiting, timeout=10, raise_error=True)
    assert [one.value for one in waiting] == [True] * 50


def test_a_broker_that_answers_and_refuses_is_not_flooded(port: Port) -> None:
    port.answers = True
    probe = probe_at(port)
    waiting = gevent.spawn(probe.pause, Event(), LONG)
    port.await_looks(20)
    assert not waiting.dead
    waiting.kill()


def test_an_outage_is_remembered_from_one_pause_to_the_next(port: Port) -> None:
    probe = probe_at(port)
    first = gevent.spawn(probe.pause, Event(), LONG)
    port.await_looks(2)
    first.kill()
    port.answers = True
    assert probe.pause(Event(), LONG) is True
    # The same return ends pauses only once.
    second = gevent.spawn(probe.pause, Event(), LONG)
    port.await_looks(5)
    assert not second.dead
    second.kill()


def test_a_pause_ends_by_itself_and_by_a_stop(port: Port) -> None:
    probe = probe_at(port)
    assert probe.pause(Event(), 0.01) is False
    over = Event()
    waiting = gevent.spawn(probe.pause, over, LONG)
    port.await_looks(1)
    over.set()
    assert waiting.get(timeout=10) is False


def test_a_stop_ends_the_jitter_too(port: Port) -> None:
    probe = BrokerProbe(port, interval=0.001, spread=LONG, random=lambda: 1.0)
    over = Event()
    waiting = gevent.spawn(probe.pause, over, LONG)
    port.await_looks(2)
    port.answers = True
    port.await_looks(1)
    assert not waiting.dead
    over.set()
    assert waiting.get(timeout=10) is False


def test_one_probe_serves_all_pauses_and_ends_with_the_last(port: Port) -> None:
    probe = probe_at(port)
    waiting = [gevent.spawn(probe.pause, Event(), LONG) for _ in range(20)]
    port.await_looks(1)
    looking = probe._probing
    port.await_looks(3)
    assert probe._probing is looking is not None
    gevent.killall(waiting)
    looking.join(timeout=10)
    assert looking.dead


def test_a_probe_that_fails_changes_nothing() -> None:
    numbers = itertools.count()

    def fails() -> bool:
        next(numbers)
        raise RuntimeError("a mistake")

    probe = probe_at(fails)
    waiting = gevent.spawn(probe.pause, Event(), LONG)
    wait_for(lambda: next(numbers) > 4)
    assert not waiting.dead
    waiting.kill()


# -- with workers ---------------------------------------------------------------------


@pytest.fixture
def long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delays as after many attempts: the next attempt is far away."""
    monkeypatch.setattr(connection_loop, "Backoff", lambda: Backoff(LONG, LONG))


def test_consuming_goes_on_when_the_broker_is_back(
    worker_app: AppWithWorkers, long_pauses: None
) -> None:
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    broker = play_outages(worker_app)
    worker = worker_app.start()
    wait_for(lambda: worker.ready)
    broker.down()
    wait_for(lambda: broker.probed > 2)
    broker.up()
    wait_for(lambda: worker.ready)


def goes_on(worker_app: AppWithWorkers, server: t.Any) -> None:
    """Stop the server and start it: consuming goes on before any pause ends."""
    done: list[t.Any] = []
    worker_app.qconsume.add_consumer("billing", done.append, name="bill")
    worker = worker_app.start()
    wait_for(lambda: worker.ready, 60)
    server.kill()
    wait_for(lambda: not worker.ready, 30)
    wait_for(lambda: not worker_app.consumers.broker.is_reachable(), 30)
    # At least one probe: a broker that was never seen away cannot come back.
    wait_for(lambda: worker._probe._is_away, 30)
    server.start()
    wait_for(lambda: worker.ready, 30)
    worker_app.publish("billing", "after")
    wait_for(lambda: done == ["after"], 30)


@pytest.mark.broker
@pytest.mark.deadline(180)
@pytest.mark.parametrize("layout", ["redis", "redis-streams"])
def test_consuming_goes_on_at_once_on_redis(
    worker_app: AppWithWorkers, own_redis: Redis, layout: str, long_pauses: None
) -> None:
    worker_app.config["QCONSUME_BROKER_URL"] = own_redis.url.replace("redis", layout, 1)
    goes_on(worker_app, own_redis)


@pytest.mark.broker
@pytest.mark.deadline(240)
def test_consuming_goes_on_at_once_on_rabbitmq(
    worker_app: AppWithWorkers,
    own_rabbitmq: RabbitMQ,
    own_rabbitmq_vhost: Vhost,
    long_pauses: None,
) -> None:
    worker_app.config["QCONSUME_BROKER_URL"] = own_rabbitmq_vhost.url
    goes_on(worker_app, own_rabbitmq)


@pytest.mark.broker
@pytest.mark.deadline(300)
def test_a_kafka_consumer_keeps_its_partitions_over_an_outage(
    worker_app: AppWithWorkers, own_kafka: Kafka, long_pauses: None
) -> None:
    """A new member would wait for the end of the old session: two minutes here."""
    done: list[t.Any] = []
    go = Event()

    @worker_app.qconsume.consumer("billing")
    def bill(order: str) -> None:
        go.wait()
        done.append(order)

    worker_app.config |= {
        "QCONSUME_BROKER_URL": own_kafka.url,
        "QCONSUME_LEASE": 120,
        "QCONSUME_TRANSPORT_OPTIONS": {"partitions": 1},
        "QCONSUME_PUBLISH_TIMEOUT": 60,
    }
    worker = worker_app.start()
    wait_for(lambda: worker.ready, 60)
    worker_app.publish("billing", "in hand")
    wait_for(lambda: worker.busy == 1, 60)
    own_kafka.kill()
    wait_for(lambda: not worker.ready, 60)
    # Handled while the broker could not be told.
    go.set()
    wait_for(lambda: done == ["in hand"])
    own_kafka.start()
    wait_for(lambda: worker.ready, 60)
    worker_app.publish("billing", "after")
    wait_for(lambda: done == ["in hand", "after"], 60)
    assert worker.stop() is True
    assert worker_app.consumers.broker.depth("billing") == 0


@pytest.mark.broker
def test_kafka_is_reachable_while_its_port_is_open(
    worker_app: AppWithWorkers, own_kafka: Kafka
) -> None:
    url = own_kafka.url.replace("kafka://", "kafka://127.0.0.1:1,")
    worker_app.config["QCONSUME_BROKER_URL"] = url
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    assert worker_app.consumers.broker.is_reachable()
    own_kafka.kill()
    assert not worker_app.consumers.broker.is_reachable()


@pytest.mark.broker
def test_a_redis_that_refuses_the_password_is_reachable(
    worker_app: AppWithWorkers, own_redis: Redis
) -> None:
    own_redis.command("CONFIG", "SET", "requirepass", "s3cret")
    worker_app.config["QCONSUME_BROKER_URL"] = own_redis.url
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    assert worker_app.consumers.broker.is_reachable()
    worker_app.consumers.close()
    own_redis.kill()
    assert not worker_app.consumers.broker.is_reachable()


@pytest.mark.broker
def test_a_cluster_is_reachable_once_all_its_nodes_are(
    worker_app: AppWithWorkers, redis_cluster: RedisCluster
) -> None:
    worker_app.config["QCONSUME_BROKER_URL"] = redis_cluster.url
    worker_app.qconsume.add_consumer("billing", print, name="bill")
    broker, node = worker_app.consumers.broker, redis_cluster.nodes[0]
    assert broker.is_reachable()
    node.kill()
    assert not broker.is_reachable()
    node.start()
    wait_for(broker.is_reachable, 30)
    worker_app.consumers.close()
