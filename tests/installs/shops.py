"""The shop of the README, run by the commands of the README."""

from __future__ import annotations

import json
import pathlib
import shlex
import typing as t
import urllib.error
import urllib.request

from ..cli.commands import Commands
from ..cli.commands import Running
from ..servers.ports import free_port
from ..test_readme import blocks
from ..waiting import wait_for
from .environments import Environment

FIRST, TESTS, PROCESSES, WEB, GUNICORN, _DOCS = (each.strip() for each in blocks("sh"))

ORDER = {"id": 7, "total": "19.90"}

#: What consumers print is seen at once.
UNBUFFERED = ("env", "PYTHONUNBUFFERED=1")


def write_shop(folder: pathlib.Path) -> None:
    """Write the README's first block of Python into ``shop.py``."""
    (folder / "shop.py").write_text(blocks("python")[0], "utf-8")


def check_web(
    environment: Environment, folder: pathlib.Path, config: t.Mapping[str, t.Any]
) -> None:
    """Order from the web server that the README runs beside the consumers."""
    address = f"127.0.0.1:{free_port()}"
    assert WEB.endswith("0.0.0.0:8000")
    command = words_of(WEB.replace("0.0.0.0:8000", address), environment)
    handles_an_order(command, folder, config, address)


def check_gunicorn(environment: Environment, folder: pathlib.Path) -> None:
    """Order from the gunicorn that the README runs with consumers in its workers."""
    address = f"127.0.0.1:{free_port()}"
    command = [*words_of(GUNICORN, environment), "--bind", address]
    handles_an_order(command, folder, {"BROKER_URL": "memory://"}, address)


def check_processes(
    environment: Environment, folder: pathlib.Path, config: t.Mapping[str, t.Any]
) -> None:
    """Publish an order to the processes that the README runs."""
    write_shop(folder)
    commands = Commands(folder, config)
    shop = words_of("flask --app shop", environment)
    with commands.spawn([*UNBUFFERED, *words_of(PROCESSES, environment)]) as running:
        running.wait_for("consuming the queue", times=2 * 4)
        order = ["order.created", json.dumps(ORDER), "--header", "tenant=acme"]
        done = commands.run("publish", *order, command=shop)
        assert done.returncode == 0, done.stderr
        running.wait_for(f"order.created {ORDER}")
        assert running.end() == 0, running.output


def words_of(command: str, environment: Environment) -> list[str]:
    """A command of the README's, with its program from an environment."""
    program, *words = shlex.split(command)
    return [environment.program(program), *words]


def handles_an_order(
    command: t.Sequence[str],
    folder: pathlib.Path,
    config: t.Mapping[str, t.Any],
    address: str,
) -> None:
    """Run a server of the README's app; an order is consumed, and the stop is clean."""
    write_shop(folder)
    with Commands(folder, config).spawn([*UNBUFFERED, *command]) as running:
        wait_for(
            lambda: answers(address, running), 60.0, message=lambda: running.output
        )
        place(f"http://{address}/orders/")
        running.wait_for(f"order.created {ORDER}")
        assert running.end() == 0, running.output
        assert "Traceback" not in running.output


def answers(address: str, running: Running) -> bool:
    """Return whether the server answers at all; it has no page at its root."""
    assert running.process.poll() is None, running.output
    try:
        urllib.request.urlopen(f"http://{address}/", timeout=10)
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        # It may accept connections while it is still starting, on a busy machine.
        return False
    return True


def place(url: str) -> None:
    headers = {"Content-Type": "application/json", "X-Tenant": "acme"}
    request = urllib.request.Request(url, json.dumps(ORDER).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 202
