"""Faults of a broker: crashes, hangs, full disks, and actions of its operators."""

from __future__ import annotations

import contextlib
import random
import typing as t

from psycopg.errors import DiskFull

from ..brokers.rabbitmq.rabbit import raw_channel
from ..servers import Kafka
from ..servers import Redis
from ..waiting import wait_for
from .fault import AMQP
from .fault import EVERYWHERE
from .fault import HEARTBEAT
from .fault import POSTGRESQL
from .fault import REDIS
from .fault import SESSION
from .fault import SQLITE
from .fault import Fault
from .fault import FaultTarget

#: One Redis with a replica, under sentinels: lists, and streams.
SENTINEL = frozenset({"sentinel", "sentinel-streams"})
#: One PostgreSQL with a standby.
PAIR = frozenset({"postgresql-pair"})
SINGLE = EVERYWHERE - SQLITE - {"cluster"}

#: Seconds for which a broker hangs or refuses: longer than clients wait for it.
LONG = 2 * HEARTBEAT + 2
#: Seconds that a broker is away when it is killed or restarted, without the time of its
#: start.
_AWAY = 1.0
#: RabbitMQ's ``consumer_timeout`` during its fault, in seconds.
IMPATIENCE = 2.0

QUEUE = "work"
EXCHANGE = "qconsume"
#: The table of messages, in a database.
TABLE = "qconsume_message"


# -- any broker ------------------------------------------------------------------------


def _restart(target: FaultTarget, chance: random.Random) -> None:
    # Clients would not notice a broker that is back before they connect again.
    target.server.restart(_AWAY)


def _kill(target: FaultTarget, chance: random.Random) -> None:
    target.server.kill()
    target.last(_AWAY)
    target.server.start()


def _hang(target: FaultTarget, chance: random.Random) -> None:
    with target.server.frozen():
        target.last(LONG)


# -- RabbitMQ --------------------------------------------------------------------------


def _connections_closed(target: FaultTarget, chance: random.Random) -> None:
    _vhost(target).close_connections("maintenance")


def _memory_alarm(target: FaultTarget, chance: random.Random) -> None:
    with target.server.memory_alarm():
        target.last(LONG)


def _disk_alarm(target: FaultTarget, chance: random.Random) -> None:
    with target.server.disk_alarm():
        target.last(LONG)


def _queue_deleted(target: FaultTarget, chance: random.Random) -> None:
    """Delete the queue, with its messages, as an operator may."""
    with raw_channel(_vhost(target).url) as channel:
        channel.queue_delete(QUEUE)
    wait_for(lambda: QUEUE in _vhost(target).queues(), timeout=60, interval=0.5)


def _exchange_deleted(target: FaultTarget, chance: random.Random) -> None:
    with raw_channel(_vhost(target).url) as channel:
        channel.exchange_delete(EXCHANGE)


def _locked_out(target: FaultTarget, chance: random.Random) -> None:
    """Revoke access to the virtual host, and close all connections to it."""
    with _vhost(target).permissions(None):
        _vhost(target).close_connections("you may no longer")
        target.last(LONG)


def _permissions_revoked(target: FaultTarget, chance: random.Random) -> None:
    """Revoke all permissions in the virtual host; clients may still connect."""
    with _vhost(target).permissions("^$"):
        _vhost(target).close_connections("you may no longer")
        target.last(LONG)


def _consumer_timeout(target: FaultTarget, chance: random.Random) -> None:
    """Let a handler take longer than the broker waits for an acknowledgement."""
    with target.server.consumer_timeout(IMPATIENCE):
        _vhost(target).close_connections("to apply the timeout")
        n = target.send(seconds=4 * IMPATIENCE)
        _await_done(target, n)


def _vhost(target: FaultTarget) -> t.Any:
    assert target.vhost is not None
    return target.vhost


def _await_done(target: FaultTarget, n: int) -> None:
    wait_for(lambda: target.fleet.ledger.counted()[n], timeout=60, interval=0.2)


# -- Redis -----------------------------------------------------------------------------


def _clients_killed(target: FaultTarget, chance: random.Random) -> None:
    target.server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def _out_of_memory(target: FaultTarget, chance: random.Random) -> None:
    target.server.command("CONFIG", "SET", "maxmemory", "1")
    try:
        target.last(LONG)
    finally:
        target.server.command("CONFIG", "SET", "maxmemory", "0")


