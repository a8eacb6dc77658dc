"""Configuration module for gunicorn that runs consumers in its workers.

::

    gunicorn -k gevent -c python:flask_qconsume.integrations.gunicorn "shop:app()"

The module contains hooks only. To use a configuration file of your own, import them::

    from flask_qconsume.integrations.gunicorn import (
        on_exit, on_starting, post_worker_init, worker_exit
    )

or, to choose the app or some of its consumers::

    from flask_qconsume.integrations.gunicorn import Hooks

    hooks = Hooks(app=lambda wsgi: wsgi.inner, names=["orders.bill"])
    on_exit, on_starting = hooks.on_exit, hooks.on_starting
    post_worker_init = hooks.post_worker_init
    worker_exit = hooks.worker_exit

Each worker process consumes messages and serves requests. Gunicorn imports this in its
master, which gevent has not patched, so the module must not import gevent there.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import typing as t
from collections.abc import Callable
from collections.abc import Sequence

from flask import Flask

from ..background_thread import BackgroundThread
from ..errors import BrokerError
from ..errors import QConsumeError
from ..errors import UnsupportedByBroker
from ..errors import WorkerError
from ..first_use import ForkGuard
from ..log_handlers import SharedHandlers
from ..log_handlers import add_handlers
from ..log_handlers import log_all_to
from ..log_handlers import make_json_formatter
from ..log_handlers import use_app_logging
from ..observing.metrics import get_metrics
from ..observing.private_folder import offer_private_folder
from ..observing.private_folder import remove_private_folder
from ..running.patched import is_patched
from ..text import escape
from .finding import find_app

if t.TYPE_CHECKING:
    from ..running.worker import Worker

#: Seconds to settle messages and to run the last hooks, before gunicorn kills the
#: worker.
_RESERVE_SECONDS = 5.0

#: Seconds between two checks whether gunicorn is stopping the worker.
_STOP_CHECK_INTERVAL_SECONDS = 0.1

#: Exit code of a worker that cannot start, after which gunicorn stops as a whole.
_BOOT_ERROR = 3

#: True if gevent had patched the process when it last forked; a worker inherits the
#: value from gunicorn's master.
_patched_before_fork = False


def _remember_patched() -> None:
    global _patched_before_fork
    _patched_before_fork = is_patched()


os.register_at_fork(before=_remember_patched)


class Hooks:
    """Gunicorn's hooks that start and stop an app's consumers in each worker.

    :param app: Function that finds the Flask app in gunicorn's WSGI callable. The
        default searches inside middleware as well.
    :param names: The consumers to run. The default is all consumers that are enabled.
    """

    def __init__(
        self, *, app: Callable[[t.Any], Flask] = find_app, names: Sequence[str] = ()
    ) -> None:
        self._find = app
        self._names = names
        self._hosted: _HostedWorker | None = None

    def on_starting(self, server: t.Any) -> None:
        """Name a folder in which the workers sum up their metrics."""
        offer_private_folder()

    def on_exit(self, server: t.Any) -> None:
        """Remove the folder of the metrics, unless a new master uses it."""
        remove_private_folder()

    def post_worker_init(self, worker: t.Any) -> None:
        """Start to consume in a gunicorn worker, which has loaded the app."""
        try:
            _check_options(worker)
            app = self._find(worker.wsgi)
            if not use_app_logging(app):
                _log_to_gunicorn(app, worker.log)
            _check_metrics(app, worker)
            hosted = _HostedWorker(app, self._names, worker)
            hosted.start()
        except QConsumeError as error:
            worker.log.error("Cannot run the consumers: %s", error)
            sys.exit(_BOOT_ERROR)
        self._hosted = hosted
        # For configurations without the hook 'worker_exit'.
        atexit.register(hosted.stop)

    def worker_exit(self, server: t.Any, worker: t.Any) -> None:
        """Stop the consumers within the time that gunicorn leaves its worker."""
        if self._hosted is not None:
            self._hosted.stop()


class _HostedWorker:
    """The worker for the app's consumers in one of gunicorn's workers."""

    def __init__(self, app: Flask, names: Sequence[str], worker: t.Any) -> None:
        from ..running.worker import Worker

        self._host = worker
        self._fork_guard = ForkGuard()
        self._make: Callable[[], Worker] = lambda: Worker(app, names, beside_web=True)
        self._worker = self._make()
        self._asked_at = 0.0
        self._over = False

    def start(self) -> None:
        """Begin to consume; if the broker refuses, try again later.

        The gunicorn worker serves its requests meanwhile.

        :raises QConsumeError: if the configuration is wrong.
        """
        _spawn(self._watch)
        try:
            self._worker.start()
        except UnsupportedByBroker:
            raise
        except BrokerError as error:
            self._retry_later(error)
        except WorkerError:
            # Gunicorn has stopped its worker while it started: no consumer runs.
            if not self._asked_at:
                raise

    def stop(self) -> None:
        """Stop the consumers, in the time that gunicorn allows after its signal.

        Later calls do nothing.
        """
        if self._over or self._fork_guard.is_forked:
            return
        self._over = True
        self._stop_fetching()
        self._worker.stop(self._compute_timeout())

    def _watch(self) -> None:
        """Stop fetching messages as soon as gunicorn asks its worker to stop.

        Gunicorn calls ``worker_exit`` only after its last requests have ended. A
        handler that began during these requests might not end in time.
        """
        while self._host.alive:
            time.sleep(_STOP_CHECK_INTERVAL_SECONDS)
        self._stop_fetching()

    def _stop_fetching(self) -> None:
        self._asked_at = self._asked_at or time.monotonic()
        self._worker.quiet()

    def _compute_timeout(self) -> float:
        config = self._host.cfg
        limit = min(
            self._worker.settings.shutdown_timeout,
            config.graceful_timeout - _RESERVE_SECONDS,
        )
        seconds_left: float = self._asked_at + limit - time.monotonic()
        # Gunicorn's master kills a worker that has not notified it for 'timeout'
        # seconds. The worker stops notifying before it calls 'worker_exit'.
        if config.timeout:
            seconds_left = min(seconds_left, config.timeout - _RESERVE_SECONDS)
        return max(0.0, seconds_left)

    def _retry_later(self, error: BrokerError) -> None:
        from ..running.backoff import Backoff

        self._host.log.error(
            "The consumers cannot run yet, trying again: %s", escape(error)
        )
        _spawn(self._try_again, Backoff())

    def _try_again(self, backoff: t.Any) -> None:
        while True:
            time.sleep(backoff.next())
            if not self._host.alive or self._over:
                return
            self._worker = self._make()
            try:
                self._worker.start()
                return
            except BrokerError as error:
                self._host.log.error("The consumers cannot run yet: %s", error)


def _log_to_gunicorn(app: Flask, log: t.Any) -> None:
    """Send log lines to the handlers of gunicorn's error log."""
    error_log = log.error_log
    formatter = make_json_formatter(app)
    if formatter is None:
        add_handlers(error_log.handlers, error_log.level)
        return
    for handler in (*error_log.handlers, *log.access_log.handlers):
        # Gunicorn's own; a logging configuration of the user names its formatters.
        if getattr(handler, "_gunicorn", False):
            handler.setFormatter(formatter)
    log_all_to(SharedHandlers(error_log.handlers), app)


