"""What a log has shown of failures, and how little of them is kept."""

from __future__ import annotations

import gc
import weakref

from flask_qconsume.registration.failures import Failures


class Failed(Exception):
    pass


def raised(line: str) -> BaseException:
    try:
        exec(compile(f"raise {line}", f"{line}.py", "exec"), {"Failed": Failed})
    except Exception as error:
        return error
    raise AssertionError


def test_errors_of_one_class_raised_by_one_line_are_the_same() -> None:
    failures = Failures()
    assert failures.count(raised("Failed()")) == ("Failed().py:1", 1)
    assert failures.count(raised("Failed()")) == ("Failed().py:1", 2)
    assert failures.count(raised("Failed(1)")) == ("Failed(1).py:1", 1)
    assert failures.count(raised("ValueError()")) == ("ValueError().py:1", 1)


def test_an_error_that_was_never_raised_has_no_place() -> None:
    failures = Failures()
    assert failures.count(Failed()) == ("", 1)
    assert failures.count(Failed()) == ("", 2)


def test_the_failures_seen_last_are_remembered() -> None:
    failures = Failures(remembered=2)
    for line in ("Failed(1)", "Failed(2)", "Failed(1)", "Failed(3)"):
        failures.count(raised(line))
    assert failures.count(raised("Failed(1)")).times == 3
    assert failures.count(raised("Failed(2)")).times == 1


def test_no_error_is_kept() -> None:
    failures, error = Failures(), raised("Failed()")
    kept = weakref.ref(error)
    gc.disable()
    try:
        failures.count(error)
        del error
        assert kept() is None
    finally:
        gc.enable()
