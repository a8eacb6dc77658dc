"""``redis-cli`` and flask_qconsume on Redis Streams."""

from __future__ import annotations

import json
import typing as t
from urllib.parse import urlsplit

import pytest

from .conftest import run

MakeShop = t.Callable[..., t.Any]


@pytest.fixture
def cli(redis_url: str) -> list[str]:
    address = urlsplit(redis_url)
    database = address.path.strip("/")
    return [
        "redis-cli",
        "-h",
        str(address.hostname),
        "-p",
        str(address.port),
        "-n",
        database,
    ]


def test_what_redis_cli_adds_is_handled(
    make_recording_app: MakeShop, redis_url: str, cli: list[str]
) -> None:
    recording_app = make_recording_app(
        "billing", broker_url=redis_url.replace("redis:", "redis-streams:")
    )
    run(*cli, "XADD", "billing", "*", "body", '{"n": 1}', "x-tenant", "a")
    run(*cli, "XADD", "billing", "*", "id", "5", "total", "3")

    (first, message), (second, _) = recording_app.consume(2)
    assert (first, second) == ({"n": 1}, {"id": "5", "total": "3"})
    assert (message.headers, message.id) == ({"x-tenant": "a"}, None)
    assert run(*cli, "XLEN", "billing").strip() == "0"


def test_what_we_publish_is_read_by_redis_cli(
    make_recording_app: MakeShop, redis_url: str, cli: list[str]
) -> None:
    recording_app = make_recording_app(
        "billing", broker_url=redis_url.replace("redis:", "redis-streams:")
    )
    recording_app.publish({"n": 1}, headers={"x-tenant": "a"})

    lines = run(*cli, "XRANGE", "billing", "-", "+").splitlines()
    assert json.loads(lines[lines.index("body") + 1]) == {"n": 1}
    assert "x-tenant" in run(*cli, "XRANGE", "billing", "-", "+")


def test_another_group_of_redis_cli_gets_its_own_copies(
    make_recording_app: MakeShop, redis_url: str, cli: list[str]
) -> None:
    """Another group can read a stream, and our group still gets all messages."""
    recording_app = make_recording_app(
        "billing", broker_url=redis_url.replace("redis:", "redis-streams:")
    )
    recording_app.publish({"n": 1})
    run(*cli, "XGROUP", "CREATE", "billing", "watch", "0")

    read = ["XREADGROUP", "GROUP", "watch", "me", "STREAMS", "billing", ">"]
    assert "body" in run(*cli, *read)
    assert [body for body, _ in recording_app.consume(1)] == [{"n": 1}]