def _disk_full(target: FaultTarget, chance: random.Random) -> None:
    """Fill the disk of a Redis that syncs once a second: it refuses all writes."""
    target.server.command("CONFIG", "SET", "appendfsync", "everysec")
    with target.server.full_disk():
        target.last(LONG)
    wait_for(lambda: _writes(target.server), timeout=20, interval=0.1)
    target.server.command("CONFIG", "SET", "appendfsync", "always")


def _writes(server: Redis) -> bool:
    return bool(server.command("INFO", "persistence")["aof_last_write_status"] == "ok")


def _disk_full_for_good(target: FaultTarget, chance: random.Random) -> None:
    """Fill the disk of a broker that then ends.

    Redis ends if it must sync each write; Kafka ends if no folder is writable, and
    PostgreSQL if it cannot write its log.
    """
    with target.server.full_disk():
        wait_for(lambda: not target.server.running, timeout=60)
    target.server.start()


#: Commands that workers need, and that restoring the permissions does not need.
_NEEDED = ("eval", "evalsha", "blmove", "xreadgroup")


def _commands_forbidden(target: FaultTarget, chance: random.Random) -> None:
    target.server.command("ACL", "SETUSER", "default", *(f"-{c}" for c in _NEEDED))
    try:
        target.last(LONG)
    finally:
        target.server.command("ACL", "SETUSER", "default", "+@all")


def _groups_destroyed(target: FaultTarget, chance: random.Random) -> None:
    """Destroy the consumer groups. Messages stay; those in flight come once more."""
    for key in target.server.command("KEYS", f"*{QUEUE}*"):
        if target.server.command("TYPE", key) == "stream":
            target.server.command("XGROUP", "DESTROY", key, "qconsume")


def _flushed(target: FaultTarget, chance: random.Random) -> None:
    target.server.command("FLUSHALL")


def _failed_over(target: FaultTarget, chance: random.Random) -> None:
    """Fail over; messages are lost that the replica did not have."""
    target.server.fail_over()


# -- Kafka -----------------------------------------------------------------------------


def _one_restarted(target: FaultTarget, chance: random.Random) -> None:
    chance.choice(target.server.brokers).restart()


def _leader_killed(target: FaultTarget, chance: random.Random) -> None:
    leaders = target.server.leaders(QUEUE)
    _kill_and_start(leaders[chance.choice(sorted(leaders))])


def _controller_killed(target: FaultTarget, chance: random.Random) -> None:
    _kill_and_start(target.server.controller())


def _coordinator_killed(target: FaultTarget, chance: random.Random) -> None:
    _kill_and_start(target.server.coordinator(QUEUE))


def _kill_and_start(broker: Kafka) -> None:
    broker.kill()
    broker.start()


# -- PostgreSQL ------------------------------------------------------------------------


def _connections_terminated(target: FaultTarget, chance: random.Random) -> None:
    _database(target).terminate_connections()


def _tables_locked(target: FaultTarget, chance: random.Random) -> None:
    """Lock the table of messages, as a migration does that waits for another lock."""
    with _database(target).connect() as connection, connection.transaction():
        connection.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
        target.last(LONG)


def _old_snapshot(target: FaultTarget, chance: random.Random) -> None:
    """Read for long, as a backup does, so that no dead row can be removed."""
    with _database(target).connect() as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(f"SELECT count(*) FROM {TABLE}")
        target.last(LONG)


def _tables_disk_full(target: FaultTarget, chance: random.Random) -> None:
    """Fill the disk, and what is free in the table: no message finds room."""
    with _database(target).full_disk():
        for size in (5_000, 500, 50):
            with contextlib.suppress(DiskFull):
                while True:
                    _database(target).execute(
                        f"INSERT INTO {TABLE} (queue, body) SELECT 'elsewhere', %s"
                        " FROM generate_series(1, 10)",
                        bytes(size),
                    )
        target.last(LONG)
    _database(target).execute(f"DELETE FROM {TABLE} WHERE queue = 'elsewhere'")


