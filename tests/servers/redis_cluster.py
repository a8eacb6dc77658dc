"""A throwaway Redis Cluster: three nodes with slots, and a replica of one."""

from __future__ import annotations

import contextlib
import pathlib
import typing as t

import redis
from redis.crc import key_slot

from ..waiting import wait_for
from .ports import HOST
from .ports import free_port
from .redis import Redis

SLOTS = 16_384


class Node(Redis):
    """One node, which considers another node failed after half a second."""

    title = "Redis Cluster"

    def __init__(self, folder: pathlib.Path) -> None:
        options = {
            "cluster-enabled": "yes",
            # The default, 10,000 higher, may be taken by an outgoing connection.
            "cluster-port": str(free_port()),
            "cluster-node-timeout": "500",
            "cluster-replica-validity-factor": "0",
            "cluster-require-full-coverage": "no",
            "repl-diskless-sync-delay": "0",
        }
        super().__init__(folder, options=options)

    @property
    def id(self) -> str:
        return str(self.command("CLUSTER", "MYID"))

    def knows(self, count: int) -> bool:
        """Return whether the node sees ``count`` nodes and all slots."""
        about = self.command("CLUSTER", "INFO")
        return f"cluster_known_nodes:{count}" in about and "cluster_state:ok" in about


class RedisCluster:
    """The joined nodes."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.nodes = [Node(folder / f"node-{number}") for number in range(4)]
        self._stack = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """A URL with two nodes, of which one is enough."""
        names = ",".join(f"{HOST}:{node.port}" for node in self.nodes[:2])
        return f"redis-streams+cluster://{names}"

    def owner(self, key: str) -> Node:
        """Return the node that has a key, according to the first node that answers."""
        slot = key_slot(key.encode())
        node = next(node for node in self.nodes if node.running)
        for first, last, (_, port, *_), *_ in node.command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise LookupError(f"no node has the slot {slot}")

    def queue_on(self, node: Node) -> str:
        """Return the name of a queue that is on that node."""
        return next(
            name
            for name in (f"queue-{number}" for number in range(SLOTS))
            if self.owner(name) is node
        )

    def mend(self, *, empty: bool = True) -> None:
        """Start killed nodes, and empty all."""
        for node in self.nodes:
            if not node.running:
                node.start()
        self._await(lambda node: node.knows(4))
        for node in self.masters() if empty else ():
            node.command("FLUSHALL")

    def kill(self) -> None:
        """End all nodes at once."""
        for node in self.nodes:
            node.kill()

    def start(self) -> None:
        """Start all nodes, and return once they see each other."""
        self.mend(empty=False)

    @contextlib.contextmanager
    def frozen(self) -> t.Iterator[None]:
        """Freeze all nodes."""
        with contextlib.ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node.frozen())
            yield

    def masters(self) -> list[Node]:
        """Return the nodes that consider themselves masters."""
        return [node for node in self.nodes if node.command("ROLE")[0] == "master"]

    def unassign(self, slot: int) -> None:
        """Take a slot from its node, so that no node has it."""
        # Repeat, since the owner announces the slot until it has forgotten it.
        for node in 2 * self.masters():
            with contextlib.suppress(redis.ResponseError):  # The node knew no owner.
                node.command("CLUSTER", "DELSLOTS", slot)

    def assign(self, slot: int) -> None:
        """Assign a slot to the first node."""
        masters = self.masters()
        for node in masters:
            node.command("CLUSTER", "SETSLOT", slot, "NODE", masters[0].id)
        whole = f"cluster_slots_assigned:{SLOTS}"
        self._await(lambda node: whole in node.command("CLUSTER", "INFO"))

    def move(self, key: str, target: Node) -> t.Iterator[None]:
        """Move a key's slot to another node; goes on at each step when it is told to.

        The steps are: announced; the keys are moved; done.
        """
        slot, source = key_slot(key.encode()), self.owner(key)
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        yield
        names = source.command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
        if names:
            address = (HOST, target.port, "", 0, 5000, "KEYS", *names)
            source.command("MIGRATE", *address)
        yield
        for node in self.masters():
            node.command("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def __enter__(self) -> RedisCluster:
        with contextlib.ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            self._join()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _join(self) -> None:
        first, replica = self.nodes[0], self.nodes[3]
        bounds = [0, SLOTS // 3, 2 * SLOTS // 3, SLOTS]
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            bus = node.options["cluster-port"]
            first.command("CLUSTER", "MEET", HOST, node.port, bus)
        for node, low, high in zip(self.nodes[:3], bounds[:3], bounds[1:], strict=True):
            node.command("CLUSTER", "ADDSLOTSRANGE", low, high - 1)
        self._await(lambda node: node.knows(4))
        replica.command("CLUSTER", "REPLICATE", first.id)
        self._await(lambda node: "slave" in node.command("CLUSTER", "NODES"))
        wait_for(lambda: first.command("WAIT", 1, 100) == 1, timeout=30)

    def _await(self, ready: t.Callable[[Node], bool]) -> None:
        wait_for(lambda: all(map(ready, self.nodes)), timeout=30, interval=0.05)
