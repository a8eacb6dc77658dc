"""Redis as kombu's list transport lays it out: any kombu producer or consumer fits."""

from __future__ import annotations

from .broker import RedisLists as RedisLists
from .link import LeaseLost as LeaseLost

__all__ = ["LeaseLost", "RedisLists"]
