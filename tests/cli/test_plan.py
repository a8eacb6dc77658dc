"""`flask qconsume plan`."""

from __future__ import annotations

import dataclasses
import typing as t

import flask
import kombu
import pytest
from click.testing import Result

from flask_qconsume import QConsume
from flask_qconsume.brokers.memory import Memory
from flask_qconsume.cli.plan import _wrap_line
from flask_qconsume.cli.plan import strip_credentials
from flask_qconsume.extension import get_app_consumers

from ..servers.ports import free_port
from .commands import Commands
from .commands import invoke
from .conftest import MakeApp


def unwrap(text: str) -> str:
    return " ".join(text.split())


def test_each_consumer_is_described(make_app: MakeApp) -> None:
    result = invoke(make_app(), "plan")
    assert result.exit_code == 0
    output = unwrap(result.output)
    for words in (
        "memory (memory://)",
        "orders.bill shop:bill",
        "gets 'order.created', 'order.paid' from the exchange 'qconsume'",
        "3 at once in each process, 6 fetched, each for at most 10 min",
        "1 s, 4 s, 16 s, 64 s, 4.3 min (each up to 50% longer), then a dead letter",
        "bill.dead, kept 7 days; after 6 attempts",
        "guarantee All messages, also delayed ones and dead letters, are lost",
    ):
        assert words in output


def test_memory_has_no_suspects_and_no_stale_bindings(make_app: MakeApp) -> None:
    output = invoke(make_app(), "plan").output
    assert "suspects" not in output
    assert "Stale" not in output


def test_a_disabled_consumer_is_marked(make_app: MakeApp) -> None:
    app = make_app(CONSUMERS={"orders.audit": {"enabled": False}})
    assert "disabled" in invoke(app, "plan").output


def test_an_ordering_that_the_broker_cannot_keep_fails(make_app: MakeApp) -> None:
    app = make_app(CONSUMERS={"orders.bill": {"ordering": "key"}})
    result = invoke(app, "plan")
    output = unwrap(result.output)
    assert "ordering one at a time for each key; a retry holds back" in output
    assert "the ordering 'key', which memory cannot keep. Leave 'ordering'" in output
    assert result.exit_code == 1


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_only_stale_bindings_need_a_running_broker(
    make_app: MakeApp, scheme: str
) -> None:
    app = make_app(BROKER_URL=f"{scheme}://127.0.0.1:{free_port()}", PUBLISH_TIMEOUT=2)
    result = invoke(app, "plan")
    assert result.exit_code == 0
    output = unwrap(result.output)
    assert "bill.suspects, handled one by one" in output
    assert "after 6 attempts or 3 crashes of its process" in output
    assert "Stale bindings unknown the broker did not answer:" in output


def test_the_type_of_queues_on_rabbitmq_is_shown(make_app: MakeApp) -> None:
    url = f"amqp://127.0.0.1:{free_port()}"
    app = make_app(BROKER_URL=url, QUEUE_TYPE="classic", PUBLISH_TIMEOUT=2)
    output = invoke(app, "plan").output
    assert "RabbitMQ, classic queues" in output
    assert "bill, classic" in output


def test_missing_features_of_the_broker_are_listed(make_app: MakeApp) -> None:
    url = f"amqp://127.0.0.1:{free_port()}"
    output = unwrap(invoke(make_app(BROKER_URL=url, PUBLISH_TIMEOUT=2), "plan").output)
    assert "RabbitMQ, quorum queues" in output
    assert "priorities not supported by quorum queues" in output
    assert "without tombstones; priorities; delays exact to a second" in output


def test_the_longest_delay_of_a_policy_can_be_kept(make_app: MakeApp) -> None:
    """RabbitMQ's wait queues hold a message for a week at most."""
    retry = {"max_delay": 604_800, "min_delay": 604_800, "jitter": 0}
    url = f"amqp://127.0.0.1:{free_port()}"
    fine = make_app(BROKER_URL=url, RETRY=retry, PUBLISH_TIMEOUT=2)
    assert invoke(fine, "plan").exit_code == 0


class ShortDelays(Memory):
    """A broker that can delay messages for 60 s at most."""

    capabilities = dataclasses.replace(
        Memory.capabilities, broker="Short", max_delay=60.0
    )


