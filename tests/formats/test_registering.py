"""Formats that an app registers: where they are used, and which are refused."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from flask_qconsume import Ack
from flask_qconsume import ConsumerBlueprint
from flask_qconsume import Format
from flask_qconsume import HandlerTimeout
from flask_qconsume import Message
from flask_qconsume import PublishError
from flask_qconsume import QConsume
from flask_qconsume import RegistrationError
from flask_qconsume import Reject
from flask_qconsume import Retry
from flask_qconsume.broker.compose import PublishOptions
from flask_qconsume.broker.compose import check_options
from flask_qconsume.broker.compose import compose
from flask_qconsume.formats.table import Formats
from tests.apps import make_app

CSV = {"content_type": "text/csv"}


@dataclasses.dataclass
class Row:
    """A body whose class says its format."""

    cells: list[str]


class Csv(Format):
    content_types: t.ClassVar[list[str]] = ["text/csv", "text/x-csv", "+csv"]

    def decode(self, message: Message) -> t.Any:
        return message.raw.decode().split(",")

    def encode(self, body: t.Any, routing_key: str) -> bytes:
        return ",".join(getattr(body, "cells", body)).encode()

    def claims(self, body: t.Any) -> bool:
        return isinstance(body, Row)

    def headers(self, body: t.Any) -> dict[str, t.Any]:
        return {"columns": len(getattr(body, "cells", body))}


class AppWithFormats:
    """An app with the consumer 'stock.count', and the bodies that it handled."""

    def __init__(self, *formats: Format, **options: t.Any) -> None:
        self.qconsume, self.handled = QConsume(), list[t.Any]()
        for each in formats:
            self.qconsume.register_format(each)
        blueprint = ConsumerBlueprint("stock", __name__)
        config = options.pop("config", {})
        blueprint.add_consumer("q", self.handled.append, name="count", **options)
        self.app = make_app(self.qconsume, blueprint, **config)
        self.client = self.qconsume.test_client(self.app)

    def outcome(self, body: t.Any, **options: t.Any) -> t.Any:
        return self.client.deliver("stock.count", body, **options).outcome


@pytest.mark.parametrize(
    "content_type", ["text/csv", "Text/CSV; charset=utf-8", "text/x-csv", "a/b+csv"]
)
def test_a_registered_format_is_accepted_and_read(content_type: str) -> None:
    app_with_formats = AppWithFormats(Csv())
    assert app_with_formats.outcome(b"a,b", content_type=content_type) == Ack()
    assert app_with_formats.outcome(["c", "d"], content_type=content_type) == Ack()
    assert app_with_formats.handled == [["a", "b"], ["c", "d"]]


def test_it_counts_whenever_it_is_registered_before_the_first_message() -> None:
    app_with_formats = AppWithFormats()
    app_with_formats.qconsume.register_format(Csv())
    assert app_with_formats.outcome(b"a,b", **CSV) == Ack()
    with pytest.raises(RegistrationError, match="'register_format' cannot be called"):
        app_with_formats.qconsume.register_format(Csv())


def test_an_app_knows_its_own_formats_only() -> None:
    AppWithFormats(Csv())
    outcome = AppWithFormats().outcome(b"a,b", **CSV)
    assert "the content type 'text/csv' is not accepted; there are: " in outcome.reason


def test_publishing_uses_it() -> None:
    app_with_formats = AppWithFormats(Csv())
    publish = app_with_formats.app.extensions["qconsume"].publish
    with app_with_formats.client.capture() as published:
        publish("q", ["a", "b"], headers={"columns": "?", "x": 1}, **CSV)
        publish("q", Row(["c"]))
        publish("q", b"d", **CSV)
    assert [each.body for each in published] == [["a", "b"], ["c"], ["d"]]
    assert [each.headers for each in published] == [
        {"columns": 2, "x": 1},
        {"columns": 1},
        {},
    ]


class Broken(Csv):
    """A format that raises or returns what a test sets."""

    def __init__(self, fault: t.Any) -> None:
        self.fault = fault

    def decode(self, message: Message) -> t.Any:
        raise self.fault

    def encode(self, body: t.Any, routing_key: str) -> bytes:
        if isinstance(self.fault, BaseException):
            raise self.fault
        return t.cast(bytes, self.fault)


class Nasty(Exception):
    def __str__(self) -> str:
        raise RuntimeError("never mind")


FAULTS: list[tuple[Exception, str]] = [
    (ValueError("no row"), "the body is no text/csv: no row"),
    (KeyError("id"), "the body is no text/csv: KeyError: 'id'"),
    (AssertionError(), "the body is no text/csv: AssertionError"),
    (OSError("no\n\x1b[2Jdisk"), r"the body is no text/csv: OSError: no\n\x1b[2Jdisk"),
    (MemoryError(), "the body is no text/csv: MemoryError"),
    (RecursionError("deep"), "the body is no text/csv: RecursionError: deep"),
    (StopIteration(5), "the body is no text/csv: StopIteration: 5"),
    (Nasty(), "the body is no text/csv: Nasty: (Nasty, without a readable text)"),
]


@pytest.mark.parametrize(("error", "reason"), FAULTS)
def test_whatever_a_decoder_raises_is_a_dead_letter(
    error: Exception, reason: str
) -> None:
    app_with_formats = AppWithFormats(Broken(error))
    found = app_with_formats.client.deliver("stock.count", b"a", **CSV)
    assert found.outcome == Reject(reason)
    assert found.error is not None
    assert found.error.__cause__ is error
    assert app_with_formats.handled == []


def test_what_a_decoder_throws_at_the_process_is_for_the_retry_policy() -> None:
    for error in (SystemExit(1), HandlerTimeout(5)):
        app_with_formats = AppWithFormats(Broken(error), retry={"max_attempts": 2})
        assert isinstance(app_with_formats.outcome(b"a", **CSV), Retry)
        assert isinstance(app_with_formats.outcome(b"a", attempt=2, **CSV), Reject)


def test_an_outcome_that_a_decoder_raises_is_itself() -> None:
    assert AppWithFormats(Broken(Retry(5))).outcome(b"a", **CSV) == Retry(5)
    app_with_formats = AppWithFormats(Broken(Retry(5)))
    with app_with_formats.client.capture() as published:
        app_with_formats.app.extensions["qconsume"].publish("q", b"raw", **CSV)
    assert published[0].body == b"raw"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (KeyError("id"), "cannot be written as text/csv: 'id'"),
        (Nasty(), "(Nasty, without a readable text)"),
        ("text", "'Broken.encode' returned a 'str', which must be bytes"),
        (None, "'Broken.encode' returned a 'NoneType'"),
    ],
)
def test_whatever_an_encoder_does_wrong_is_a_publish_error(
    fault: t.Any, said: str
) -> None:
    formats = Formats([Broken(fault)])
    with pytest.raises(PublishError) as caught:
        compose("shop", "q", ["a"], formats, content_type="text/csv")
    assert said in str(caught.value)


def test_formats_is_no_option_of_publish() -> None:
    with pytest.raises(PublishError, match="'publish' has no option 'formats'"):
        check_options(t.cast(PublishOptions, {"formats": Formats()}))


# -- accepting -------------------------------------------------------------------------


def test_configuration_says_what_is_accepted() -> None:
    only_json = AppWithFormats(Csv(), config={"accept": ["application/json"]})
    assert "is not accepted" in only_json.outcome(b"a,b", **CSV).reason
    only_csv = AppWithFormats(Csv(), config={"accept": ["Text/CSV"]})
    assert only_csv.outcome(b"a,b", content_type="text/x-csv") == Ack()
    assert only_csv.outcome({}) == Reject(
        "the content type 'application/json' is not accepted; there are: text/csv"
    )
    one_kind = AppWithFormats(Csv(), config={"accept": ["a/b+csv", "c/d"]})
    assert one_kind.outcome(b"a,b", content_type="a/b+csv") == Ack()
    assert one_kind.outcome(b"a,b", content_type="c/d") == Ack()
    assert one_kind.handled == [["a", "b"], b"a,b"]
    assert isinstance(one_kind.outcome(b"a,b", **CSV), Reject)


def test_a_type_of_the_last_suffix_is_read_by_its_format() -> None:
    app_with_formats = AppWithFormats()
    assert (
        app_with_formats.outcome(b"{}", content_type="application/cloudevents+json")
        == Ack()
    )
    assert (
        app_with_formats.outcome(b"{}", content_type="application/a+xml+json") == Ack()
    )
    assert app_with_formats.handled == [{}, {}]


class OwnJson(Csv):
    content_types: t.ClassVar[list[str]] = ["application/json"]


def test_an_own_format_comes_before_those_that_every_app_has() -> None:
    app_with_formats = AppWithFormats(OwnJson())
    assert app_with_formats.outcome(b"a,b", content_type="application/json") == Ack()
    # A body without a content type is JSON, in any format of JSON.
    assert app_with_formats.outcome(b"a,b", content_type="") == Ack()
    assert app_with_formats.outcome(b"{}", content_type="text/json") == Ack()
    assert app_with_formats.handled == [["a", "b"], ["a", "b"], {}]


class BySchema(Csv):
    """A format that decodes by the consumer's schema."""

    def decoder(self, schema: t.Any) -> t.Callable[[Message], t.Any]:
        return lambda message: (schema, super(BySchema, self).decode(message))


