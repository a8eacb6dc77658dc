"""Entries: foreign ones, ours as other programs see them, and the names of keys."""

from __future__ import annotations

import json
import shutil
import subprocess
from urllib.parse import urlsplit

import pytest

from flask_qconsume.broker import headers
from flask_qconsume.broker.link import Lane
from flask_qconsume.brokers.redis_streams.entries import META
from flask_qconsume.brokers.redis_streams.entries import encode_entry
from flask_qconsume.brokers.redis_streams.entries import read_entry
from flask_qconsume.brokers.redis_streams.entries import unpack_member
from flask_qconsume.brokers.redis_streams.keys import StreamLayout
from flask_qconsume.brokers.redis_streams.keys import create_layout
from flask_qconsume.errors import ConfigurationError
from flask_qconsume.errors import PublishRefused
from flask_qconsume.errors import Unroutable
from flask_qconsume.errors import UnsupportedByBroker

from ..redis.tools import bodies
from ..redis.tools import forward
from ..redis.tools import linked_broker
from ..redis.tools import outgoing
from ..redis.tools import plan
from ..redis.tools import read


@pytest.fixture
def url(redis_url):
    return redis_url.replace("redis:", "redis-streams:")


def test_what_redis_cli_adds_is_read(url):
    if not shutil.which("redis-cli"):
        pytest.skip("no redis-cli on the PATH")
    address = urlsplit(url)
    place = ["-p", str(address.port), "-n", address.path.strip("/")]
    added = ["XADD", "billing", "*", "body", '{"n": 1}', "x-tenant", "a"]
    with linked_broker(url) as linked:
        command = ["redis-cli", "-h", str(address.hostname), *place, *added]
        subprocess.run(command, check=True, capture_output=True)
        link = linked.link()
        found = read(link, 1)
        message = found[0].message
        assert message.raw == b'{"n": 1}'
        assert message.headers == {"x-tenant": "a"}
        assert message.id is None
        assert message.routing_key == "billing"
        link.ack(found)
        assert linked.client.xlen("billing") == 0


def test_what_we_publish_is_a_field_that_other_programs_read(url):
    with linked_broker(url, transport_options={"body_field": "payload"}) as linked:
        linked.publish(outgoing(b'{"n": 1}', headers={"x-tenant": "a"}))
        ((_, fields),) = linked.client.xrange("billing")
        assert fields[b"payload"] == b'{"n": 1}'
        assert json.loads(fields[META.encode()])["headers"]["x-tenant"] == "a"


def test_entries_without_the_body_field_are_an_object_of_their_fields(url):
    with linked_broker(url) as linked:
        linked.client.xadd("billing", {"id": "5", "total": "3"})
        message = read(linked.link(), 1)[0].message
        assert json.loads(message.raw) == {"id": "5", "total": "3"}
        assert message.headers == {"id": "5", "total": "3"}


@pytest.mark.parametrize(
    "fields",
    [
        [b"body", b"x", META.encode(), b"{no json"],
        [b"body", b"x", META.encode(), b"[1]"],
        [b"body", b"x", META.encode(), b""],
        [b"body", b"x", b"\xff\xfe", b"\xff"],
    ],
)
def test_an_entry_that_only_looks_like_ours_is_a_foreign_one(fields):
    message = read_entry(fields, "q", "body")
    assert message.raw == b"x"
    assert (message.id, message.exchange, message.routing_key) == (None, "", "q")


def test_a_foreign_content_encoding_counts():
    fields = [b"body", b"\x1f\x8b", b"content-encoding", b"gzip", b"n", b"1"]
    message = read_entry(fields, "q", "body")
    assert (message.raw, message.content_encoding) == (b"\x1f\x8b", "gzip")
    assert message.headers == {"n": "1"}


def test_what_is_large_is_no_properties_of_ours():
    meta = b'{"headers": {"a": [' + b"{}," * 200_000 + b"{}]}}"
    message = read_entry([b"body", b"1", META.encode(), meta], "q", "body")
    assert message.headers[META] == meta.decode()


def test_a_foreign_content_type_counts():
    message = read_entry([b"body", b"x", b"content-type", b"text/plain"], "q", "body")
    assert message.content_type == "text/plain"


def test_nonsense_in_our_own_field_is_absent_and_not_an_error():
    meta = json.dumps(
        {"headers": 5, "message_id": [1], "priority": "high", "exchange": 1}
    )
    message = read_entry([b"body", b"x", META.encode(), meta.encode()], "q", "body")
    assert (message.raw, message.id, message.priority) == (b"x", None, None)
    assert (message.headers, message.exchange) == ({}, "")


@pytest.mark.parametrize("value", [5, None, [], {"hex": 5}])
@pytest.mark.parametrize("mark", ["bytes", "base64", "uuid", "datetime", "none"])
def test_a_value_that_kombu_chokes_on_is_a_mapping(mark, value):
    given = {"__type__": mark, "__value__": value}
    meta = json.dumps({"headers": {"x": given}}).encode()
    assert read_entry([b"body", b"x", META.encode(), meta], "q", "body").headers[
        "x"
    ] == (given)
    packed = b"0:%d:%sx" % (len(meta), meta)
    assert unpack_member(packed, "q")[0].headers["x"] == given


