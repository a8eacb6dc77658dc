"""The proxy's failures, on a server that echoes all bytes."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
import typing as t

import pytest

from ..servers.ports import HOST
from ..waiting import wait_for
from .proxy import DOWN
from .proxy import UP
from .proxy import Proxy


class Echo:
    """A server that echoes all bytes and records how connections end."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.got = b""
        self.ends: list[str] = []
        self.open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                found, _ = self._listener.accept()
            except OSError:
                return
            self.open.append(found)
            self._threads.append(threading.Thread(target=self._serve, args=(found,)))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        try:
            while data := client.recv(4096):
                self.got += data
                client.sendall(data)
            self.ends.append("fin")
        except OSError:
            self.ends.append("rst")
        client.close()

    def stop_listening(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def hang_up(self) -> None:
        """Close all connections; their socket options decide between FIN and RST."""
        for each in self.open:
            each.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        self.stop_listening()
        for each in self.open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def echo() -> t.Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> t.Iterator[Proxy]:
    with Proxy(echo.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> t.Iterator[socket.socket]:
    with socket.create_connection((HOST, proxy.port), timeout=10) as client:
        assert asked(client, b"first") == b"first"
        yield client


def asked(client: socket.socket, said: bytes) -> bytes:
    """Send bytes, and return the echo, or a part of it at the end."""
    client.sendall(said)
    found = b""
    while len(found) < len(said) and (more := client.recv(4096)):
        found += more
    return found


def is_silent(client: socket.socket, seconds: float = 0.3) -> bool:
    client.settimeout(seconds)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(10)
    return False


@pytest.mark.process
def test_what_is_large_comes_through_whole(client: socket.socket) -> None:
    said = random.Random(1).randbytes(1_000_000)
    sending = threading.Thread(target=client.sendall, args=(said,))
    sending.start()
    found = b""
    while len(found) < len(said):
        found += client.recv(65_536)
    sending.join()

    assert found == said


@pytest.mark.process
def test_a_cut_by_a_reset_resets_both_sides(
    proxy: Proxy, client: socket.socket, echo: Echo
) -> None:
    proxy.cut(reset=True)

    with pytest.raises(ConnectionResetError):
        client.recv(1)
    wait_for(lambda: echo.ends == ["rst"])


@pytest.mark.process
def test_a_cut_by_a_fin_ends_both_sides(
    proxy: Proxy, client: socket.socket, echo: Echo
) -> None:
    proxy.cut(reset=False)

    assert client.recv(1) == b""
    wait_for(lambda: echo.ends == ["fin"])


@pytest.mark.process
def test_a_share_of_the_connections_is_cut(proxy: Proxy) -> None:
    clients = [socket.create_connection((HOST, proxy.port)) for _ in range(4)]
    wait_for(lambda: proxy.state()["clients"] == 4)
    proxy.cut(reset=False, share=0.5, chance=random.Random(7))

    assert proxy.state()["clients"] == 2
    for each in clients:
        each.close()


@pytest.mark.process
def test_a_close_by_one_side_reaches_the_other_side(
    proxy: Proxy, client: socket.socket, echo: Echo
) -> None:
    client.shutdown(socket.SHUT_WR)

    assert client.recv(1) == b""
    wait_for(lambda: echo.ends == ["fin"])
    wait_for(lambda: proxy.state()["clients"] == 0)


@pytest.mark.process
def test_what_is_swallowed_both_ways_is_lost_and_no_end_is_heard(
    proxy: Proxy, client: socket.socket, echo: Echo
) -> None:
    proxy.swallow()
    client.sendall(b"lost")

    assert is_silent(client)
    assert proxy.state() == {"clients": 1, "dead": 1, "breaking": 0}
    client.close()
    wait_for(lambda: proxy.state()["dead"] == 0)
    assert (echo.got, echo.ends) == (b"first", [])


@pytest.mark.process
def test_what_is_swallowed_on_the_way_up_never_arrives(
    proxy: Proxy, client: socket.socket, echo: Echo
) -> None:
    proxy.swallow([UP])
    client.sendall(b"lost")
    echo.open[0].sendall(b"heard")

    assert client.recv(5) == b"heard"
    assert echo.got == b"first"


@pytest.mark.process
@pytest.mark.parametrize("reset", [True, False])
def test_the_end_of_the_other_side_is_heard_where_only_the_way_up_is_swallowed(
    proxy: Proxy, client: socket.socket, echo: Echo, reset: bool
) -> None:
    proxy.swallow([UP])
    if reset:
        no_linger = struct.pack("ii", 1, 0)
        echo.open[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
    echo.hang_up()

    with contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b""


@pytest.mark.process
def test_what_is_swallowed_on_the_way_down_arrives_and_is_not_answered(
    proxy: Proxy, client: socket.socket, echo: Echo
) -> None:
    proxy.swallow([DOWN])
    client.sendall(b"heard")

    wait_for(lambda: echo.got == b"firstheard")
    assert is_silent(client)


@pytest.mark.process
def test_a_swallowed_connection_stays_dead_and_new_ones_work(
    proxy: Proxy, client: socket.socket
) -> None:
    proxy.swallow()
    proxy.mend()
    with socket.create_connection((HOST, proxy.port), timeout=10) as other:
        assert asked(other, b"other") == b"other"
    client.sendall(b"lost")

    assert is_silent(client)


@pytest.mark.process
def test_a_closed_window_blocks_the_writer_until_it_opens(
    proxy: Proxy, client: socket.socket, echo: Echo
) -> None:
    proxy.stall()
    client.settimeout(0.5)
    sent = 0
    with pytest.raises(TimeoutError):
        while True:
            sent += client.send(b"x" * 65_536)
    client.settimeout(10)
    assert echo.got == b"first"
    proxy.mend()
    found = 0
    while found < sent:
        found += len(client.recv(65_536))

    assert len(echo.got) == len(b"first") + sent


@pytest.mark.process
def test_a_delay_holds_back_each_way(proxy: Proxy, client: socket.socket) -> None:
    proxy.delay(0.2)
    began = time.monotonic()
    assert asked(client, b"late") == b"late"
    assert time.monotonic() - began >= 0.4
    proxy.mend()

    assert asked(client, b"soon") == b"soon"


@pytest.mark.process
def test_a_throttle_lets_a_few_bytes_through(
    proxy: Proxy, client: socket.socket
) -> None:
    proxy.throttle(100, [UP])
    began = time.monotonic()
    assert asked(client, b"x" * 50) == b"x" * 50
    took = time.monotonic() - began

    assert took >= 0.4


@pytest.mark.process
@pytest.mark.parametrize("reset", [True, False])
def test_a_frame_is_cut_in_two(
    proxy: Proxy, client: socket.socket, echo: Echo, reset: bool
) -> None:
    proxy.break_frames(UP, reset=reset)
    assert proxy.state()["breaking"] == 1
    client.sendall(b"frame")
    wait_for(lambda: echo.ends)

    assert echo.got.startswith(b"first") and len(echo.got) < len(b"firstframe")
    assert proxy.state()["breaking"] == 0


@pytest.mark.process
def test_refused_connections_are_refused_until_it_is_mended(
    proxy: Proxy, client: socket.socket
) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, proxy.port))
    assert asked(client, b"still here") == b"still here"
    proxy.mend()

    socket.create_connection((HOST, proxy.port)).close()


@pytest.mark.process
def test_where_no_broker_listens_a_client_is_reset(proxy: Proxy, echo: Echo) -> None:
    echo.stop_listening()
    # It may be reset before it knows that it is connected.
    with (
        pytest.raises(ConnectionResetError),
        socket.create_connection((HOST, proxy.port), timeout=10) as client,
    ):
        client.recv(1)
