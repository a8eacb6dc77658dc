"""Customers of the shop, simulated by Locust. Run by ``benchmarks.load``.

``LOAD_PLAN`` is a JSON object: ``steps``, pairs of seconds and customers; ``period``,
the seconds from one request of a customer to the next, on average (0: at once); and
``samples``, a file for one line of each request: when, how many customers there were,
and the milliseconds that it took.
"""

from __future__ import annotations

import json
import os
import random
import time
import typing as t

from locust import FastHttpUser
from locust import LoadTestShape
from locust import events
from locust import task

PLAN = json.loads(os.environ["LOAD_PLAN"])

#: Customers that Locust may start per second: all customers of a step at once.
_SPAWN_RATE = 1_000

ORDER = {
    "customer": "Ada",
    "email": "ada@example.org",
    "items": [{"product_id": 3, "quantity": 1}],
}

_chance = random.Random(7)
_samples = open(PLAN["samples"], "w")  # noqa: SIM115
_customers = 0


class Steps(LoadTestShape):
    """Number of customers over time, which grows in steps."""

    def tick(self) -> tuple[int, float] | None:
        global _customers
        left = self.get_run_time()
        for seconds, customers in PLAN["steps"]:
            if left < seconds:
                _customers = customers
                return customers, _SPAWN_RATE
            left -= seconds
        return None


class Customer(FastHttpUser):
    """Requests pages of the shop, and sometimes orders tea."""

    def wait_time(self) -> float:
        # Random, so that customers do not send their requests at the same time.
        return _chance.expovariate(1 / PLAN["period"]) if PLAN["period"] else 0.0

    def on_start(self) -> None:
        time.sleep(self.wait_time())

    @task(12)
    def shop(self) -> None:
        self.client.get("/")

    @task(6)
    def live(self) -> None:
        self.client.get("/live")

    @task(12)
    def stock(self) -> None:
        self.client.get("/stock/")

    @task(8)
    def order(self) -> None:
        self.client.get(f"/orders/{_chance.randint(1, 20)}", name="/orders/N")

    @task(1)
    def buy(self) -> None:
        self.client.post("/orders/", json=ORDER)


@events.request.add_listener
def note(response_time: float, exception: t.Any, **others: t.Any) -> None:
    """Write each request to a file, since Locust's own percentiles are rounded."""
    failed = int(exception is not None)
    _samples.write(f"{time.time():.3f},{_customers},{response_time:.2f},{failed}\n")


@events.quitting.add_listener
def close(**others: t.Any) -> None:
    _samples.close()
