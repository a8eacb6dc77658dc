"""Kafka: a consumer group for each queue, a topic for each routing key.

What was handled is known by the commits of the group, in which also stands what is in
flight; what is to be handled again, apart, or not at all lies in topics of ours.
"""

from .broker import Kafka

__all__ = ["Kafka"]
