"""Replaces standard streams that a process was started without, as by ``2>&-``.

Python has ``None`` in the place of a missing stream, and the next file or socket gets
its descriptor: a library in C that writes to standard error would write to the broker.
"""

from __future__ import annotations

import os
import sys

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_missing_streams() -> None:
    """Open the null device in place of each missing standard stream."""
    for name, mode in _STREAMS:
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115 (it stays open)
            # 'open' takes the lowest free descriptor, which is that of the stream.
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
