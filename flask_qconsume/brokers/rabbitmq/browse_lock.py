"""A lock for the readers of one queue, across processes: an exclusive queue.

A reader has all messages in hand, so that another reader would find none, and a count
would be too low. An exclusive queue belongs to one connection and goes with it, so a
reader that is killed leaves no lock behind.
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

#: Seconds that a reader waits for another one, and between two attempts.
_LONGEST_WAIT = 60.0
_PAUSE = 0.1

#: Whatever type a virtual host has for queues of none: a quorum queue is shared.
_CLASSIC = {"x-queue-type": "classic"}


class BeingRead(BrokerUnavailable):
    """Another process has a queue's messages in hand, for longer than is waited."""


def lock_of(queue: str) -> str:
    """The name of a queue's lock."""
    return f"{queue}.lock"


class BrowseLock:
    """The lock of one queue.

    :param connection: A connection that nobody else uses.
    """

    def __init__(self, connection: t.Any, queue: str) -> None:
        self._connection = connection
        self._queue = queue
        self._name = lock_of(queue)

    @contextlib.contextmanager
    def __call__(self) -> t.Iterator[None]:
        """Hold the lock, for the length of a block.

        :raises BeingRead: if another reader does not end.
        """
        self.wait(self._acquire)
        try:
            yield
        finally:
            with contextlib.suppress(Exception), self._channel() as channel:
                channel.queue_delete(self._name)

    def wait(
        self, attempt: t.Callable[[], bool], longest: float = _LONGEST_WAIT
    ) -> None:
        """Try until it succeeds.

        :raises BeingRead: if it never does.
        """
        deadline = time.monotonic() + longest
        told = False
        while not attempt():
            if time.monotonic() > deadline:
                raise BeingRead(
                    f"Another process has been reading the queue '{self._queue}' for"
                    f" {longest:g} s. Try again once it is done."
                )
            if not told:
                logger.warning("Waiting for another reader of '%s'", self._queue)
                told = True
            time.sleep(_PAUSE)

    def is_free(self) -> bool:
        """Whether nobody holds it; asks for no permission."""
        try:
            with self._channel() as channel:
                channel.queue_declare(self._name, passive=True)
        except NotFound:
            return True
        except ResourceLocked:
            return False
        return False

    def _acquire(self) -> bool:
        try:
            with self._channel() as channel:
                channel.queue_declare(
                    self._name, exclusive=True, durable=False, arguments=_CLASSIC
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
    def _channel(self) -> t.Iterator[t.Any]:
        """A channel for one request: the broker closes it if it refuses that."""
        channel = self._connection.channel()
        try:
            yield channel
            channel.close()
        finally:
            if not channel.is_open:
                channel.collect()  # Its number is used again: brokers limit these.
