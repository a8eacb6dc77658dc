"""The names of keys, and the transport options behind them."""

from __future__ import annotations

import pytest

from flask_qconsume.broker.topology import Topology
from flask_qconsume.brokers.redis_lists import RedisLists
from flask_qconsume.brokers.redis_lists.keys import ListLayout
from flask_qconsume.brokers.redis_lists.keys import create_layout
from flask_qconsume.errors import ConfigurationError

from .tools import linked_broker
from .tools import outgoing
from .tools import read
from .tools import settings


def test_the_lists_of_a_queue_are_kombus():
    assert ListLayout().list_keys("q") == [
        "q",
        "q\x06\x163",
        "q\x06\x166",
        "q\x06\x169",
    ]
    assert [ListLayout().priority_step(n) for n in (-1, 0, 2, 3, 5, 9, 99)] == [
        0,
        0,
        0,
        3,
        3,
        9,
        9,
    ]


def test_options_of_the_layout_are_honoured(redis_url):
    options = {
        "global_keyprefix": "stage:",
        "sep": "|",
        "priority_steps": [0, 5],
        "unacked_key": "held",
        "unacked_index_key": "held_index",
        "queue_order_strategy": "sorted",
    }
    with linked_broker(redis_url, transport_options=options) as linked:
        linked.publish(outgoing(priority=9), outgoing(priority=0))
        assert linked.keys() == {"stage:billing", "stage:billing|5"}
        read(linked.link(), 2)
        assert linked.keys() == {
            "stage:held",
            "stage:held_index",
            "stage:billing.leases",
        }
        exchange = linked.client.smembers("stage:_kombu.binding.shop")
        assert exchange == {b"billing|^billing$|billing"}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"visibility_timeout": 5}, "QCONSUME_LEASE"),
        ({"ack_emulation": False}, "ack_emulation"),
        ({"global_key_prefix": "x"}, "did you mean 'global_keyprefix'"),
        ({"priority_steps": []}, "priority_steps"),
        ({"priority_steps": [3, 0]}, "priority_steps"),
        ({"priority_steps": "0369"}, "priority_steps"),
        ({"sep": ""}, "sep"),
        ({"global_keyprefix": 1}, "global_keyprefix"),
    ],
)
def test_options_that_cannot_be_honoured_are_errors(options, word):
    with pytest.raises(ConfigurationError, match=word):
        create_layout(options)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("redis://a;redis://b", "sentinel"),
        ("redis://localhost/shop", "Database"),
        ("sentinel://localhost", "master_name"),
    ],
)
def test_urls_that_cannot_be_used_are_errors(url, word):
    with pytest.raises(ConfigurationError, match=word):
        RedisLists(settings(url), Topology("shop", ())).depth("q")
