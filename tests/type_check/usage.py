"""What users write, for a type checker to read; nothing here is ever run.

Each ``type: ignore`` is a mistake that the checker must find: where it does not, the
comment itself is an error.
"""

from __future__ import annotations

import typing as t
from datetime import timedelta

from flask import Blueprint
from flask import Flask
from flask import g
from flask import request
from marshmallow import Schema
from marshmallow import fields

from flask_qconsume import Ack
from flask_qconsume import AppConsumers
from flask_qconsume import ConsumerBlueprint
from flask_qconsume import ConsumerOptions
from flask_qconsume import ConsumerScaffold
from flask_qconsume import Drop
from flask_qconsume import Format
from flask_qconsume import Message
from flask_qconsume import Outcome
from flask_qconsume import Protobuf
from flask_qconsume import PublishOptions
from flask_qconsume import QConsume
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume import RetryPolicy
from flask_qconsume import Unroutable
from flask_qconsume import current_message
from flask_qconsume import get_app_consumers
from flask_qconsume import signals
from flask_qconsume.testing.client import TestClient

qconsume = QConsume()
bp = ConsumerBlueprint(
    "orders",
    __name__,
    url_prefix="/orders",
    consumer_defaults={"concurrency": 5, "timeout": timedelta(minutes=1)},
)
defaults: ConsumerOptions = {"retry": {"max_attempts": 2}, "ordering": "key"}
nested = ConsumerBlueprint("nested", __name__, consumer_defaults=defaults)
ConsumerBlueprint(
    "wrong",
    __name__,
    consumer_defaults={"concurency": 5},  # type: ignore[arg-type]
)
ConsumerBlueprint(
    "pages",
    __name__,
    static_folder="static",
    template_folder="templates",
    cli_group=None,
)
ConsumerBlueprint("no_import_name")  # type: ignore[call-arg]
ConsumerBlueprint("wrong", __name__, url_prefx="/")  # type: ignore[call-arg]
ConsumerBlueprint("wrong", __name__, url_prefix=5)  # type: ignore[arg-type]


class OrderSchema(Schema):
    id = fields.Int(required=True)


class CardDeclined(Exception):
    pass


@bp.post("/")
def create() -> tuple[dict[str, str], int]:
    id: str = qconsume.publish("order.created", request.get_json(), delay=5, key="k")
    return {"id": id}, 202


@bp.consumer(
    "billing",
    routing_key=["order.created", "order.#"],
    schema=OrderSchema(),
    retry=RetryPolicy(max_attempts=5, give_up_on=(CardDeclined,)),
    concurrency=10,
    timeout=30,
)
def bill(order: dict[str, t.Any]) -> Outcome | None:
    if current_message.attempt > 3:
        return Reject("too late")
    left: float | None = current_message.remaining
    return Retry(left) if order["id"] else None


queue: t.Any = object()  # A kombu.Queue: kombu itself has no types to check.


@qconsume.consumer(queue, schema=OrderSchema, retry="patient")
def theirs(order: t.Any) -> None:
    raise Drop("not ours")


# The decorators leave a function's type as it is.
billed: Outcome | None = bill({"id": 1})
bill(5)  # type: ignore[arg-type]


@bp.before_message
def load_tenant() -> None:
    g.tenant = current_message.headers["x-tenant"]


@bp.after_message
def note(outcome: Outcome) -> Outcome:
    return outcome


@bp.teardown_message
def clear(error: BaseException | None) -> None:
    g.pop("tenant", None)


@bp.message_errorhandler(CardDeclined)
def declined(error: CardDeclined) -> Outcome:
    return Reject(str(error))


@bp.before_worker
def open_pool() -> None: ...


