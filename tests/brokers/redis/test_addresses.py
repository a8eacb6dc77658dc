"""Every way to a Redis that kombu knows: TLS, sentinels, a socket, users."""

from __future__ import annotations

import pathlib
import shutil
import socket
import ssl
import subprocess
import typing as t
from collections.abc import Iterator

import gevent
import pytest

from flask_qconsume.broker.base import Broker
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.topology import Topology
from flask_qconsume.broker.urls import open_broker
from flask_qconsume.errors import BrokerRefused
from flask_qconsume.errors import BrokerUnavailable

from ...broker.certificates import answering
from ...servers import Redis
from ...servers.ports import free_port
from ...waiting import wait_for
from .tools import EXCHANGE
from .tools import bodies
from .tools import forward
from .tools import outgoing
from .tools import plan
from .tools import read
from .tools import settings

#: What stands behind the scheme: lists, and streams.
both = pytest.mark.parametrize("kind", ["", "-streams"])


def broker_at(url: str, **config) -> Broker:
    return open_broker(settings(url, **config), Topology(EXCHANGE, (plan(),)))


def assert_works(broker: Broker) -> None:
    assert broker.publish([outgoing(b"1")], 5.0) == [None]
    link = broker.connect(plan(), Lane.MAIN, 1)
    found = read(link, 1)
    assert bodies(found) == [b"1"]
    link.ack(found)
    reader = gevent.spawn(link.read, 1)
    gevent.sleep(0)  # It waits on Redis now.
    link.close()
    assert reader.get(timeout=1) == []
    broker.close()


@pytest.fixture
def certificate(tmp_path: pathlib.Path) -> pathlib.Path:
    if not shutil.which("openssl"):
        pytest.skip("no openssl on the PATH to make a certificate with")
    made = tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        + ["-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1"]
        + ["-keyout", tmp_path / "key.pem", "-out", made],
        check=True,
        capture_output=True,
    )
    return made


@both
def test_tls_with_a_certificate_that_is_checked(
    redis_server, certificate, tmp_path, kind
):
    port = free_port()
    options = {
        "tls-port": str(port),
        "tls-cert-file": str(certificate),
        "tls-key-file": str(certificate.parent / "key.pem"),
        "tls-ca-cert-file": str(certificate),
        "tls-auth-clients": "no",
    }
    url = f"rediss{kind}://127.0.0.1:{port}/0"
    with Redis(tmp_path / "redis", options=options):
        unknown = broker_at(url)
        error = unknown.publish([outgoing()], 0.5)[0]
        assert isinstance(error, BrokerRefused)
        assert "an unknown authority has signed" in str(error)
        unknown.close()
        # The certificate is for the address, not for the name.
        named = url.replace("127.0.0.1", "localhost")
        another = broker_at(f"{named}?ssl_ca_certs={certificate}")
        error = another.publish([outgoing()], 0.5)[0]
        assert isinstance(error, BrokerRefused)
        assert "Hostname mismatch" in str(error)
        another.close()
        assert_works(broker_at(f"{url}?ssl_ca_certs={certificate}"))
        assert_works(broker_at(f"{url}?ssl_cert_reqs=none"))


def test_a_certificate_is_checked_at_every_node_of_a_cluster():
    broker = broker_at("rediss-streams+cluster://one:7000,two:7001")
    cluster = t.cast(t.Any, broker)._shared.server
    for node in ("one:7000", "two:7001", "learnt:7002"):
        given = cluster._get_node(node)._get_pool()._pool.connection_kwargs
        assert given["ssl_cert_reqs"] == ssl.CERT_REQUIRED
    broker.close()


@both
def test_a_socket_of_the_machine(redis_server, tmp_path, kind):
    path = tmp_path / "s"
    with Redis(tmp_path / "redis", options={"unixsocket": str(path)}):
        assert_works(broker_at(f"redis{kind}+socket://{path}"))


def test_a_user_with_no_more_permissions_than_it_needs(own_redis):
    commands = (
        "+eval +evalsha +type +llen +smembers +sadd +srem +blmove +client|id"
        " +client|unblock +hello +ping +select +time +zrem +hdel +hset"
        " +hget +hexists +zadd +zrangebyscore +zrevrangebyscore +zscore +zrange"
        " +zcount +zremrangebyscore +lrange +ltrim +lpush +rpush"
    )
    own_redis.command("ACL", "SETUSER", "shop", "on", ">pw", "~*", *commands.split())
    assert_works(broker_at(own_redis.url.replace("//", "//shop:pw@")))


def test_a_user_of_streams_with_no_more_permissions_than_it_needs(own_redis):
    commands = (
        "+eval +evalsha +type +smembers +sadd +srem +client|id +client|unblock +hello"
        " +ping +select +time +zrem +zadd +zrangebyscore +zrange +zremrangebyscore"
        " +xadd +xlen +xdel +xack +xclaim +xpending +xreadgroup +xgroup"
    )
    own_redis.command("ACL", "SETUSER", "shop", "on", ">pw", "~*", *commands.split())
    url = own_redis.url.replace("redis://", "redis-streams://shop:pw@")
    assert_works(broker_at(url))


