"""Tracing in a worker's process, where gevent must be able to switch greenlets."""

from __future__ import annotations

import importlib
import sys

from flask import Flask

from ..logs import get_logger
from ..observing.trace_setup import KEY
from . import greenlets

logger = get_logger("flask_qconsume.tracing")

#: The package of OpenTelemetry's exporters that send by gRPC.
_GRPC_EXPORTERS = "opentelemetry.exporter.otlp.proto.grpc"


def begin_tracing(app: Flask) -> None:
    """Create spans for what a worker does, if an SDK of OpenTelemetry is set up.

    Call this after the ``before_worker`` hooks, which may set up the SDK.
    """
    tracing = app.extensions.get(KEY)
    if tracing is not None:
        make_grpc_cooperative()
        tracing.begin_worker(greenlets.first_context)


def make_grpc_cooperative() -> None:
    """Initialise gRPC for gevent if an exporter of OpenTelemetry uses it.

    Otherwise, each call that waits for an answer blocks all greenlets: for 3.0 seconds
    with a collector that did not answer. Channels that exist already become
    cooperative, too.
    """
    if _GRPC_EXPORTERS not in sys.modules or _is_cooperative():
        return
    importlib.import_module("grpc.experimental.gevent").init_gevent()
    logger.info("gRPC, which an exporter of OpenTelemetry uses, cooperates with gevent")


def _is_cooperative() -> bool:
    core = importlib.import_module("grpc._cython.cygrpc")
    return bool(getattr(core, "g_gevent_activated", False))
