"""The publisher of one process: any thread or greenlet hands it messages and waits.

Callers never touch the connection. One of them may be interrupted at any moment (a
handler's time limit, a killed greenlet), and half a frame would ruin it for all; so a
thread of the publisher's own connects, declares, writes and beats, and another one
reads the confirmations. Under gevent the threads are greenlets.
"""

from __future__ import annotations

import threading
import time
import typing as t
from collections import deque
from collections.abc import Sequence

from amqp.exceptions import NotFound

from ...broker.topology import Topology
from ...errors import BrokerError
from ...errors import BrokerUnavailable
from ...errors import PublishRefused
from ...errors import PublishTimeout
from ...errors import Unroutable
from ...logs import get_logger
from ...settings import Settings
from ...text import quote
from .connection import requests
from .declare import Declaring
from .errors import explain_error
from .errors import lacks_exchange
from .errors import translate_error
from .forks import Origin
from .pending_publish import Batch
from .pending_publish import Parcel
from .publish_session import Session
from .wait_queues import Step
from .wakeup import Bell

logger = get_logger("flask_qconsume.publisher")

#: How many messages may be on their way without a confirmation.
_WINDOW = 1000
#: Where more than so many are on their way, and fewer than so many wait, these wait for
#: others for so many seconds: to write, and to be confirmed, together costs less.
_CROWD = 10
_ENOUGH = 20
_LINGER = 0.0005
#: How many bytes are written at once, about.
_WRITE_SIZE = 256 * 1024
_MAX_BACKOFF = 1.0
_CLOSE_WAIT = 10.0


