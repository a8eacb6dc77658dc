"""The app of several processes: each message adds a byte to one file.

Run it by ``flask --app benchmarks.counted_app``; the environment configures it.
"""

from __future__ import annotations

import os
import pathlib
import time
import typing as t

from .contenders.us import app_with
from .job import Job

JOB = "BENCHMARK_JOB"
#: The file whose length is the number of messages handled by all processes.
COUNTER = "BENCHMARK_COUNTER"
#: Handlers wait until this file exists.
GATE = "BENCHMARK_GATE"

#: Seconds between two checks for this file.
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
