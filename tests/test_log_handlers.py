"""Handlers of log lines: those that are shared with another logger."""

from __future__ import annotations

import logging
import uuid

import pytest

from flask_qconsume.log_handlers import SharedHandlers
from flask_qconsume.log_handlers import TextFormatter
from flask_qconsume.log_handlers import log_all_to


class Kept(logging.Handler):
    """Keeps the texts of its records."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def test_a_library_logs_to_shared_handlers_and_their_owner_still_does() -> None:
    all_lines, errors = Kept(), Kept(logging.ERROR)
    owner = logging.getLogger(f"server.{uuid.uuid4().hex}")
    owner.propagate = False
    owner.handlers[:] = [all_lines, errors]
    shared, root = SharedHandlers(owner.handlers), logging.getLogger()
    level = logging.getLogger("flask_qconsume").level
    log_all_to(shared, None)
    try:
        logging.getLogger("cards.visa").warning("a library's line")
        owner.error("the server's line")
    finally:
        root.removeHandler(shared)
        logging.getLogger("flask_qconsume").setLevel(level)
    assert all_lines.texts == ["a library's line", "the server's line"]
    assert errors.texts == ["the server's line"]


@pytest.mark.parametrize(
    ("logger", "id", "line"),
    [
        ("shop", "m-1", "charged  [orders.bill m-1, attempt 2]"),
        ("shop", "", "charged  [orders.bill without an id, attempt 2]"),
        ("flask_qconsume_shop", "m-1", "charged  [orders.bill m-1, attempt 2]"),
        ("flask_qconsume.dispatch", "m-1", "charged"),
    ],
)
def test_a_line_of_the_app_ends_with_the_message(
    logger: str, id: str, line: str
) -> None:
    context = {
        "qconsume_consumer": "orders.bill",
        "qconsume_message_id": id,
        "qconsume_attempt": 2,
    }
    record = logging.makeLogRecord({"name": logger, "msg": "charged", **context})
    assert TextFormatter().format(record) == line


def test_a_line_outside_of_a_message_stays_as_it_is() -> None:
    record = logging.LogRecord("shop", logging.INFO, "", 0, "hello", (), None)
    assert TextFormatter().format(record) == "hello"
