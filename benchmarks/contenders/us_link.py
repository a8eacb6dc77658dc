"""flask_qconsume's link alone: it reads and acknowledges messages in batches."""

from __future__ import annotations

from ..job import Job
from ..tally import Tally
from . import us

TITLE = "flask_qconsume, link alone"
BROKERS = ("redis", "redis-streams")

fill = us.fill
left = us.left


def drain(job: Job) -> None:
    from gevent import monkey

    monkey.patch_all()
    from flask_qconsume.broker.link import Lane

    tally = Tally(job)
    consumers = us.app_of(job, None).extensions["qconsume"]
    plan = consumers.topology.queue(job.queue)
    link = consumers.broker.connect(plan, Lane.MAIN, job.prefetch)
    while True:
        found = link.read(job.prefetch)
        link.ack(found)
        for _ in found:
            tally.one()