@both
def test_no_command_is_needed_that_redis_6_2_does_not_have(own_redis, kind):
    """The server itself tells since when it knows each command."""
    with own_redis.client() as client:
        docs = client.execute_command("COMMAND DOCS")
    newer = {name for name, since in introduced(docs) if since > (6, 2, 99)}
    assert {"xautoclaim", "blmove"}.isdisjoint(newer)
    assert "lmpop" in newer
    forbidden = [f"-{name}" for name in sorted(newer)]
    own_redis.command("ACL", "SETUSER", "old", "on", ">pw", "~*", "+@all", *forbidden)
    url = own_redis.url.replace("redis://", f"redis{kind}://old:pw@")
    broker = broker_at(url)
    broker.declare()
    broker.publish([outgoing(delay=0.01), *[outgoing() for _ in range(3)]], 5.0)
    link = broker.connect(plan(), Lane.MAIN, 5)
    retried, dead, given_back, acked = read(link, 4)
    assert forward(link, retried, Lane.MAIN, delay=0.01) is None
    assert forward(link, dead, Lane.DEAD, expires=60.0) is None
    link.ack([acked])
    link.keep_alive()
    link.release([given_back])
    link.close()
    assert broker.dead_letters(plan()).take(lambda letter: True, replay=True) == 1
    link = broker.connect(plan(), Lane.MAIN, 5)
    link.ack(read(link, 3))
    link.close()
    broker.close()
    assert_works(broker_at(url))


def introduced(docs: t.Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Each command, and those below it, with its first version."""
    for name, about in pairs(docs).items():
        known = pairs(about)
        yield name, tuple(map(int, known["since"].split(".")))
        yield from introduced(known.get("subcommands", []))


def pairs(found: t.Any) -> dict[str, t.Any]:
    """A mapping, however the client's version of the protocol gives it."""
    if isinstance(found, dict):
        return found
    return dict(zip(found[::2], found[1::2], strict=True))


class Sentinel(Redis):
    """A sentinel that watches one master."""

    master: Redis

    def _command(self) -> list[str]:
        (self.folder / "sentinel.conf").write_text(
            f"port {self.port}\n"
            "bind 127.0.0.1\n"
            "dir .\n"
            f"sentinel monitor shop 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds shop 500\n"
            "sentinel failover-timeout shop 3000\n"
        )
        return ["redis-server", "sentinel.conf", "--sentinel"]


@both
def test_sentinels_and_a_failover(own_redis, tmp_path, kind):
    replica_of = {"replicaof": f"127.0.0.1 {own_redis.port}"}
    sentinel = Sentinel(tmp_path / "sentinel")
    sentinel.master = own_redis
    with Redis(tmp_path / "replica", options=replica_of) as replica, sentinel:
        wait_for(lambda: status(replica) == "up", timeout=30)
        wait_for(lambda: sentinel.command("SENTINEL", "REPLICAS", "shop"), timeout=30)
        broker = broker_at(
            f"sentinel{kind}://127.0.0.1:{sentinel.port}/0",
            transport_options={"master_name": "shop"},
        )
        sent = [b"%d" % number for number in range(10)]
        assert broker.publish([outgoing(body) for body in sent], 5.0) == [None] * 10
        link = broker.connect(plan(), Lane.MAIN, 5)
        link.ack(read(link, 3))
        held = read(link, 3)
        assert own_redis.command("WAIT", 1, 5_000) == 1
        own_redis.kill()
        with pytest.raises(BrokerUnavailable):
            link.ack(held)
        link.close()
        assert broker.publish([outgoing(b"later")], 30.0) == [None]
        link = broker.connect(plan(), Lane.MAIN, 5)
        assert bodies(read(link, 8)) == [*sent[3:], b"later"]
        link.close()
        broker.close()


@both
def test_a_master_that_no_sentinel_knows_is_told_by_the_option(
    own_redis, tmp_path, kind
):
    sentinel = Sentinel(tmp_path / "sentinel")
    sentinel.master = own_redis
    with sentinel:
        broker = broker_at(
            f"sentinel{kind}://127.0.0.1:{sentinel.port}/0",
            transport_options={"master_name": "shpo"},
        )
        with pytest.raises(BrokerUnavailable, match=r"'shpo'.* look at 'master_name'"):
            broker.declare()
        broker.close()


@both
def test_another_program_at_the_port_is_told(kind):
    def answer(found: socket.socket) -> None:
        found.recv(1_000)
        found.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with answering(answer) as port:
        broker = broker_at(f"redis{kind}://127.0.0.1:{port}/0")
        with pytest.raises(BrokerUnavailable, match="port of another program"):
            broker.declare()
        broker.close()


def status(replica: Redis) -> str | None:
    return replica.command("INFO", "replication").get("master_link_status")
