"""Blocking calls of the Kafka client, made in native threads beside gevent's loop."""

from __future__ import annotations

import ctypes
import time
import typing as t
from collections.abc import Callable
from collections.abc import Mapping
from concurrent.futures import Future

from confluent_kafka import KafkaError
from confluent_kafka import KafkaException

from ....errors import BrokerUnavailable
from ....errors import ConfigurationError
from ....first_use import delay_forks
from ....native_threads import Latch
from ....native_threads import NativeThread
from .errors import is_refusal
from .errors import translate_error

K = t.TypeVar("K")
T = t.TypeVar("T")

#: Seconds beyond a call's own time limit after which it counts as hung.
_HANG_SECONDS = 2.0

#: Seconds in which a new client looks up the addresses that it needs first.
FIRST_LOOKUPS_SECONDS = 0.5

#: Parts of the names of settings with secret values.
_SECRET_PARTS = ("password", "secret", "token", "oauth", "key.pem", "jaas")


def call_in_thread(call: Callable[[], T], timeout: float) -> T:
    """Call a blocking function in a native thread, and wait for its result.

    :param timeout: Seconds that the call itself may take.
    :raises BrokerUnavailable: if the call hangs; its thread is then abandoned.
    """
    results: list[T] = []
    thread = NativeThread(lambda: results.append(call()), "kafka-call").start()
    if not thread.join(timeout + _HANG_SECONDS):
        raise BrokerUnavailable(
            f"Kafka's client has hung for {timeout + _HANG_SECONDS} s."
        )
    if isinstance(thread.error, KafkaException):
        raise translate_error(thread.error) from thread.error
    if thread.error is not None:
        raise thread.error
    return results[0]


def call_for_results(
    ask: Callable[[], Mapping[K, Future[t.Any]]], timeout: float
) -> dict[K, t.Any]:
    """Call ``ask``, which starts requests, and return the requests' results.

    A :class:`~confluent_kafka.KafkaException` is returned, not raised. Greenlets must
    not touch a future, not even to see whether it is done: in a process that gevent has
    patched, the future has gevent's kind of lock, and a thread of the client may hold
    this lock. gevent's event loop does not know that thread, and a greenlet that waits
    for the lock may get a ``LoopExit``.

    :param ask: Called in a native thread.
    :param timeout: Seconds for all futures together.
    :raises BrokerUnavailable: if a result does not arrive in time.
    """
    return call_in_thread(lambda: _await_results(ask(), timeout), timeout)


def create_client(
    kind: Callable[[dict[str, t.Any]], T], config: Mapping[str, t.Any]
) -> T:
    """Create a Kafka client with these settings.

    The process does not fork while the client's threads look up addresses: glibc's
    ``getaddrinfo`` then holds a lock (in ``check_pf.c``), which would stay locked for
    ever in a forked child.

    :raises ConfigurationError: for settings that librdkafka refuses.
    """
    delay_forks(FIRST_LOOKUPS_SECONDS)
    try:
        return kind(dict(config))
    except (KafkaException, ValueError, TypeError, SystemError) as error:
        raise ConfigurationError(
            f"Kafka's client refuses its settings: {_hide_secrets(config, error)}."
            " See the transport options 'kafka_…_config'."
        ) from None


class ClientErrors:
    """Collects the errors that a client reports by itself, such as a failed login.

    Any thread may use it.
    """

    def __init__(self) -> None:
        self.last: KafkaError | None = None
        self._refusal: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Store an error; the client calls this while it is polled."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last = error
        if is_refusal(error):
            self._refusal = error

    def explain(self, error: KafkaException) -> KafkaException:
        """Return the last error that the client has reported, or else ``error``."""
        last, self.last = self.last, None
        return error if last is None else KafkaException(last)

    def check(self) -> None:
        """Raise an error if the client has reported a refusal lately.

        :raises BrokerRefused: with the last refusal, and what to do.
        """
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise translate_error(refusal)


def keep_undestroyed(client: object) -> None:
    """In a forked child: keep the parent's Kafka client from being destroyed.

    Its destructor would wait for ever for the client's threads, which a fork does not
    copy.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))


def destroy_within(timeout: float, drop: Callable[[], object]) -> bool:
    """Destroy Kafka clients in a native thread, since destructors may block.

    :param drop: Drops the last references to the clients.
    :returns: Whether the destructors ended within ``timeout`` seconds.
    """
    return NativeThread(drop, "kafka-close").start().join(timeout)


def _await_results(asked: Mapping[K, Future[t.Any]], timeout: float) -> dict[K, t.Any]:
    deadline = time.monotonic() + timeout
    for done in [_open_when_done(future) for future in asked.values()]:
        if not done.wait(max(deadline - time.monotonic(), 0)):
            raise BrokerUnavailable(f"Kafka did not answer within {timeout:g} s.")
    return {key: _future_result(future) for key, future in asked.items()}


def _open_when_done(future: Future[t.Any]) -> Latch:
    latch = Latch()
    future.add_done_callback(lambda _: latch.open())
    return latch


def _future_result(future: Future[t.Any]) -> t.Any:
    error = future.exception(0)
    if error is None:
        return future.result(0)
    if isinstance(error, KafkaException):
        return error
    raise error


def _hide_secrets(config: Mapping[str, t.Any], error: Exception) -> str:
    """Return an error's text, with passwords replaced."""
    text = error.args[0].str() if isinstance(error, KafkaException) else str(error)
    for name, value in config.items():
        if any(part in name for part in _SECRET_PARTS) and str(value):
            text = text.replace(str(value), "***")
    return t.cast(str, text)
