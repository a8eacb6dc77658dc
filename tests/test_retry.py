"""Retry policies: pure functions of the attempt, the error and a random number."""

from __future__ import annotations

import pathlib
import re
import time
import typing as t
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_qconsume import ConfigurationError
from flask_qconsume import HandlerTimeout
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume import RetryPolicy


class CardDeclined(Exception):
    class Twice(Exception):
        pass


def shortest() -> float:
    return 0.0


def longest() -> float:
    return 1.0


@pytest.mark.parametrize(
    ("options", "delays"),
    [
        ({}, [1, 4, 16, 64, 256, 600, 600]),
        ({"min_delay": 0}, [0, 0, 0]),
        ({"factor": 1, "min_delay": 7}, [7, 7, 7]),
        ({"min_delay": 10, "max_delay": 25, "factor": 2}, [10, 50 / 3, 50 / 3]),
        ({"min_delay": 10, "max_delay": 25, "factor": 2, "jitter": 0}, [10, 20, 25]),
        ({"min_delay": 3, "max_delay": 6, "jitter": 1}, [3, 3]),
        ({"min_delay": 0, "max_delay": 0}, [0, 0]),
    ],
)
def test_the_delay_grows_and_leaves_room_for_its_jitter(
    options: dict[str, t.Any], delays: list[float]
) -> None:
    policy = RetryPolicy(**options)
    attempts = range(1, len(delays) + 1)
    assert [policy.shortest_delay(n) for n in attempts] == pytest.approx(delays)


