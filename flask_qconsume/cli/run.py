"""Command ``flask qconsume run``: a worker alone, or beside a web server."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import time
import typing as t
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import click
from flask import Flask
from flask.cli import ScriptInfo
from flask.helpers import get_debug_flag

from ..broker.checks import explain_in_process_broker
from ..errors import UnsupportedByBroker
from ..extension import get_app_consumers
from ..log_handlers import TextFormatter
from ..log_handlers import log_all_to
from ..log_handlers import make_json_formatter
from ..log_handlers import use_app_logging
from ..logs import get_logger
from ..observing.private_folder import offer_private_folder
from ..observing.private_folder import remove_private_folder
from ..observing.prometheus import get_exposition
from ..registration.registry import find_consumer
from ..running.health.reporters import Systemd
from ..running.patched import is_patched
from .context import clean_errors
from .durations import Duration
from .gevent_patching import build_patched_command
from .gevent_patching import build_same_command
from .gevent_patching import ensure_patched
from .health_reporters import HealthReporters
from .streams import open_missing_streams

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..broker.base import Broker
    from ..running.health.endpoint import Scrape
    from ..running.process.child_process import ChildLimits
    from ..running.process.parent import Parent
    from ..running.process.stop_signals import StopSignals
    from ..running.process.supervisor import Supervisor
    from ..running.web import WebServer
    from ..running.worker import Worker
    from ..settings import Settings

logger = get_logger("flask_qconsume.run")

#: Least value of ``--kill-blocked``.
_MIN_KILL_BLOCKED_SECONDS = 5.0


class RunOptions(t.NamedTuple):
    """The options of the command ``run``."""

    names: tuple[str, ...]
    web: str | None
    reexec: bool
    health: str | None
    health_file: str | None
    kill_blocked: float | None = None
    debugger: bool = False


@click.command()
@click.argument("names", nargs=-1)
@click.option(
    "--web",
    metavar="HOST:PORT",
    help="Serve the app over HTTP, too, in the same process.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    metavar="N",
    help="Run in N processes, and replace a process that ends.",
)
@click.option(
    "--kill-blocked",
    type=Duration(),
    metavar="SECONDS",
    help="With --processes: kill a process that has been blocked for SECONDS.",
)
@click.option(
    "--health",
    metavar="HOST:PORT",
    help="Answer the health checks /live and /ready, and /metrics, at this address.",
)
@click.option(
    "--health-file",
    metavar="PATH",
    help="Write this file every second while the worker is live.",
)
@click.option(
    "--reload/--no-reload",
    default=None,
    help="Restart when code changes. Default in debug mode with a single process.",
)
@click.option(
    "--debugger/--no-debugger",
    default=None,
    help="Show errors of views (with --web) in Werkzeug's debugger. Default in debug"
    " mode.",
)
@click.option(
    "--reexec/--no-reexec",
    default=True,
    help="Restart in an interpreter that gevent has patched (the default).",
)
@click.pass_context
def run(
    ctx: click.Context,
    names: tuple[str, ...],
    web: str | None,
    processes: int | None,
    kill_blocked: float | None,
    reload: bool | None,
    debugger: bool | None,
    reexec: bool,
    health: str | None,
    health_file: str | None,
) -> None:
    """Consume messages until SIGTERM, SIGINT, SIGHUP or SIGQUIT.

    NAMES are the consumers to run, such as orders.bill. The default is all consumers
    that are enabled.

    The exit code is 0 after a clean stop, and 3 after a stop that had to interrupt
    handlers and return their messages to the broker.
    """
    open_missing_streams()
    for option, is_given in {"--reload": reload, "--debugger": debugger}.items():
        if processes and is_given:
            raise click.UsageError(
                f"{option} works with a single process only: leave out --processes."
            )
    # The same defaults as those of 'flask run'.
    debug = get_debug_flag() and not processes
    reload = debug if reload is None else reload
    if kill_blocked is not None:
        _check_kill_blocked(kill_blocked, processes)
    load = ctx.ensure_object(ScriptInfo).load_app
    options = RunOptions(
        names,
        web,
        reexec,
        health,
        health_file,
        kill_blocked,
        debugger=debug if debugger is None else debugger,
    )
    with clean_errors(), _log_broken_pipes():
        if processes and not _is_child():
            code = _supervise(_load_app(load), options, processes)
        elif reload and not _is_child():
            code = _supervise_reloading(options)
        else:
            if processes:  # The parent answers the health checks for all children.
                options = options._replace(health=None, health_file=None)
            code = _run_here(load, options, reload)
    sys.exit(code)


@contextlib.contextmanager
def _log_broken_pipes() -> Iterator[None]:
    """Log a broken pipe with its traceback, and exit with the code 1.

    click would exit without a message, since it expects a pipe between shell commands.
    In a worker, the broken pipe is a connection that a hook uses, or a stream that the
    app prints to.
    """
    try:
        yield
    except BrokenPipeError:
        logger.exception("The worker ends by an error of the app")
        sys.exit(1)


def _check_kill_blocked(seconds: float, processes: int | None) -> None:
    if not processes:
        raise click.UsageError(
            "--kill-blocked needs a process that supervises the worker: add"
            " --processes 1, or more."
        )
    if seconds < _MIN_KILL_BLOCKED_SECONDS:
        raise click.UsageError(
            f"--kill-blocked takes at least {_MIN_KILL_BLOCKED_SECONDS:g} s, since"
            " processes report once a second, and less often on a busy machine."
        )


def _is_child() -> bool:
    from ..running.process.child_process import FDS_VARIABLE

    return FDS_VARIABLE in os.environ


def _run_here(load: Callable[[], Flask], options: RunOptions, reload: bool) -> int:
    if options.reexec:
        ensure_patched()
    from ..running.process.parent import Parent
    from ..running.process.stop_signals import StopSignals

    parent = Parent.from_environment()
    if reload:
        from .code_reloader import run_reloading

        return run_reloading(
            lambda signals: serve(_load_app(load), options, signals, parent), parent
        )
    signals = StopSignals(parent)  # Before the imports of the app, which may hang.
    return serve(_load_app(load), options, signals, parent)


def _load_app(load: Callable[[], Flask]) -> Flask:
    """Load the app, and set up logging unless the app has configured it."""
    app = None
    try:
        app = load()
        return app
    finally:
        log_to_stderr(app)


def serve(
    app: Flask, options: RunOptions, signals: StopSignals, parent: Parent | None = None
) -> int:
    """Run a worker, and a web server if asked for, until a signal arrives.

    :returns: The exit code.
    """
    from ..running.gc_tuning import collect_less_often
    from ..running.main_greenlet import complete
    from ..running.main_greenlet import run_until_stop
    from ..running.process.exit_codes import APP_EXIT
    from ..running.process.exit_codes import FORCED
    from ..running.worker import Worker

    # Only in a process of the worker's own; 'before_worker' hooks may change it.
    collect_less_often()
    if not options.web:
        _warn_of_isolation(get_app_consumers(app).broker)
    worker = Worker(app, options.names, beside_web=bool(options.web))
    signals.allow(worker.settings.shutdown_timeout)
    web = _create_web_server(app, options, parent)
    with HealthReporters(
        options.health,
        options.health_file,
        worker.watchdog,
        scrape=_find_scrape(app) if options.health else None,
    ) as reporters:
        if parent is not None:
            worker.watchdog.add_outlet(parent.report)

        def begin() -> None:
            if web is not None:
                web.start()
            reporters.notify_ready()
            if parent is not None:
                parent.report_up()

        worker.start()
        asked = run_until_stop(begin, signals.asked)
        if not complete(_stop, worker, web):
            return FORCED
        return 0 if asked else APP_EXIT


def _warn_of_isolation(broker: Broker) -> None:
    """With ``memory://``, warn that other processes cannot publish to the consumers."""
    if not broker.capabilities.shared:
        why = "so only code in this process can publish to its consumers."
        logger.warning(
            "%s Or serve the app here: 'flask qconsume run --web HOST:PORT'.",
            explain_in_process_broker(
                "consume what other processes publish", broker, why
            ),
        )


