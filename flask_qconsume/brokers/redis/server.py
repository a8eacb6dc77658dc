"""The Redis server as we talk to it: connections found by kombu, commands sent by us.

kombu reads the URL and the transport options and makes the pool of connections (TLS,
sentinels, sockets, credentials); it sends nothing. Nothing is opened before it is used,
and nothing is taken over a fork. Raises nothing but errors of our own.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence

# Otherwise kombu imports it with the first connection; see 'first_use'.
import kombu.transport.redis  # noqa: F401
from kombu.connection import Connection
from kombu.utils.compat import detect_environment
from redis import exceptions

from ...broker import tls
from ...errors import BrokerError
from ...errors import BrokerRefused
from ...errors import BrokerUnavailable
from ...errors import ConfigurationError
from ...first_use import PerProcess
from ...settings import Settings
from .errors import translate_error
from .group_commit import GroupCommit
from .group_commit import GroupedScripts
from .options import select_connection_options
from .replicas import read_replica_options
from .scripts import Call
from .security import check_connection
from .security import explain_failure

Command = tuple[t.Any, ...]

_connection: t.Any = Connection
_detect_environment: t.Any = detect_environment
_ERRORS = (exceptions.RedisError, OSError)
#: What Redis answered, though redis-py makes a lost connection of it, and hangs up.
_HUNG_UP = (exceptions.AuthenticationError, exceptions.BusyLoadingError)
#: Seconds that it takes at most to be connected.
_CONNECT_TIMEOUT = 5.0
#: Seconds in which it answers if it is there.
_LOOK = 1.0
#: How many questions a link asks again and again.
_FEW = 4


class RedisConnection:
    """One connection; one greenlet or thread uses it at a time."""

    def __init__(self, connection: t.Any, silence: float) -> None:
        self._connection = connection
        self._silence = silence

    def ask(self, *command: t.Any, timeout: float | None = None) -> t.Any:
        """Send one command and return the answer.

        :raises BrokerError: also for an error that Redis answered with.
        """
        answer = self.pipeline([command], timeout)[0]
        if isinstance(answer, Exception):
            raise translate_error(answer) from answer
        return answer

    def pipeline(
        self, commands: Sequence[Command], timeout: float | None = None
    ) -> list[t.Any]:
        """Send commands at once; an error that Redis answered with is an answer.

        :param timeout: Seconds of silence after which the connection is given up.
        """
        connection = self._connection
        try:
            self._limit(self._silence if timeout is None else max(timeout, 0.001))
            connection.send_packed_command(self._packed(commands))
            return [self._answer(alone=len(commands) == 1) for _ in commands]
        except BaseException as error:
            # Whatever it was, answers may still be on their way to us.
            connection.disconnect()
            if isinstance(error, _ERRORS):
                raise translate_error(error, sent=True) from error
            raise

    def run(self, calls: Sequence[Call], timeout: float | None = None) -> list[t.Any]:
        """Run scripts, pipelined; an error of Redis' is an answer, in our words."""
        answers = self.pipeline([_by_hash(call) for call in calls], timeout)
        unknown = [i for i, answer in enumerate(answers) if _is_unknown(answer)]
        if unknown:
            again = self.pipeline([_by_text(calls[i]) for i in unknown], timeout)
            for i, answer in zip(unknown, again, strict=True):
                answers[i] = answer
        return [translate_error(a) if isinstance(a, Exception) else a for a in answers]

    def run_after(self, command: Command, call: Call) -> tuple[t.Any, t.Any]:
        """Send a command that waits, and a script that is run as soon as it ends.

        :returns: Both answers, of which each may be an error: redis-py's, and ours.
        """
        waited, answer = self.pipeline([command, _by_hash(call)])
        if _is_unknown(answer):
            return waited, self.run([call])[0]
        return waited, translate_error(answer) if isinstance(
            answer, Exception
        ) else answer

    def interrupt(self) -> None:
        """Make whoever waits for an answer fail at once. For any greenlet or thread."""
        found = self._connection._sock
        if found is not None:
            with contextlib.suppress(OSError, ValueError):
                found.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()

    def _packed(self, commands: Sequence[Command]) -> Sequence[bytes]:
        return t.cast("Sequence[bytes]", self._connection.pack_commands(commands))

    def _answer(self, alone: bool) -> t.Any:
        """The next answer, or the error that it is.

        :param alone: Whether no other answer is to come, which could be lost.
        """
        try:
            return self._connection.read_response()
        except exceptions.ResponseError as error:
            return error
        except _HUNG_UP as error:
            if not alone:
                raise
            return error

    def _limit(self, timeout: float) -> None:
        found = self._connection._sock
        if found is not None:
            found.settimeout(timeout)


