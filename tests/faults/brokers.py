"""What may happen to a broker, or be done to it by those who look after it."""

from __future__ import annotations

import random
import typing as t

from ..brokers.rabbitmq.rabbit import raw_channel
from ..servers import Kafka
from ..servers import Redis
from ..waiting import wait_for
from .fault import AMQP
from .fault import EVERYWHERE
from .fault import HEARTBEAT
from .fault import REDIS
from .fault import SESSION
from .fault import Fault
from .fault import Scene

#: One Redis with a replica, under sentinels: lists, and streams.
SENTINEL = frozenset({"sentinel", "sentinel-streams"})
SINGLE = EVERYWHERE - {"cluster"}

#: Seconds for which a broker hangs or refuses: longer than it is waited for.
LONG = 2 * HEARTBEAT + 2
#: Seconds that a killed broker is away, beside what its start takes.
_AWAY = 1.0
#: Seconds that a timeout for consumers is set to.
IMPATIENCE = 2.0

QUEUE = "work"
EXCHANGE = "qconsume"


# -- any broker ------------------------------------------------------------------------


def _restart(scene: Scene, chance: random.Random) -> None:
    scene.server.restart()


def _kill(scene: Scene, chance: random.Random) -> None:
    scene.server.kill()
    # A broker that is back before a client connects again was never missed.
    scene.last(_AWAY)
    scene.server.start()


def _hang(scene: Scene, chance: random.Random) -> None:
    with scene.server.frozen():
        scene.last(LONG)


# -- RabbitMQ --------------------------------------------------------------------------


def _connections_closed(scene: Scene, chance: random.Random) -> None:
    _vhost(scene).close_connections("maintenance")


def _memory_alarm(scene: Scene, chance: random.Random) -> None:
    with scene.server.memory_alarm():
        scene.last(LONG)


def _disk_alarm(scene: Scene, chance: random.Random) -> None:
    with scene.server.disk_alarm():
        scene.last(LONG)


def _queue_deleted(scene: Scene, chance: random.Random) -> None:
    """What was in it is gone with it, as whoever deletes it is told."""
    with raw_channel(_vhost(scene).url) as channel:
        channel.queue_delete(QUEUE)
    wait_for(lambda: QUEUE in _vhost(scene).queues(), timeout=60, interval=0.5)


def _exchange_deleted(scene: Scene, chance: random.Random) -> None:
    with raw_channel(_vhost(scene).url) as channel:
        channel.exchange_delete(EXCHANGE)


def _locked_out(scene: Scene, chance: random.Random) -> None:
    """The virtual host is closed to us; who is in it notices at the next connection."""
    with _vhost(scene).permissions(None):
        _vhost(scene).close_connections("you may no longer")
        scene.last(LONG)


def _permissions_revoked(scene: Scene, chance: random.Random) -> None:
    """We may connect, and do nothing then."""
    with _vhost(scene).permissions("^$"):
        _vhost(scene).close_connections("you may no longer")
        scene.last(LONG)


def _consumer_timeout(scene: Scene, chance: random.Random) -> None:
    """A handler takes longer than the broker waits for an acknowledgement."""
    with scene.server.consumer_timeout(IMPATIENCE):
        _vhost(scene).close_connections("so that it holds")
        n = scene.send(seconds=4 * IMPATIENCE)
        _await_done(scene, n)


def _vhost(scene: Scene) -> t.Any:
    assert scene.vhost is not None
    return scene.vhost


def _await_done(scene: Scene, n: int) -> None:
    wait_for(lambda: scene.fleet.ledger.counted()[n], timeout=60, interval=0.2)


# -- Redis -----------------------------------------------------------------------------


def _clients_killed(scene: Scene, chance: random.Random) -> None:
    scene.server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def _out_of_memory(scene: Scene, chance: random.Random) -> None:
    scene.server.command("CONFIG", "SET", "maxmemory", "1")
    try:
        scene.last(LONG)
    finally:
        scene.server.command("CONFIG", "SET", "maxmemory", "0")


