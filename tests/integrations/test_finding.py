"""The app within what a WSGI server was given."""

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


def make(name: str = "shop") -> flask.Flask:
    app = flask.Flask(name)
    app.config["QCONSUME_BROKER_URL"] = "memory://"
    QConsume(app)
    return app


class Slotted:
    """Middleware by the book."""

    def __init__(self, application: t.Any) -> None:
        self.application = application

    def __call__(self, environ: t.Any, start_response: t.Any) -> t.Any:
        return self.application(environ, start_response)


def closure(wrapped: t.Any) -> t.Any:
    def application(environ: t.Any, start_response: t.Any) -> t.Any:
        return wrapped(environ, start_response)

    return application


def decorated(wrapped: t.Any) -> t.Any:
    @functools.wraps(wrapped)
    def application(environ: t.Any, start_response: t.Any) -> t.Any:
        return wrapped(environ, start_response)

    return application


WRAPPERS: list[t.Callable[[t.Any], t.Any]] = [
    lambda app: app,
    lambda app: app.wsgi_app,
    ProxyFix,
    lambda app: ProxyFix(app.wsgi_app),
    Slotted,
    closure,
    decorated,
    lambda app: closure(Slotted(ProxyFix(app.wsgi_app))),
    lambda app: DispatcherMiddleware(app, {"/x": flask.Flask("without")}),
    lambda app: DispatcherMiddleware(flask.Flask("without"), {"/x": app}),
]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_the_app_is_found_within_middleware(wrap: t.Callable[[t.Any], t.Any]) -> None:
    app = make()
    assert find_app(wrap(app)) is app


def test_middleware_within_the_app_changes_nothing() -> None:
    app = make()
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    assert find_app(app) is app


@pytest.mark.parametrize(
    "wsgi", [flask.Flask("without"), closure(len), object(), None, lambda *args: []]
)
def test_none_is_an_error_that_says_how_to_name_it(wsgi: t.Any) -> None:
    with pytest.raises(WorkerError, match=r"no Flask app .* 'hooks = Hooks\(app="):
        find_app(wsgi)


def test_several_are_an_error_too() -> None:
    both = DispatcherMiddleware(make("one"), {"/two": make("two")})
    with pytest.raises(WorkerError, match="several Flask apps"):
        find_app(both)


def test_a_ring_of_wrappers_ends() -> None:
    ring = Slotted(None)
    ring.application = Slotted(ring)
    with pytest.raises(WorkerError):
        find_app(ring)
