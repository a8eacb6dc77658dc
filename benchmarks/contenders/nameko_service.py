"""Nameko's Consumer entrypoint, over eventlet."""

from __future__ import annotations

import typing as t

from ..job import Job
from ..tally import Tally

TITLE = "Nameko"
BROKERS = ("rabbitmq",)


def drain(job: Job) -> None:
    import eventlet

    eventlet.monkey_patch()
    from kombu import Queue
    from nameko.containers import ServiceContainer
    from nameko.messaging import consume

    tally = Tally(job)

    class Service:
        name = "benchmark"

        @consume(Queue(job.queue, no_declare=True))
        def handle(self, order: t.Any) -> None:
            if job.work:
                eventlet.sleep(job.work)
            tally.one()

    config = {
        "AMQP_URI": job.url,
        "max_workers": job.concurrency,
        "prefetch_count": job.prefetch,
    }
    container = ServiceContainer(Service, config=config)
    container.start()
    container.wait()
