"""JSON in kombu's way, without importing kombu for plain values."""

from __future__ import annotations

import datetime
import decimal
import json
import typing as t
import uuid

import pytest
from kombu.utils.json import dumps
from kombu.utils.json import loads

from flask_qconsume.broker import kombu_json

from ..harness.scripts import run_script

VALUES = (
    *(True, False, None, 0, -(2**63), 1.5, 1e300, "text", 'quoted "__type__"'),
    *([], [1, "two", None], {}, {"a": {"b": [1.5]}}, {"__type__": 1}),
    *(decimal.Decimal("1.50"), uuid.UUID(int=7), b"\xff", [b"bytes", 1]),
    datetime.datetime(2026, 11, 27, 1, 2, 3, 456, tzinfo=datetime.timezone.utc),
    {"due": [datetime.date(2026, 11, 27)]},
)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_it_is_what_kombu_writes_and_reads(value: t.Any) -> None:
    text = kombu_json.encode(value)
    assert text == dumps(value)
    assert kombu_json.decode(text) == loads(text)


TEXTS = (
    *("Infinity", "[-Infinity]", str(10**30), "-0", "1E400", "0.1", ' {"a": 1}\n'),
    *('"\\ud800"', '{"a": 1, "a": 2}', '"\\u00e9\ud83d"', "[" * 300 + "]" * 300),
)


@pytest.mark.parametrize("text", TEXTS)
def test_it_reads_what_the_standard_library_reads(text: str) -> None:
    found = kombu_json.decode(text)
    assert found == json.loads(text)
    assert type(found) is type(json.loads(text))


def test_what_cannot_be_written_is_an_error() -> None:
    with pytest.raises(TypeError):
        kombu_json.encode(object())


KAFKA_ALONE = """
import sys
import flask_qconsume.brokers.kafka
from flask_qconsume.broker import kombu_json
assert kombu_json.decode(kombu_json.encode(1.5)) == 1.5
assert kombu_json.decode("[1, 2]") == [1, 2]
print(sorted({"amqp", "billiard", "kombu.utils.json"} & sys.modules.keys()))
"""


@pytest.mark.process
def test_a_worker_on_kafka_does_without_kombus_json_and_what_comes_with_it() -> None:
    assert run_script(KAFKA_ALONE).stdout == "[]\n"
