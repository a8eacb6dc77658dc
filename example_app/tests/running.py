"""Shop in a process of its own, started by the command of the README."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys
import typing as t
import urllib.error
import urllib.request

import psutil

from tests.servers.ports import free_port
from tests.servers.server import end
from tests.servers.server import spawn
from tests.waiting import wait_for

from .conftest import ORDER

ROOT = pathlib.Path(__file__).parents[2]


class Shop:
    """A running shop, with requests of a customer."""

    def __init__(
        self,
        folder: pathlib.Path,
        broker_url: str,
        *arguments: str,
        publish_timeout: float = 10.0,
        supplier_seconds: float = 1.0,
        environment: t.Mapping[str, str] | None = None,
    ) -> None:
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        self._output = folder / "output"
        command = "-m flask --app example_app qconsume run --web"
        self.environment = {
            **make_environment(folder, broker_url, publish_timeout, supplier_seconds),
            **(environment or {}),
        }
        self._process = spawn(
            [sys.executable, *command.split(), address, *arguments],
            env=self.environment,
            folder=ROOT,
            output=self._output,
        )

    def __enter__(self) -> Shop:
        wait_for(self._answers, timeout=30.0, message=self.output)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            self.kill()

    def output(self) -> str:
        """Return the output so far."""
        return self._output.read_text()

    def stop(self) -> int:
        """Stop the shop, and return its exit code."""
        end(self._process, signal.SIGTERM, timeout=30.0)
        return int(self._process.returncode)

    def kill(self) -> None:
        """Kill all processes of the shop at once."""
        workers = psutil.Process(self._process.pid).children(recursive=True)
        # Before its workers, so that it cannot start others in their place.
        self._process.kill()
        for worker in workers:
            worker.kill()
        end(self._process, signal.SIGKILL, timeout=10.0)

    def get(self, path: str) -> t.Any:
        with urllib.request.urlopen(self.url + path, timeout=10.0) as answer:
            return json.load(answer)

    def page(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=10.0) as answer:
            return str(answer.read().decode())

    def post(self, path: str, body: t.Any = None) -> t.Any:
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10.0) as answer:
            return answer.read().decode()

    def order(self, **change: t.Any) -> int:
        """Place an order, and return its number."""
        return int(json.loads(self.post("/orders/", {**ORDER, **change}))["id"])

    def try_order(self, **change: t.Any) -> int | None:
        """Place an order, and return its number, or ``None`` if the shop refuses it."""
        try:
            return self.order(**change)
        except urllib.error.HTTPError as error:
            error.close()
            assert error.code == 422
            return None

    def wait_until_either(self, order_id: int, *events: str) -> str:
        """Wait for one of these events of an order, and return it."""

        def find() -> str | None:
            order: dict[str, t.Any] = self.get(f"/orders/{order_id}")
            names = [event["name"] for event in order["events"]]
            return next((name for name in names if name in events), None)

        found = wait_for(find, timeout=30.0, message=self.output)
        assert found is not None
        return found

    def wait_until(self, order_id: int, *events: str) -> dict[str, t.Any]:
        """Wait until an order has all these events, and return it."""

        def find() -> dict[str, t.Any] | None:
            order: dict[str, t.Any] = self.get(f"/orders/{order_id}")
            names = {event["name"] for event in order["events"]}
            return order if names.issuperset(events) else None

        found = wait_for(find, timeout=30.0, message=self.output)
        assert found is not None
        return found

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.output()
        try:
            return bool(self.page("/"))
        except (urllib.error.URLError, TimeoutError):
            # It accepts connections before its processes are up.
            return False


def make_environment(
    folder: pathlib.Path,
    broker_url: str,
    publish_timeout: float,
    supplier_seconds: float,
) -> dict[str, str]:
    """Make the environment of the shop: its broker, and short delays."""
    quick = {"max_attempts": 3, "min_delay": 0.1, "factor": 1, "jitter": 0}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FLASK_")}
    return {
        **inherited,
        "PYTHONWARNINGS": "error",
        "FLASK_SQLALCHEMY_DATABASE_URI": f"sqlite:///{folder / 'shop.sqlite'}",
        "FLASK_QCONSUME_BROKER_URL": broker_url,
        "FLASK_QCONSUME_PUBLISH_TIMEOUT": f"{publish_timeout}",
        "FLASK_QCONSUME_RETRY_POLICIES": json.dumps({"gateway": quick}),
        "FLASK_SHOP_GATEWAY_SECONDS": "0.01",
        "FLASK_SHOP_GATEWAY_TIMEOUTS": "0",
        "FLASK_SHOP_SUPPLIER_SECONDS": f"{supplier_seconds}",
    }
