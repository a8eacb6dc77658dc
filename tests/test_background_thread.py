"""Threads whose start is not waited for."""

from __future__ import annotations

import pytest

from flask_qconsume.background_thread import BackgroundThread

from .harness.scripts import run_script


def test_a_start_does_not_wait_until_the_thread_runs() -> None:
    """The greenlet may never run, if memory is too short for it."""
    ran: list[int] = []
    thread = BackgroundThread(lambda: ran.append(1))
    thread.start()
    assert ran == []
    assert thread.join(10)
    assert ran == [1]


@pytest.mark.process
def test_it_is_a_thread_where_gevent_has_patched_none() -> None:
    script = (
        "import threading\n"
        "from flask_qconsume.background_thread import BackgroundThread\n"
        "found = []\n"
        "thread = BackgroundThread(lambda: found.append(threading.get_ident()))\n"
        "thread.start()\n"
        "assert thread.join(10)\n"
        "print(found != [threading.get_ident()])\n"
    )
    assert run_script(script).stdout == "True\n"


def test_its_end_is_noticed_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    thread = BackgroundThread(lambda: 1 / 0)
    thread.start()
    assert thread.join(10)
    assert "ZeroDivisionError" in capfd.readouterr().err
