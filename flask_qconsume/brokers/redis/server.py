"""The Redis server: runs scripts and commands for one app.

Connections are opened when they are needed, and never used across a fork. Methods raise
only errors of this package.
"""

from __future__ import annotations

import contextlib
import typing as t
from collections.abc import Iterator
from collections.abc import Sequence

from kombu.utils.compat import detect_environment

from ...broker.group_commit import GroupCommit
from ...errors import BrokerError
from ...errors import BrokerUnavailable
from ...errors import ConfigurationError
from ...first_use import PerProcess
from ...native_threads import get_hub_id
from ...settings import Settings
from .connections import Command
from .connections import ConnectionPool
from .connections import LinkConnection
from .connections import RedisConnection
from .connections import create_eval_command
from .errors import translate_error
from .options import select_connection_options
from .replicas import read_replica_options
from .scripts import Call

_detect_environment: t.Any = detect_environment
#: Limits the time for opening a connection.
_MAX_CONNECT_TIMEOUT_SECONDS = 5.0
#: Seconds in which a reachable Redis answers.
_PING_TIMEOUT_SECONDS = 1.0


class Server:
    """Runs one app's scripts and commands in Redis, by this process' connections."""

    #: Number of callers that may publish at once: while one of them waits for the
    #: answer, the next one prepares its messages.
    leaders: t.ClassVar[int] = 2
    #: Whether the class sends each command to the cluster's node that has its key.
    follows_slots: t.ClassVar[bool] = False

    def __init__(self, settings: Settings) -> None:
        _check_url(settings.broker_url)
        # kombu would call this with the first connection, and import gevent's sockets
        # if something has imported gevent; see 'first_use'.
        _detect_environment()
        self._url = settings.broker_url
        connection_options = select_connection_options(settings.transport_options)
        #: Seconds without an answer after which a connection is given up.
        self.silence = float(
            connection_options.get("socket_timeout") or 2 * settings.heartbeat
        )
        # kombu's time-outs hold until a connection is open. Then each command has its
        # own; redis-py would wait for ever.
        connecting = min(
            _MAX_CONNECT_TIMEOUT_SECONDS, settings.publish_timeout, self.silence
        )
        self._options: dict[str, t.Any] = {
            "socket_connect_timeout": connecting,
            "socket_keepalive": True,
            **connection_options,
            "socket_timeout": connecting,
        }
        self._replicas = read_replica_options(settings.transport_options)
        most: int = self._options.pop("max_connections", self.leaders)
        self._leaders = max(1, min(self.leaders, most))
        # redis-py raises an error if a pool is exhausted. Here, callers wait instead.
        self._options["max_connections"] = 2**31
        #: By the id of gevent's event loop.
        self._pools: PerProcess[dict[int, ConnectionPool]] = PerProcess(dict)

    def open_connection(self, near: str = "") -> RedisConnection:
        """Open a connection that reads one queue.

        :param near: A key; in a cluster, the connection goes to the key's node.
        :raises BrokerError: if Redis cannot be reached, or refuses the connection.
        """
        return LinkConnection(self._get_pool(), self.silence)

    def run(self, calls: Sequence[Call], timeout: float | None = None) -> list[t.Any]:
        """Run scripts in one round trip.

        :returns: For each script its answer, or a :class:`BrokerError`.
        :raises BrokerError: if the connection is lost; Redis may have run any script.
        """
        if not calls:
            return []
        with self._borrow_connection() as connection:
            return connection.run(calls, timeout)

    def publish(
        self, calls: Sequence[Call], timeout: float | None = None
    ) -> list[t.Any]:
        """Run scripts that publish, then wait for replicas if configured.

        :returns: For each script its answer, or a :class:`BrokerError`.
        :raises BrokerError: if the connection is lost; Redis may have run any script.
        """
        if not calls:
            return []
        with self._borrow_connection() as connection:
            answers = connection.run(calls, timeout)
            return self._replicas.confirm(connection, answers, timeout)

    def run_grouped(self, calls: Sequence[Call]) -> Sequence[t.Any]:
        """Run scripts in one round trip with the scripts of other callers."""
        return self._get_pool().grouped_scripts.run(calls, self.run, 2 * self.silence)

    def call(self, call: Call, timeout: float | None = None) -> t.Any:
        """Run one script and return its answer.

        :raises BrokerError: if the connection is lost, or Redis answers with an error.
        """
        return check_answer(self.run([call], timeout)[0])

    def count(self, calls: Sequence[Call], timeout: float | None = None) -> int:
        """Run scripts, each of which returns a number, and return the sum.

        :raises BrokerError: if the connection is lost, or Redis answers with an error.
        """
        return sum(check_answer(answer) for answer in self.run(calls, timeout))

    def run_asking(self, call: Call) -> t.Any:
        """Run a script at a cluster's node that is taking over the keys' slot."""
        with self._borrow_connection() as connection:
            answer = connection.pipeline([("ASKING",), create_eval_command(call)])[1]
        return translate_error(answer) if isinstance(answer, Exception) else answer

    def group_by_slot(
        self, names: Sequence[str], key: t.Callable[[str], str]
    ) -> list[tuple[str, ...]]:
        """Group queues by cluster slot, since a script can write to one slot only."""
        return [tuple(names)] if names else []

    def send_commands(
        self,
        commands: Sequence[Command],
        timeout: float | None = None,
        near: str = "",
    ) -> list[t.Any]:
        """Send commands in one round trip.

        :param near: A key; in a cluster, all commands go to the key's node. By default,
            each command goes to the node of its own key.
        :raises BrokerError: if the connection is lost, or Redis answers with an error.
        """
        if not commands:
            return []
        with self._borrow_connection() as connection:
            answers = connection.pipeline(commands, timeout)
        for answer in answers:
            if isinstance(answer, Exception):
                raise translate_error(answer) from answer
        return answers

    def list_nodes(self) -> list[tuple[str, Server]]:
        """Return the servers that hold messages, each with its address.

        Outside of a cluster, the address is empty.

        :raises BrokerError: if the nodes of a cluster cannot be asked for.
        """
        return [("", self)]

    def check_replicas(self, timeout: float | None = None) -> None:
        """Check that Redis permits waiting for replicas, if the options ask for it.

        :raises BrokerRefused: if Redis denies the command.
        """
        if self._replicas.wanted:
            self.send_commands([("WAIT", 0, 1)], timeout)

    def group_commit(self) -> GroupCommit:
        """Return the group commit of this process or, with gevent, event loop."""
        return self._get_pool().group_commit

    def is_reachable(self) -> bool:
        """Return whether Redis answers, also by a refusal, and has loaded its data."""
        try:
            with self._borrow_connection() as connection:
                connection.ask("PING", timeout=_PING_TIMEOUT_SECONDS)
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
    def _borrow_connection(self) -> Iterator[RedisConnection]:
        pool = self._get_pool()
        connection = pool.take()
        try:
            yield RedisConnection(connection, self.silence)
        finally:
            pool.give_back(connection)

    def _get_pool(self) -> ConnectionPool:
        pools, hub = self._pools.get(), get_hub_id()
        pool = pools.get(hub)
        if pool is None:
            created = ConnectionPool(self._url, self._options, self._leaders)
            pool = pools.setdefault(hub, created)
        return pool


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


def check_answer(answer: t.Any) -> t.Any:
    """Return a script's answer; if it is an error, raise it."""
    if isinstance(answer, BrokerError):
        raise answer
    return answer
