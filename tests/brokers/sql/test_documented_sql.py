"""The SQL that pages show: messages put in by other programs, and permissions."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import typing as t
import uuid
from collections.abc import Callable

import pytest

from flask_qconsume.errors import BrokerRefused
from tests.pages import blocks_in
from tests.pages import commands_in
from tests.servers.fixtures import refuse

from .tools import SqlQueue
from .tools import bodies
from .tools import execute

PAGE = "reference/databases"
BY_SHELL, NOTIFY, BY_TRIGGER, GRANTS = (b.code for b in blocks_in(PAGE, "postgresql"))


@pytest.mark.process
@pytest.mark.parametrize("page", ["quickstart", PAGE])
def test_the_command_of_a_page_puts_a_message_into_the_file(
    page: str, tmp_path: pathlib.Path, open_queue: Callable[..., SqlQueue]
) -> None:
    if shutil.which("sqlite3") is None:
        refuse("sqlite3 is not installed")
    (command,) = [c for c in commands_in(page) if c.startswith("sqlite3")]
    (file,) = re.findall(r"instance/\w+\.db", command)
    (tmp_path / "instance").mkdir()
    queue = open_queue(f"sqlite:///{tmp_path / file}")
    queue.broker.declare()
    done = subprocess.run(
        ["bash", "-ec", command], cwd=tmp_path, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    (body,) = bodies(queue.take(queue.link(), 1))
    assert body.startswith(b'{"id": ')


@pytest.mark.broker
def test_an_insert_and_a_trigger_put_messages_into_postgresql(
    postgresql_url: str, open_queue: Callable[..., SqlQueue]
) -> None:
    queue = open_queue(postgresql_url)
    queue.broker.declare()
    link = queue.link()
    execute(postgresql_url, BY_SHELL)
    execute(postgresql_url, NOTIFY)
    message = queue.take_one(link).message
    assert (message.raw, message.id) == (b'{"id": 7}', "order-7")
    assert message.headers == {"tenant": "acme"}
    execute(postgresql_url, "CREATE TABLE orders (id integer)")
    execute(postgresql_url, BY_TRIGGER)
    execute(postgresql_url, "INSERT INTO orders VALUES (8)")
    assert queue.take_one(link).message.raw == b'{"id" : 8}'


@pytest.mark.broker
def test_the_permissions_of_the_page_are_enough_and_needed(
    postgresql_url: str, open_queue: Callable[..., SqlQueue]
) -> None:
    with a_role(postgresql_url) as (role, url):
        open_queue(postgresql_url).broker.declare()
        with pytest.raises(BrokerRefused):
            open_queue(url, declare="passive").broker.declare()
        execute(postgresql_url, re.sub(r"\bshop\b", role, GRANTS))
        queue = open_queue(url, declare="passive")
        queue.broker.declare()
        queue.publish(7)
        link = queue.link()
        link.ack(queue.take(link, 1))
        assert queue.broker.depth("billing") == 0
        link.close()
        queue.broker.close()


class a_role:
    """A role without permissions, and the URL by which it logs in."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._name = f"role_{uuid.uuid4().hex}"

    def __enter__(self) -> tuple[str, str]:
        execute(self._url, f"CREATE ROLE {self._name} LOGIN PASSWORD 'secret'")
        return self._name, re.sub(r"//.*@", f"//{self._name}:secret@", self._url)

    def __exit__(self, *exc: t.Any) -> None:
        execute(self._url, f"DROP OWNED BY {self._name}")
        execute(self._url, f"DROP ROLE {self._name}")
