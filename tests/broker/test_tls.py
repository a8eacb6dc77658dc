"""Errors of TLS name the wrong certificate, port or option, on every broker."""

from __future__ import annotations

import contextlib
import gc
import pathlib
import socket
import subprocess
import sys
import time
import typing as t

import pytest
from flask import Flask

from flask_qconsume import BrokerRefused
from flask_qconsume import ConfigurationError
from flask_qconsume import QConsume
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.tls import speaks_tls
from flask_qconsume.extension import AppConsumers

from .certificates import Certificates
from .certificates import answering

#: Schemes of each broker's URL, without TLS and with TLS.
SCHEMES = {
    "rabbitmq": ("amqp", "amqps"),
    "redis": ("redis", "rediss"),
    "redis-streams": ("redis-streams", "rediss-streams"),
    "kafka": ("kafka", "kafkas"),
}
each_broker = pytest.mark.parametrize("broker", SCHEMES)
pytestmark = [pytest.mark.broker, pytest.mark.deadline(60)]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


@contextlib.contextmanager
def shop(url: str, **options: t.Any) -> t.Iterator[AppConsumers]:
    """An app with one consumer."""
    app, qconsume = Flask("shop"), QConsume()
    qconsume.add_consumer("billing", print, name="bill")
    app.config["QCONSUME_BROKER_URL"] = url
    app.config["QCONSUME_TRANSPORT_OPTIONS"] = options
    qconsume.init_app(app)
    found: AppConsumers = app.extensions["qconsume"]
    try:
        yield found
    finally:
        found.close()


def secured(broker: str, port: int, authority: str | None, host: str) -> t.Any:
    """An app that connects to a TLS port and trusts an authority."""
    url = f"{SCHEMES[broker][1]}://{host}:{port}"
    if authority is None:
        return shop(url)
    if broker == "rabbitmq":
        return shop(url, ssl={"ca_certs": authority})
    if broker == "kafka":
        return shop(url, kafka_common_config={"ssl.ca.location": authority})
    return shop(f"{url}?ssl_ca_certs={authority}")


def refusals(app: AppConsumers) -> t.Iterator[BrokerRefused]:
    """The errors of publishing and of consuming."""
    began = time.monotonic()
    with pytest.raises(BrokerRefused) as caught:
        app.publish("billing", {})
    yield caught.value
    with pytest.raises(BrokerRefused) as caught:
        app.broker.connect(app.topology.queues[0], Lane.MAIN, 1)
    yield caught.value
    assert time.monotonic() - began < 15


WRONG = {
    "expired": ("expired", "expired", "localhost", "certificate has expired"),
    "unknown": ("right", None, "localhost", "an unknown authority has signed"),
    "another one": ("right", "other", "localhost", "an unknown authority has signed"),
    "another host's": (
        "other",
        "other",
        "localhost",
        "certificate is for another host",
    ),
    "an address": ("right", "right", "127.0.0.1", "certificate is for another host"),
}


@each_broker
@pytest.mark.parametrize(
    ("shown", "trusted", "host", "said"), WRONG.values(), ids=WRONG
)
def test_a_certificate_that_does_not_fit_is_told_by_what_is_wrong(
    broker: str,
    certificates: Certificates,
    shown: str,
    trusted: str | None,
    host: str,
    said: str,
) -> None:
    authority = None if trusted is None else certificates.path(trusted)
    with (
        certificates.shown(shown) as port,
        secured(broker, port, authority, host) as app,
    ):
        for error in refusals(app):
            assert said in str(error)


@each_broker
def test_a_port_of_tls_is_told_where_none_is_asked_for(
    broker: str, certificates: Certificates
) -> None:
    plain, secure = SCHEMES[broker]
    with (
        certificates.shown("right") as port,
        shop(f"{plain}://127.0.0.1:{port}") as app,
    ):
        for error in refusals(app):
            assert "the broker speaks TLS at this port" in str(error)
            assert f"begin with '{secure.removesuffix('-streams')}://'" in str(error)


def hang_up(found: socket.socket) -> None:
    """As Kafka: close the connection after bytes that are not a request."""
    found.recv(1_000)


def greet(found: socket.socket) -> None:
    """As RabbitMQ: answer with the protocol's version."""
    found.recv(8)
    found.sendall(b"AMQP\x00\x00\x09\x01")


def wait_for_lines(found: socket.socket) -> None:
    """As Redis: answer each line."""
    received = b""
    while b"PING\r\n" not in received:
        received += found.recv(1_000) or b"PING\r\n"
    found.sendall(b"-NOAUTH Authentication required.\r\n")


PLAIN = {
    "rabbitmq": greet,
    "redis": wait_for_lines,
    "redis-streams": wait_for_lines,
    "kafka": hang_up,
}


