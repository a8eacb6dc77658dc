"""Queues as Redis lists in the layout of kombu's transport, so kombu can share them."""

from __future__ import annotations

from ...broker.link import LeaseLost as LeaseLost
from .broker import RedisLists as RedisLists

__all__ = ["LeaseLost", "RedisLists"]
