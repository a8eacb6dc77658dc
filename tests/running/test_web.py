"""The web server beside the consumers: its stop, its address and its log."""

from __future__ import annotations

import logging
import re
import socket
import typing as t

import flask
import gevent
import pytest
from gevent.event import Event

from flask_qconsume import WorkerError
from flask_qconsume.running.sockets import listen
from flask_qconsume.running.web import WebServer

from ..waiting import wait_for


class Site:
    """An app that is served; its requests wait until the test lets them go on."""

    def __init__(self) -> None:
        self.began = Event()
        self.go_on = Event()
        self.app = flask.Flask("site")
        self.app.add_url_rule("/", view_func=lambda: "here")
        self.app.add_url_rule("/wait", view_func=self._wait)
        listener = listen("127.0.0.1:0")
        self.address = listener.getsockname()
        self.web = WebServer(self.app, listener)
        self.web.start()

    def _wait(self) -> str:
        self.began.set()
        self.go_on.wait()
        return "waited"

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)

    def stop(self, timeout: float = 20.0) -> gevent.Greenlet:
        """Stop in the background, and return once it accepts no more."""
        stopping = gevent.spawn(self.web.stop, timeout)
        wait_for(lambda: self.refuses() or stopping.dead)
        return stopping

    def refuses(self) -> bool:
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return True
        return False


@pytest.fixture
def site() -> t.Iterator[Site]:
    site = Site()
    yield site
    site.go_on.set()
    site.web.stop(0)


def ask(connection: socket.socket, path: str) -> None:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


def answer(connection: socket.socket) -> str:
    """One answer, or the part of it that came before the connection ended."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(10_000)
        if not more:
            break
        received += more
    return received.decode()


def test_a_running_request_is_answered_and_its_connection_ends(site: Site) -> None:
    with site.connect() as connection:
        ask(connection, "/wait")
        site.began.wait()
        stopping = site.stop()
        site.go_on.set()
        said = answer(connection)
        assert "200 OK" in said
        assert "waited" in said
        assert "Connection: close" in said
        assert answer(connection) == ""
        assert stopping.get() is True


def test_an_idle_connection_is_closed(site: Site) -> None:
    with site.connect() as connection:
        ask(connection, "/")
        assert "here" in answer(connection)
        assert site.web.stop(20) is True
        assert answer(connection) == ""


def test_a_new_connection_may_still_send_its_request(site: Site) -> None:
    """The connection was accepted before the stop, and its request was on the way."""
    with site.connect() as connection:
        stopping = site.stop()
        ask(connection, "/")
        assert "here" in answer(connection)
        assert stopping.get() is True


def test_a_connection_without_a_request_is_closed(site: Site) -> None:
    with site.connect() as connection:
        assert site.web.stop(20) is True
        assert answer(connection) == ""


def test_connections_that_wait_to_be_accepted_are_served(site: Site) -> None:
    """These are in the kernel's queue when the stop begins."""
    connections = [site.connect() for _ in range(50)]
    for connection in connections:
        ask(connection, "/")
    stopping = gevent.spawn(site.web.stop, 20)
    try:
        assert all("here" in answer(connection) for connection in connections)
        assert stopping.get() is True
    finally:
        for connection in connections:
            connection.close()


def test_a_request_that_does_not_end_is_cut_off(site: Site) -> None:
    with site.connect() as connection:
        ask(connection, "/wait")
        site.began.wait()
        assert site.web.stop(0.2) is False


@pytest.mark.parametrize(
    "address",
    [
        *("nonsense", "127.0.0.1:x", "127.0.0.1:99999", "127.0.0.1:-1", "", ":", ":５"),
        *(".é..:1", "\udcff:1", "a b:1", "x" * 70 + ":1", "h\n:1", ":" + "9" * 5_000),
        *("[::1:5", "::1:5", "[]:x", "[nonsense]:1", "[127.0.0.1]:1", "[::1]5"),
    ],
)
def test_a_malformed_address_is_refused_with_examples(address: str) -> None:
    with pytest.raises(WorkerError, match="such as 127.0.0.1:5000") as caught:
        listen(address)
    assert str(caught.value).isprintable()


def test_an_address_of_ipv6_has_brackets() -> None:
    try:
        listener = listen("[::1]:0")
    except WorkerError:
        pytest.skip("no IPv6 here")
    web = WebServer(flask.Flask("site"), listener)
    assert web.url.startswith("http://[::1]:")
    listener.close()


def test_a_request_is_one_line_of_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "flask_qconsume.access"):
        with site.connect() as connection:
            ask(connection, "/?a=%0d%0a")
            answer(connection)
        wait_for(lambda: caplog.records)
    (line,) = [record.getMessage() for record in caplog.records]
    pattern = r'127\.0\.0\.1 "GET /\?a=%0d%0a HTTP/1\.1" 200 \d+ \d+\.\d{3} s'
    assert re.fullmatch(pattern, line)


def test_requests_are_not_logged_where_the_level_is_higher(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "flask_qconsume.access"):
        with site.connect() as connection:
            ask(connection, "/")
            answer(connection)
        with site.connect() as connection:
            connection.sendall(b"nonsense\x1b[2J\r\n\r\n")
            answer(connection)
        wait_for(lambda: caplog.records)
    lines = {record.getMessage() for record in caplog.records}
    assert all(line.isprintable() for line in lines)
    assert not [line for line in lines if "GET" in line or "gevent" in line]
