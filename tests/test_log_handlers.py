"""Handlers of log lines: those that are shared with another logger."""

from __future__ import annotations

import logging
import uuid

from flask_qconsume.log_handlers import SharedHandlers
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
