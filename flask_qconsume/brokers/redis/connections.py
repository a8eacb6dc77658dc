"""Connections to Redis, configured by kombu and used by this package.

kombu reads the URL and the transport options and creates the pool (TLS, sentinels,
sockets, credentials). It sends no commands.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import typing as t
from collections.abc import Sequence

# Otherwise kombu imports it with the first connection; see 'first_use'.
import kombu.transport.redis  # noqa: F401
from kombu.connection import Connection
from redis import exceptions

from ...broker import tls
from ...broker.group_commit import GroupCommit
from ...errors import BrokerRefused
from ...errors import ConfigurationError
from .errors import translate_error
from .grouped_scripts import GroupedScripts
from .scripts import Call
from .security import check_connection
from .security import explain_failure

Command = tuple[t.Any, ...]

_create_kombu_connection: t.Any = Connection
_ERRORS = (exceptions.RedisError, OSError)
#: Answers of Redis for which redis-py raises an error and disconnects.
_ANSWERS_BEFORE_DISCONNECT = (
    exceptions.AuthenticationError,
    exceptions.BusyLoadingError,
)
#: Limits the memory of a link's packed commands, of which it repeats a few.
_MAX_REMEMBERED_COMMANDS = 4
_MIN_TIMEOUT_SECONDS = 0.001


class RedisConnection:
    """One connection to Redis, used by one greenlet or thread at a time.

    :param silence: Seconds without an answer after which the connection is closed.
    """

    def __init__(self, connection: t.Any, silence: float) -> None:
        self._connection = connection
        self._silence = silence

    def ask(self, *command: t.Any, timeout: float | None = None) -> t.Any:
        """Send one command and return the answer.

        :raises BrokerError: if the connection is lost, or Redis answers with an error.
        """
        answer = self.pipeline([command], timeout)[0]
        if isinstance(answer, Exception):
            raise translate_error(answer) from answer
        return answer

    def pipeline(
        self, commands: Sequence[Command], timeout: float | None = None
    ) -> list[t.Any]:
        """Send several commands in one round trip, and return their answers.

        :param timeout: Seconds without an answer after which to close the connection.
        :returns: For each command its answer, or redis-py's exception for an error.
        :raises BrokerError: if the connection is lost.
        """
        connection = self._connection
        try:
            self._set_timeout(
                self._silence if timeout is None else max(timeout, _MIN_TIMEOUT_SECONDS)
            )
            connection.send_packed_command(self._pack(commands))
            return [self._read_answer(alone=len(commands) == 1) for _ in commands]
        except BaseException as error:
            # The next user of the connection must not get the remaining answers.
            connection.disconnect()
            if isinstance(error, _ERRORS):
                raise translate_error(error, sent=True) from error
            raise

    def run(self, calls: Sequence[Call], timeout: float | None = None) -> list[t.Any]:
        """Run several scripts in one round trip, and return their answers.

        :returns: For each script its answer, or a :class:`BrokerError`.
        :raises BrokerError: if the connection is lost.
        """
        answers = self.pipeline(
            [_create_evalsha_command(call) for call in calls], timeout
        )
        unknown = [i for i, answer in enumerate(answers) if _is_unknown(answer)]
        if unknown:
            again = self.pipeline(
                [create_eval_command(calls[i]) for i in unknown], timeout
            )
            for i, answer in zip(unknown, again, strict=True):
                answers[i] = answer
        return [translate_error(a) if isinstance(a, Exception) else a for a in answers]

    def run_after(self, command: Command, call: Call) -> tuple[t.Any, t.Any]:
        """Send a blocking command, and a script that runs when the command ends.

        :returns: Both answers. An error of the command is returned as redis-py's
            exception, an error of the script as a :class:`BrokerError`.
        """
        waited, answer = self.pipeline([command, _create_evalsha_command(call)])
        if _is_unknown(answer):
            return waited, self.run([call])[0]
        if isinstance(answer, Exception):
            return waited, translate_error(answer)
        return waited, answer

    def interrupt(self) -> None:
        """Break the connection from any thread, so that its waiting user fails."""
        socket_in_use = self._connection._sock
        if socket_in_use is not None:
            with contextlib.suppress(OSError, ValueError):
                socket_in_use.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._connection.disconnect()

    def _pack(self, commands: Sequence[Command]) -> Sequence[bytes]:
        return t.cast("Sequence[bytes]", self._connection.pack_commands(commands))

    def _read_answer(self, alone: bool) -> t.Any:
        """Read the next answer; an error of Redis is returned, not raised.

        :param alone: True if this is the only awaited answer, so that a disconnect
            loses no other answer.
        """
        try:
            return self._connection.read_response()
        except exceptions.ResponseError as error:
            return error
        except _ANSWERS_BEFORE_DISCONNECT as error:
            if not alone:
                raise
            return error

    def _set_timeout(self, timeout: float) -> None:
        socket_in_use = self._connection._sock
        if socket_in_use is not None:
            socket_in_use.settimeout(timeout)


class ConnectionPool:
    """The open connections of one process or, under gevent, of one event loop."""

    def __init__(self, url: str, options: dict[str, t.Any], leaders: int) -> None:
        try:
            self._kombu = _create_kombu_connection(
                url,
                # Applies unless the URL says otherwise: kombu's own default checks no
                # certificate.
                ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED}
                if url.startswith("rediss")
                else False,
                transport_options=dict(options),
            )
            transport = self._kombu.transport
            channel = type("Addresses", (transport.Channel,), {"client": _NoClient()})
            self._channel = channel(transport)
            self._pool = self._channel.pool
            check_connection(self._pool)
        except ConfigurationError:
            raise
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ConfigurationError(
                "'QCONSUME_BROKER_URL' or 'QCONSUME_TRANSPORT_OPTIONS' cannot be used"
                f" for Redis: {tls.explain_option_error(error)}."
            ) from error
        #: Sends the messages of several callers in one round trip.
        self.group_commit = GroupCommit(leaders)
        #: Sends the heartbeats of several links in one round trip.
        self.grouped_scripts = GroupedScripts()

    def take(self) -> t.Any:
        """Take a connection out of the pool; open it if necessary.

        :raises BrokerError: if Redis cannot be reached, or refuses the connection.
        """
        try:
            return self._pool.get_connection()
        except _ERRORS as error:
            if problem := explain_failure(self._pool, error):
                raise BrokerRefused(f"No connection to Redis: {problem}") from error
            raise translate_error(error) from error

    def give_back(self, connection: t.Any) -> None:
        """Put a connection back into the pool."""
        self._pool.release(connection)

    def close(self) -> None:
        with contextlib.suppress(*_ERRORS):
            self._pool.disconnect()
            self._channel.close()


class LinkConnection(RedisConnection):
    """A connection that reads one queue, and keeps its commands in encoded form."""

    def __init__(self, pool: ConnectionPool, silence: float) -> None:
        super().__init__(pool.take(), silence)
        self._pool = pool
        self._packed: dict[tuple[Command, ...], Sequence[bytes]] = {}

    def close(self) -> None:
        super().close()
        self._pool.give_back(self._connection)

    def _pack(self, commands: Sequence[Command]) -> Sequence[bytes]:
        # Packing two commands takes longer than sending them.
        key = tuple(commands)
        packed = self._packed.get(key)
        if packed is None:
            if len(self._packed) >= _MAX_REMEMBERED_COMMANDS:
                self._packed.clear()
            packed = self._packed[key] = super()._pack(commands)
        return packed


class _NoClient:
    """A client for kombu's channel that sends no commands."""

    def ping(self) -> bool:
        return True


def create_eval_command(call: Call) -> Command:
    """Return the command ``EVAL``, which sends the text of a script."""
    return ("EVAL", call.script.source, *call.arguments)


def _create_evalsha_command(call: Call) -> Command:
    return ("EVALSHA", call.script.sha, *call.arguments)


def _is_unknown(answer: t.Any) -> bool:
    return isinstance(answer, exceptions.NoScriptError)