def _create_web_server(
    app: Flask, options: RunOptions, parent: Parent | None
) -> WebServer | None:
    from ..running.sockets import listen
    from ..running.web import WebServer

    if not options.web:
        return None
    if parent is not None and parent.listener is not None:
        return WebServer(app, parent.listener, shared=True)
    return WebServer(
        _wrap_in_debugger(app) if options.debugger else app, listen(options.web)
    )


def _wrap_in_debugger(app: Flask) -> WSGIApplication:
    """Wrap the app in Werkzeug's debugger, which asks for a PIN."""
    from werkzeug.debug import DebuggedApplication

    return DebuggedApplication(app, evalex=True)


def _stop(worker: Worker, web: WebServer | None) -> bool:
    """Stop the worker and the web server within the shutdown timeout.

    :returns: Whether all requests and handlers have ended in time.
    """
    deadline = time.monotonic() + worker.settings.shutdown_timeout
    worker.quiet()
    # Requests end first, since the worker's hooks close what requests may use.
    served = web is None or web.stop(deadline - time.monotonic())
    handled = worker.stop(max(0.0, deadline - time.monotonic()))
    return served and handled


def _supervise(app: Flask, options: RunOptions, count: int) -> int:
    from ..running.sockets import get_url
    from ..running.sockets import listen

    consumers = get_app_consumers(app)
    _check_processes(app, options.names)
    # Taken out of the environment, so that the children do not notify systemd.
    systemd = Systemd.from_environment(os.environ)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(options.web)) if options.web else None
        if listener is not None:
            logger.info("Listening on %s for %d processes", get_url(listener), count)
        if consumers.settings.metrics:
            offer_private_folder()
            stack.callback(remove_private_folder)
        supervisor = _create_supervisor(
            options,
            count=count,
            listener=listener,
            stop_timeout=consumers.settings.shutdown_timeout,
            limits=_create_limits(consumers.settings, options),
        )
        reporters = HealthReporters(
            options.health,
            options.health_file,
            supervisor,
            systemd,
            _find_scrape(app) if options.health else None,
        )
        stack.enter_context(reporters)
        reporters.notify_ready()
        return supervisor.run()


