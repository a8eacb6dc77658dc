"""The file of a database: whether it exists, and is still the file that was opened."""

from __future__ import annotations

import os
import pathlib

from ....errors import BrokerError
from ....errors import BrokerRefused
from ....errors import BrokerUnavailable
from ..database import TablesMissing

#: Device and inode number: another file with the same path has other numbers.
FileIdentity = tuple[int, int]


class DatabaseFile:
    """The file that ``QCONSUME_BROKER_URL`` names.

    :param makes_folder: Whether a missing folder is created.
    """

    def __init__(self, path: pathlib.Path, makes_folder: bool) -> None:
        self.path = path
        self._makes_folder = makes_folder
        #: The file that was opened; ``None`` until then.
        self.opened: FileIdentity | None = None

    def is_open(self) -> bool:
        """Return whether the file that was opened is still there."""
        return self.opened is not None and self.identify() == self.opened

    def is_missing(self) -> bool:
        """Return whether the file is missing; its folder exists or may be created.

        :raises BrokerUnavailable: if the folder is missing.
        """
        self._check_folder()
        return self.identify() is None

    def check_exists(self) -> None:
        """Refuse a missing file: a mistyped name must not create one.

        :raises BrokerUnavailable: if the folder is missing, or the file has vanished.
        :raises TablesMissing: if this process has never opened the file.
        """
        self._check_folder()
        if self.identify() is not None:
            return
        text = f"There is no file '{self.path}'"
        if self.opened is not None:
            raise BrokerUnavailable(f"{text} any more.")
        raise TablesMissing(
            f"{text}. Is 'QCONSUME_BROKER_URL' right? Run 'flask qconsume declare' to"
            " create the file."
        )

    def check_is_no_folder(self) -> None:
        """Refuse a path that is a folder.

        :raises BrokerRefused: with the path.
        """
        if self.path.is_dir():
            raise BrokerRefused(
                f"'{self.path}' is a folder. 'QCONSUME_BROKER_URL' must name a file."
            )

    def prepare_folder(self) -> None:
        """Create the folder, if it is the app's instance folder or in it.

        :raises OSError: if it cannot be created.
        """
        if self._makes_folder:
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def note_open(self) -> None:
        """Remember which file was opened."""
        self.opened = self.identify()

    def identify(self) -> FileIdentity | None:
        """Return which file has the path now; ``None`` without a file."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _check_folder(self) -> None:
        if not self._makes_folder and not self.path.parent.is_dir():
            raise _explain_folder(self.path)


def _explain_folder(path: pathlib.Path) -> BrokerError:
    return BrokerUnavailable(
        f"There is no folder '{path.parent}' for the file '{path.name}'. Create it, or"
        " mount its disk."
    )
