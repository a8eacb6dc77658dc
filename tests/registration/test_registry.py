"""From what was registered, and the configuration, to the consumers of an app."""

from __future__ import annotations

import typing as t

import kombu
import pytest
from flask import Flask

from flask_qconsume import ConfigurationError
from flask_qconsume import ConsumerBlueprint
from flask_qconsume import QConsume
from flask_qconsume import RegistrationError
from flask_qconsume import RetryPolicy
from flask_qconsume import UnknownConsumer
from flask_qconsume.registration.registry import Registry
from flask_qconsume.registration.registry import find_consumer
from tests.apps import consumers
from tests.apps import make_app


def app_of(declared: dict[str, t.Any], **config: t.Any) -> Flask:
    """An app with the consumer 'bill', and what configuration says."""
    qconsume = QConsume()
    qconsume.add_consumer("billing", print, name="bill", **declared)
    return make_app(qconsume, **config)


POLICIES = {"patient": {"min_delay": 60}, "hasty": {"min_delay": 0}}
PATIENT = RetryPolicy(min_delay=60)
HASTY = RetryPolicy(min_delay=0)


@pytest.mark.parametrize(
    ("option", "default", "declared", "configured", "found"),
    [
        ("concurrency", None, None, None, 10),
        ("concurrency", 4, None, None, 4),
        ("concurrency", 4, 5, None, 5),
        ("concurrency", 4, 5, 6, 6),
        ("concurrency", 4, None, 6, 6),
        ("prefetch", None, None, None, 20),
        ("prefetch", 7, None, None, 7),
        ("prefetch", 7, 8, None, 8),
        ("prefetch", 7, 8, 9, 9),
        ("ordering", None, None, None, "none"),
        ("ordering", "key", None, None, "key"),
        ("ordering", "key", "none", None, "none"),
        ("ordering", "key", "none", "partition", "partition"),
        ("timeout", None, None, None, 600),
        ("timeout", 1, 2, None, 2),
        ("timeout", 1, 2, 3, 3),
        ("retry", {"min_delay": 60}, None, None, PATIENT),
        ("retry", {"min_delay": 60}, "hasty", None, HASTY),
        ("retry", {"min_delay": 60}, HASTY, None, HASTY),
        ("retry", None, {"min_delay": 0}, None, HASTY),
        ("retry", None, {"min_delay": 0}, "patient", PATIENT),
        ("retry", None, "hasty", {"min_delay": 60}, PATIENT),
    ],
)
def test_configuration_beats_the_decorator_which_beats_the_default(
    option: str, default: t.Any, declared: t.Any, configured: t.Any, found: t.Any
) -> None:
    config: dict[str, t.Any] = {"retry_policies": POLICIES, option: default}
    if configured is not None:
        config["consumers"] = {"bill": {option: configured}}
    app = app_of({option: declared}, **config)
    assert getattr(consumers(app)["bill"], option) == found


def test_the_prefetch_is_twice_the_concurrency_wherever_that_is_said() -> None:
    app = app_of({"concurrency": 3}, consumers={"bill": {"concurrency": 5}})
    assert consumers(app)["bill"].prefetch == 10


def test_a_consumer_may_be_switched_off() -> None:
    app = app_of({}, consumers={"bill": {"enabled": False}})
    assert consumers(app)["bill"].enabled is False


def test_the_prefix_is_put_before_queues_of_our_own_only() -> None:
    qconsume = QConsume()
    qconsume.add_consumer("billing", print, name="bill")
    qconsume.add_consumer(kombu.Queue("theirs"), print, name="other")
    found = consumers(make_app(qconsume, queue_prefix="stage."))
    assert [c.queue for c in found.values()] == ["stage.billing", "theirs"]
    # What is published does not know of the prefix.
    assert found["bill"].routing_keys == ("billing",)


def test_an_unknown_consumer_in_the_configuration_is_named() -> None:
    app = app_of({}, consumers={"bil": {"concurrency": 5}})
    with pytest.raises(ConfigurationError) as caught:
        consumers(app)
    assert str(caught.value).startswith(
        "'QCONSUME_CONSUMERS' names the consumer 'bil', which is not registered;"
        " did you mean 'bill'?"
    )


