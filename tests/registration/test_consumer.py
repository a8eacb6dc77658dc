"""What a decorator takes, and what it refuses, naming what is wrong."""

from __future__ import annotations

import functools
import typing as t

import kombu
import pytest
from marshmallow import Schema
from marshmallow import fields

from flask_qconsume import ConsumerBlueprint
from flask_qconsume import QConsume
from flask_qconsume import RegistrationError
from flask_qconsume import RetryPolicy
from flask_qconsume.registration.consumer import is_kombu_queue
from tests.apps import consumers
from tests.apps import make_app


def handler(body: t.Any) -> None: ...


async def coroutine(body: t.Any) -> None: ...


def generator(body: t.Any) -> t.Iterator[None]:
    yield


async def agenerator(body: t.Any) -> t.AsyncIterator[None]:
    yield


class Order(Schema):
    id = fields.Int()


def registered(**options: t.Any) -> t.Any:
    qconsume = QConsume()
    qconsume.add_consumer(**{"queue": "q", "handler": handler, **options})
    (consumer,) = consumers(make_app(qconsume)).values()
    return consumer


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "a.b"}, "The consumer's name 'a.b' must be a text without a dot"),
        ({"name": 5}, "The consumer's name '5' must be a text"),
        ({"handler": functools.partial(handler)}, "Give another one by 'name='"),
        ({"handler": 5, "name": "x"}, "must be a function of one argument, the body"),
        ({"handler": coroutine}, "is an 'async def'"),
        ({"handler": functools.partial(coroutine), "name": "x"}, "is an 'async def'"),
        ({"handler": generator}, "has a 'yield'"),
        ({"handler": agenerator}, "has a 'yield'"),
        ({"handler": lambda: None}, "must take one positional argument, the body"),
        ({"handler": lambda a, b: None}, "must take one positional argument, the body"),
        ({"handler": lambda *, a: None}, "must take one positional argument, the body"),
        ({"queue": ""}, "must have a name of 1 to 200 bytes"),
        ({"queue": "x" * 201}, "must have a name of 1 to 200 bytes"),
        ({"queue": "ü" * 101}, "must have a name of 1 to 200 bytes"),
        ({"queue": "amq.gen-5"}, "does not begin with 'amq.'"),
        ({"queue": 5}, "must be a name or a kombu.Queue, not '5'"),
        ({"queue": None}, "must be a name or a kombu.Queue"),
        ({"queue": handler}, "Was the decorator used without its arguments?"),
        ({"queue": kombu.Queue()}, "has no name"),
        (
            {"queue": kombu.Queue("q"), "routing_key": "x"},
            "has a kombu.Queue, which is used as given",
        ),
        ({"routing_key": ""}, "The routing key '' of the consumer 'handler'"),
        ({"routing_key": "x" * 256}, "of 1 to 255 bytes"),
        ({"routing_key": [5]}, "The routing key '5'"),
        ({"routing_key": []}, "has an empty list of routing keys"),
        ({"schema": 5}, "or a protobuf message class, not '5'"),
        ({"schema": dict}, "must be a marshmallow Schema"),
        ({"concurrency": 0}, "'concurrency' of the consumer 'handler' cannot be '0'"),
        ({"concurrency": "5"}, "'concurrency' of the consumer 'handler' cannot be"),
        (
            {"ordering": "keys"},
            "cannot be 'keys': it must be one of: none, key, partition.",
        ),
        ({"prefetch": True}, "'prefetch' of the consumer 'handler' cannot be 'True'"),
        ({"timeout": 0}, "'timeout' of the consumer 'handler' cannot be '0'"),
        ({"timeout": float("inf")}, "'timeout' of the consumer 'handler' cannot be"),
        (
            {"retry": 3},
            "'retry' of the consumer 'handler' cannot be '3': write"
            ' {"max_attempts": 3}.',
        ),
        (
            {"retry": False},
            "'retry' of the consumer 'handler' cannot be 'False': write"
            ' {"max_attempts": 1}.',
        ),
        ({"retry": 0}, "cannot be '0': write {\"max_attempts\": 1}."),
        ({"retry": -1}, "cannot be '-1': write {\"max_attempts\": 1}."),
        ({"retry": True}, "cannot be 'True': write {\"max_attempts\": 6}."),
        (
            {"retry": {"max_attempts": 0}},
            "must be a whole number from 1 up (1 means no retries), not '0'.",
        ),
        (
            {"retry": {"min_delay": "5s"}},
            "'min_delay' must be a number of seconds from 0 to 604800, or a timedelta",
        ),
        (
            {"timeout": "5m"},
            "'timeout' of the consumer 'handler' cannot be '5m': write a number of"
            " seconds, such as 300, or a timedelta.",
        ),
        (
            {"concurrency": "10"},
            "'concurrency' of the consumer 'handler' cannot be '10': write a whole"
            " number, without quotes or a unit.",
        ),
        (
            {"routing_key": 5},
            "The routing key '5' of the consumer 'handler' must be a text or a list",
        ),
        ({"retry": {"tries": 5}}, "A retry policy has no 'tries'"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, t.Any], said: str) -> None:
    with pytest.raises(RegistrationError) as caught:
        registered(**options)
    assert said in str(caught.value)


