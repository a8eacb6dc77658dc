"""The extension, and what it puts into ``app.extensions["qconsume"]``."""

from __future__ import annotations

import sys
import typing as t

import gevent
import kombu
import pytest
from flask import Flask

from flask_qconsume import BrokerUnavailable
from flask_qconsume import ConfigurationError
from flask_qconsume import ConsumerBlueprint
from flask_qconsume import PublishError
from flask_qconsume import QConsume
from flask_qconsume import Unroutable
from flask_qconsume import signals
from flask_qconsume.brokers.memory import Memory
from flask_qconsume.extension import AppConsumers
from flask_qconsume.extension import get_app_consumers
from tests.apps import consumers
from tests.apps import make_app


def depth(app: Flask, queue: str) -> int:
    return get_app_consumers(app).broker.depth(queue)


def shop() -> tuple[QConsume, Flask]:
    qconsume = QConsume()
    qconsume.add_consumer("billing", print, name="bill")
    qconsume.add_consumer("audit", print, name="audit", routing_key="#")
    return qconsume, make_app(qconsume)


def test_an_app_may_be_given_at_once_or_later() -> None:
    for make in (lambda app: QConsume(app), lambda app: QConsume().init_app(app)):
        app = Flask("given")
        app.config["QCONSUME_BROKER_URL"] = "memory://"
        make(app)
        assert isinstance(app.extensions["qconsume"], AppConsumers)


def test_an_app_has_one_extension_only() -> None:
    app = make_app()
    with pytest.raises(RuntimeError, match="has already been registered on this Flask"):
        QConsume().init_app(app)


def test_an_app_without_the_extension_says_what_to_do() -> None:
    app = Flask("bare")
    with pytest.raises(ConfigurationError, match=r"call 'QConsume\(\).init_app\(app\)"):
        get_app_consumers(app)
    with app.app_context(), pytest.raises(ConfigurationError):
        QConsume().publish("x", {})


def test_the_apps_object_is_found_by_the_app_or_in_its_context() -> None:
    app = make_app()
    assert get_app_consumers(app) is app.extensions["qconsume"]
    with app.app_context():
        assert get_app_consumers() is app.extensions["qconsume"]
    with pytest.raises(RuntimeError, match="application context"):
        get_app_consumers()


def test_an_unknown_option_is_refused_with_the_nearest_known() -> None:
    qconsume, app = shop()
    publish: t.Any = qconsume.publish_many
    with app.app_context(), pytest.raises(PublishError) as caught:
        publish([("billing", 1, {"dealy": 5})])
    assert str(caught.value).startswith(
        "'publish' has no option 'dealy'; did you mean 'delay'? It has: content_type,"
    )
    assert depth(app, "billing") == 0


def test_consumers_may_be_there_before_the_extension() -> None:
    app = Flask("early")
    app.config["QCONSUME_BROKER_URL"] = "memory://"
    blueprint = ConsumerBlueprint("orders", __name__)
    blueprint.add_consumer("q", print, name="bill")
    app.register_blueprint(blueprint)
    QConsume(app)
    assert [*consumers(app)] == ["orders.bill"]


def test_publishing_needs_to_know_the_app() -> None:
    with pytest.raises(PublishError, match="needs an app context"):
        QConsume().publish("billing", {})


def test_what_is_published_arrives_in_every_queue_that_is_bound() -> None:
    qconsume, app = shop()
    with app.app_context():
        id = qconsume.publish("billing", {"n": 1})
        ids = qconsume.publish_many([("billing", 2), ("other", 3, {"id": "mine"})])
    assert len(id) == 36
    assert ids[1] == "mine"
    assert depth(app, "billing") == 2
    assert depth(app, "audit") == 3


def test_publishing_works_without_a_context_and_in_any_greenlet() -> None:
    _, app = shop()
    publish = app.extensions["qconsume"].publish
    jobs = [gevent.spawn(publish, "billing", n) for n in range(20)]
    gevent.joinall(jobs, raise_error=True)
    assert len({job.value for job in jobs}) == 20
    assert depth(app, "billing") == 20


def test_nothing_is_opened_before_it_is_used() -> None:
    app = make_app(broker_url="amqp://nobody.invalid//")
    app.extensions["qconsume"].close()
    assert app.extensions["qconsume"].consumers == {}


def test_the_broker_is_made_once() -> None:
    _, app = shop()
    found = app.extensions["qconsume"]
    assert isinstance(found.broker, Memory)
    assert found.broker is found.broker
    found.close()
    found.publish("billing", 1)


@pytest.mark.parametrize("url", ["sqs://h", "http://h", "nonsense"])
def test_an_unknown_broker_is_named_with_those_there_are(url: str) -> None:
    with pytest.raises(ConfigurationError, match="which means no known broker") as e:
        make_app(broker_url=url)
    assert "memory" in str(e.value)


