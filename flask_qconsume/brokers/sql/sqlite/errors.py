"""Errors of SQLite, translated into those of this package.

Errors are told apart by their texts: before version 3.11, Python hides their codes.
"""

from __future__ import annotations

import pathlib
import sqlite3

from ....broker.publish_request import AnswerLost
from ....databases.busy_retry import is_locked
from ....errors import BrokerError
from ....errors import BrokerRefused
from ....errors import BrokerUnavailable
from ....errors import PublishRefused
from ....errors import TopologyMismatch
from ....text import escape
from ..database import TablesMissing


class InheritedConnection(Exception):
    """This process was forked while its parent had a connection in use."""


class WriteAheadLogRefused(Exception):
    """SQLite cannot use its write-ahead log on a file.

    :param mode: The journal mode that SQLite has instead.
    """


#: The first version with ``INSERT … RETURNING``.
_LOWEST_VERSION = (3, 35, 0)
_FULL = "is full"
_NO_TABLES = ("no such table", "no such column", "has no column")
_NO_DATABASE = ("is not a database", "malformed", "unsupported file format")
_NO_PERMISSION = ("readonly", "unable to open", "access permission", "not authorized")


def check_version(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> None:
    """Refuse a version of SQLite without ``RETURNING``.

    :raises BrokerRefused: with the version.
    """
    if version < _LOWEST_VERSION:
        raise BrokerRefused(
            f"This Python has SQLite {'.'.join(map(str, version))}, and messages in"
            f" SQLite need {'.'.join(map(str, _LOWEST_VERSION))} of 2021 or later. Use"
            " another build of Python."
        )


def is_disk_error(error: BaseException) -> bool:
    """Return whether the disk failed, so that the state of the file is unknown."""
    return isinstance(error, sqlite3.OperationalError) and "disk I/O" in str(error)


def translate(error: Exception, path: pathlib.Path, timeout: float) -> BrokerError:
    """Return this package's error for one of SQLite's.

    :param timeout: Seconds that the caller has waited for a lock.
    """
    text = str(error)
    if is_locked(error):
        return BrokerUnavailable(
            f"Another program has kept '{path}' locked for {timeout:g} s. It must"
            " commit its transaction, or end."
        )
    if _FULL in text:
        return BrokerUnavailable(
            f"The disk of '{path}' is full. Nothing is lost; make room on it."
        )
    if any(each in text for each in _NO_TABLES):
        return TablesMissing(
            f"'{path}' lacks tables of this release ({escape(error)}). Run 'flask"
            " qconsume declare'."
        )
    if any(each in text for each in _NO_DATABASE):
        return TopologyMismatch(
            f"'{path}' cannot be read as a database of SQLite ({escape(error)}). Check"
            " 'QCONSUME_BROKER_URL', or move the file away."
        )
    if any(each in text for each in _NO_PERMISSION):
        return _explain_permission(text, path)
    if isinstance(error, WriteAheadLogRefused):
        return BrokerRefused(
            f"SQLite cannot use its write-ahead log for '{path}' (its journal stays"
            f" '{escape(error)}'). Is the file on a network share?"
        )
    if isinstance(error, (sqlite3.DataError, sqlite3.IntegrityError)):
        return PublishRefused(f"SQLite refused the message: {escape(error)}.")
    if isinstance(error, InheritedConnection):
        return BrokerRefused(
            f"This process was forked while another thread used '{path}', so SQLite"
            " cannot lock the file here. Fork before threads publish, or start"
            " processes by 'spawn'."
        )
    if isinstance(error, PermissionError):
        return BrokerRefused(f"No permission for the folder of '{path}': {text}.")
    return BrokerUnavailable(f"SQLite does not work now on '{path}': {escape(error)}.")


def make_answer_lost(path: pathlib.Path, reason: str) -> AnswerLost:
    """Return the error for a transaction that may be stored or not."""
    return AnswerLost(
        f"The disk of '{path}' has not confirmed a transaction: {reason}."
    )


def _explain_permission(text: str, path: pathlib.Path) -> BrokerError:
    if not path.parent.is_dir():
        return BrokerUnavailable(f"There is no folder '{path.parent}'.")
    return BrokerRefused(
        f"SQLite needs permission to read and write '{path}', and to create files in"
        f" its folder, also to read messages ({text})."
    )
