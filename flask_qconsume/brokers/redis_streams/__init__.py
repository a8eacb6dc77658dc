"""Queues as Redis Streams, read by a consumer group; any program may XADD to them."""

from __future__ import annotations

from .broker import RedisStreams as RedisStreams

__all__ = ["RedisStreams"]
