"""flask_qconsume with ``QCONSUME_METRICS``, to be compared with ``us`` in one run."""

from __future__ import annotations

import dataclasses

from ..job import Job
from . import us

TITLE = "flask_qconsume, with metrics"
BROKERS = us.BROKERS

fill = us.fill
left = us.left


def drain(job: Job) -> None:
    us.drain(dataclasses.replace(job, metrics=True))


def publish(job: Job) -> None:
    us.publish(dataclasses.replace(job, metrics=True))
