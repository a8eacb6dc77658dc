"""The process of a contender: ``python -m benchmarks.contender NAME DO JOB``.

``DO`` is ``fill``, ``drain``, ``left`` or ``publish``; ``JOB`` is a job in JSON.
"""

from __future__ import annotations

import sys

from . import plain
from .contenders import find
from .job import Job


def main(name: str, do: str, text: str) -> None:
    job = Job.from_json(text)
    contender = find(name)
    function = getattr(contender, do, None) or getattr(plain, do)
    found = function(job)
    if found is not None:
        print(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
