"""Chooses the handlers of this package's log lines: the app's own, or a default one.

Call these functions once the app is loaded, since many apps configure logging in their
factory. Must not import gevent.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from flask import Flask
from flask.logging import default_handler

from .appconsumers import KEY
from .errors import ConfigurationError

_ROOT = logging.getLogger()
_OURS = logging.getLogger("flask_qconsume")

#: The format that Flask gives its default handler.
_FLASK_FORMAT = "[%(asctime)s] %(levelname)s in %(module)s: %(message)s"


class TextFormatter(logging.Formatter):
    """Names the message being handled in log lines of the app and its libraries.

    The extension's own lines name their message in the text.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return a record's line, without its traceback."""
        line = super().formatMessage(record)
        context = vars(record)
        consumer = context.get("qconsume_consumer")
        if not consumer or record.name.partition(".")[0] == _OURS.name:
            return line
        id = context["qconsume_message_id"] or "without an id"
        return f"{line}  [{consumer} {id}, attempt {context['qconsume_attempt']}]"


class SharedHandlers(logging.Handler):
    """Passes records on to handlers of another logger, with their own filters."""

    def __init__(self, handlers: Sequence[logging.Handler]) -> None:
        super().__init__()
        self._handlers = handlers

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record to each handler whose level it has."""
        for handler in self._handlers:
            if record.levelno >= handler.level:
                handler.handle(record)


def make_json_formatter(app: Flask | None) -> logging.Formatter | None:
    """Return the formatter that ``QCONSUME_LOGGING`` asks for; ``None`` for text.

    :raises ConfigurationError: if it is ``"json"``, and a package is missing.
    """
    consumers = None if app is None else app.extensions.get(KEY)
    if consumers is None or consumers.settings.logging != "json":
        return None
    try:
        from .observing.json_formatter import JsonFormatter
    except ImportError as error:
        raise ConfigurationError(
            "'QCONSUME_LOGGING' is 'json', which needs the package"
            " 'python-json-logger'. Install it by: pip install 'Flask-QConsume[logs]'"
        ) from error
    return JsonFormatter()


def use_app_logging(app: Flask | None) -> bool:
    """Log to the handlers that the app has configured; return whether it has any.

    Handlers of the root logger or of ``flask_qconsume`` get this package's lines. If
    only ``app.logger`` has handlers, this package's lines go there as well. Handlers
    for errors alone, such as those that send mail, do not count.

    :param app: The app; ``None`` in a process that has not loaded it.
    """
    _enable_loggers()
    if any(_has_log_handler(logger) for logger in (_ROOT, *_list_loggers())):
        return True
    handlers = [] if app is None else _handlers_of(app)
    add_handlers(handlers, logging.INFO)
    return any(map(_is_log_handler, handlers))


def add_handlers(handlers: Sequence[logging.Handler], level: int) -> None:
    """Send this package's log lines to ``handlers``.

    :param level: The level for this package's logger, unless the app has set one.
    """
    for handler in handlers:
        _OURS.addHandler(handler)
    if handlers:
        _OURS.setLevel(_OURS.level or level)


def log_all_to(handler: logging.Handler, app: Flask | None) -> None:
    """Send the lines of all loggers to a handler, from the level INFO on.

    A logger that has handlers of its own does not use this one.
    """
    handler.addFilter(
        lambda record: not _has_own_handlers(logging.getLogger(record.name))
    )
    _ROOT.addHandler(handler)
    _OURS.setLevel(_OURS.level or logging.INFO)
    if app is not None:
        # Flask's own handler would show the app's lines a second time.
        app.logger.removeHandler(default_handler)
        app.logger.setLevel(app.logger.level or logging.INFO)


def _has_own_handlers(logger: logging.Logger | None) -> bool:
    """Return whether a logger has handlers, other than those of the root logger."""
    while logger is not None and logger is not _ROOT:
        if _has_log_handler(logger):
            return True
        logger = logger.parent
    return False


def _has_log_handler(logger: logging.Logger) -> bool:
    return any(map(_is_log_handler, logger.handlers))


def _is_log_handler(handler: logging.Handler) -> bool:
    """Return whether a handler shows warnings (some show errors only, or nothing)."""
    is_null = isinstance(handler, logging.NullHandler)
    return handler.level <= logging.WARNING and not is_null


def _enable_loggers() -> None:
    """Enable loggers of this package that the app's logging configuration has disabled.

    ``dictConfig`` and ``fileConfig`` disable each logger that they do not name, unless
    ``disable_existing_loggers`` is ``False``. A worker would not even log its dead
    letters.
    """
    for logger in _list_loggers():
        logger.disabled = False


def _list_loggers() -> list[logging.Logger]:
    return [
        logger
        for name, logger in logging.Logger.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and name.split(".")[0] == _OURS.name
    ]


def _handlers_of(app: Flask) -> list[logging.Handler]:
    return [h for h in logging.getLogger(app.name).handlers if not _is_flasks(h)]


def _is_flasks(handler: logging.Handler) -> bool:
    unchanged = getattr(handler.formatter, "_fmt", None) == _FLASK_FORMAT
    return handler is default_handler and unchanged
