"""The URL and the transport options of PostgreSQL."""

from __future__ import annotations

import typing as t

import pytest

from flask_qconsume.brokers.sql.postgresql.options import PostgresOptions
from flask_qconsume.brokers.sql.postgresql.options import read_options
from flask_qconsume.errors import ConfigurationError
from flask_qconsume.settings import Settings

URL = "postgresql://shop:secret@db.example/queues"


def read(url: str = URL, **options: t.Any) -> PostgresOptions:
    config = {"QCONSUME_BROKER_URL": url, "QCONSUME_TRANSPORT_OPTIONS": options}
    return read_options(Settings.from_config(config))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_all_names_of_the_scheme_mean_the_same(scheme: str) -> None:
    found = read(URL.replace("postgresql", scheme)).parameters
    names = ("host", "dbname", "user", "password")
    assert [found[n] for n in names] == ["db.example", "queues", "shop", "secret"]


def test_several_hosts_and_parameters_of_libpq_are_passed_on() -> None:
    url = "postgresql://a:1,b:2/x?sslmode=require&connect_timeout=9"
    found = read(f"{url}&target_session_attrs=read-write").parameters
    assert (found["host"], found["port"]) == ("a,b", "1,2")
    assert (found["sslmode"], found["connect_timeout"]) == ("require", "9")
    assert found["target_session_attrs"] == "read-write"
    assert found["keepalives"] == 1


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://shop:sec%ret@db/queues", "form postgresql://user:password@"),
        (f"{URL}?sslmod=require", "libpq has no parameter 'sslmod'"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_showing_it(
    url: str, why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why) as refused:
        read(url)
    assert "sec" not in str(refused.value)
    assert refused.value.__context__ is None


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"pool_sise": 3}, "not an option for PostgreSQL; did you mean 'pool_size'"),
        ({"pool_size": "3"}, "'pool_size' in .* must be a whole number, not '3'"),
        ({"pool_size": True}, "'pool_size' in .* must be a whole number"),
        ({"pool_size": 0}, "must be from 1 to 100, not 0"),
        ({"transaction_pooling": "yes"}, "must be true or false, not 'yes'"),
        ({"schema": "a", "transaction_pooling": True}, "exclude each other"),
    ],
)
def test_an_unknown_or_wrong_option_is_refused(
    options: dict[str, t.Any], why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why):
        read(**options)


def test_a_schema_is_looked_up_first_and_may_have_any_name() -> None:
    assert read(schema='a"b').session["search_path"] == '"a""b"'
    assert "search_path" not in read().session


def test_a_pooler_gets_no_parameters_of_a_session() -> None:
    assert read(transaction_pooling=True).session == {}


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(read())
