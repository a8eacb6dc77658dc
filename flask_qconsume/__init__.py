"""Flask-QConsume: consumers of message queues, registered like views.

Importing this imports neither gevent nor any of kombu's transports.
"""

from __future__ import annotations

import typing as t

from .appconsumers import AppConsumers
from .appconsumers import get_app_consumers
from .blueprint import ConsumerBlueprint
from .broker.compose import PublishOptions
from .errors import BrokerAway
from .errors import BrokerError
from .errors import BrokerRefused
from .errors import BrokerUnavailable
from .errors import ConfigurationError
from .errors import HandlerTimeout
from .errors import Interrupted
from .errors import InvalidMessage
from .errors import MessageTooLarge
from .errors import PublishError
from .errors import PublishRefused
from .errors import PublishTimeout
from .errors import QConsumeError
from .errors import RegistrationError
from .errors import TopologyMismatch
from .errors import UndecodableMessage
from .errors import UnknownConsumer
from .errors import Unroutable
from .errors import UnsupportedByBroker
from .errors import WorkerError
from .extension import QConsume
from .formats.base import Format
from .formats.protobuf import Protobuf
from .handling import signals
from .handling.context import current_message
from .message import TOMBSTONE
from .message import Message
from .outcomes import Ack
from .outcomes import Drop
from .outcomes import Outcome
from .outcomes import Reject
from .outcomes import Retry
from .registration.consumer import ConsumerOptions
from .registration.scaffold import ConsumerScaffold
from .retry import RetryPolicy
from .version import VERSION

__version__ = VERSION

__all__ = [
    "Ack",
    "AppConsumers",
    "BrokerAway",
    "BrokerError",
    "BrokerRefused",
    "BrokerUnavailable",
    "ConfigurationError",
    "ConsumerBlueprint",
    "ConsumerOptions",
    "ConsumerScaffold",
    "Drop",
    "Format",
    "HandlerTimeout",
    "Interrupted",
    "InvalidMessage",
    "Message",
    "MessageTooLarge",
    "Outcome",
    "Protobuf",
    "PublishError",
    "PublishOptions",
    "PublishRefused",
    "PublishTimeout",
    "QConsume",
    "QConsumeError",
    "RegistrationError",
    "Reject",
    "Retry",
    "RetryPolicy",
    "TOMBSTONE",
    "TopologyMismatch",
    "UndecodableMessage",
    "UnknownConsumer",
    "Unroutable",
    "UnsupportedByBroker",
    "WorkerError",
    "current_message",
    "get_app_consumers",
    "signals",
    "spawn",
]


def __getattr__(name: str) -> t.Any:
    # 'spawn' imports gevent, which a process that only publishes does not need.
    if name == "spawn":
        from .running.spawn import spawn

        return spawn
    raise AttributeError(f"module 'flask_qconsume' has no attribute '{name}'")
