"""The app that several processes run: each message adds a byte to one file.

``flask --app benchmarks.counted_app``; what is to be done stands in the environment.
"""

from __future__ import annotations

import os
import pathlib
import time
import typing as t

from .contenders.us import app_with
from .job import Job

JOB = "BENCHMARK_JOB"
#: The file; its length is how many messages were handled, by all processes.
COUNTER = "BENCHMARK_COUNTER"
#: Nothing is handled before there is this file.
GATE = "BENCHMARK_GATE"

#: Seconds between two looks for it.
_LOOK = 0.02


def create_app() -> t.Any:
    job = Job.from_json(os.environ[JOB])
    counter = os.open(os.environ[COUNTER], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    gate = pathlib.Path(os.environ[GATE])
    opened = False

    def handle(order: t.Any) -> None:
        nonlocal opened
        while not opened:
            opened = gate.exists()
            time.sleep(0 if opened else _LOOK)
        if job.work:
            time.sleep(job.work)
        os.write(counter, b".")

    return app_with(job, handle)
