"""The process of a proxy: a TCP relay that misbehaves on command.

Commands come as lines of JSON on its standard input, each answered by a line; it ends
when that is closed. It runs in a process of its own, with an event loop of its own:
whoever is tested may stop, hog or patch whatever it likes. Knows nothing of any broker.
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
#: Bytes read at once, and kept by the kernel on our side: little, so that who writes
#: into a window that is closed notices soon.
CHUNK = 65_536
#: What flows from the client to the broker, and back.
UP, DOWN = "up", "down"
#: Seconds between two morsels of a connection that is throttled.
MORSEL = 0.05

_NO_LINGER = struct.pack("ii", 1, 0)


class Way:
    """What happens to whatever flows in one direction."""

    def __init__(self) -> None:
        #: Cleared while nothing is read: the receive window closes.
        self.open = asyncio.Event()
        self.mend()

    def mend(self) -> None:
        """Let everything flow."""
        self.open.set()
        self.delay = 0.0
        self.rate = 0


class Cut(Exception):
    """A connection is to end now."""

    def __init__(self, reset: bool) -> None:
        self.reset = reset


class Connection:
    """One client, connected to the broker."""

    def __init__(self, client: socket.socket, broker: socket.socket) -> None:
        self.sockets = {UP: (client, broker), DOWN: (broker, client)}
        #: Ways whose bytes are thrown away, for good: what is lost makes the rest
        #: nonsense, as on a path that a firewall has forgotten.
        self.dead: set[str] = set()
        #: Ways on which the next piece is cut in two, and whether it is by a reset.
        self.breaking: dict[str, bool] = {}
        #: Whether the client has hung up.
        self.left = False
        #: Whether it ends by RST when it is cancelled.
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
    # Bytes that nobody has read would make a reset of the close.
    while each.recv(CHUNK):
        pass


class Relay:
    """Listens, connects each client to the broker, and spoils what flows."""

    def __init__(self, port: int, target: int) -> None:
        self._port = port
        self._target = target
        self._ways = {UP: Way(), DOWN: Way()}
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None

    # -- commands ---------------------------------------------------------------------

    def cut(self, reset: bool, share: float, seed: int) -> list[asyncio.Task[None]]:
        """End connections, or a share of them."""
        tasks = []
        for each in self._chosen(share, seed):
            each.reset = reset
            assert each.task is not None
            each.task.cancel()
            tasks.append(each.task)
        return tasks

    def swallow(self, ways: list[str], share: float, seed: int) -> None:
        """Throw away from now on what flows on connections that are there."""
        for each in self._chosen(share, seed):
            each.dead.update(ways)

    def break_frames(self, way: str, reset: bool) -> None:
        """Let each connection end within what flows next."""
        for each in self._connections:
            each.breaking[way] = reset

    def stall(self, ways: list[str]) -> None:
        """Read nothing any more, so that the window closes; it may go on later."""
        for way in ways:
            self._ways[way].open.clear()

    def delay(self, ways: list[str], seconds: float) -> None:
        """Hold back what flows."""
        for way in ways:
            self._ways[way].delay = seconds

    def throttle(self, ways: list[str], rate: int) -> None:
        """Let so many bytes a second through, on each connection."""
        for way in ways:
            self._ways[way].rate = rate

    def refuse(self) -> None:
        """Listen no more."""
        if self._accepting is not None:
            self._accepting.cancel()
        if self._server is not None:
            self._server.close()
        self._server = self._accepting = None

    def mend(self) -> None:
        """Listen, and let everything flow that is not dead."""
        for way in self._ways.values():
            way.mend()
        for each in self._connections:
            each.breaking.clear()
        if self._server is None:
            self._listen()

    def state(self) -> dict[str, int]:
        """How many connections there are, how many of them clients have, and so on."""
        here = [each for each in self._connections if not each.left]
        return {
            "clients": len(here),
            "dead": sum(bool(each.dead) for each in here),
            "breaking": sum(bool(each.breaking) for each in here),
        }

    # -- connections ------------------------------------------------------------------

    def _chosen(self, share: float, seed: int) -> list[Connection]:
        """Some of the connections, but at least one, if there is any."""
        found = [each for each in self._connections if not each.left]
        chance = random.Random(seed)
        count = max(1, round(share * len(found)))
        return chance.sample(found, min(count, len(found)))

    def _listen(self) -> None:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets have it from here.
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
            # Nobody is there: as if nobody had listened here.
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
        while data := await self._received(connection, name):
            await self._sent(connection, name, data)
        await self._sent(connection, name, data)

    async def _received(self, connection: Connection, name: str) -> bytes:
        """What comes next; nothing at all is the end, or a reset that is lost."""
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

    async def _sent(self, connection: Connection, name: str, data: bytes) -> None:
        if name in connection.dead:
            return
        try:
            await self._pass_on(connection, name, data, connection.sockets[name][1])
        except OSError:
            if not connection.dead:
                raise
            # That it is closed would be heard by the way that is dead.
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

    async def _trickle(self, way: Way, data: bytes, target: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while way.rate and data:
            size = max(1, round(way.rate * MORSEL))
            await loop.sock_sendall(target, data[:size])
            data = data[size:]
            await asyncio.sleep(MORSEL)
        await loop.sock_sendall(target, data)


async def obey(port: int, target: int) -> None:
    """Do what the lines of the standard input say."""
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
    asyncio.run(obey(int(sys.argv[1]), int(sys.argv[2])))
