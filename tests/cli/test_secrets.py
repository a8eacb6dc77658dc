"""Passwords do not appear in outputs, logs, errors and process titles."""

from __future__ import annotations

import logging
import pathlib
import traceback
import typing as t

import pytest

from flask_qconsume import ConfigurationError
from flask_qconsume.broker.urls import check_url

from ..servers import Kafka
from ..servers import RabbitMQ
from ..servers import Redis
from ..servers.ports import free_port
from .commands import Commands
from .commands import invoke
from .conftest import MakeApp

#: Part of the password in every encoding.
SECRET = "s3cr3t"
PASSWORD = f"{SECRET}%2Fp%40ss%3A"

#: URLs with a password, by the kind of broker.
URLS = {
    "amqp": "amqp://shop:{}@127.0.0.1:{}/v",
    "amqps": "amqps://shop:{}@127.0.0.1:{}/v",
    "two": "amqp://shop:{0}@127.0.0.1:{1}//;amqp://shop:{0}@127.0.0.1:{1}//",
    "redis": "redis://:{}@127.0.0.1:{}/0",
    "query": "redis://127.0.0.1:{1}/0?password={0}",
    "sentinel": "sentinel://:{}@127.0.0.1:{}/0",
    "streams": "redis-streams://shop:{}@127.0.0.1:{}/0",
    "cluster": "redis-streams+cluster://shop:{}@127.0.0.1:{}",
    "kafka": "kafka://shop:{}@127.0.0.1:{}",
    "kafkas": "kafkas://shop:{}@127.0.0.1:{}",
}

#: Further options with a password.
OPTIONS: dict[str, dict[str, t.Any]] = {
    "amqps": {"client_properties": {"note": SECRET}},
    "sentinel": {"master_name": "main", "sentinel_kwargs": {"password": SECRET}},
    "kafka": {"kafka_common_config": {"sasl.password": SECRET}},
    "kafkas": {
        "kafka_common_config": {
            "ssl.key.password": SECRET,
            "sasl.oauthbearer.client.secret": SECRET,
        }
    },
}

COMMANDS = (
    ["list"],
    ["plan"],
    ["declare"],
    ["publish", "order.created", "{}"],
    ["dead-letters", "list"],
    ["dead-letters", "replay"],
)


def make_config(url: str, **options: t.Any) -> dict[str, t.Any]:
    return {
        "BROKER_URL": url,
        "TRANSPORT_OPTIONS": options,
        "PUBLISH_TIMEOUT": 0.5,
        "AWAY_AFTER": 0.1,
        "HEARTBEAT": 1,
    }


def collect_texts(make_app: MakeApp, caplog: t.Any, config: dict[str, t.Any]) -> str:
    """Collect the output, logs and errors of all commands, and texts of objects."""
    lines: list[str] = []
    with caplog.at_level(logging.DEBUG):
        try:
            app = make_app(**config)
            for command in COMMANDS:
                result = invoke(app, *command)
                lines += [result.output, *_format_error(result.exception)]
            found = app.extensions["qconsume"]
            lines += [repr(found.settings), *_iterate_texts(found.broker)]
        except ConfigurationError as error:
            lines += _format_error(error)
    return "\n".join([*lines, caplog.text, *(str(r.args) for r in caplog.records)])


def _format_error(error: BaseException | None) -> list[str]:
    return traceback.format_exception(error) if error is not None else []


