"""The metric folder of processes that one parent starts, named by the environment.

The parent chooses the name, and the first process that counts creates the folder: it
may run as a different user.
"""

from __future__ import annotations

import os
import pathlib
import secrets
import shutil
import tempfile

from .metric_folder import MetricFolder
from .metrics import FOLDER_VARIABLE

#: In memory: writing to a disk could make a process wait.
_MEMORY = "/dev/shm"


def offer_private_folder() -> None:
    """Name a folder for the children of this process, unless there is one already."""
    if not os.environ.get(FOLDER_VARIABLE):
        parent = _MEMORY if os.access(_MEMORY, os.W_OK) else tempfile.gettempdir()
        name = f"qconsume-metrics-{secrets.token_hex(8)}"
        os.environ[FOLDER_VARIABLE] = str(pathlib.Path(parent, name))


def remove_private_folder() -> None:
    """Remove the folder, unless a process still counts there.

    A server that replaced this one may have inherited the folder.
    """
    path = os.environ.pop(FOLDER_VARIABLE, "")
    if path and not MetricFolder(path, lambda text: None).has_living_processes():
        shutil.rmtree(path, ignore_errors=True)