def test_a_broker_whose_package_is_missing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What Python does where a module cannot be imported.
    monkeypatch.setitem(sys.modules, "flask_qconsume.brokers.redis_lists", None)
    app = make_app(broker_url="redis://localhost")
    with pytest.raises(ConfigurationError, match=r"'Flask-QConsume\[redis\]'"):
        app.extensions["qconsume"].broker  # noqa: B018


def test_an_unroutable_message_is_an_error_unless_it_may_be() -> None:
    app = make_app()
    publish = app.extensions["qconsume"].publish
    with pytest.raises(Unroutable, match="bound to the exchange 'qconsume'"):
        publish("nobody", {})
    assert publish("nobody", {}, mandatory=False)
    with pytest.raises(Unroutable, match="There is no queue 'nobody'"):
        publish("nobody", {}, exchange="")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (("billing",), "Message 1 of 'publish_many' must be a tuple"),
        (("billing", 1, {}, {}), "Message 1 of 'publish_many' must be a tuple"),
        ("ab", "and is a 'str' that does not fit"),
        (None, "and is a 'NoneType' that does not fit"),
        (("billing", 1, ["delay"]), 'must be a mapping, such as {"delay": 60}, not'),
    ],
)
def test_publish_many_refuses_what_is_no_message_before_it_sends_any(
    message: t.Any, said: str
) -> None:
    _, app = shop()
    with pytest.raises(PublishError) as caught:
        get_app_consumers(app).publish_many([("billing", 1), message])
    assert said in str(caught.value)
    assert depth(app, "billing") == 0


def test_publish_many_says_of_each_message_what_became_of_it() -> None:
    qconsume = QConsume()
    qconsume.add_consumer("billing", print, name="bill")
    app = make_app(qconsume)
    with pytest.raises(Unroutable) as caught:
        app.extensions["qconsume"].publish_many([("billing", 1), ("x", 2), ("y", 3)])
    first, second, third = caught.value.errors
    assert first is None
    assert second is caught.value
    assert isinstance(third, Unroutable)
    assert depth(app, "billing") == 1


class Unreachable(Memory):
    """The memory broker in an outage."""

    def publish(self, messages: t.Any, timeout: float) -> list[Exception | None]:
        return [BrokerUnavailable("nobody listens") for _ in messages]


def test_an_outage_is_raised_as_what_it_is() -> None:
    _, app = shop()
    found = app.extensions["qconsume"]
    found._broker.made = Unreachable(found.settings, found.topology)
    heard: list[t.Any] = []
    hearing = signals.message_published.connected_to(heard.append, app)
    with hearing, pytest.raises(BrokerUnavailable, match="nobody listens"):
        found.publish("billing", 1)
    assert heard == []


def test_a_message_that_cannot_be_written_keeps_all_from_being_sent() -> None:
    _, app = shop()
    with pytest.raises(PublishError, match="cannot be written as application/json"):
        app.extensions["qconsume"].publish_many([("billing", 1), ("billing", object())])
    assert depth(app, "billing") == 0


def test_a_signal_tells_of_each_message_that_was_confirmed() -> None:
    _, app = shop()
    heard: list[str] = []

    def hear(sender: t.Any, message: t.Any) -> None:
        assert sender is app
        heard.append(message.routing_key)

    with signals.message_published.connected_to(hear, app):
        app.extensions["qconsume"].publish_many([("billing", 1), ("other", 2)])
    assert heard == ["billing", "other"]


def test_another_exchange_may_be_named_or_given() -> None:
    qconsume = QConsume()
    events = kombu.Exchange("events", "topic")
    qconsume.add_consumer(kombu.Queue("theirs", events, "order.#"), print, name="x")
    app = make_app(qconsume)
    publish = app.extensions["qconsume"].publish
    publish("order", 1, exchange=events)
    publish("order.created", 1, exchange="events")
    publish("theirs", 1, exchange="")
    assert depth(app, "theirs") == 3
    with pytest.raises(Unroutable):
        publish("order", 1)


def test_diverted_messages_go_nowhere_else() -> None:
    _, app = shop()
    found = app.extensions["qconsume"]
    outer: list[t.Any] = []
    inner: list[t.Any] = []
    with found.capture_published(outer.append):
        found.publish("a", 1)
        with found.capture_published(inner.append):
            found.publish("b", 1)
        found.publish("c", 1)
    assert [m.routing_key for m in outer] == ["a", "c"]
    assert [m.routing_key for m in inner] == ["b"]
    assert depth(app, "audit") == 0
    found.publish("d", 1)
    assert depth(app, "audit") == 1
