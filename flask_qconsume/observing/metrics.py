"""The metrics of one app: what this process counts, and what all processes show.

Other parts of the package show gauges here (:meth:`Metrics.show`); the listener of
:mod:`.counters` counts. Both go into the process's files in the metric folder, or stay
in memory where there is no folder. Must not import gevent: the supervising process,
and processes that only publish, use it as well.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t
from collections.abc import Callable
from collections.abc import Sequence
from urllib.parse import quote

from flask import Flask

from ..first_use import PerProcess
from ..logs import get_logger
from ..native_threads import run_in_thread
from ..text import escape
from .metric_folder import MetricFolder
from .metric_folder import Origin
from .metric_folder import ProcessGauges
from .metric_folder import Snapshot
from .own_files import OwnFiles
from .series import Series
from .series import add_up
from .value_file import ValueFile

logger = get_logger("flask_qconsume.metrics")

#: The key of an app's :class:`Metrics` in ``app.extensions``.
KEY = "qconsume_metrics"

#: The environment variable by which a supervisor gives its children a metric folder.
FOLDER_VARIABLE = "_FLASK_QCONSUME_METRICS"


#: Characters of the name of an app's folder.
_MAX_NAME_LENGTH = 200

#: Seconds for which gauges are shown. A worker shows its own gauges once a second, and
#: those of the queues every 5 to 20 seconds.
_MAX_GAUGES_AGE_SECONDS = 30.0


class _OwnMetrics:
    """What this process counts and shows."""

    def __init__(self, files: OwnFiles | None) -> None:
        self.files = files
        self.values = files.values if files is not None else ValueFile()
        self.gauges: dict[str, ProcessGauges] = {}
        self.origin = Origin.create()


class Metrics:
    """The metrics of one app.

    :param folder: The folder that all processes of the app share; ``None`` for the one
        that the environment names, or else for this process's memory.
    :param app: The app's name, which is its place in the folder that the environment
        names: a process may have several apps.
    """

    def __init__(self, folder: str | None = None, app: str = "") -> None:
        self._path = folder
        self._app = quote(app, safe="")[:_MAX_NAME_LENGTH]
        #: The beginnings of warnings that were logged.
        self._warned: set[str] = set()
        self._folder: MetricFolder | None = None
        self._own = PerProcess(self._open, leave=self._leave)
        self._on_fork: list[Callable[[], object]] = []

    @property
    def folder(self) -> str | None:
        """The folder that the app's processes share; ``None`` if there is none."""
        shared = os.environ.get(FOLDER_VARIABLE)
        if self._path or not shared:
            return self._path
        return os.path.join(shared, self._app) if self._app else shared

    @property
    def values(self) -> ValueFile:
        """The numbers of this process."""
        return self._own.get().values

    def on_fork(self, forget: Callable[[], object]) -> None:
        """Call a function in each forked child, which counts in files of its own."""
        self._on_fork.append(forget)

    def open(self) -> None:
        """Create the files of this process, unless it has them already.

        Call this before a native thread calls :meth:`show`: it may log.
        """
        self._own.get()

    def show(self, source: str, gauges: Sequence[Series]) -> None:
        """Show gauges of this process, until the next call with the same source.

        It writes a small file, so call it at most once a second, and best in a native
        thread. It never raises, and takes no lock. Other processes show these gauges as
        long as this one lives. An empty list hides them.

        Where several processes show the same series of a gauge that is not
        ``per_process``, such as a queue's, the newest one counts; let only one process
        of a host show it all the same.

        :param source: A short name of the caller, such as ``"worker"`` or ``"queues"``:
            lowercase letters. The caller alone uses it.
        :param gauges: Made by :func:`.make_gauge`.
        """
        own = self._own.get()
        own.gauges[source] = ProcessGauges(os.getpid(), time.time(), list(gauges))
        if own.files is None:
            return
        self._restore(own.files)
        try:
            own.files.write_gauges(source, gauges)
        except OSError as error:
            self._warn_of_files(error)

    def read(self) -> Snapshot:
        """Return the metrics of all processes; without a folder, those of this one.

        Gauges that were not shown again for some time are left out: their process is
        halted, or hangs.
        """
        counts, gauges = self._read()
        limit = time.time() - _MAX_GAUGES_AGE_SECONDS
        return Snapshot(counts, [each for each in gauges if each.time > limit])

    def identify(self) -> Origin:
        """Return the origin of the counts that :meth:`read` returns."""
        folder = self._find_folder()
        with contextlib.suppress(OSError):
            if folder is not None:
                return folder.identify()
        return self._own.get().origin

    def _read(self) -> Snapshot:
        own = self._own.made
        mine = Snapshot(
            add_up(own.values.read()) if own is not None else [],
            list(own.gauges.values()) if own is not None else [],
        )
        folder = self._find_folder()
        if folder is None:
            return mine
        if own is not None and own.files is not None:
            self._restore(own.files)
        try:
            found = folder.read(own.files if own is not None else None)
        except OSError as error:
            if own is None or own.files is not None:  # Otherwise it was logged before.
                self._warn_once("The metrics of other processes cannot be read", error)
            return mine
        if own is None or own.files is not None:
            return found
        return Snapshot(add_up(found.counts + mine.counts), found.gauges + mine.gauges)

    def _find_folder(self) -> MetricFolder | None:
        path = self.folder
        if path is None:
            return None
        if self._folder is None or str(self._folder.path) != path:
            self._folder = MetricFolder(path, self._warn)
        return self._folder

    def _open(self) -> _OwnMetrics:
        folder = self._find_folder()
        if folder is None:
            return _OwnMetrics(None)
        try:
            return _OwnMetrics(folder.create_files())
        except OSError as error:
            logger.warning(
                "The metrics of this process are kept in its memory, and no other"
                " process shows them: the folder '%s' cannot be used (%s). Free some"
                " space, or set 'QCONSUME_METRICS' to a folder that the process may"
                " write; then restart it.",
                escape(folder.path),
                escape(error),
            )
            return _OwnMetrics(None)

    def _leave(self, own: _OwnMetrics) -> None:
        """In a forked child: close the file, whose lock is the parent's."""
        if own.files is not None:
            own.files.leave_to_parent()
        for forget in self._on_fork:
            forget()

    def _restore(self, files: OwnFiles) -> None:
        """Put the numbers into the folder again, if a program has cleaned it up."""
        try:
            files.restore()
        except OSError as error:
            self._warn_of_files(error)
        else:
            if files.values.problem is not None:
                self._warn_of_files(files.values.problem)

    def _warn_of_files(self, error: OSError) -> None:
        self._warn_once(
            "Other processes do not show all counts and gauges of this one", error
        )

    def _warn_once(self, text: str, error: OSError) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._warn(f"{text}: {error}.")

    def _warn(self, text: str) -> None:
        # Often called in a native thread, which must not wait for the log's locks.
        run_in_thread("metrics", logger.warning, "%s", escape(text))


def get_metrics(app: Flask) -> Metrics | None:
    """Return the metrics of an app; ``None`` unless ``QCONSUME_METRICS`` is set."""
    return t.cast("Metrics | None", app.extensions.get(KEY))
