"""RabbitMQ, over kombu's pyamqp transport."""

from __future__ import annotations

from .broker import RabbitMQ as RabbitMQ
