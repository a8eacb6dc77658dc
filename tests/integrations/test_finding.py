"""Search for the app in a WSGI callable."""

from __future__ import annotations

import functools
import typing as t

import flask
import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_qconsume import QConsume
from flask_qconsume import WorkerError
from flask_qconsume.integrations.finding import find_app


def create_app(name: str = "shop") -> flask.Flask:
    app = flask.Flask(name)
    app.config["QCONSUME_BROKER_URL"] = "memory://"
    QConsume(app)
    return app


class Middleware:
    """Middleware as a class, with the app in an attribute."""

    def __init__(self, application: t.Any) -> None:
        self.application = application

    def __call__(self, environ: t.Any, start_response: t.Any) -> t.Any:
        return self.application(environ, start_response)


def wrap_in_closure(wrapped: t.Any) -> t.Any:
    def application(environ: t.Any, start_response: t.Any) -> t.Any:
        return wrapped(environ, start_response)

    return application


def wrap_with_functools(wrapped: t.Any) -> t.Any:
    @functools.wraps(wrapped)
    def application(environ: t.Any, start_response: t.Any) -> t.Any:
        return wrapped(environ, start_response)

    return application


WRAPPERS: list[t.Callable[[t.Any], t.Any]] = [
    lambda app: app,
    lambda app: app.wsgi_app,
    ProxyFix,
    lambda app: ProxyFix(app.wsgi_app),
    Middleware,
    wrap_in_closure,
    wrap_with_functools,
    lambda app: wrap_in_closure(Middleware(ProxyFix(app.wsgi_app))),
    lambda app: DispatcherMiddleware(app, {"/x": flask.Flask("without")}),
    lambda app: DispatcherMiddleware(flask.Flask("without"), {"/x": app}),
]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_the_app_is_found_within_middleware(wrap: t.Callable[[t.Any], t.Any]) -> None:
    app = create_app()
    assert find_app(wrap(app)) is app


def test_middleware_within_the_app_changes_nothing() -> None:
    app = create_app()
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    assert find_app(app) is app


@pytest.mark.parametrize(
    "wsgi",
    [flask.Flask("without"), wrap_in_closure(len), object(), None, lambda *args: []],
)
def test_a_callable_without_an_app_is_an_error(wsgi: t.Any) -> None:
    with pytest.raises(WorkerError, match=r"no Flask app .* 'hooks = Hooks\(app="):
        find_app(wsgi)


def test_several_apps_are_an_error() -> None:
    both = DispatcherMiddleware(create_app("one"), {"/two": create_app("two")})
    with pytest.raises(WorkerError, match="several Flask apps"):
        find_app(both)


def test_the_search_in_a_cycle_of_wrappers_ends() -> None:
    ring = Middleware(None)
    ring.application = Middleware(ring)
    with pytest.raises(WorkerError):
        find_app(ring)