@pytest.mark.parametrize("element", [b"", b"5:", b"1:9999:{}", b"1:2:[]x", b"\xff"])
def test_a_packed_entry_that_is_none_is_its_own_body(element):
    message, ref = unpack_member(element, "q")
    assert message.raw == element
    assert len(ref) == 64


def test_a_packed_entry_is_what_it_was():
    entry = encode_entry(
        {"message_id": "1"}, b"\x00:\xff", exchange="e", routing_key="k"
    )
    first, second = entry.pack(3), entry.pack(3)
    message, ref = unpack_member(first, "q")
    assert (message.raw, message.id, message.exchange) == (b"\x00:\xff", "1", "e")
    assert unpack_member(first, "q")[1] == ref
    assert unpack_member(second, "q")[1] != ref


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(PublishRefused, match="cannot be written as JSON"):
        encode_entry({"headers": {"x": object()}}, b"", exchange="", routing_key="q")


def test_a_foreign_message_that_is_not_text_survives_the_dead_letters(url):
    with linked_broker(url) as linked:
        linked.client.xadd("billing", {"body": b"\xff\xfe{", b"h\xff": b"\xff"})
        link = linked.link()
        delivery = read(link, 1)[0]
        written = headers.make_dead_letter_headers(
            delivery.message, "b", "billing", "no", None, 1.0
        )
        forward(link, delivery, Lane.DEAD, headers=written, expires=60.0)
        linked.broker.dead_letters(linked.plan).take(lambda letter: True, replay=True)
        again = read(link, 1)[0].message
        assert (again.raw, again.id, again.content_type) == (b"\xff\xfe{", None, None)
        assert again.headers["h\\xff"] == b"\xff"


def test_a_name_that_stands_several_times_has_a_list_of_values():
    fields = [b"body", b"x", b"tag", b"a", b"tag", b"b"]
    assert read_entry(fields, "q", "body").headers == {"tag": ["a", "b"]}
    message = read_entry([b"tag", b"a", b"tag", b"\xff"], "q", "body")
    assert json.loads(message.raw) == {"tag": ["a", "\\xff"]}
    assert message.headers == {"tag": ["a", b"\xff"]}


def test_foreign_items_among_the_delayed_are_read_too(url):
    with linked_broker(url) as linked:
        linked.client.zadd("{billing}.delayed", {b"garbage\xff": 1.0})
        assert bodies(read(linked.link(), 1)) == [b"garbage\xff"]


def test_every_bound_queue_gets_exactly_one_copy(url):
    both = [plan("billing", "order.#", "order.*"), plan("mail", "order.created")]
    with linked_broker(url, *both) as linked:
        linked.publish(
            outgoing(routing_key="order.created"), outgoing(routing_key="order")
        )
        assert (linked.depth("billing"), linked.depth("mail")) == (2, 1)
        error = linked.broker.publish([outgoing(routing_key="nobody")], 5.0)[0]
        assert isinstance(error, Unroutable)


def test_a_delay_of_more_than_ten_years_is_refused(url):
    with (
        linked_broker(url) as linked,
        pytest.raises(UnsupportedByBroker, match="is longer than"),
    ):
        linked.broker.publish([outgoing(delay=1e9)], 5.0)


def test_keys_of_one_queue_share_a_slot_and_take_the_prefix():
    layout = StreamLayout(prefix="stage:")
    assert layout.stream_keys("billing") == [
        "{stage:billing}.priority.9",
        "{stage:billing}.priority.6",
        "{stage:billing}.priority.3",
        "stage:billing",
    ]
    assert layout.stream_keys("billing.suspects") == ["{stage:billing}.suspects"]
    assert layout.delayed_key("billing") == "{stage:billing}.delayed"
    assert layout.dead_key("billing.dead") == "{stage:billing}.dead"


def test_a_prefix_with_a_hash_tag_puts_all_keys_into_one_slot():
    layout = StreamLayout(prefix="{shop}:")
    assert layout.stream_key("billing", 9) == "{shop}:billing.priority.9"
    assert layout.stream_key("mail.suspects") == "{shop}:mail.suspects"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"body_feild": "x"}, "did you mean 'body_field'"),
        ({"visibility_timeout": 5}, "not an option for Redis Streams"),
        ({"group": ""}, "'group'.*must be a text"),
        ({"priority_steps": [9, 0]}, "'priority_steps'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options, said):
    with pytest.raises(ConfigurationError, match=said):
        create_layout(options)


def test_the_group_and_the_prefix_are_options(url):
    options = {"group": "shop", "global_keyprefix": "stage:"}
    with linked_broker(url, transport_options=options) as linked:
        linked.publish(outgoing(b"1"))
        assert bodies(read(linked.link(), 1)) == [b"1"]
        assert linked.client.xpending("stage:billing", "shop")["pending"] == 1