def test_a_decorator_without_its_arguments_is_refused() -> None:
    with pytest.raises(RegistrationError, match="used without its arguments"):
        QConsume().consumer(handler)(handler)


@pytest.mark.parametrize(
    "function",
    [handler, print, lambda body, more=None: None, lambda *bodies: None, dict],
)
def test_anything_callable_with_a_body_will_do(function: t.Any) -> None:
    assert registered(handler=function, name="x").handler is function


def test_a_method_is_a_handler() -> None:
    class Biller:
        def bill(self, body: t.Any) -> None: ...

    consumer = registered(handler=Biller().bill)
    assert consumer.name == "bill"


def test_the_decorators_return_the_function_unchanged() -> None:
    blueprint = ConsumerBlueprint("orders", __name__)
    for decorator in (
        blueprint.consumer("q"),
        blueprint.before_message,
        blueprint.after_message,
        blueprint.teardown_message,
        blueprint.before_worker,
        blueprint.teardown_worker,
        blueprint.message_errorhandler(ValueError),
    ):
        assert decorator(handler) is handler


def test_a_consumer_without_options_has_the_defaults() -> None:
    consumer = registered()
    assert (consumer.name, consumer.queue) == ("handler", "q")
    assert consumer.routing_keys == ("q",)
    assert (consumer.concurrency, consumer.prefetch, consumer.timeout) == (10, 20, 600)
    assert consumer.retry == RetryPolicy()
    assert consumer.enabled
    assert consumer.schema is None


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ("order.*", ("order.*",)),
        (["a", "b", "a"], ("a", "b")),
        (("#",), ("#",)),
    ],
)
def test_routing_keys_are_one_or_many(given: t.Any, keys: tuple[str, ...]) -> None:
    assert registered(routing_key=given).routing_keys == keys


def test_a_schema_class_is_made_an_instance() -> None:
    instance = Order()
    assert isinstance(registered(schema=Order).schema, Order)
    assert registered(schema=instance).schema is instance


def test_a_kombu_queue_is_used_as_given() -> None:
    queue = kombu.Queue("theirs", kombu.Exchange("events", "topic"), "order.#")
    consumer = registered(queue=queue)
    assert consumer.given is queue
    assert consumer.queue == "theirs"
    assert consumer.routing_keys == ()
    assert is_kombu_queue(queue)
    assert not is_kombu_queue("theirs")


def test_a_subclass_of_kombus_queue_is_one_too() -> None:
    class Own(kombu.Queue):  # type: ignore[misc]
        pass

    assert registered(queue=Own("theirs")).queue == "theirs"


@pytest.mark.parametrize("hook", [None, 5, "x"])
@pytest.mark.parametrize("kind", ["before_message", "teardown_worker"])
def test_a_hook_must_be_a_function(kind: str, hook: t.Any) -> None:
    with pytest.raises(RegistrationError, match=f"'{kind}' takes a function"):
        getattr(QConsume(), kind)(hook)


@pytest.mark.parametrize("error", [ValueError(), "ValueError", int, None, handler])
def test_an_error_handler_is_for_a_class(error: t.Any) -> None:
    with pytest.raises(RegistrationError, match="takes an exception class"):
        QConsume().message_errorhandler(error)(handler)


def test_a_name_is_taken_once_in_a_scope() -> None:
    qconsume = QConsume()
    qconsume.add_consumer("one", handler)
    with pytest.raises(RegistrationError, match="There is a consumer 'handler' alread"):
        qconsume.add_consumer("two", handler)
    qconsume.add_consumer("two", handler, name="another")
