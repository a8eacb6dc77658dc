"""Consumers in gunicorn's workers: a ready configuration module.

::

    gunicorn -k gevent -c python:flask_qconsume.integrations.gunicorn "shop:app()"

It has nothing but hooks. In a configuration file of your own, import them::

    from flask_qconsume.integrations.gunicorn import post_worker_init, worker_exit

or, to say which app and which of its consumers::

    from flask_qconsume.integrations.gunicorn import Hooks

    hooks = Hooks(app=lambda wsgi: wsgi.inner, names=["orders.bill"])
    post_worker_init = hooks.post_worker_init
    worker_exit = hooks.worker_exit

Each worker process consumes beside its requests. Gunicorn imports this in its master,
which is not patched: nothing here may import gevent before a worker has been.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import typing as t
from collections.abc import Callable
from collections.abc import Sequence

from flask import Flask

from ..errors import BrokerError
from ..errors import QConsumeError
from ..errors import UnsupportedByBroker
from ..errors import WorkerError
from ..log_handlers import add_handlers
from ..log_handlers import use_app_logging
from ..running.patched import is_patched
from ..text import escape
from .finding import find_app

if t.TYPE_CHECKING:
    from ..running.worker import Worker

#: Seconds before gunicorn would kill a worker: to settle and to run the last hooks.
_RESERVE = 5.0

#: Seconds between two looks whether gunicorn wants its worker to end.
_LOOK = 0.1

#: Gunicorn's exit code for a worker that cannot start: it then stops altogether.
_BOOT_ERROR = 3

#: Whether the process was patched when it last forked: the master, in a worker.
_patched_before_fork = False


def _note() -> None:
    global _patched_before_fork
    _patched_before_fork = is_patched()


os.register_at_fork(before=_note)


class Hooks:
    """Gunicorn's hooks for one app.

    :param app: Finds the Flask app in the WSGI callable that gunicorn serves; it looks
        through middleware unless given.
    :param names: The consumers to run; all that are enabled unless given.
    """

    def __init__(
        self, *, app: Callable[[t.Any], Flask] = find_app, names: Sequence[str] = ()
    ) -> None:
        self._find = app
        self._names = names
        self._hosted: _Hosted | None = None

    def post_worker_init(self, worker: t.Any) -> None:
        """Begin to consume, in a worker that has loaded the app."""
        try:
            _check(worker)
            app = self._find(worker.wsgi)
            if not use_app_logging(app):
                gunicorns = worker.log.error_log
                add_handlers(gunicorns.handlers, gunicorns.level)
            hosted = _Hosted(app, self._names, worker)
            hosted.start()
        except QConsumeError as error:
            worker.log.error("Cannot run the consumers: %s", error)
            sys.exit(_BOOT_ERROR)
        self._hosted = hosted
        # For those who did not take the other hook.
        atexit.register(hosted.stop)

    def worker_exit(self, server: t.Any, worker: t.Any) -> None:
        """Stop, losing nothing, in what is left of gunicorn's time."""
        if self._hosted is not None:
            self._hosted.stop()


class _Hosted:
    """An app's consumers within one of gunicorn's workers."""

    def __init__(self, app: Flask, names: Sequence[str], worker: t.Any) -> None:
        from ..running.worker import Worker

        self._host = worker
        self._pid = os.getpid()
        self._make: Callable[[], Worker] = lambda: Worker(app, names, beside_web=True)
        self._worker = self._make()
        self._asked_at = 0.0
        self._over = False

    def start(self) -> None:
        """Begin to consume; a broker that refuses us is asked again later.

        The web requests are worth serving meanwhile.

        :raises QConsumeError: if it is our own configuration that is wrong.
        """
        _spawn(self._watch)
        try:
            self._worker.start()
        except UnsupportedByBroker:
            raise
        except BrokerError as error:
            self._refused(error)
        except WorkerError:
            # A worker that gunicorn ends while it begins: there is nothing to stop.
            if not self._asked_at:
                raise

    def stop(self) -> None:
        """Stop, once; within the time that gunicorn gives, counted from its signal."""
        if self._over or os.getpid() != self._pid:
            return
        self._over = True
        self._quiet()
        self._worker.stop(self._left())

    def _watch(self) -> None:
        """Fetch no more as soon as gunicorn's worker is to end.

        Gunicorn finishes its requests before it calls us, and those are many seconds in
        which we could begin what we cannot end.
        """
        while self._host.alive:
            time.sleep(_LOOK)
        self._quiet()

    def _quiet(self) -> None:
        self._asked_at = self._asked_at or time.monotonic()
        self._worker.quiet()

    def _left(self) -> float:
        """Seconds to wait for handlers."""
        config = self._host.cfg
        limit = min(
            self._worker.settings.shutdown_timeout, config.graceful_timeout - _RESERVE
        )
        left: float = self._asked_at + limit - time.monotonic()
        # The master takes a worker for dead whose heart has not beaten for 'timeout',
        # and it beats no more by the time that we are called.
        if config.timeout:
            left = min(left, config.timeout - _RESERVE)
        return max(0.0, left)

    def _refused(self, error: BrokerError) -> None:
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


def _spawn(function: Callable[..., t.Any], *args: t.Any) -> None:
    # A greenlet: in a worker of gunicorn's kind 'gevent' threads are patched.
    threading.Thread(target=function, args=args, daemon=True).start()


def _check(worker: t.Any) -> None:
    """Refuse what would not work, or not always.

    :raises WorkerError: if this is no worker of the kind 'gevent', or was preloaded.
    """
    if not is_patched():
        raise WorkerError(
            f"Consumers need gunicorn's gevent workers, and this is a"
            f" '{type(worker).__name__}'. Start it by 'gunicorn -k gevent …'."
        )
    if worker.cfg.preload_app and not _patched_before_fork:
        raise WorkerError(
            "'--preload' has imported the app in gunicorn's master, before gevent"
            " patched anything, so a handler that waits might stop all others. Leave"
            " '--preload' out, or put 'from gevent import monkey; monkey.patch_all()'"
            " at the very top of your gunicorn file."
        )


_hooks = Hooks()
post_worker_init = _hooks.post_worker_init
worker_exit = _hooks.worker_exit