def _find_scrape(app: Flask) -> Scrape | None:
    exposition = get_exposition(app)
    return exposition.render if exposition is not None else None


def _create_limits(settings: Settings, options: RunOptions) -> ChildLimits:
    from ..running.process.child_process import ChildLimits

    return ChildLimits(
        silent=settings.blocked_after,
        starting=settings.start_timeout,
        blocked=options.kill_blocked,
    )


def _check_processes(app: Flask, names: Sequence[str]) -> None:
    """Check options of ``--processes`` once, in the supervising process."""
    consumers = get_app_consumers(app)
    for name in names:
        find_consumer(consumers.consumers, name)
    if not consumers.broker.capabilities.shared:
        raise UnsupportedByBroker(
            "'--processes' needs a broker that all processes share, and each process"
            f" has a '{consumers.settings.broker_url}' of its own. Leave out"
            " '--processes', or set 'QCONSUME_BROKER_URL' to a broker that is a server."
        )


def _supervise_reloading(options: RunOptions) -> int:
    from ..running.process.child_process import ChildLimits
    from .code_reloader import CODE_CHANGED_EXIT
    from .code_reloader import RELOADER_VARIABLES
    from .code_reloader import STOP_TIMEOUT_SECONDS

    # This process only watches the code, which may be broken: it loads no app.
    log_to_stderr()
    supervisor = _create_supervisor(
        options,
        extra=RELOADER_VARIABLES,
        count=1,
        stop_timeout=STOP_TIMEOUT_SECONDS,
        # Code that cannot start waits for its next change.
        limits=ChildLimits(starting=math.inf),
        again=(CODE_CHANGED_EXIT,),
    )
    return supervisor.run()


def _create_supervisor(
    options: RunOptions, *, extra: t.Mapping[str, str] | None = None, **kwargs: t.Any
) -> Supervisor:
    from ..running.process.supervisor import Supervisor

    restarts = options.reexec and not is_patched()
    command, environment = build_patched_command() if restarts else build_same_command()
    return Supervisor(command, {**environment, **(extra or {})}, **kwargs)


def log_to_stderr(app: Flask | None = None) -> None:
    """Show log lines on standard error, unless the app has configured logging.

    :param app: The app; ``None`` in a process that has not loaded it.
    """
    if use_app_logging(app):
        return
    handler = logging.StreamHandler()
    process = " [%(process)d]" if _is_child() else ""
    handler.setFormatter(
        make_json_formatter(app)
        or TextFormatter(f"%(asctime)s %(levelname)-7s %(name)s{process}  %(message)s")
    )
    log_all_to(handler, app)
