"""A worker warns if the app's engines do not fit what it handles at once."""

from __future__ import annotations

import logging
import typing as t

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_qconsume import QConsume
from flask_qconsume.databases.engine_checks import list_engine_problems
from flask_qconsume.integrations.sqlalchemy import prepare_engine

from ..apps import make_app
from ..cli.commands import invoke
from ..harness.scripts import run_script
from ..running.conftest import AppWithWorkers
from ..running.conftest import worker_app as worker_app


def add_databases(app: Flask, **options: t.Any) -> SQLAlchemy:
    """Give an app Flask-SQLAlchemy, with prepared engines."""
    app.config.setdefault("SQLALCHEMY_DATABASE_URI", "sqlite:////srv/shop.db")
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = options
    db = SQLAlchemy(app)
    with app.app_context():
        for engine in db.engines.values():
            prepare_engine(engine)
    return db


def test_a_small_pool_is_told_with_the_numbers() -> None:
    app = make_app()
    _ = add_databases(app)
    assert list_engine_problems(app, 15) == []
    (problem,) = list_engine_problems(app, 40)
    assert "has a pool of 15 connections (pool_size 5, max_overflow 10)" in problem
    assert "one process handles up to 40 messages at once" in problem
    assert "fails after 30 s. Set its 'max_overflow' to 35" in problem


def test_the_remedy_is_enough() -> None:
    app = make_app()
    _ = add_databases(app, max_overflow=35)
    assert list_engine_problems(app, 40) == []
    (problem,) = list_engine_problems(app, 41)
    assert "has a pool of 40 connections" in problem


@pytest.mark.parametrize(
    "options",
    [{"max_overflow": -1}, {"pool_size": 0}, {"poolclass": sa.pool.NullPool}],
)
def test_a_pool_without_a_limit_is_enough(options: dict[str, t.Any]) -> None:
    app = make_app()
    _ = add_databases(app, **options)
    assert list_engine_problems(app, 1000) == []


def test_each_bind_is_told_and_no_password() -> None:
    app = make_app()
    app.config["SQLALCHEMY_BINDS"] = {
        "users": {"url": "sqlite:////srv/users.db", "max_overflow": 100},
        "stock": "postgresql+psycopg://shop:secret@127.0.0.1/stock?passfile=secret",
    }
    _ = add_databases(app)
    first, second = sorted(list_engine_problems(app, 40))
    assert "'postgresql+psycopg://shop:***@127.0.0.1/stock'" in first
    assert "shop.db" in second


@pytest.mark.parametrize(
    ("url", "pool", "words"),
    [
        ("sqlite://", sa.pool.StaticPool, "one connection for all handlers"),
        ("sqlite:////srv/shop.db", sa.pool.SingletonThreadPool, "for each greenlet"),
    ],
)
def test_a_pool_that_fits_no_greenlets_is_told(
    url: str, pool: type[sa.pool.Pool], words: str
) -> None:
    app = make_app()
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    _ = add_databases(app, poolclass=pool)
    (problem,) = list_engine_problems(app, 2)
    assert words in problem
    assert list_engine_problems(app, 1) == []


def test_an_engine_on_sqlite_that_is_not_prepared_is_told() -> None:
    app = make_app()
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:////srv/shop.db"
    db = SQLAlchemy(app)
    (problem,) = list_engine_problems(app, 1)
    assert "Call 'prepare_engine(db.engine)'" in problem
    with app.app_context():
        prepare_engine(db.engine)
    assert list_engine_problems(app, 1) == []


def test_a_database_in_memory_need_not_be_prepared() -> None:
    app = make_app()
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    SQLAlchemy(app)
    assert list_engine_problems(app, 1) == []


def test_an_app_without_an_extension_has_no_problems() -> None:
    assert list_engine_problems(make_app(), 1000) == []


def test_another_extension_of_that_name_is_left_alone() -> None:
    app = make_app()
    app.extensions["sqlalchemy"] = object()
    assert list_engine_problems(app, 1000) == []


def test_a_worker_warns_of_its_consumers_together(
    worker_app: AppWithWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        worker_app.qconsume.add_consumer(name, print, name=name, concurrency=8)
    _ = add_databases(worker_app.app)
    with caplog.at_level(logging.WARNING, "flask_qconsume.worker"):
        worker_app.start("a").stop()
        assert "messages at once" not in caplog.text
        worker_app.start().stop()
    # Blueprints of other tests may be there still, of which the worker warns, too.
    (message,) = [each for each in caplog.messages if "messages at once" in each]
    assert "up to 16 messages at once" in message


def test_plan_shows_it() -> None:
    qconsume = QConsume()
    qconsume.add_consumer("a", print, name="a", concurrency=30)
    qconsume.add_consumer("b", print, name="b", concurrency=30)
    app = make_app(qconsume, consumers={"b": {"enabled": False}})
    _ = add_databases(app)
    output = " ".join(invoke(app, "plan").output.split())
    assert "Databases of the app warning The database 'sqlite:///" in output
    assert "up to 30 messages at once" in output


@pytest.mark.process
def test_a_worker_without_a_database_imports_no_sqlalchemy() -> None:
    done = run_script(
        "import sys\n"
        "from tests.apps import make_app\n"
        "import flask_qconsume.running.worker\n"
        "from flask_qconsume.databases.engine_checks import list_engine_problems\n"
        "list_engine_problems(make_app(), 1000)\n"
        "print([name for name in sys.modules if 'sqlalchemy' in name])"
    )
    assert done.stdout.strip() == "[]", done.stderr
