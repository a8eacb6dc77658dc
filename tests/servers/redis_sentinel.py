"""A Redis with a replica, and sentinels that let that one take its place."""

from __future__ import annotations

import contextlib
import pathlib

import redis

from ..waiting import wait_for
from .ports import HOST
from .redis import Redis

NAME = "shop"


class Sentinel(Redis):
    """One sentinel of some, which finds a server dead after half a second."""

    title = "Redis Sentinel"

    def __init__(self, folder: pathlib.Path, watched: Redis, quorum: int) -> None:
        super().__init__(folder)
        self._watched = watched
        self._quorum = quorum

    def _command(self) -> list[str]:
        lines = [
            f"port {self.port}",
            f"bind {HOST}",
            "dir .",
            f"sentinel monitor {NAME} {HOST} {self._watched.port} {self._quorum}",
            f"sentinel down-after-milliseconds {NAME} 500",
            f"sentinel failover-timeout {NAME} 3000",
        ]
        config = self.folder / "sentinel.conf"
        if not config.exists():  # It writes down there what it has come to know.
            config.write_text("".join(f"{line}\n" for line in lines))
        return ["redis-server", "sentinel.conf", "--sentinel"]


class RedisSentinel:
    """Two servers, of which one is the master, and three sentinels.

    :param options: Lines of both servers' configuration.
    """

    def __init__(
        self, folder: pathlib.Path, options: dict[str, str] | None = None
    ) -> None:
        quick = {"repl-diskless-sync-delay": "0", **(options or {})}
        self.servers = [Redis(folder / f"redis-{n}", options=quick) for n in range(2)]
        self.sentinels = [
            Sentinel(folder / f"sentinel-{n}", self.servers[0], 2) for n in range(3)
        ]
        self._stack = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """For lists; needs the transport option ``master_name``, :data:`NAME`."""
        return ";".join(f"sentinel://{HOST}:{each.port}/0" for each in self.sentinels)

    @property
    def master(self) -> Redis:
        """The server that most sentinels take for the master."""
        ports = [each.command(*_WHICH)[1] for each in self.sentinels if each.running]
        port = int(max(ports, key=ports.count))
        return next(each for each in self.servers if each.port == port)

    @property
    def replica(self) -> Redis:
        master = self.master
        return next(each for each in self.servers if each is not master)

    def fail_over(self) -> Redis:
        """Kill the master, and return the one that took its place once it has.

        The killed one is started again, and is its replica from then on.
        """
        killed, other = self.master, self.replica
        killed.kill()
        wait_for(lambda: self.master is other and role(other) == "master", timeout=60)
        killed.start()
        self.await_replica()
        return other

    def await_replica(self) -> None:
        """Return once the replica has all that the master has."""
        wait_for(lambda: role(self.replica) == "slave", timeout=60)
        wait_for(lambda: _link(self.replica) == "up", timeout=60)

    def __enter__(self) -> RedisSentinel:
        with contextlib.ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            first, second = self.servers
            second.command("REPLICAOF", HOST, first.port)
            wait_for(lambda: _link(second) == "up", timeout=30)
            for sentinel in self.sentinels:
                stack.enter_context(sentinel)
            wait_for(lambda: all(map(_is_informed, self.sentinels)), timeout=30)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


_WHICH = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)


def role(server: Redis) -> str:
    """What a server takes itself for: ``"master"`` or ``"slave"``."""
    try:
        return str(server.command("INFO", "replication")["role"])
    except (redis.ConnectionError, redis.TimeoutError):
        return ""


def _link(replica: Redis) -> str | None:
    try:
        found = replica.command("INFO", "replication").get("master_link_status")
    except (redis.ConnectionError, redis.TimeoutError):
        return None
    return None if found is None else str(found)


def _is_informed(sentinel: Redis) -> bool:
    """Whether it knows the replica and the other two sentinels."""
    known = sentinel.command("INFO", "sentinel")["master0"]
    return (known["slaves"], known["sentinels"]) == (1, 3)