def test_a_format_may_read_by_the_consumers_schema() -> None:
    class Columns:
        def load(self, data: t.Any) -> t.Any:
            declared, cells = data
            return declared is schema, cells

    schema = Columns()
    app_with_formats = AppWithFormats(BySchema(), schema=schema)
    assert app_with_formats.outcome(b"a,b", **CSV) == Ack()
    assert app_with_formats.handled == [(True, ["a", "b"])]


# -- what is refused -------------------------------------------------------------------


def typed(*content_types: t.Any) -> Format:
    made = Csv()
    made.content_types = content_types  # type: ignore[misc]
    return made


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Csv, "takes an instance of a subclass of 'Format', not"),
        (5, "takes an instance of a subclass of 'Format', not '5'"),
        (Format(), "'Format.content_types' must be a list of content types, not"),
        (typed(), "'Csv.content_types' must be a list of content types, not '()'"),
        (typed("Text/CSV"), "The content type 'Text/CSV' of 'Csv' must be"),
        (typed("text/csv; a=b"), "in lower case and without parameters, such as"),
        (typed(""), "The content type '' of 'Csv'"),
        (typed(5), "The content type '5' of 'Csv'"),
    ],
)
def test_what_is_no_format_is_refused(given: t.Any, said: str) -> None:
    with pytest.raises(RegistrationError) as caught:
        QConsume().register_format(given)
    assert said in str(caught.value)


def test_a_text_is_no_list_of_content_types() -> None:
    made = Csv()
    made.content_types = "text/csv"  # type: ignore[misc,assignment]
    with pytest.raises(RegistrationError, match="must be a list of content types"):
        QConsume().register_format(made)


def test_two_formats_cannot_share_a_content_type() -> None:
    qconsume = QConsume()
    qconsume.register_format(Csv())
    with pytest.raises(RegistrationError) as caught:
        qconsume.register_format(Broken(None))
    assert "'Broken' and 'Csv' are both registered for the content type 'text/csv'" in (
        str(caught.value)
    )


def test_a_format_that_can_only_read_or_write_says_so() -> None:
    class Half(Format):
        content_types = ("a/b",)

    app_with_formats = AppWithFormats(Half())
    assert app_with_formats.outcome(b"", content_type="a/b") == Reject(
        "the body is no a/b: NotImplementedError: Half cannot decode"
    )
    with pytest.raises(PublishError, match="Half cannot encode"):
        compose("shop", "q", 1, Formats([Half()]), content_type="a/b")