def test_jitter_only_makes_a_delay_longer() -> None:
    assert RetryPolicy(jitter=0.5).delay(2, shortest) == 4
    assert RetryPolicy(jitter=0.5).delay(2, longest) == 6
    assert RetryPolicy(jitter=0.5).delay(2, lambda: 0.5) == 5
    assert RetryPolicy(jitter=1).delay(2, longest) == 8
    assert RetryPolicy(jitter=0).delay(2, longest) == 4


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (
            {"min_delay": 5, "max_delay": 3},
            "'min_delay' of 5 s does not fit below its 'max_delay' of 3 s: a 'jitter'"
            " of 0.5 makes delays up to 1.5 times as long. Make 'min_delay' 2 at the"
            " most, or 'max_delay' at least 7.5.",
        ),
        (
            {"min_delay": 900},
            "'min_delay' of 900 s does not fit below its 'max_delay' of 900 s: a"
            " 'jitter' of 0.5 makes delays up to 1.5 times as long. Make 'min_delay'"
            " 600 at the most, or 'max_delay' at least 1350.",
        ),
        (
            {"min_delay": 600.0001},
            "'min_delay' of 600.0001 s does not fit below its 'max_delay' of 900 s: a"
            " 'jitter' of 0.5 makes delays up to 1.5 times as long. Make 'min_delay'"
            " 600 at the most, or 'max_delay' at least 900.00015.",
        ),
        (
            {"min_delay": timedelta(days=7)},
            "'min_delay' of 604800 s does not fit below its 'max_delay' of 900 s: a"
            " 'jitter' of 0.5 makes delays up to 1.5 times as long. Make 'min_delay'"
            " 600 at the most.",
        ),
    ],
)
def test_a_minimum_without_room_for_jitter_is_refused(
    options: dict[str, t.Any], remedy: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(**options)
    assert str(caught.value) == f"A retry policy's {remedy}"


@pytest.mark.parametrize(
    ("min_delay", "max_delay", "jitter"),
    [(0.2, 0.3, 0.5), (1.1, 1.65, 0.5), (3, 3.3, 0.1), (0.07, 0.07, 0)],
)
def test_a_minimum_with_exactly_the_room_for_jitter_is_accepted(
    min_delay: float, max_delay: float, jitter: float
) -> None:
    policy = RetryPolicy(min_delay=min_delay, max_delay=max_delay, jitter=jitter)
    assert policy.delay(1, shortest) == min_delay
    assert policy.delay(1, longest) == max_delay


@given(st.floats(1e-3, 604_800), st.floats(1e-3, 604_800), st.floats(0, 1))
def test_a_refused_policy_is_accepted_with_the_values_of_the_error(
    min_delay: float, max_delay: float, jitter: float
) -> None:
    try:
        RetryPolicy(min_delay=min_delay, max_delay=max_delay, jitter=jitter)
    except ConfigurationError as error:
        smaller = re.search(r"'min_delay' ([^ ]+) at the most", str(error))
        larger = re.search(r"'max_delay' at least ([^ ]+)\.$", str(error))
        assert smaller is not None
        RetryPolicy(min_delay=float(smaller[1]), max_delay=max_delay, jitter=jitter)
        assert bool(larger) == (min_delay * (1 + jitter) <= 604_800)
        if larger:
            RetryPolicy(min_delay=min_delay, max_delay=float(larger[1]), jitter=jitter)


@st.composite
def make_policies(draw: st.DrawFn) -> RetryPolicy:
    jitter = draw(st.floats(0, 1))
    max_delay = draw(st.floats(0, 604_800))
    return RetryPolicy(
        min_delay=draw(st.floats(0, max_delay / (1 + jitter))),
        factor=draw(st.floats(1, 1_000) | st.integers(1, 1_000)),
        max_delay=max_delay,
        jitter=jitter,
    )


policies = make_policies()


@given(policies, st.integers(1, 10**9), st.floats(0, 1))
def test_no_delay_leaves_its_bounds(
    policy: RetryPolicy, attempt: int, random: float
) -> None:
    delay = policy.delay(attempt, lambda: random)
    assert policy.min_delay <= delay <= policy.max_delay
    assert policy.shortest_delay(attempt) <= delay <= policy.longest_delay(attempt)


@given(policies, st.integers(1, 10**9))
def test_the_longest_delay_is_the_shortest_with_the_whole_jitter(
    policy: RetryPolicy, attempt: int
) -> None:
    longest = policy.shortest_delay(attempt) * (1 + policy.jitter)
    assert policy.longest_delay(attempt) == pytest.approx(longest)


@given(st.floats(0, 604_800), st.floats(0, 604_800), st.floats(0, 1))
def test_a_policy_is_made_or_refused_by_its_room_for_jitter(
    min_delay: float, max_delay: float, jitter: float
) -> None:
    fits = min_delay <= max_delay / (1 + jitter) * (1 + 1e-8)
    try:
        RetryPolicy(min_delay=min_delay, max_delay=max_delay, jitter=jitter)
    except ConfigurationError:
        assert not fits
    else:
        assert fits


@given(policies, st.integers(1, 10**6))
def test_a_later_attempt_never_waits_for_less(
    policy: RetryPolicy, attempt: int
) -> None:
    assert policy.shortest_delay(attempt) <= policy.shortest_delay(attempt + 1)
    assert policy.longest_delay(attempt) <= policy.longest_delay(attempt + 1)


def test_delays_are_really_spread_out() -> None:
    delays = {RetryPolicy().delay(3) for _ in range(50)}
    assert len(delays) > 40
    assert all(16 <= delay <= 24 for delay in delays)


def test_no_attempt_is_too_late_for_a_delay() -> None:
    began = time.process_time()
    assert RetryPolicy(factor=1_000).delay(10**6, longest) == 900
    assert RetryPolicy(min_delay=0, factor=1_000).delay(10**6, longest) == 0
    assert time.process_time() - began < 1


def test_the_last_attempt_ends_it() -> None:
    policy = RetryPolicy(max_attempts=3)
    assert isinstance(policy.decide(1, CardDeclined()), Retry)
    assert isinstance(policy.decide(2, CardDeclined()), Retry)
    assert policy.decide(3, CardDeclined()) == Reject("failed 3 of 3 attempts")
    assert policy.decide(9, CardDeclined()) == Reject("failed 9 of 3 attempts")


def test_one_attempt_means_none_is_retried() -> None:
    assert isinstance(RetryPolicy(max_attempts=1).decide(1, ValueError()), Reject)


def test_a_delay_that_was_asked_for_replaces_the_policys_but_not_its_end() -> None:
    policy = RetryPolicy(max_attempts=2)
    assert policy.again(1, 5000) == Retry(5000)
    assert policy.again(1, 0) == Retry(0)
    assert policy.again(2, 5000) == Reject("failed 2 of 2 attempts")
    assert policy.again(1, random=shortest) == Retry(1)


@pytest.mark.parametrize(
    ("error", "options", "retried"),
    [
        (ValueError(), {}, True),
        (SystemExit(), {}, True),
        (KeyboardInterrupt(), {}, True),
        (HandlerTimeout(1), {}, True),
        (ValueError(), {"retry_on": (OSError,)}, False),
        (ConnectionError(), {"retry_on": (OSError,)}, True),
        (SystemExit(), {"retry_on": (OSError,)}, True),
        (HandlerTimeout(1), {"retry_on": ()}, True),
        (ValueError(), {"retry_on": ()}, False),
        (UnicodeError(), {"give_up_on": (ValueError,)}, False),
        (KeyError(), {"give_up_on": (ValueError,)}, True),
        (ValueError(), {"retry_on": (ValueError,), "give_up_on": ValueError}, False),
        (HandlerTimeout(1), {"give_up_on": HandlerTimeout}, False),
        (SystemExit(), {"give_up_on": (BaseException,)}, False),
    ],
)
def test_which_errors_are_retried(
    error: BaseException, options: dict[str, t.Any], retried: bool
) -> None:
    policy = RetryPolicy(**options)
    assert policy.retries(error) is retried
    expected = Reject(f"{type(error).__name__} is not retried")
    assert retried or policy.decide(1, error) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_attempts", 0),
        ("max_attempts", True),
        ("max_attempts", 2.0),
        ("max_attempts", "5"),
        ("min_delay", -1),
        ("min_delay", "1"),
        ("min_delay", float("nan")),
        ("min_delay", None),
        ("factor", 0.5),
        ("factor", float("inf")),
        ("max_delay", -0.1),
        ("max_delay", 604_801),
        ("max_delay", False),
        ("jitter", 1.1),
        ("jitter", -0.1),
        ("retry_on", 5),
        ("retry_on", (ValueError, int)),
        ("give_up_on", ValueError()),
        ("give_up_on", [None]),
    ],
)
def test_a_value_that_makes_no_sense_is_named(name: str, value: t.Any) -> None:
    with pytest.raises(ConfigurationError, match=f"A retry policy's '{name}' must be"):
        RetryPolicy(**{name: value})


