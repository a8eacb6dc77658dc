"""River, in Go: its client, with commits that it makes in batches.

It needs Go, and modules from Go's proxy when it is built for the first time.
"""

from __future__ import annotations

import functools
import os
import pathlib
import subprocess

from ..job import Job

TITLE = "River, in Go"
BROKERS = ("postgresql",)

_SOURCE = pathlib.Path(__file__).with_name("river")


@functools.cache
def _program() -> str:
    """Build the program, and return its path; Go keeps what it has built."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    program = str(cache / "flask_qconsume" / "benchmark-river")
    subprocess.run(["go", "build", "-o", program, "."], cwd=_SOURCE, check=True)
    return program


def _run(do: str, job: Job) -> None:
    subprocess.run([_program(), do, job.to_json()], check=True)


fill = functools.partial(_run, "fill")
left = functools.partial(_run, "left")
drain = functools.partial(_run, "drain")
publish = functools.partial(_run, "publish")
publish_many = functools.partial(_run, "many")
declare = functools.partial(_run, "declare")
listen = functools.partial(_run, "listen")
pace = functools.partial(_run, "pace")