@each_broker
def test_a_port_without_tls_is_told_where_it_is_asked_for(broker: str) -> None:
    plain, secure = SCHEMES[broker]
    with answering(PLAIN[broker]) as port, shop(f"{secure}://127.0.0.1:{port}") as app:
        for error in refusals(app):
            assert "the broker does not speak TLS at this port" in str(error)
            assert f"begin with '{plain.removesuffix('-streams')}://'" in str(error)


def mistyped(broker: str, path: str) -> t.Iterator[tuple[t.Any, str]]:
    """Apps with a wrong option, each with the option's name."""
    plain, secure = (f"{scheme}://localhost:1" for scheme in SCHEMES[broker])
    if broker == "rabbitmq":
        for options, said in {
            "ca_cert": ({"ca_cert": path}, "there is no option 'ca_cert'"),
            "cert_reqs": ({"cert_reqs": "required"}, "'cert_reqs'"),
            "ciphers": ({"ciphers": "none"}, "No cipher can be selected"),
            "ca_certs": ({"ca_certs": 5}, "must name a file that can be read"),
            "key": ({"ca_certs": path + ".gone"}, f"'{path}.gone' (No such file"),
            "context": ({"context": 5}, "'context'"),
        }.values():
            yield shop(secure, ssl=options), said
        yield shop(secure, ssl="yes"), "'ssl' in"
        yield shop(secure, ssl=False), "begins with 'amqps://'"
        yield shop(secure + "//?ssl_ca_certs=/gone"), "'/gone' (No such file"
        yield shop(secure + "//?ssl_cert_reqs=x"), "'ssl_cert_reqs' must be 'required'"
        yield shop(plain + "//?ssl_ca_certs=/gone"), "does not begin with 'amqps://'"
        yield shop(plain + "//?hartbeat=5"), "there is no option 'hartbeat'"
        yield shop(plain, conect_timeout=5), "did you mean 'connect_timeout'?"
        yield shop(plain, connect_timeout="5"), "'connect_timeout'"
        yield shop(plain, socket_settings={"x": 1}), "'socket_settings'"
        yield shop(plain, client_properties=5), "'client_properties'"
        yield shop(plain, login_method="NONE"), "'login_method'"
    elif broker == "kafka":
        for name, value, said in (
            ("ssl.ca.locatio", path, '"ssl.ca.locatio"'),
            ("ssl.ca.location", path + ".gone", f"'{path}.gone' (No such file"),
            ("ssl.key.location", "/gone", "'/gone' (No such file"),
            ("ssl.ca.location", ["x"], "'ssl.ca.location'"),
            ("security.protocol", "TLS", '"security.protocol"'),
            (5, 6, "'5'"),
        ):
            yield shop(secure, kafka_common_config={name: value}), said
    else:
        for query, said in {
            "ssl_ca_cert=/gone": "there is no option 'ssl_ca_cert'",
            "ssl_ca_certs=/gone": "'ssl_ca_certs' in 'QCONSUME_BROKER_URL'",
            "ssl_certfile=/gone": "'/gone' (No such file",
            "ssl_cert_reqs=x": "'ssl_cert_reqs' must be 'required'",
            "nonsense=1": "there is no option 'nonsense'",
            "ssl_min_version=9": "cannot be used for Redis",
        }.items():
            yield shop(f"{secure}?{query}"), said
        for option, value in {
            "ssl": {},
            "ssl_ca_certs": path,
            "socket_timeout": "x",
            "socket_connect_timeout": [],
            "socket_keepalive_options": 5,
            "max_connections": "x",
            "health_check_interval": "x",
        }.items():
            yield shop(plain, **{option: value}), f"'{option}'"


@each_broker
def test_an_option_that_is_mistyped_is_told_by_its_name(
    broker: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "ca.pem").touch()
    for opened, said in mistyped(broker, str(tmp_path / "ca.pem")):
        with opened as app:
            with pytest.raises(ConfigurationError) as caught:
                app.publish("billing", {})
            assert said in str(caught.value)
            with pytest.raises(ConfigurationError):
                app.broker.connect(app.topology.queues[0], Lane.MAIN, 1)


HANGS_UP = """
import socket, struct
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    for _ in range(100):
        client, _ = server.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
"""


def test_a_server_that_hangs_up_at_once_speaks_no_tls_and_leaves_nothing_open() -> None:
    """For example, during a broker's restart. A socket left open would be a warning."""
    server = subprocess.Popen([sys.executable, "-c", HANGS_UP], stdout=subprocess.PIPE)
    assert server.stdout is not None
    with server, server.stdout as output:
        port = int(output.readline())
        assert not any(speaks_tls("127.0.0.1", port) for _ in range(100))
    gc.collect()
