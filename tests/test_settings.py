"""The table of settings: typed, read once, and every mistake is named."""

from __future__ import annotations

import typing as t
from datetime import timedelta

import pytest
from flask import Flask

from flask_qconsume import ConfigurationError
from flask_qconsume import QConsume
from flask_qconsume import RetryPolicy
from flask_qconsume.settings import TABLE
from flask_qconsume.settings import Settings
from flask_qconsume.settings import find_unread_variables
from flask_qconsume.settings import suggest
from flask_qconsume.text import quote

URL = {"QCONSUME_BROKER_URL": "memory://"}

FLOATS = ("timeout", "dead_letter_ttl", "shutdown_timeout", "publish_timeout")
SHARING = ("hub_latency", "least_share", "start_timeout")
SIZES = ("max_message_size", "max_items")
WHOLES = ("concurrency", "prefetch", "delivery_limit", *SIZES)
TEXTS = (
    *("broker_url", "exchange", "queue_prefix", "queue_type", "declare", "ordering"),
    *("log_tracebacks", "logging"),
)
MAPPINGS = ("transport_options", "retry", "retry_policies", "consumers")

WRONG: dict[str, list[t.Any]] = {
    **dict.fromkeys(
        (*FLOATS, "away_after", "heartbeat", "lease", "blocked_after", "stalled_after")
        + SHARING,
        ["30", True, [], {}, -1, float("nan"), float("inf")],
    ),
    **dict.fromkeys(WHOLES, ["3", 3.0, True, [], 0, -1, 10**12]),
    **dict.fromkeys(TEXTS, [5, True, b"x", ["x"], {}]),
    **dict.fromkeys(MAPPINGS, [5, "x", ["x"], True, {5: {}}]),
    "metrics": [5, 1.0, b"x", [], {}, "", "metrics", "true"],
    "tracing": [5, 1, 0, "on", "", [], {}],
    "accept": [5, "application/json", [5], [None], True],
    "management_url": [5, True, [], "", "host:15672", "file:///etc/passwd", "http://"],
}


def settings(**config: t.Any) -> Settings:
    return Settings.from_config({**URL, **config})


@pytest.mark.parametrize(
    ("name", "value"),
    [(setting.name, value) for setting in TABLE for value in WRONG[setting.name]],
)
def test_a_wrong_value_is_an_error_that_says_what_and_why(
    name: str, value: t.Any
) -> None:
    key = f"QCONSUME_{name.upper()}"
    row = next(setting for setting in TABLE if setting.name == name)
    with pytest.raises(ConfigurationError) as caught:
        settings(**{key: value})
    said = str(caught.value)
    # What may have a password in it is not shown.
    shown = f"of the type '{type(value).__name__}'" if row.secret else quote(value)
    assert said.startswith(f"'{key}' must be {row.kind}, not {shown}")
    assert said.endswith(row.doc)


@pytest.mark.parametrize("setting", TABLE, ids=lambda s: s.name)
def test_every_row_says_what_it_means_and_none_stands_for_the_default(
    setting: t.Any,
) -> None:
    assert setting.doc.endswith((".", "}."))
    assert setting.kind
    if setting.name != "broker_url":
        found = settings(**{setting.key: None})
        assert getattr(found, setting.name) == getattr(settings(), setting.name)


def test_what_may_have_a_password_in_it_is_not_shown() -> None:
    assert {setting.name for setting in TABLE if setting.secret} == {
        "broker_url",
        "management_url",
        "transport_options",
    }
    with pytest.raises(ConfigurationError) as caught:
        settings(QCONSUME_TRANSPORT_OPTIONS='{"password": "s3cr3t"')
    assert "s3cr3t" not in str(caught.value)
    given = {"QCONSUME_TRANSPORT_OPTIONS": {"password": "s3cr3t"}}
    found = settings(QCONSUME_BROKER_URL="redis://:s3cr3t@localhost", **given)
    assert "s3cr3t" not in repr(found)


def test_the_table_and_the_class_have_the_same_names() -> None:
    fields = [name for name in Settings.__dataclass_fields__ if name != "instance_path"]
    assert [setting.name for setting in TABLE] == fields


