"""The publisher of one process: threads and greenlets hand it messages, and wait.

Callers never touch the connection: a caller may be interrupted at any moment (by a
handler's time limit, or because its greenlet is killed), and half a frame would ruin
the connection for all callers. A thread of the publisher runs the
:class:`~.publish_loop.PublishLoop`. Under gevent the threads are greenlets.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...background_thread import BackgroundThread
from ...broker.topology import Topology
from ...errors import BrokerError
from ...errors import BrokerUnavailable
from ...errors import PublishTimeout
from ...settings import Settings
from .pending_publish import PendingPublish
from .pending_publish import PublishBatch
from .publish_loop import PublishLoop

#: Seconds to wait for the end of the thread.
_CLOSE_TIMEOUT_SECONDS = 10.0


class Publisher:
    """Publishes with confirmations, over a connection that is opened on first use."""

    def __init__(self, settings: Settings, topology: Topology) -> None:
        self._settings = settings
        self._loop = PublishLoop(settings, topology)
        self._lock = self._loop.wakeup.lock
        self._thread: BackgroundThread | None = None

    def start(self) -> None:
        """Start the publisher's thread, which connects for the first message."""
        with self._lock:
            self._start()

    def publish(
        self, messages: Sequence[PendingPublish], timeout: float
    ) -> list[Exception | None]:
        """Publish messages; return when all are confirmed, failed, or out of time.

        :param timeout: Seconds for all messages together.
        :returns: For each message ``None``, or why it was not published.
        """
        batch = PublishBatch(messages)
        with self._lock:
            # First, because it raises if Python can start no thread any more.
            self._start()
            self._loop.waiting.extend(messages)
            self._loop.wakeup.notify()
        late_after: float | None = timeout
        try:
            late_after = self._await(batch, timeout)
        finally:
            # Also if the caller was interrupted: its messages are not sent then.
            if late_after is not None:
                self._give_up(messages, late_after)
        return [message.error for message in messages]

    def close(self) -> None:
        """Close the connection and end the thread; the next publish opens both."""
        with self._lock:
            thread = self._thread
            self._loop.closing = thread is not None
            self._loop.wakeup.notify()
        if thread is None:
            return
        thread.join(_CLOSE_TIMEOUT_SECONDS)
        with self._lock:
            self._thread, self._loop.closing = None, False
            if self._loop.waiting:
                self._start()

    def _start(self) -> None:
        if self._thread is None:
            thread = BackgroundThread(self._loop.run)
            thread.start()
            self._thread = thread

    def _await(self, batch: PublishBatch, timeout: float) -> float | None:
        """Wait for confirmations, but not for long if connecting has always failed.

        :returns: ``None`` if all messages are done, else the seconds that were waited.
        """
        first = min(timeout, self._settings.away_after)
        if batch.wait(first):
            return None
        if self._loop.problem and not self._loop.was_connected:
            return first
        return None if batch.wait(timeout - first) else timeout

    def _give_up(self, messages: Sequence[PendingPublish], timeout: float) -> None:
        with self._lock:
            late = [message for message in messages if not message.done]
            if not late:
                return
            error = self._explain_lateness(timeout)
            for message in late:
                message.finish(message.return_error or error)

    def _explain_lateness(self, timeout: float) -> BrokerError:
        session = self._loop.session
        if session is None:
            problem = self._loop.problem or "there is no connection yet."
            return BrokerUnavailable(f"Not published within {timeout:g} s: {problem}")
        if session.blocked:
            return PublishTimeout(
                f"Not published within {timeout:g} s: RabbitMQ blocks all publishers,"
                " because it is short of memory or disk space (an alarm; see"
                " 'rabbitmq-diagnostics alarms')."
            )
        return PublishTimeout(
            f"RabbitMQ did not confirm within {timeout:g} s; it may have the message."
        )
