"""The shop of the README, run by the commands of the README."""

from __future__ import annotations

import json
import pathlib
import typing as t
import urllib.request

from ..cli.commands import Commands
from ..cli.commands import Running
from ..servers.ports import free_port
from ..test_readme import blocks
from ..waiting import wait_for
from .environments import Environment

ORDER = {"id": 7, "total": "19.90"}


def write_shop(folder: pathlib.Path) -> None:
    """Write the README's first block of Python into ``shop.py``."""
    (folder / "shop.py").write_text(blocks("python")[0], "utf-8")


def check_shop(
    environment: Environment, folder: pathlib.Path, config: t.Mapping[str, t.Any]
) -> None:
    """Order over HTTP from the README's app, and see a consumer print the order."""
    address = f"127.0.0.1:{free_port()}"
    run = f"--app shop qconsume run --web {address}"
    handles_an_order(
        [environment.program("flask"), *run.split()], folder, config, address
    )


def handles_an_order(
    command: t.Sequence[str],
    folder: pathlib.Path,
    config: t.Mapping[str, t.Any],
    address: str,
) -> None:
    """Run a server of the README's app; an order is consumed, and the stop is clean."""
    write_shop(folder)
    unbuffered = ["env", "PYTHONUNBUFFERED=1", *command]
    with Commands(folder, config).spawn(unbuffered) as running:
        wait_for(
            lambda: answers(address, running), 60.0, message=lambda: running.output
        )
        place(f"http://{address}/orders/")
        running.wait_for(f"order.created {ORDER}")
        assert running.end() == 0, running.output
        assert "Traceback" not in running.output


def answers(address: str, running: Running) -> bool:
    """Whether the server answers at all; it has no page at its root."""
    assert running.process.poll() is None, running.output
    try:
        urllib.request.urlopen(f"http://{address}/", timeout=10)
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except urllib.error.URLError:
        return False
    return True


def place(url: str) -> None:
    headers = {"Content-Type": "application/json", "X-Tenant": "acme"}
    request = urllib.request.Request(url, json.dumps(ORDER).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 202