def test_the_defaults() -> None:
    found = settings()
    assert found.retry == RetryPolicy()
    assert (found.concurrency, found.prefetch, found.timeout) == (10, None, 600.0)
    assert (found.delivery_limit, found.dead_letter_ttl) == (3, 604_800.0)
    assert (found.queue_type, found.declare, found.exchange) == (
        "quorum",
        "auto",
        "qconsume",
    )
    assert found.shutdown_timeout == 25.0
    assert found.accept is None


def nested(depth: int) -> list[t.Any]:
    found: list[t.Any] = []
    for _ in range(depth):
        found = [found]
    return found


UNWRITABLE = {"long": 10**5_000, "deep": nested(100_000), "within": {"a": 10**5_000}}


@pytest.mark.parametrize("value", UNWRITABLE.values(), ids=UNWRITABLE)
def test_a_value_that_python_cannot_write_is_an_error_as_any_other(
    value: t.Any,
) -> None:
    with pytest.raises(ConfigurationError, match="^'QCONSUME_TIMEOUT' must be seconds"):
        settings(QCONSUME_TIMEOUT=value)


def test_no_error_has_a_line_break_of_a_setting() -> None:
    for config in (
        {"QCONSUME_A\nERROR": 1},
        {"QCONSUME_CONSUMERS": {"a\nERROR": {"x": 1}}},
        {"QCONSUME_CONSUMERS": {"a": {"x\nERROR": 1}}},
        {"QCONSUME_CONSUMERS": {"a\nERROR": {"timeout": "x"}}},
        {"QCONSUME_RETRY": {"a\nERROR": 1}},
        {"QCONSUME_RETRY": {"retry_on": "a\nERROR.x"}},
    ):
        with pytest.raises(ConfigurationError) as caught:
            settings(**config)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("QCONSUME_CONCURENCY", "; did you mean 'QCONSUME_CONCURRENCY'?"),
        ("QCONSUME_BROKER", "; did you mean 'QCONSUME_BROKER_URL'?"),
        ("QCONSUME_" + "Z" * 40, "."),
    ],
)
def test_an_unknown_key_is_an_error_that_suggests(key: str, meant: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(**{key: 1})
    assert str(caught.value).startswith(f"There is no configuration key '{key}'{meant}")


def test_keys_of_other_extensions_are_ignored() -> None:
    assert settings(SECRET_KEY="x", QCONSUMER="y") == settings()
    assert Settings.from_config({**URL, 5: "x", None: "y"}) == settings()


@pytest.mark.parametrize("url", [None, ""])
def test_a_missing_url_is_an_error_that_offers_a_file(url: str | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_config({} if url is None else {"QCONSUME_BROKER_URL": url})
    assert str(caught.value) == (
        "'QCONSUME_BROKER_URL' must be set before 'QConsume.init_app'. Without a"
        " server, use 'sqlite:///qconsume.db', a file (pip install"
        " 'Flask-QConsume[sql]'); with a server, its address, such as"
        " 'amqp://guest:guest@localhost//' or 'redis://localhost/0'. Tests use"
        " 'memory://'."
    )


def test_a_wrong_choice_names_the_choices() -> None:
    with pytest.raises(ConfigurationError, match="must be one of: quorum, classic"):
        settings(QCONSUME_QUEUE_TYPE="stream")


def test_a_number_out_of_range_names_the_range() -> None:
    with pytest.raises(ConfigurationError, match=r"\(it must be from 1 to 10000\)"):
        settings(QCONSUME_CONCURRENCY=0)


def test_whole_numbers_will_do_for_seconds() -> None:
    found = settings(QCONSUME_TIMEOUT=30)
    assert found.timeout == 30.0
    assert isinstance(found.timeout, float)


@pytest.mark.parametrize(
    ("retry", "said"),
    [
        ({"max_atempts": 5}, "has no 'max_atempts'"),
        ({"jitter": 2}, "'jitter' must be a number from 0 to 1, not '2'"),
        ({"give_up_on": ["no.such.Error"]}, "which cannot be imported"),
        ({"retry_on": "..no.Error"}, "which cannot be imported"),
        ({"min_delay": 1_000}, "does not fit below its 'max_delay' of 900 s"),
    ],
)
def test_a_wrong_policy_names_the_key_and_the_argument(
    retry: dict[str, t.Any], said: str
) -> None:
    for config in (
        {"QCONSUME_RETRY": retry},
        {"QCONSUME_RETRY_POLICIES": {"patient": retry}},
        {"QCONSUME_CONSUMERS": {"bill": {"retry": retry}}},
    ):
        with pytest.raises(ConfigurationError) as caught:
            settings(**config)
        assert said in str(caught.value)
        assert str(caught.value).startswith(f"'{next(iter(config))}' must be")


def test_a_wrong_policy_among_others_is_named() -> None:
    policies = {"never": {"max_attempts": 1}, "patient": {"min_delay": 900}}
    with pytest.raises(ConfigurationError) as caught:
        settings(QCONSUME_RETRY_POLICIES=policies)
    assert "('patient' cannot be '{'min_delay': 900}' (A retry policy's" in str(
        caught.value
    )


def test_policies_are_made_of_mappings_and_classes_of_names() -> None:
    found = settings(
        QCONSUME_RETRY=RetryPolicy(max_attempts=2),
        QCONSUME_RETRY_POLICIES={
            "patient": {"min_delay": 60, "give_up_on": ["ValueError"]},
            "hasty": RetryPolicy(min_delay=0),
        },
    )
    assert found.retry.max_attempts == 2
    assert found.retry_policies["patient"].give_up_on == (ValueError,)
    assert found.retry_policies["hasty"].min_delay == 0


def test_a_number_of_seconds_may_be_a_timedelta() -> None:
    found = settings(
        QCONSUME_TIMEOUT=timedelta(minutes=5),
        QCONSUME_DEAD_LETTER_TTL=timedelta(days=30),
        QCONSUME_RETRY={"min_delay": timedelta(seconds=2)},
        QCONSUME_CONSUMERS={"mail": {"timeout": timedelta(seconds=1.5)}},
    )
    assert (found.timeout, found.dead_letter_ttl) == (300.0, 2_592_000.0)
    assert found.retry == RetryPolicy(min_delay=2)
    assert found.consumers == {"mail": {"timeout": 1.5}}
    with pytest.raises(ConfigurationError, match="from 1 to 600 seconds"):
        settings(QCONSUME_HEARTBEAT=timedelta(hours=1))


def test_options_of_consumers_are_checked() -> None:
    found = settings(
        QCONSUME_CONSUMERS={
            "orders.bill": {
                "concurrency": 50,
                "retry": "patient",
                "enabled": False,
                "timeout": 5,
                "ordering": "key",
                "prefetch": None,
            },
            "mail": {"retry": {"max_attempts": 1}},
        }
    )
    assert found.consumers == {
        "orders.bill": {
            "concurrency": 50,
            "retry": "patient",
            "enabled": False,
            "timeout": 5.0,
            "ordering": "key",
        },
        "mail": {"retry": RetryPolicy(max_attempts=1)},
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"concurency": 5}, "no option 'concurency'; did you mean 'concurrency'?"),
        ({"queue": "x"}, "'bill' has no option 'queue'"),
        ({"enabled": 1}, "'enabled' of 'bill' cannot be '1' (it must be True or"),
        ({"concurrency": "5"}, "'concurrency' of 'bill' cannot be '5'"),
        ({"prefetch": 0}, "'prefetch' of 'bill' cannot be '0' (it must be from 1"),
        ({"timeout": -1}, "'timeout' of 'bill' cannot be '-1'"),
        ({"retry": 5}, "'retry' of 'bill' cannot be '5'"),
        (5, "must be a mapping of consumers' names"),
    ],
)
def test_a_wrong_option_of_a_consumer_is_named(options: t.Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(QCONSUME_CONSUMERS={"bill": options})
    assert said in str(caught.value)


def test_what_is_read_is_not_changed_by_the_configuration_afterwards() -> None:
    options: dict[str, t.Any] = {"socket_timeout": 1}
    found = settings(QCONSUME_TRANSPORT_OPTIONS=options)
    options["socket_timeout"] = 2
    assert found.transport_options == {"socket_timeout": 1}


def test_the_environment_gives_values_through_flask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "FLASK_QCONSUME_BROKER_URL": "memory://",
        "FLASK_QCONSUME_CONCURRENCY": "7",
        "FLASK_QCONSUME_TIMEOUT": "2.5",
        "FLASK_QCONSUME_ACCEPT": '["application/json"]',
        "FLASK_QCONSUME_RETRY__max_attempts": "2",
        "FLASK_QCONSUME_CONSUMERS": '{"bill": {"enabled": false}}',
    }.items():
        monkeypatch.setenv(name, value)
    app = Flask("env")
    app.config.from_prefixed_env()
    QConsume(app)
    found = app.extensions["qconsume"].settings
    assert (found.broker_url, found.concurrency, found.timeout) == ("memory://", 7, 2.5)
    assert found.accept == ("application/json",)
    assert found.retry.max_attempts == 2
    assert found.consumers == {"bill": {"enabled": False}}


