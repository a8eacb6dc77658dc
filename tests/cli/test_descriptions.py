"""Descriptions of retry policies and handlers."""

from __future__ import annotations

import functools
import typing as t

import pytest

from flask_qconsume import RetryPolicy
from flask_qconsume.cli.descriptions import describe_retries
from flask_qconsume.cli.descriptions import get_handler_name
from flask_qconsume.cli.descriptions import summarize_retry


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"max_attempts": 4},
            "1 s, 4 s, 16 s (each up to 50% longer), then a dead letter",
        ),
        ({"max_attempts": 3, "jitter": 0}, "1 s, 4 s, then a dead letter"),
        ({"max_attempts": 1}, "none: a failed message becomes a dead letter at once"),
        (
            {"max_attempts": 100, "max_delay": 8, "factor": 2, "jitter": 0},
            "1 s, 2 s, 4 s, 8 s, 8 s, 8 s, 8 s, 8 s, … up to 8 s, 99 in all,"
            " then a dead letter",
        ),
        (
            {"max_attempts": 10**9, "factor": 1},
            "1 s, 1 s, 1 s, 1 s, 1 s, 1 s, 1 s, 1 s, … up to 1 s, 999999999 in all"
            " (each up to 50% longer), then a dead letter",
        ),
        (
            {"max_attempts": 2, "retry_on": KeyError, "give_up_on": "ValueError"},
            "1 s (each up to 50% longer), then a dead letter (only KeyError retried,"
            " ValueError never retried)",
        ),
    ],
)
def test_a_policy_is_described_by_its_delays(
    options: dict[str, t.Any], words: str
) -> None:
    assert describe_retries(RetryPolicy(**options)) == words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "6 attempts, 1 s to 4.3 min"),
        ({"max_attempts": 2}, "2 attempts, 1 s"),
        ({"max_attempts": 10**9}, "1000000000 attempts, 1 s to 10 min"),
        ({"max_attempts": 1}, "none"),
    ],
)
def test_a_policy_has_a_short_description(
    options: dict[str, t.Any], words: str
) -> None:
    assert summarize_retry(RetryPolicy(**options)) == words


class Handler:
    def __call__(self, body: t.Any) -> None: ...

    def method(self, body: t.Any) -> None: ...


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (get_handler_name, "flask_qconsume.cli.descriptions:get_handler_name"),
        (
            functools.partial(get_handler_name),
            "flask_qconsume.cli.descriptions:get_handler_name",
        ),
        (Handler(), f"{__name__}:Handler"),
        (Handler().method, f"{__name__}:Handler.method"),
    ],
)
def test_a_handler_is_named_by_module_and_name(handler: t.Any, name: str) -> None:
    assert get_handler_name(handler) == name
