"""Names that would stand for two things on a broker are refused before connecting."""

from __future__ import annotations

import typing as t

import kombu
import pytest

from flask_qconsume import ConfigurationError
from flask_qconsume import QConsume
from flask_qconsume import RegistrationError
from flask_qconsume import UnsupportedByBroker
from flask_qconsume.broker.base import Broker
from flask_qconsume.extension import get_app_consumers
from tests.apps import make_app

RABBITMQ = "amqp://nowhere//"
LISTS = "redis://nowhere/0"
STREAMS = "redis-streams://nowhere/0"
KAFKA = "kafka://nowhere:9092"
MEMORY = "memory://"
ALL = (RABBITMQ, LISTS, STREAMS, KAFKA, MEMORY)


def broker(url: str, *queues: t.Any, **config: t.Any) -> Broker:
    """Open the broker of an app that consumes these queues, by consumers a, b, c, …"""
    qconsume = QConsume()
    for name, queue in zip("abcdef", queues, strict=False):
        qconsume.add_consumer(queue, print, name=name)
    return get_app_consumers(make_app(qconsume, broker_url=url, **config)).broker


@pytest.mark.parametrize(
    ("url", "other"),
    [
        *((url, "bill.suspects") for url in ALL),
        *((url, "bill.dead") for url in (RABBITMQ, LISTS, STREAMS, MEMORY)),
        (RABBITMQ, "bill.dead.lock"),
        (RABBITMQ, "qconsume.bindings"),
        (RABBITMQ, "qconsume.wait.8"),
        (RABBITMQ, "qconsume.delay.604800"),
        (LISTS, "bill.leases"),
        (LISTS, "bill.delayed"),
        (LISTS, "bill.suspects.leases"),
        (LISTS, "unacked"),
        (LISTS, "unacked_index"),
        (LISTS, "_kombu.binding.qconsume"),
        (LISTS, "_kombu.binding_permanent.qconsume"),
        (STREAMS, "{bill}.delayed"),
        (STREAMS, "{bill}.priority.3"),
        (STREAMS, "{bill}.suspects.delayed"),
        (STREAMS, "_qconsume.binding.qconsume"),
        (STREAMS, "someone.dead"),
    ],
)
def test_a_name_that_is_taken_is_refused(url: str, other: str) -> None:
    for queues in (["bill", other], [other, "bill"]):
        with pytest.raises(RegistrationError) as caught:
            broker(url, *queues)
        assert "Give the queue another name" in str(caught.value)
    made = broker(url, "bill", "mail")
    made.close()


@pytest.mark.parametrize(
    ("url", "other"),
    [
        # The names are different: those of suspects and dead letters begin with
        # _qconsume.
        (KAFKA, "bill.dead"),
        (KAFKA, "bill.retry.8"),
        (KAFKA, "qconsume.bindings"),
        (RABBITMQ, "bill.leases"),
        (RABBITMQ, "bill.delayed"),
        (RABBITMQ, "other.dead"),
        (RABBITMQ, "qconsume"),
        (LISTS, "qconsume.bindings"),
        (LISTS, "qconsume.wait.8"),
        (LISTS, "bill3"),
        (STREAMS, "bill.delayed"),
        (STREAMS, "unacked"),
        (MEMORY, "bill.delayed"),
    ],
)
def test_a_name_that_is_free_there_is_taken(url: str, other: str) -> None:
    broker(url, "bill", other).close()


def test_the_error_says_which_two_things_it_would_be() -> None:
    with pytest.raises(RegistrationError) as caught:
        broker(RABBITMQ, "bill", "bill.dead", queue_prefix="stage.")
    assert str(caught.value) == (
        "The name 'stage.bill.dead' would stand for two things on RabbitMQ: for the"
        " dead letters of the consumer 'a', and for the queue of the consumer 'b'. Give"
        " the queue another name; or, to consume these dead letters on purpose, give"
        " kombu.Queue('stage.bill.dead', no_declare=True)."
    )


def test_a_prefix_belongs_to_the_name() -> None:
    given = kombu.Queue("bill.suspects")
    broker(RABBITMQ, "bill", given, queue_prefix="stage.").close()
    given = kombu.Queue("stage.bill.suspects")
    with pytest.raises(RegistrationError, match=r"'stage\.bill\.suspects'"):
        broker(RABBITMQ, "bill", given, queue_prefix="stage.")


@pytest.mark.parametrize("url", [LISTS, STREAMS, MEMORY])
def test_dead_letters_that_are_no_queue_cannot_be_consumed(url: str) -> None:
    with pytest.raises(RegistrationError, match="'flask qconsume dead-letters'"):
        broker(url, "bill", kombu.Queue("bill.dead", no_declare=True))


def test_dead_letters_in_a_queue_may_be_consumed_on_purpose() -> None:
    given = kombu.Queue("bill.dead", no_declare=True)
    made = broker(RABBITMQ, "bill", given)
    assert made.topology.queue("bill.dead").dead == "bill.dead.dead"
    # The suspects of a consumer can never be consumed by another consumer.
    with pytest.raises(RegistrationError, match="the suspects of the consumer 'a'"):
        broker(RABBITMQ, "bill", kombu.Queue("bill.suspects", no_declare=True))


def test_kafka_does_not_tell_a_dot_from_an_underscore() -> None:
    with pytest.raises(RegistrationError, match=r"does not tell '\.' from '_'"):
        broker(KAFKA, "order.created", "order_created")
    broker(LISTS, "order.created", "order_created").close()


