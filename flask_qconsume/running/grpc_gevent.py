"""Lets gRPC wait by gevent, for exporters of OpenTelemetry that send by gRPC."""

from __future__ import annotations

import importlib
import sys

from ..logs import get_logger
from .patched import is_patched

logger = get_logger("flask_qconsume.tracing")

#: The package of OpenTelemetry's exporters that send by gRPC.
_GRPC_EXPORTERS = "opentelemetry.exporter.otlp.proto.grpc"


def make_grpc_cooperative() -> None:
    """Initialise gRPC for gevent if an exporter of OpenTelemetry uses both.

    Otherwise, each call that waits for an answer blocks all greenlets: for 3.0 seconds
    with a collector that did not answer. Channels that exist already become
    cooperative, too.
    """
    if _GRPC_EXPORTERS not in sys.modules or not is_patched() or _is_cooperative():
        return
    importlib.import_module("grpc.experimental.gevent").init_gevent()
    logger.info("gRPC, which an exporter of OpenTelemetry uses, cooperates with gevent")


def _is_cooperative() -> bool:
    core = importlib.import_module("grpc._cython.cygrpc")
    return bool(getattr(core, "g_gevent_activated", False))