class _ConnectionPool:
    """The connections of one process (of one of gevent's hubs, if it is patched)."""

    def __init__(self, url: str, options: dict[str, t.Any], leaders: int) -> None:
        required = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
        try:
            self._kombu = _connection(
                url,
                # Where the URL says nothing else: kombu would check no certificate.
                ssl=required if url.startswith("rediss") else False,
                transport_options=dict(options),
            )
            transport = self._kombu.transport
            channel = type("Addresses", (transport.Channel,), {"client": _Unasked()})
            self._channel = channel(transport)
            self.redis = self._channel.pool
            check_connection(self.redis)
        except ConfigurationError:
            raise
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ConfigurationError(
                "'QCONSUME_BROKER_URL' or 'QCONSUME_TRANSPORT_OPTIONS' cannot be used"
                f" for Redis: {tls.explain_option_error(error)}."
            ) from error
        #: Those who publish by these connections, and those who are asked if they live.
        self.group_commit = GroupCommit(leaders)
        self.grouped_scripts = GroupedScripts()

    def take(self) -> t.Any:
        """A connection, opened."""
        try:
            return self.redis.get_connection()
        except _ERRORS as error:
            if problem := explain_failure(self.redis, error):
                raise BrokerRefused(f"No connection to Redis: {problem}") from error
            raise translate_error(error) from error

    def close(self) -> None:
        with contextlib.suppress(*_ERRORS):
            self.redis.disconnect()
            self._channel.close()


class _Unasked:
    """Stands for the client by which kombu's channel would ask Redis at its start."""

    def ping(self) -> bool:
        return True


class Server:
    """Redis, for one app in one process."""

    #: How many send at once of those who publish: while one waits for the answer, the
    #: next one gets ready.
    leaders: t.ClassVar[int] = 2
    #: Whether it finds the node of a cluster that has a key.
    follows_slots: t.ClassVar[bool] = False

    def __init__(self, settings: Settings) -> None:
        _check_url(settings.broker_url)
        # With the first connection it would import gevent's sockets, where something
        # has imported gevent; see 'first_use'.
        _detect_environment()
        self._url = settings.broker_url
        given = select_connection_options(settings.transport_options)
        #: Seconds of silence after which a connection is given up.
        self.silence = float(given.get("socket_timeout") or 2 * settings.heartbeat)
        # What kombu is told counts until a connection is open; from then on we say it
        # for each command. redis-py would wait for ever.
        first = min(_CONNECT_TIMEOUT, settings.publish_timeout, self.silence)
        self._options: dict[str, t.Any] = {
            "socket_connect_timeout": first,
            "socket_keepalive": True,
            **given,
            "socket_timeout": first,
        }
        self._replicas = read_replica_options(settings.transport_options)
        most: int = self._options.pop("max_connections", self.leaders)
        self._leaders = max(1, min(self.leaders, most))
        # redis-py raises an error where a pool is exhausted; we wait for our turn.
        self._options["max_connections"] = 2**31
        #: By hub.
        self._pools: PerProcess[dict[int, _ConnectionPool]] = PerProcess(dict)

    def open_connection(self, near: str = "") -> RedisConnection:
        """A connection of one's own.

        :param near: A key; where there are several nodes, the one that has it.
        :raises BrokerError: if there is none to be had.
        """
        return _LinkConnection(self._pool(), self.silence)

    def run(self, calls: Sequence[Call], timeout: float | None = None) -> list[t.Any]:
        """Run scripts, pipelined; an error of Redis' is an answer, in our words.

        :raises BrokerError: if the connection is lost; any of them may have run.
        """
        if not calls:
            return []
        with self._pooled() as wire:
            return wire.run(calls, timeout)

    def publish(
        self, calls: Sequence[Call], timeout: float | None = None
    ) -> list[t.Any]:
        """Run scripts that publish: done once as many replicas have it as asked for.

        :raises BrokerError: if the connection is lost; any of them may have run.
        """
        if not calls:
            return []
        with self._pooled() as wire:
            answers = wire.run(calls, timeout)
            return self._replicas.confirm(wire, answers, timeout)

    def run_grouped(self, calls: Sequence[Call]) -> Sequence[t.Any]:
        """:meth:`run`, together with all who do so at this time."""
        return self._pool().grouped_scripts.run(calls, self.run, 2 * self.silence)

    def call(self, call: Call, timeout: float | None = None) -> t.Any:
        """Run one script.

        :raises BrokerError: also for an error that Redis answered with.
        """
        return check_answer(self.run([call], timeout)[0])

    def count(self, calls: Sequence[Call], timeout: float | None = None) -> int:
        """Run scripts that count, and return the sum.

        :raises BrokerError: also for an error that Redis answered with.
        """
        return sum(check_answer(answer) for answer in self.run(calls, timeout))

    def run_asking(self, call: Call) -> t.Any:
        """Run one script at a node that is taking over the slot of its keys."""
        with self._pooled() as wire:
            answer = wire.pipeline([("ASKING",), _by_text(call)])[1]
        return translate_error(answer) if isinstance(answer, Exception) else answer

    def group_by_slot(
        self, names: Sequence[str], key: t.Callable[[str], str]
    ) -> list[tuple[str, ...]]:
        """Groups of names whose keys one script may write to."""
        return [tuple(names)] if names else []

    def commands(
        self,
        commands: Sequence[Command],
        timeout: float | None = None,
        near: str = "",
    ) -> list[t.Any]:
        """Send plain commands.

        :param near: As for :meth:`wire`; by default the key that a command names.
        :raises BrokerError: also for an error that Redis answered with.
        """
        if not commands:
            return []
        with self._pooled() as wire:
            answers = wire.pipeline(commands, timeout)
        for answer in answers:
            if isinstance(answer, Exception):
                raise translate_error(answer) from answer
        return answers

    def nodes(self) -> list[tuple[str, Server]]:
        """Each that holds messages, with its address where there are several.

        :raises BrokerError: if it is not known which there are.
        """
        return [("", self)]

    def check_replicas(self, timeout: float | None = None) -> None:
        """Make sure that replicas may be waited for, where that is asked for.

        :raises BrokerRefused: if they may not.
        """
        if self._replicas.wanted:
            self.commands([("WAIT", 0, 1)], timeout)

    def group_commit(self) -> GroupCommit:
        """Where those meet who publish at the same time."""
        return self._pool().group_commit

    def answers(self) -> bool:
        """Whether it answers now, be it by a refusal; while it loads it does not."""
        try:
            with self._pooled() as wire:
                wire.ask("PING", timeout=_LOOK)
        except BrokerUnavailable:
            return False
        except BrokerError:
            return True
        return True

    def close(self) -> None:
        """Close all connections of this process."""
        for pool in (self._pools.take() or {}).values():
            pool.close()

    @contextlib.contextmanager
    def _pooled(self) -> Iterator[RedisConnection]:
        pool = self._pool()
        connection = pool.take()
        try:
            yield RedisConnection(connection, self.silence)
        finally:
            pool.redis.release(connection)

    def _pool(self) -> _ConnectionPool:
        pools, hub = self._pools.get(), _hub()
        pool = pools.get(hub)
        if pool is None:
            made = _ConnectionPool(self._url, self._options, self._leaders)
            pool = pools.setdefault(hub, made)
        return pool


