"""Kafka: a consumer group for each queue, a topic for each routing key.

The group's commits tell which messages are handled, and which are in flight. Retries,
suspects and dead letters lie in topics of our own.
"""

from .broker import Kafka

__all__ = ["Kafka"]
