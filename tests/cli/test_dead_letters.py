"""`flask qconsume dead-letters`, on Redis and RabbitMQ."""

from __future__ import annotations

import json
import os
import subprocess
import time
import typing as t

import pytest
from flask import Flask

from flask_qconsume.broker import headers
from flask_qconsume.broker.dead_letters import DeadLetter
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.extension import AppConsumers
from flask_qconsume.extension import get_app_consumers

from ..waiting import wait_for
from .commands import FLASK
from .commands import Commands
from .commands import invoke
from .conftest import MakeApp

HOUR = 3600.0


@pytest.fixture
def shop(make_app: MakeApp, redis_url: str) -> Flask:
    return make_app(BROKER_URL=redis_url)


@pytest.fixture
def rabbit_shop(make_app: MakeApp, rabbitmq_url: str) -> Flask:
    return make_app(BROKER_URL=rabbitmq_url)


class RejectedMessage(t.NamedTuple):
    """A message to publish and reject."""

    body: t.Any
    error: Exception | None = None
    reason: str = "told to"
    age: float = 0.0
    queue: str = "bill"
    options: dict[str, t.Any] = {}


def publish_rejected(shop: Flask, *dead: RejectedMessage) -> list[str]:
    """Publish messages and reject them; return their ids."""
    consumers = get_app_consumers(shop)
    consumers.broker.declare()
    return [_publish_rejected(consumers, each) for each in dead]


def _publish_rejected(consumers: AppConsumers, dead: RejectedMessage) -> str:
    plan = consumers.topology.queue(dead.queue)
    options = {"exchange": "", **dead.options}
    id = consumers.publish(plan.name, dead.body, **options)
    link = consumers.broker.connect(plan, Lane.MAIN, 1)
    try:
        (delivery,) = wait_for(lambda: link.read(1))
        died_at = time.time() - dead.age
        found = headers.make_dead_letter_headers(
            delivery.message,
            plan.consumer,
            plan.name,
            dead.reason,
            raise_and_catch(dead.error),
            died_at,
        )
        forward = Forward(delivery, Lane.DEAD, found, expires=HOUR)
        assert link.forward([forward]) == [None]
    finally:
        link.close()
    return id


def raise_and_catch(error: Exception | None) -> Exception | None:
    """Return the error with a traceback."""
    try:
        if error is not None:
            raise error
    except Exception as caught:
        return caught
    return None


def run_command(shop: Flask, *args: str, **options: t.Any) -> str:
    result = invoke(shop, "dead-letters", *args, **options)
    assert result.exit_code == 0, result.output
    return result.output


def run_json(shop: Flask, *args: str) -> list[dict[str, t.Any]]:
    result = invoke(shop, "dead-letters", *args, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def list_letters(shop: Flask) -> list[DeadLetter]:
    """List all dead letters of the app."""
    consumers = get_app_consumers(shop)
    broker = consumers.broker
    plans = consumers.topology.queues
    return [letter for plan in plans for letter in broker.dead_letters(plan)]


SEVERAL = (
    RejectedMessage({"n": 0}, ValueError("no such card"), age=3 * HOUR),
    RejectedMessage({"n": 1}, KeyError("total"), age=2 * HOUR),
    RejectedMessage({"n": 2}, reason="blacklisted", age=1 * HOUR),
    RejectedMessage({"n": 3}, ValueError("odd"), queue="audit"),
)


# -- selection -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ([], [0, 1, 2, 3]),
        (["bill"], [0, 1, 2]),
        (["orders.audit"], [3]),
        (["bill", "audit"], [0, 1, 2, 3]),
        (["--queue", "audit"], [3]),
        (["--consumer", "orders.bill"], [0, 1, 2]),
        (["--error", "ValueError"], [0, 3]),
        (["--error", "CARD"], [0]),
        (["--error", "blacklist"], [2]),
        (["--older-than", "90m"], [0, 1]),
        (["--newer-than", "90m"], [2, 3]),
        (["--older-than", "90m", "--newer-than", "150m"], [1]),
        (["--error", "ValueError", "--queue", "bill"], [0]),
        (["--limit", "2"], [0, 1]),
        (["--limit", "0"], [0, 1, 2, 3]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_filters(shop: Flask, args: list[str], found: list[int]) -> None:
    ids = publish_rejected(shop, *SEVERAL)
    assert {letter["id"] for letter in run_json(shop, "list", *args)} == {
        ids[n] for n in found
    }


def test_a_queue_is_named_with_its_prefix_or_without(
    make_app: MakeApp, redis_url: str
) -> None:
    shop = make_app(BROKER_URL=redis_url, QUEUE_PREFIX="staging.")
    publish_rejected(shop, RejectedMessage({"n": 0}, queue="staging.bill"))
    (bare,) = run_json(shop, "list", "bill")
    (full,) = run_json(shop, "list", "--queue", "staging.bill")
    assert bare == full
    assert bare["queue"] == "staging.bill"
    assert run_json(shop, "list", "audit") == []


def test_a_dead_letter_is_selected_by_its_ref_or_its_id(shop: Flask) -> None:
    ids = publish_rejected(shop, *SEVERAL)
    (by_id,) = run_json(shop, "list", "--id", ids[1])
    (by_ref,) = run_json(shop, "list", "--id", by_id["ref"])
    assert by_id == by_ref
    assert len(run_json(shop, "list", "--id", ids[0], "--id", ids[3])) == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nobody"], "The app has no queue or consumer 'nobody'. It has: audit, bill,"),
        (["--queue", "bil"], "has no queue 'bil'; did you mean 'bill'?"),
        (
            ["--consumer", "bill"],
            "has no consumer 'bill'. It has: orders.audit, orders.bill.",
        ),
        (["--older-than", "x"], "'x' is not a duration"),
    ],
)
def test_the_error_about_a_wrong_name_lists_the_names(
    shop: Flask, args: list[str], message: str
) -> None:
    result = invoke(shop, "dead-letters", "list", *args)
    assert result.exit_code != 0
    assert message in result.output


