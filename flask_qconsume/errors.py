"""The exceptions of this package, as a tree. Standard library only.

::

    QConsumeError (Exception)
    ├── ConfigurationError (ValueError)         a QCONSUME_* key or an argument is wrong
    ├── RegistrationError (RuntimeError)        a consumer or hook cannot be registered
    ├── UnknownConsumer (LookupError)           no consumer of that name
    ├── WorkerError (RuntimeError)              a worker cannot start here or now
    ├── BrokerError
    │   ├── BrokerUnavailable (ConnectionError) no connection, or it was lost
    │   │   └── BrokerAway                      away for a while: not tried again
    │   ├── BrokerRefused                       credentials or permissions
    │   ├── TopologyMismatch                    a queue exists with other arguments
    │   ├── UnsupportedByBroker (NotImplementedError)
    │   └── PublishError
    │       ├── Unroutable                      no queue is bound for the message
    │       ├── PublishRefused                  the broker refused the message
    │       └── PublishTimeout (TimeoutError)   no confirmation in time
    └── InvalidMessage                          rejected before the handler saw it
        ├── UndecodableMessage                  the body cannot be decoded
        └── MessageTooLarge

    HandlerTimeout (BaseException)              thrown into a handler at its time limit
    Interrupted (BaseException)                 thrown into a handler by the stop

The last two are not subclasses of :class:`Exception` on purpose: a handler's ``except
Exception`` must not swallow them. :class:`asyncio.CancelledError` and
``gevent.Timeout`` are no subclasses either.
"""

from __future__ import annotations

import typing as t


class QConsumeError(Exception):
    """The base of every error of this package."""


class ConfigurationError(QConsumeError, ValueError):
    """A configuration key or an argument is missing, unknown or wrong."""


class RegistrationError(QConsumeError, RuntimeError):
    """A consumer, a hook or an error handler cannot be registered like this."""


class UnknownConsumer(QConsumeError, LookupError):
    """The app has no consumer of that name."""


class WorkerError(QConsumeError, RuntimeError):
    """A worker cannot start, in this process or at this time."""


class BrokerError(QConsumeError):
    """The broker cannot be reached, or refuses an operation."""


class BrokerUnavailable(BrokerError, ConnectionError):
    """The connection to the broker failed or was lost. Trying again may help."""

    #: Whole seconds after which to try again, for the HTTP header ``Retry-After``.
    retry_after: int = 1


class BrokerAway(BrokerUnavailable):
    """The broker has not answered for some time, so nothing was sent to it.

    ``publish`` raises this at once, without waiting for the broker; see
    ``QCONSUME_AWAY_AFTER``.

    :param retry_after: Whole seconds after which the broker is tried again.
    """

    def __init__(self, text: str, retry_after: int = 1) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class BrokerRefused(BrokerError):
    """The broker refused the credentials, the virtual host or a permission."""


class TopologyMismatch(BrokerError):
    """A queue or exchange of the same name exists, with other arguments."""


class UnsupportedByBroker(BrokerError, NotImplementedError):
    """This kind of broker lacks a feature that was asked for; nothing was done."""


class PublishError(BrokerError):
    """A message was not confirmed by the broker."""

    #: After ``publish_many``: ``None`` for each confirmed message, else its error.
    errors: t.Sequence[Exception | None] = ()


class Unroutable(PublishError):
    """No queue is bound for a message's routing key, so no consumer would get it."""


class PublishRefused(PublishError):
    """The broker refused a message, for example because a queue is full."""


class PublishTimeout(PublishError, TimeoutError):
    """The broker did not confirm a message in time, and may or may not have it."""

    #: Whole seconds after which to try again, for the HTTP header ``Retry-After``.
    retry_after: int = 1


class InvalidMessage(QConsumeError):
    """The message was rejected before its handler saw it.

    :param reason: A short sentence.
    :param details: The schema's errors, if a schema refused the body.
    """

    def __init__(self, reason: str, details: t.Any = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.details = details


class UndecodableMessage(InvalidMessage):
    """The body cannot be decoded by the message's content type."""


class MessageTooLarge(InvalidMessage):
    """The body is larger than ``QCONSUME_MAX_MESSAGE_SIZE``."""


class HandlerTimeout(BaseException):
    """The exception that is thrown into a handler when its time limit is over.

    It is not an :class:`Exception`, so ``except Exception`` in the handler does not
    swallow it. A handler that swallows it by other means counts as timed out, too.

    :param seconds: The time limit.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the handler took longer than its {seconds:g} s")
        self.seconds = seconds


class Interrupted(BaseException):
    """The exception that is thrown into a handler at the deadline of a stop.

    Its message goes back to the broker, and the attempt does not count.
    """
