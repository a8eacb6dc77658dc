"""An app on the memory broker, and a worker that is stopped with its test."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask

from flask_qconsume import QConsume
from flask_qconsume.extension import AppConsumers
from flask_qconsume.running.worker import Worker


class AppWithWorkers:
    """An app under test: register on ``qconsume``, then ``start()``."""

    def __init__(self, **config: t.Any) -> None:
        self.config: dict[str, t.Any] = {
            "TESTING": True,  # Publishes before a worker begins.
            "QCONSUME_BROKER_URL": "memory://",
            "QCONSUME_RETRY": {"min_delay": 0.01, "max_delay": 0.02},
            "QCONSUME_SHUTDOWN_TIMEOUT": 5,
            **config,
        }
        self.qconsume = QConsume()
        self.workers: list[Worker] = []
        self._app: Flask | None = None

    @property
    def app(self) -> Flask:
        if self._app is None:
            self._app = Flask("app")
            self._app.config.from_mapping(self.config)
            self.qconsume.init_app(self._app)
        return self._app

    @property
    def consumers(self) -> AppConsumers:
        return t.cast(AppConsumers, self.app.extensions["qconsume"])

    def publish(self, routing_key: str, body: t.Any = None, **options: t.Any) -> str:
        return self.consumers.publish(routing_key, body, **options)

    def start(self, *names: str, **options: t.Any) -> Worker:
        worker = Worker(self.app, names, **options)
        self.workers.append(worker)
        worker.start()
        return worker

    def dead(self, queue: str) -> list[t.Any]:
        plan = self.consumers.topology.queue(queue)
        return list(self.consumers.broker.dead_letters(plan))


@pytest.fixture
def worker_app() -> t.Iterator[AppWithWorkers]:
    made = AppWithWorkers()
    yield made
    for worker in made.workers:
        if not worker.stopping.is_set():
            worker.stop(timeout=0)
