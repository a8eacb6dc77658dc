"""``flask qconsume run``: a worker in its own process, or beside a web server."""

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
from ..log_handlers import log_all_to
from ..log_handlers import use_app_logging
from ..logs import get_logger
from ..registration.registry import find_consumer
from ..running.health.reporters import Systemd
from ..running.patched import is_patched
from .context import clean_errors
from .durations import Duration
from .gevent_patching import ensure_patched
from .gevent_patching import patched_command
from .gevent_patching import same_command
from .health_reporters import Checks
from .streams import open_missing_streams

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ..broker.base import Broker
    from ..running.process.child_process import ChildLimits
    from ..running.process.parent import Parent
    from ..running.process.stop_signals import StopSignals
    from ..running.process.supervisor import Supervisor
    from ..running.web import WebServer
    from ..running.worker import Worker
    from ..settings import Settings

#: The shortest time for ``--kill-blocked``, in seconds.
_LEAST_BLOCKED = 5.0


class Options(t.NamedTuple):
    """What the command line asked for."""

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
    help="Serve the app over HTTP too, in this process.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    metavar="N",
    help="Run in N processes, and start those anew that die.",
)
@click.option(
    "--kill-blocked",
    type=Duration(),
    metavar="SECONDS",
    help="With --processes: kill a process whose hub has not run for so long.",
)
@click.option(
    "--health",
    metavar="HOST:PORT",
    help="Answer /live and /ready there, for whoever looks after the process.",
)
@click.option(
    "--health-file",
    metavar="PATH",
    help="Write this file each second while the process lives.",
)
@click.option(
    "--reload/--no-reload",
    default=None,
    help="Start anew when code changes. Done in debug mode, of one process.",
)
@click.option(
    "--debugger/--no-debugger",
    default=None,
    help="Show errors of views in Werkzeug's debugger. Done in debug mode, with --web.",
)
@click.option(
    "--reexec/--no-reexec",
    default=True,
    help="Start anew in an interpreter patched by gevent (the default).",
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

    NAMES are the consumers to run, such as orders.bill; all of them unless given.

    The exit code is 0 after a clean stop, and 3 after one that had to interrupt
    handlers and give their messages back.
    """
    open_missing_streams()
    for option, given in {"--reload": reload, "--debugger": debugger}.items():
        if processes and given:
            raise click.UsageError(
                f"{option} is for one process: leave --processes out."
            )
    # As 'flask run' does it.
    debug = get_debug_flag() and not processes
    reload = debug if reload is None else reload
    if kill_blocked is not None:
        _check_kill_blocked(kill_blocked, processes)
    load = ctx.ensure_object(ScriptInfo).load_app
    options = Options(
        names,
        web,
        reexec,
        health,
        health_file,
        kill_blocked,
        debugger=debug if debugger is None else debugger,
    )
    with clean_errors(), _broken_pipes_logged():
        if processes and not _is_child():
            code = _supervise(_loaded(load), options, processes)
        elif reload and not _is_child():
            code = _supervise_reloading(options)
        else:
            if processes:  # The process above us answers for all.
                options = options._replace(health=None, health_file=None)
            code = _run_here(load, options, reload)
    sys.exit(code)


@contextlib.contextmanager
def _broken_pipes_logged() -> Iterator[None]:
    """Log a broken pipe and end with 1; click would end without a word.

    It takes any for one to the next command of a shell, but what breaks here is a
    connection that a hook uses, or a stream that the app prints to.
    """
    try:
        yield
    except BrokenPipeError:
        logger.exception("The worker ends by an error of the app")
        sys.exit(1)


def _check_kill_blocked(seconds: float, processes: int | None) -> None:
    if not processes:
        raise click.UsageError(
            "--kill-blocked is done by the process that supervises others: give"
            " --processes, too; 1 will do."
        )
    if seconds < _LEAST_BLOCKED:
        raise click.UsageError(
            f"--kill-blocked takes at least {_LEAST_BLOCKED:g} s, since processes"
            " report once a second, and less often on a busy machine."
        )


def _is_child() -> bool:
    from ..running.process.child_process import FDS_VARIABLE

    return FDS_VARIABLE in os.environ


def _run_here(load: Callable[[], Flask], options: Options, reload: bool) -> int:
    if options.reexec:
        ensure_patched()
    from ..running.process.parent import Parent
    from ..running.process.stop_signals import StopSignals

    parent = Parent.from_environment()
    if reload:
        from .code_reloader import run_reloading

        return run_reloading(
            lambda signals: serve(_loaded(load), options, signals, parent), parent
        )
    signals = StopSignals(parent)  # First, for what is imported may hang.
    return serve(_loaded(load), options, signals, parent)


def _loaded(load: Callable[[], Flask]) -> Flask:
    """The app; what it has configured of logging holds from here on."""
    app = None
    try:
        app = load()
        return app
    finally:
        log_to_stderr(app)


def serve(
    app: Flask, options: Options, signals: StopSignals, parent: Parent | None = None
) -> int:
    """Run a worker, and a web server if so asked, until a signal; the exit code."""
    from ..running.gc_tuning import collect_less_often
    from ..running.main_greenlet import complete
    from ..running.main_greenlet import run_until_stop
    from ..running.process.exit_codes import APP_EXIT
    from ..running.process.exit_codes import FORCED
    from ..running.worker import Worker

    # The process is a worker's and nobody else's; hooks may think better of it.
    collect_less_often()
    if not options.web:
        _warn_of_isolation(get_app_consumers(app).broker)
    worker = Worker(app, options.names, beside_web=bool(options.web))
    signals.allow(worker.settings.shutdown_timeout)
    web = _web(app, options, parent)
    with Checks(options.health, options.health_file, worker.watchdog) as checks:
        if parent is not None:
            worker.watchdog.add_outlet(parent.report)

        def begin() -> None:
            if web is not None:
                web.start()
            checks.ready()
            if parent is not None:
                parent.report_up()

        worker.start()
        asked = run_until_stop(begin, signals.asked)
        if not complete(_stop, worker, web):
            return FORCED
        return 0 if asked else APP_EXIT


def _warn_of_isolation(broker: Broker) -> None:
    """Tell that nothing outside of this process can publish, where that is so."""
    if not broker.capabilities.shared:
        why = "so only what runs in this one can publish to its consumers."
        logger.warning(
            "%s Or serve the app here: 'flask qconsume run --web HOST:PORT'.",
            explain_in_process_broker(
                "consume what other processes publish", broker, why
            ),
        )


def _web(app: Flask, options: Options, parent: Parent | None) -> WebServer | None:
    from ..running.sockets import listen
    from ..running.web import WebServer

    if not options.web:
        return None
    if parent is not None and parent.listener is not None:
        return WebServer(app, parent.listener, shared=True)
    return WebServer(_debugged(app) if options.debugger else app, listen(options.web))


def _debugged(app: Flask) -> WSGIApplication:
    """The app within Werkzeug's debugger, which asks for its PIN."""
    from werkzeug.debug import DebuggedApplication

    return DebuggedApplication(app, evalex=True)


def _stop(worker: Worker, web: WebServer | None) -> bool:
    """Stop both within one time; whether nothing had to be cut off."""
    deadline = time.monotonic() + worker.settings.shutdown_timeout
    worker.quiet()
    # Requests end before the worker, whose last hooks close what they may use.
    served = web is None or web.stop(deadline - time.monotonic())
    handled = worker.stop(max(0.0, deadline - time.monotonic()))
    return served and handled


def _supervise(app: Flask, options: Options, count: int) -> int:
    from ..running.sockets import get_url
    from ..running.sockets import listen

    consumers = get_app_consumers(app)
    _check_processes(app, options.names)
    systemd = Systemd.from_environment(os.environ)  # The children are to have none.
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(options.web)) if options.web else None
        if listener is not None:
            logger.info("Listening on %s for %d processes", get_url(listener), count)
        supervisor = _supervisor(
            options,
            count=count,
            listener=listener,
            stop_timeout=consumers.settings.shutdown_timeout,
            limits=_limits(consumers.settings, options),
        )
        checks = Checks(options.health, options.health_file, supervisor, systemd)
        stack.enter_context(checks)
        checks.ready()
        return supervisor.run()


