"""A Redis Cluster, used like one server: each script runs at its keys' node.

A cluster divides all keys into slots, and each node has some of them. The nodes are
asked for their slots at the first use, when a link connects, and when a node is away or
answers that a slot has moved. A script that was refused because its slot has moved is
sent to the new node. All keys of a queue are in one slot, so only a publish to several
queues takes more than one step.
"""

from __future__ import annotations

import dataclasses
import time
import typing as t
from collections.abc import Iterable
from collections.abc import Sequence
from urllib.parse import urlsplit

from redis.crc import key_slot

from ...errors import BrokerUnavailable
from ...errors import ConfigurationError
from ...settings import Settings
from ..redis.connections import Command
from ..redis.connections import RedisConnection
from ..redis.errors import SlotMoved
from ..redis.scripts import Call
from ..redis.server import Server

#: Number of times that a script or command is sent to another node before it fails.
_MAX_REDIRECTS = 3

_Answers = dict[int, t.Any]


class Cluster(Server):
    """A Redis Cluster with the interface of a server; each node is a ``Server``."""

    follows_slots = True

    def __init__(self, settings: Settings) -> None:
        self._cluster_url = _ClusterUrl(settings.broker_url)
        self._settings = settings
        #: The nodes by address, ``host:port``.
        self._nodes: dict[str, Server] = {}
        #: The address of the slot's node, by the slot's number.
        self._slot_owners: dict[int, str] = {}
        super().__init__(self._settings_of(self._cluster_url.seeds[0]))

    def open_connection(self, near: str = "") -> RedisConnection:
        self._refresh_slots(None)
        return self._node_of(near, None).open_connection()

    def run(self, calls: Sequence[Call], timeout: float | None = None) -> list[t.Any]:
        return self._run_at_nodes(calls, timeout, Server.run)

    def publish(
        self, calls: Sequence[Call], timeout: float | None = None
    ) -> list[t.Any]:
        return self._run_at_nodes(calls, timeout, Server.publish)

    def send_commands(
        self,
        commands: Sequence[Command],
        timeout: float | None = None,
        near: str = "",
    ) -> list[t.Any]:
        return [self._run_command(command, timeout, near) for command in commands]

    def group_by_slot(
        self, names: Sequence[str], key: t.Callable[[str], str]
    ) -> list[tuple[str, ...]]:
        queues_by_slot: dict[int, tuple[str, ...]] = {}
        for name in names:
            slot = _slot_of(key(name))
            queues_by_slot[slot] = (*queues_by_slot.get(slot, ()), name)
        return list(queues_by_slot.values())

    def list_nodes(self) -> list[tuple[str, Server]]:
        self._refresh_slots(None)
        addresses = sorted(set(self._slot_owners.values()))
        return [(address, self._get_node(address)) for address in addresses]

    def check_replicas(self, timeout: float | None = None) -> None:
        for _, node in self.list_nodes():
            node.check_replicas(timeout)

    def is_reachable(self) -> bool:
        """Return whether all nodes answer, since each node may hold a queue."""
        addresses = dict.fromkeys([*self._nodes, *self._cluster_url.seeds])
        return all(self._get_node(address).is_reachable() for address in addresses)

    def close(self) -> None:
        super().close()
        for node in list(self._nodes.values()):
            node.close()

    def _run_at_nodes(
        self,
        calls: Sequence[Call],
        timeout: float | None,
        run: t.Callable[[Server, Sequence[Call], float | None], list[t.Any]],
    ) -> list[t.Any]:
        """Run each script at the node that has its keys.

        If a node does not answer, only the scripts for that node fail.
        """
        answers: _Answers = {}
        numbers = list(range(len(calls)))
        for _ in range(_MAX_REDIRECTS + 1):
            calls_by_node = self._group_by_node(calls, numbers, timeout)
            for node, indexes in calls_by_node:
                try:
                    node_answers = run(node, [calls[n] for n in indexes], timeout)
                except BrokerUnavailable as error:
                    self._slot_owners = {}
                    if len(calls_by_node) == 1 and not answers:
                        raise
                    node_answers = [error] * len(indexes)
                answers.update(zip(indexes, node_answers, strict=True))
            numbers = [n for n in numbers if isinstance(answers[n], SlotMoved)]
            answers.update(self._ask_importing_nodes(calls, numbers, answers))
            numbers = [n for n in numbers if isinstance(answers[n], SlotMoved)]
            if not numbers:
                break
            self._refresh_slots(timeout)
        return [answers[number] for number in range(len(calls))]

    def _group_by_node(
        self, calls: Sequence[Call], numbers: Iterable[int], timeout: float | None
    ) -> list[tuple[Server, list[int]]]:
        """Group scripts by the node of their keys; return indexes into ``calls``."""
        indexes_by_node: dict[Server, list[int]] = {}
        for number in numbers:
            # The arguments begin with the number of keys, then the keys follow.
            node = self._node_of(calls[number].arguments[1], timeout)
            indexes_by_node.setdefault(node, []).append(number)
        return list(indexes_by_node.items())

    def _ask_importing_nodes(
        self, calls: Sequence[Call], numbers: Iterable[int], answers: _Answers
    ) -> _Answers:
        """Run scripts again, at nodes that are taking over their keys' slots."""
        return {
            number: self._get_node(answers[number].address).run_asking(calls[number])
            for number in numbers
            if answers[number].asking
        }

    def _run_command(self, command: Command, timeout: float | None, near: str) -> t.Any:
        key = near or (command[1] if len(command) > 1 else "")
        for turn in range(_MAX_REDIRECTS + 1):
            try:
                return self._node_of(key, timeout).send_commands([command], timeout)[0]
            except SlotMoved:
                if turn == _MAX_REDIRECTS:
                    raise
                self._refresh_slots(timeout)
            except BrokerUnavailable:
                self._slot_owners = {}
                raise

    def _node_of(self, key: str, timeout: float | None) -> Server:
        """Return the node that has a key; any node for an empty key."""
        if not self._slot_owners:
            self._refresh_slots(timeout)
        slot = _slot_of(key) if key else next(iter(self._slot_owners))
        owner = self._slot_owners.get(slot)
        if owner is None:
            raise BrokerUnavailable(
                f"No node of the Redis Cluster has the slot {slot} of the key '{key}':"
                " it is not complete. Look at 'redis-cli --cluster check'."
            )
        return self._get_node(owner)

    def _refresh_slots(self, timeout: float | None) -> None:
        """Ask the nodes, one after the other, which node has which slot."""
        whole = self.silence if timeout is None else timeout
        deadline = time.monotonic() + whole
        addresses = dict.fromkeys([*self._nodes, *self._cluster_url.seeds])
        for address in addresses:
            node = self._get_node(address)
            try:
                (slots,) = node.send_commands(
                    [("CLUSTER", "SLOTS")], whole / len(addresses)
                )
            except BrokerUnavailable:
                # The node may hang: ask the other nodes first the next time.
                self._nodes[address] = self._nodes.pop(address, node)
                if time.monotonic() >= deadline or address == [*addresses][-1]:
                    raise
            else:
                self._slot_owners = _read_owners(slots, address)
                return

    def _get_node(self, address: str) -> Server:
        node = self._nodes.get(address)
        if node is None:
            new_node = Server(self._settings_of(address))
            node = self._nodes.setdefault(address, new_node)
        return node

    def _settings_of(self, address: str) -> Settings:
        url = self._cluster_url.for_node(address)
        return dataclasses.replace(self._settings, broker_url=url)


