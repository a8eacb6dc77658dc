"""Redis Streams, read by a consumer group; any program may add entries by XADD."""

from __future__ import annotations

from .broker import RedisStreams as RedisStreams

__all__ = ["RedisStreams"]
