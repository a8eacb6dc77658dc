"""Blocking calls of Kafka's client, and their results."""

from __future__ import annotations

import typing as t
from concurrent.futures import Future

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import KafkaException

from flask_qconsume import BrokerUnavailable
from flask_qconsume.brokers.kafka.client.calls import call_for_results
from flask_qconsume.native_threads import NativeThread
from flask_qconsume.native_threads import get_thread_id

from ....harness.scripts import run_script


class Watched(Future[t.Any]):
    """A future that notes which threads take its lock."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()
        held = self._condition

        class Noted:
            def __enter__(_) -> t.Any:
                self.seen.add(get_thread_id())
                return held.__enter__()

            def __exit__(_, *args: t.Any) -> None:
                held.__exit__(*args)

            def __getattr__(_, name: str) -> t.Any:
                return getattr(held, name)

        self._condition = t.cast(t.Any, Noted())


def test_no_greenlet_takes_a_lock_that_the_clients_thread_takes() -> None:
    """When both waited for it, the hub ended: it knew of no thread to wait for."""
    future = Watched()
    fulfilling: list[int] = []

    def fulfil() -> None:
        fulfilling.append(get_thread_id())
        future.set_result("there")

    def ask() -> dict[str, Future[t.Any]]:
        NativeThread(fulfil, "client").start()
        return {"topic": future}

    assert call_for_results(ask, 10) == {"topic": "there"}
    assert fulfilling[0] in future.seen
    assert get_thread_id() not in future.seen


def test_an_error_of_kafkas_is_an_answer_and_any_other_is_raised() -> None:
    refused = KafkaException(KafkaError(KafkaError.TOPIC_ALREADY_EXISTS))
    assert call_for_results(lambda: {"topic": _failed(refused)}, 10) == {
        "topic": refused
    }
    with pytest.raises(ZeroDivisionError):
        call_for_results(lambda: {"topic": _failed(ZeroDivisionError())}, 10)


def test_what_cannot_be_asked_is_raised_translated() -> None:
    def ask() -> dict[str, Future[t.Any]]:
        raise KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN))

    with pytest.raises(BrokerUnavailable):
        call_for_results(ask, 10)


def test_an_answer_that_does_not_come_is_an_error_in_time() -> None:
    done: Future[str] = Future()
    done.set_result("there")
    with pytest.raises(BrokerUnavailable, match="did not answer within 0.05 s"):
        call_for_results(lambda: {"here": done, "never": Future()}, 0.05)


def _failed(error: Exception) -> Future[t.Any]:
    future: Future[t.Any] = Future()
    future.set_exception(error)
    return future


@pytest.mark.process
def test_a_fork_waits_for_the_first_connections_of_a_new_client() -> None:
    run = run_script(
        """
import os, time
from confluent_kafka import Producer
from flask_qconsume.brokers.kafka.client import calls

began = time.monotonic()
client = calls.create_client(Producer, {"bootstrap.servers": "127.0.0.1:1"})
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
print(time.monotonic() - began >= calls.FIRST_LOOKUPS_SECONDS)
"""
    )
    assert run.stdout == "True\n", run.stderr
