"""Limits for protobuf bodies are checked before parsing."""

from __future__ import annotations

import typing as t

import pytest
from google.protobuf import any_pb2
from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory

from flask_qconsume import InvalidMessage
from flask_qconsume import Message
from flask_qconsume import UndecodableMessage
from flask_qconsume.formats.protobuf import ProtobufSchema
from flask_qconsume.formats.protobuf_bounds import check_protobuf
from flask_qconsume.formats.table import Formats
from flask_qconsume.handling.payload import decode
from flask_qconsume.handling.payload import encode
from flask_qconsume.settings import PROTOBUF
from tests.fuzz.cost import bounded

F = descriptor_pb2.FieldDescriptorProto


def made(package: str, syntax: str) -> t.Any:
    """``Basket``: items, of many fields each, baskets, and two maps."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax=syntax
    )
    item = file.message_type.add(name="Item")
    for number in range(1, 41):
        item.field.add(name=f"f{number}", number=number, type=F.TYPE_STRING, label=1)
    basket = file.message_type.add(name="Basket")
    for number, name, kind in (
        (1, "items", f".{package}.Item"),
        (2, "baskets", f".{package}.Basket"),
        (3, "counts", f".{package}.Basket.CountsEntry"),
        (4, "names", f".{package}.Basket.NamesEntry"),
        (6, "by_name", f".{package}.Basket.ByNameEntry"),
    ):
        basket.field.add(
            name=name, number=number, type=F.TYPE_MESSAGE, type_name=kind, label=3
        )
    basket.field.add(name="numbers", number=5, type=F.TYPE_INT64, label=3)
    for name, key in (("CountsEntry", F.TYPE_UINT64), ("NamesEntry", F.TYPE_STRING)):
        entry = basket.nested_type.add(name=name)
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=key, label=1)
        entry.field.add(name="value", number=2, type=F.TYPE_BOOL, label=1)
    by_name = basket.nested_type.add(name="ByNameEntry")
    by_name.options.map_entry = True
    by_name.field.add(name="key", number=1, type=F.TYPE_STRING, label=1)
    by_name.field.add(
        name="value",
        number=2,
        type=F.TYPE_MESSAGE,
        type_name=f".{package}.Basket",
        label=1,
    )
    basket.field.add(
        name="anything",
        number=7,
        type=F.TYPE_MESSAGE,
        type_name=".google.protobuf.Any",
        label=1,
    )
    file.dependency.append(any_pb2.DESCRIPTOR.name)
    # The pool in which types named by an "Any" are found, as for generated classes.
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    kind = pool.FindMessageTypeByName(f"{package}.Basket")
    return message_factory.GetMessageClass(kind)


Basket: t.Any = made("bounds", "proto3")
#: In proto2, whose texts need not be UTF-8.
OldBasket: t.Any = made("old", "proto2")


def decoded(raw: bytes, max_items: int = 1_000_000, cls: t.Any = Basket) -> t.Any:
    schema = ProtobufSchema(cls)
    formats = Formats(schemas=[schema], max_items=max_items)
    message = Message(raw, "q", content_type=PROTOBUF)
    return decode(message, formats.decoders(schema=schema), 1 << 24)


@pytest.mark.deadline(60)
def test_keys_that_collide_are_refused_in_time() -> None:
    raw = b"".join(encode_colliding(50_000))

    with pytest.raises(UndecodableMessage, match="too many keys that are not texts"):
        bounded(lambda: decoded(raw), most=1)


def encode_colliding(count: int) -> t.Iterator[bytes]:
    """Encode map entries whose keys collide: protobuf hashes only the lower bits."""
    for number in range(count):
        yield Basket(counts={number << 16: True}).SerializeToString()


@pytest.mark.deadline(60)
def test_texts_that_need_not_be_utf_8_may_collide_as_well() -> None:
    # A constant of protobuf's hash: after it, the other bytes do not change the hash.
    constant = 0x13198A2E03707344.to_bytes(8, "little")
    keys = (constant + number.to_bytes(8, "little") + b"." for number in range(50_000))
    raw = b"".join(b"\x22\x13\x0a\x11" + key for key in keys)

    with pytest.raises(UndecodableMessage, match="too many keys that are not texts"):
        bounded(lambda: decoded(raw, cls=OldBasket), most=1)
    few = OldBasket(names={f"name {number}": True for number in range(3_000)})
    assert decoded(few.SerializeToString(), cls=OldBasket) == few


#: As JSON, in which keys are texts before they become numbers.
COLLIDING = {str(number << 16): True for number in range(50_000)}
BASKET = "type.googleapis.com/bounds.Basket"


@pytest.mark.deadline(60)
@pytest.mark.parametrize(
    "basket",
    [
        {"counts": COLLIDING},
        {"baskets": [{"baskets": [{"counts": COLLIDING}]}]},
        {"byName": {"a": {"counts": COLLIDING}}},
        {"by_name": {"a": {"counts": COLLIDING}}},
        {"anything": {"@type": BASKET, "counts": COLLIDING}},
        {
            "anything": {
                "@type": "type.googleapis.com/google.protobuf.Any",
                "value": {"@type": BASKET, "counts": COLLIDING},
            }
        },
    ],
)
def test_nor_may_they_come_as_json(basket: dict[str, t.Any]) -> None:
    with pytest.raises(InvalidMessage, match="too many keys that are not texts"):
        bounded(lambda: ProtobufSchema(Basket).load(basket), most=1)


@pytest.mark.parametrize("anything", [{}, [], 1, {"@type": 1}, {"@type": "a/b.C"}])
def test_what_is_no_message_in_json_is_left_to_the_parser(anything: t.Any) -> None:
    with pytest.raises(InvalidMessage, match="no 'bounds.Basket': (?!it has too many)"):
        ProtobufSchema(Basket).load({"anything": anything, "baskets": 1})


def test_json_of_many_texts_as_keys_becomes_a_message() -> None:
    names = {f"name {number}": True for number in range(20_000)}

    assert ProtobufSchema(Basket).load({"names": names}) == Basket(names=names)


def test_what_a_consumer_would_refuse_is_not_published() -> None:
    basket = Basket(counts={number: True for number in range(5_000)})

    with pytest.raises(ValueError, match="too many keys that are not texts"):
        encode(basket, PROTOBUF)


TOO_MANY = {
    "items": b"\x0a\x00" * 500_000,
    "baskets": b"\x12\x00" * 1_000_000,
    "items in baskets": b"\x12\x02\x0a\x00" * 500_000,
    "numbers": b"\x28\x01" * 2_000_000,
    "unknown ones": b"\x78\x01" * 2_000_000,
    "groups": b"\x7b\x7c" * 1_000_000,
    "items with long tags": b"\x8a\x80\x80\x00\x00" * 300_000,
}


@pytest.mark.deadline(60)
@pytest.mark.parametrize("raw", TOO_MANY.values(), ids=TOO_MANY)
def test_a_body_of_too_many_values_is_refused(raw: bytes) -> None:
    with pytest.raises(UndecodableMessage, match="'QCONSUME_MAX_ITEMS'"):
        bounded(lambda: decoded(raw), most=10)


def test_what_is_honest_is_decoded() -> None:
    item = {f"f{number}": "x" * 20 for number in range(1, 41)}
    basket = Basket(
        items=[item] * 500,
        baskets=[{"counts": {n: True for n in range(5)}, "items": [item]}] * 500,
        counts={number: True for number in range(3_000)},
        names={f"name {number}": True for number in range(20_000)},
        numbers=range(2_000_000),
    )

    assert decoded(basket.SerializeToString()) == basket


@pytest.mark.parametrize(
    "raw",
    [
        b"\x0a\xff\xff\xff\xff\x7f" * 3_000,
        b"\xff" * 20_000,
        b"\x0e" * 20_000,
        b"\x12\x7f" * 10_000,
        b"\x29" + b"\0" * 20_000,
    ],
)
def test_what_is_malformed_is_left_to_the_parser(raw: bytes) -> None:
    with pytest.raises(UndecodableMessage, match="bounds.Basket"):
        decoded(raw)


def test_what_holds_no_messages_is_not_looked_at() -> None:
    kind = Basket.DESCRIPTOR.fields_by_name["items"].message_type

    check_protobuf(kind, b"\xff" * 20_000, 1)


@pytest.mark.deadline(30)
def test_unknown_fields_of_a_body_without_a_type_take_no_memory() -> None:
    with pytest.raises(UndecodableMessage, match="only others"):
        decoded(b"\x78\x01" * 100_000)
