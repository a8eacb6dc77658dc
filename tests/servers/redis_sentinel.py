"""A Redis with a replica, and sentinels that promote the replica."""

from __future__ import annotations

import contextlib
import pathlib

import redis

from ..waiting import wait_for
from .ports import HOST
from .redis import Redis

NAME = "shop"


class Sentinel(Redis):
    """A sentinel that considers a server failed after half a second."""

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
        if not config.exists():  # The sentinel rewrites its configuration.
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
        """The URL for lists; needs the option ``master_name``, :data:`NAME`."""
        return ";".join(f"sentinel://{HOST}:{each.port}/0" for each in self.sentinels)

    @property
    def master(self) -> Redis:
        """Return the server that most sentinels consider the master."""
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
        """Wait until the replica has all data of the master."""
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
    """Return the role of a server: ``"master"`` or ``"slave"``."""
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
    """Return whether a sentinel knows the replica and the other sentinels."""
    known = sentinel.command("INFO", "sentinel")["master0"]
    return (known["slaves"], known["sentinels"]) == (1, 3)
