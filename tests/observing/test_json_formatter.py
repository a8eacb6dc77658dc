"""One object of JSON a line, whatever is logged, as Loki's promtail reads it."""

from __future__ import annotations

import datetime
import decimal
import enum
import io
import json
import logging
import logging.config
import math
import typing as t
import uuid
from collections.abc import Callable
from collections.abc import Iterator

import pytest

from flask_qconsume import QConsume
from flask_qconsume.logs import get_logger
from flask_qconsume.observing.json_formatter import JsonFormatter
from tests.apps import make_app

Read = Callable[[], list[dict[str, t.Any]]]

#: The fields of each line, in their order.
FIELDS = ["time", "level", "logger", "message", "process"]


class Out(io.TextIOWrapper):
    """A stream that refuses all but ASCII, as standard error may under ``LANG=C``."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), "ascii", newline="", write_through=True)

    def objects(self) -> list[dict[str, t.Any]]:
        """Return the object of each line; promtail, too, splits at line feeds only."""
        written = t.cast(io.BytesIO, self.buffer).getvalue()
        lines = written.split(b"\n")
        assert lines.pop() == b""
        # Go's readers know no NaN, and take UTF-8 without surrogates.
        found = [json.loads(line, parse_constant=pytest.fail) for line in lines]
        for each in found:
            json.dumps(each, ensure_ascii=False).encode()
        return found


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.getLogger(f"shop.{uuid.uuid4().hex}")
    made.setLevel("DEBUG")
    made.propagate = False
    yield made
    made.handlers.clear()


@pytest.fixture
def out(logger: logging.Logger) -> Out:
    return attach(logger, JsonFormatter())


def attach(logger: logging.Logger, formatter: logging.Formatter) -> Out:
    out = Out()
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    return out


def test_a_line_has_time_level_logger_message_and_the_apps_fields(
    logger: logging.Logger, out: Out
) -> None:
    before = datetime.datetime.now(datetime.timezone.utc)
    logger.info("billed %s", 7, extra={"tenant": "acme", "ids": [1, {"a": None}]})
    line = out.objects()[0]
    assert list(line) == [*FIELDS, "tenant", "ids"]
    assert line["level"] == "INFO"
    assert line["logger"] == logger.name
    assert line["message"] == "billed 7"
    assert (line["tenant"], line["ids"]) == ("acme", [1, {"a": None}])
    assert line["time"].endswith("Z")
    logged = datetime.datetime.fromisoformat(line["time"].replace("Z", "+00:00"))
    assert abs(logged - before) < datetime.timedelta(minutes=1)


def test_a_line_of_a_message_has_its_context(logger: logging.Logger, out: Out) -> None:
    qconsume = QConsume()
    qconsume.add_consumer("bill", lambda body: logger.info("in"), name="bill")
    client = qconsume.test_client(make_app(qconsume))
    client.deliver("bill", {}, id="m-1", attempt=2)
    client.deliver("bill", {}, id="m-2", properties={"correlation_id": "c"})
    first, second = out.objects()
    assert list(first) == [*FIELDS, "consumer", "message_id", "attempt"]
    assert (first["consumer"], first["message_id"]) == ("bill", "m-1")
    assert first["attempt"] == 2
    assert second["correlation_id"] == "c"


def test_a_field_of_the_app_replaces_no_other(logger: logging.Logger, out: Out) -> None:
    extra = {"message_id": "mail-7", "time": 5, "level": 1, "consumer": "me"}
    qconsume = QConsume()

    @qconsume.consumer("bill", name="bill")
    def bill(body: t.Any) -> None:
        logger.info("in", extra=extra)

    client = qconsume.test_client(make_app(qconsume))
    assert client.deliver("bill", {}, id="m-1").error is None
    logger.info("out", extra=extra)
    within, outside = out.objects()
    assert (within["message_id"], within["extra_message_id"]) == ("m-1", "mail-7")
    assert (within["consumer"], within["extra_consumer"]) == ("bill", "me")
    assert (within["level"], within["extra_level"]) == ("INFO", 1)
    assert within["extra_time"] == 5
    assert (outside["message_id"], outside["consumer"]) == ("mail-7", "me")


def test_an_error_is_a_text_of_several_lines(logger: logging.Logger, out: Out) -> None:
    try:
        raise ValueError("no\n2026-01-01 INFO\x1b[2J")
    except ValueError:
        logger.exception("it failed", stack_info=True)
    line = out.objects()[0]
    lines = line["exception"].split("\n")
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == r"ValueError: no\n2026-01-01 INFO\x1b[2J"
    assert line["stack"].startswith("Stack (most recent call last):")
    assert set(line) == {*FIELDS, "exception", "stack"}


def test_so_is_an_error_of_our_loggers() -> None:
    logger = get_logger(f"flask_qconsume.test.{uuid.uuid4().hex}")
    out = attach(logger, JsonFormatter())
    logger.error("it failed", exc_info=ValueError("a\nb"))
    assert out.objects()[0]["exception"] == r"ValueError: a\nb"
    logger.handlers.clear()


def test_there_may_be_no_error_to_show(logger: logging.Logger, out: Out) -> None:
    logger.error("odd", exc_info=True)
    assert out.objects()[0]["exception"] == "None"


def test_an_error_whose_traceback_is_a_text_already(
    logger: logging.Logger, out: Out
) -> None:
    """Another process sends records like that, by a ``QueueHandler``."""
    record = logger.makeRecord("shop", logging.ERROR, "", 0, "it failed", (), None)
    record.exc_text = "ValueError: x"
    logger.handle(logging.makeLogRecord(vars(record)))
    assert out.objects()[0]["exception"] == "ValueError: x"


class Colour(enum.Enum):
    RED = "red"


class Unreadable:
    def __str__(self) -> str:
        raise SystemExit("never")

    __repr__ = __str__


CIRCLE: list[t.Any] = []
CIRCLE.append(CIRCLE)
DEEP: list[t.Any] = []
for _ in range(100_000):
    DEEP = [DEEP]

#: Values of ``extra=``, and what a reader finds.
VALUES: dict[str, tuple[t.Any, t.Any]] = {
    "line breaks": ("a\nb\r\u2028c", "a\nb\r\u2028c"),
    "letters": ("Zürich 東京 😀", "Zürich 東京 😀"),
    "a lone surrogate": ("\ud800", "\\ud800"),
    "a lone surrogate within": (["\ud800"], r"['\ud800']"),
    "bytes": (b"\xff", "_w=="),
    "a time": (datetime.date(2026, 1, 2), "2026-01-02"),
    "a number": (decimal.Decimal("1.50"), "1.50"),
    "an id": (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "a member": (Colour.RED, "red"),
    "an error": (ValueError("x"), "ValueError: x"),
    "not a number": (math.nan, "nan"),
    "infinity within": ({"a": math.inf}, "{'a': inf}"),
    "a large number": (2**70, 2**70),
    "a set": ({1}, "{1}"),
    "keys": ({(1, 2): 3}, "{(1, 2): 3}"),
    "a circle": (CIRCLE, "[[...]]"),
    "deeply nested": (DEEP, "(list, without a readable text)"),
    "unreadable": (Unreadable(), "(Unreadable, without a readable text)"),
    "too many digits": (10**5000, "(int, without a readable text)"),
    "true": (True, True),
    "nothing": (None, None),
    "a fraction": (1.5, 1.5),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_value_of_the_app_can_be_read_back(
    logger: logging.Logger, out: Out, case: str
) -> None:
    given, read = VALUES[case]
    logger.info("x", extra={"value": given, "other": 1})
    line = out.objects()[0]
    assert line["value"] == read
    assert line["other"] == 1


@pytest.mark.parametrize("depth", range(900, 1100, 7))
def test_nesting_near_pythons_limit_is_written_or_described(
    logger: logging.Logger, out: Out, depth: int
) -> None:
    nested: list[t.Any] = []
    for _ in range(depth):
        nested = [nested]
    logger.info("x", extra={"value": nested})
    assert "value" in out.objects()[0]


LONG: dict[str, t.Any] = {
    "text": "x" * 10**7,
    "list": ["x" * 10**7],
    "emoji": "😀" * 10**6,
}


@pytest.mark.parametrize("case", LONG)
def test_a_long_value_loses_its_middle(case: str) -> None:
    """Loki refuses lines of more than 256 KiB."""
    fields = {"msg": "a long text " * 10**5 + "\ud800", "value": LONG[case]}
    written = JsonFormatter().format(logging.makeLogRecord(fields))
    assert len(written) < 300_000
    line = json.loads(written)
    assert " … " in line["value"]
    assert " … " in line["message"]
    assert line["message"].endswith(" \\ud800")


def test_names_and_messages_may_be_odd(logger: logging.Logger, out: Out) -> None:
    logger.info({"message": "by a dict", 5: "five", "\ud800": 1})
    logger.info(ValueError("an error as the message\n"))
    logger.info({"tenant": "acme"})
    first, second, third = out.objects()
    assert (first["message"], first["5"], first["\\ud800"]) == ("by a dict", "five", 1)
    assert second["message"] == "an error as the message\n"
    assert (third["message"], third["tenant"]) == ("", "acme")


def test_fields_can_be_renamed_and_added(logger: logging.Logger) -> None:
    formatter = JsonFormatter(
        rename_fields={"level": "severity", "message": "msg"},
        static_fields={"service": "shop"},
    )
    out = attach(logger, formatter)
    try:
        raise ValueError("x")
    except ValueError:
        logger.exception("hello", extra={"tenant": "acme"})
    line = out.objects()[0]
    assert (line["severity"], line["msg"]) == ("ERROR", "hello")
    assert (line["service"], line["tenant"]) == ("shop", "acme")
    assert not {"level", "message"} & set(line)
    assert line["exception"].endswith("ValueError: x")


def test_the_traceback_can_be_a_list(logger: logging.Logger) -> None:
    out = attach(logger, JsonFormatter(exc_info_as_array=True))
    logger.error("hello", exc_info=ValueError("x"))
    assert out.objects()[0]["exception"] == ["ValueError: x"]


@pytest.mark.parametrize("format", [None, "%(message)s", "%(levelname)s %(message)s"])
def test_dict_config_names_the_class(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], format: str | None
) -> None:
    formatter = {"class": "flask_qconsume.observing.json_formatter.JsonFormatter"}
    if format is not None:
        formatter["format"] = format
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": formatter},
            "handlers": {
                "stderr": {"class": "logging.StreamHandler", "formatter": "json"}
            },
            "loggers": {logger.name: {"handlers": ["stderr"], "level": "INFO"}},
        }
    )
    logger.info("hello")
    line = json.loads(capsys.readouterr().err)
    assert set(FIELDS) <= set(line)
    assert line["message"] == "hello"
