"""Tracebacks in logs: all of them, and no line that an error's text has made."""

from __future__ import annotations

import io
import logging
import sys
import threading
import traceback
import typing as t
import uuid
from collections.abc import Iterator

import pytest

from flask_qconsume import QConsume
from flask_qconsume.logs import format_traceback
from flask_qconsume.logs import get_logger
from flask_qconsume.logs import measure_handler_hang
from tests.apps import make_app
from tests.waiting import wait_for

EVIL = "no\n2026-01-01 INFO all is well\r\x1b[2J\x85\u2028\x00end"
ESCAPED = r"no\n2026-01-01 INFO all is well\r\x1b[2J\x85\u2028\x00end"


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def during(first: BaseException, second: BaseException) -> BaseException:
    try:
        try:
            raise first
        except BaseException:
            raise second  # noqa: B904
    except BaseException as caught:
        return caught


def stdlib(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip("\n")


@pytest.mark.parametrize(
    "error",
    [
        raised(ValueError("plain")),
        raised(ValueError()),
        raised(ValueError("a"), raised(KeyError("b"))),
        during(ValueError("a"), KeyError("b")),
        raised(ValueError("a"), ValueError("never raised")),
        ValueError("never raised"),
    ],
)
def test_it_looks_as_python_writes_it(error: BaseException) -> None:
    assert format_traceback(error) == stdlib(error)


def test_what_every_error_of_a_chain_says_is_one_line() -> None:
    class Evil(Exception):
        def __str__(self) -> str:
            return EVIL

    error = raised(Evil(), during(ValueError(EVIL), KeyError(EVIL)))
    lines = format_traceback(error).split("\n")
    assert lines[-1].endswith(f"Evil: {ESCAPED}")
    assert f"ValueError: {ESCAPED}" in lines
    assert not [line for line in lines if line.startswith("2026")]
    assert all(line.isprintable() for line in lines)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no groups")
def test_so_is_what_the_errors_of_a_group_and_their_notes_say() -> None:
    group: t.Any = ExceptionGroup(EVIL, [raised(ValueError(EVIL))])  # noqa: F821
    group.add_note(EVIL)
    shown = format_traceback(raised(group))
    assert shown.count(ESCAPED) == 3
    assert f"  | ValueError: {ESCAPED}" in shown.split("\n")
    assert all(line.isprintable() for line in shown.split("\n"))


def test_a_long_text_loses_its_middle() -> None:
    shown = format_traceback(raised(ValueError("x" * 10**6)))
    assert len(shown) < 12_000
    assert " … " in shown


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What our loggers write."""
    written, parent = io.StringIO(), logging.getLogger("flask_qconsume")
    handler = logging.StreamHandler(written)
    parent.addHandler(handler)
    yield written
    parent.removeHandler(handler)


def test_a_log_record_has_the_error_object() -> None:
    logger, records = get_logger(f"test.{uuid.uuid4()}"), list[logging.LogRecord]()
    assert get_logger(logger.name).filters == logger.filters
    assert len(logger.filters) == 1
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    error = raised(ValueError(EVIL))
    logger.error("it failed", exc_info=error)
    logger.error("nothing was raised")
    assert records[0].exc_info is not None
    assert records[0].exc_info[1] is error
    assert records[0].exc_text == format_traceback(error)
    assert records[1].exc_text is None


def test_an_error_that_cannot_be_shown_is_no_error_of_the_log(
    log: io.StringIO,
) -> None:
    class Worst(Exception):
        @property
        def __notes__(self) -> t.Any:
            raise SystemError("never")

        @property
        def __cause__(self) -> t.Any:
            raise RuntimeError("never")

    get_logger("flask_qconsume.test").error("it failed", exc_info=Worst())
    assert log.getvalue() == "it failed\nWorst, without a readable traceback\n"


def test_a_message_cannot_forge_a_line_by_the_error_it_causes(
    log: io.StringIO,
) -> None:
    qconsume = QConsume()

    @qconsume.consumer("billing")
    def bill(body: str) -> None:
        raise ValueError(body)

    @qconsume.after_message
    def check(outcome: t.Any) -> None:
        raise KeyError(EVIL)

    client = qconsume.test_client(make_app(qconsume))
    client.deliver("bill", EVIL, attempt=6)
    lines = log.getvalue().split("\n")
    assert f"ValueError: {ESCAPED}" in lines
    assert [line for line in lines if line.startswith("KeyError: ")]
    assert not [line for line in lines if line.startswith("2026")]
    assert all(line.isprintable() for line in lines)


class _Raises(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("no space left")


def _raise(*args: t.Any) -> t.NoReturn:
    raise RuntimeError("no request here")


@pytest.mark.parametrize("what", ["handler", "filter", "factory"])
def test_what_logging_raises_stays_there(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = get_logger(f"flask_qconsume.test.{uuid.uuid4().hex}")
    factory = logging.getLogRecordFactory()
    if what == "handler":
        logger.addHandler(_Raises())
    elif what == "filter":
        logger.addFilter(_raise)
    else:
        logging.setLogRecordFactory(_raise)
    try:
        logger.warning("%s is told", "it")
    finally:
        logging.setLogRecordFactory(factory)
    said = capsys.readouterr().err
    assert "RuntimeError: no " in said
    assert "Message: '%s is told'\nArguments: ('it',)" in said


def test_where_a_line_comes_from_is_told(caplog: pytest.LogCaptureFixture) -> None:
    get_logger(f"flask_qconsume.test.{uuid.uuid4().hex}").warning("here")
    assert caplog.records[0].funcName == "test_where_a_line_comes_from_is_told"


def test_a_handler_that_does_not_return_is_noticed() -> None:
    entered, over = threading.Event(), threading.Event()

    class Hangs(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            entered.set()
            over.wait(20)

    logger = get_logger(f"flask_qconsume.test.{uuid.uuid4().hex}")
    logger.addHandler(Hangs())
    assert measure_handler_hang() == 0.0
    thread = threading.Thread(target=logger.warning, args=("hangs",))
    thread.start()
    entered.wait(20)
    first = measure_handler_hang()
    wait_for(lambda: measure_handler_hang() > first > 0.0)
    over.set()
    thread.join(20)
    assert measure_handler_hang() == 0.0
