"""Makes Python's garbage collector run less often in a worker's own process.

By default the collector runs once a few hundred objects more were created than freed.
With a few hundred messages in hand, that is every few messages. It finds no garbage
then, since messages are freed by their reference counts, and it took a seventh of the
time per message.
"""

from __future__ import annotations

import gc

#: How many objects more must be created than freed before the collector runs. Python's
#: default is 700, or 2,000 from 3.13 on.
_THRESHOLD = 10_000


def collect_less_often() -> None:
    """Raise the threshold of the garbage collector, and exempt existing objects.

    Does nothing if the threshold is as high already, or if the collector is off.
    """
    first, *rest = gc.get_threshold()
    if not 0 < first < _THRESHOLD:
        return
    gc.collect()
    gc.freeze()
    gc.set_threshold(_THRESHOLD, *rest)