def _spawn(function: Callable[..., t.Any], *args: t.Any) -> None:
    # The thread is a greenlet, since gunicorn's gevent worker has patched threads.
    BackgroundThread(lambda: function(*args)).start()


def _check_metrics(app: Flask, worker: t.Any) -> None:
    """Warn if each worker would show its own counts only."""
    metrics = get_metrics(app)
    if metrics is not None and metrics.folder is None and worker.cfg.workers > 1:
        worker.log.warning(
            "Each worker shows its own metrics only. To show their sums, add the hooks"
            " 'on_starting' and 'on_exit' of 'flask_qconsume.integrations.gunicorn' to"
            " your gunicorn file, or set 'QCONSUME_METRICS' to the path of a folder."
        )


def _check_options(worker: t.Any) -> None:
    """Refuse options of gunicorn under which consumers would not work.

    :raises WorkerError: if the worker's kind is not 'gevent', or the app was preloaded.
    """
    if not is_patched():
        raise WorkerError(
            f"Consumers need gunicorn's gevent workers, and this is a"
            f" '{type(worker).__name__}'. Start it by 'gunicorn -k gevent …'."
        )
    if worker.cfg.preload_app and not _patched_before_fork:
        raise WorkerError(
            "'--preload' has imported the app in gunicorn's master before gevent"
            " patched it, so a handler that waits could block all others. Leave out"
            " '--preload', or put 'from gevent import monkey; monkey.patch_all()' at"
            " the very top of your gunicorn file."
        )


_hooks = Hooks()
on_exit = _hooks.on_exit
on_starting = _hooks.on_starting
post_worker_init = _hooks.post_worker_init
worker_exit = _hooks.worker_exit