def _disk_full(scene: Scene, chance: random.Random) -> None:
    """A Redis that need not sync each write goes on, and refuses all of them."""
    scene.server.command("CONFIG", "SET", "appendfsync", "everysec")
    with scene.server.full_disk():
        scene.last(LONG)
    wait_for(lambda: _writes(scene.server), timeout=20, interval=0.1)
    scene.server.command("CONFIG", "SET", "appendfsync", "always")


def _writes(server: Redis) -> bool:
    return bool(server.command("INFO", "persistence")["aof_last_write_status"] == "ok")


def _disk_full_for_good(scene: Scene, chance: random.Random) -> None:
    """One that has to sync each write ends by the first that fails.

    So does a Kafka, which cannot write to any of its folders any more.
    """
    with scene.server.full_disk():
        wait_for(lambda: not scene.server.running, timeout=60)
    scene.server.start()


#: What a user of ours has to be allowed, and whoever restores it need not.
_NEEDED = ("eval", "evalsha", "blmove", "xreadgroup")


def _commands_forbidden(scene: Scene, chance: random.Random) -> None:
    scene.server.command("ACL", "SETUSER", "default", *(f"-{c}" for c in _NEEDED))
    try:
        scene.last(LONG)
    finally:
        scene.server.command("ACL", "SETUSER", "default", "+@all")


def _groups_destroyed(scene: Scene, chance: random.Random) -> None:
    """What is in the streams is there still: what was in flight comes once more."""
    for key in scene.server.command("KEYS", f"*{QUEUE}*"):
        if scene.server.command("TYPE", key) == "stream":
            scene.server.command("XGROUP", "DESTROY", key, "qconsume")


def _flushed(scene: Scene, chance: random.Random) -> None:
    scene.server.command("FLUSHALL")


def _failed_over(scene: Scene, chance: random.Random) -> None:
    """What the replica had not got is lost, unless its publisher has waited for it."""
    scene.server.fail_over()


# -- Kafka -----------------------------------------------------------------------------


def _one_restarted(scene: Scene, chance: random.Random) -> None:
    chance.choice(scene.server.brokers).restart()


def _leader_killed(scene: Scene, chance: random.Random) -> None:
    leaders = scene.server.leaders(QUEUE)
    _replaced(leaders[chance.choice(sorted(leaders))])


def _controller_killed(scene: Scene, chance: random.Random) -> None:
    _replaced(scene.server.controller())


def _coordinator_killed(scene: Scene, chance: random.Random) -> None:
    _replaced(scene.server.coordinator(QUEUE))


def _replaced(broker: Kafka) -> None:
    broker.kill()
    broker.start()


FAULTS = (
    Fault("broker restarted", _restart, SINGLE, SESSION, short=True),
    Fault("broker killed", _kill, SINGLE, SESSION, returns=2, short=True),
    Fault("broker hangs", _hang, SINGLE, SESSION),
    Fault("connections closed by the operator", _connections_closed, AMQP, short=True),
    Fault("memory alarm", _memory_alarm, AMQP, short=True),
    Fault("disk alarm", _disk_alarm, AMQP),
    Fault("queue deleted", _queue_deleted, AMQP, told_loss=True),
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
    Fault("flushed", _flushed, REDIS, told_loss=True),
    Fault("failover", _failed_over, SENTINEL, 2.0, told_loss=True),
    Fault("ended by a full disk", _disk_full_for_good, frozenset({"kafka"}), SESSION),
    Fault("one of three restarted", _one_restarted, frozenset({"cluster"}), SESSION),
    Fault("leader killed", _leader_killed, frozenset({"cluster"}), SESSION, short=True),
    Fault("controller killed", _controller_killed, frozenset({"cluster"}), SESSION),
    Fault("coordinator killed", _coordinator_killed, frozenset({"cluster"}), SESSION),
)