def test_configuration_is_read_once() -> None:
    app = Flask("once")
    app.config.from_mapping(URL)
    QConsume(app)
    app.config["QCONSUME_CONCURRENCY"] = "nonsense by now"
    assert app.extensions["qconsume"].settings.concurrency == 10


def test_a_suggestion_is_made_only_if_a_word_is_close() -> None:
    assert suggest("bil", ["bill", "mail"]) == "; did you mean 'bill'?"
    assert suggest("zzz", ["bill", "mail"]) == "."
    assert suggest("bill", []) == "."


ENVIRONMENT = {
    "FLASK_QCONSUME_BROKER_URL": "redis://:secret@host/0",
    "FLASK_QCONSUME_CONCURRENCY": "7",
    "FLASK_QCONSUME_RETRY__max_attempts": "2",
    "FLASK_DEBUG": "1",
}


def test_a_url_that_only_the_environment_has_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLASK_QCONSUME_BROKER_URL", "redis://:secret@host/0")
    with pytest.raises(ConfigurationError) as e:
        QConsume(Flask("forgetful"))
    assert str(e.value) == (
        "The environment has 'FLASK_QCONSUME_BROKER_URL', which the app does not read:"
        " call 'app.config.from_prefixed_env()' before 'QConsume.init_app'."
    )