class _LinkConnection(RedisConnection):
    """One link's: it asks for the same again and again as long as there is nothing."""

    def __init__(self, pool: _ConnectionPool, silence: float) -> None:
        super().__init__(pool.take(), silence)
        self._pool = pool
        self._known: dict[tuple[Command, ...], Sequence[bytes]] = {}

    def close(self) -> None:
        super().close()
        self._pool.redis.release(self._connection)

    def _packed(self, commands: Sequence[Command]) -> Sequence[bytes]:
        # To pack two commands takes longer than to send them.
        key = tuple(commands)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _FEW:
                self._known.clear()
            found = self._known[key] = super()._packed(commands)
        return found


def _hub() -> int:
    """A socket of gevent's belongs to the thread that opened it; others serve all."""
    patched = socket.socket.__module__.startswith("gevent")
    return threading.get_native_id() if patched else 0


def _check_url(url: str) -> None:
    if "+cluster:" in url:
        raise ConfigurationError(
            "'QCONSUME_BROKER_URL' names a Redis Cluster, on which kombu's lists cannot"
            " be: its keys lie on several nodes. Use 'redis-streams+cluster://'."
        )
    if ";" in url and not url.startswith("sentinel"):
        raise ConfigurationError(
            "'QCONSUME_BROKER_URL' names several servers, which only 'sentinel://' can"
            " choose from. Give one 'redis://' URL, or the sentinels."
        )


def _by_hash(call: Call) -> Command:
    return ("EVALSHA", call.script.sha, *call.arguments)


def _by_text(call: Call) -> Command:
    return ("EVAL", call.script.source, *call.arguments)


def _is_unknown(answer: t.Any) -> bool:
    return isinstance(answer, exceptions.NoScriptError)


def check_answer(answer: t.Any) -> t.Any:
    """The answer of a script, or the error that it is, raised."""
    if isinstance(answer, BrokerError):
        raise answer
    return answer
