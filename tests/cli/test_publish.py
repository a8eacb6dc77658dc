"""`flask qconsume publish`."""

from __future__ import annotations

import json
import pathlib
import typing as t
import uuid

import msgpack
import pytest
from flask import Flask

from flask_qconsume.message import Outgoing

from .commands import Commands
from .commands import invoke
from .conftest import MakeApp


@pytest.fixture
def shop(make_app: MakeApp, redis_url: str) -> Flask:
    return make_app(BROKER_URL=redis_url)


def run_publish(shop: Flask, *args: str, **options: t.Any) -> Outgoing:
    """Run the command, and return the message that it would send."""
    sent: list[Outgoing] = []
    with shop.extensions["qconsume"].capture_published(sent.append):
        result = invoke(shop, "publish", *args, **options)
    assert result.exit_code == 0, result.output
    assert result.output.strip() == sent[0].id
    return sent[0]


def run_refused(shop: Flask, *args: str, **options: t.Any) -> str:
    with shop.extensions["qconsume"].capture_published(
        lambda message: pytest.fail("sent")
    ):
        result = invoke(shop, "publish", *args, **options)
    assert result.exit_code != 0
    assert "Traceback" not in result.output
    return result.output


def test_a_body_is_sent_as_it_is(shop: Flask) -> None:
    message = run_publish(shop, "order.created", '{"id":  1}')
    assert message.routing_key == "order.created"
    assert message.body == b'{"id":  1}'
    assert message.content_type == "application/json"


def test_a_dash_is_standard_input(shop: Flask) -> None:
    assert run_publish(shop, "a", "-", input="[1, 2]").body == b"[1, 2]"


def test_a_file_is_sent_byte_by_byte(shop: Flask, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"\xff\x00")
    given = ["a", "--file", str(path), "--content-type", "application/octet-stream"]
    assert run_publish(shop, *given).body == b"\xff\x00"


def test_a_text_needs_no_quotes(shop: Flask) -> None:
    message = run_publish(shop, "a", "grüß dich", "--content-type", "text/plain")
    assert message.body == "grüß dich".encode()


def test_msgpack_is_typed_as_json(shop: Flask) -> None:
    message = run_publish(shop, "a", "[1]", "--content-type", "application/msgpack")
    assert message.body == msgpack.packb([1])


def test_options_are_passed_on(shop: Flask) -> None:
    message = run_publish(
        shop,
        *("a", "1", "--header", "x=1", "--header", "y=a=b", "--delay", "1m"),
        *("--expires", "2h", "--key", "k", "--priority", "7"),
    )
    assert message.headers["x"] == "1"
    assert message.headers["y"] == "a=b"
    assert (message.delay, message.expires) == (60.0, 7200.0)
    assert (message.key, message.priority) == ("k", 7)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a"], "Give the message's body"),
        (["a", "{id: 1}"], "The body is not JSON"),
        (["a", "NaN"], "The body is not JSON ('NaN' is not JSON)"),
        (["a", "[-Infinity]"], "The body is not JSON ('-Infinity' is not JSON)"),
        (["a", "1e999"], "The body is not JSON (the number 1e999 is too large)"),
        (
            ["a", "[" * 501 + "]" * 501],
            "The body is not JSON (it nests deeper than 500",
        ),
        (["a", "[" * 9_000], "The body is not JSON (it nests deeper than 500"),
        (["a", "1" * 5_000], "The body is not JSON (Exceeds the limit (4300"),
        (["a", "NaN", "--content-type", "application/msgpack"], "'NaN' is not JSON"),
        (["a", "NaN", "--content-type", "application/json; charset=utf-8"], "not JSON"),
        (["a", "x", "--content-type", "application/x+json"], "The body is not JSON"),
        (["a", "1", "--header", "x"], "A header is NAME=VALUE, not 'x'"),
        (["a", "1", "--header", "x\ny"], r"A header is NAME=VALUE, not 'x\ny'"),
        (["a", "1", "--delay", "soon"], "'soon' is not a duration"),
        (["a", "1", "--priority", "10"], "10 is not in the range"),
        (["a", "1", "--header", "x-qconsume-id=1"], "'x-qconsume-' is kept for"),
    ],
)
def test_wrong_arguments_are_refused(
    shop: Flask, args: list[str], message: str
) -> None:
    assert message in run_refused(shop, *args)


def test_memory_is_refused_with_the_reason(make_app: MakeApp) -> None:
    result = invoke(make_app(), "publish", "order.created", "{}")
    assert result.exit_code == 1
    assert result.output.startswith("Error: Cannot publish a message: 'memory://' is")


def check_publish_without_gevent(commands: Commands) -> None:
    """Check that the command works although importing gevent fails."""
    (commands.folder / "gevent.py").write_text("raise RuntimeError('imported')")
    done = commands.run("publish", "order.created", '{"id": 1}')
    assert done.returncode == 0, done.stderr
    assert uuid.UUID(done.stdout.strip())


def test_redis_gets_a_message_without_gevent(on_redis: Commands) -> None:
    check_publish_without_gevent(on_redis)


def test_an_unroutable_message_is_an_error(on_redis: Commands) -> None:
    shop = on_redis.folder / "shop.py"
    shop.write_text(shop.read_text().replace('"#"', '"x"'))
    done = on_redis.run("publish", "unbound", json.dumps({}))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: No queue is bound to the exchange 'qconsume'")


def test_rabbitmq_gets_a_message_without_gevent(on_rabbitmq: Commands) -> None:
    check_publish_without_gevent(on_rabbitmq)
