"""A Redis Cluster as one server: each script goes to the node that has its keys.

Which node has which slot is asked when it is needed first, when a link is made, and
when a node is gone or says that a slot has moved; what it refused for that reason is
sent once more to the right one. All keys of a queue are in one slot, so only a publish
to several queues is more than one step.
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
from ..redis.errors import SlotMoved
from ..redis.scripts import Call
from ..redis.server import Command
from ..redis.server import RedisConnection
from ..redis.server import Server

#: How often a script is sent to another node before it counts as failed.
_REDIRECTS = 3

_Answers = dict[int, t.Any]


class Cluster(Server):
    """The nodes of a cluster, each a :class:`Server`."""

    follows_slots = True

    def __init__(self, settings: Settings) -> None:
        self._address = _Address(settings.broker_url)
        self._settings = settings
        #: By the address, ``host:port``.
        self._nodes: dict[str, Server] = {}
        #: The address of the node that has a slot, by the slot's number.
        self._owners: dict[int, str] = {}
        super().__init__(self._settings_of(self._address.seeds[0]))

    def open_connection(self, near: str = "") -> RedisConnection:
        self._learn(None)
        return self._at(near, None).open_connection()

    def run(self, calls: Sequence[Call], timeout: float | None = None) -> list[t.Any]:
        return self._spread(calls, timeout, Server.run)

    def publish(
        self, calls: Sequence[Call], timeout: float | None = None
    ) -> list[t.Any]:
        return self._spread(calls, timeout, Server.publish)

    def commands(
        self,
        commands: Sequence[Command],
        timeout: float | None = None,
        near: str = "",
    ) -> list[t.Any]:
        return [self._command(command, timeout, near) for command in commands]

    def group_by_slot(
        self, names: Sequence[str], key: t.Callable[[str], str]
    ) -> list[tuple[str, ...]]:
        found: dict[int, tuple[str, ...]] = {}
        for name in names:
            slot = _slot(key(name))
            found[slot] = (*found.get(slot, ()), name)
        return list(found.values())

    def nodes(self) -> list[tuple[str, Server]]:
        self._learn(None)
        addresses = sorted(set(self._owners.values()))
        return [(address, self._node(address)) for address in addresses]

    def check_replicas(self, timeout: float | None = None) -> None:
        for _, node in self.nodes():
            node.check_replicas(timeout)

    def answers(self) -> bool:
        """Whether all of them do: it is the last one that somebody waits for."""
        known = dict.fromkeys([*self._nodes, *self._address.seeds])
        return all(self._node(address).answers() for address in known)

    def close(self) -> None:
        super().close()
        for node in list(self._nodes.values()):
            node.close()

    def _spread(
        self,
        calls: Sequence[Call],
        timeout: float | None,
        run: t.Callable[[Server, Sequence[Call], float | None], list[t.Any]],
    ) -> list[t.Any]:
        """Run each at its node; where there are several, a lost one is an answer."""
        answers: _Answers = {}
        numbers = list(range(len(calls)))
        for _ in range(_REDIRECTS + 1):
            parts = self._parts(calls, numbers, timeout)
            for node, some in parts:
                try:
                    found = run(node, [calls[n] for n in some], timeout)
                except BrokerUnavailable as error:
                    self._owners = {}
                    if len(parts) == 1 and not answers:
                        raise
                    found = [error] * len(some)
                answers.update(zip(some, found, strict=True))
            numbers = [n for n in numbers if isinstance(answers[n], SlotMoved)]
            answers.update(self._asked(calls, numbers, answers))
            numbers = [n for n in numbers if isinstance(answers[n], SlotMoved)]
            if not numbers:
                break
            self._learn(timeout)
        return [answers[number] for number in range(len(calls))]

    def _parts(
        self, calls: Sequence[Call], numbers: Iterable[int], timeout: float | None
    ) -> list[tuple[Server, list[int]]]:
        """Which calls go to which node."""
        found: dict[Server, list[int]] = {}
        for number in numbers:
            # A script's keys stand behind how many they are.
            node = self._at(calls[number].arguments[1], timeout)
            found.setdefault(node, []).append(number)
        return list(found.items())

    def _asked(
        self, calls: Sequence[Call], numbers: Iterable[int], answers: _Answers
    ) -> _Answers:
        """The answers of nodes that are taking over a slot, where it is at that."""
        return {
            number: self._node(answers[number].address).run_asking(calls[number])
            for number in numbers
            if answers[number].asking
        }

    def _command(self, command: Command, timeout: float | None, near: str) -> t.Any:
        key = near or (command[1] if len(command) > 1 else "")
        for turn in range(_REDIRECTS + 1):
            try:
                return self._at(key, timeout).commands([command], timeout)[0]
            except SlotMoved:
                if turn == _REDIRECTS:
                    raise
                self._learn(timeout)
            except BrokerUnavailable:
                self._owners = {}
                raise

    def _at(self, key: str, timeout: float | None) -> Server:
        """The node that has a key; any, if it is none."""
        if not self._owners:
            self._learn(timeout)
        slot = _slot(key) if key else next(iter(self._owners))
        owner = self._owners.get(slot)
        if owner is None:
            raise BrokerUnavailable(
                f"No node of the Redis Cluster has the slot {slot} of the key '{key}':"
                " it is not complete. Look at 'redis-cli --cluster check'."
            )
        return self._node(owner)

    def _learn(self, timeout: float | None) -> None:
        """Ask who has which slot, the first node that answers."""
        whole = self.silence if timeout is None else timeout
        deadline = time.monotonic() + whole
        known = dict.fromkeys([*self._nodes, *self._address.seeds])
        for address in known:
            node = self._node(address)
            try:
                (found,) = node.commands([("CLUSTER", "SLOTS")], whole / len(known))
            except BrokerUnavailable:
                # It may hang: the next time, the others have their turn before it.
                self._nodes[address] = self._nodes.pop(address, node)
                if time.monotonic() >= deadline or address == [*known][-1]:
                    raise
            else:
                self._owners = _owners(found, address)
                return

    def _node(self, address: str) -> Server:
        found = self._nodes.get(address)
        if found is None:
            made = Server(self._settings_of(address))
            found = self._nodes.setdefault(address, made)
        return found

    def _settings_of(self, address: str) -> Settings:
        url = self._address.of(address)
        return dataclasses.replace(self._settings, broker_url=url)


class _Address:
    """The URL of a cluster: some of its nodes, with commas in between."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._scheme = parts.scheme.partition("+")[0]
        login, at, hosts = parts.netloc.rpartition("@")
        self._login = login + at
        self._query = f"?{parts.query}" if parts.query else ""
        self.seeds = [_with_port(host) for host in hosts.split(",")]
        if parts.path not in {"", "/", "/0"}:
            raise ConfigurationError(
                "'QCONSUME_BROKER_URL' names a database, and a Redis Cluster has only"
                " the first. Leave it out; 'global_keyprefix' keeps apps apart."
            )

    def of(self, address: str) -> str:
        """The URL of one node."""
        return f"{self._scheme}://{self._login}{address}/0{self._query}"


def _with_port(host: str) -> str:
    name = host or "localhost"
    return name if ":" in name.rpartition("]")[2] else f"{name}:6379"


def _owners(slots: t.Any, asked: str) -> dict[int, str]:
    """The addresses by the numbers of the slots, from the answer to the question."""
    found: dict[int, str] = {}
    for first, last, (host, port, *_), *_ in slots:
        # A node that does not know its own name is the one that we reached.
        name = host.decode() if host else asked.rpartition(":")[0]
        address = f"[{name}]:{port}" if ":" in name.strip("[]") else f"{name}:{port}"
        found.update(dict.fromkeys(range(first, last + 1), address))
    return found


def _slot(key: str) -> int:
    return int(key_slot(key.encode()))
