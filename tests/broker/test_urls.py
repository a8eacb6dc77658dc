"""URLs of brokers: a URL that cannot be parsed is refused when it is configured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from flask_qconsume.broker.topology import Topology
from flask_qconsume.broker.urls import _BROKERS
from flask_qconsume.broker.urls import check_url
from flask_qconsume.broker.urls import open_broker
from flask_qconsume.errors import ConfigurationError

from ..brokers.redis.tools import settings


@pytest.mark.parametrize(
    "url",
    [
        "amqp://localhost:secret",
        "amqp://guest:secret\udcff@localhost",
        "kafka://secret\udcff",
        "amqp://localhost:99999",
        "amqp://guest:secret[1]@localhost",
        "amqp://localhost//;amqp://[::1",
        "kafka://[secret",
        "redis-streams+cluster://[secret[::1]",
        "redis://:sec[ret@localhost",
    ],
)
def test_an_unreadable_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        check_url(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        "amqp://a:5672//;amqp://b//",
        "kafka://a:1,b:2",
        "sentinel://a:1;sentinel://b:2",
        "redis-streams+cluster://a,b:1",
        "redis+socket:///run/redis.sock",
        "amqp://guest:%5B@[::1]:5672//",
        "sqlite:///user@host/queue.db",
        "sqlite+pysqlite:///queue.db",
        "postgresql+psycopg://user:%40@host:5432/shop",
        "postgresql:///shop?host=/run/postgresql",
        "memory://",
    ],
)
def test_a_url_of_any_other_kind_is_not(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("sqlite3:///queue.db", "sqlite"),
        ("postgre://host/shop", "postgres"),
        ("sqla+sqlite:///queue.db", "sqlite"),
        ("sqla+postgresql://host/shop", "postgresql"),
        ("rediss-stream://host", "rediss-streams"),
    ],
)
def test_an_unknown_scheme_is_refused_with_the_one_that_was_meant(
    url: str, meant: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"; did you mean '{meant}'"):
        check_url(url)


def test_a_scheme_that_resembles_none_is_refused_with_all_of_them() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_url("mysql://user:secret@host/shop")
    assert str(caught.value).startswith(
        "'QCONSUME_BROKER_URL' begins with 'mysql', which means no known broker. Use"
        " one of: amqp,"
    )


@pytest.mark.parametrize(
    ("url", "driver", "advice"),
    [
        ("postgresql+asyncpg://user:secret@host/shop", "psycopg", "postgresql://…"),
        ("postgres+psycopg2://user:secret@host/shop", "psycopg", "postgres://…"),
        ("sqlite+aiosqlite:///secret.db", "pysqlite", "sqlite://…"),
    ],
)
def test_another_driver_of_a_database_is_refused(
    url: str, driver: str, advice: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"the driver '{driver}'") as caught:
        check_url(url)
    assert str(caught.value).endswith(f"Write '{advice}'.")
    assert "secret" not in str(caught.value)


def test_an_option_in_the_url_that_makes_no_sense_is_refused() -> None:
    url = "amqp://127.0.0.1:1//?heartbeat=often"
    with pytest.raises(ConfigurationError, match="convert string to float: 'often'"):
        open_broker(settings(url), Topology("shop", ()))


parts = st.sampled_from(
    ["host", "[::1]", "[", "]", ":1", ":x", "/0", "@", "%zz", "?a=b", ";", ",", "//"]
)
urls = st.builds(
    "{}{}{}".format,
    st.sampled_from(sorted(_BROKERS)),
    st.sampled_from(["://", ":", "", "+socket://", "+cluster://"]),
    st.lists(parts | st.text(max_size=5), max_size=6).map("".join),
)


@hypothesis(derandomize=True, deadline=None, database=None)
@given(urls)
def test_any_url_opens_a_broker_or_is_refused(url: str) -> None:
    try:
        broker = open_broker(settings(url), Topology("shop", ()))
    except ConfigurationError as error:
        assert str(error).isprintable()
    else:
        broker.close()
