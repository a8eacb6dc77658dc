"""Redis as kombu's list transport lays it out: any kombu producer or consumer fits."""

from __future__ import annotations

from ..redis.link import LeaseLost as LeaseLost
from .broker import RedisLists as RedisLists

__all__ = ["LeaseLost", "RedisLists"]
