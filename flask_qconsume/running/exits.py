"""How our processes end: signals and exit codes. Must not import gevent."""

from __future__ import annotations

import signal

#: The exit code of a stop that had to give back work which handlers had begun.
FORCED = 3

#: What asks for a stop.
STOPS = (signal.SIGTERM, signal.SIGINT)

#: Seconds beyond ``QCONSUME_SHUTDOWN_TIMEOUT`` that a stop may need: to settle, to run
#: the ``teardown_worker`` hooks, to close connections.
RESERVE = 15.0