bp.add_consumer("mail", bill, name="mail", prefetch=5)
bp.add_consumer("mail", bill, concurrency="5")  # type: ignore[arg-type]
bp.add_consumer("mail", bill, ordering="keys")  # type: ignore[arg-type]
bp.add_consumer("mail", bill, schema=5)  # type: ignore[arg-type]
bp.add_consumer("mail", bill, timeout=timedelta(minutes=5), ordering="key")
bp.consumer("mail", unknown=1)  # type: ignore[call-arg]
bp.consumer("mail", timeout="5m")  # type: ignore[arg-type]
bp.consumer(5)  # type: ignore[arg-type]
bp.message_errorhandler(CardDeclined())  # type: ignore[arg-type]
Reject()  # type: ignore[call-arg]
Retry("5")  # type: ignore[arg-type]
Retry(timedelta(minutes=5))
retry_delay: float | None = Retry(timedelta(minutes=5)).delay
RetryPolicy(max_attempts="5")  # type: ignore[arg-type]
RetryPolicy(min_delay="5s")  # type: ignore[arg-type]
RetryPolicy(retry_on=5)  # type: ignore[arg-type]
policy = RetryPolicy(min_delay=timedelta(seconds=5), retry_on="shop.errors.Declined")
min_delay: float = policy.min_delay


class Csv(Format):
    content_types = ("text/csv",)

    def decode(self, message: Message) -> list[str]:
        return message.raw.decode().split(",")

    def encode(self, body: list[str], routing_key: str) -> bytes:
        return ",".join(body).encode()


class Wrong(Format):
    def encode(self, body: t.Any, routing_key: str) -> str:  # type: ignore[override]
        return ""


order_class: t.Any = object  # Of generated code.
qconsume.register_format(Csv())
qconsume.register_format(Protobuf(order_class, header="x-type"))
qconsume.register_format(Csv)  # type: ignore[arg-type]
bp.add_consumer("orders", bill, schema=order_class)


class OwnBlueprint(ConsumerScaffold, Blueprint):
    pass


def create_app() -> Flask:
    app = Flask(__name__)
    qconsume.init_app(app)
    app.register_blueprint(bp)
    app.register_blueprint(OwnBlueprint("own", __name__))
    return app


def test_of_a_user(app: Flask) -> None:
    client: TestClient = qconsume.test_client(app)
    result = client.deliver("orders.bill", {"id": 1}, headers={"x-tenant": "acme"})
    assert result.outcome == Ack()
    delay: float | None = result.next_delay
    keys: list[str] = [message.routing_key for message in result.published]
    print(delay, keys)


def publish(app: Flask) -> None:
    found: AppConsumers = get_app_consumers(app)
    for each in (qconsume, found, get_app_consumers()):
        id: str = each.publish(
            "a",
            1,
            headers={"x-tenant": "acme"},
            key="k",
            delay=timedelta(minutes=5),
            expires=60.5,
            priority=9,
            content_type="text/plain",
            mandatory=False,
            exchange="events",
            id="mine",
        )
        each.publish("a", 1, dealy=5)  # type: ignore[call-arg]
        each.publish("a", 1, delay="5")  # type: ignore[arg-type]
        each.publish("a", 1, priority="high")  # type: ignore[arg-type]
        each.publish("a", 1, headers=["x"])  # type: ignore[arg-type]
        each.publish(5, 1)  # type: ignore[arg-type]
        each.publish("a")  # type: ignore[call-arg]
        each.publish_many("a")  # type: ignore[arg-type]
        print(id)
    name: str = found.consumers["orders.bill"].name
    get_app_consumers("shop")  # type: ignore[arg-type]
    print(name)


def publish_many() -> list[str]:
    options: PublishOptions = {"delay": timedelta(minutes=5), "key": "k"}
    wrong: PublishOptions = {"dealy": 5}  # type: ignore[typeddict-unknown-key]
    print(wrong)
    qconsume.publish_many(("a", n) for n in range(5))
    try:
        return qconsume.publish_many(
            [("a", 1), ("b", 2, {"delay": 5}), ("c", 3, options)]
        )
    except Unroutable as error:
        print([each for each in error.errors if each])
        return []


def heard(sender: Flask, message: Message, **_: t.Any) -> None: ...


signals.message_received.connect(heard)
