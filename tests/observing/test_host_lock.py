"""The lock that one process of a host holds."""

from __future__ import annotations

import os
import pathlib

import pytest

from flask_qconsume.observing.host_lock import HostLock


def test_one_of_two_holds_the_lock(tmp_path: pathlib.Path) -> None:
    one, two = (HostLock(tmp_path / "lock") for _ in range(2))
    assert one.acquire()
    assert one.acquire()
    assert not two.acquire()
    one.release()
    one.release()
    assert two.acquire()
    two.release()


def test_a_deleted_file_is_locked_again(tmp_path: pathlib.Path) -> None:
    """Else a process that locks the new file would do the same work."""
    one, two = (HostLock(tmp_path / "lock") for _ in range(2))
    assert one.acquire()
    (tmp_path / "lock").unlink()
    assert two.acquire()
    assert not one.acquire()
    two.release()
    assert one.acquire()
    one.release()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        HostLock(tmp_path / "missing" / "lock").acquire()


@pytest.mark.process
def test_a_fork_neither_releases_nor_keeps_the_lock(tmp_path: pathlib.Path) -> None:
    one, two = (HostLock(tmp_path / "lock") for _ in range(2))
    assert one.acquire()
    receiver, sender = os.pipe()
    done, ending = os.pipe()
    pid = os.fork()
    if not pid:
        one.release()
        os.write(sender, b"." if not two.acquire() else b"!")
        os.read(done, 1)
        os._exit(0)
    assert os.read(receiver, 1) == b"."
    assert not two.acquire()
    one.release()
    # The child lives, and does not hold it.
    assert two.acquire()
    two.release()
    os.write(ending, b".")
    os.waitpid(pid, 0)
    for descriptor in (receiver, sender, done, ending):
        os.close(descriptor)
