"""What can go wrong, as a tree of exceptions. Knows nothing but the standard library.

::

    QConsumeError (Exception)
    ├── ConfigurationError (ValueError)         a QCONSUME_* key or an argument is wrong
    ├── RegistrationError (RuntimeError)        a consumer or hook cannot be registered
    ├── UnknownConsumer (LookupError)           no consumer of that name
    ├── WorkerError (RuntimeError)              a worker cannot start here or now
    ├── BrokerError
    │   ├── BrokerUnavailable (ConnectionError) no connection, or it was lost
    │   │   └── BrokerAway                      for a while already: it was not tried
    │   ├── BrokerRefused                       credentials or permissions
    │   ├── TopologyMismatch                    the broker holds it with other arguments
    │   ├── UnsupportedByBroker (NotImplementedError)
    │   └── PublishError
    │       ├── Unroutable                      no queue is bound for it
    │       ├── PublishRefused                  the broker said no
    │       └── PublishTimeout (TimeoutError)   no confirmation in time
    └── InvalidMessage                          rejected before the handler saw it
        ├── UndecodableMessage                  its bytes are no body
        └── MessageTooLarge

    HandlerTimeout (BaseException)              thrown into a handler at its time limit
    Interrupted (BaseException)                 thrown into a handler by the stop

The last two are no ``Exception`` on purpose: a handler's ``except Exception`` must not
swallow them (:class:`asyncio.CancelledError` and ``gevent.Timeout`` do the same).
"""

from __future__ import annotations

import typing as t


class QConsumeError(Exception):
    """The base of every error of this package."""


class ConfigurationError(QConsumeError, ValueError):
    """A configuration key or an argument is missing, unknown or wrong."""


class RegistrationError(QConsumeError, RuntimeError):
    """A consumer, a hook or an error handler cannot be registered like that."""


class UnknownConsumer(QConsumeError, LookupError):
    """There is no consumer of that name in the app."""


class WorkerError(QConsumeError, RuntimeError):
    """A worker cannot be started here, or not now."""


class BrokerError(QConsumeError):
    """Something between us and the broker."""


class BrokerUnavailable(BrokerError, ConnectionError):
    """There is no connection to the broker, or it was lost. Trying again may help."""

    #: Whole seconds after which to try again, as HTTP's ``Retry-After`` has them.
    retry_after: int = 1


class BrokerAway(BrokerUnavailable):
    """The broker has not answered for a while, so nothing was sent at all.

    Raised at once; see ``QCONSUME_AWAY_AFTER``.

    :param retry_after: Whole seconds after which it is tried again.
    """

    def __init__(self, text: str, retry_after: int = 1) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class BrokerRefused(BrokerError):
    """The broker refused the credentials, the virtual host or a permission."""


class TopologyMismatch(BrokerError):
    """The broker holds a queue or exchange of that name with other arguments."""


class UnsupportedByBroker(BrokerError, NotImplementedError):
    """This broker cannot do what was asked; nothing was done."""


class PublishError(BrokerError):
    """A message was not confirmed by the broker."""

    #: After ``publish_many``: for each message ``None``, or why it was not confirmed.
    errors: t.Sequence[Exception | None] = ()


class Unroutable(PublishError):
    """No queue is bound for the message's routing key, so nobody would get it."""


class PublishRefused(PublishError):
    """The broker refused the message (a full queue, a body too large, ...)."""


class PublishTimeout(PublishError, TimeoutError):
    """The broker did not confirm the message in time; it may have taken it or not."""

    #: Whole seconds after which to try again, as HTTP's ``Retry-After`` has them.
    retry_after: int = 1


class InvalidMessage(QConsumeError):
    """A message that was rejected before its handler saw it.

    :param reason: One short sentence.
    :param details: The schema's error structure, where a schema refused it.
    """

    def __init__(self, reason: str, details: t.Any = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.details = details


class UndecodableMessage(InvalidMessage):
    """The bytes of a message are no body of its content type."""


class MessageTooLarge(InvalidMessage):
    """A body is larger than ``QCONSUME_MAX_MESSAGE_SIZE``."""


class HandlerTimeout(BaseException):
    """Thrown into a handler that reached its time limit.

    It is no :class:`Exception`, so that ``except Exception`` in the handler does not
    swallow it; a handler that swallows it nevertheless is treated as timed out.

    :param seconds: The limit that was reached.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the handler took longer than its {seconds:g} s")
        self.seconds = seconds


class Interrupted(BaseException):
    """Thrown into a handler that is still running at the deadline of a stop.

    Its message goes back to the broker and no attempt is charged.
    """
