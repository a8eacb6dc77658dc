"""The app that several processes run: each message adds a byte to one file.

``flask --app benchmarks.counted_app``; what is to be done stands in the environment.
"""

from __future__ import annotations

import os
import time
import typing as t

from .contenders.us import app_with
from .job import Job

JOB = "BENCHMARK_JOB"
#: The file; its length is how many messages were handled, by all processes.
COUNTER = "BENCHMARK_COUNTER"


def create_app() -> t.Any:
    job = Job.from_json(os.environ[JOB])
    counter = os.open(os.environ[COUNTER], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def handle(order: t.Any) -> None:
        if job.work:
            time.sleep(job.work)
        os.write(counter, b".")

    return app_with(job, handle)