class _ClusterUrl:
    """The URL of a cluster, with the addresses of one or more nodes."""

    def __init__(self, url: str) -> None:
        url_parts = urlsplit(url)
        self._scheme = url_parts.scheme.partition("+")[0]
        login, at, hosts = url_parts.netloc.rpartition("@")
        self._login = login + at
        self._query = f"?{url_parts.query}" if url_parts.query else ""
        self.seeds = [_add_port(host) for host in hosts.split(",")]
        if url_parts.path not in {"", "/", "/0"}:
            raise ConfigurationError(
                "'QCONSUME_BROKER_URL' names a database, and a Redis Cluster has only"
                " the first. Leave it out; 'global_keyprefix' keeps apps apart."
            )

    def for_node(self, address: str) -> str:
        return f"{self._scheme}://{self._login}{address}/0{self._query}"


def _add_port(host: str) -> str:
    name = host or "localhost"
    return name if ":" in name.rpartition("]")[2] else f"{name}:6379"


def _read_owners(slots: t.Any, asked: str) -> dict[int, str]:
    """Decode the answer to ``CLUSTER SLOTS`` to the address of each slot's node."""
    owners: dict[int, str] = {}
    for first, last, (host, port, *_), *_ in slots:
        # The node that was asked may not know its own name.
        name = host.decode() if host else asked.rpartition(":")[0]
        address = f"[{name}]:{port}" if ":" in name.strip("[]") else f"{name}:{port}"
        owners.update(dict.fromkeys(range(first, last + 1), address))
    return owners


def _slot_of(key: str) -> int:
    return int(key_slot(key.encode()))
