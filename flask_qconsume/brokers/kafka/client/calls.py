"""Blocking calls of the Kafka client, made in native threads, off the hub."""

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
from ....text import quote
from .errors import is_refusal
from .errors import translate_error

K = t.TypeVar("K")
T = t.TypeVar("T")

#: Seconds beyond a call's own time limit after which it is taken to hang.
_PATIENCE = 2.0
#: Seconds in which a new client has looked up the addresses that it needs first.
FIRST_CONNECTIONS = 0.5

#: Settings that name a file.
_FILES = (
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.crl.location",
    "ssl.key.location",
    "ssl.keystore.location",
)

#: Parts of the names of settings whose values are never shown.
_SECRET = ("password", "secret", "token", "oauth", "key.pem", "jaas")


def call_in_thread(call: Callable[[], T], timeout: float) -> T:
    """Call something in a native thread, and wait for it cooperatively.

    :param timeout: Seconds that the call itself takes at the most.
    :raises BrokerUnavailable: if it hangs; then it is left alone.
    """
    found: list[T] = []
    thread = NativeThread(lambda: found.append(call()), "kafka-call").start()
    if not thread.join(timeout + _PATIENCE):
        raise BrokerUnavailable(f"Kafka's client has hung for {timeout + _PATIENCE} s.")
    if isinstance(thread.error, KafkaException):
        raise translate_error(thread.error) from thread.error
    if thread.error is not None:
        raise thread.error
    return found[0]


def call_for_results(
    ask: Callable[[], Mapping[K, Future[t.Any]]], timeout: float
) -> dict[K, t.Any]:
    """What each future came to that is asked for; errors of Kafka's are values.

    No greenlet may touch a future, not even to see whether it is done: its lock is
    gevent's, in a process that it patched, and is held at times by the thread of the
    client's that fulfils it. The hub does not know of that one, and where nothing else
    is left for it to do it ends with a ``LoopExit``.

    :param ask: Called in a native thread.
    :param timeout: Seconds for all of them.
    :raises BrokerUnavailable: if one is not there in time.
    """
    return call_in_thread(lambda: _awaited(ask(), timeout), timeout)


def create_client(
    kind: Callable[[dict[str, t.Any]], T], config: Mapping[str, t.Any]
) -> T:
    """A client with these settings.

    Its own threads look up addresses by glibc's ``getaddrinfo``, which locks something
    meanwhile (in ``check_pf.c``). A child that is forked at that moment finds it locked
    for ever, and can connect to nothing.

    :raises ConfigurationError: for settings that librdkafka does not take.
    """
    _check_files(config)
    delay_forks(FIRST_CONNECTIONS)
    try:
        return kind(dict(config))
    except (KafkaException, ValueError, TypeError, SystemError) as error:
        raise ConfigurationError(
            f"Kafka's client does not take its settings: {_without(config, error)}."
            " See the transport options 'kafka_…_config'."
        ) from None


def _check_files(config: Mapping[str, t.Any]) -> None:
    """The client tells that a file cannot be read, but not which."""
    for name, path in config.items():
        if name not in _FILES or path == "probe":
            continue
        try:
            with open(path, "rb"):
                pass
        except IsADirectoryError:
            pass  # Of certificates.
        except OSError as error:
            raise ConfigurationError(
                f"'{name}' in the options of Kafka names a file that cannot be read:"
                f" {quote(path)} ({error.strerror})."
            ) from None


class ClientErrors:
    """What a client says on its own: why it cannot connect, say. Any thread's."""

    def __init__(self) -> None:
        self.last: KafkaError | None = None
        self._refusal: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Called by the client, whenever it is polled."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last = error
        if is_refusal(error):
            self._refusal = error

    def explained(self, error: KafkaException) -> KafkaException:
        """An error of the client's, or why it cannot connect, where it said that."""
        last, self.last = self.last, None
        return error if last is None else KafkaException(last)

    def check(self) -> None:
        """Raise what the broker refused us for, if it did since the last look.

        :raises BrokerRefused: with what to do.
        """
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise translate_error(refusal)


def keep_undestroyed(client: object) -> None:
    """Never destroy a client: it belongs to the process that we were forked from.

    Its threads are not here, and its destructor would wait for them for ever.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))


def destroy_within(timeout: float, drop: Callable[[], object]) -> bool:
    """Let go of clients, whose destructors may block; whether it was done in time."""
    return NativeThread(drop, "kafka-close").start().join(timeout)


def _awaited(asked: Mapping[K, Future[t.Any]], timeout: float) -> dict[K, t.Any]:
    deadline = time.monotonic() + timeout
    for done in [_done(future) for future in asked.values()]:
        if not done.wait(max(deadline - time.monotonic(), 0)):
            raise BrokerUnavailable(f"Kafka did not answer within {timeout:g} s.")
    return {key: _answer(future) for key, future in asked.items()}


def _done(future: Future[t.Any]) -> Latch:
    """Opens with the answer."""
    latch = Latch()
    future.add_done_callback(lambda _: latch.open())
    return latch


def _answer(future: Future[t.Any]) -> t.Any:
    error = future.exception(0)
    if error is None:
        return future.result(0)
    if isinstance(error, KafkaException):
        return error
    raise error


def _without(config: Mapping[str, t.Any], error: Exception) -> str:
    """What an error says, without any password that is in it."""
    said = error.args[0].str() if isinstance(error, KafkaException) else str(error)
    for name, value in config.items():
        if any(part in name for part in _SECRET) and str(value):
            said = said.replace(str(value), "***")
    return t.cast(str, said)
