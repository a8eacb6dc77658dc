"""The queries of dashboards and rules have data, in a Prometheus beside the shop."""

from __future__ import annotations

import typing as t

import pytest

from example_app import create_app
from example_app.extensions import db
from example_app.tests.running import Shop

from ..servers import Prometheus
from ..waiting import wait_for
from .files import Query
from .files import list_dashboard_queries
from .files import list_rules
from .files import list_selectors

pytestmark = [pytest.mark.broker, pytest.mark.process, pytest.mark.deadline(180)]

#: Parts of queries without data here, and why.
WITHOUT_DATA = {
    "qconsume_queue_lag": "only Kafka has a lag, and the shop runs on Redis",
}

VARIABLES = {"$__rate_interval": "10s", "$consumer": ".+"}


@pytest.fixture(scope="module")
def loaded(shop: Shop, prometheus: Prometheus) -> Prometheus:
    """Orders that are billed, declined, not answered, broken, or leave little stock."""
    for _ in range(10):
        shop.order()
    for card in ("tok_silent", "tok_expired"):
        shop.wait_until(shop.order(card=card), "rejected")
    shop.post("/orders/broken")
    # 12 - 5 is below 10: a message that is delayed until the supplier delivers.
    shop.order(items=[{"product_id": 2, "quantity": 5}])
    return prometheus


def test_every_query_of_the_dashboards_has_data(loaded: Prometheus) -> None:
    queries = list_dashboard_queries(VARIABLES)
    assert len(queries) > 40
    wait_until_all_have_data(loaded, [q for q in queries if not is_excluded(q.text)])


def test_every_series_of_the_rules_is_there(loaded: Prometheus) -> None:
    queries = [
        Query(rule.get("alert") or rule["record"], selector)
        for rule in list_rules()
        for selector in list_selectors(rule["expr"])
    ]
    assert len(queries) > 25
    wait_until_all_have_data(loaded, [q for q in queries if not is_excluded(q.text)])


def test_prometheus_has_no_trouble_with_the_rules(loaded: Prometheus) -> None:
    groups = loaded.get("rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(list_rules())
    wait_for(lambda: all_rules(loaded, "health") == {"ok"})
    assert {rule.get("lastError") for rule in rules} == {None}


def test_what_is_excluded_has_no_data(loaded: Prometheus) -> None:
    for selector, reason in WITHOUT_DATA.items():
        assert len(reason.split()) > 3
        assert loaded.query(selector) == []


def test_a_storm_of_retries_is_seen_and_fires_its_alert(
    shop: Shop, loaded: Prometheus
) -> None:
    before = count_retries(loaded)
    publish_orders_without_an_answer(shop, 1_000)
    firing = {"alertname": "QConsumeRetryStorm", "consumer": "orders.bill"}
    wait_for(
        lambda: find_alert(loaded, **firing),
        timeout=60.0,
        message=lambda: f"{firing} fires; retries: {count_retries(loaded)}",
    )
    # Two retries each, before the last attempt.
    wait_for(
        lambda: count_retries(loaded) == before + 2_000,
        timeout=90.0,
        message=lambda: f"2,000 retries after {before}: {count_retries(loaded)}",
    )
    alert = find_alert(loaded, **firing) or {"annotations": {}}
    assert "orders.bill" in alert["annotations"].get("summary", "orders.bill")


def publish_orders_without_an_answer(shop: Shop, number: int) -> None:
    """Publish messages about one order for whose card the bank never answers."""
    order_id = shop.order(card="tok_silent")
    shop.wait_until(order_id, "rejected")
    app = create_app(
        {
            "QCONSUME_BROKER_URL": shop.environment["FLASK_QCONSUME_BROKER_URL"],
            "SQLALCHEMY_DATABASE_URI": shop.environment[
                "FLASK_SQLALCHEMY_DATABASE_URI"
            ],
        }
    )
    order = {
        "order_id": order_id,
        "customer": "Ada Lovelace",
        "email": "ada@example.com",
        "card": "tok_silent",
        "total": 1380,
        "items": [{"product_id": 1, "name": "Gunpowder green tea", "quantity": 2}],
    }
    with app.app_context():
        client = app.extensions["qconsume"]
        client.publish_many([("order.placed", order)] * number)
        db.engine.dispose()


def wait_until_all_have_data(prometheus: Prometheus, queries: list[Query]) -> None:
    left = list(queries)

    def is_complete() -> bool:
        left[:] = [query for query in left if not has_data(prometheus, query.text)]
        return not left

    wait_for(is_complete, timeout=45.0, interval=0.5, message=lambda: describe(left))


def describe(queries: list[Query]) -> str:
    return "\n".join(["no data:", *(f"{q.place}: {q.text}" for q in queries)])


def has_data(prometheus: Prometheus, query: str) -> bool:
    """Return whether a query has a value that is a number."""
    return any(each["value"][1] != "NaN" for each in prometheus.query(query))


def is_excluded(query: str) -> bool:
    return any(part in query for part in WITHOUT_DATA)


def count_retries(prometheus: Prometheus) -> int:
    series = 'sum(qconsume_messages_total{consumer="orders.bill",outcome="retry"})'
    return sum(int(each["value"][1]) for each in prometheus.query(series))


def all_rules(prometheus: Prometheus, key: str) -> set[str]:
    groups = prometheus.get("rules")["data"]["groups"]
    return {rule[key] for group in groups for rule in group["rules"]}


def find_alert(prometheus: Prometheus, **labels: str) -> dict[str, t.Any] | None:
    """Return the alert that fires with these labels."""
    for alert in prometheus.get("alerts")["data"]["alerts"]:
        if alert["state"] == "firing" and labels.items() <= alert["labels"].items():
            return dict(alert)
    return None
