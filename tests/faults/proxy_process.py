"""The process of a proxy: a TCP relay that misbehaves on command.

The process reads commands as lines of JSON from its standard input, answers each with a
line, and ends with its input. It is a process of its own, so that a program under test
that stops, blocks or patches its interpreter does not disturb the relay.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
import sys
import typing as t

HOST = "127.0.0.1"
#: Bytes read at once, and size of the kernel's buffers: small, so that a writer soon
#: blocks when the window is closed.
CHUNK = 65_536
#: The directions from the client to the broker, and back.
UP, DOWN = "up", "down"
#: Seconds between two pieces on a throttled connection.
THROTTLE_INTERVAL = 0.05

_NO_LINGER = struct.pack("ii", 1, 0)


class Direction:
    """Failures of one direction."""

    def __init__(self) -> None:
        #: Cleared while no bytes are read, so that the receive window closes.
        self.open = asyncio.Event()
        self.mend()

    def mend(self) -> None:
        """End the failures."""
        self.open.set()
        self.delay = 0.0
        self.rate = 0


class Cut(Exception):
    """The connection must end now."""

    def __init__(self, reset: bool) -> None:
        self.reset = reset


class Connection:
    """The two sockets of a relayed connection."""

    def __init__(self, client: socket.socket, broker: socket.socket) -> None:
        self.sockets = {UP: (client, broker), DOWN: (broker, client)}
        #: Directions whose bytes are discarded until the end, as on a path that a
        #: firewall has forgotten: after lost bytes the rest is useless.
        self.dead: set[str] = set()
        #: Directions to be cut within the next bytes, and whether by a reset.
        self.breaking: dict[str, bool] = {}
        #: Whether the client has closed its side.
        self.left = False
        #: Whether a cancelled connection ends by RST.
        self.reset = False
        self.task: asyncio.Task[None] | None = None

    def close(self, reset: bool) -> None:
        """End both sides, by RST or by FIN."""
        for each in self.sockets[UP]:
            with contextlib.suppress(OSError):
                _reset(each) if reset else _finish(each)
            each.close()


def _reset(each: socket.socket) -> None:
    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


def _finish(each: socket.socket) -> None:
    each.shutdown(socket.SHUT_WR)
    # With unread bytes the kernel would send RST instead of FIN.
    while each.recv(CHUNK):
        pass


class Relay:
    """Relay that connects each client to the broker and provokes failures."""

    def __init__(self, port: int, target: int) -> None:
        self._port = port
        self._target = target
        self._ways = {UP: Direction(), DOWN: Direction()}
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None

    # -- commands ---------------------------------------------------------------------

    def cut(self, reset: bool, share: float, seed: int) -> list[asyncio.Task[None]]:
        """End connections, or a share of them."""
        tasks = []
        for each in self._choose(share, seed):
            each.reset = reset
            assert each.task is not None
            each.task.cancel()
            tasks.append(each.task)
        return tasks

    def swallow(self, ways: list[str], share: float, seed: int) -> None:
        """Discard all further bytes of open connections."""
        for each in self._choose(share, seed):
            each.dead.update(ways)

    def break_frames(self, way: str, reset: bool) -> None:
        """Cut each connection within its next bytes."""
        for each in self._connections:
            each.breaking[way] = reset

    def stall(self, ways: list[str]) -> None:
        """Stop reading until :meth:`mend`, so that the window closes."""
        for way in ways:
            self._ways[way].open.clear()

    def delay(self, ways: list[str], seconds: float) -> None:
        """Delay all bytes by these seconds."""
        for way in ways:
            self._ways[way].delay = seconds

    def throttle(self, ways: list[str], rate: int) -> None:
        """Let ``rate`` bytes per second through on each connection."""
        for way in ways:
            self._ways[way].rate = rate

    def refuse(self) -> None:
        """Stop listening."""
        if self._accepting is not None:
            self._accepting.cancel()
        if self._server is not None:
            self._server.close()
        self._server = self._accepting = None

    def mend(self) -> None:
        """Listen, and end all failures, except those of dead connections."""
        for way in self._ways.values():
            way.mend()
        for each in self._connections:
            each.breaking.clear()
        if self._server is None:
            self._listen()

    def state(self) -> dict[str, int]:
        """Return the numbers of open, dead and breaking connections."""
        here = [each for each in self._connections if not each.left]
        return {
            "clients": len(here),
            "dead": sum(bool(each.dead) for each in here),
            "breaking": sum(bool(each.breaking) for each in here),
        }

    # -- connections ------------------------------------------------------------------

    def _choose(self, share: float, seed: int) -> list[Connection]:
        """Choose a share of the connections, at least one if there is any."""
        found = [each for each in self._connections if not each.left]
        chance = random.Random(seed)
        count = max(1, round(share * len(found)))
        return chance.sample(found, min(count, len(found)))

    def _listen(self) -> None:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit the buffer size.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK)
        server.bind((HOST, self._port))
        server.listen(128)
        server.setblocking(False)
        self._server = server
        self._accepting = asyncio.create_task(self._accept(server))

    async def _accept(self, server: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(server)
            self._keep(asyncio.create_task(self._serve(client)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        broker = socket.socket()
        broker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK)
        broker.setblocking(False)
        try:
            await loop.sock_connect(broker, (HOST, self._target))
        except OSError:
            # Reset the client, as if no broker listened on this port.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            client.close()
            broker.close()
            return
        await self._relay(Connection(client, broker))

    async def _relay(self, connection: Connection) -> None:
        for each in connection.sockets[UP]:
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.task = asyncio.current_task()
        self._connections.add(connection)
        pumps = [asyncio.create_task(self._pump(connection, w)) for w in (UP, DOWN)]
        reset = False
        try:
            await asyncio.gather(*pumps)
        except asyncio.CancelledError:
            reset = connection.reset
        except Cut as cut:
            reset = cut.reset
        except OSError:
            reset = True
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
            self._connections.discard(connection)
            connection.close(reset)

    async def _pump(self, connection: Connection, name: str) -> None:
        """Relay one direction until it ends."""
        while data := await self._receive(connection, name):
            await self._send(connection, name, data)
        await self._send(connection, name, data)

    async def _receive(self, connection: Connection, name: str) -> bytes:
        """Return the next bytes; no bytes mean the end, or a swallowed reset."""
        loop = asyncio.get_running_loop()
        way = self._ways[name]
        await way.open.wait()
        try:
            data = await loop.sock_recv(connection.sockets[name][0], CHUNK)
        except OSError:
            if name not in connection.dead:
                raise
            data = b""
        await way.open.wait()
        connection.left |= name == UP and not data
        return data

    async def _send(self, connection: Connection, name: str, data: bytes) -> None:
        if name in connection.dead:
            return
        try:
            await self._pass_on(connection, name, data, connection.sockets[name][1])
        except OSError:
            if not connection.dead:
                raise
            # The notice of the close would come on the dead direction: swallow it.
            connection.dead.add(name)

    async def _pass_on(
        self, connection: Connection, name: str, data: bytes, target: socket.socket
    ) -> None:
        loop = asyncio.get_running_loop()
        way = self._ways[name]
        if way.delay:
            await asyncio.sleep(way.delay)
        if not data:
            target.shutdown(socket.SHUT_WR)
        elif name in connection.breaking and len(data) > 1:
            await loop.sock_sendall(target, data[: -random.randrange(1, len(data))])
            raise Cut(connection.breaking[name])
        else:
            await self._trickle(way, data, target)

    async def _trickle(
        self, way: Direction, data: bytes, target: socket.socket
    ) -> None:
        loop = asyncio.get_running_loop()
        while way.rate and data:
            size = max(1, round(way.rate * THROTTLE_INTERVAL))
            await loop.sock_sendall(target, data[:size])
            data = data[size:]
            await asyncio.sleep(THROTTLE_INTERVAL)
        await loop.sock_sendall(target, data)


async def run_commands(port: int, target: int) -> None:
    """Execute the commands of the standard input."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    relay = Relay(port, target)
    while line := await reader.readline():
        name, arguments = json.loads(line)
        answer: t.Any = getattr(relay, name)(**arguments)
        if isinstance(answer, list):
            answer = len(answer and (await asyncio.wait(answer))[0])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(run_commands(int(sys.argv[1]), int(sys.argv[2])))
