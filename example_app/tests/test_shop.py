"""The whole shop over HTTP, the same on every broker: only the URL differs."""

from __future__ import annotations

import contextlib
import pathlib
import re
import sqlite3
import time
import typing as t
from multiprocessing.pool import ThreadPool

import pytest

from tests.waiting import wait_for

from .running import Shop


class OrderTests:
    """Orders of a customer, on any broker."""

    @pytest.fixture
    def broker_url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def shop(self, tmp_path: pathlib.Path, broker_url: str) -> t.Iterator[Shop]:
        with Shop(tmp_path, broker_url) as shop:
            yield shop

    def test_an_order_is_billed_mailed_and_reserved(self, shop: Shop) -> None:
        number = shop.order()
        order = shop.wait_until(number, "billed", "mail.sent", "stock.reserved")
        assert order["status"] == "billed"
        assert [m["subject"] for m in shop.get("/mail/")] == ["Thank you for order 1"]
        entries = wait_for(
            lambda: len(shop.get("/audit/")) >= 4 and shop.get("/audit/")
        )
        assert len({entry["request_id"] for entry in entries}) == 1
        assert shop.stop() == 0
        assert "Stopped cleanly" in shop.output()

    def test_failures_are_retried_then_dead_letters_that_can_be_replayed(
        self, shop: Shop
    ) -> None:
        unanswered = shop.order(card="tok_silent")
        declined = shop.order(card="tok_expired")
        shop.wait_until(unanswered, "rejected", "mail.sent")
        assert list_events(shop, unanswered) == [
            "placed",
            *["retried", "retried", "rejected"],
            "mail.sent",
        ]
        shop.wait_until(declined, "rejected", "mail.sent")
        shop.post("/orders/broken")
        page = wait_for(lambda: self.dead_letters(shop, 3), message=shop.output)
        assert "failed 3 of 3 attempts" in page
        assert "the bank declined the card" in page
        assert "the schema refused it" in page
        for action in re.findall(r'formaction="([^"]+/discard)"', page):
            if "failed 3 of 3" not in page.partition(action)[0].split("<article")[-1]:
                shop.post(action)
        page = wait_for(lambda: self.dead_letters(shop, 1), message=shop.output)
        (replay,) = re.findall(r'formaction="([^"]+/replay)"', page)
        shop.post(replay)
        # The bank does not answer again: three more attempts, and a dead letter.
        wait_for(
            lambda: (
                list_events(shop, unanswered)[5:] == ["retried", "retried", "rejected"]
            ),
            message=shop.output,
        )
        wait_for(lambda: self.dead_letters(shop, 1), message=shop.output)
        assert shop.stop() == 0

    def test_a_product_that_runs_low_is_delivered_later(self, shop: Shop) -> None:
        shop.order(items=[{"product_id": 2, "quantity": 5}])
        # 12 - 5 is below 10, so the supplier delivers 25.
        wait_for(
            lambda: shop.get("/stock/")[1]["in_stock"] == 32,
            timeout=30.0,
            message=shop.output,
        )
        assert shop.stop() == 0

    def test_concurrent_orders_get_no_more_than_the_stock(
        self, tmp_path: pathlib.Path, broker_url: str
    ) -> None:
        teapots = [{"product_id": 4, "quantity": 2}]
        with Shop(tmp_path, broker_url, supplier_seconds=600.0) as shop:
            with ThreadPool(12) as customers:
                tried = customers.map(
                    lambda _: shop.try_order(items=teapots), range(12)
                )
            placed = [number for number in tried if number is not None]
            ends = [
                shop.wait_until_either(number, "stock.reserved", "rejected")
                for number in placed
            ]
            # The stock was 6 teapots.
            assert ends.count("stock.reserved") == 3
            assert shop.get("/stock/")[3]["in_stock"] == 0
            assert shop.stop() == 0

    @staticmethod
    def dead_letters(shop: Shop, number: int) -> str | None:
        page = shop.page("/dead-letters/")
        return page if page.count('<article class="letter">') == number else None


class SharedBrokerTests(OrderTests):
    """The same, and two processes that share a broker."""

    def test_two_processes_share_the_work(
        self, tmp_path: pathlib.Path, broker_url: str
    ) -> None:
        with Shop(tmp_path, broker_url, "--processes", "2") as shop:
            orders = [shop.order() for _ in range(20)]
            for number in orders:
                shop.wait_until(number, "billed", "mail.sent", "stock.reserved")
            assert len(shop.get("/mail/")) == 20
            assert shop.stop() == 0


