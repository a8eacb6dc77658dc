"""Kafka: a consumer group for each queue, a topic for each routing key.

The group's commits record which messages are handled, and which are in flight. Retries,
dead letters and suspects (messages that were in flight when a process died) are kept in
topics that this package creates.
"""

from .broker import Kafka

__all__ = ["Kafka"]
