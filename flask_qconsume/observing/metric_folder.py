"""The folder in which processes keep their metrics, and its compaction.

Each process has a value file, ``<process id>-<random>.values``, and holds a lock on it
as long as it lives. Process ids are used again; locks are not. The gauges of a process
are in ``.gauges`` files beside it, which count only while their process lives.

The counts of dead processes are moved into one file, ``sums.json``, when the next
process starts. That file names the value files that it contains, and replaces its
predecessor in one step; only then are those value files removed. So a process that is
killed meanwhile neither loses counts nor doubles them. A reader needs no lock: if the
sums were replaced while it read, it reads again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import secrets
import time
import typing as t
import uuid
from collections.abc import Callable
from collections.abc import Iterator

from .error_names import limit_names
from .own_files import GAUGES
from .own_files import NEW
from .own_files import VALUES
from .own_files import OwnFiles
from .own_files import create_locked
from .own_files import discard
from .own_files import replace
from .series import Series
from .series import add_up
from .value_file import ForeignFile
from .value_file import ValueFile
from .value_file import read_values

_SUMS = "sums.json"
_LOCK = "lock"
_ORIGIN = "origin"
_SUMS_VERSION = 1

#: How often a reader begins again because the sums were replaced.
_MAX_READS = 20

#: Seconds after which an unfinished file is one that a killed process left.
_ABANDONED_SECONDS = 60.0


class ProcessGauges(t.NamedTuple):
    """The gauges of one living process."""

    pid: int
    #: When the process wrote them, in seconds since 1970.
    time: float
    series: list[Series]


class Origin(t.NamedTuple):
    """The identity of counts that are added up, and their beginning."""

    #: A random UUID.
    id: str
    #: When the counts were 0, in seconds since 1970.
    began: float

    @classmethod
    def create(cls) -> Origin:
        """Create the origin of counts that begin now."""
        return cls(str(uuid.uuid4()), time.time())


class Snapshot(t.NamedTuple):
    """The metrics of all processes, at one moment."""

    #: Counters and histograms, added up, those of dead processes included.
    counts: list[Series]
    gauges: list[ProcessGauges]


class MetricFolder:
    """The metrics of all processes that use one folder.

    :param path: The folder; it is created on first use.
    :param warn: Called with a sentence about a file that cannot be used, once per file.
    """

    def __init__(self, path: str, warn: Callable[[str], object]) -> None:
        self.path = pathlib.Path(path)
        self._warn = warn
        self._warned: set[str] = set()

    def create_files(self) -> OwnFiles:
        """Create the files of this process, and compact those of dead ones.

        :raises OSError: if the folder cannot be written, or the disk is full.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / f"{os.getpid()}-{secrets.token_hex(8)}{VALUES}"
        new = path.with_suffix(NEW)
        lock = create_locked(new)
        try:
            # A mapping has a copy of its descriptor, which a forked child inherits and
            # cannot close. If it was a copy of the lock's, it would hold the lock.
            values = ValueFile(os.open(new, os.O_RDWR))
            new.rename(path)
        except BaseException:
            discard(lock, new)
            raise
        try:
            self.compact()
        except OSError as error:
            self._warn_once(self.path / _SUMS, error)
        return OwnFiles(values, path, lock)

    def has_living_processes(self) -> bool:
        """Return whether a process that counts here still lives."""
        return any(map(_is_alive, self._list_values()))

    def identify(self) -> Origin:
        """Return the origin of the folder's counts, which all its processes share.

        :raises OSError: if there is no folder, or it cannot be written.
        """
        # The first process has created the file, and nothing is ever written to it.
        with open(self.path / _LOCK, "ab") as lock:
            began = os.fstat(lock.fileno()).st_mtime
        path = self.path / _ORIGIN
        if not path.exists():
            new = path.with_name(f"{_ORIGIN}.{secrets.token_hex(4)}{NEW}")
            new.write_text(Origin.create().id)
            # Another process may have created the file meanwhile.
            with contextlib.suppress(FileExistsError):
                os.link(new, path)
            new.unlink()
        return Origin(path.read_text(), began)

    # -- reading ----------------------------------------------------------------------

    def read(self, own: OwnFiles | None = None) -> Snapshot:
        """Return the metrics of all processes.

        :param own: The files of this process, whose counts are read from memory.
        :raises OSError: if the folder cannot be read.
        """
        for _ in range(_MAX_READS):
            # An open file keeps its number, so a later file has a different one.
            with self._open_sums() as sums:
                snapshot = self._read_processes(sums, own)
                if _is_current(sums, self.path / _SUMS):
                    break
        return snapshot

    def _read_processes(self, sums: t.Any, own: OwnFiles | None) -> Snapshot:
        merged, counts = self._read_sums(sums)
        counts += own.values.read() if own is not None else []
        gauges: list[ProcessGauges] = []
        for path in self._list_values():
            if path.name in merged:
                continue
            found = self._read_process(path)
            if found is not None:
                pid, series = found
                counts += series if own is None or path != own.path else []
                gauges += self._read_gauges(path, pid)
        return Snapshot(add_up(counts), gauges)

    def _open_sums(self) -> t.Any:
        try:
            return open(self.path / _SUMS, "rb")
        except FileNotFoundError:
            return contextlib.nullcontext()

    def _list_values(self) -> list[pathlib.Path]:
        return sorted(self.path.glob(f"*{VALUES}"))

    def _read_sums(self, file: t.Any) -> tuple[set[str], list[Series]]:
        if file is None:
            return set(), []
        try:
            document = json.loads(file.read())
            if document["version"] != _SUMS_VERSION:
                raise ValueError("it is of another version")
            series = [_make_series(each) for each in document["series"]]
            return set(document["merged"]), series
        except (ValueError, TypeError, LookupError) as error:
            self._warn_once(self.path / _SUMS, error)
            return set(), []

    def _read_process(self, path: pathlib.Path) -> tuple[int, list[Series]] | None:
        try:
            return read_values(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ForeignFile) as error:
            self._warn_once(path, error)
            return None

    def _read_gauges(self, path: pathlib.Path, pid: int) -> Iterator[ProcessGauges]:
        files = sorted(self.path.glob(f"{path.stem}.*{GAUGES}"))
        for file in files if files and _is_alive(path) else ():
            try:
                rows = json.loads(file.read_bytes())
                series = [_make_series((row[0], row[1], (), row[2])) for row in rows]
                yield ProcessGauges(pid, file.stat().st_mtime, series)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, TypeError, LookupError) as error:
                self._warn_once(file, error)

    def _warn_once(self, path: pathlib.Path, error: Exception) -> None:
        if path.name not in self._warned:
            self._warned.add(path.name)
            self._warn(f"The metrics file '{path}' is ignored: {error}.")

    # -- compaction -------------------------------------------------------------------

    def compact(self) -> None:
        """Move the counts of dead processes into the file of sums.

        If another process does it already, do nothing.

        :raises OSError: if the folder cannot be written, or the disk is full.
        """
        with open(self.path / _LOCK, "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            dead = [path for path in self._list_values() if not _is_alive(path)]
            if dead:
                self._merge(dead)
            self._remove_leftovers()

    def _merge(self, dead: list[pathlib.Path]) -> None:
        with self._open_sums() as sums:
            merged, counts = self._read_sums(sums)
        names = []
        for path in dead:
            found = None if path.name in merged else self._read_process(path)
            if found is not None:
                counts += found[1]
            if found is not None or path.name in merged:
                names.append(path.name)
        document = {
            "version": _SUMS_VERSION,
            "merged": names,
            "series": add_up(limit_names(counts)),
        }
        replace(self.path / _SUMS, json.dumps(document))
        for name in names:
            self._remove_files(self.path / name)

    def _remove_files(self, path: pathlib.Path) -> None:
        for file in (path, *self.path.glob(f"{path.stem}.*{GAUGES}")):
            file.unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        """Remove files that processes left which were killed while they wrote them."""
        limit = time.time() - _ABANDONED_SECONDS
        for path in self.path.glob(f"*{NEW}"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < limit:
                    path.unlink()


def _is_alive(path: pathlib.Path) -> bool:
    """Return whether the process that made a value file lives: it holds a lock."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _is_current(file: t.Any, path: pathlib.Path) -> bool:
    """Return whether a path still leads to an open file, or still to none."""
    try:
        now = path.stat()
    except FileNotFoundError:
        return file is None
    return file is not None and os.path.samestat(os.fstat(file.fileno()), now)


def _make_series(row: t.Any) -> Series:
    name, labels, bounds, values = row
    return Series(
        str(name),
        tuple(map(str, labels)),
        tuple(map(float, bounds)),
        tuple(map(float, values)),
    )
