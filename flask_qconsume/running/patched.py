"""Checks whether gevent has patched this process. Must not import gevent."""

from __future__ import annotations

import sys


def is_patched() -> bool:
    """Return whether gevent has patched this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))
