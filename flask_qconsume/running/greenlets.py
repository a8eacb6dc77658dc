"""Greenlets of our own, which nothing but their own code ends.

Code that kills all the greenlets it can find would otherwise cut off a write, or end
for good what reads, settles or watches. Time-outs pass: gevent implements the waits of
our own code by them. Knows no messages.
"""

from __future__ import annotations

import typing as t

import gevent

from ..logs import logger_named

logger = logger_named("flask_qconsume.greenlets")


class _End(gevent.GreenletExit):  # type: ignore[misc]
    """Thrown by :meth:`ProtectedGreenlet.end`."""


class ProtectedGreenlet(gevent.Greenlet):  # type: ignore[misc]
    """A greenlet that ends when its function does, or by :meth:`end`."""

    def throw(self, *args: t.Any) -> None:
        """Called by gevent, in the hub: for ``kill``, and for a time-out."""
        if _kills(*args):
            # Apart, since log handlers may wait, and the hub must not.
            gevent.spawn(_log_kill, self)
        else:
            super().throw(*args)

    def end(self, *, block: bool = True) -> None:
        """Kill it."""
        self.kill(_End, block=block)


def _kills(error: t.Any = gevent.GreenletExit, *_: t.Any) -> bool:
    kind = error if isinstance(error, type) else type(error)
    return issubclass(kind, gevent.GreenletExit) and kind is not _End


def _log_kill(greenlet: gevent.Greenlet) -> None:
    logger.warning(
        "Something killed %s, a greenlet of ours. It goes on; kill no greenlets but"
        " your own.",
        getattr(greenlet, "name", greenlet),
    )
