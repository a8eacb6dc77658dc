"""Protobuf message classes for tests, made at run time: no compiler is needed."""

from __future__ import annotations

import typing as t

from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory

Field = descriptor_pb2.FieldDescriptorProto

#: The name of a message, and its fields: a name, a type, and a label.
_MESSAGES: dict[str, list[tuple[str, t.Any, t.Any]]] = {
    "Order": [
        ("id", Field.TYPE_INT64, Field.LABEL_OPTIONAL),
        ("total", Field.TYPE_STRING, Field.LABEL_OPTIONAL),
        ("part_of", ".shop.Order", Field.LABEL_OPTIONAL),
    ],
    "Invoice": [
        ("number", Field.TYPE_STRING, Field.LABEL_OPTIONAL),
        ("sum", Field.TYPE_DOUBLE, Field.LABEL_OPTIONAL),
    ],
    "Ping": [],
    "Strict": [("id", Field.TYPE_INT64, Field.LABEL_REQUIRED)],
}


def _made() -> descriptor_pool.DescriptorPool:
    """A pool of a file for each message; only the second syntax knows "required"."""
    pool = descriptor_pool.DescriptorPool()
    for name, fields in _MESSAGES.items():
        strict = any(label == Field.LABEL_REQUIRED for *_, label in fields)
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{name}.proto",
            package="shop",
            syntax="proto2" if strict else "proto3",
        )
        message = file.message_type.add(name=name)
        for number, (field, kind, label) in enumerate(fields, 1):
            given = {"type_name": kind} if isinstance(kind, str) else {"type": kind}
            message.field.add(name=field, number=number, label=label, **given)
        pool.Add(file)
    return pool


_POOL = _made()


def _class(name: str) -> t.Any:
    descriptor = _POOL.FindMessageTypeByName(f"shop.{name}")
    return message_factory.GetMessageClass(descriptor)


Order = _class("Order")
Invoice = _class("Invoice")
#: Has no fields, so that its only body is empty.
Ping = _class("Ping")
#: Has a field that it cannot be without.
Strict = _class("Strict")
