"""Standard streams of a process that was started without some of them, as by ``2>&-``.

Python has ``None`` in their place, and the next file or socket gets their descriptor:
what a library in C writes to the standard error stream would then go to the broker.
"""

from __future__ import annotations

import os
import sys

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_missing_streams() -> None:
    """Open the null device in their place, for this process and for its children."""
    for name, mode in _STREAMS:
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115 (it stays open)
            # 'open' takes the lowest descriptor that is free, which is the missing one.
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
