"""gevent alone: greenlets that wait like handlers, without messages.

gevent's loop counts in milliseconds, so that 10 ms take 10.7. No consumer on gevent can
be faster.
"""

from __future__ import annotations

import time

from ..job import Job
from ..tally import Tally

TITLE = "gevent, handlers without messages"
BROKERS = ("memory",)


def drain(job: Job) -> None:
    from gevent import monkey

    monkey.patch_all()
    import gevent

    tally = Tally(job)

    def handle() -> None:
        while True:
            time.sleep(job.work)
            tally.one()

    gevent.joinall([gevent.spawn(handle) for _ in range(job.concurrency)])
