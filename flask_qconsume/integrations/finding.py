"""Finds the Flask app in a WSGI callable, also inside middleware.

Knows no server.
"""

from __future__ import annotations

import types
import typing as t
from collections.abc import Iterable

from flask import Flask

from ..errors import WorkerError
from ..text import quote

#: How many layers of middleware around an app are searched.
_MAX_WRAPPERS = 10


def find_app(wsgi: t.Any) -> Flask:
    """Return the Flask app, with a ``QConsume``, that a WSGI callable contains.

    The callable is the app itself, or middleware around it.

    :raises WorkerError: if there is no such app, or more than one.
    """
    apps = [app for app in _list_apps(wsgi) if "qconsume" in app.extensions]
    if len(apps) == 1:
        return apps[0]
    what = "no Flask app with a QConsume" if not apps else "several Flask apps"
    raise WorkerError(
        f"Found {what} in the WSGI callable {quote(wsgi)}, so it is not clear which"
        " consumers to run. Name the app in your gunicorn file: 'hooks ="
        " Hooks(app=lambda wsgi: …)', with 'post_worker_init = hooks.post_worker_init'"
        " and 'worker_exit = hooks.worker_exit'."
    )


def _list_apps(wsgi: t.Any) -> list[Flask]:
    layer, seen_objects, apps = [wsgi], {id(wsgi): wsgi}, list[Flask]()
    for _ in range(_MAX_WRAPPERS):
        apps += [wrapper for wrapper in layer if isinstance(wrapper, Flask)]
        inner = {
            id(part): part
            for wrapper in layer
            if not isinstance(wrapper, Flask)
            for part in _iterate_parts(wrapper)
            if id(part) not in seen_objects
        }
        # The objects are kept, since an id is unique only while its object lives.
        seen_objects |= inner
        layer = list(inner.values())
    return apps


def _iterate_parts(wrapper: t.Any) -> Iterable[t.Any]:
    if isinstance(wrapper, types.MethodType):
        yield wrapper.__self__
    for cell in getattr(wrapper, "__closure__", None) or ():
        yield from _iterate_cell(cell)
    yield from filter(callable, _get_attributes(wrapper).values())
    mounts = _get_attributes(wrapper).get("mounts")
    if isinstance(mounts, dict):
        yield from mounts.values()


def _iterate_cell(cell: types.CellType) -> Iterable[t.Any]:
    try:
        if callable(cell.cell_contents):
            yield cell.cell_contents
    except ValueError:
        return  # Not assigned yet.


def _get_attributes(wrapper: t.Any) -> dict[str, t.Any]:
    if isinstance(wrapper, (type, types.ModuleType)):
        return {}
    return dict(getattr(wrapper, "__dict__", None) or {})
