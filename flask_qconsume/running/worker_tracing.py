"""Tracing in a worker's process, where gevent must be able to switch greenlets."""

from __future__ import annotations

from flask import Flask

from ..observing.trace_setup import KEY
from . import greenlets
from .grpc_gevent import make_grpc_cooperative


def begin_tracing(app: Flask) -> None:
    """Create spans for what a worker does, if an SDK of OpenTelemetry is set up.

    Call this after the ``before_worker`` hooks, which may set up the SDK.
    """
    tracing = app.extensions.get(KEY)
    if tracing is not None:
        make_grpc_cooperative()
        tracing.begin_worker(greenlets.first_context)
