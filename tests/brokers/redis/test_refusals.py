"""What Redis refuses: the class of each refusal, and what goes on without it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import threading
import time

import gevent
import pytest
import redis
from redis._parsers.base import BaseParser

from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.topology import Topology
from flask_qconsume.broker.urls import open_broker
from flask_qconsume.brokers.redis.errors import MEANINGS
from flask_qconsume.brokers.redis.errors import read_error_code
from flask_qconsume.brokers.redis.errors import translate_error
from flask_qconsume.errors import BrokerError
from flask_qconsume.errors import BrokerRefused
from flask_qconsume.errors import BrokerUnavailable
from flask_qconsume.errors import PublishRefused
from flask_qconsume.errors import PublishTimeout
from flask_qconsume.errors import TopologyMismatch
from flask_qconsume.errors import UnsupportedByBroker

from ...servers import Redis
from ...waiting import wait_for
from .tools import EXCHANGE
from .tools import bodies
from .tools import forward
from .tools import linked_broker
from .tools import outgoing
from .tools import plan
from .tools import read
from .tools import settings

FAR = "script: 2a5c, on @user_script:1."
OLD = "ERR Error running script (call to f_2a5c): @user_script:7: "
#: Where a script has looked at an error, and raised it again.
RAISED = "ERR "

#: As Redis 6.2 and 7 write them.
ANSWERS = [
    ("NOAUTH Authentication required.", BrokerRefused),
    ("WRONGPASS invalid username-password pair or user is disabled.", BrokerRefused),
    ("NOPERM this user has no permissions to run the 'set' command", BrokerRefused),
    ("DENIED Redis is running in protected mode", BrokerRefused),
    (
        "ERR The user executing the script can't run this command or subcommand " + FAR,
        BrokerRefused,
    ),
    (
        "ERR ACL failure in script: User a has no permissions to run 'x' " + FAR,
        BrokerRefused,
    ),
    (
        OLD + "@user_script: 7: The user executing the script can't access at least",
        BrokerRefused,
    ),
    ("ERR DB index is out of range", BrokerRefused),
    ("ERR invalid DB index", BrokerRefused),
    ("ERR SELECT is not allowed in cluster mode", BrokerRefused),
    ("ERR This instance has cluster support disabled", BrokerRefused),
    ("CROSSSLOT Keys in request don't hash to the same slot", BrokerRefused),
    ("WRONGTYPE Operation against a key holding the wrong kind", TopologyMismatch),
    (OLD + "WRONGTYPE Operation against a key", TopologyMismatch),
    (
        "ERR unknown command 'BLMOVE', with args beginning with: 'q'",
        UnsupportedByBroker,
    ),
    ("ERR Unknown Redis command called from script " + FAR, UnsupportedByBroker),
    ("ERR unknown subcommand 'ID'. Try CLIENT HELP.", UnsupportedByBroker),
    ("NOPROTO unsupported protocol version", UnsupportedByBroker),
    ("OOM command not allowed when used memory > 'maxmemory'.", PublishRefused),
    (OLD + "@user_script: 7: -OOM command not allowed when used", PublishRefused),
    (RAISED + "OOM command not allowed when used memory", PublishRefused),
    (RAISED + "READONLY You can't write against a read only", BrokerUnavailable),
    (
        RAISED + "ERR The user executing the script can't run this command " + FAR,
        BrokerRefused,
    ),
    (OLD + "ERR WRONGTYPE Operation against a key", TopologyMismatch),
    ("MISCONF Redis is configured to save RDB snapshots", BrokerUnavailable),
    ("NOREPLICAS Not enough good replicas to write.", BrokerUnavailable),
    ("READONLY You can't write against a read only replica.", BrokerUnavailable),
    ("BUSY Redis is busy running a script.", BrokerUnavailable),
    ("LOADING Redis is loading the dataset in memory", BrokerUnavailable),
    ("MASTERDOWN Link with MASTER is down", BrokerUnavailable),
    ("CLUSTERDOWN The cluster is down", BrokerUnavailable),
    ("TRYAGAIN Multiple keys request during rehashing of slot", BrokerUnavailable),
    ("UNBLOCKED force unblock from blocking operation", BrokerUnavailable),
    ("ERR Script killed by user with SCRIPT KILL... " + FAR, BrokerUnavailable),
    ("ERR WAIT cannot be used with replica instances.", BrokerUnavailable),
    ("ERR max number of clients reached", BrokerUnavailable),
    ("ERR something that is new", BrokerError),
]


@pytest.mark.parametrize(("answer", "kind"), ANSWERS, ids=[a[:40] for a, _ in ANSWERS])
def test_each_refusal_has_its_class(answer: str, kind: type[BrokerError]) -> None:
    found = translate_error(BaseParser.parse_error(answer))
    assert isinstance(found, kind)
    assert (kind is BrokerError) == (type(found) is BrokerError)
    code, _, text = answer.partition(" ")
    assert text.rstrip(". ")[:20] in str(found) or code in str(found)


@pytest.mark.broker
@pytest.mark.parametrize("scheme", ["redis:", "redis-streams:"])
def test_a_batch_that_redis_answers_while_it_loads_fails_as_one(
    scheme: str, tmp_path: pathlib.Path
) -> None:
    """redis-py disconnects at the first such answer, and loses the other answers."""
    slow = {
        "enable-debug-command": "yes",
        "key-load-delay": "20000",
        "loading-process-events-interval-bytes": "1024",
    }
    with Redis(tmp_path, options={"appendonly": "no", **slow}) as server:
        url = server.url.replace("redis:", scheme)
        with server.client() as client, linked_broker(url) as linked:
            linked.broker.publish([outgoing()], 5.0)
            # Half a minute's worth, of which the test waits for a part.
            client.mset({f"key {n}": os.urandom(2_000) for n in range(1_500)})
            client.save()
            reload = gevent.spawn(server.command, "DEBUG", "RELOAD", "NOSAVE")
            wait_for(lambda: client.info("persistence")["loading"])
            errors = linked.broker.publish([outgoing(), outgoing(), outgoing()], 2.0)
            assert client.info("persistence")["loading"]
            client.config_set("key-load-delay", 0)
            assert {type(error) for error in errors} <= {
                PublishTimeout,
                BrokerUnavailable,
            }
            assert all("is loading the dataset" in str(e) for e in errors), errors
            reload.join()
            assert linked.broker.publish([outgoing(), outgoing()], 5.0) == [None, None]


def test_every_meaning_is_met() -> None:
    met = {read_error_code(BaseParser.parse_error(answer)) for answer, _ in ANSWERS}
    # redis-py makes one class of NOAUTH and WRONGPASS; the rest are its own errors.
    assert set(MEANINGS) - met == {"NOAUTH", "SENTINEL", "PROTOCOL"}


@pytest.mark.parametrize("word", MEANINGS)
def test_a_name_in_a_text_decides_nothing(word: str) -> None:
    """A queue, a user or an argument may be called like a code."""
    answers = (
        f"ERR wrong number of arguments for '{word}' command",
        f"NOGROUP No such key '{word}' or consumer group {word}",
        f"ERR user_script:1: {word} is no number",
    )
    for answer in answers:
        assert type(translate_error(BaseParser.parse_error(answer))) is BrokerError


@pytest.fixture(params=["redis:", "redis-streams:"])
def at(request):
    """Makes the URL of lists, and that of streams."""
    return lambda url: url.replace("redis:", request.param)


# -- states that end -------------------------------------------------------------------


def replica(server: Redis) -> None:
    server.command("REPLICAOF", "127.0.0.1", "1")


def lonely_replica(server: Redis) -> None:
    replica(server)
    server.command("CONFIG", "SET", "replica-serve-stale-data", "no")


def without_replicas(server: Redis) -> None:
    server.command("CONFIG", "SET", "min-replicas-to-write", "1")


def unsaved(server: Redis) -> None:
    """A snapshot that cannot be put where it belongs, as on a full disk."""
    (server.folder / "taken").mkdir()
    server.command("CONFIG", "SET", "save", "3600 1")
    server.command("BGSAVE")
    wait_for(
        lambda: server.command("INFO", "persistence")["rdb_last_bgsave_status"] == "err"
    )


@pytest.mark.broker
@pytest.mark.parametrize(
    ("state", "said"),
    [
        (replica, "is a replica: You can't write"),
        (lonely_replica, "is a replica without its master"),
        (without_replicas, "See 'min-replicas-to-write'"),
        (unsaved, "look at its log and disk"),
    ],
)
def test_a_state_that_ends_is_waited_for(tmp_path, at, state, said):
    options = {"dbfilename": "taken"}
    with (
        Redis(tmp_path, options=options) as server,
        linked_broker(at(server.url)) as linked,
    ):
        state(server)
        with pytest.raises(BrokerUnavailable, match=said):
            linked.broker.declare()
        (error,) = linked.broker.publish([outgoing()], 1.0)  # It answers in that time.
        assert isinstance(error, BrokerUnavailable)
        with pytest.raises(BrokerUnavailable):
            linked.link().read(1)


@pytest.mark.broker
def test_what_redis_said_is_told_if_it_says_nothing_more(tmp_path, at):
    """The last attempt of a publish has hardly any time, and often learns nothing."""
    with Redis(tmp_path) as server, linked_broker(at(server.url)) as linked:
        linked.publish(outgoing())
        replica(server)
        publishing = gevent.spawn(linked.broker.publish, [outgoing()], 5.0)
        wait_for(lambda: server.command("INFO", "errorstats").get("errorstat_READONLY"))
        with server.frozen():
            (error,) = publishing.get(timeout=30)
        assert isinstance(error, PublishTimeout)
        assert "is a replica: You can't write" in str(error)


def test_publishing_waits_for_a_slow_script_of_another_program(own_redis, at):
    own_redis.command("CONFIG", "SET", "busy-reply-threshold", "50")
    with linked_broker(at(own_redis.url)) as linked:
        linked.broker.declare()

        def block() -> None:
            with pytest.raises(redis.ResponseError):
                own_redis.command("EVAL", "while true do end", 0)

        blocking = threading.Thread(target=block)
        blocking.start()
        try:

            def refused() -> str:
                (error,) = linked.broker.publish([outgoing()], 0.2)
                assert error is None or isinstance(error, BrokerError)
                return str(error)

            wait_for(lambda: "SCRIPT KILL" in refused())
        finally:
            own_redis.command("SCRIPT", "KILL")
            blocking.join()
        linked.publish(outgoing())


# -- full ------------------------------------------------------------------------------


def fill_up(server: Redis) -> None:
    """Leave no room for anything more."""
    server.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        server.command("SET", "one", "more")


def test_a_full_redis_is_consumed_by_new_workers(own_redis, at):
    url = at(own_redis.url)
    with linked_broker(url) as before:
        sent = before.fill(3)
        fill_up(own_redis)
        with linked_broker(url) as linked:
            linked.broker.declare()
            link = linked.link()
            found = read(link, 3)
            assert bodies(found) == sent
            link.ack(found)


def test_a_binding_that_a_full_redis_does_not_take_is_written_once_there_is_room(
    own_redis, at, caplog
):
    url = at(own_redis.url)
    with linked_broker(url) as before:
        sent = before.fill(3)
        fill_up(own_redis)
        with linked_broker(url, plan("billing", "billing", "new")) as linked:
            with pytest.raises(BrokerUnavailable, match="cannot be written: .* out of"):
                linked.broker.declare()
            link = linked.link()
            linked.link(Lane.SUSPECTS)
            found = read(link, 3)
            assert bodies(found) == sent
            link.ack(found)
            link.keep_alive()
            own_redis.command("CONFIG", "SET", "maxmemory", "0")
            link.keep_alive()
            before.publish(outgoing(b"4", routing_key="new"))
            assert bodies(read(link, 1)) == [b"4"]
    (text,) = [r.getMessage() for r in caplog.records if "missing" in r.getMessage()]
    assert "They are written once there is room" in text


def test_a_publish_to_a_full_redis_is_refused_at_once(own_redis, at):
    with linked_broker(at(own_redis.url)) as linked:
        linked.broker.declare()
        fill_up(own_redis)
        began = time.monotonic()
        (error,) = linked.broker.publish([outgoing()], 10.0)
        assert isinstance(error, PublishRefused)
        assert "maxmemory" in str(error)
        assert time.monotonic() - began < 5


def test_bindings_are_made_once_a_redis_is_there_that_was_away_at_the_start(
    own_redis, at
):
    url = at(own_redis.url)
    own_redis.stop()
    with linked_broker(url) as linked, linked_broker(url, plan("other")) as other:
        with pytest.raises(BrokerUnavailable):
            linked.broker.declare()
        own_redis.start()
        link = linked.link()
        other.publish(outgoing(b"1"))
        assert bodies(read(link, 1)) == [b"1"]


# -- operators' errors -----------------------------------------------------------------


def user(server: Redis, at, *rules: str) -> str:
    """The URL of a user with all permissions but for these rules."""
    server.command("ACL", "SETUSER", "limited", "reset", "on", ">x", "~*", "+@all")
    server.command("ACL", "SETUSER", "limited", *rules)
    return at(server.url).replace("//", "//limited:x@")


@pytest.mark.parametrize(
    "rules",
    [("-@write",), ("-eval", "-evalsha"), ("resetkeys", "~else*"), ("-zrangebyscore",)],
    ids=lambda rules: " ".join(rules),
)
def test_what_a_script_may_not_do_is_a_refusal_and_no_outage(own_redis, at, rules):
    with (
        linked_broker(user(own_redis, at, *rules), declare="never") as linked,
        pytest.raises(BrokerRefused, match="needs more permissions"),
    ):
        linked.link().read(1)


@pytest.mark.parametrize("rule", ["-xreadgroup", "-xpending", "-xack"])
def test_what_a_script_has_looked_at_stays_a_refusal(own_redis, rule):
    """A script raises an error again that it was not prepared for."""
    url = user(
        own_redis, lambda linked: linked.replace("redis:", "redis-streams:"), rule
    )
    with (
        linked_broker(url) as linked,
        pytest.raises(BrokerRefused, match="needs more permissions"),
    ):
        linked.publish(outgoing(b"1"))
        link = linked.link()
        link.ack(link.read(1))


def read_documented_codes() -> list[str]:
    """The rules that the docs give for a user."""
    text = pathlib.Path("docs/how-to/deploy.rst").read_text()
    found = re.search(r"ACL SETUSER shop on '>secret' '~\*' ((?:.*\\\n)*.*)", text)
    assert found is not None
    return found[1].replace("\\|", "|").replace("\\\n", " ").split()


def test_the_documented_permissions_are_enough(own_redis, at, caplog):
    url = user(own_redis, at, "-@all", *read_documented_codes())
    with linked_broker(url, transport_options={"wait_replicas": 0}) as linked:
        linked.broker.declare()
        linked.fill(3)
        link, suspects = linked.link(), linked.link(Lane.SUSPECTS)
        first, second, third = read(link, 3)
        assert forward(link, first, Lane.MAIN, delay=0.2) is None
        assert forward(link, second, Lane.SUSPECTS) is None
        assert forward(link, third, Lane.DEAD, expires=60) is None
        reader = gevent.spawn(read, link, 1)
        link.ack(reader.get(timeout=10))
        suspects.release(read(suspects, 1))
        link.keep_alive()
        letters = linked.broker.dead_letters(linked.plan)
        assert letters.take(lambda letter: True, replay=True) == 1
        assert linked.broker.read_suspects(linked.plan).waiting == 1
        assert linked.depth() == 1
        assert linked.broker.stale_bindings() == []
        linked.broker.unbind(linked.plan.bindings)
        assert linked.broker.is_reachable()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_user_of_one_stage_need_not_see_what_was_shared(own_redis, at, caplog):
    keys = ["~staging.*", "~{staging.*", "~*binding*.staging.*", "~unacked*"]
    url = user(own_redis, at, "resetkeys", *keys)
    stage = dataclasses.replace(plan("staging.billing", "billing"), bindings=())
    with linked_broker(
        url, stage, exchange=EXCHANGE, queue_prefix="staging."
    ) as linked:
        linked.broker.topology = Topology(f"staging.{EXCHANGE}", (stage,))
        with pytest.raises(BrokerRefused):
            linked.broker._list_bound(EXCHANGE)
        assert linked.broker.stale_bindings() == []


@pytest.mark.parametrize("rule", ["-type", "-sadd"])
def test_what_is_needed_to_declare_is_a_refusal(own_redis, at, rule):
    with linked_broker(user(own_redis, at, rule)) as linked:
        with pytest.raises(BrokerRefused, match=f"'{rule[1:]}' command"):
            linked.broker.declare()
        (error,) = linked.broker.publish([outgoing()], 5.0)
        assert isinstance(error, BrokerRefused)


@pytest.mark.parametrize(
    ("login", "database", "said"),
    [
        ("limited:wrong@", "0", "Look at the user, the password"),
        ("", "0", "Look at the user, the password"),
        ("admin:x@", "99999", "ends with its number"),
    ],
    ids=["wrong password", "no password", "no such database"],
)
def test_a_wrong_url_is_a_refusal(own_redis, at, login, database, said):
    own_redis.command("ACL", "SETUSER", "admin", "on", ">x", "~*", "+@all")
    url = f"redis://{login}127.0.0.1:{own_redis.port}/{database}"
    with redis.Redis(port=own_redis.port, username="admin", password="x") as admin:
        admin.execute_command("ACL", "SETUSER", "default", "off")
        try:
            with pytest.raises(BrokerRefused, match=said):
                shop_of(at(url))
        finally:
            admin.execute_command("ACL", "SETUSER", "default", "on", "nopass")


def shop_of(url: str) -> None:
    with linked_broker(url) as linked:
        linked.broker.declare()


def test_a_node_of_a_cluster_is_no_redis_by_itself(redis_cluster):
    for scheme in ("redis", "redis-streams"):
        for node in redis_cluster.nodes[:3]:
            url = f"{scheme}://127.0.0.1:{node.port}/0"
            try:
                shop_of(url)
            except BrokerRefused as error:
                assert "'redis-streams+cluster://'" in str(error)
                break
        else:
            pytest.fail(f"every node took a part of it: {scheme}")


def test_a_redis_by_itself_is_no_cluster(redis_server):
    url = f"redis-streams+cluster://127.0.0.1:{redis_server.port}"
    broker = open_broker(settings(url), Topology(EXCHANGE, (plan(),)))
    with pytest.raises(BrokerRefused, match="is not a cluster: .*'redis-streams://'"):
        broker.declare()
    broker.close()


def test_replicas_that_may_not_be_waited_for_are_told_before_anything_is_sent(
    own_redis, at
):
    url = user(own_redis, at, "-wait")
    with linked_broker(url, transport_options={"wait_replicas": 1}) as linked:
        with pytest.raises(BrokerRefused, match="'wait' command"):
            linked.broker.declare()
        assert linked.client.keys() == []


# -- what can be done without ----------------------------------------------------------


@pytest.mark.parametrize("rule", ["-client|unblock", "-client|id", "-client"])
def test_delays_are_kept_without_the_permission_to_end_waits(
    own_redis, at, caplog, rule
):
    with linked_broker(user(own_redis, at, rule)) as linked:
        link, _ = linked.link(), linked.link(Lane.SUSPECTS)
        linked.fill(1)
        (first,) = read(link, 1)
        reader = gevent.spawn(read, link, 1)
        wait_for(lambda: link._blocking_wait.seconds_left() > 0)
        began = time.monotonic()
        assert forward(link, first, Lane.MAIN, delay=1.0) is None
        assert reader.get(timeout=10)
        assert time.monotonic() - began < 3.5
    (text,) = [r.getMessage() for r in caplog.records if "Blocking" in r.getMessage()]
    assert "+client|id +client|unblock" in text


def test_a_queue_is_read_without_the_permission_to_wait(own_redis, caplog):
    url = user(own_redis, lambda url: url, "-blmove")
    with linked_broker(url) as linked:
        link = linked.link()
        assert link.read(1) == []
        linked.fill(1)
        read(link, 1)
    (text,) = [r.getMessage() for r in caplog.records if "BLMOVE" in r.getMessage()]
    assert "+blmove" in text


# -- what it may evict -----------------------------------------------------------------


def read_warnings(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if "maxmemory" in r.getMessage()]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("allkeys-lru", "MESSAGES CAN BE LOST: Redis has"),
        ("allkeys-random", "MESSAGES CAN BE LOST: Redis has"),
        ("volatile-ttl", "evicts keys that expire"),
    ],
)
@pytest.mark.parametrize("rules", [(), ("-info",), ("-config",)])
def test_a_redis_that_evicts_is_a_loud_warning(
    own_redis, at, caplog, policy, said, rules
):
    own_redis.command("CONFIG", "SET", "maxmemory-policy", policy)
    with linked_broker(user(own_redis, at, *rules)) as linked:
        for lane in (Lane.MAIN, Lane.SUSPECTS, Lane.MAIN):
            linked.link(lane)
        assert linked.broker.caveats() == read_warnings(caplog)
    (text,) = read_warnings(caplog)
    assert said in text
    assert f"'{policy}'" in text
    assert "Set 'maxmemory-policy' to 'noeviction'" in text


def test_a_redis_that_does_not_evict_is_no_warning(own_redis, at, caplog):
    with linked_broker(at(own_redis.url)) as linked:
        linked.link()
    assert read_warnings(caplog) == []


def test_a_redis_that_does_not_tell_is_a_warning(own_redis, at, caplog):
    with linked_broker(user(own_redis, at, "-info", "-config")) as linked:
        linked.link()
    (text,) = read_warnings(caplog)
    assert text.startswith("It is not known whether Redis evicts messages")


def test_each_node_of_a_cluster_is_asked(redis_cluster, caplog):
    evicting = redis_cluster.nodes[1]
    evicting.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with linked_broker(redis_cluster.url) as linked:
            linked.link()
    finally:
        evicting.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    (text,) = read_warnings(caplog)
    assert f"(127.0.0.1:{evicting.port})" in text
