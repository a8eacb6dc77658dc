"""Middleware that answers the health checks ``/live`` and ``/ready`` in the app.

::

from flask_qconsume.integrations.health import Health

app.wsgi_app = Health(app)

Made for gunicorn's workers, whose only socket is the web server's. The middleware
answers before Flask does, so hooks, sessions and routes of the app do not run. With
``flask qconsume run`` use ``--health`` instead, which also answers while a handler
blocks the process.
"""

from __future__ import annotations

import sys
import typing as t
from collections.abc import Callable
from collections.abc import Iterable

from flask import Flask

from ..running.health.endpoint import make_response
from ..running.health.verdict import Problem
from ..running.health.verdict import Verdict

if t.TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse
    from _typeshed.wsgi import WSGIEnvironment


class Health:
    """Middleware that answers the health checks, and passes on all other requests.

    :param app: The app of the worker; its ``wsgi_app`` gets all other requests.
    :param prefix: Path before ``/live`` and ``/ready``.
    """

    def __init__(self, app: Flask, prefix: str = "") -> None:
        self._app = app
        self._wsgi_app: Callable[..., Iterable[bytes]] = app.wsgi_app
        self._paths = {f"{prefix}/live": "/live", f"{prefix}/ready": "/ready"}

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer one request."""
        path = self._paths.get(environ.get("PATH_INFO", ""))
        if path is None:
            return self._wsgi_app(environ, start_response)
        status, body = make_response(self._get_verdict(), path)
        reason = "OK" if status == 200 else "Service Unavailable"
        headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        start_response(f"{status} {reason}", headers)
        return [body.encode()]

    def _get_verdict(self) -> Verdict:
        # Not imported, since a process without consumers need not have gevent.
        module = sys.modules.get("flask_qconsume.running.worker")
        worker = module.find_worker(self._app) if module is not None else None
        if worker is not None:
            return t.cast(Verdict, worker.watchdog.verdict)
        none = Problem("absent", "", "No consumers run in this process.")
        return Verdict(live=True, ready=False, problems=(none,))
