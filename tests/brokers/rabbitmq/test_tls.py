"""RabbitMQ over TLS: its certificate and its name are checked."""

from __future__ import annotations

import pathlib
import shutil
import ssl
import subprocess
import typing as t

import gevent
import pytest

from flask_qconsume.errors import BrokerRefused
from flask_qconsume.errors import BrokerUnavailable

from ...servers import RabbitMQ as Server
from ...servers.ports import free_port
from .rabbit import make_order
from .rabbit import open_broker
from .rabbit import open_link
from .rabbit import publish_orders
from .rabbit import take
from .test_link import keep_alive_for
from .test_link import read_until_closed

CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out cert.pem"
    " -subj /CN=localhost -addext subjectAltName=DNS:localhost"
)


class Secured(t.NamedTuple):
    url: str
    options: dict[str, t.Any]


@pytest.fixture(scope="module")
def secured(
    rabbitmq: Server, tmp_path_factory: pytest.TempPathFactory
) -> t.Iterator[Secured]:
    """A RabbitMQ that speaks TLS as ``localhost``."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(CERTIFICATE.split(), cwd=folder, check=True, capture_output=True)
    with Server(folder / "node", config=configuration(folder)) as server:
        port = server._config["listeners.ssl.test"].rpartition(":")[2]
        options = {"ssl": {"ca_certs": str(folder / "cert.pem")}}
        yield Secured(f"amqps://guest:guest@localhost:{port}/%2F", options)


def configuration(folder: pathlib.Path) -> dict[str, str]:
    return {
        "listeners.ssl.test": f"127.0.0.1:{free_port()}",
        "ssl_options.certfile": str(folder / "cert.pem"),
        "ssl_options.keyfile": str(folder / "key.pem"),
        "ssl_options.verify": "verify_none",
    }


def test_messages_go_out_and_come_in(secured: Secured) -> None:
    with open_broker(
        secured.url, transport_options=secured.options, heartbeat=1
    ) as broker:
        publish_orders(broker, 500)
        with open_link(broker, prefetch=600) as link:
            link.ack(take(link, 500))
            reader = gevent.spawn(read_until_closed, link)
            keep_alive_for(link, 3)
            publish_orders(broker)
            link.close()
            assert isinstance(reader.get(timeout=5), BrokerUnavailable)


def test_a_certificate_of_an_unknown_authority_is_refused(secured: Secured) -> None:
    with open_broker(secured.url) as broker:
        (error,) = broker.publish([make_order()], timeout=10)
    assert isinstance(error, BrokerRefused)
    assert "an unknown authority has signed the broker's certificate" in str(error)
    assert "guest:guest" not in str(error)


def test_a_certificate_for_another_name_is_refused(secured: Secured) -> None:
    url = secured.url.replace("localhost", "127.0.0.1")
    with open_broker(url, transport_options=secured.options) as broker:
        (error,) = broker.publish([make_order()], timeout=10)
    assert isinstance(error, BrokerRefused)
    assert "the broker's certificate is for another host" in str(error)


def test_tls_at_a_port_without_it_is_told(rabbitmq: Server, secured: Secured) -> None:
    url = f"amqps://guest:guest@localhost:{rabbitmq.port}//"
    with open_broker(url) as broker:
        (error,) = broker.publish([make_order()], timeout=10)
    assert isinstance(error, BrokerRefused)
    assert "the broker does not speak TLS at this port" in str(error)


def test_no_tls_at_its_port_is_told(secured: Secured) -> None:
    with open_broker(secured.url.replace("amqps:", "amqp:")) as broker:
        (error,) = broker.publish([make_order()], timeout=10)
    assert isinstance(error, BrokerRefused)
    assert "the broker speaks TLS at this port" in str(error)


def test_the_url_may_name_the_authority(secured: Secured) -> None:
    query = f"?ssl_ca_certs={secured.options['ssl']['ca_certs']}"
    with open_broker(secured.url + query) as broker:
        publish_orders(broker)


def test_checking_can_be_switched_off(secured: Secured) -> None:
    options = {"ssl": {"cert_reqs": ssl.CERT_NONE}}
    with open_broker(secured.url, transport_options=options) as broker:
        publish_orders(broker)
