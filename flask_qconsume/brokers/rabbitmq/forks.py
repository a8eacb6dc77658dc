"""What threads do that find themselves in a forked child.

Only under gevent do they: there a thread is a greenlet, and a fork copies greenlets.
"""

from __future__ import annotations

import os
import threading


class Origin:
    """The process that something was made in."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def here(self) -> bool:
        """Whether this is still that process."""
        return os.getpid() == self._pid

    def stay_away(self) -> None:
        """Wait for ever, if this is a copy of a thread in a child.

        A thread that ends there is an error: the child's :mod:`threading` has forgotten
        it by then.
        """
        if not self.here:
            threading.Event().wait()