@pytest.mark.parametrize("command", ["list", "show", "replay", "purge"])
def test_memory_is_refused_with_the_reason(make_app: MakeApp, command: str) -> None:
    result = invoke(make_app(), "dead-letters", command)
    assert result.exit_code == 1
    assert result.output.startswith("Error: Cannot look at dead letters: 'memory://'")


# -- list and show ---------------------------------------------------------------------


def test_the_list_is_a_table(shop: Flask) -> None:
    publish_rejected(shop, *SEVERAL[:3])
    header, _, *rows = run_command(shop, "list").splitlines()
    assert header.split() == ["Ref", "Queue", "Died", "Attempts", "Why"]
    assert [row.split("  ")[-1].strip() for row in rows] == [
        "builtins.ValueError: no such card",
        "builtins.KeyError: 'total'",
        "blacklisted",
    ]


def test_the_list_tells_that_it_is_limited(shop: Flask) -> None:
    publish_rejected(shop, *SEVERAL)
    assert "these are the first 2; see --limit" in run_command(
        shop, "list", "--limit", "2"
    )
    assert "--limit" not in run_command(shop, "list", "--limit", "4")


def test_commands_without_dead_letters_say_so(shop: Flask) -> None:
    for command in (["list"], ["show"], ["purge"]):
        assert run_command(shop, *command) == "There are no such dead letters.\n"
    assert run_json(shop, "list") == []
    assert run_command(shop, "replay") == "Replayed 0 dead letters.\n"


def test_a_page_has_all_parts_of_a_dead_letter(shop: Flask) -> None:
    error = ValueError("no such card")
    dead = RejectedMessage(
        {"n": 0, "name": "Jürgen"}, error, options={"headers": {"x-t": "7"}}
    )
    (id,) = publish_rejected(shop, dead)
    output = run_command(shop, "show")
    for words in (
        f"message       {id}",
        "consumer      orders.bill",
        "to            (default exchange), bill",
        "reason        told to",
        "error         builtins.ValueError: no such card",
        "x-t: 7",
        "Traceback (most recent call last):",
        'ValueError: no such card\n  body (24 bytes):\n    {\n      "n": 0,\n',
        '"name": "Jürgen"',
    ):
        assert words in output


@pytest.mark.parametrize(
    ("body", "content_type", "shown", "json_body"),
    [
        (b'{"a": 1}', "application/json", '"a": 1', {"body": {"a": 1}}),
        (b"{nonsense", "application/json", "{nonsense", {"body_text": "{nonsense"}),
        (b"\xff\x00", "application/json", "\\xff\\x00", {"body_base64": "/wA="}),
        (b"\x81\xa1a\x01", "application/msgpack", '"a": 1', {"body": {"a": 1}}),
        (b"a\nb", "text/plain", "    a\n    b", {"body": "a\nb"}),
        (b"cos\nx", "application/x-python-serialize", "cos", {"body_text": "cos\nx"}),
    ],
)
def test_any_body_can_be_shown(
    shop: Flask,
    body: bytes,
    content_type: str,
    shown: str,
    json_body: dict[str, t.Any],
) -> None:
    publish_rejected(
        shop, RejectedMessage(body, options={"content_type": content_type})
    )
    assert shown in run_command(shop, "show")
    (found,) = run_json(shop, "show")
    assert json_body.items() <= found.items()


def test_a_long_body_is_truncated_but_not_in_json(shop: Flask) -> None:
    publish_rejected(shop, RejectedMessage({"text": "x" * 50_000}))
    assert "characters more; --json has them all" in run_command(shop, "show")
    assert len(run_command(shop, "show")) < 30_000
    (found,) = run_json(shop, "show")
    assert len(found["body"]["text"]) == 50_000


def test_a_message_cannot_control_the_terminal(shop: Flask) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\r\n\x9b1m"
    publish_rejected(
        shop,
        RejectedMessage(
            {evil: evil}, ValueError(evil), evil, options={"headers": {"h": evil}}
        ),
        RejectedMessage(
            evil.encode(), options={"content_type": "text/plain", "id": "\x1b[31m"}
        ),
    )
    for args in (["list"], ["show"], ["list", "--json"], ["show", "--json"]):
        output = run_command(shop, *args)
        assert all(char.isprintable() or char == "\n" for char in output)