@pytest.mark.parametrize("place", ["declared", "configured"])
def test_an_unknown_policy_is_named_with_those_there_are(place: str) -> None:
    app = app_of(
        {"retry": "patent"} if place == "declared" else {},
        retry_policies=POLICIES,
        consumers={"bill": {"retry": "patent"}} if place == "configured" else None,
    )
    with pytest.raises(ConfigurationError) as caught:
        consumers(app)
    said = str(caught.value)
    assert "The consumer 'bill' wants the retry policy 'patent'" in said
    assert "did you mean 'patient'?" in said
    assert "There are: 'hasty', 'patient'." in said


def test_two_consumers_of_one_queue_are_refused() -> None:
    qconsume = QConsume()
    qconsume.add_consumer("q", print, name="one")
    blueprint = ConsumerBlueprint("orders", __name__)
    blueprint.add_consumer(kombu.Queue("q"), print, name="two")
    with pytest.raises(RegistrationError, match="'one' and 'orders.two' read the same"):
        consumers(make_app(qconsume, blueprint))


def test_one_blueprint_twice_on_one_app_reads_its_queue_twice() -> None:
    blueprint = ConsumerBlueprint("orders", __name__)
    blueprint.add_consumer("q", print, name="bill")
    app = make_app(None, blueprint)
    app.register_blueprint(blueprint, name="again", url_prefix="/again")
    with pytest.raises(RegistrationError, match="'orders.bill' and 'again.bill' read"):
        consumers(app)


def test_an_app_without_consumers_is_fine() -> None:
    assert consumers(make_app()) == {}


def test_the_app_may_be_asked_for_a_consumer_by_name() -> None:
    found = consumers(app_of({}))
    assert find_consumer(found, "bill").queue == "billing"
    with pytest.raises(UnknownConsumer, match="no consumer 'bil'; did you mean 'bill'"):
        find_consumer(found, "bil")
    with pytest.raises(UnknownConsumer, match="There are: none"):
        find_consumer({}, "bill")


def test_worker_hooks_run_in_their_order_and_back() -> None:
    qconsume = QConsume()
    blueprint = ConsumerBlueprint("orders", __name__)
    hooks = [lambda: None for _ in range(8)]
    for number, scope in enumerate([qconsume, blueprint]):
        for hook in hooks[number * 4 : number * 4 + 2]:
            scope.before_worker(hook)
        for hook in hooks[number * 4 + 2 : number * 4 + 4]:
            scope.teardown_worker(hook)
    registry = Registry.of(make_app(qconsume, blueprint))
    assert registry.list_worker_hooks("before") == [*hooks[0:2], *hooks[4:6]]
    assert registry.list_worker_hooks("teardown") == [*hooks[2:4], *hooks[6:8]][::-1]


def test_a_registration_that_comes_too_late_is_refused() -> None:
    qconsume = QConsume()
    blueprint = ConsumerBlueprint("orders", __name__)
    app = make_app(qconsume, blueprint)
    with pytest.raises(RegistrationError, match="the blueprint 'orders' has been reg"):
        blueprint.add_consumer("q", print, name="bill")
    with pytest.raises(RegistrationError, match="'before_message' cannot be called"):
        blueprint.before_message(print)
    with pytest.raises(RegistrationError, match="'message_errorhandler' cannot be"):
        blueprint.message_errorhandler(ValueError)(print)
    qconsume.add_consumer("q", print, name="still")
    assert [*consumers(app)] == ["still"]
    with pytest.raises(RegistrationError, match="are in use already"):
        qconsume.add_consumer("p", print, name="late")


def test_a_blueprint_that_comes_too_late_is_refused() -> None:
    blueprint = ConsumerBlueprint("orders", __name__)
    blueprint.add_consumer("q", print, name="bill")
    app = make_app()
    consumers(app)
    with pytest.raises(RegistrationError, match="'orders' cannot be registered any mo"):
        app.register_blueprint(blueprint)
