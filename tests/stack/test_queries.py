"""The queries of dashboards and rules have data, in a Prometheus beside the shop."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask

from example_app.tests.running import Shop
from flask_qconsume import QConsume

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
    "qconsume_problems{": "a healthy worker has none; a test below makes one",
}

VARIABLES = {"$__rate_interval": "10s", "$consumer": ".+"}


@pytest.fixture(scope="module")
def loaded(shop: Shop, prometheus: Prometheus) -> Prometheus:
    """The Prometheus beside a shop that has had some orders."""
    place_orders_of_all_kinds(shop)
    return prometheus


def place_orders_of_all_kinds(shop: Shop) -> None:
    """Place orders that are billed, declined, not answered, broken, or reduce stock."""
    for _ in range(10):
        shop.order()
    for card in ("tok_silent", "tok_expired"):
        shop.wait_until(shop.order(card=card), "rejected")
    shop.post("/orders/broken")
    # 12 - 5 is below 10: a message that is delayed until the supplier delivers.
    shop.order(items=[{"product_id": 2, "quantity": 5}])


def test_every_query_of_the_dashboards_has_data(shop: Shop, loaded: Prometheus) -> None:
    queries = list_dashboard_queries(VARIABLES)
    assert len(queries) > 40
    wait_until_all_have_data(shop, loaded, [q for q in queries if is_tried(q)])


def test_every_series_of_the_rules_is_there(shop: Shop, loaded: Prometheus) -> None:
    queries = [
        Query(rule.get("alert") or rule["record"], selector)
        for rule in list_rules()
        for selector in list_selectors(rule["expr"])
    ]
    assert len(queries) > 25
    wait_until_all_have_data(shop, loaded, [q for q in queries if is_tried(q)])


def test_prometheus_has_no_trouble_with_the_rules(loaded: Prometheus) -> None:
    groups = loaded.get("rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(list_rules())
    wait_for(lambda: all_rules(loaded, "health") == {"ok"})
    assert {rule.get("lastError") for rule in rules} == {None}


def test_a_storm_of_retries_is_seen_and_fires_its_alert(
    storm_url: str, prometheus: Prometheus
) -> None:
    publish(storm_url, [("charges", {"id": number}) for number in range(1_000)])
    alert = wait_for_alert(prometheus, "QConsumeRetryStorm", consumer="charge")
    assert "consumer charge retries" in alert["annotations"]["summary"]
    # Each message is retried twice, before its last attempt.
    wait_for_outcomes(prometheus, "retry", 2_000)
    wait_for_outcomes(prometheus, "reject", 1_000)
    wait_for_alert(prometheus, "QConsumeErrorRate", consumer="charge")
    wait_for_alert(prometheus, "QConsumeDeadLetters", consumer="charge")


def test_a_blocked_event_loop_is_seen_and_fires_its_alert(
    storm_url: str, prometheus: Prometheus
) -> None:
    # Longer than needed: the worker is killed at the end.
    publish(storm_url, [("computations", 60.0)])
    alert = wait_for_alert(prometheus, "QConsumeWorkerStalled", kind="blocked")
    assert alert["annotations"]["summary"].endswith("does not work (blocked).")


def publish(url: str, messages: list[tuple[str, t.Any]]) -> None:
    """Publish messages of :mod:`.storm_app` on a broker."""
    app = Flask(__name__)
    app.config["QCONSUME_BROKER_URL"] = url
    qconsume = QConsume(app)
    with app.app_context():
        qconsume.publish_many(messages)


def wait_for_alert(
    prometheus: Prometheus, name: str, **labels: str
) -> dict[str, t.Any]:
    """Wait until an alert fires with these labels."""
    wanted = {"alertname": name, **labels}

    def find() -> dict[str, t.Any] | None:
        for alert in prometheus.get("alerts")["data"]["alerts"]:
            if alert["state"] == "firing" and wanted.items() <= alert["labels"].items():
                return dict(alert)
        return None

    found = wait_for(find, timeout=45.0, interval=0.2, message=f"{wanted} fires")
    assert found is not None
    return found


def wait_for_outcomes(prometheus: Prometheus, outcome: str, number: int) -> None:
    """Wait until so many attempts of the storm have had an outcome, exactly."""
    query = f'qconsume_messages_total{{consumer="charge",outcome="{outcome}"}}'

    def count() -> int:
        return sum(int(each["value"][1]) for each in prometheus.query(query))

    wait_for(
        lambda: count() == number,
        timeout=60.0,
        interval=0.2,
        message=lambda: f"{number} of {query}: {count()}",
    )


def wait_until_all_have_data(
    shop: Shop, prometheus: Prometheus, queries: list[Query]
) -> None:
    """Wait until each query has had data, while orders come in."""
    left = list(queries)

    def is_complete() -> bool:
        for card in ("tok_visa", "tok_expired", "tok_silent"):
            shop.try_order(card=card)
        left[:] = [query for query in left if not has_data(prometheus, query.text)]
        return not left

    wait_for(is_complete, timeout=45.0, interval=0.5, message=lambda: describe(left))


def describe(queries: list[Query]) -> str:
    return "\n".join(["no data:", *(f"{q.place}: {q.text}" for q in queries)])


def has_data(prometheus: Prometheus, query: str) -> bool:
    """Return whether a query has a value that is a number."""
    return any(each["value"][1] != "NaN" for each in prometheus.query(query))


def is_tried(query: Query) -> bool:
    return not any(part in query.text for part in WITHOUT_DATA)


def all_rules(prometheus: Prometheus, key: str) -> set[str]:
    groups = prometheus.get("rules")["data"]["groups"]
    return {rule[key] for group in groups for rule in group["rules"]}
