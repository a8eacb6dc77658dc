"""Retry policies: pure functions of the attempt, the error and a random number."""

from __future__ import annotations

import pathlib
import time
import typing as t

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


def longest() -> float:
    return 0.0


def shortest() -> float:
    return 1.0


@pytest.mark.parametrize(
    ("options", "delays"),
    [
        ({}, [1, 4, 16, 64, 256, 900, 900]),
        ({"min_delay": 0}, [0, 0, 0]),
        ({"factor": 1, "min_delay": 7}, [7, 7, 7]),
        ({"min_delay": 10, "max_delay": 25, "factor": 2}, [10, 20, 25, 25]),
        ({"min_delay": 5, "max_delay": 3}, [3, 3]),
        ({"max_delay": 0}, [0, 0]),
    ],
)
def test_the_delay_grows_up_to_the_longest(
    options: dict[str, t.Any], delays: list[float]
) -> None:
    policy = RetryPolicy(**options)
    found = [policy.delay(n + 1, longest) for n in range(len(delays))]
    assert found == delays


def test_jitter_is_the_random_part_of_a_delay() -> None:
    assert RetryPolicy(jitter=0.5).delay(2, shortest) == 2
    assert RetryPolicy(jitter=1).delay(2, shortest) == 0
    assert RetryPolicy(jitter=0).delay(2, shortest) == 4
    assert RetryPolicy(jitter=0.5).delay(2, lambda: 0.5) == 3


policies = st.builds(
    RetryPolicy,
    min_delay=st.floats(0, 604_800),
    factor=st.floats(1, 1_000) | st.integers(1, 1_000),
    max_delay=st.floats(0, 604_800),
    jitter=st.floats(0, 1),
)


@given(policies, st.integers(1, 10**9), st.floats(0, 1))
def test_no_delay_leaves_its_bounds(
    policy: RetryPolicy, attempt: int, random: float
) -> None:
    full = policy.delay(attempt, longest)
    delay = policy.delay(attempt, lambda: random)
    assert 0 <= full <= policy.max_delay
    assert full * (1 - policy.jitter) - 1e-6 <= delay <= full


@given(policies, st.integers(1, 10**6))
def test_a_later_attempt_never_waits_for_less(
    policy: RetryPolicy, attempt: int
) -> None:
    assert policy.delay(attempt, longest) <= policy.delay(attempt + 1, longest)


def test_delays_are_really_spread_out() -> None:
    delays = {RetryPolicy().delay(3) for _ in range(50)}
    assert len(delays) > 40
    assert all(8 <= delay <= 16 for delay in delays)


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
    assert policy.again(1, random=longest) == Retry(1)


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


def test_classes_may_be_given_by_dotted_name() -> None:
    policy = RetryPolicy(
        retry_on=[f"{__name__}.CardDeclined", "OSError"],  # type: ignore[arg-type]
        give_up_on="builtins.TimeoutError",  # type: ignore[arg-type]
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
        RetryPolicy(retry_on=dotted)  # type: ignore[arg-type]
    assert f"'{dotted}'" in str(caught.value)


def test_a_module_may_raise_anything_when_it_is_imported(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "qconsume_broken.py").write_text("raise RuntimeError('not\\nhere')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match=r"imported: not\\nhere\.$"):
        RetryPolicy(retry_on=("qconsume_broken.Error",))  # type: ignore[arg-type]


def test_a_name_of_something_else_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="must be exception classes or"):
        RetryPolicy(retry_on="os.path.join")  # type: ignore[arg-type]


def test_an_unknown_option_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="has no 'tries'. It has: factor,"):
        RetryPolicy.from_mapping({"tries": 5})


def test_a_mapping_makes_the_same_policy_as_arguments() -> None:
    assert RetryPolicy.from_mapping({"jitter": 0, "max_attempts": 2}) == RetryPolicy(
        jitter=0, max_attempts=2
    )
    assert RetryPolicy.from_mapping({}) == RetryPolicy()


def test_the_random_number_is_handed_on() -> None:
    assert RetryPolicy().decide(2, ValueError(), shortest) == Retry(2)
    assert RetryPolicy().decide(2, ValueError(), longest) == Retry(4)
