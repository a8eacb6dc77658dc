"""Turns of gevent's hub: a test shows with them that nothing has blocked it."""

from __future__ import annotations

import typing as t

import gevent


class Ticks:
    """Count turns of the hub, at most one every 10 ms, while the context lasts."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Ticks:
        self._timer = gevent.get_hub().loop.timer(0.01, repeat=0.01)
        self._timer.start(self._tick)
        return self

    def __exit__(self, *exception: t.Any) -> None:
        self._timer.stop()
        self._timer.close()

    def _tick(self) -> None:
        self.count += 1
