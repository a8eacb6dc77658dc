"""An app that publishes while its broker is away, hangs, or is short of memory."""

from __future__ import annotations

import contextlib
import http.client
import time
import typing as t

import flask
import gevent
import pytest

from flask_qconsume import BrokerAway
from flask_qconsume import BrokerUnavailable
from flask_qconsume import PublishTimeout
from flask_qconsume import QConsume
from flask_qconsume.running.sockets import listen
from flask_qconsume.running.web import WebServer

from .apps import make_app
from .servers import RabbitMQ
from .servers import Server
from .servers import Vhost
from .servers.fixtures import require
from .waiting import wait_for

#: Long beside what a machine that is busy takes, short beside a test's deadline.
TIMEOUT, AWAY_AFTER = 3.0, 1.0

PLACES = ["rabbitmq", "redis", "redis-streams", "kafka", "postgresql"]


class Place(t.NamedTuple):
    """A server that a test may freeze and stop, and the URL of an app there."""

    server: Server
    url: str


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    kind, _, layout = request.param.partition("-")
    require(f"own_{kind}")
    server: Server = request.getfixturevalue(f"own_{kind}")
    if kind == "rabbitmq":
        return Place(server, request.getfixturevalue("own_rabbitmq_vhost").url)
    if kind == "postgresql":
        return Place(server, request.getfixturevalue("own_postgresql_database").url)
    return Place(
        server, server.url.replace("redis:", "redis-streams:" if layout else "redis:")
    )


class Site:
    """An app with one consumer, and a view that publishes."""

    def __init__(self, url: str, **config: t.Any) -> None:
        qconsume = QConsume()
        qconsume.add_consumer("billing", print, name="bill")
        keys = {"publish_timeout": TIMEOUT, "away_after": AWAY_AFTER, **config}
        self.app = make_app(qconsume, broker_url=url, **keys)
        self.consumers = self.app.extensions["qconsume"]
        self.app.add_url_rule("/", view_func=self._order)
        for kind in (BrokerUnavailable, PublishTimeout):
            self.app.register_error_handler(kind, self._later)

    def publish(self) -> Exception | None:
        """Publish one message; what was raised, if anything was."""
        try:
            self.consumers.publish("billing", {"id": 1})
        except Exception as error:
            return error
        return None

    def crowd(self, number: int) -> list[Exception | None]:
        """So many publish at once; what became of each."""
        crowd = [gevent.spawn(self.publish) for _ in range(number)]
        gevent.joinall(crowd, raise_error=True)
        return [one.value for one in crowd]

    def _order(self) -> str:
        self.consumers.publish("billing", {"id": 1})
        return "queued"

    @staticmethod
    def _later(error: t.Any) -> t.Any:
        return type(error).__name__, 503, {"Retry-After": str(error.retry_after)}


@contextlib.contextmanager
def site_at(url: str, **config: t.Any) -> t.Iterator[Site]:
    site = Site(url, **config)
    try:
        yield site
    finally:
        site.consumers.close()


@pytest.mark.broker
@pytest.mark.deadline(240)
def test_publishing_goes_on_when_the_broker_is_back(place: Place) -> None:
    with site_at(place.url) as site:
        wait_for(lambda: site.publish() is None, 60)
        place.server.kill()
        assert all(
            isinstance(e, BrokerUnavailable | PublishTimeout) for e in site.crowd(20)
        )
        assert [type(e) for e in site.crowd(20)].count(BrokerAway) >= 15
        place.server.start()
        wait_for(lambda: site.crowd(20) == [None] * 20, 90)


@pytest.mark.broker
@pytest.mark.deadline(240)
def test_a_process_whose_broker_was_never_there_is_told_in_time(place: Place) -> None:
    """One caller declares the topology first; all other callers wait no longer."""
    place.server.kill()
    with site_at(place.url) as site:
        began = time.monotonic()
        assert not any(error is None for error in site.crowd(50))
        assert time.monotonic() - began < 5 * TIMEOUT
        place.server.start()
        wait_for(lambda: site.publish() is None, 90)


@pytest.mark.broker
@pytest.mark.deadline(120)
def test_the_first_publish_waits_no_longer_than_a_broker_counts_as_there(
    place: Place,
) -> None:
    """A view whose broker is down answers sooner than one that awaits an answer."""
    place.server.kill()
    with site_at(place.url, publish_timeout=60.0) as site:
        began = time.monotonic()
        assert all(isinstance(e, BrokerUnavailable) for e in site.crowd(5))
        assert time.monotonic() - began < 30
        assert site.app.test_client().get("/").status_code == 503


@pytest.mark.broker
@pytest.mark.deadline(120)
def test_an_alarm_of_rabbitmqs_is_waited_for_and_then_told(
    own_rabbitmq: RabbitMQ, own_rabbitmq_vhost: Vhost
) -> None:
    with site_at(own_rabbitmq_vhost.url) as site:
        wait_for(lambda: site.publish() is None, 60)
        with own_rabbitmq.memory_alarm():
            began = time.monotonic()
            errors = site.crowd(20)
            assert time.monotonic() - began >= TIMEOUT
            assert {type(error) for error in errors} == {PublishTimeout}
            # RabbitMQ reports the alarm once a client publishes.
            wait_for(lambda: "alarm" in str(site.publish()), 30)
            away = [error for error in site.crowd(20) if type(error) is BrokerAway]
            assert len(away) >= 15
            assert "short of memory" in str(away[0])
        wait_for(lambda: site.publish() is None, 60)


@pytest.mark.broker
@pytest.mark.deadline(240)
def test_no_request_piles_up_behind_a_broker_that_hangs(place: Place) -> None:
    """Each of two hundred at once gets an answer; the second time, at once."""
    with site_at(place.url) as site, served(site.app) as address:
        wait_for(lambda: answers(address, 1) == [(200, "queued")], 60)
        with place.server.frozen():
            began = time.monotonic()
            first = answers(address, 200)
            assert time.monotonic() - began < 10 * TIMEOUT
            assert {status for status, _ in first} == {503}
            later = answers(address, 200)
            assert {status for status, _ in later} == {503}
            # They try one after the other, and most are told at once.
            at_once = [kind for _, kind in later if kind.startswith("BrokerAway")]
            assert len(at_once) >= 150
        wait_for(lambda: answers(address, 20) == [(200, "queued")] * 20, 60)


@contextlib.contextmanager
def served(app: flask.Flask) -> t.Iterator[tuple[str, int]]:
    """Where the app is served."""
    listener = listen("127.0.0.1:0")
    web = WebServer(app, listener)
    web.start()
    try:
        yield listener.getsockname()
    finally:
        web.stop(0)


def answers(address: tuple[str, int], number: int) -> list[tuple[int, str]]:
    """The statuses, and what else was said, of so many requests at once."""
    asking = [gevent.spawn(ask, address) for _ in range(number)]
    gevent.joinall(asking, raise_error=True)
    return [one.value for one in asking]


def ask(address: tuple[str, int]) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*address, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        response = connection.getresponse()
        said = response.read().decode()
        again = response.getheader("Retry-After")
        return response.status, f"{said} after {again} s" if again else said
