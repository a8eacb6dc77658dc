"""Redis in the layout of kombu's list transport, so that kombu's programs fit."""

from __future__ import annotations

from ..redis.link import LeaseLost as LeaseLost
from .broker import RedisLists as RedisLists

__all__ = ["LeaseLost", "RedisLists"]
