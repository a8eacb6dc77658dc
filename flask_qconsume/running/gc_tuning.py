"""How often Python looks for garbage in a process that is a worker's own.

It looks once some hundred more objects were made than died. With some hundred messages
in hand, all of which die by themselves, that is every few messages, and in vain: a
seventh of what a message costs. Knows no messages.
"""

from __future__ import annotations

import gc

#: How many more objects; Python's own is 700, or 2,000 from 3.13 on.
_MORE = 10_000


def look_less_often() -> None:
    """Look after more objects, and no more among those that are there already.

    Who has set more, or wants no garbage to be looked for, knows why.
    """
    first, *rest = gc.get_threshold()
    if not 0 < first < _MORE:
        return
    gc.collect()
    gc.freeze()
    gc.set_threshold(_MORE, *rest)
