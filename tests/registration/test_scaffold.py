"""Decorators used without their arguments: they would register nothing, silently."""

from __future__ import annotations

import typing as t

import pytest

from flask_qconsume import QConsume
from flask_qconsume import RegistrationError


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