def _connections_refused(target: FaultTarget, chance: random.Random) -> None:
    """Allow no connection to the database, and terminate those that there are."""
    name = _database(target).name
    allow = f"ALTER DATABASE {name} ALLOW_CONNECTIONS"
    target.server.execute(f"{allow} false")
    try:
        _database(target).terminate_connections()
        target.last(LONG)
    finally:
        target.server.execute(f"{allow} true")


def _read_only(target: FaultTarget, chance: random.Random) -> None:
    """Let each new transaction be one that may not write, as on a standby."""
    setting = f"ALTER DATABASE {_database(target).name} SET default_transaction_"
    target.server.execute(f"{setting}read_only = on")
    try:
        _database(target).terminate_connections()
        target.last(LONG)
    finally:
        target.server.execute(f"{setting}read_only = off")
        _database(target).terminate_connections()


def _database(target: FaultTarget) -> t.Any:
    assert target.database is not None
    return target.database


# -- SQLite ----------------------------------------------------------------------------


def _locked(target: FaultTarget, chance: random.Random) -> None:
    """Hold the write lock for longer than clients wait for it."""
    with target.server.frozen():
        target.last(LONG)


def _long_reader(target: FaultTarget, chance: random.Random) -> None:
    """Read for long, so that the log of writes cannot be started anew."""
    with target.server.snapshot():
        target.last(LONG)


def _file_disk_full(target: FaultTarget, chance: random.Random) -> None:
    with target.server.full_disk():
        target.last(LONG)


def _folder_away(target: FaultTarget, chance: random.Random) -> None:
    """Take the folder away, so that no connection can be opened."""
    target.server.kill()
    target.last(LONG)
    target.server.start()


FAULTS = (
    Fault("broker restarted", _restart, SINGLE, SESSION, short=True),
    Fault("broker killed", _kill, SINGLE, SESSION, returns=2, short=True),
    Fault("broker hangs", _hang, SINGLE, SESSION),
    Fault("connections closed by the operator", _connections_closed, AMQP, short=True),
    Fault("memory alarm", _memory_alarm, AMQP, short=True),
    Fault("disk alarm", _disk_alarm, AMQP),
    Fault("queue deleted", _queue_deleted, AMQP, may_lose=True),
    Fault("exchange deleted", _exchange_deleted, AMQP, short=True),
    Fault("locked out", _locked_out, AMQP),
    Fault("permissions revoked", _permissions_revoked, AMQP),
    Fault("consumer timeout", _consumer_timeout, AMQP),
    Fault("clients killed", _clients_killed, REDIS, short=True),
    Fault("broker out of memory", _out_of_memory, REDIS, short=True),
    Fault("disk full", _disk_full, REDIS),
    Fault("ended by a full disk", _disk_full_for_good, REDIS),
    Fault("commands forbidden", _commands_forbidden, REDIS),
    Fault("groups destroyed", _groups_destroyed, frozenset({"streams"}), short=True),
    Fault("flushed", _flushed, REDIS, may_lose=True),
    Fault("failover", _failed_over, SENTINEL, 2.0, may_lose=True),
    Fault("ended by a full disk", _disk_full_for_good, frozenset({"kafka"}), SESSION),
    Fault("ended by a full disk", _disk_full_for_good, POSTGRESQL),
    Fault("connections terminated", _connections_terminated, POSTGRESQL, short=True),
    Fault("tables locked", _tables_locked, POSTGRESQL, short=True),
    Fault("an old snapshot", _old_snapshot, POSTGRESQL),
    Fault("connections refused by the server", _connections_refused, POSTGRESQL),
    Fault("read only", _read_only, POSTGRESQL),
    Fault("disk full", _tables_disk_full, POSTGRESQL),
    Fault("failover", _failed_over, PAIR, may_lose=True),
    Fault("locked by another program", _locked, SQLITE, short=True),
    Fault("a long reader", _long_reader, SQLITE, short=True),
    Fault("disk full", _file_disk_full, SQLITE),
    Fault("folder away", _folder_away, SQLITE),
    Fault("one of three restarted", _one_restarted, frozenset({"cluster"}), SESSION),
    Fault("leader killed", _leader_killed, frozenset({"cluster"}), SESSION, short=True),
    Fault("controller killed", _controller_killed, frozenset({"cluster"}), SESSION),
    Fault("coordinator killed", _coordinator_killed, frozenset({"cluster"}), SESSION),
)
