"""Options that the consumers of a blueprint inherit: ``consumer_defaults``."""

from __future__ import annotations

import typing as t
from datetime import timedelta

import pytest
from flask import Blueprint
from flask import Flask

from flask_qconsume import ConfigurationError
from flask_qconsume import ConsumerBlueprint
from flask_qconsume import ConsumerScaffold
from flask_qconsume import QConsume
from flask_qconsume import RegistrationError
from flask_qconsume import RetryPolicy
from tests.apps import consumers
from tests.apps import make_app

Options = dict[str, t.Any]


def make_nested(
    outer: Options | None, inner: Options | None, given: Options, **config: t.Any
) -> Flask:
    """An app with the consumer 'outer.inner.bill'."""
    around = ConsumerBlueprint(
        "outer", __name__, consumer_defaults=t.cast(t.Any, outer)
    )
    within = ConsumerBlueprint(
        "inner", __name__, consumer_defaults=t.cast(t.Any, inner)
    )
    within.add_consumer("billing", print, name="bill", **given)
    around.register_blueprint(within)
    return make_app(None, around, **config)


@pytest.mark.parametrize(
    ("outer", "inner", "decorator", "deployment", "expected"),
    [
        (None, None, None, None, 10),
        (4, None, None, None, 4),
        (4, 5, None, None, 5),
        (None, 5, None, None, 5),
        (4, 5, 6, None, 6),
        (4, 5, 6, 7, 7),
        (4, None, None, 7, 7),
    ],
)
def test_the_nearest_default_wins_and_loses_to_decorator_and_deployment(
    outer: int | None,
    inner: int | None,
    decorator: int | None,
    deployment: int | None,
    expected: int,
) -> None:
    app = make_nested(
        {"concurrency": outer},
        {"concurrency": inner},
        {"concurrency": decorator},
        consumers={"outer.inner.bill": {"concurrency": deployment}},
    )
    assert consumers(app)["outer.inner.bill"].concurrency == expected


def test_defaults_beat_app_wide_settings() -> None:
    app = make_nested(
        {"timeout": timedelta(minutes=5), "retry": {"max_attempts": 2}, "prefetch": 9},
        {"ordering": "key", "retry": "patient"},
        {},
        timeout=1,
        retry={"max_attempts": 1},
        prefetch=50,
        ordering="none",
        retry_policies={"patient": {"min_delay": 60}},
    )
    found = consumers(app)["outer.inner.bill"]
    assert (found.timeout, found.prefetch, found.ordering) == (300.0, 9, "key")
    assert found.retry == RetryPolicy(min_delay=60)


def test_other_blueprints_and_the_apps_own_consumers_inherit_nothing() -> None:
    slow = ConsumerBlueprint("slow", __name__, consumer_defaults={"concurrency": 1})
    fast = ConsumerBlueprint("fast", __name__)
    qconsume = QConsume()
    for place, queue in ((slow, "a"), (fast, "b"), (qconsume, "c")):
        place.add_consumer(queue, print, name="read")
    found = consumers(make_app(qconsume, slow, fast))
    assert {name: each.concurrency for name, each in found.items()} == {
        "slow.read": 1,
        "fast.read": 10,
        "read": 10,
    }


def test_a_shared_blueprint_inherits_from_each_blueprint_around_it() -> None:
    shared = ConsumerBlueprint("shared", __name__)
    shared.add_consumer("mail", print, name="mail")
    parents = [
        ConsumerBlueprint(name, __name__, consumer_defaults={"concurrency": number})
        for name, number in (("one", 1), ("two", 2))
    ]
    for parent in parents:
        parent.register_blueprint(shared)
        found = consumers(make_app(None, parent))
        assert (
            found[f"{parent.name}.shared.mail"].concurrency
            == int(parent.name == "two") + 1
        )


def test_blueprints_of_other_packages_have_defaults_by_the_mixin() -> None:
    class OwnBlueprint(ConsumerScaffold, Blueprint):
        pass

    own = OwnBlueprint("own", __name__, consumer_defaults={"timeout": 5})
    own.add_consumer("mail", print, name="mail")
    assert consumers(make_app(None, own))["own.mail"].timeout == 5


@pytest.mark.parametrize(
    ("defaults", "text"),
    [
        (
            {"concurency": 5},
            "'consumer_defaults' has no option 'concurency'; did you mean"
            " 'concurrency'? There are: concurrency, ordering, prefetch, retry,"
            " timeout.",
        ),
        ({5: 5}, "'consumer_defaults' has no option '5'. There are: concurrency,"),
        (
            {"timeout": "5m"},
            "'timeout' in 'consumer_defaults' cannot be '5m': write a number of",
        ),
        ([], "'consumer_defaults' must be a mapping of options, such as"),
    ],
)
def test_defaults_that_make_no_sense_are_refused(defaults: t.Any, text: str) -> None:
    with pytest.raises(RegistrationError) as caught:
        ConsumerBlueprint("orders", __name__, consumer_defaults=defaults)
    assert str(caught.value).startswith(text)


def test_an_unknown_policy_is_told_with_its_consumer() -> None:
    app = make_nested({"retry": "patient"}, None, {})
    with pytest.raises(ConfigurationError, match=r"'outer.inner.bill' wants the retry"):
        consumers(app)
