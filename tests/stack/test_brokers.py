"""Each panel of the dashboards shows something on every broker."""

from __future__ import annotations

import pathlib

import pytest

from example_app.tests.running import Shop

from ..servers import Kafka
from ..servers import Prometheus
from ..servers.ports import HOST
from ..servers.ports import free_port
from ..waiting import wait_for
from .files import list_dashboard_queries
from .test_queries import VARIABLES
from .test_queries import has_data
from .test_queries import place_orders_of_all_kinds

pytestmark = [pytest.mark.long, pytest.mark.deadline(180)]


def test_every_panel_has_data_on_rabbitmq(
    tmp_path: pathlib.Path, rabbitmq_url: str
) -> None:
    check_panels(tmp_path, rabbitmq_url)


def test_every_panel_has_data_on_kafka(tmp_path: pathlib.Path, kafka: Kafka) -> None:
    check_panels(tmp_path, kafka.url)


def check_panels(folder: pathlib.Path, broker_url: str) -> None:
    """Run the shop on a broker until each panel has had data of one of its queries."""
    address = f"{HOST}:{free_port()}"
    left: dict[str, list[str]] = {}
    for query in list_dashboard_queries(VARIABLES):
        left.setdefault(query.panel, []).append(query.text)
    shop = Shop(
        folder,
        broker_url,
        "--health",
        address,
        environment={"FLASK_QCONSUME_METRICS": "true"},
    )
    prometheus = Prometheus(folder / "prometheus", {"shop": [address]}, {"groups": []})
    with shop, prometheus:
        place_orders_of_all_kinds(shop)

        def is_complete() -> bool:
            shop.try_order(card="tok_expired")
            for panel, queries in list(left.items()):
                if any(has_data(prometheus, query) for query in queries):
                    del left[panel]
            return not left

        wait_for(is_complete, timeout=60.0, interval=0.5, message=lambda: left)