@pytest.mark.process
class TestInMemory(OrderTests):
    @pytest.fixture
    def broker_url(self) -> str:
        return "memory://"

    def test_the_audit_shows_the_latency_of_each_message(self, shop: Shop) -> None:
        start = time.monotonic()
        for _ in range(10):
            shop.wait_until(shop.order(), "billed", "mail.sent", "stock.reserved")
        latencies = [
            entry["latency_ms"] / 1000
            for entry in shop.get("/audit/")
            if entry["routing_key"] == "order.placed"
        ]
        assert len(latencies) == 10
        # The orders were placed one after the other.
        assert 0 < sum(latencies) < time.monotonic() - start


@pytest.mark.process
class TestOnSQLite(SharedBrokerTests):
    @pytest.fixture
    def broker_url(self, tmp_path: pathlib.Path) -> str:
        return f"sqlite:///{tmp_path / 'qconsume.db'}"

    def test_messages_that_wait_outlive_a_stop(
        self, tmp_path: pathlib.Path, broker_url: str
    ) -> None:
        with Shop(tmp_path, broker_url) as shop:
            number = shop.order(card="tok_silent")
            shop.wait_until(number, "retried")
            assert shop.stop() == 0
        with Shop(tmp_path, broker_url) as shop:
            shop.wait_until(number, "rejected")

    @pytest.mark.parametrize("processes", [1, 2])
    def test_an_order_that_is_killed_in_the_middle_of_its_payment_is_charged_once(
        self, tmp_path: pathlib.Path, broker_url: str, processes: int
    ) -> None:
        options = ("--processes", str(processes)) if processes > 1 else ()
        slow = {"FLASK_SHOP_GATEWAY_SECONDS": "60"}
        with Shop(tmp_path, broker_url, *options, environment=slow) as shop:
            number = shop.order()
            wait_for(
                lambda: find_charges(tmp_path) == [(f"order-{number}", 1380, 1)],
                message=shop.output,
            )
            shop.kill()
        assert find_payments(tmp_path) == []
        with Shop(tmp_path, broker_url, *options) as shop:
            order = shop.wait_until(number, "billed", "mail.sent", "stock.reserved")
            assert [event["name"] for event in order["events"]].count("billed") == 1
            assert "charged at an earlier attempt" in order["events"][1]["detail"]
            assert shop.stop() == 0
        # The gateway was asked twice by the same key.
        assert find_charges(tmp_path) == [(f"order-{number}", 1380, 2)]
        assert find_payments(tmp_path) == [(number, 1380)]


@pytest.mark.process
class TestWithoutBroker:
    def test_orders_are_saved_and_published_once_a_broker_runs(
        self, tmp_path: pathlib.Path
    ) -> None:
        unreachable = "redis://127.0.0.1:1/0"
        with Shop(tmp_path, unreachable, publish_timeout=1.0) as shop:
            number = shop.order()
            assert shop.stop() == 0
        with Shop(tmp_path, unreachable, publish_timeout=1.0) as shop:
            assert "the next start tries again" in shop.output()
            assert shop.stop() == 0
        with Shop(tmp_path, "memory://") as shop:
            shop.wait_until(number, "billed", "mail.sent")


class TestOnPostgreSQL(SharedBrokerTests):
    @pytest.fixture
    def broker_url(self, postgresql_url: str) -> str:
        return postgresql_url


class TestOnRabbitMQ(SharedBrokerTests):
    @pytest.fixture
    def broker_url(self, rabbitmq_url: str) -> str:
        return rabbitmq_url


class TestOnRedis(SharedBrokerTests):
    @pytest.fixture
    def broker_url(self, redis_url: str) -> str:
        return redis_url


def find_charges(folder: pathlib.Path) -> list[t.Any]:
    """Find the charges on the gateway's books, with the requests for each."""
    return read_rows(folder, "SELECT key, amount, requests FROM charge")


def find_payments(folder: pathlib.Path) -> list[t.Any]:
    """Find the payments that the shop knows of."""
    return read_rows(folder, "SELECT order_id, amount FROM payment")


def read_rows(folder: pathlib.Path, query: str) -> list[t.Any]:
    with contextlib.closing(sqlite3.connect(folder / "shop.sqlite")) as database:
        return database.execute(query).fetchall()


def list_events(shop: Shop, number: int) -> list[str]:
    """List the names of an order's events."""
    return [event["name"] for event in shop.get(f"/orders/{number}")["events"]]
