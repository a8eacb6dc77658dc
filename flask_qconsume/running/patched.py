"""Whether gevent patched this process. Must not import gevent to find out."""

from __future__ import annotations

import sys


def is_patched() -> bool:
    """Whether gevent patched this process; without importing gevent."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))
