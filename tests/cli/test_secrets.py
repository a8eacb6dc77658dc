"""A password is in no output: of no command, no log, no error, no process' title."""

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

#: Every way to write it has this in it.
SECRET = "s3cr3t"
PASSWORD = f"{SECRET}%2Fp%40ss%3A"

#: How the URL of a broker is written that needs a password, or of one that is away.
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

#: Where else a password may be.
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


def configuration(url: str, **options: t.Any) -> dict[str, t.Any]:
    return {
        "BROKER_URL": url,
        "TRANSPORT_OPTIONS": options,
        "PUBLISH_TIMEOUT": 0.5,
        "AWAY_AFTER": 0.1,
        "HEARTBEAT": 1,
    }


def told(make_app: MakeApp, caplog: t.Any, config: dict[str, t.Any]) -> str:
    """All that the commands print, log and raise, and how the objects show."""
    lines: list[str] = []
    with caplog.at_level(logging.DEBUG):
        try:
            app = make_app(**config)
            for command in COMMANDS:
                result = invoke(app, *command)
                lines += [result.output, *_trace(result.exception)]
            found = app.extensions["qconsume"]
            lines += [repr(found.settings), *_inside(found.broker)]
        except ConfigurationError as error:
            lines += _trace(error)
    return "\n".join([*lines, caplog.text, *(str(r.args) for r in caplog.records)])


def _trace(error: BaseException | None) -> list[str]:
    return traceback.format_exception(error) if error is not None else []


def _inside(root: object) -> t.Iterator[str]:
    """How it shows, and all that is of ours in it."""
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
    said = told(make_app, caplog, configuration(url, **OPTIONS.get(kind, {})))
    assert "127.0.0.1" in said
    assert SECRET not in said


@pytest.mark.broker
@pytest.mark.deadline(120)
@pytest.mark.parametrize("kind", ["redis", "streams"])
def test_nor_of_a_redis_that_refuses_it(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, own_redis: Redis, kind: str
) -> None:
    own_redis.command("CONFIG", "SET", "requirepass", "another")
    url = URLS[kind].format(PASSWORD, own_redis.port)
    said = told(make_app, caplog, configuration(url))
    assert "Redis refused us" in said
    assert SECRET not in said


@pytest.mark.broker
@pytest.mark.deadline(120)
def test_nor_of_a_rabbitmq_that_refuses_it(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, rabbitmq: RabbitMQ
) -> None:
    url = URLS["amqp"].format(PASSWORD, rabbitmq.port)
    said = told(make_app, caplog, configuration(url))
    assert "ACCESS_REFUSED" in said
    assert SECRET not in said


@pytest.mark.broker
@pytest.mark.deadline(120)
def test_nor_of_a_kafka_that_refuses_it(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, kafka: Kafka
) -> None:
    url = URLS["kafka"].format(PASSWORD, kafka.secured_port)
    said = told(make_app, caplog, configuration(url))
    assert "Check the user" in said
    assert SECRET not in said


@pytest.mark.broker
@pytest.mark.deadline(120)
@pytest.mark.parametrize("kind", ["amqp", "kafka"])
def test_a_worker_shows_it_nowhere(folder: pathlib.Path, kind: str) -> None:
    """Nor does its title, though the process starts itself anew."""
    url = URLS[kind].format(PASSWORD, free_port())
    config = configuration(url, **OPTIONS.get(kind, {}))
    with Commands(folder, config).start("run", "--health", "127.0.0.1:0") as running:
        running.wait_for("not connected", timeout=60)
        title = pathlib.Path(f"/proc/{running.pid}/cmdline").read_bytes()
        running.end()
    assert b"qconsume" in title
    assert SECRET.encode() not in title
    assert SECRET not in running.output


CUT = [
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


@pytest.mark.parametrize("url", CUT)
def test_a_password_that_cuts_the_url_is_refused_and_not_shown(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    said = told(make_app, caplog, configuration(url.format(SECRET)))
    assert "ConfigurationError" in said or "'QCONSUME_BROKER_URL'" in said
    assert SECRET not in said


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
def test_a_url_that_is_whole_is_taken(url: str) -> None:
    check_url(url)