def test_a_url_whose_variable_lacks_flasks_prefix_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QCONSUME_BROKER_URL", "redis://:secret@host/0")
    app = Flask("forgetful")
    app.config.from_prefixed_env()
    with pytest.raises(ConfigurationError) as e:
        QConsume(app)
    assert str(e.value) == (
        "The environment has 'QCONSUME_BROKER_URL', which Flask does not read: call it"
        " 'FLASK_QCONSUME_BROKER_URL', and have the app call"
        " 'app.config.from_prefixed_env()' before 'QConsume.init_app'."
    )


@pytest.mark.parametrize(
    "value", ["json", ["json"], ["application/json", "text"], ["text/*"], [], [5]]
)
def test_what_is_no_content_type_is_refused(value: t.Any) -> None:
    """With it every message would be a dead letter."""
    with pytest.raises(ConfigurationError) as e:
        settings(QCONSUME_ACCEPT=value)
    assert '(write a list of them, such as ["application/json"])' in str(e.value)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ["BROKER_URL", "CONCURRENCY", "RETRY__max_attempts"]),
        (
            {
                "QCONSUME_BROKER_URL": "memory://",
                "QCONSUME_CONCURRENCY": 7,
                "QCONSUME_RETRY": {"max_attempts": 2},
            },
            ["BROKER_URL"],
        ),
        (
            {
                "QCONSUME_BROKER_URL": "redis://:secret@host/0",
                "QCONSUME_CONCURRENCY": 7,
                "QCONSUME_RETRY": {"max_attempts": 2},
            },
            [],
        ),
    ],
)
def test_what_the_environment_has_and_the_app_has_not_is_found(
    config: dict[str, t.Any], expected: list[str]
) -> None:
    assert find_unread_variables(config, ENVIRONMENT) == [
        f"FLASK_QCONSUME_{n}" for n in expected
    ]


def test_it_is_a_warning_where_there_is_a_url(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a default, which the environment was to replace."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    app = Flask("forgetful")
    app.config.from_mapping(URL)
    QConsume(app)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(
        "The environment has FLASK_QCONSUME_BROKER_URL, FLASK_QCONSUME_CONCURRENCY,"
        " FLASK_QCONSUME_RETRY__max_attempts, and the app's configuration something"
        " else. Call 'app.config.from_prefixed_env()'"
    )
    assert "secret" not in caplog.text


def test_it_is_none_where_the_environment_was_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FLASK_QCONSUME_BROKER_URL", "memory://")
    app = Flask("careful")
    app.config.from_prefixed_env()
    QConsume(app)
    assert not caplog.records
