"""A reader's wait for messages in Redis, which another connection can end early."""

from __future__ import annotations

import threading
import time
import typing as t

from ...errors import BrokerError
from ...errors import BrokerUnavailable
from .blocked_readers import POLL_INTERVAL
from .connections import RedisConnection
from .errors import MISSING
from .errors import read_error_code
from .errors import read_error_text
from .errors import translate_error
from .server import Server

#: Limits how late the reader notices a message that does not end its wait. For the
#: consumer's queue, :mod:`.blocked_readers` notices such a message sooner.
_MAX_WAIT_SECONDS = 5.0
#: The blocking command may not have arrived in Redis yet when the first attempt is
#: made.
_MAX_UNBLOCK_ATTEMPTS = 3
_UNBLOCK_TIMEOUT_SECONDS = 1.0


class BlockingWait:
    """A reader's wait in a blocking command, which another thread can end early.

    :param server: Sends ``CLIENT UNBLOCK``, which ends the wait.
    :param wire: The connection on which the reader waits.
    :param near_key: In a cluster, a key on the node to which ``wire`` is connected.
    :param warn: Called with a warning if Redis does not allow ``CLIENT UNBLOCK``.
    """

    def __init__(
        self,
        server: Server,
        wire: RedisConnection,
        near_key: str,
        warn: t.Callable[[str], None],
    ) -> None:
        self._server = server
        self._redis_connection = wire
        self._near_key = near_key
        #: Seconds that a wait lasts at most.
        self.longest = min(_MAX_WAIT_SECONDS, server.silence / 2)
        self._lock = threading.Lock()
        self._is_waiting = False
        self._is_woken = False
        #: On :func:`time.monotonic`'s clock.
        self._ends_at = 0.0
        self._connection_id = self._read_connection_id(warn)

    def begin(self, seconds: float) -> bool:
        """Mark the reader as waiting; return false if it must not wait.

        The reader must not wait if ``seconds`` is 0, or if :meth:`wake` was called
        since the last wait.
        """
        with self._lock:
            self._is_waiting = seconds > 0 and not self._is_woken
            self._is_woken = False
            self._ends_at = time.monotonic() + seconds
            return self._is_waiting

    def end(self) -> None:
        """Mark the reader as not waiting, since Redis has answered."""
        with self._lock:
            self._is_waiting = False

    def seconds_left(self) -> float:
        """Return the seconds until the wait ends; 0 if no reader is waiting."""
        return self._ends_at - time.monotonic() if self._is_waiting else 0.0

    def wake(self, break_connection: bool) -> None:
        """End the current wait; without a wait, make the next one end at once.

        :param break_connection: Whether to break the reader's connection if Redis does
            not answer.
        """
        with self._lock:
            self._is_woken = True
            waiting = self._is_waiting and self._connection_id is not None
        for _ in range(_MAX_UNBLOCK_ATTEMPTS if waiting else 0):
            if self._unblock(break_connection):
                break

    def _unblock(self, break_connection: bool) -> bool:
        """Send ``CLIENT UNBLOCK``; return false if Redis says that no reader waits."""
        command = ("CLIENT", "UNBLOCK", self._connection_id)
        try:
            ended = self._server.send_commands(
                [command], timeout=_UNBLOCK_TIMEOUT_SECONDS, near=self._near_key
            )
        except BrokerUnavailable:
            if break_connection:
                self._redis_connection.interrupt()
            return True
        except BrokerError:
            return True  # The wait lasts as long as it was meant to.
        return bool(ended[0])

    def _read_connection_id(self, warn: t.Callable[[str], None]) -> int | None:
        """Return the number by which Redis knows the reader's connection.

        If Redis forbids ``CLIENT UNBLOCK``, return ``None``, and shorten all waits.
        """
        # No connection has the number 0: this only tests the permission.
        answers = self._redis_connection.pipeline(
            [("CLIENT", "ID"), ("CLIENT", "UNBLOCK", 0)]
        )
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        if not errors:
            return int(answers[0])
        if read_error_code(errors[0]) not in MISSING:
            raise translate_error(errors[0]) from errors[0]
        self.longest = min(self.longest, POLL_INTERVAL)
        warn(
            "Blocking reads in Redis cannot be ended early:"
            f" {read_error_text(errors[0])}. So each lasts {POLL_INTERVAL:g} s at most,"
            " which costs Redis more, and retries and delays may be late by as much."
            " Permit it: 'ACL SETUSER … +client|id +client|unblock'."
        )
        return None
