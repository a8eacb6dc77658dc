"""flask_qconsume at rest, and its imports alone, for `benchmarks.idle`."""

from __future__ import annotations

import gc
import importlib
import os
import time
import typing as t

from ..job import Job
from ..tally import cpu
from ..tally import memory
from . import us

TITLE = "flask_qconsume, idle"
BROKERS = us.BROKERS

#: Most seconds of a start, with dozens of connections.
_START = 120.0

#: Seconds to wait after the start, until its work is done.
_SETTLED = 3.0

#: Third-party modules that a worker imports, for each app and for each broker.
_COMMON = (
    "flask",
    "gevent",
    "gevent.monkey",
    "gevent.pool",
    "gevent.event",
    "gevent.pywsgi",
    "marshmallow",
    "msgpack",
    "msgspec",
    "kombu",
)
_CLIENTS = {
    "rabbitmq": ("amqp", "kombu.transport.pyamqp"),
    "redis": ("redis", "kombu.transport.redis"),
    "redis-streams": ("redis", "kombu.transport.redis"),
    "kafka": ("confluent_kafka", "confluent_kafka.admin"),
    "memory": (),
    "postgresql": ("sqlalchemy", "psycopg"),
    "sqlite": ("sqlalchemy", "sqlite3"),
}


def rest(job: Job) -> str:
    """Start an idle worker; return its share of a processor, and its memory."""
    from gevent import monkey

    monkey.patch_all()
    from flask_qconsume.running.worker import Worker

    worker = Worker(us.app_of(job, None))
    worker.start()
    for subscription in worker.subscriptions:
        if not subscription.consuming.wait(_START):
            raise SystemExit(f"{subscription.name} does not consume.")
    time.sleep(_SETTLED)
    began, used, others = time.perf_counter(), cpu(), _server_cpu()
    time.sleep(job.rest)
    seconds = time.perf_counter() - began
    found = _said((cpu() - used) / seconds, (_server_cpu() - others) / seconds)
    worker.stop()
    return found


def _server_cpu() -> float:
    """Return the seconds of processor time of the benchmark's server so far."""
    import psutil

    benchmark = psutil.Process(os.getppid())
    others = [each for each in benchmark.children(True) if each.pid != os.getpid()]
    return sum(sum(each.cpu_times()[:2]) for each in others)


def bare(job: Job) -> str:
    """Return the memory of a process with the same imports and an app."""
    from gevent import monkey

    monkey.patch_all()
    for name in (*_COMMON, *_CLIENTS[job.broker]):
        importlib.import_module(name)
    from flask import Flask

    app: t.Any = Flask("benchmark")
    with app.app_context():
        return _said(0.0)


def _said(share: float, server: float = 0.0) -> str:
    import json

    gc.collect()
    figures = {"share": share * 100, "server": server * 100, "memory": memory()}
    return json.dumps(figures)
