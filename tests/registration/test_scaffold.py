"""Decorators used without their arguments: they would register nothing, silently."""

from __future__ import annotations

import gc
import typing as t

import pytest

from flask_qconsume import ConsumerBlueprint
from flask_qconsume import QConsume
from flask_qconsume import RegistrationError
from flask_qconsume.registration.missing import explain_unregistered


def test_consumer_without_arguments_says_how_it_is_written() -> None:
    qconsume: t.Any = QConsume()

    with pytest.raises(RegistrationError, match=r"'@….consumer\(\"bill\"\)'"):

        @qconsume.consumer
        def bill(order: t.Any) -> None: ...


def test_an_error_handler_without_its_class_is_refused() -> None:
    qconsume: t.Any = QConsume()

    with pytest.raises(RegistrationError, match="takes an exception class"):

        @qconsume.message_errorhandler
        def declined(error: Exception) -> None: ...


def test_a_blueprint_that_nothing_refers_to_any_more_is_not_forgotten() -> None:
    def add(name: str) -> ConsumerBlueprint:
        blueprint = ConsumerBlueprint(name, __name__)
        blueprint.add_consumer(f"{name}-queue", print)
        blueprint.itself = blueprint
        return blueprint

    gc.disable()
    try:
        add("gone-for-good")  # Only a cycle keeps it until a collection.
        kept = add("kept-in-hand")
        named = explain_unregistered()
    finally:
        gc.enable()
    assert "'gone-for-good'" not in named
    assert f"'{kept.name}'" in named
