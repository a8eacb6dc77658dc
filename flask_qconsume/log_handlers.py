"""Where log lines go: to what the app has configured, else to a handler of ours.

What the app has configured is looked at once it is loaded, since many apps do it in
their factory. Must not import gevent.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from flask import Flask
from flask.logging import default_handler

_ROOT = logging.getLogger()
_OURS = logging.getLogger("flask_qconsume")

#: The format that Flask gives its default handler.
_FLASK_FORMAT = "[%(asctime)s] %(levelname)s in %(module)s: %(message)s"


def use_app_logging(app: Flask | None) -> bool:
    """Log as the app has configured it; return whether it has.

    Where the app has given handlers to the root logger or to ``flask_qconsume``, they
    get our lines as they are. Where it has given some to ``app.logger`` only, our lines
    go there too. Handlers of errors only, such as those that send mail, are no log: an
    app that has no others has not configured it.

    :param app: The app; ``None`` in a process that has not loaded it.
    """
    _enable()
    if any(_has_log(logger) for logger in (_ROOT, *_all_of_ours())):
        return True
    handlers = [] if app is None else _handlers_of(app)
    add_handlers(handlers, logging.INFO)
    return any(map(_is_log, handlers))


def add_handlers(handlers: Sequence[logging.Handler], level: int) -> None:
    """Send our lines to these handlers.

    :param level: The least level that is logged, unless the app has set one.
    """
    for handler in handlers:
        _OURS.addHandler(handler)
    if handlers:
        _OURS.setLevel(_OURS.level or level)


def log_all_to(handler: logging.Handler, app: Flask | None) -> None:
    """Send the lines of all loggers there: ours and the app's own from INFO on.

    A logger to which the app has given handlers keeps its lines to these.
    """
    handler.addFilter(lambda record: not _is_logged(logging.getLogger(record.name)))
    _ROOT.addHandler(handler)
    _OURS.setLevel(_OURS.level or logging.INFO)
    if app is not None:
        # Flask's own handler would show each of the app's lines once more.
        app.logger.removeHandler(default_handler)
        app.logger.setLevel(app.logger.level or logging.INFO)


def _is_logged(logger: logging.Logger | None) -> bool:
    """Whether a logger below the root has handlers, or inherits some."""
    while logger is not None and logger is not _ROOT:
        if _has_log(logger):
            return True
        logger = logger.parent
    return False


def _has_log(logger: logging.Logger) -> bool:
    return any(map(_is_log, logger.handlers))


def _is_log(handler: logging.Handler) -> bool:
    """Whether it shows more than errors. Libraries give their loggers null handlers."""
    is_null = isinstance(handler, logging.NullHandler)
    return handler.level <= logging.WARNING and not is_null


def _enable() -> None:
    """Undo what ``dictConfig`` and ``fileConfig`` do to loggers that exist already.

    Unless ``disable_existing_loggers`` is ``False`` they switch off every logger that
    the configuration does not name. A worker would not even tell of its dead letters.
    """
    for logger in _all_of_ours():
        logger.disabled = False


def _all_of_ours() -> list[logging.Logger]:
    return [
        logger
        for name, logger in logging.Logger.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and name.split(".")[0] == _OURS.name
    ]


def _handlers_of(app: Flask) -> list[logging.Handler]:
    """The handlers that the app has given to its logger."""
    return [h for h in logging.getLogger(app.name).handlers if not _is_flasks(h)]


def _is_flasks(handler: logging.Handler) -> bool:
    """Whether this is Flask's default handler as Flask makes it, format included."""
    made = getattr(handler.formatter, "_fmt", None) == _FLASK_FORMAT
    return handler is default_handler and made
