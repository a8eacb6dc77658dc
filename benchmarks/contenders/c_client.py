"""A client in C, librabbitmq in a bare loop: each message acknowledged.

It needs a compiler and the library's headers (``librabbitmq-dev``). It decodes nothing.
"""

from __future__ import annotations

import pathlib
import subprocess
import tempfile
import urllib.parse

from ..job import Job

TITLE = "C, librabbitmq"
BROKERS = ("rabbitmq", "rabbitmq-quorum")


def drain(job: Job) -> None:
    source = pathlib.Path(__file__).with_suffix(".c")
    url = urllib.parse.urlsplit(job.url)
    where = [str(url.hostname), str(url.port), urllib.parse.unquote(url.path[1:])]
    numbers = [str(job.count), str(job.warm_up), str(job.prefetch)]
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        program = f"{folder}/c_client"
        compiling = ["cc", "-O2", "-o", program, str(source), "-lrabbitmq"]
        subprocess.run(compiling, check=True)
        subprocess.run([program, *where, job.queue, *numbers], check=True)