def _iterate_texts(root: object) -> t.Iterator[str]:
    """Yield the texts of an object, and of all its parts from this package."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen and type(each).__module__.startswith("flask_qconsume"):
            seen.add(id(each))
            yield f"{each!r} {each}"
            waiting += vars(each).values() if hasattr(each, "__dict__") else []


@pytest.mark.broker
@pytest.mark.deadline(120)
@pytest.mark.parametrize("kind", [kind for kind in URLS if kind != "kafka"])
def test_no_command_shows_the_password_of_a_broker_that_is_away(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    url = URLS[kind].format(PASSWORD, free_port())
    texts = collect_texts(make_app, caplog, make_config(url, **OPTIONS.get(kind, {})))
    assert "127.0.0.1" in texts
    assert SECRET not in texts


@pytest.mark.broker
@pytest.mark.deadline(120)
@pytest.mark.parametrize("kind", ["redis", "streams"])
def test_no_command_shows_a_password_that_redis_refuses(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, own_redis: Redis, kind: str
) -> None:
    own_redis.command("CONFIG", "SET", "requirepass", "another")
    url = URLS[kind].format(PASSWORD, own_redis.port)
    texts = collect_texts(make_app, caplog, make_config(url))
    assert "Redis refused us" in texts
    assert SECRET not in texts


@pytest.mark.broker
@pytest.mark.deadline(120)
def test_no_command_shows_a_password_that_rabbitmq_refuses(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, rabbitmq: RabbitMQ
) -> None:
    url = URLS["amqp"].format(PASSWORD, rabbitmq.port)
    texts = collect_texts(make_app, caplog, make_config(url))
    assert "ACCESS_REFUSED" in texts
    assert SECRET not in texts


@pytest.mark.broker
@pytest.mark.deadline(120)
@pytest.mark.leak_grace(30)  # librdkafka takes seconds to end refused connections.
def test_no_command_shows_a_password_that_kafka_refuses(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, kafka: Kafka
) -> None:
    url = URLS["kafka"].format(PASSWORD, kafka.secured_port)
    texts = collect_texts(make_app, caplog, make_config(url))
    assert "Check the user" in texts
    assert SECRET not in texts


@pytest.mark.broker
@pytest.mark.deadline(120)
@pytest.mark.parametrize("kind", ["amqp", "kafka"])
def test_a_worker_shows_no_password(folder: pathlib.Path, kind: str) -> None:
    """Neither the log nor the process title has it after the restart."""
    url = URLS[kind].format(PASSWORD, free_port())
    config = make_config(url, **OPTIONS.get(kind, {}))
    with Commands(folder, config).start("run", "--health", "127.0.0.1:0") as running:
        running.wait_for("not connected", timeout=60)
        title = pathlib.Path(f"/proc/{running.pid}/cmdline").read_bytes()
        running.end()
    assert b"qconsume" in title
    assert SECRET.encode() not in title
    assert SECRET not in running.output


AMBIGUOUS_URLS = [
    "amqp://shop:{}/x@127.0.0.1:9/v",
    "amqp://shop:1{}@127.0.0.1:9:9/v",
    "redis://:{}#x@127.0.0.1:9/0",
    "rediss://:12/{}@127.0.0.1:9/0",
    "redis-streams://:12?{}@127.0.0.1:9/0",
    "sentinel://127.0.0.1:9/0;sentinel://:{}/x@127.0.0.1:9",
    "kafka://shop:{}/x@127.0.0.1:9",
    "redis-streams+cluster://shop:{}/x@127.0.0.1:9,127.0.0.1:10",
    "amqp://shop:{}[x@127.0.0.1:9/v",
]


@pytest.mark.parametrize("url", AMBIGUOUS_URLS)
def test_a_password_that_makes_a_url_ambiguous_is_refused(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    texts = collect_texts(make_app, caplog, make_config(url.format(SECRET)))
    assert "ConfigurationError" in texts or "'QCONSUME_BROKER_URL'" in texts
    assert SECRET not in texts


@pytest.mark.parametrize(
    "url",
    [
        "amqp://",
        "amqp://guest:guest@localhost//",
        "amqp://u:p%2F@[::1]:5672/v;amqp://localhost/%2F",
        "redis+socket:///run/redis.sock",
        "redis://localhost/0?ssl_ca_certs=/etc/a@b.pem",
        "sentinel://a:26379;sentinel://b:26379",
        "kafka://a,b:9092,[::1]:9093",
        "redis-streams+cluster://u:p@one:7000,two:7001",
        "memory://",
    ],
)
def test_a_correct_url_is_accepted(url: str) -> None:
    check_url(url)
