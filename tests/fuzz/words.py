"""What people write: settings, policies, durations, topic patterns."""

from __future__ import annotations

import math
import typing as t
from collections.abc import Iterator

from flask_qconsume.broker.topic_patterns import matches
from flask_qconsume.broker.urls import check_url
from flask_qconsume.cli import durations
from flask_qconsume.errors import ConfigurationError
from flask_qconsume.retry import RetryPolicy
from flask_qconsume.settings import CONSUMER_OPTIONS
from flask_qconsume.settings import TABLE
from flask_qconsume.settings import Setting
from flask_qconsume.settings import Settings

from . import values
from .cost import counted
from .taps import Taps

#: What a checked value is, by the name of its setting.
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("transport_options", "retry_policies", "consumers"), (dict,)),
    **dict.fromkeys(("timeout", "dead_letter_ttl", "shutdown_timeout"), (float,)),
    **dict.fromkeys(("publish_timeout", "heartbeat", "lease"), (float,)),
    **dict.fromkeys(("blocked_after", "stalled_after", "away_after"), (float,)),
    **dict.fromkeys(("hub_latency", "least_share", "start_timeout"), (float,)),
    **dict.fromkeys(("concurrency", "delivery_limit"), (int,)),
    **dict.fromkeys(("max_message_size", "max_items"), (int,)),
    "prefetch": (int, type(None)),
    "accept": (tuple, type(None)),
    "retry": (RetryPolicy,),
}

_POLICY = (*RetryPolicy.__dataclass_fields__, "max_atempts")


def settings(data: bytes) -> None:
    """Any value for any key: of the kind that it must be, or an error that says so."""
    taps = Taps(data)
    row = taps.pick(TABLE)
    given = _given(taps, row)
    config = {"QCONSUME_BROKER_URL": "memory://", row.key: given}
    try:
        found = getattr(Settings.from_config(config), row.name)
        if row.name == "broker_url":
            check_url(found)
    except ConfigurationError as error:
        assert str(error).startswith(f"'{row.key}'")
        assert str(error).isprintable()
    else:
        assert isinstance(found, _KINDS.get(row.name, (str,)))
        assert not isinstance(found, float) or math.isfinite(found)


def keys(data: bytes) -> None:
    """Any key."""
    key: t.Any = values.anything(Taps(data))
    if isinstance(key, (list, tuple, dict, bytearray)):
        key = str(type(key))
    key = "QCONSUME_" + key if isinstance(key, str) else key
    try:
        Settings.from_config({"QCONSUME_BROKER_URL": "memory://", key: None})
    except ConfigurationError as error:
        assert str(error).startswith("There is no configuration key")
        assert str(error).isprintable()
    else:
        assert not isinstance(key, str) or key in {row.key for row in TABLE}


def _given(taps: Taps, row: Setting) -> t.Any:
    shape = {
        "retry": _policy,
        "retry_policies": lambda taps: {taps.text(): _policy(taps)},
        "consumers": lambda taps: {taps.text(): _options(taps)},
    }.get(row.name)
    if shape is not None and taps.pick((True, True, False)):
        return shape(taps)
    return values.anything(taps)


def _policy(taps: Taps) -> t.Any:
    if taps.pick((False, False, False, True)):
        return values.anything(taps)
    return {taps.pick(_POLICY): _argument(taps) for _ in range(taps.number() % 3)}


def _argument(taps: Taps) -> t.Any:
    errors = ("ValueError", "json.JSONDecodeError", "json.loads", "..x", "\0.x", ".")
    return taps.pick((values.anything(taps), taps.pick(errors), [taps.text()]))


def _options(taps: Taps) -> t.Any:
    if taps.pick((False, False, False, True)):
        return values.anything(taps)
    names = (*CONSUMER_OPTIONS, taps.text())
    return {taps.pick(names): values.anything(taps) for _ in range(taps.number() % 3)}


def patterns(data: bytes) -> None:
    """A topic pattern and a routing key, against the definition."""
    taps = Taps(data)
    pattern, key = (".".join(_words(taps)) for _ in range(2))
    assert matches(pattern, key) == by_the_book(pattern.split("."), key.split("."))
    many = taps.number()
    _takes_few_steps(f"{pattern}." * many + pattern, f"{key}." * many + key)


def _takes_few_steps(pattern: str, key: str) -> None:
    """Some for each word, however long both are."""
    _, steps = counted(lambda: matches(pattern, key))
    assert steps <= 100 + 10 * (pattern.count(".") + key.count("."))


def _words(taps: Taps) -> Iterator[str]:
    for _ in range(1 + taps.number() % 6):
        yield taps.pick(("a", "b", "*", "#", "*", "#", "", "\n", taps.text()))


def by_the_book(pattern: list[str], words: list[str]) -> bool:
    """The definition, word by word: slow, and plainly right."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(by_the_book(pattern[1:], words[n:]) for n in range(len(words) + 1))
    if not words:
        return False
    return pattern[0] in ("*", words[0]) and by_the_book(pattern[1:], words[1:])


def times(data: bytes) -> None:
    """A duration: seconds from 0 up, or none; and how it is spoken."""
    taps = Taps(data)
    seconds = durations.parse_duration(taps.pick((taps.text(), _duration(taps))))
    assert seconds is None or seconds >= 0
    if seconds is not None:
        assert durations.format_duration(seconds).isprintable()


def _duration(taps: Taps) -> str:
    return "".join(
        f"{taps.number(2)}{taps.pick(('', '.5'))}{taps.pick('smhd')}"
        for _ in range(taps.number() % 4)
    )


def delays(data: bytes) -> None:
    """A retry policy's delays: never outside its bounds, whatever the attempt."""
    taps = Taps(data)
    policy = RetryPolicy(
        min_delay=(min_delay := taps.number(3) / 100),
        factor=1 + taps.number(2) / 100,
        max_delay=2 * min_delay + taps.number(2) / 100,
        jitter=taps.number() / 255,
    )
    attempt = 1 + taps.number(3)
    delay = policy.delay(attempt, lambda: taps.number() / 256)
    assert policy.min_delay <= delay <= policy.max_delay
    assert policy.shortest_delay(attempt) <= policy.shortest_delay(attempt + 1)