def _limits(settings: Settings, options: Options) -> ChildLimits:
    from ..running.process.child_process import ChildLimits

    return ChildLimits(
        silent=settings.blocked_after,
        starting=settings.start_timeout,
        blocked=options.kill_blocked,
    )


def _check_processes(app: Flask, names: Sequence[str]) -> None:
    """Say once what is wrong, and not in each process."""
    consumers = get_app_consumers(app)
    for name in names:
        find_consumer(consumers.consumers, name)
    if not consumers.broker.capabilities.shared:
        raise UnsupportedByBroker(
            f"'--processes' needs a broker that processes share, and"
            f" '{consumers.settings.broker_url}' lives within each one of them. Leave"
            " it out, or set 'QCONSUME_BROKER_URL' to a broker of its own."
        )


def _supervise_reloading(options: Options) -> int:
    from ..running.process.child_process import ChildLimits
    from .code_reloader import CHANGED
    from .code_reloader import ENVIRONMENT
    from .code_reloader import STOP_TIMEOUT

    # The app is not loaded here: its code may be broken, and is to be watched.
    log_to_stderr()
    supervisor = _supervisor(
        options,
        extra=ENVIRONMENT,
        count=1,
        stop_timeout=STOP_TIMEOUT,
        # Code that cannot start waits for its next change, however long that takes.
        limits=ChildLimits(starting=math.inf),
        again=(CHANGED,),
    )
    return supervisor.run()


def _supervisor(
    options: Options, *, extra: t.Mapping[str, str] | None = None, **kwargs: t.Any
) -> Supervisor:
    from ..running.process.supervisor import Supervisor

    anew = options.reexec and not is_patched()
    command, environment = patched_command() if anew else same_command()
    return Supervisor(command, {**environment, **(extra or {})}, **kwargs)


logger = get_logger("flask_qconsume.run")


def log_to_stderr(app: Flask | None = None) -> None:
    """Show log lines, unless the app has configured logging itself.

    :param app: The app; ``None`` in a process that has not loaded it.
    """
    if use_app_logging(app):
        return
    handler = logging.StreamHandler()
    process = " [%(process)d]" if _is_child() else ""
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s %(levelname)-7s %(name)s{process}  %(message)s")
    )
    log_all_to(handler, app)