@pytest.mark.parametrize(
    ("url", "beside"),
    [
        (RABBITMQ, ("s.bill.suspects", "s.bill.dead")),
        (LISTS, ("s.bill.suspects", "s.bill.dead")),
        (STREAMS, ("{s.bill}.suspects", "{s.bill}.dead")),
        (KAFKA, ("_qconsume.s.bill.suspects", "_qconsume.s.bill.dead")),
    ],
)
def test_what_is_beside_a_queue_is_told_as_it_is_called_there(
    url: str, beside: tuple[str, str]
) -> None:
    made = broker(url, "bill", queue_prefix="s.")
    (plan,) = made.topology.queues
    assert made.companion_names(plan) == beside


# -- names that brokers do not allow
# ----------------------------------------------------


def test_rabbitmq_has_no_longer_names_than_255_bytes() -> None:
    long = kombu.Queue("q" * 250)
    with pytest.raises(RegistrationError, match="the suspects of the consumer 'a', is"):
        broker(RABBITMQ, long)
    with pytest.raises(RegistrationError, match="'QCONSUME_QUEUE_PREFIX'"):
        broker(RABBITMQ, "q" * 100, queue_prefix="é" * 80)
    with pytest.raises(RegistrationError, match="the record of the app's bindings"):
        broker(RABBITMQ, "q", exchange="x" * 250)
    broker(RABBITMQ, kombu.Queue("q" * 245)).close()
    broker(LISTS, long).close()


@pytest.mark.parametrize("name", ["an order", "é", "q" * 240])
def test_kafka_has_no_names_but_its_own(name: str) -> None:
    with pytest.raises(UnsupportedByBroker, match="cannot be one on Kafka"):
        broker(KAFKA, name[:200] if len(name) < 9 else kombu.Queue(name))


def test_what_separates_the_parts_of_a_binding_is_in_no_name() -> None:
    options = {"sep": ":"}
    with pytest.raises(RegistrationError, match="stands between the parts"):
        broker(LISTS, "shop:bill", transport_options=options)
    broker(LISTS, "shop:bill").close()


BAD = ["a\nb", "a\x00", "a\x1b[2J", "a\udc80", "a\u2028b", "\x7f"]
EXCHANGE = kombu.Exchange("shop", "topic")


@pytest.mark.parametrize("bad", BAD, ids=ascii)
def test_names_that_cannot_be_shown_are_refused_when_they_are_registered(
    bad: str,
) -> None:
    given: list[dict[str, t.Any]] = [
        {"queue": bad},
        {"queue": "q", "name": bad},
        {"queue": "q", "routing_key": bad},
        {"queue": "q", "routing_key": ["fine", bad]},
        {"queue": kombu.Queue(bad)},
        {"queue": kombu.Queue("q", EXCHANGE, bad)},
        {"queue": kombu.Queue("q", kombu.Exchange(bad), "k")},
        {"queue": kombu.Queue("q", bindings=[kombu.binding(EXCHANGE, bad)])},
        {"queue": kombu.Queue("q", bindings=[kombu.binding(kombu.Exchange(bad), "k")])},
    ]
    for one in given:
        with pytest.raises(RegistrationError) as caught:
            QConsume().add_consumer(one.pop("queue"), print, **{"name": "a", **one})
        said = str(caught.value)
        assert said.isprintable()
        assert "cannot be one: it has" in said


@pytest.mark.parametrize(
    "given",
    [
        kombu.Queue("q" * 256),
        kombu.Queue("q", EXCHANGE, "k" * 256),
        kombu.Queue("q", kombu.Exchange("é" * 128), "k"),
        kombu.Queue("q", bindings=[kombu.binding(EXCHANGE, "k" * 256)]),
    ],
)
def test_names_that_no_frame_can_hold_are_refused(given: kombu.Queue) -> None:
    with pytest.raises(RegistrationError, match="is longer than 255 bytes"):
        QConsume().add_consumer(given, print, name="a")


@pytest.mark.parametrize("key", ["QCONSUME_EXCHANGE", "QCONSUME_QUEUE_PREFIX"])
@pytest.mark.parametrize("bad", BAD, ids=ascii)
def test_the_app_s_own_names_can_be_shown(key: str, bad: str) -> None:
    with pytest.raises(ConfigurationError, match="it has"):
        make_app(**{key.removeprefix("QCONSUME_").lower(): bad})


def test_an_exchange_has_a_name() -> None:
    with pytest.raises(ConfigurationError, match="must not be empty"):
        make_app(exchange="")


def test_no_prefix_is_what_rabbitmq_keeps_to_itself() -> None:
    with pytest.raises(ConfigurationError, match=r"keeps 'amq\.' to itself"):
        make_app(queue_prefix="amq.")


@pytest.mark.parametrize("prefix", ["_", "_qcon", "_qconsume.", "_qconsume.x."])
def test_no_prefix_on_kafka_stands_before_retries_and_dead_letters(prefix: str) -> None:
    with pytest.raises(UnsupportedByBroker, match="would read them"):
        broker(KAFKA, "a", queue_prefix=prefix)


def test_a_prefix_that_no_topic_can_have_is_refused_on_kafka() -> None:
    with pytest.raises(UnsupportedByBroker, match="'QCONSUME_QUEUE_PREFIX'"):
        broker(KAFKA, "a", queue_prefix="*.")
    broker(KAFKA, "a", queue_prefix="_staging.").close()


def test_no_given_queue_is_bound_to_the_exchange_of_a_wait_queue() -> None:
    """Its handler would get the delayed messages of other queues."""
    delays = kombu.Exchange("qconsume.delay.8")
    with pytest.raises(RegistrationError, match="Bind the queue to another exchange"):
        broker(RABBITMQ, kombu.Queue("q", delays, routing_key="#"))
    ours = kombu.Exchange("qconsume")
    broker(RABBITMQ, kombu.Queue("q", ours, routing_key="#"), "a").close()