class Publisher:
    """Publishes confirmed, over a connection that is opened when it is needed."""

    def __init__(self, settings: Settings, topology: Topology) -> None:
        self._settings = settings
        self._topology = topology
        self._origin = Origin()
        #: Its lock guards everything here and in the session; rung when something
        #: happened.
        self._bell = Bell()
        self._lock = self._bell.lock
        self._waiting: deque[Parcel] = deque()
        self._session: Session | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        #: Why there is no connection, and how long to wait for the next attempt.
        self._problem = ""
        self._backoff = 0.0
        #: Whether there has been a connection.
        self._reached = False
        self._next_beat = 0.0
        #: How many messages go one by one, to find out which of them the broker hates.
        self._careful = 0

    def start(self) -> None:
        """Start the thread, which connects when there is something to publish."""
        with self._lock:
            self._start()

    def publish(
        self, parcels: Sequence[Parcel], timeout: float
    ) -> list[Exception | None]:
        """Publish them all; return when each is confirmed, has failed or is late."""
        batch = Batch(parcels)
        with self._lock:
            # First, for it raises where Python can start no thread.
            self._start()
            self._waiting.extend(parcels)
            self._bell.ring()
        late: float | None = timeout
        try:
            late = self._await(batch, timeout)
        finally:
            if late is not None:
                self._give_up(parcels, late)
        return [parcel.error for parcel in parcels]

    def _await(self, batch: Batch, timeout: float) -> float | None:
        """Wait for confirmations, and less long where there never was a connection.

        :returns: The seconds that were not enough, or ``None`` if they were.
        """
        first = min(timeout, self._settings.away_after)
        if batch.wait(first):
            return None
        if self._problem and not self._reached:
            return first
        return None if batch.wait(timeout - first) else timeout

    def close(self) -> None:
        """Close the connection and end the threads. Publishing again starts anew."""
        with self._lock:
            thread = self._thread
            self._closing = thread is not None
            self._bell.ring()
        if thread is None:
            return
        thread.join(_CLOSE_WAIT)
        with self._lock:
            self._thread, self._closing = None, False
            if self._waiting:
                self._start()

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(
                target=self._run, name="flask_qconsume publisher", daemon=True
            )
            thread.start()
            self._thread = thread

    def _give_up(self, parcels: Sequence[Parcel], timeout: float) -> None:
        with self._lock:
            late = [parcel for parcel in parcels if not parcel.done]
            if not late:
                return
            error = self._why_late(timeout)
            for parcel in late:
                parcel.finish(parcel.problem or error)

    def _why_late(self, timeout: float) -> BrokerError:
        session = self._session
        if session is None:
            said = self._problem or "there is no connection yet."
            return BrokerUnavailable(f"Not published within {timeout:g} s: {said}")
        if session.blocked:
            return PublishTimeout(
                f"Not published within {timeout:g} s: RabbitMQ blocks everybody who"
                " publishes, because it is short of memory or disk space (an alarm; see"
                " 'rabbitmq-diagnostics alarms')."
            )
        return PublishTimeout(
            f"RabbitMQ did not confirm within {timeout:g} s; it may have the message."
        )

    # What follows runs in the publisher's own thread.

    def _run(self) -> None:
        while not self._closing and self._origin.here:
            try:
                self._step()
            except BaseException as error:
                # No other thread would publish in this process, ever. Under gevent this
                # is a greenlet, which code of the app may kill with all that it finds.
                if not _starts_no_thread(error):
                    logger.exception("the publisher starts anew after an error")
                self._start_anew(error)
        self._origin.stay_away()
        self._end()

    def _step(self) -> None:
        session = self._session
        if session is not None and session.lost is not None:
            self._retire(session)
        elif not self._work(session):
            self._rest(session)
        elif session is None:
            self._connect()
        else:
            self._send(session)

    def _start_anew(self, error: BaseException) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
        with self._lock:
            self._fail_waiting(error)
        self._failed(BrokerUnavailable(f"{type(error).__name__}: {error}"))

    def _work(self, session: Session | None) -> bool:
        """Whether there is something that can be done now."""
        with self._lock:
            while self._waiting and self._waiting[0].done:
                self._waiting.popleft()
            return bool(self._waiting) and self._room(session) > 0

    def _room(self, session: Session | None) -> int:
        if session is None:
            return 1
        if session.blocked:
            return 0
        window = 1 if self._careful else _WINDOW
        return window - len(session.in_flight)

    def _rest(self, session: Session | None) -> None:
        """Wait until something happens, and keep the connection alive meanwhile."""
        with self._lock:
            if self._closing or (session is not None and session.lost):
                return
            if self._waiting and self._room(session) > 0:
                return
            if session is not None:
                session.awaited = bool(self._waiting)
        self._bell.wait(self._until_beat(session))
        if session is not None and self._until_beat(session) == 0.0:
            self._beat(session)

    def _until_beat(self, session: Session | None) -> float | None:
        if session is None:
            return None
        return max(0.0, self._next_beat - time.monotonic())

    def _beat(self, session: Session) -> None:
        self._next_beat = time.monotonic() + session.beat_interval
        session.beat()

    def _connect(self) -> None:
        session = None
        try:
            session = Session(self._settings, self._bell)
            session.start(self._topology, self._settings.declare)
        except BrokerError as error:
            if session is not None:
                session.close()
            self._failed(error)
            return
        with self._lock:
            self._session, self._problem, self._backoff = session, "", 0.0
            self._reached = True
        self._beat(session)

    def _failed(self, error: BrokerError) -> None:
        with self._lock:
            self._problem = str(error)
            if not isinstance(error, BrokerUnavailable):
                # Refused, or a topology that does not fit: waiting does not help.
                self._fail_waiting(error)
                return
        self._backoff = min(_MAX_BACKOFF, self._backoff * 2 or 0.05)
        until = time.monotonic() + self._backoff
        while not self._closing and (left := until - time.monotonic()) > 0:
            self._bell.wait(left)

    def _fail_waiting(self, error: BaseException) -> None:
        reason: Exception = (
            error
            if _starts_no_thread(error)
            else translate_error(error, "Not published")
        )
        while self._waiting:
            self._waiting.popleft().finish(reason)

    def _send(self, session: Session) -> None:
        if len(session.in_flight) > _CROWD and len(self._waiting) < _ENOUGH:
            time.sleep(_LINGER)
        parcels = self._next(session)
        for parcel in parcels:
            self._declare_step(session, parcel)
        session.send([parcel for parcel in parcels if not parcel.done])
        if self._until_beat(session) == 0.0:
            self._beat(session)

    def _next(self, session: Session) -> list[Parcel]:
        parcels: list[Parcel] = []
        size = 0
        with self._lock:
            room = self._room(session)
            while self._waiting and len(parcels) < room and size < _WRITE_SIZE:
                parcel = self._waiting.popleft()
                if not parcel.done:
                    parcels.append(parcel)
                    size += len(parcel.body) + len(parcel.properties)
            self._careful = max(0, self._careful - len(parcels))
        return parcels

    def _declare_step(self, session: Session, parcel: Parcel) -> None:
        """Declare a wait queue, over another connection: this one is being read."""
        if parcel.step is None or parcel.step.name in session.steps:
            return
        try:
            self._declare(parcel.step)
            session.steps.add(parcel.step.name)
        except BrokerError as error:
            with self._lock:
                parcel.finish(error)

    def _declare(self, step: Step) -> None:
        if self._settings.declare == "never":
            return
        with requests(self._settings, f"declaring '{step.name}'") as channel:
            step.declare(Declaring(channel, self._settings.declare))

    def _retire(self, session: Session) -> None:
        """Give a broken session up; what it had not confirmed is published again."""
        session.close()
        with self._lock:
            self._session = None
            self._problem = explain_error(session.lost or Exception())
            again = [p for p in session.in_flight.values() if not p.done]
            session.in_flight.clear()
            if session.broke_the_channel:
                self._blame(session.lost, again)
            self._waiting.extendleft(p for p in reversed(again) if not p.done)

    def _blame(self, error: BaseException | None, parcels: list[Parcel]) -> None:
        """Find out which message it was: the broker does not say."""
        problem = error or Exception()
        for parcel in _to_blame(problem, parcels):
            if not isinstance(problem, NotFound):
                text = f"RabbitMQ refused the message: {explain_error(problem)}"
                parcel.finish(PublishRefused(text))
            elif not (self._declares(parcel) and parcel.once_more()):
                parcel.finish(_no_exchange(parcel))
        self._careful = len([parcel for parcel in parcels if not parcel.done])

    def _declares(self, parcel: Parcel) -> bool:
        return parcel.ours or parcel.exchange == self._topology.exchange

    def _end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
        with self._lock:
            unconfirmed = [*(session.in_flight.values() if session else ())]
            for parcel in unconfirmed:
                parcel.finish(BrokerUnavailable("The publisher was closed."))
            self._fail_waiting(BrokerUnavailable("The publisher was closed."))


def _starts_no_thread(error: BaseException) -> t.TypeGuard[RuntimeError]:
    """Tell Python's refusal of a thread while the interpreter shuts down.

    Under gevent a look-up of the broker's address needs one.
    """
    return isinstance(error, RuntimeError) and not threading.main_thread().is_alive()


def _to_blame(error: BaseException, parcels: list[Parcel]) -> list[Parcel]:
    named = [parcel for parcel in parcels if lacks_exchange(error, parcel.exchange)]
    return named or (parcels if len(parcels) == 1 else [])


def _no_exchange(parcel: Parcel) -> Unroutable:
    return Unroutable(
        f"RabbitMQ has no exchange {quote(parcel.exchange)}, so nobody would get the"
        " message. Declare it on the broker, or publish to one that is there."
    )