def test_a_delay_that_the_broker_cannot_keep_is_refused(make_app: MakeApp) -> None:
    app = make_app()
    consumers = get_app_consumers(app)
    consumers._broker.made = ShortDelays(consumers.settings, consumers.topology)
    result = invoke(app, "plan")
    assert result.exit_code == 1
    assert "orders.bill  shop:bill" in result.output
    assert (
        "Error: The retry policy of the consumer 'orders.bill' waits up to 384 s, and"
        " Short can hold a message back for 60 s at the most." in result.output
    )


def test_a_queue_declared_elsewhere_is_used_as_given() -> None:
    app = flask.Flask(__name__)
    app.config["QCONSUME_BROKER_URL"] = "memory://"
    queue = kombu.Queue(
        "theirs", kombu.Exchange("news"), routing_key="sport", max_priority=9
    )
    QConsume(app).add_consumer(queue, print, name="read")
    output = unwrap(invoke(app, "plan").output)
    assert "priorities 0 to 9, the highest first" in output.partition("How")[0]
    assert "queue theirs, declared elsewhere, used as given" in output
    assert "gets 'sport' from the exchange 'news'" in output
    assert "(as given)" in invoke(app, "list").output


def run_plan(given: kombu.Queue, url: str) -> Result:
    app = flask.Flask(__name__)
    app.config["QCONSUME_BROKER_URL"] = url
    app.config["QCONSUME_PUBLISH_TIMEOUT"] = 2
    QConsume(app).add_consumer(given, print, name="read")
    return invoke(app, "plan")


def test_effects_of_a_given_queue_are_listed() -> None:
    url = f"amqp://127.0.0.1:{free_port()}"
    bound = {"x-overflow": "reject-publish"}
    result = run_plan(kombu.Queue("a", max_length=9, queue_arguments=bound), url)
    assert result.exit_code == 0
    output = unwrap(result.output)
    assert (
        "as given a bound with 'x-overflow': 'reject-publish': a full queue" in output
    )
    assert "'dead_letter_worker_publisher_confirm_timeout'" in output


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("amqp://", {"queue_arguments": {"x-queue-type": "stream"}}),
        ("redis://", {"message_ttl": 5}),
        ("redis-streams://", {"max_length": 5}),
        ("kafka://", {"exclusive": True}),
        ("memory://", {"consumer_arguments": {"x-priority": 5}}),
    ],
)
def test_a_given_queue_that_cannot_be_kept_is_refused(
    url: str, options: dict[str, t.Any]
) -> None:
    address = "" if url == "memory://" else f"127.0.0.1:{free_port()}"
    result = run_plan(kombu.Queue("theirs", **options), url + address)
    assert result.exit_code == 1
    assert "Error: The kombu.Queue of the consumer 'read' has" in result.output


def test_a_url_is_shown_without_its_password() -> None:
    assert (
        strip_credentials("amqp://me:secret@host:5672/shop") == "amqp://host:5672/shop"
    )
    assert strip_credentials("redis://host/0?password=secret") == "redis://host/0"
    assert strip_credentials("memory://") == "memory://"


def test_stale_bindings_are_listed(on_redis: Commands) -> None:
    assert on_redis.run("declare").returncode == 0
    assert "no binding is left over" in on_redis.run("plan").stdout
    shop = on_redis.folder / "shop.py"
    shop.write_text(shop.read_text().replace('"order.paid"', '"order.sent"'))
    output = unwrap(on_redis.run("plan").stdout)
    assert "bill still gets 'order.paid' from the exchange 'qconsume'" in output
    assert "declare --prune" in output


def test_topics_and_groups_have_their_prefix(make_app: MakeApp) -> None:
    app = make_app(BROKER_URL="kafka://nowhere:9092", QUEUE_PREFIX="staging.")
    output = unwrap(invoke(app, "plan").output)
    for words in (
        "queue staging.bill ",
        "gets the topics 'staging.order.created', 'staging.order.paid'",
        "suspects _qconsume.staging.bill.suspects, handled",
        "dead letters _qconsume.staging.bill.dead, kept",
        "gets the topic 'staging.#'",
    ):
        assert words in output


def test_a_long_name_is_separated_from_its_text() -> None:
    assert _wrap_line("staging.orders.billing", "still") == (
        "  staging.orders.billing still"
    )
