"""Kafka over TLS, with a password: its certificate and its name are checked."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import typing as t

import pytest

from flask_qconsume import BrokerRefused

from ...servers.kafka import Kafka
from .tools import LinkedBroker
from .tools import linked_broker
from .tools import outgoing
from .tools import plan
from .tools import read

_CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out cert.pem"
    " -subj /CN=localhost -addext subjectAltName=DNS:localhost"
)


class Secured(t.NamedTuple):
    port: int
    certificate: str

    def linked_broker(
        self, *, host: str = "localhost", login: str = "shop:s%40cret", **common: t.Any
    ) -> contextlib.AbstractContextManager[LinkedBroker]:
        """A broker that knows the certificate, unless ``common`` says otherwise."""
        settings = {"ssl.ca.location": self.certificate, **common}
        return linked_broker(
            f"kafkas://{login}@{host}:{self.port}",
            plan("billing"),
            transport_options={"kafka_common_config": settings, "partitions": 1},
        )


@pytest.fixture(scope="module")
def secured(
    kafka: Kafka, tmp_path_factory: pytest.TempPathFactory
) -> t.Iterator[Secured]:
    """A Kafka that speaks TLS as ``localhost``, and asks for a password."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(_CERTIFICATE.split(), cwd=folder, check=True, capture_output=True)
    both = (folder / "key.pem").read_text() + (folder / "cert.pem").read_text()
    (folder / "both.pem").write_text(both)
    with Kafka(
        folder / "node", users={"shop": "s@cret"}, certificate=folder / "both.pem"
    ) as server:
        yield Secured(server.secured_port, str(folder / "cert.pem"))


def test_messages_go_both_ways(secured: Secured) -> None:
    with secured.linked_broker() as linked:
        linked.publish(outgoing("billing", b"1"))
        assert [each.message.raw for each in read(linked.link(), 1)] == [b"1"]


@pytest.mark.parametrize(
    ("host", "common"),
    [
        ("127.0.0.1", {}),
        ("localhost", {"ssl.ca.location": "/etc/ssl/certs/ca-certificates.crt"}),
    ],
    ids=["another host", "unknown authority"],
)
def test_a_certificate_that_does_not_fit_is_refused(
    secured: Secured,
    host: str,
    common: dict[str, str],
    request: pytest.FixtureRequest,
) -> None:
    with secured.linked_broker(host=host, **common) as linked:
        with pytest.raises(BrokerRefused, match=request.node.callspec.id):
            linked.broker.declare()
        (error,) = linked.broker.publish([outgoing("billing")], 5.0)
        assert isinstance(error, BrokerRefused)
        assert "s@cret" not in str(error)


def test_a_certificate_may_be_left_unchecked_by_an_option(secured: Secured) -> None:
    unchecked = {"enable.ssl.certificate.verification": False}
    with secured.linked_broker(host="127.0.0.1", **unchecked) as linked:
        linked.publish(outgoing("billing"))


def test_a_wrong_password_is_refused_and_not_shown(secured: Secured) -> None:
    with secured.linked_broker(login="shop:hunter2") as linked:
        with pytest.raises(BrokerRefused, match="Check the user") as caught:
            linked.broker.declare()
        assert "hunter2" not in str(caught.value)
