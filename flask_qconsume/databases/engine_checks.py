"""Warns of engines that do not fit handlers that run at the same time.

The engines are those of Flask-SQLAlchemy or Flask-SQLAlchemy-Lite. In an app without
these extensions, this module does not import SQLAlchemy.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from collections.abc import Mapping

from flask import Flask

from ..text import escape
from ..text import pluralize

if t.TYPE_CHECKING:
    from sqlalchemy import Engine

#: The key of both extensions in ``app.extensions``.
_KEY = "sqlalchemy"


def list_engine_problems(app: Flask, concurrency: int) -> list[str]:
    """Return what to change about the app's engines, in sentences.

    :param concurrency: The number of messages that one process handles at once.
    """
    problems = []
    for engine in _list_engines(app):
        # Without the password, and without options, which may be secret.
        name = f"'{escape(engine.url.set(query={}).render_as_string())}'"
        if text := _find_pool_problem(engine, concurrency):
            problems.append(f"The database {name} {text}")
        if not _is_prepared(engine):
            problems.append(
                f"The database {name} stops all handlers of a process while one of them"
                " waits for SQLite's lock. Call 'prepare_engine(db.engine)' of"
                " 'flask_qconsume.integrations.sqlalchemy' where the app is made."
            )
    return problems


def _list_engines(app: Flask) -> Iterable[Engine]:
    extension = app.extensions.get(_KEY)
    if extension is None:
        return ()
    # The extension has created the engines of all binds in its 'init_app'.
    with app.app_context():
        engines = getattr(extension, "engines", None)
    return list(engines.values()) if isinstance(engines, Mapping) else ()


def _is_prepared(engine: Engine) -> bool:
    from .prepared_engine import is_prepared

    # A connection that all handlers share waits for no lock.
    return is_prepared(engine) or _get_pool_kind(engine) == "StaticPool"


def _get_pool_kind(engine: Engine) -> str:
    return type(engine.pool).__name__


def _find_pool_problem(engine: Engine, concurrency: int) -> str:
    kind = _get_pool_kind(engine)
    handled = f"{pluralize(concurrency, 'message')} at once"
    if concurrency > 1 and kind == "StaticPool":
        return (
            f"has one connection for all handlers ({kind}), and so one transaction:"
            f" with {handled}, a handler commits or rolls back the work of the"
            " others. Use it in tests only, or set 'concurrency' to 1."
        )
    if concurrency > 1 and kind == "SingletonThreadPool":
        return (
            f"has a connection for each greenlet ({kind}), and closes some that are in"
            f" use: with {handled}, handlers fail. Give 'create_engine' the argument"
            " 'poolclass=QueuePool'."
        )
    return _find_shortage(engine.pool, concurrency)


def _find_shortage(pool: t.Any, concurrency: int) -> str:
    """Return what is wrong if a ``QueuePool`` has too few connections."""
    overflow = getattr(pool, "_max_overflow", -1)
    if overflow == -1 or concurrency <= pool.size() + overflow:
        return ""
    return (
        f"has a pool of {pluralize(pool.size() + overflow, 'connection')} (pool_size"
        f" {pool.size()}, max_overflow {overflow}), and one process handles up to"
        f" {pluralize(concurrency, 'message')} at once. A handler that gets no"
        f" connection waits, and fails after {pool.timeout():g} s. Set its"
        f" 'max_overflow' to {concurrency - pool.size()}, in"
        " SQLALCHEMY_ENGINE_OPTIONS, or lower 'concurrency'."
    )