# -- replay and purge ------------------------------------------------------------------


def check_replay_and_purge(shop: Flask) -> None:
    """Check that selected dead letters are replayed or removed, and the rest stays."""
    publish_rejected(shop, *SEVERAL)
    broker = get_app_consumers(shop).broker
    assert "2 dead letters would be replayed" in run_command(
        shop, "replay", "--dry-run", "--error", "ValueError"
    )
    wait_for(lambda: len(list_letters(shop)) == 4)

    assert (
        run_command(shop, "replay", "--error", "ValueError")
        == "Replayed 2 dead letters.\n"
    )
    wait_for(lambda: len(list_letters(shop)) == 2)
    wait_for(lambda: broker.depth("bill") == broker.depth("audit") == 1)

    assert "1 dead letter would be removed" in run_command(
        shop, "purge", "--dry-run", "--error", "KeyError"
    )
    refused = invoke(shop, "dead-letters", "purge", "bill", input="n\n")
    assert refused.exit_code == 1
    assert "Remove 2 dead letters permanently? [y/N]" in refused.output
    wait_for(lambda: len(list_letters(shop)) == 2)

    asked = run_command(shop, "purge", "--error", "KeyError", input="y\n")
    assert asked.endswith("Removed 1 dead letter.\n")
    assert run_command(shop, "purge", "--yes") == "Removed 1 dead letter.\n"
    assert list_letters(shop) == []
    assert broker.depth("bill") == 1


def test_replay_and_purge_on_redis(shop: Flask) -> None:
    check_replay_and_purge(shop)


def test_replay_and_purge_on_rabbitmq(rabbit_shop: Flask) -> None:
    check_replay_and_purge(rabbit_shop)


def test_listing_on_rabbitmq(rabbit_shop: Flask) -> None:
    ids = publish_rejected(rabbit_shop, *SEVERAL)
    assert [found["id"] for found in run_json(rabbit_shop, "list")] == ids
    assert [found["id"] for found in run_json(rabbit_shop, "list", "--limit", "1")]
    assert "Traceback (most recent" in run_command(rabbit_shop, "show", "--id", ids[0])


def test_an_unknown_id_is_an_error(shop: Flask) -> None:
    ids = publish_rejected(shop, *SEVERAL)
    done = invoke(shop, "dead-letters", "replay", "--id", ids[0], "--id", "gone\n")
    assert done.exit_code == 1
    assert "Replayed 1 dead letter." in done.output
    assert r"Error: There is no dead letter 'gone\n' in these queues." in done.output


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["list", "--json"],
        ["list", "--limit", "0"],
        ["show"],
        ["show", "--json"],
        ["replay"],
        ["replay", "--dry-run"],
        ["purge"],
        ["purge", "--yes"],
        ["purge", "--dry-run"],
    ],
    ids=" ".join,
)
def test_every_command_fails_for_unknown_ids(shop: Flask, command: list[str]) -> None:
    ids = publish_rejected(shop, *SEVERAL)
    done = invoke(shop, "dead-letters", *command, "--id", "gone", "--id", "lost")
    assert done.exit_code == 1
    assert (
        "Error: There is no dead letter 'gone', 'lost' in these queues." in done.output
    )
    assert [found["id"] for found in run_json(shop, "list")] == ids


def test_a_dead_letter_that_fails_again_is_replayed_once(on_redis: Commands) -> None:
    """A running worker rejects the replayed messages at once."""
    with on_redis.start("run") as worker:
        worker.wait_for("consuming the queue 'bill'")
        for n in range(3):
            body = json.dumps({"reject": "again", "n": n})
            assert on_redis.run("publish", "order.created", body).returncode == 0
        worker.wait_for("is a dead letter", 3)
        replayed = on_redis.run("dead-letters", "replay", "bill")
        assert replayed.stdout == "Replayed 3 dead letters.\n"
        worker.wait_for("is a dead letter", 6)
        assert worker.end() == 0
    listed = on_redis.run("dead-letters", "list", "--json").stdout
    assert len(listed.splitlines()) == 3


def test_a_terminal_shows_a_progress_bar(shop: Flask, on_redis: Commands) -> None:
    """A file gets no bar."""
    publish_rejected(shop, *SEVERAL)
    terminal, child_terminal = os.openpty()
    try:
        done = subprocess.run(
            [*FLASK, "qconsume", "dead-letters", "replay", "bill"],
            cwd=on_redis.folder,
            env=on_redis.environment(),
            stdout=subprocess.PIPE,
            stderr=child_terminal,
            timeout=60,
        )
        seen = os.read(terminal, 10_000).decode()
    finally:
        os.close(child_terminal)
        os.close(terminal)
    assert done.stdout == b"Replayed 3 dead letters.\n"
    assert "100%" in seen
    assert on_redis.run("dead-letters", "replay").stderr == ""
