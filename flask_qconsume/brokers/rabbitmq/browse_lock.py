"""A lock for readers of one queue, across processes: an exclusive queue.

A reader holds all messages of the queue, so that another reader would find none, and a
count would be too low. An exclusive queue belongs to one connection and is deleted with
it, so a reader that is killed leaves no lock behind.
"""

from __future__ import annotations

import contextlib
import time
import typing as t

from amqp.exceptions import ChannelError
from amqp.exceptions import NotFound
from amqp.exceptions import ResourceLocked

from ...errors import BrokerUnavailable
from ...logs import get_logger
from .errors import explain_error

logger = get_logger("flask_qconsume.dead_letters")

#: Seconds to wait for another process that reads the queue.
_MAX_WAIT_SECONDS = 60.0
#: Seconds between two attempts to lock.
_RETRY_SECONDS = 0.1

#: A virtual host may have another default type; a quorum queue cannot be exclusive.
_LOCK_ARGUMENTS = {"x-queue-type": "classic"}


class QueueBeingRead(BrokerUnavailable):
    """Another process has been reading a queue for longer than the time limit."""


def lock_queue_name(queue: str) -> str:
    """Return the name of the exclusive queue that serves as a queue's lock."""
    return f"{queue}.lock"


class BrowseLock:
    """The lock that a process holds while it reads all messages of one queue.

    :param connection: A connection that no other thread uses.
    """

    def __init__(self, connection: t.Any, queue: str) -> None:
        self._connection = connection
        self._queue = queue
        self._name = lock_queue_name(queue)

    @contextlib.contextmanager
    def hold(self) -> t.Iterator[None]:
        """Hold the lock while the ``with`` block runs.

        :raises QueueBeingRead: if another process does not release it in time.
        """
        self.retry(self._acquire)
        try:
            yield
        finally:
            with contextlib.suppress(Exception), self._lock_channel() as channel:
                channel.queue_delete(self._name)

    def retry(
        self, attempt: t.Callable[[], bool], max_seconds: float = _MAX_WAIT_SECONDS
    ) -> None:
        """Call ``attempt`` repeatedly until it returns true.

        :raises QueueBeingRead: if no call returns true within ``max_seconds``.
        """
        deadline = time.monotonic() + max_seconds
        warned = False
        while not attempt():
            if time.monotonic() > deadline:
                raise QueueBeingRead(
                    f"Another process has been reading the queue '{self._queue}' for"
                    f" {max_seconds:g} s. Try again once it is done."
                )
            if not warned:
                logger.warning("Waiting for another reader of '%s'", self._queue)
                warned = True
            time.sleep(_RETRY_SECONDS)

    def is_free(self) -> bool:
        """Return whether no process holds the lock; needs no permission on RabbitMQ."""
        try:
            with self._lock_channel() as channel:
                channel.queue_declare(self._name, passive=True)
        except NotFound:
            return True
        except ResourceLocked:
            return False
        return False

    def _acquire(self) -> bool:
        try:
            with self._lock_channel() as channel:
                channel.queue_declare(
                    self._name, exclusive=True, durable=False, arguments=_LOCK_ARGUMENTS
                )
        except ResourceLocked:
            return False
        except ChannelError as error:
            logger.warning(
                "Reading '%s' without a lock, so another reader finds nothing"
                " meanwhile: %s",
                self._queue,
                explain_error(error),
            )
        return True

    @contextlib.contextmanager
    def _lock_channel(self) -> t.Iterator[t.Any]:
        """Open a channel for a single request, since a refusal closes the channel."""
        channel = self._connection.channel()
        try:
            yield channel
            channel.close()
        finally:
            if not channel.is_open:
                channel.collect()  # Frees its number, of which brokers allow few.