def test_delays_may_be_timedeltas() -> None:
    policy = RetryPolicy(
        min_delay=timedelta(seconds=5), max_delay=timedelta(hours=1, seconds=0.5)
    )
    assert policy == RetryPolicy(min_delay=5, max_delay=3600.5)
    assert (policy.min_delay, policy.max_delay) == (5.0, 3600.5)
    with pytest.raises(ConfigurationError, match="from 0 to 604800, or a timedelta"):
        RetryPolicy(max_delay=timedelta(days=8))


def test_classes_may_be_given_by_dotted_name() -> None:
    policy = RetryPolicy(
        retry_on=[f"{__name__}.CardDeclined", "OSError"],
        give_up_on="builtins.TimeoutError",
    )
    assert policy.retry_on == (CardDeclined, OSError)
    assert policy.give_up_on == (TimeoutError,)
    assert not policy.retries(TimeoutError())


@pytest.mark.parametrize(
    "dotted",
    [
        "nosuchpackage.Error",
        "builtins.NoSuchError",
        "NoSuchError",
        "..relative.Error",
        "builtins.",
        "",
        ".",
        "a..b",
        f"{__name__}.CardDeclined.Twice",
    ],
)
def test_a_name_that_cannot_be_imported_is_named(dotted: str) -> None:
    with pytest.raises(ConfigurationError, match="which cannot be imported") as caught:
        RetryPolicy(retry_on=dotted)
    assert f"'{dotted}'" in str(caught.value)


def test_a_module_may_raise_anything_when_it_is_imported(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "qconsume_broken.py").write_text("raise RuntimeError('not\\nhere')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match=r"imported: not\\nhere\.$"):
        RetryPolicy(retry_on=("qconsume_broken.Error",))


def test_a_name_of_something_else_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="must be exception classes or"):
        RetryPolicy(retry_on="os.path.join")


def test_an_unknown_option_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="has no 'tries'. It has: factor,"):
        RetryPolicy.from_mapping({"tries": 5})


def test_a_mapping_makes_the_same_policy_as_arguments() -> None:
    assert RetryPolicy.from_mapping({"jitter": 0, "max_attempts": 2}) == RetryPolicy(
        jitter=0, max_attempts=2
    )
    assert RetryPolicy.from_mapping({}) == RetryPolicy()


def test_the_random_number_is_handed_on() -> None:
    assert RetryPolicy().decide(2, ValueError(), shortest) == Retry(4)
    assert RetryPolicy().decide(2, ValueError(), longest) == Retry(6)
